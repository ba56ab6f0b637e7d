//! The oracle of a real run: a model on its examples.
//!
//! *What it is not.* No files and no loop; updates are for [`Tuned`]. *What must stay true*: probing leaves the weights
//! as they are; which examples a batch has depends on the seed and the number of the draw; how a batch is cut into
//! passes changes no bit, because an example is never cut and sums are chains over examples.

use std::sync::Arc;

use super::Tuned;
use crate::{
    direction::{DirectionSet, Displacement},
    model::ModelError,
    objective::{ExamplesError, Minimised},
    optim::{BatchId, CommitReport, Losses, Oracle, OracleError, Pool, Space},
    task::Batches,
};

/// A model on the examples of a run.
#[derive(Debug)]
pub struct LiveOracle {
    tuned: Tuned,
    examples: Minimised,
    batches: Batches,
    batch_size: usize,
    /// Rows of one pass over the weights, all lanes together, unless a single example has more.
    rows: usize,
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
        let batches = Batches::new(examples.len(), Pool::Train as u32, seed);
        let rows = activations / tuned.model().spec().row_bytes() as u64;
        let rows = usize::try_from(rows).unwrap_or(usize::MAX).max(1);
        LiveOracle { tuned, examples, batches, batch_size, rows, batch: Vec::new(), tokens: 0 }
    }

    /// The model and what of it moves.
    pub fn tuned(&self) -> &Tuned {
        &self.tuned
    }
    /// The model and what of it moves, to be put at another point.
    pub fn tuned_mut(&mut self) -> &mut Tuned {
        &mut self.tuned
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

    /// The means of `groups` numbers for each of the examples at `numbers`, which `evaluate` answers for some at a time.
    fn means(
        &self,
        numbers: &[usize],
        groups: usize,
        evaluate: impl Fn(&[usize]) -> Result<Vec<Vec<f64>>, ExamplesError>,
    ) -> Result<Vec<Losses>, ExamplesError> {
        let weight = numbers.iter().map(|&number| self.examples.weight(number)).sum::<usize>() as f64;
        let mut contributions = vec![Vec::with_capacity(numbers.len()); groups];
        for pass in self.examples.passes(numbers, self.rows / groups) {
            for (of_group, values) in contributions.iter_mut().zip(evaluate(pass)?) {
                of_group.extend(values.into_iter().map(|value| value / weight));
            }
        }
        Ok(contributions.into_iter().map(summed).collect())
    }

    /// Counts the tokens of the batch in `groups` groups of rows.
    fn count(&mut self, groups: usize) {
        let rows: usize = self.batch.iter().map(|&number| self.examples.tokens(number)).sum();
        self.tokens += (rows * groups) as u64;
    }
}

/// Contributions of examples with their sum.
fn summed(per_example: Vec<f64>) -> Losses {
    Losses { total: per_example.iter().fold(0.0, |total, loss| total + loss), per_example }
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
        self.batch = self.batches.draw(batch.0, size.unwrap_or(self.batch_size));
        Ok(batch)
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

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.tuned.commit(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        direction::Direction,
        kernels::{Context, Isa},
        model::Model,
        noise::{Law, NoiseKey, Role},
        objective::{Criterion, Examples},
        optim::{self, Clock},
        task::Objective,
        testing::{
            assert_same_bits,
            examples::{checkpoints, examples},
            on_threads,
            reference::golden,
        },
    };

    fn oracle(name: &str, objective: Objective, criterion: Criterion, isa: Isa) -> LiveOracle {
        let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
        let trainable = model.store().params().iter().map(|(id, _)| id).collect();
        let examples = Examples::new(model.spec(), objective, None, &examples(objective)).expect("examples");
        let examples = examples.minimising(criterion).expect("a criterion");
        LiveOracle::new(Tuned::new(model, Context::new(isa), trainable), examples, (4, 9), 1 << 20)
    }

    /// Trains by `MeZO` and answers the loss of every step and all weights.
    fn train(name: &str, objective: Objective, isa: Isa, steps: u64, lr: f64) -> (Vec<f64>, Vec<f32>) {
        train_by("two-sided", name, objective, isa, steps, lr)
    }

    fn train_by(
        estimator: &str,
        name: &str,
        objective: Objective,
        isa: Isa,
        steps: u64,
        lr: f64,
    ) -> (Vec<f64>, Vec<f32>) {
        let options = [("lr", lr.into()), ("queries", 4.into()), ("estimator", estimator.into())];
        let options = toml::Table::from_iter(options.map(|(name, value)| (name.to_owned(), value)));
        let mut optimizer = optim::find("mezo").and_then(|entry| entry.build(&options)).expect("an optimizer");
        let mut oracle = oracle(name, objective, Criterion::Loss, isa);
        let step = |step| optimizer.step(&mut oracle, Clock { seed: 3, step, steps }).expect("a step").loss;
        let losses = (0..steps).map(step).collect();
        let store = oracle.tuned().model().store();
        let values = store.params().iter().flat_map(|(id, param)| {
            let weight = store.weight(id);
            (0..param.elements()).map(move |at| weight.at(at / param.cols(), at % param.cols()))
        });
        (losses, values.collect())
    }

    #[test]
    fn mezo_lowers_every_loss_of_a_model() {
        let objectives = [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier];
        for (objective, estimator) in objectives.into_iter().flat_map(|of| [(of, "two-sided"), (of, "slope")]) {
            // Both runs see the same batches and directions; a wrong sign climbs, a wrong batch or a lost update stands.
            let last = |lr| {
                let losses = train_by(estimator, checkpoints(objective)[0], objective, Isa::fastest(), 60, lr).0;
                losses[50..].iter().sum::<f64>()
            };
            let (trained, untrained) = (last(2e-3), last(0.0));
            assert!(trained < untrained, "{objective:?}, {estimator}: {trained} after training, {untrained} without");
        }
    }

    #[test]
    fn slopes_come_with_the_losses_of_a_probe_of_nothing_and_an_example_has_its_own_in_any_pass() {
        for objective in [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier] {
            let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Loss, Isa::fastest());
            let (key, law) = (NoiseKey::new(1, 2, Role::Dense, 3), Law::Gaussian);
            let noise = oracle.tuned.trainable().iter().map(|&id| (id, Direction::Dense { key, law }));
            let along = [Arc::new(DirectionSet::new(noise)), Arc::default()];
            let batch = oracle.draw(Pool::Train, None).expect("a batch");
            let (losses, slopes) = oracle.slopes(batch, &along).expect("slopes");
            assert_eq!(losses, oracle.losses(batch, &[Displacement::default()]).expect("losses")[0], "{objective:?}");
            assert_eq!(slopes[1], summed(vec![0.0; 4]), "{objective:?}");
            let weight: usize = oracle.batch.iter().map(|&number| oracle.examples.weight(number)).sum();
            for (&number, found) in oracle.batch.iter().zip(&slopes[0].per_example) {
                let alone = oracle.examples.slopes(oracle.tuned.model(), oracle.tuned.context(), &[number], &along);
                assert_eq!(alone.expect("slopes").1[0][0] / weight as f64, *found, "{objective:?}, example {number}");
            }
            assert_eq!(slopes[0], summed(slopes[0].per_example.clone()), "{objective:?}");
        }
    }

    #[test]
    fn instruction_sets_and_threads_change_no_bit_of_a_run() {
        let (losses, weights) = train("gpt2", Objective::Options, Isa::fastest(), 3, 2e-3);
        for isa in Isa::available() {
            for threads in [1, 3] {
                let (found, values) = on_threads(threads, || train("gpt2", Objective::Options, isa, 3, 2e-3));
                assert_eq!(found, losses, "{isa}, {threads} threads");
                assert_same_bits(&values, &weights, format_args!("{isa}, {threads} threads"));
            }
        }
    }

    #[test]
    fn probing_writes_nothing_and_a_commit_moves_what_it_names() {
        let mut oracle = oracle("qwen2", Objective::Options, Criterion::Loss, Isa::fastest());
        let ids = oracle.tuned.trainable()[..1].to_vec();
        let values: Arc<[f32]> = vec![1.0; oracle.tuned.params()[ids[0]].elements()].into();
        let set = Arc::new(DirectionSet::new([(ids[0], Direction::Explicit(values))]));
        let before = oracle.tuned.inspect(ids[0]).at(3, 2);
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let probes = [Displacement::default(), Displacement::along(&set, 0.5)];
        let losses = oracle.losses(batch, &probes).expect("losses");
        assert_ne!(losses[0].total, losses[1].total);
        assert_eq!(oracle.tuned.inspect(ids[0]).at(3, 2), before);
        let report = oracle.commit(&probes[1]).expect("an update");
        assert_eq!(oracle.tuned.inspect(ids[0]).at(3, 2), before + 0.5);
        assert!(report.update_rms > 0.0);
        assert_eq!(oracle.losses(batch, &probes[..1]).expect("losses")[0], losses[1]);
    }

    #[test]
    fn an_accuracy_is_counted_in_examples_and_has_no_slopes() {
        for objective in [Objective::Options, Objective::LabelWords, Objective::Classifier] {
            let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Accuracy, Isa::fastest());
            let ids = oracle.tuned.trainable().to_vec();
            let along = |id| {
                let elements = oracle.tuned.params()[id].elements();
                let values: Arc<[f32]> = (0..elements).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.05).collect();
                (id, Direction::Explicit(values))
            };
            let set = Arc::new(DirectionSet::new(ids.into_iter().map(along)));
            let batch = oracle.draw(Pool::Train, None).expect("a batch");
            let probes = [0.0, 1.0, -1.0, 3.0].map(|scale| Displacement::along(&set, scale));
            let losses = oracle.losses(batch, &probes).expect("losses");
            for losses in &losses {
                // Quarters, and their sums, are exact.
                assert!(losses.per_example.iter().all(|loss| [0.0, 0.25].contains(loss)), "{losses:?}");
                assert_eq!(losses.total, losses.per_example.iter().sum::<f64>());
            }
            assert!(losses.iter().any(|lane| lane.total != losses[0].total), "{objective:?}: {losses:?}");
            assert!(matches!(oracle.slopes(batch, &[set]), Err(OracleError::NoSlopes)));
        }
    }

    #[test]
    fn a_model_that_is_not_finite_is_neither_right_nor_wrong() {
        let mut oracle = oracle("llama", Objective::Options, Criterion::Accuracy, Isa::fastest());
        let id = oracle.tuned.trainable()[0];
        let values: Arc<[f32]> = vec![f32::MAX; oracle.tuned.params()[id].elements()].into();
        let set = Arc::new(DirectionSet::new([(id, Direction::Explicit(values))]));
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let losses = oracle.losses(batch, &[Displacement::along(&set, f32::MAX)]).expect("losses");
        assert!(losses[0].total.is_nan(), "{losses:?}");
    }
}
