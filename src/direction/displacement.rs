//! Displacements of a whole model: `θ + Σ cᵢ·zᵢ`, as values that are probed, applied and written down alike.
//!
//! *What it is not.* Arithmetic: [`super::lanes`] says what a displacement makes of one tensor.
//!
//! *What must stay true.* Terms are applied left to right, one fused multiply-add an element and term. Two lanes of a
//! pass that hold the same set (the same `Arc`) share its noise: a ± pair draws it once.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use super::ParamId;
use crate::{
    noise::{Law, NoiseKey},
    tensor::WeightRef,
};

/// The values that a parameter had where its training began.
pub trait Anchor: Debug + Send + Sync {
    /// As they are stored.
    fn weight(&self) -> WeightRef<'_>;
}

/// A recipe for a tensor `z` of a parameter's shape.
#[derive(Clone, Debug)]
pub enum Direction {
    /// Keyed noise: nothing is stored.
    Dense {
        /// Names the draw; the parameter's name completes it.
        key: NoiseKey,
        /// The distribution of its values.
        law: Law,
    },
    /// Values of the parameter's stored shape, row-major.
    Explicit(Arc<[f32]>),
    /// `left · rightᵀ`, two thin factors, row-major: a matmul multiplies by them one after the other.
    LowRank {
        /// `[rows, rank]` of the stored shape.
        left: Arc<[f32]>,
        /// `[cols, rank]` of the stored shape.
        right: Arc<[f32]>,
        /// Columns of both.
        rank: usize,
    },
    /// The parameter's own values, as they are before the displacement: weight decay.
    Weights,
}

/// One direction for each of some parameters; the others do not move.
#[derive(Clone, Debug, Default)]
pub struct DirectionSet {
    directions: BTreeMap<ParamId, Direction>,
}

impl DirectionSet {
    /// A set of these directions.
    pub fn new(directions: impl IntoIterator<Item = (ParamId, Direction)>) -> Self {
        DirectionSet { directions: directions.into_iter().collect() }
    }
    /// The direction of a parameter, if it moves.
    pub fn get(&self, id: ParamId) -> Option<&Direction> {
        self.directions.get(&id)
    }
    /// The parameters that move.
    pub fn params(&self) -> impl Iterator<Item = ParamId> {
        self.directions.keys().copied()
    }
}

/// The scale of a set of directions, for example `epsilon` or `−lr · projected_grad`.
#[derive(Clone, Debug, PartialEq)]
pub enum Coefficients {
    /// The same for every parameter.
    One(f32),
    /// Each parameter's own; 0 for those that are not named.
    PerParam(BTreeMap<ParamId, f32>),
}

impl Coefficients {
    /// The scale of a parameter's direction.
    pub fn of(&self, id: ParamId) -> f32 {
        match self {
            Coefficients::One(coefficient) => *coefficient,
            Coefficients::PerParam(coefficients) => coefficients.get(&id).copied().unwrap_or(0.0),
        }
    }
    /// Whether each of them is finite.
    pub fn are_finite(&self) -> bool {
        match self {
            Coefficients::One(coefficient) => coefficient.is_finite(),
            Coefficients::PerParam(coefficients) => coefficients.values().all(|coefficient| coefficient.is_finite()),
        }
    }
}

/// One scaled set of directions.
#[derive(Clone, Debug)]
pub struct Term {
    /// The directions.
    pub set: Arc<DirectionSet>,
    /// Their scale.
    pub coefficients: Coefficients,
}

impl Term {
    /// The parameter's direction and its scale; `None` if the term does not move it: a scale of 0 keeps every bit,
    /// the sign of zeros included.
    pub fn get(&self, id: ParamId) -> Option<(&Direction, f32)> {
        let coefficient = self.coefficients.of(id);
        self.set.get(id).filter(|_| coefficient != 0.0).map(|direction| (direction, coefficient))
    }
}

/// `Σ cᵢ·zᵢ`, applied left to right. The default moves nothing.
#[derive(Clone, Debug, Default)]
pub struct Displacement {
    /// The terms in order of application.
    pub terms: Vec<Term>,
}

impl Displacement {
    /// `coefficient · set`.
    pub fn along(set: &Arc<DirectionSet>, coefficient: f32) -> Self {
        let coefficients = Coefficients::One(coefficient);
        Displacement { terms: vec![Term { set: Arc::clone(set), coefficients }] }
    }
    /// Whether some term moves the parameter.
    pub fn moves(&self, id: ParamId) -> bool {
        self.terms.iter().any(|term| term.get(id).is_some())
    }
    /// Whether every coefficient is finite.
    pub fn is_finite(&self) -> bool {
        self.terms.iter().all(|term| term.coefficients.are_finite())
    }
}
