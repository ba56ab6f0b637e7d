//! The oracle of a real run: a model on its examples.
//!
//! *What it is not.* No files and no loop; updates are for [`Tuned`]. *What must stay true*: probing leaves the weights
//! as they are; which examples a batch has depends on the seed and the number of the draw; how a batch is cut into
//! passes changes no bit, because an example is never cut and sums are chains over examples.

use std::sync::Arc;

use super::Tuned;
use crate::{
    direction::{DirectionSet, Displacement, ParamId, ParamTable},
    linalg::Square,
    model::ModelError,
    objective::{ExamplesError, Minimised},
    optim::{BatchId, CommitReport, Losses, Oracle, OracleError, Pool},
    task::Batches,
    tensor::WeightRef,
};

/// Rows of one pass over the weights, all lanes together, unless a single example has more.
const ROWS: usize = 4096;

/// A model on the examples of a run.
#[derive(Debug)]
pub struct LiveOracle {
    tuned: Tuned,
    examples: Minimised,
    batches: Batches,
    batch_size: usize,
    batch: Vec<usize>,
    tokens: u64,
}

impl LiveOracle {
    /// An oracle over `examples`, drawn in batches of `batch_size` in the order of `seed`.
    ///
    /// # Panics
    /// If there is no example.
    pub fn new(tuned: Tuned, examples: Minimised, (batch_size, seed): (usize, u64)) -> LiveOracle {
        let batches = Batches::new(examples.len(), Pool::Train as u32, seed);
        LiveOracle { tuned, examples, batches, batch_size, batch: Vec::new(), tokens: 0 }
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
        let weight = numbers.iter().map(|&number| self.examples.weight(number)).sum::<usize>() as f64;
        let mut contributions = vec![Vec::with_capacity(numbers.len()); lanes.len()];
        for pass in self.examples.passes(numbers, ROWS / lanes.len()) {
            let losses = self.examples.losses(model, cx, pass, lanes)?;
            for (of_lane, losses) in contributions.iter_mut().zip(losses) {
                of_lane.extend(losses.into_iter().map(|loss| loss / weight));
            }
        }
        Ok(contributions.into_iter().map(summed).collect())
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
    fn params(&self) -> &ParamTable {
        self.tuned.params()
    }
    fn trainable(&self) -> &[ParamId] {
        self.tuned.trainable()
    }
    fn inspect(&self, id: ParamId) -> WeightRef<'_> {
        self.tuned.inspect(id)
    }
    fn gram(&self, sets: &[Arc<DirectionSet>]) -> Square {
        self.tuned.gram(sets)
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
        let rows: usize = self.batch.iter().map(|&number| self.examples.tokens(number)).sum();
        self.tokens += (rows * probes.len()) as u64;
        Ok(losses)
    }

    fn slopes(&mut self, _: BatchId, _: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        Err(OracleError::NoSlopes)
    }

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        self.tuned.commit(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::{Context, Isa},
        model::Model,
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
        LiveOracle::new(Tuned::new(model, Context::new(isa), trainable), examples, (4, 9))
    }

    /// Trains by `MeZO` and answers the loss of every step and all weights.
    fn train(name: &str, objective: Objective, isa: Isa, steps: u64, lr: f64) -> (Vec<f64>, Vec<f32>) {
        let options = toml::Table::from_iter([("lr".to_owned(), lr.into()), ("queries".to_owned(), 4.into())]);
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
        for objective in [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier] {
            // Both runs see the same batches and directions; a wrong sign climbs, a wrong batch or a lost update stands.
            let last =
                |lr| train(checkpoints(objective)[0], objective, Isa::fastest(), 60, lr).0[50..].iter().sum::<f64>();
            let (trained, untrained) = (last(2e-3), last(0.0));
            assert!(trained < untrained, "{objective:?}: {trained} after training, {untrained} without");
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
        let ids = oracle.trainable()[..1].to_vec();
        let values: Arc<[f32]> = vec![1.0; oracle.params()[ids[0]].elements()].into();
        let set = Arc::new(DirectionSet::new([(ids[0], crate::direction::Direction::Explicit(values))]));
        let before = oracle.inspect(ids[0]).at(3, 2);
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let probes = [Displacement::default(), Displacement::along(&set, 0.5)];
        let losses = oracle.losses(batch, &probes).expect("losses");
        assert_ne!(losses[0].total, losses[1].total);
        assert_eq!(oracle.inspect(ids[0]).at(3, 2), before);
        let report = oracle.commit(&probes[1]).expect("an update");
        assert_eq!(oracle.inspect(ids[0]).at(3, 2), before + 0.5);
        assert!(report.update_rms > 0.0);
        assert_eq!(oracle.losses(batch, &probes[..1]).expect("losses")[0], losses[1]);
    }

    #[test]
    fn an_accuracy_is_counted_in_examples_and_has_no_slopes() {
        for objective in [Objective::Options, Objective::LabelWords, Objective::Classifier] {
            let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Accuracy, Isa::fastest());
            let ids = oracle.trainable().to_vec();
            let along = |id| {
                let elements = oracle.params()[id].elements();
                let values: Arc<[f32]> = (0..elements).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.05).collect();
                (id, crate::direction::Direction::Explicit(values))
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
        let id = oracle.trainable()[0];
        let values: Arc<[f32]> = vec![f32::MAX; oracle.params()[id].elements()].into();
        let set = Arc::new(DirectionSet::new([(id, crate::direction::Direction::Explicit(values))]));
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let losses = oracle.losses(batch, &[Displacement::along(&set, f32::MAX)]).expect("losses");
        assert!(losses[0].total.is_nan(), "{losses:?}");
    }
}
