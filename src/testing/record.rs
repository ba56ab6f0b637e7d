//! Oracles that record another one, and that answer from such a record.
//!
//! *What must stay true.* A replay evaluates nothing: what it computes, it computes from recorded numbers.

use std::{collections::VecDeque, sync::Arc};

use super::worlds::World;
use crate::{
    direction::{DirectionSet, Displacement, ParamId},
    optim::{BatchId, CommitReport, CostUnit, GradientSink, Losses, OperatorCost, Oracle, OracleError, Pool, Space},
};

/// An answer of an oracle.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of [`Oracle::losses`].
    Losses(Vec<Losses>),
    /// Of [`Oracle::slopes`].
    Slopes(Losses, Vec<Losses>),
    /// Of [`Oracle::batch_size`].
    BatchSize(usize),
    /// Of [`Oracle::losses_by_example`].
    LossesByExample(Vec<Losses>),
    /// Of [`Oracle::slopes_by_example`].
    SlopesByExample(Losses, Vec<Losses>),
    /// Of [`Oracle::epoch`].
    Epoch(u64),
}

impl Answer {
    /// The totals alone, where it was not asked by example.
    #[must_use]
    pub fn without_examples(&self) -> Answer {
        let total = |losses: &Losses| Losses { total: losses.total, per_example: Vec::new() };
        match self {
            Answer::Losses(losses) => Answer::Losses(losses.iter().map(total).collect()),
            Answer::Slopes(loss, slopes) => Answer::Slopes(total(loss), slopes.iter().map(total).collect()),
            other => other.clone(),
        }
    }
}

/// Passes everything on, and keeps the answers and the updates.
pub struct Recording<O> {
    /// The oracle that answers.
    pub inner: O,
    /// Its answers, in order.
    pub answers: Vec<Answer>,
    /// The updates, in order.
    pub updates: Vec<Displacement>,
}

impl<O> Recording<O> {
    /// Records `inner` from now on.
    pub fn new(inner: O) -> Self {
        Recording { inner, answers: Vec::new(), updates: Vec::new() }
    }
}

/// Answers from a record; parameters are those of a world, whose loss is never evaluated.
pub struct Replaying {
    world: World,
    answers: VecDeque<Answer>,
}

impl Replaying {
    /// The rest of a run that starts where `world` is.
    pub fn new(world: World, answers: impl IntoIterator<Item = Answer>) -> Self {
        Replaying { world, answers: answers.into_iter().collect() }
    }
    /// The parameters as the replayed updates left them.
    pub fn world(&self) -> &World {
        &self.world
    }
}

/// A record that has no answer, or another one, to what a replay asks.
#[derive(Debug, thiserror::Error)]
#[error("the record holds {found:?}, which answers no {asked}")]
pub struct Unrecorded {
    /// The call.
    pub asked: &'static str,
    /// The next answer.
    pub found: Option<Answer>,
}

impl Unrecorded {
    fn error(asked: &'static str, found: Option<Answer>) -> OracleError {
        OracleError::World(Box::new(Unrecorded { asked, found }))
    }
}

impl<O: Oracle> Oracle for Recording<O> {
    fn space(&self) -> &dyn Space {
        self.inner.space()
    }
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.inner.draw(pool, size)
    }
    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        let epoch = self.inner.epoch(batch)?;
        self.answers.push(Answer::Epoch(epoch));
        Ok(epoch)
    }
    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let losses = self.inner.losses(batch, probes)?;
        self.answers.push(Answer::Losses(losses.clone()));
        Ok(losses)
    }
    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        let (loss, slopes) = self.inner.slopes(batch, along)?;
        self.answers.push(Answer::Slopes(loss.clone(), slopes.clone()));
        Ok((loss, slopes))
    }
    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        let examples = self.inner.batch_size(batch)?;
        self.answers.push(Answer::BatchSize(examples));
        Ok(examples)
    }
    fn losses_by_example(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let losses = self.inner.losses_by_example(batch, probes)?;
        self.answers.push(Answer::LossesByExample(losses.clone()));
        Ok(losses)
    }
    fn slopes_by_example(
        &mut self,
        batch: BatchId,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        let (loss, slopes) = self.inner.slopes_by_example(batch, along)?;
        self.answers.push(Answer::SlopesByExample(loss.clone(), slopes.clone()));
        Ok((loss, slopes))
    }
    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        let losses = self.inner.gradients(batch, at, wrt, sink)?;
        self.answers.push(Answer::Losses(losses.clone()));
        Ok(losses)
    }
    fn backward_costs(&mut self, batch: BatchId, unit: CostUnit) -> Result<Vec<OperatorCost>, OracleError> {
        self.inner.backward_costs(batch, unit)
    }
    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.updates.push(update.clone());
        self.inner.commit(update)
    }
}

impl Oracle for Replaying {
    fn space(&self) -> &dyn Space {
        &self.world
    }
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.world.draw(pool, size)
    }
    fn epoch(&mut self, _batch: BatchId) -> Result<u64, OracleError> {
        match self.answers.pop_front() {
            Some(Answer::Epoch(epoch)) => Ok(epoch),
            found => Err(Unrecorded::error("epoch", found)),
        }
    }
    fn losses(&mut self, _batch: BatchId, _probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        match self.answers.pop_front() {
            Some(Answer::Losses(losses)) => Ok(losses),
            found => Err(Unrecorded::error("losses", found)),
        }
    }
    fn slopes(&mut self, _batch: BatchId, _along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        match self.answers.pop_front() {
            Some(Answer::Slopes(loss, slopes)) => Ok((loss, slopes)),
            found => Err(Unrecorded::error("slopes", found)),
        }
    }
    fn batch_size(&mut self, _batch: BatchId) -> Result<usize, OracleError> {
        match self.answers.pop_front() {
            Some(Answer::BatchSize(examples)) => Ok(examples),
            found => Err(Unrecorded::error("batch size", found)),
        }
    }
    fn losses_by_example(&mut self, _batch: BatchId, _probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        match self.answers.pop_front() {
            Some(Answer::LossesByExample(losses)) => Ok(losses),
            found => Err(Unrecorded::error("losses by example", found)),
        }
    }
    fn slopes_by_example(
        &mut self,
        _batch: BatchId,
        _along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        match self.answers.pop_front() {
            Some(Answer::SlopesByExample(loss, slopes)) => Ok((loss, slopes)),
            found => Err(Unrecorded::error("slopes by example", found)),
        }
    }
    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.world.commit(update)
    }
}
