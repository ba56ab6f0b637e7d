//! Oracles between an optimizer and its world: one writes down what the world answers, one answers from what was
//! written.
//!
//! *What it is.* A step through a [`Recorder`] leaves the [`Record`] from which the same step through a [`Replay`] makes
//! the same update.
//!
//! *What must stay true* (contract C4). An optimizer is told nothing that its record does not hold: both oracles answer
//! totals only, unless they are asked for what each example contributes, whose sum is the total. A replay asks the world
//! behind for no number, and an update that is not the recorded one is an error. Steps that took gradients are made again
//! with the world itself, and [`same`] says whether it answered as it did.

use std::{collections::BTreeMap, sync::Arc};

use super::{Flags, Kind, Record, coefficients_crc};
use crate::{
    direction::{Coefficients, DirectionSet, Displacement, ParamId},
    optim::{
        BatchId, CommitReport, Cost, CostUnit, GradientSink, Losses, OperatorCost, Oracle, OracleError, Pool, Space,
        StepReport,
    },
    tensor::Block,
};

/// Why a record does not make the step that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The optimizer asks for more numbers than its step was answered.
    #[error("step {step} asks for number {wanted} of {recorded} in its record: another optimizer or version made it")]
    TooFew {
        /// The step, from 1.
        step: u64,
        /// The number that is not there, from 1.
        wanted: usize,
        /// Numbers in the record.
        recorded: usize,
    },
    /// The optimizer asks for fewer.
    #[error("step {step} uses {used} of {recorded} numbers in its record: another optimizer or version made it")]
    TooMany {
        /// The step, from 1.
        step: u64,
        /// Numbers asked for.
        used: usize,
        /// Numbers in the record.
        recorded: usize,
    },
    /// What follows from the numbers is not what was committed.
    #[error("step {step} comes out with another {what} than recorded: another version of zofo made it")]
    Differs {
        /// The step, from 1.
        step: u64,
        /// What differs.
        what: &'static str,
    },
}

/// Passes a step on to `inner` and writes down what it is answered.
pub struct Recorder<'o> {
    inner: &'o mut dyn Oracle,
    /// The record of the step, if it is taken again: times are those that it was told then.
    recorded: Option<&'o Record>,
    values: Vec<f64>,
    flags: Flags,
    committed: Vec<f32>,
}

impl<'o> Recorder<'o> {
    /// Listens from now on, to one step.
    pub fn new(inner: &'o mut dyn Oracle) -> Self {
        Recorder { inner, recorded: None, values: Vec::new(), flags: Flags::NONE, committed: Vec::new() }
    }

    /// As [`Recorder::new`], to a step that `record` is about.
    pub fn again(inner: &'o mut dyn Oracle, record: &'o Record) -> Self {
        Recorder { recorded: Some(record), ..Recorder::new(inner) }
    }

    /// The record of the step that ended with `report` as number `step`, from 1.
    pub fn record(self, step: u64, report: &StepReport) -> Record {
        let nonfinite = if report.nonfinite { Flags::NONFINITE } else { Flags::NONE };
        Record {
            step,
            kind: Kind::Step,
            flags: self.flags.with(nonfinite),
            lr: report.lr as f32,
            coefficients: crc(&self.committed),
            values: self.values,
        }
    }

    fn hear(&mut self, losses: &[Losses]) -> Vec<Losses> {
        self.values.extend(losses.iter().map(|losses| losses.total));
        losses.iter().map(|losses| total(losses.total)).collect()
    }

    fn hear_examples(&mut self, losses: Vec<Losses>) -> Vec<Losses> {
        self.values.extend(losses.iter().flat_map(|losses| &losses.per_example));
        losses.into_iter().map(|losses| Losses::summed(losses.per_example)).collect()
    }
}

/// Answers a step from its record; updates go to `inner`.
pub struct Replay<'o> {
    inner: &'o mut dyn Oracle,
    record: &'o Record,
    used: usize,
    /// Of the batch, once it was asked for.
    examples: usize,
    committed: Vec<f32>,
}

impl<'o> Replay<'o> {
    /// Stands for the world of the step that `record` is about.
    pub fn new(inner: &'o mut dyn Oracle, record: &'o Record) -> Self {
        Replay { inner, record, used: 0, examples: 0, committed: Vec::new() }
    }

    /// Checks that the step which ended with `report` is the recorded one.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn finish(self, report: &StepReport) -> Result<(), ReplayError> {
        let Record { step, ref values, flags, lr, coefficients, .. } = *self.record;
        if self.used < values.len() {
            return Err(ReplayError::TooMany { step, used: self.used, recorded: values.len() });
        }
        let differences = [
            (crc(&self.committed) != coefficients, "update"),
            ((report.lr as f32).to_bits() != lr.to_bits(), "learning rate"),
            (report.nonfinite != flags.contains(Flags::NONFINITE), "kind of loss"),
        ];
        match differences.into_iter().find(|(differs, _)| *differs) {
            Some((_, what)) => Err(ReplayError::Differs { step, what }),
            None => Ok(()),
        }
    }

    fn next(&mut self, count: usize) -> Result<&'o [f64], OracleError> {
        let Record { step, ref values, .. } = *self.record;
        let wanted = self.used.saturating_add(count);
        let Some(numbers) = values.get(self.used..wanted) else {
            return Err(OracleError::World(Box::new(ReplayError::TooFew { step, wanted, recorded: values.len() })));
        };
        self.used = wanted;
        Ok(numbers)
    }

    fn totals(&mut self, count: usize) -> Result<Vec<Losses>, OracleError> {
        Ok(self.next(count)?.iter().map(|&number| total(number)).collect())
    }

    fn by_example(&mut self, count: usize) -> Result<Vec<Losses>, OracleError> {
        assert!(self.examples > 0, "what examples contribute is asked for after their number");
        let numbers = self.next(count.saturating_mul(self.examples))?;
        Ok(numbers.chunks_exact(self.examples).map(|losses| Losses::summed(losses.to_vec())).collect())
    }
}

/// Checks that a step which was taken once more is the recorded one.
///
/// # Errors
/// [`ReplayError::Differs`].
pub fn same(again: &Record, recorded: &Record) -> Result<(), ReplayError> {
    let bits = |record: &Record| record.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let differences = [
        (bits(again) != bits(recorded), "loss"),
        (again.coefficients != recorded.coefficients, "update"),
        (again.lr.to_bits() != recorded.lr.to_bits(), "learning rate"),
        (again.flags != recorded.flags, "kind of loss"),
    ];
    match differences.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(ReplayError::Differs { step: recorded.step, what }),
        None => Ok(()),
    }
}

/// The times of an operator.
fn times(cost: &mut Cost) -> [&mut u64; 3] {
    let Cost { forward, through, into } = cost;
    [forward, through, into]
}

fn total(total: f64) -> Losses {
    Losses { total, per_example: Vec::new() }
}

/// The coefficients of an update in the order of its terms and, within one, of the parameters.
fn coefficients(update: &Displacement) -> impl Iterator<Item = f32> {
    update.terms.iter().flat_map(|term| match &term.coefficients {
        Coefficients::One(coefficient) => vec![*coefficient],
        Coefficients::PerParam(coefficients) => BTreeMap::values(coefficients).copied().collect(),
    })
}

/// 0 where nothing was committed.
fn crc(committed: &[f32]) -> u32 {
    if committed.is_empty() { 0 } else { coefficients_crc(committed.iter().copied()) }
}

impl Oracle for Recorder<'_> {
    fn space(&self) -> &dyn Space {
        self.inner.space()
    }
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.inner.draw(pool, size)
    }
    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        let epoch = self.inner.epoch(batch)?;
        // Exact: no run has 2⁵³ steps.
        self.values.push(epoch as f64);
        Ok(epoch)
    }
    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let losses = self.inner.losses(batch, probes)?;
        Ok(self.hear(&losses))
    }
    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        let examples = self.inner.batch_size(batch)?;
        self.values.push(examples as f64);
        Ok(examples)
    }
    fn losses_by_example(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let losses = self.inner.losses_by_example(batch, probes)?;
        Ok(self.hear_examples(losses))
    }
    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        let (loss, slopes) = self.inner.slopes(batch, along)?;
        self.flags = self.flags.with(Flags::SLOPES);
        let loss = self.hear(&[loss]).remove(0);
        Ok((loss, self.hear(&slopes)))
    }
    fn slopes_by_example(
        &mut self,
        batch: BatchId,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        let (loss, slopes) = self.inner.slopes_by_example(batch, along)?;
        self.flags = self.flags.with(Flags::SLOPES);
        let loss = self.hear_examples(vec![loss]).remove(0);
        Ok((loss, self.hear_examples(slopes)))
    }
    fn gradients(
        &mut self,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
        sink: &mut dyn GradientSink,
    ) -> Result<Vec<Losses>, OracleError> {
        self.flags = self.flags.with(Flags::FIRST_ORDER);
        let mut sink = Heard { sink, committed: &mut self.committed };
        let losses = self.inner.gradients(batch, at, wrt, &mut sink)?;
        Ok(self.hear(&losses))
    }
    fn backward_costs(&mut self, batch: BatchId, unit: CostUnit) -> Result<Vec<OperatorCost>, OracleError> {
        if unit == CostUnit::Flops {
            return self.inner.backward_costs(batch, unit);
        }
        // The operators are the same in either unit, and a step that is taken again measures nothing.
        let mut operators =
            self.inner.backward_costs(batch, if self.recorded.is_some() { CostUnit::Flops } else { unit })?;
        let all = operators.iter_mut().flat_map(|operator| times(&mut operator.cost));
        let Some(&Record { step, ref values, .. }) = self.recorded else {
            // Exact: 2⁵³ ns are a hundred days.
            self.values.extend(all.map(|time| *time as f64));
            return Ok(operators);
        };
        for time in all {
            let (wanted, recorded) = (self.values.len() + 1, values.len());
            let Some(&value) = values.get(self.values.len()) else {
                return Err(OracleError::World(Box::new(ReplayError::TooFew { step, wanted, recorded })));
            };
            *time = value as u64;
            self.values.push(value);
        }
        Ok(operators)
    }
    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.committed.extend(coefficients(update));
        self.inner.commit(update)
    }
}

/// Writes down what a sink answers to gradients.
struct Heard<'h> {
    sink: &'h mut dyn GradientSink,
    committed: &'h mut Vec<f32>,
}

impl GradientSink for Heard<'_> {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        let update = self.sink.take(id, gradient);
        self.committed.extend(update.iter().flat_map(coefficients));
        update
    }
    fn moved(&mut self, report: CommitReport) {
        self.sink.moved(report);
    }
}

impl Oracle for Replay<'_> {
    fn space(&self) -> &dyn Space {
        self.inner.space()
    }
    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.inner.draw(pool, size)
    }
    fn batch_size(&mut self, _: BatchId) -> Result<usize, OracleError> {
        let (found, recorded) = (self.next(1)?[0] as usize, self.record.values.len());
        // A batch has examples, and as many numbers follow, or this is no number of them.
        if found == 0 || found > recorded {
            let wanted = self.used.saturating_add(found.max(recorded));
            return Err(OracleError::World(Box::new(ReplayError::TooFew { step: self.record.step, wanted, recorded })));
        }
        self.examples = found;
        Ok(found)
    }
    fn epoch(&mut self, _: BatchId) -> Result<u64, OracleError> {
        Ok(self.next(1)?[0] as u64)
    }
    fn losses(&mut self, _: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        self.totals(probes.len())
    }
    fn losses_by_example(&mut self, _: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        self.by_example(probes.len())
    }
    fn slopes(&mut self, _: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        let loss = self.totals(1)?.remove(0);
        Ok((loss, self.totals(along.len())?))
    }
    fn slopes_by_example(
        &mut self,
        _: BatchId,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        let loss = self.by_example(1)?.remove(0);
        Ok((loss, self.by_example(along.len())?))
    }
    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.committed.extend(coefficients(update));
        self.inner.commit(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        optim::{self, Clock},
        testing::{
            assert_same_bits,
            worlds::{self, World},
        },
    };

    /// The records of `steps` steps of `name` in `world`.
    fn recorded(name: &str, world: &mut World, steps: u64) -> Vec<Record> {
        let entry = optim::find(name).expect("an optimizer");
        let mut optimizer = entry.build(&toml::Table::new()).expect("defaults");
        let mut step = |step| {
            let mut recorder = Recorder::new(world);
            let report = optimizer.step(&mut recorder, Clock { seed: 7, step, steps }).expect("a step");
            recorder.record(step + 1, &report)
        };
        (0..steps).map(&mut step).collect()
    }

    /// Replays `records` and answers the first thing that is wrong.
    fn replay(name: &str, world: &mut World, records: &[Record], steps: u64) -> Result<(), String> {
        let entry = optim::find(name).expect("an optimizer");
        let mut optimizer = entry.build(&toml::Table::new()).expect("defaults");
        for record in records {
            let clock = Clock { seed: 7, step: record.step - 1, steps };
            let mut replay = Replay::new(world, record);
            let report = optimizer.step(&mut replay, clock).map_err(|error| error.to_string())?;
            replay.finish(&report).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn every_optimizer_replays_to_the_same_bits() {
        for entry in optim::REGISTRY {
            for world in [worlds::quadratic, worlds::mixed_ranks] {
                let (mut live, mut again) = (world(), world());
                let records = recorded(entry.name, &mut live, 12);
                if entry.build(&toml::Table::new()).expect("defaults").needs_gradients() {
                    for (again, record) in recorded(entry.name, &mut again, 12).iter().zip(&records) {
                        same(again, record).expect("the same step");
                    }
                } else {
                    assert_ne!(live.values(), again.values(), "{} moves", entry.name);
                    replay(entry.name, &mut again, &records, 12).expect("a replay");
                }
                for (live, again) in live.values().iter().zip(again.values()) {
                    assert_same_bits(live, again, entry.name);
                }
            }
        }
    }

    #[test]
    fn a_step_that_takes_gradients_and_comes_out_otherwise_is_noticed() {
        let records = recorded("sgd", &mut worlds::quadratic(), 2);
        assert!(records.iter().all(|record| record.flags.contains(Flags::FIRST_ORDER)));
        let differs = |change: fn(&mut Record)| {
            let mut other = records[1].clone();
            change(&mut other);
            same(&records[1], &other).expect_err("another step").to_string()
        };
        assert!(differs(|record| record.values[0] += 1.0).starts_with("step 2 comes out with another loss"));
        assert!(differs(|record| record.coefficients ^= 1).starts_with("step 2 comes out with another update"));
        assert!(differs(|record| record.lr *= 2.0).starts_with("step 2 comes out with another learning rate"));
        assert!(differs(|record| record.flags = Flags::NONE).starts_with("step 2 comes out with another kind of loss"));
    }

    #[test]
    fn what_each_example_contributes_is_recorded_after_their_number_and_replays_to_the_same_bits() {
        for estimator in ["two-sided", "slope"] {
            let options = format!("queries = 2\ndirections = \"per-example\"\nestimator = {estimator:?}");
            let table: toml::Table = options.parse().expect("TOML");
            let build = || optim::find("mezo").and_then(|entry| entry.build(&table)).expect("an optimizer");
            let (mut live, mut again) = (worlds::mixed_ranks(), worlds::mixed_ranks());
            let (mut first, mut second) = (build(), build());
            for step in 0..3 {
                let clock = Clock { seed: 7, step, steps: 3 };
                let mut recorder = Recorder::new(&mut live);
                let report = first.step(&mut recorder, clock).expect("a step");
                let record = recorder.record(step + 1, &report);
                // A matrix of twelve values and a vector of five: as many examples.
                assert_eq!((record.values.len(), record.values[0]), (1 + report.evaluations * 17, 17.0));
                let mut replay = Replay::new(&mut again, &record);
                assert_eq!(second.step(&mut replay, clock).expect("a replay").loss.to_bits(), report.loss.to_bits());
                replay.finish(&report).expect("the same step");
                for count in [0.0, 16.0, 18.0, 1e300, f64::NAN] {
                    let mut other = record.clone();
                    other.values[0] = count;
                    let mut elsewhere = worlds::mixed_ranks();
                    let mut replay = Replay::new(&mut elsewhere, &other);
                    let report = build().step(&mut replay, clock);
                    assert!(report.is_err() || replay.finish(&report.expect("a step")).is_err(), "{count} examples");
                }
            }
            assert_same_bits(&live.values()[0], &again.values()[0], estimator);
        }
    }

    #[test]
    fn a_record_of_another_step_is_noticed() {
        let mut records = recorded("mezo", &mut worlds::quadratic(), 3);
        let fails = |records: &[Record], with: &str| {
            let error = replay("mezo", &mut worlds::quadratic(), records, 3).expect_err(with);
            assert!(error.contains(with), "{error}");
        };
        records[1].values[0] += 1.0;
        fails(&records, "step 2 comes out with another update");
        records[1].values.pop();
        fails(&records, "step 2 asks for number 2 of 1");
        records[0].values.push(1.0);
        fails(&records, "step 1 uses 2 of 3");
    }
}
