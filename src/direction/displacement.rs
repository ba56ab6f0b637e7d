//! Displacements of a whole model: `θ + Σ cᵢ·zᵢ`, as values that are probed, applied and written down alike.
//!
//! *What it is not.* Arithmetic: [`super::lanes`] says what a displacement makes of one tensor.
//!
//! *What must stay true.* Terms are applied left to right, one fused multiply-add an element and term. Two lanes of a
//! pass that hold the same set (the same `Arc`) share its noise: a ± pair draws it once.

use std::{collections::BTreeMap, fmt::Debug, ops::Range, sync::Arc};

use super::ParamId;
use crate::{
    noise::{Law, NoiseKey},
    tensor::WeightRef,
};

/// A recipe for a tensor `z` of a parameter's shape.
///
/// All but [`Direction::LowRank`] and [`Direction::PerExample`] are elementwise: they may be scaled, masked and flipped
/// once each, in any order.
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
    /// `θ − θ₀`, one rounded subtraction; θ are the parameter's own values, as they are before the displacement.
    Drift(Arc<dyn Anchor>),
    /// Values that a rule makes wherever they are needed.
    Rows(Arc<dyn RowFn>),
    /// `of` times a value per element, one rounded product.
    Scaled {
        /// What is scaled: elementwise.
        of: Box<Direction>,
        /// Values of the parameter's stored shape, row-major.
        scale: Arc<[f32]>,
    },
    /// `of` where the mask has a bit; elements outside do not move: they keep every bit, the sign of zeros included.
    Masked {
        /// What is masked: elementwise.
        of: Box<Direction>,
        /// One bit per element of the stored shape, laid out as [`fuse::Mask`](super::fuse::Mask) says.
        mask: Arc<[u32]>,
    },
    /// `of` with a sign for each row and each column: `s[row] · of[row, col] · t[col]`. Under all signs `of` is the same:
    /// whatever several of them meet together, its values are made once.
    Flipped {
        /// What is flipped: elementwise.
        of: Box<Direction>,
        /// Names the signs of rows; none if all are positive.
        rows: Option<NoiseKey>,
        /// Names the signs of columns.
        cols: Option<NoiseKey>,
    },
    /// A direction of its own for each example of a batch, in the order of the batch: no point in space, but as many as there
    /// are examples, each of which is evaluated at its own ([`Displacement::of_example`]).
    /// Those that differ in their signs alone share a product.
    PerExample(Arc<[Direction]>),
}

impl Direction {
    /// Whether it is made of the weights themselves.
    pub fn reads_weights(&self) -> bool {
        match self {
            Direction::Weights | Direction::Drift(_) => true,
            Direction::Scaled { of, .. } | Direction::Masked { of, .. } | Direction::Flipped { of, .. } => {
                of.reads_weights()
            }
            Direction::PerExample(each) => each.iter().any(Direction::reads_weights),
            Direction::Dense { .. } | Direction::Explicit(_) | Direction::LowRank { .. } | Direction::Rows(_) => false,
        }
    }
}

/// Where a parameter's [`Direction::Drift`] is measured from.
///
/// *What must stay true.* The values never change: a run that is replayed measures from the same ones.
pub trait Anchor: Debug + Send + Sync {
    /// θ₀, of the parameter's stored shape; a vector is one row.
    fn weight(&self) -> WeightRef<'_>;
}

/// A rule for the rows of a direction, for example `m / (√v + e)` over the moments `m` and `v` that an optimizer keeps:
/// made where it is applied, it is not one more copy of the model.
///
/// *What must stay true.* It is a pure function: an element is named by its row and column alone, and has the same bits
/// whichever columns are asked for beside it, whenever, however often and by whichever thread.
pub trait RowFn: Debug + Send + Sync {
    /// Writes columns `cols` of row `row` to `out`, which is as long; a vector is row 0.
    fn row(&self, row: usize, cols: Range<usize>, out: &mut [f32]);
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
    /// The set in which example `i` of a batch moves along `sets[i]`.
    ///
    /// # Panics
    /// If they do not move the same parameters.
    pub fn per_example(sets: &[Arc<DirectionSet>]) -> Self {
        let moved = |set: &DirectionSet| set.params().collect::<Vec<_>>();
        let params = sets.first().map(|set| moved(set)).unwrap_or_default();
        assert!(sets.iter().all(|set| moved(set) == params), "examples that move different parameters");
        let each =
            |id: ParamId| (id, Direction::PerExample(sets.iter().map(|set| set.directions[&id].clone()).collect()));
        DirectionSet::new(params.into_iter().map(each))
    }
    /// Along which directions example `example` of a batch moves.
    ///
    /// # Panics
    /// If it has none of its own where others have.
    #[must_use]
    pub fn of_example(&self, example: usize) -> Self {
        let of = |(id, direction): (&ParamId, &Direction)| match direction {
            Direction::PerExample(each) => (*id, each[example].clone()),
            shared => (*id, shared.clone()),
        };
        DirectionSet::new(self.directions.iter().map(of))
    }
    /// Whether examples have directions of their own.
    pub fn is_per_example(&self) -> bool {
        self.directions.values().any(|direction| matches!(direction, Direction::PerExample(_)))
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
    /// Where example `example` of a batch is evaluated.
    ///
    /// # Panics
    /// As [`DirectionSet::of_example`].
    #[must_use]
    pub fn of_example(&self, example: usize) -> Self {
        let of =
            |term: &Term| Term { set: Arc::new(term.set.of_example(example)), coefficients: term.coefficients.clone() };
        Displacement { terms: self.terms.iter().map(of).collect() }
    }
    /// Whether examples have directions of their own.
    pub fn is_per_example(&self) -> bool {
        self.terms.iter().any(|term| term.set.is_per_example())
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
