//! A model and the parameters of it that a run moves: what updates are applied to, live or in a replay.
//!
//! *What it is not.* It has no data: as an oracle by itself it counts draws and knows no loss. *What must stay true*: an
//! update moves trainable parameters only, and makes the same bits wherever it is applied.

use std::sync::Arc;

use crate::{
    direction::{Anchor, DirectionSet, Displacement, Moves, ParamId, ParamTable},
    kernels::Context,
    model::Model,
    noise::{NoiseKey, Role},
    optim::{BatchId, CommitReport, Losses, Oracle, OracleError, Pool, Space},
    tensor::WeightRef,
    weights::{Change, Precision, WeightsError},
};

/// A model of which some parameters may move.
#[derive(Debug)]
pub struct Tuned {
    model: Model,
    cx: Context,
    trainable: Vec<ParamId>,
    draws: u64,
    /// Names the rounding of the next commit: its probe is the number of commits in this step.
    rounding: NoiseKey,
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
        Tuned { model, cx, trainable, draws: 0, rounding: NoiseKey::new(0, 0, Role::Rounding, 0) }
    }

    /// The same at the base, with what may move kept in `precision`; rounding, if there is any, is named by the run's
    /// `seed`, the step ([`Tuned::begin_step`]) and the number of the commit in it.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file of the base that cannot be read or has changed.
    pub fn with_precision(mut self, precision: Precision, seed: u64) -> Result<Tuned, WeightsError> {
        self.rounding.seed = seed;
        self.model.store_mut().tune(&self.trainable, precision)?;
        Ok(self)
    }

    /// Forgets every commit and every draw.
    ///
    /// # Errors
    /// As [`Tuned::with_precision`].
    pub fn return_to_base(&mut self) -> Result<(), WeightsError> {
        let store = self.model.store_mut();
        store.tune(&self.trainable, store.precision())?;
        self.draws = 0;
        Ok(())
    }

    /// Says which step the next commits belong to.
    pub fn begin_step(&mut self, step: u64) {
        (self.rounding.epoch, self.rounding.probe) = (step, 0);
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// The model, to be put at another point.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
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

impl Space for Tuned {
    fn params(&self) -> &ParamTable {
        self.model.store().params()
    }
    fn trainable(&self) -> &[ParamId] {
        &self.trainable
    }
    fn inspect(&self, id: ParamId) -> WeightRef<'_> {
        self.model.store().weight(id)
    }
    fn anchor(&self, id: ParamId) -> Arc<dyn Anchor> {
        self.model.store().anchor(id)
    }
    fn context(&self) -> &Context {
        &self.cx
    }
}

impl Oracle for Tuned {
    fn space(&self) -> &dyn Space {
        self
    }

    fn draw(&mut self, _: Pool, _: Option<usize>) -> Result<BatchId, OracleError> {
        self.draws += 1;
        Ok(BatchId(self.draws - 1))
    }

    fn batch_size(&mut self, _: BatchId) -> Result<usize, OracleError> {
        Err(OracleError::World(Box::new(NoData)))
    }

    fn losses(&mut self, _: BatchId, _: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        Err(OracleError::World(Box::new(NoData)))
    }

    fn slopes(&mut self, _: BatchId, _: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        Err(OracleError::World(Box::new(NoData)))
    }

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        let update = std::slice::from_ref(update);
        let (mut sum, mut values) = (Change::default(), 0);
        for &id in &self.trainable {
            let param = &self.model.store().params()[id];
            values += param.elements();
            // In place a step commits once a parameter: the others cost no more than a look.
            if update[0].moves(id) {
                let param = param.clone();
                let moves = Moves::of(update, id, &param);
                let update = moves.update(&self.cx);
                let change =
                    self.model.store_mut().update_rows(id, self.cx.isa, self.rounding, update).map_err(failed)?;
                sum.squares += change.squares;
                sum.rounding_squares += change.rounding_squares;
            }
        }
        // Drifts are read through the mapping of the base.
        self.model.store().check_unchanged().map_err(failed)?;
        self.rounding.probe += 1;
        let rms = |squares: f64| (squares / values as f64).sqrt();
        Ok(CommitReport { update_rms: rms(sum.squares), rounding_rms: rms(sum.rounding_squares) })
    }
}

fn failed(error: WeightsError) -> OracleError {
    OracleError::World(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        direction::Direction,
        noise::Law,
        simd::Isa,
        testing::{assert_same_bits, on_threads, reference::golden},
    };

    /// Reports and all weights after three steps of two commits each.
    fn run(precision: Precision, seed: u64, isa: Isa) -> (Vec<CommitReport>, Vec<f32>) {
        let model = Model::open(&golden::directory("llama-bf16")).expect("a golden checkpoint");
        let trainable: Vec<_> = model.store().params().iter().map(|(id, _)| id).collect();
        let tuned = Tuned::new(model, Context::new(isa), trainable.clone());
        let mut tuned = tuned.with_precision(precision, seed).expect("the base");
        let mut reports = Vec::new();
        for step in 0..3 {
            tuned.begin_step(step);
            for write in 0..2 {
                let key = NoiseKey::new(5, step, Role::Dense, write);
                let noise = |&id| (id, Direction::Dense { key, law: Law::Gaussian });
                let set = Arc::new(DirectionSet::new(trainable.iter().map(noise)));
                reports.push(tuned.commit(&Displacement::along(&set, 1e-4)).expect("an update"));
            }
        }
        let weights = trainable.iter().map(|&id| tuned.inspect(id));
        let values =
            weights.flat_map(|it| (0..it.rows() * it.cols()).map(move |at| it.at(at / it.cols(), at % it.cols())));
        (reports, values.collect())
    }

    #[test]
    fn exact_precisions_commit_the_same_bits_and_native_others_on_any_instruction_set_and_threads() {
        let (reports, exact) = run(Precision::F32, 1, Isa::fastest());
        let (split_reports, split) = run(Precision::Split, 1, Isa::fastest());
        assert_eq!(reports, split_reports);
        assert_same_bits(&exact, &split, "bf16+16");
        assert!(reports.iter().all(|report| report.update_rms > 0.0 && report.rounding_rms == 0.0), "{reports:?}");

        let (reports, native) = run(Precision::Native, 1, Isa::fastest());
        // Weights of about 0.02 have steps of about 1e-4 in bf16: rounding is as large as the update.
        assert!(reports.iter().all(|report| report.rounding_rms > 0.1 * report.update_rms), "{reports:?}");
        for isa in Isa::available() {
            let (found, values) = on_threads(3, || run(Precision::Native, 1, isa));
            assert_eq!(found, reports, "{isa}");
            assert_same_bits(&values, &native, format_args!("{isa}"));
        }
        assert_ne!(run(Precision::Native, 2, Isa::fastest()).1, native);
    }

    #[test]
    fn a_base_that_changes_while_an_update_reads_it_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let golden = golden::directory("llama");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(golden.join(name), dir.path().join(name)).expect("a file of the checkpoint");
        }
        let model = Model::open(dir.path()).expect("a golden checkpoint");
        let id = model.store().params().find("lm_head.weight").expect("a matrix");
        let mut tuned = Tuned::new(model, Context::new(Isa::fastest()), vec![id]);
        let drift = DirectionSet::new([(id, Direction::Drift(tuned.anchor(id)))]);
        let update = Displacement::along(&Arc::new(drift), 0.5);
        tuned.commit(&update).expect("nothing happened yet");
        fs::remove_file(dir.path().join("model.safetensors")).expect("no weights");
        let error = tuned.commit(&update).expect_err("the base is gone");
        assert!(error.to_string().contains("it is gone"), "{error}");
    }

    #[test]
    fn each_commit_of_a_step_rounds_by_its_own_noise() {
        let model = Model::open(&golden::directory("llama-bf16")).expect("a golden checkpoint");
        let id = model.store().params().find("lm_head.weight").expect("a matrix");
        let mut tuned = Tuned::new(model, Context::new(Isa::fastest()), vec![id]);
        let mut after = |step, write| {
            tuned.model.store_mut().tune(&[id], Precision::Native).expect("the base");
            tuned.begin_step(step);
            tuned.rounding.probe = write;
            let values: Arc<[f32]> = vec![1e-4; tuned.params()[id].elements()].into();
            let set = Arc::new(DirectionSet::new([(id, Direction::Explicit(values))]));
            tuned.commit(&Displacement::along(&set, 1.0)).expect("an update");
            assert_eq!(tuned.rounding.probe, write + 1);
            (0..32).map(|col| tuned.inspect(id).at(0, col)).collect::<Vec<_>>()
        };
        let first = after(0, 0);
        assert_eq!(after(0, 0), first);
        assert_ne!(after(0, 1), first);
        assert_ne!(after(1, 0), first);
    }
}
