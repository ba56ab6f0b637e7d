//! A model and the parameters of it that a run moves: what updates are applied to, live or in a replay.
//!
//! *What it is not.* It has no data: as an oracle by itself it counts draws and knows no loss. *What must stay true*: an
//! update moves trainable parameters only, and makes the same bits wherever it is applied.

use std::sync::Arc;

use crate::{
    direction::{DirectionSet, Displacement, Moves, ParamId, ParamTable, gram},
    kernels::Context,
    linalg::Square,
    model::Model,
    optim::{BatchId, CommitReport, Losses, Oracle, OracleError, Pool},
    tensor::{MatMut, WeightRef},
};

/// A model of which some parameters may move.
#[derive(Debug)]
pub struct Tuned {
    model: Model,
    cx: Context,
    trainable: Vec<ParamId>,
    draws: u64,
}

/// A loss was asked for where there is no data.
#[derive(Debug, thiserror::Error)]
#[error("a replay without data was asked for a loss")]
struct NoData;

impl Tuned {
    /// `model`, of which the parameters `trainable`, in ascending order, may move.
    ///
    /// # Panics
    /// If there is nothing to train.
    pub fn new(model: Model, cx: Context, trainable: Vec<ParamId>) -> Tuned {
        assert!(!trainable.is_empty(), "nothing to train");
        Tuned { model, cx, trainable, draws: 0 }
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// The model, to be put at another point.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }
    /// What it is computed with.
    pub fn context(&self) -> &Context {
        &self.cx
    }
    /// How many batches have been drawn.
    pub fn draws(&self) -> u64 {
        self.draws
    }
    /// Goes on after `draws` batches.
    pub fn skip_to(&mut self, draws: u64) {
        self.draws = draws;
    }
}

impl Oracle for Tuned {
    fn params(&self) -> &ParamTable {
        self.model.store().params()
    }
    fn trainable(&self) -> &[ParamId] {
        &self.trainable
    }
    fn inspect(&self, id: ParamId) -> WeightRef<'_> {
        self.model.store().weight(id)
    }
    fn gram(&self, sets: &[Arc<DirectionSet>]) -> Square {
        gram(self.cx.isa, self.params(), &sets.iter().map(|set| &**set).collect::<Vec<_>>())
    }

    fn draw(&mut self, _: Pool, _: Option<usize>) -> Result<BatchId, OracleError> {
        self.draws += 1;
        Ok(BatchId(self.draws - 1))
    }

    fn losses(&mut self, _: BatchId, _: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        Err(OracleError::World(Box::new(NoData)))
    }

    fn slopes(&mut self, _: BatchId, _: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        Err(OracleError::World(Box::new(NoData)))
    }

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        let update = std::slice::from_ref(update);
        let (mut squares, mut values) = (0.0, 0);
        for &id in &self.trainable {
            let param = self.model.store().params()[id].clone();
            values += param.elements();
            let moves = Moves::of(update, id, &param);
            if !moves.is_empty() {
                let own = self.model.store_mut().own(id);
                squares += moves.apply(&self.cx, MatMut::new(own, param.rows(), param.cols()));
            }
        }
        Ok(CommitReport { update_rms: (squares / values as f64).sqrt() })
    }
}
