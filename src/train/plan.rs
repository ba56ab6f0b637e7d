//! What a run will cost, before its first step: memory, time, steps.
//!
//! *What it is.* The first step is rehearsed: its optimizer is asked for its probes, which are evaluated on the first
//! batch and timed, and its update is not applied. *What must stay true*: nothing has moved afterwards, and no batch is
//! spent.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use serde::Serialize;

use super::{Job, LiveOracle, TrainError, memory::Resident, snapshot};
use crate::{
    direction::{DirectionSet, Displacement, ParamId},
    journal::MAX_VALUES,
    optim::{
        BatchId, Clock, CommitReport, CostUnit, GradientSink, Losses, OperatorCost, Optimizer, Oracle, OracleError,
        Pool, Space,
    },
    tensor::Block,
};

/// What a run will cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Steps, if patience does not end the run before.
    pub steps: u64,
    /// Examples that are learnt from, that select, and that validate.
    pub examples: BTreeMap<&'static str, usize>,
    /// Of those, examples that are longer than the model reads, and are cut.
    pub cut: usize,
    /// Parameters that are trained.
    pub trained_parameters: usize,
    /// All parameters.
    pub parameters: usize,
    /// Losses and slopes of a step.
    pub evaluations: usize,
    /// Tokens that go through the model in a step, those of every evaluation counted; of the first batch.
    pub tokens: u64,
    /// How long the evaluations of a step take; of the first batch.
    pub seconds: f64,
    /// What the process holds by now, the model's file included.
    pub resident_bytes: u64,
    /// What private copies, those of all trained parameters, take of it.
    pub overlay_bytes: u64,
    /// What the optimizer remembers from step to step, beside the weights.
    pub state_bytes: u64,
    /// What the run directory will hold when the run is over: two snapshots and, while one is written, a third.
    pub disk_bytes: u64,
}

impl Plan {
    /// Rehearses a step of `optimizer`, which is not the run's own.
    ///
    /// # Errors
    /// [`TrainError`] if a loss cannot be evaluated.
    pub fn of(job: &Job, oracle: &mut LiveOracle, optimizer: &mut dyn Optimizer) -> Result<Plan, TrainError> {
        let clock = Clock { seed: job.config.seed, step: 0, steps: job.config.train.steps };
        let draws = oracle.tuned().draws();
        let begin = Instant::now();
        let mut rehearsal = Rehearsal { inner: oracle, evaluations: 0, values: 0 };
        let outcome = optimizer.step(&mut rehearsal, clock);
        let Rehearsal { evaluations, values, .. } = rehearsal;
        oracle.tuned_mut().skip_to(draws);
        if values > MAX_VALUES {
            return Err(TrainError::TooManyLosses { found: values, limit: MAX_VALUES });
        }
        outcome?;
        let seconds = begin.elapsed().as_secs_f64();

        let state_bytes = snapshot::state_bytes(optimizer);
        let space = oracle.space();
        let params = space.params();
        let trained: usize = space.trainable().iter().map(|&id| params[id].elements()).sum();
        let sizes = [("train", Some(oracle.examples())), ("dev", job.dev.as_ref().map(super::Exam::len))];
        let sizes = sizes.into_iter().chain([("valid", job.valid.as_ref().map(super::Exam::len))]);
        let store = oracle.tuned().model().store();
        let overlay_bytes = store.footprint(space.trainable(), store.precision()).private;
        let written = |&id: &ParamId| (params[id].elements() * store.tuned_type(id).size()) as u64;
        let snapshot_bytes = space.trainable().iter().map(written).sum::<u64>() + state_bytes;
        Ok(Plan {
            steps: job.config.train.steps,
            examples: sizes.filter_map(|(name, size)| Some((name, size?))).collect(),
            cut: job.cut,
            trained_parameters: trained,
            parameters: params.iter().map(|(_, param)| param.elements()).sum(),
            evaluations,
            tokens: oracle.take_tokens(),
            seconds,
            resident_bytes: Resident::measure().now,
            overlay_bytes,
            state_bytes,
            disk_bytes: 3 * snapshot_bytes,
        })
    }
}

/// Passes everything on but updates.
struct Rehearsal<'o> {
    inner: &'o mut LiveOracle,
    evaluations: usize,
    /// Numbers of the step's record.
    values: usize,
}

/// Passes gradients on; what they are answered is not applied.
struct Unmoved<'s>(&'s mut dyn GradientSink);

impl GradientSink for Unmoved<'_> {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        self.0.take(id, gradient);
        None
    }
}

/// A step that cannot be recorded is not evaluated.
#[derive(Debug, thiserror::Error)]
#[error("more losses than a record holds")]
struct Unrecordable;

impl Rehearsal<'_> {
    /// Counts evaluations that are recorded as so many values each.
    fn count(&mut self, evaluations: usize, values: usize) -> Result<(), OracleError> {
        self.evaluations += evaluations;
        self.values += evaluations * values;
        if self.values > MAX_VALUES { Err(OracleError::World(Box::new(Unrecordable))) } else { Ok(()) }
    }
}

impl Oracle for Rehearsal<'_> {
    fn space(&self) -> &dyn Space {
        self.inner.space()
    }
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.inner.draw(pool, size)
    }
    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        self.values += 1;
        self.inner.batch_size(batch)
    }
    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        self.values += 1;
        self.inner.epoch(batch)
    }
    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        self.count(probes.len(), 1)?;
        self.inner.losses(batch, probes)
    }
    fn losses_by_example(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let examples = self.inner.batch_size(batch)?;
        self.count(probes.len(), examples)?;
        self.inner.losses_by_example(batch, probes)
    }
    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        self.count(1 + along.len(), 1)?;
        self.inner.slopes(batch, along)
    }
    fn slopes_by_example(
        &mut self,
        batch: BatchId,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        let examples = self.inner.batch_size(batch)?;
        self.count(1 + along.len(), examples)?;
        self.inner.slopes_by_example(batch, along)
    }
    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        self.count(at.len(), 1)?;
        self.inner.gradients(batch, at, wrt, &mut Unmoved(sink))
    }
    fn backward_costs(&mut self, batch: BatchId, unit: CostUnit) -> Result<Vec<OperatorCost>, OracleError> {
        let operators = self.inner.backward_costs(batch, unit)?;
        // Times are recorded: three of each operator.
        self.values += if unit == CostUnit::Time { 3 * operators.len() } else { 0 };
        Ok(operators)
    }
    fn commit(&mut self, _: &Displacement) -> Result<CommitReport, OracleError> {
        Ok(CommitReport::default())
    }
}
