//! A run's weights at one of its steps, from the base model and the journal alone, or from the nearest snapshot.
//!
//! *What it is not.* It evaluates nothing, and needs no data unless the run took gradients. *What must stay true*
//! (contract C4): the weights are those that the run had, bit for bit, on any instruction set and number of threads.

use std::path::{Path, PathBuf};

use super::{
    Job, Layout, LiveOracle, OptimizerConfig, RunConfig, RunFile, TrainError, Tuned, job, snapshot, trainable,
};
use crate::{
    journal::{Flags, Header, Kind, Reader, Record, Recorder, Replay, ReplayError, RunKind, Sha256Digest, same},
    kernels::Context,
    model::Model,
    noise::NOISE_VERSION,
    optim::{self, Clock, OptimError, Optimizer, OracleError},
    weights::{Adapters, tuned},
};

/// A step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that is recorded last.
    Last,
    /// The one with the best evaluation.
    Best,
    /// The one of this number.
    Step(u64),
}

/// What a journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Steps that are complete.
    pub(super) steps: u64,
    /// The step with the best evaluation.
    pub(super) best: Option<u64>,
    /// Whether the run is over.
    pub(super) ended: bool,
}

impl History {
    /// Reads a journal.
    ///
    /// # Errors
    /// [`TrainError::Journal`].
    pub(super) fn read(journal: &Path) -> Result<History, TrainError> {
        let mut reader = Reader::open(journal)?;
        let mut history = History::default();
        while let Some(record) = reader.next_record()? {
            history.steps = record.step;
            history.ended |= record.kind == Kind::End;
            if record.kind == Kind::Evaluation && record.flags.contains(Flags::BEST) {
                history.best = Some(record.step);
            }
        }
        Ok(history)
    }
}

/// The model of a run at one of its steps.
#[derive(Debug)]
pub struct Replayed {
    tuned: Tuned,
    model: PathBuf,
    /// After which step.
    pub step: u64,
}

impl Replayed {
    /// Replays `journal` on the model in the directory `model` up to `which` step. A run that took gradients is made again
    /// on the data that the run in `data_from` names. `tell` is shown each step and the last.
    ///
    /// # Errors
    /// [`TrainError`]: a journal that is damaged or was not made from this model, a step that it does not reach, data that
    /// are missing or others.
    pub fn from_journal(
        model: &Path,
        journal: &Path,
        which: Which,
        data_from: Option<&Layout>,
        cx: &Context,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Replayed, TrainError> {
        let data = data_from.map(|run| Ok::<_, TrainError>(RunFile::read(&run.config(), &[])?.config)).transpose()?;
        Self::made((model, journal), which, None, data, cx, tell)
    }

    /// The weights of the run in `dir` at `which` step, from its snapshots as far as they go. `model` is where its base
    /// model is, if no longer where it was.
    ///
    /// # Errors
    /// As [`Replayed::from_journal`], and if the directory holds no run.
    pub fn from_run(
        dir: &Layout,
        model: Option<&Path>,
        which: Which,
        cx: &Context,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Replayed, TrainError> {
        let journal = dir.journal();
        let begun = begun(&journal)?;
        let model = model.unwrap_or(&begun.model).to_owned();
        Self::made((&model, &journal), which, Some(dir), Some(begun), cx, tell)
    }

    fn made(
        (model, journal): (&Path, &Path),
        which: Which,
        snapshots: Option<&Layout>,
        data: Option<RunConfig>,
        cx: &Context,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<Replayed, TrainError> {
        let (config, mut tuned) = open(model, journal, cx)?;
        let step = resolve(journal, which)?;
        let (from, mut optimizer) = nearest(snapshots, step, &config, &mut tuned)?;
        if from == step || !optimizer.needs_gradients() {
            let world = &mut World::Recorded(&mut tuned);
            advance(&config, journal, (world, &mut *optimizer), from..step, tell)?;
        } else {
            drop(tuned);
            let data = data.ok_or_else(|| TrainError::NeedsData { path: journal.to_owned() })?;
            let cx = Context { profile: config.profile, ..cx.clone() };
            let (job, mut oracle) = Job::open(RunConfig { model: model.to_owned(), ..data }, Model::open(model)?, cx)?;
            job::check_same(journal, Reader::open(journal)?.header(), &job.header)?;
            let (from, mut optimizer) = nearest(snapshots, step, &config, oracle.tuned_mut())?;
            advance(&config, journal, (&mut World::Live(&mut oracle), &mut *optimizer), from..step, tell)?;
            tuned = oracle.into_tuned();
        }
        Ok(Replayed { tuned, model: model.to_owned(), step })
    }

    /// Writes the model to the new directory `target` as one that `transformers` loads; low-rank adapters as ones that PEFT
    /// loads, or folded into the model if `merge` says so; bottlenecks in files of our own. Answers the digest of the tuned
    /// tensors.
    ///
    /// # Errors
    /// [`TrainError::Weights`]; [`TrainError::NotLinear`] if bottlenecks are to be folded in.
    pub fn export(&self, target: &Path, merge: bool) -> Result<Sha256Digest, TrainError> {
        use crate::optim::Space;
        let (model, base) = (self.tuned.model(), &*self.model);
        Ok(match (model.adapters(), merge) {
            (None, _) => tuned::export(model.store(), self.tuned.trainable(), base, target)?,
            (Some(Adapters::LowRank(lora)), true) => tuned::export_merged(model.store(), lora, base, target)?,
            (Some(Adapters::LowRank(lora)), false) => tuned::export_adapter(model.store(), lora, base, target)?,
            (Some(Adapters::TensorTrain(_)), true) => return Err(TrainError::NotLinear),
            (Some(Adapters::TensorTrain(bottlenecks)), false) => {
                tuned::export_bottlenecks(model.store(), bottlenecks, base, target)?
            }
        })
    }

    /// Whether what is written without `merge` is adapters, not a model.
    pub fn is_adapter(&self) -> bool {
        self.tuned.model().adapters().is_some()
    }
}

/// The configuration that the run of `journal` was begun with.
fn begun(journal: &Path) -> Result<RunConfig, TrainError> {
    let reader = Reader::open(journal)?;
    Ok(RunFile::parse(&reader.header().config, journal, Path::new("/"), &[])?.config)
}

/// The configuration of the run of `journal`, and the model in `dir` at the weights that it began with.
fn open(dir: &Path, journal: &Path, cx: &Context) -> Result<(RunConfig, Tuned), TrainError> {
    let config = begun(journal)?;
    let mut model = Model::open(dir)?;
    let trainable = trainable(&mut model, &config.tune, config.seed)?;
    let cx = Context { profile: config.profile, ..cx.clone() };
    let tuned = Tuned::new(model, cx, trainable).with_precision(config.precision, config.seed)?;
    let reader = Reader::open(journal)?;
    let now = Header {
        base_weights: job::base_digest(tuned.model()),
        noise_version: NOISE_VERSION,
        run: job::run_kind(&config)?,
        ..reader.header().clone()
    };
    job::check_same(journal, reader.header(), &now)?;
    Ok((config, tuned))
}

/// The number of a step that the journal reaches.
fn resolve(journal: &Path, which: Which) -> Result<u64, TrainError> {
    let history = History::read(journal)?;
    let step = match which {
        Which::Last => history.steps,
        Which::Best => history.best.ok_or_else(|| TrainError::NoBest { path: journal.to_owned() })?,
        Which::Step(step) => step,
    };
    if step > history.steps {
        return Err(TrainError::NoStep { path: journal.to_owned(), found: step, steps: history.steps });
    }
    Ok(step)
}

pub(super) fn optimizer(config: &OptimizerConfig) -> Result<Box<dyn Optimizer>, TrainError> {
    let built = optim::find(&config.name).and_then(|entry| entry.build(&config.options));
    built.map_err(|error| TrainError::Optimizer { place: None, error })
}

/// Puts the weights at the last snapshot in `dir` that is not beyond `step` and can be read; answers its step, 0 for the
/// base, and the optimizer there. The run may go on meanwhile and replace a snapshot after it was found.
fn nearest(
    dir: Option<&Layout>,
    step: u64,
    config: &RunConfig,
    tuned: &mut Tuned,
) -> Result<(u64, Box<dyn Optimizer>), TrainError> {
    let kept = dir.into_iter().flat_map(|dir| [dir.last(), dir.best()]);
    let kept = kept.filter_map(|dir| Some((snapshot::step(&dir)?, dir)));
    let mut kept: Vec<_> = kept.filter(|(at, _)| *at <= step).collect();
    kept.sort();
    for (_, dir) in kept.iter().rev() {
        let mut optimizer = optimizer(&config.optimizer)?;
        match snapshot::read(dir, tuned, &mut *optimizer) {
            Ok(at) if at <= step => return Ok((at, optimizer)),
            _ => tuned.return_to_base()?,
        }
    }
    Ok((0, optimizer(&config.optimizer)?))
}

/// Makes the recorded steps `range.start + 1` to `range.end` again.
pub(super) fn advance(
    config: &RunConfig,
    journal: &Path,
    (world, optimizer): (&mut World<'_>, &mut dyn Optimizer),
    range: std::ops::Range<u64>,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<(), TrainError> {
    let mut reader = Reader::open(journal)?;
    while let Some(record) = reader.next_until(range.end)? {
        if record.kind == Kind::Step && record.step > range.start {
            again(config, journal, (&mut *world, &mut *optimizer), &record)?;
            tell(record.step, range.end);
        }
    }
    Ok(())
}

/// What recorded steps are made again with.
pub(super) enum World<'w> {
    /// The weights alone: all else that a step was answered is in its record.
    Recorded(&'w mut Tuned),
    /// The weights and the data: gradients are computed once more, and losses must come out as recorded.
    Live(&'w mut LiveOracle),
}

impl<'w> World<'w> {
    /// What a run of this kind needs.
    pub(super) fn of(kind: RunKind, oracle: &'w mut LiveOracle) -> Self {
        match kind {
            RunKind::Scalar => World::Recorded(oracle.tuned_mut()),
            RunKind::Hybrid => World::Live(oracle),
        }
    }
}

/// Makes a recorded step again.
pub(super) fn again(
    config: &RunConfig,
    journal: &Path,
    (world, optimizer): (&mut World<'_>, &mut dyn Optimizer),
    record: &Record,
) -> Result<(), TrainError> {
    let clock = Clock { seed: config.seed, step: record.step - 1, steps: config.train.steps };
    let failed = |problem| TrainError::Replay { path: journal.to_owned(), problem };
    match world {
        World::Live(oracle) => {
            oracle.tuned_mut().begin_step(clock.step);
            let mut recorder = Recorder::again(*oracle, record);
            let report = optimizer.step(&mut recorder, clock)?;
            same(&recorder.record(record.step, &report), record).map_err(failed)
        }
        World::Recorded(tuned) => {
            tuned.begin_step(clock.step);
            let mut replay = Replay::new(*tuned, record);
            let report = optimizer.step(&mut replay, clock).map_err(|error| match error {
                OptimError::Oracle(OracleError::World(world)) => match world.downcast::<ReplayError>() {
                    Ok(problem) => failed(*problem),
                    Err(world) => OptimError::Oracle(OracleError::World(world)).into(),
                },
                error => error.into(),
            })?;
            replay.finish(&report).map_err(failed)
        }
    }
}
