//! Displacements of a whole model: `θ + Σ cᵢ·zᵢ`, as values that are probed, applied and written down alike.
//!
//! *What it is not.* Arithmetic: [`super::lanes`] says what a displacement makes of one tensor.
//!
//! *What must stay true.* Terms are applied left to right, one fused multiply-add an element and term. Two lanes of a
//! pass that hold the same set (the same `Arc`) share its noise: a ± pair draws it once.

use std::{collections::BTreeMap, sync::Arc};

use super::ParamId;
use crate::noise::{Law, NoiseKey};

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

/// One scaled set of directions.
#[derive(Clone, Debug)]
pub struct Term {
    /// The directions.
    pub set: Arc<DirectionSet>,
    /// Their scale, for example `epsilon` or `−lr · projected_grad`.
    pub coefficient: f32,
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
        Displacement { terms: vec![Term { set: Arc::clone(set), coefficient }] }
    }
    /// Whether some term moves the parameter.
    pub fn moves(&self, id: ParamId) -> bool {
        self.terms.iter().any(|term| term.coefficient != 0.0 && term.set.get(id).is_some())
    }
}
