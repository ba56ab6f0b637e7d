//! The oracle of a real run: a model on its examples.
//!
//! *What it is not.* No files and no loop; updates are for [`Tuned`]. *What must stay true*: probing leaves the weights
//! as they are; which examples a batch has depends on the seed and the number of the draw; how a batch is cut into
//! passes changes no bit, because an example is never cut and sums are chains over examples.

use std::sync::Arc;

use super::{Tuned, pools::Pools};
use crate::{
    direction::{DirectionSet, Displacement, ParamId},
    model::{Differentiated, Gradients, Kept, Model, ModelError, Summand, Unit, Work},
    objective::{ExamplesError, Minimised},
    optim::{
        BatchId, CommitReport, Cost, CostUnit, GradientSink, Losses, OperatorCost, Oracle, OracleError, Pool, Space,
    },
    tensor::Block,
};

/// A model on the examples of a run.
#[derive(Debug)]
pub struct LiveOracle {
    tuned: Tuned,
    examples: Minimised,
    pools: Pools,
    batch_size: usize,
    /// Rows of one pass over the weights, all lanes together, unless a single example has more.
    rows: usize,
    /// The same of a pass that goes back, by what it keeps.
    rows_back: [(Kept, usize); 2],
    batch: Vec<usize>,
    tokens: u64,
}

impl LiveOracle {
    /// An oracle over `examples`, drawn in batches of `batch_size` in the order of `seed`; a pass over the weights takes
    /// as many rows as fit into `activations` bytes, which changes no bit.
    ///
    /// # Panics
    /// If there is no example.
    pub fn new(tuned: Tuned, examples: Minimised, (batch_size, seed): (usize, u64), activations: u64) -> LiveOracle {
        let pools = Pools::new((0..examples.len()).map(|number| examples.tokens(number)).collect(), seed);
        let spec = tuned.model().spec();
        let fitting = |bytes: usize| usize::try_from(activations / bytes as u64).unwrap_or(usize::MAX).max(1);
        let rows_back = [Kept::All, Kept::BlockInputs].map(|kept| (kept, fitting(spec.tape_bytes(kept))));
        let rows = fitting(spec.row_bytes());
        LiveOracle { tuned, examples, pools, batch_size, rows, rows_back, batch: Vec::new(), tokens: 0 }
    }

    /// The model and what of it moves.
    pub fn tuned(&self) -> &Tuned {
        &self.tuned
    }
    /// The model and what of it moves, to be put at another point.
    pub fn tuned_mut(&mut self) -> &mut Tuned {
        &mut self.tuned
    }
    /// The model and what of it moves, without the examples.
    pub fn into_tuned(self) -> Tuned {
        self.tuned
    }
    /// How many examples batches are drawn from.
    pub fn examples(&self) -> usize {
        self.examples.len()
    }
    /// How many tokens were evaluated since this was asked last, those of every lane counted.
    pub fn take_tokens(&mut self) -> u64 {
        std::mem::take(&mut self.tokens)
    }

    /// The mean loss of the examples at `numbers` in every lane: over all that their weights count, whatever the passes.
    fn score(&self, numbers: &[usize], lanes: &[Displacement]) -> Result<Vec<Losses>, ExamplesError> {
        let (model, cx) = (self.tuned.model(), self.tuned.context());
        self.means(numbers, lanes.len(), |pass| self.examples.losses(model, cx, pass, lanes))
    }

    /// The mean loss of the examples at `numbers`, and its slope along each direction.
    fn differentiate(
        &self,
        numbers: &[usize],
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), ExamplesError> {
        let (model, cx) = (self.tuned.model(), self.tuned.context());
        let mut means = self.means(numbers, 1 + along.len(), |pass| {
            let (losses, slopes) = self.examples.slopes(model, cx, pass, along)?;
            Ok(std::iter::once(losses).chain(slopes).collect())
        })?;
        let slopes = means.split_off(1);
        Ok((means.remove(0), slopes))
    }

    /// The means of `groups` numbers for each of the examples at `numbers`, which `evaluate` answers for some at a time, from
    /// one of them on.
    fn means(
        &self,
        numbers: &[usize],
        groups: usize,
        evaluate: impl Fn((usize, &[usize])) -> Result<Vec<Vec<f64>>, ExamplesError>,
    ) -> Result<Vec<Losses>, ExamplesError> {
        let weight = numbers.iter().map(|&number| self.examples.weight(number)).sum::<usize>() as f64;
        let mut contributions = vec![Vec::with_capacity(numbers.len()); groups];
        let mut first = 0;
        for pass in self.examples.passes(numbers, self.rows / groups) {
            for (of_group, values) in contributions.iter_mut().zip(evaluate((first, pass))?) {
                of_group.extend(values.into_iter().map(|value| value / weight));
            }
            first += pass.len();
        }
        Ok(contributions.into_iter().map(Losses::summed).collect())
    }

    /// Gradients of the batch at each of `at`, one after the other. A batch that does not fit into memory with all that its
    /// way back needs keeps the inputs of blocks, and is cut only if that is too much: only gradients that no other pass
    /// adds to are handed over one by one.
    fn go_back(
        &mut self,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        let cx = self.tuned.context().clone();
        let weight = self.batch.iter().map(|&number| self.examples.weight(number)).sum::<usize>() as f64;
        let total: usize = self.batch.iter().map(|&number| self.examples.tokens(number)).sum();
        let [all, inputs] = self.rows_back;
        let (kept, rows) = if total <= all.1 { all } else { inputs };
        let passes: Vec<&[usize]> = self.examples.passes(&self.batch, rows).collect();
        let mut sums = Gradients::new(wrt, kept);
        let mut moving = Moving { tuned: &mut self.tuned, sink, failure: None };
        let (mut answers, mut is_finite) = (Vec::with_capacity(at.len()), true);
        for (lane, (factor, displacement)) in at.iter().enumerate() {
            let mut contributions = Vec::with_capacity(self.batch.len());
            for (number, pass) in passes.iter().enumerate() {
                let is_last = is_finite && (lane + 1, number + 1) == (at.len(), passes.len());
                let summand = Summand { cx: &cx, at: displacement, is_last };
                let losses = self.examples.gradients(&mut moving, &mut sums, summand, pass, factor / weight);
                contributions.extend(losses.map_err(failed)?.into_iter().map(|loss| loss / weight));
            }
            let losses = Losses::summed(contributions);
            is_finite &= losses.total.is_finite();
            answers.push(losses);
        }
        moving.failure.map_or(Ok(answers), Err)
    }

    /// Counts the tokens of the batch in `groups` groups of rows.
    fn count(&mut self, groups: usize) {
        let rows: usize = self.batch.iter().map(|&number| self.examples.tokens(number)).sum();
        self.tokens += (rows * groups) as u64;
    }
}

/// A model that moves while its gradients are handed over.
struct Moving<'a> {
    tuned: &'a mut Tuned,
    sink: &'a mut dyn GradientSink,
    /// The first failure: nothing moves after it.
    failure: Option<OracleError>,
}

impl Differentiated for Moving<'_> {
    fn model(&self) -> &Model {
        self.tuned.model()
    }

    fn take(&mut self, id: ParamId, gradient: Block<f32>) {
        let Some(update) = self.sink.take(id, gradient).filter(|_| self.failure.is_none()) else { return };
        let moves_others = update.terms.iter().any(|term| term.set.params().any(|other| other != id));
        assert!(!moves_others, "the answer to a gradient moves another parameter");
        let unchanged = self.tuned.model().store().check_unchanged().map_err(|error| failed(ModelError::from(error)));
        match unchanged.and_then(|()| self.tuned.commit(&update)) {
            Ok(report) => self.sink.moved(report),
            Err(failure) => self.failure = Some(failure),
        }
    }
}

fn failed(error: impl Into<ExamplesError>) -> OracleError {
    OracleError::World(Box::new(error.into()))
}

impl Oracle for LiveOracle {
    fn space(&self) -> &dyn Space {
        &self.tuned
    }

    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        let batch = self.tuned.draw(pool, size)?;
        self.batch = self.pools.draw(pool, batch.0, size.unwrap_or(self.batch_size));
        Ok(batch)
    }

    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        assert_eq!(batch.0 + 1, self.tuned.draws(), "the batch that was drawn last");
        Ok(self.batch.len())
    }

    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        Ok(self.pools.epoch(batch.0, self.batch_size))
    }

    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        assert_eq!(batch.0 + 1, self.tuned.draws(), "the batch that was drawn last");
        let losses = self.score(&self.batch, probes).map_err(failed)?;
        self.tuned.model().store().check_unchanged().map_err(|error| failed(ModelError::from(error)))?;
        self.count(probes.len());
        Ok(losses)
    }

    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        assert_eq!(batch.0 + 1, self.tuned.draws(), "the batch that was drawn last");
        if !self.examples.has_slopes() {
            return Err(OracleError::NoSlopes);
        }
        let slopes = self.differentiate(&self.batch, along).map_err(failed)?;
        self.tuned.model().store().check_unchanged().map_err(|error| failed(ModelError::from(error)))?;
        self.count(1 + along.len());
        Ok(slopes)
    }

    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        assert_eq!(batch.0 + 1, self.tuned.draws(), "the batch that was drawn last");
        if !self.examples.has_slopes() {
            return Err(OracleError::NoGradients);
        }
        let losses = self.go_back(at, wrt, sink)?;
        self.tuned.model().store().check_unchanged().map_err(|error| failed(ModelError::from(error)))?;
        self.count(at.len());
        Ok(losses)
    }

    fn backward_costs(&mut self, batch: BatchId, unit: CostUnit) -> Result<Vec<OperatorCost>, OracleError> {
        assert_eq!(batch.0 + 1, self.tuned.draws(), "the batch that was drawn last");
        if !self.examples.has_slopes() {
            return Err(OracleError::NoGradients);
        }
        let unit = match unit {
            CostUnit::Flops => Unit::Flops,
            CostUnit::Time => Unit::Nanoseconds(self.tuned.context()),
        };
        let work = self.examples.work(self.tuned.model(), &self.batch, unit).map_err(failed)?;
        let cost = |Work { parameter, forward, through, into }| OperatorCost {
            parameter,
            cost: Cost { forward, through, into },
        };
        Ok(work.into_iter().map(cost).collect())
    }

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.tuned.commit(update)
    }
}

#[cfg(test)]
mod tests;
