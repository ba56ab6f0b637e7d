//! Going on with a run: the last snapshot that fits the journal, then the recorded steps after it.

use std::{path::Path, time::Instant};

use super::{Event, Run};
use crate::{
    journal::{Flags, Kind, Reader, Record, Replay, SyncPolicy, Writer},
    model::Model,
    optim::{Clock, Optimizer},
    train::{Interrupt, Job, LiveOracle, Mark, Metrics, RunDir, Selection, TrainError, Tuned, job::check_same, snapshot},
};

/// Steps between two lines about recorded steps.
const TOLD_EVERY: u64 = 10;

/// What a journal holds.
#[derive(Clone, Copy, Debug, Default)]
struct History {
    /// Steps that are complete.
    steps: u64,
    /// The step with the best evaluation.
    best: Option<u64>,
    /// Whether the run is over.
    ended: bool,
}

impl History {
    /// Reads a journal up to and with `until`.
    fn read(job: &Job, dir: &RunDir, until: u64) -> Result<History, TrainError> {
        let mut reader = Reader::open(&dir.journal())?;
        check_same(reader.path(), reader.header(), &job.header)?;
        let mut history = History::default();
        while let Some(record) = reader.next_until(until)? {
            history.steps = record.step;
            history.ended |= record.kind == Kind::End;
            if record.kind == Kind::Evaluation && record.flags.contains(Flags::BEST) {
                history.best = Some(record.step);
            }
        }
        Ok(history)
    }
}

/// The run that `dir` holds, where its journal ends.
pub(super) fn resume<'r>(
    (job, dir): (&'r Job, &'r RunDir),
    oracle: &'r mut LiveOracle,
    mut optimizer: Box<dyn Optimizer>,
    interrupt: &'r Interrupt,
    tell: &'r mut dyn FnMut(Event<'_>),
    (begin, selection): (Instant, Selection),
) -> Result<Run<'r>, TrainError> {
    let history = History::read(job, dir, u64::MAX)?;
    let from = start((job, dir), history, oracle.tuned_mut(), &mut *optimizer, tell)?;

    let mut reader = Reader::open(&dir.journal())?;
    let (mut selection, mut step, mut evaluated, mut ended, mut base) = (selection, from, None, false, Vec::new());
    while let Some(record) = reader.next_record()? {
        match record.kind {
            Kind::Step if record.step > from => {
                replay(job, reader.path(), oracle.tuned_mut(), &mut *optimizer, &record)?;
                step = record.step;
                if step.is_multiple_of(TOLD_EVERY) || step == history.steps {
                    tell(Event::Replayed { step, of: history.steps });
                }
            }
            Kind::Step => {}
            Kind::Evaluation => {
                if let (Some(_), &[value, loss, ..]) = (&job.dev, &record.values[..]) {
                    selection.add(Mark { step: record.step, value, loss });
                }
                let is_best = record.step > 0 && history.best == Some(record.step);
                if is_best && record.step >= from && snapshot::step(&dir.best()) != Some(record.step) {
                    snapshot::write(&dir.best(), oracle.tuned(), &mut *optimizer, record.step)?;
                }
                evaluated = Some(record.step);
                if record.step == 0 {
                    base = record.values;
                }
            }
            Kind::End => ended = true,
        }
    }
    let journal = Writer::resume(&reader, SyncPolicy::default())?;
    let metrics = Metrics::open(&dir.metrics(), step)?;
    tell(Event::Resumed { step });
    let mut run = Run {
        job,
        dir,
        oracle,
        optimizer,
        interrupt,
        tell,
        journal,
        before: metrics.elapsed(),
        metrics,
        selection,
        step,
        evaluated,
        base: None,
        ended,
        begin,
    };
    run.base = run.recorded_base(&base);
    Ok(run)
}

/// The report of the run that `dir` holds, if it is over.
///
/// # Errors
/// [`TrainError`] if the journal is damaged or of another run than `job`.
pub fn finished(job: &Job, dir: &RunDir) -> Result<Option<serde_json::Value>, TrainError> {
    if !dir.holds_run() || !History::read(job, dir, u64::MAX)?.ended {
        return Ok(None);
    }
    match std::fs::read(dir.report()) {
        Ok(report) => Ok(serde_json::from_slice(&report).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TrainError::Read { path: dir.report(), source }),
    }
}

/// Puts the weights at the step that recorded steps are made again from: that of the last snapshot, or 0 where there is
/// none that fits. It fits if the journal reaches it, and if the best weights up to it are at hand: they could not be
/// made again from there.
fn start(
    (job, dir): (&Job, &RunDir),
    history: History,
    tuned: &mut Tuned,
    optimizer: &mut dyn Optimizer,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<u64, TrainError> {
    let Some(step) = snapshot::step(&dir.last()).filter(|&step| step <= history.steps) else { return Ok(0) };
    let best = History::read(job, dir, step)?.best.filter(|&best| best > 0);
    if best.is_some() && history.best == best && snapshot::step(&dir.best()) != best {
        return Ok(0);
    }
    match snapshot::read(&dir.last(), tuned, optimizer) {
        Ok(_) => Ok(step),
        Err(error) => {
            tell(Event::Notice(&format!("{error}; all steps are made again from the journal instead")));
            Ok(0)
        }
    }
}

/// Puts the model at the weights after `step` steps, made from the base and the journal alone.
pub(super) fn rebuild(
    job: &Job,
    journal: &Path,
    tuned: &mut Tuned,
    optimizer: &mut dyn Optimizer,
    step: u64,
) -> Result<(), TrainError> {
    *tuned.model_mut() = Model::open(&job.config.model)?;
    tuned.skip_to(0);
    let mut reader = Reader::open(journal)?;
    while let Some(record) = reader.next_until(step)? {
        if record.kind == Kind::Step {
            replay(job, journal, tuned, optimizer, &record)?;
        }
    }
    Ok(())
}

/// Makes a recorded step again.
fn replay(
    job: &Job,
    path: &Path,
    tuned: &mut Tuned,
    optimizer: &mut dyn Optimizer,
    record: &Record,
) -> Result<(), TrainError> {
    let clock = Clock { seed: job.config.seed, step: record.step - 1, steps: job.config.train.steps };
    let mut replay = Replay::new(tuned, record);
    let report = optimizer.step(&mut replay, clock)?;
    replay.finish(&report).map_err(|problem| TrainError::Replay { path: path.to_owned(), problem })
}
