//! What an optimizer sees of the world: an oracle that answers numbers.
//!
//! *What it is.* [`Oracle`] may be a model with its data, a toy problem, a journal being replayed or another oracle
//! restricted to some parameters.
//!
//! *What it is not.* A model: nothing here knows about layers or tokens.
//!
//! *What must stay true.* Everything but [`Oracle::commit`] leaves the parameters as they are (contract C3). Answers
//! depend on the parameters, the batch and the question only, so that recorded answers and the same optimizer code
//! make the same updates (contract C4).

use std::sync::Arc;

use super::options::choice;
use crate::{
    direction::{Anchor, Direction, DirectionSet, Displacement, ParamId, ParamTable, gram, norm},
    kernels::Context,
    linalg::Square,
    tensor::{Block, WeightRef},
};

/// Which sequence of batches a draw continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// All training examples.
    Train,
    /// Those of at most so many tokens.
    Short(u32),
    /// Those of more tokens.
    Long(u32),
}

/// A batch that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId(pub u64);

/// The loss of a batch at one point, or its derivative along one direction.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Losses {
    /// Of the whole batch: what is minimised.
    pub total: f64,
    /// What each example contributes, in batch order: the contributions sum to the total.
    pub per_example: Vec<f64>,
}

impl Losses {
    /// Contributions of examples with their sum: one chain in batch order.
    pub fn summed(per_example: Vec<f64>) -> Losses {
        Losses { total: per_example.iter().fold(0.0, |total, loss| total + loss), per_example }
    }
}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct CommitReport {
    /// Root mean square of the change over all trainable values.
    pub update_rms: f64,
    /// Root mean square of what rounding changed on top: 0 where values are kept exactly.
    pub rounding_rms: f64,
}

impl CommitReport {
    /// What both updates did that reports are of: root mean squares over the same values.
    #[must_use]
    pub fn and(self, other: CommitReport) -> CommitReport {
        let both = |a: f64, b: f64| (a * a + b * b).sqrt();
        CommitReport {
            update_rms: both(self.update_rms, other.update_rms),
            rounding_rms: both(self.rounding_rms, other.rounding_rms),
        }
    }
}

/// Why an oracle has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OracleError {
    /// The objective has no derivative, for example an accuracy.
    #[error("this objective has no exact slopes; choose the objective \"loss\", or differences of losses")]
    NoSlopes,
    /// The objective has no gradient, for example an accuracy.
    #[error("this objective has no gradients; choose the objective \"loss\", or an optimizer that needs losses only")]
    NoGradients,
    /// The world has no examples that are drawn again and again.
    #[error("this world counts no epochs")]
    NoEpochs,
    /// What the numbers come from failed: a file that changed underneath, a journal that ends.
    #[error(transparent)]
    World(Box<dyn std::error::Error + Send + Sync>),
}

/// What moves: parameters and their values, and what to compute with them.
pub trait Space {
    /// All parameters, those that stay as they are included.
    fn params(&self) -> &ParamTable;

    /// The parameters that may move, in ascending order: at least one.
    fn trainable(&self) -> &[ParamId];

    /// The values of a parameter.
    fn inspect(&self, id: ParamId) -> WeightRef<'_>;

    /// The values that a parameter had before the run, at no cost in memory where a checkpoint has them.
    fn anchor(&self, id: ParamId) -> Arc<dyn Anchor>;

    /// What an optimizer's own arithmetic is done with.
    fn context(&self) -> &Context;
}

/// Where gradients go, tensor by tensor.
pub trait GradientSink {
    /// Takes a parameter's gradient: complete, of its stored shape, row-major. The answer, if any, moves this parameter
    /// alone and is committed as soon as nothing of the pass reads its values any more.
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement>;

    /// Is told what committing its last answer did.
    fn moved(&mut self, _: CommitReport) {}
}

choice! {
    /// What costs are counted in.
    pub enum CostUnit {
        /// Floating-point operations, where a multiplication and its addition count as two: the same on every machine.
        Flops = "flops",
        /// Nanoseconds that this machine takes at the sizes of the batch. They come out otherwise every time: a journal keeps
        /// them, and a run that is begun anew may be another.
        Time = "time",
    }
    expected "\"flops\" or \"time\""
}

/// What one operator costs a step, in a [`CostUnit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cost {
    /// Of the forward pass.
    pub forward: u64,
    /// Of the gradient by what the operator reads: what anything further from the loss waits for.
    pub through: u64,
    /// Of the gradient by its parameter.
    pub into: u64,
}

/// An operator of a model as the backward pass meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorCost {
    /// What it is an operator of; none where it has no values of its own. A parameter stands once, where its gradient is
    /// complete.
    pub parameter: Option<ParamId>,
    /// What it costs.
    pub cost: Cost,
}

/// The only thing an optimizer can see.
pub trait Oracle {
    /// The parameters.
    fn space(&self) -> &dyn Space;

    /// The next batch of a pool, of `size` examples or of the run's batch size. Which examples depends on the run's
    /// seed, the pool and the number of the draw only. Where all examples are short or all are long, so that one pool would
    /// be empty, both are all examples.
    ///
    /// # Errors
    /// [`OracleError`] if the world behind fails.
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError>;

    /// How often all examples of its pool had been drawn before a batch began.
    ///
    /// # Errors
    /// [`OracleError::NoEpochs`], or another if the world behind fails.
    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        let _ = batch;
        Err(OracleError::NoEpochs)
    }

    /// How many examples a batch has.
    ///
    /// # Errors
    /// [`OracleError`] if the world behind fails.
    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError>;

    /// The losses of a batch at θ + each of `probes`, all in one pass. What each example contributes is not to be relied on:
    /// [`Oracle::losses_by_example`] is.
    ///
    /// # Errors
    /// [`OracleError`] if the world behind fails; a loss that is not finite is an answer.
    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError>;

    /// As [`Oracle::losses`], with what each example contributes; probes may have directions of their own for each
    /// example.
    ///
    /// # Errors
    /// As [`Oracle::losses`].
    fn losses_by_example(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        self.losses(batch, probes)
    }

    /// The loss of a batch at θ and its exact derivative along each of `along`.
    ///
    /// # Errors
    /// [`OracleError::NoSlopes`], or another if the world behind fails.
    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError>;

    /// As [`Oracle::slopes`], with what each example contributes, which may have directions of its own.
    ///
    /// # Errors
    /// As [`Oracle::slopes`].
    fn slopes_by_example(
        &mut self,
        batch: BatchId,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        self.slopes(batch, along)
    }

    /// Hands over Σ wᵢ·∇L(θ + dᵢ) of a batch for the parameters `wrt` (ascending), those nearest to the loss first, and
    /// answers the losses. Where one of these is not finite, nothing is handed over.
    ///
    /// # Errors
    /// [`OracleError::NoGradients`], or another if the world behind fails.
    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        let _ = (batch, at, wrt, sink);
        Err(OracleError::NoGradients)
    }

    /// What gradients of such a batch cost, operator by operator from the loss down. It depends on the sizes of the batch
    /// and the model alone, but for what a time depends on.
    ///
    /// # Errors
    /// [`OracleError::NoGradients`], or another if the world behind fails.
    fn backward_costs(&mut self, batch: BatchId, unit: CostUnit) -> Result<Vec<OperatorCost>, OracleError> {
        let _ = (batch, unit);
        Err(OracleError::NoGradients)
    }

    /// Applies an update for good. It moves trainable parameters only, and is finite.
    ///
    /// # Errors
    /// [`OracleError`] if the world behind fails.
    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError>;
}

impl dyn Oracle + '_ {
    /// [`Space::params`].
    pub fn params(&self) -> &ParamTable {
        self.space().params()
    }
    /// [`Space::trainable`].
    pub fn trainable(&self) -> &[ParamId] {
        self.space().trainable()
    }
    /// How many values may move.
    pub fn dimension(&self) -> usize {
        self.trainable().iter().map(|&id| self.params()[id].elements()).sum()
    }
    /// [`Space::inspect`].
    pub fn inspect(&self, id: ParamId) -> WeightRef<'_> {
        self.space().inspect(id)
    }
    /// The norm of a direction of one parameter, at its values.
    pub fn norm(&self, id: ParamId, direction: &Direction) -> f64 {
        norm(self.space().context(), direction, &self.params()[id], self.inspect(id))
    }
    /// Inner products of directions over all parameters.
    pub fn gram(&self, sets: &[Arc<DirectionSet>]) -> Square {
        gram(self.space().context().isa, self.params(), &sets.iter().map(Arc::as_ref).collect::<Vec<_>>())
    }
}
