//! Going on with a run: the last snapshot that fits the journal, then the recorded steps after it.

use std::time::Instant;

use super::{Event, Run};
use crate::{
    journal::{Kind, Reader, SyncPolicy, Writer},
    optim::Optimizer,
    train::{
        Interrupt, Job, LiveOracle, Mark, Metrics, RunDir, Selection, TrainError, Tuned,
        job::check_same,
        replay::{History, World, again},
        snapshot,
    },
};

/// Steps between two lines about recorded steps.
const TOLD_EVERY: u64 = 10;

/// The report of the run that `dir` holds, if it is over.
///
/// # Errors
/// [`TrainError`] if the journal is damaged or of another run than `job`.
pub fn finished(job: &Job, dir: &RunDir) -> Result<Option<serde_json::Value>, TrainError> {
    if !dir.holds_run() || !history(job, dir)?.ended {
        return Ok(None);
    }
    dir.read_report()
}

/// What the journal in `dir` holds, which must be of the run of `job`.
fn history(job: &Job, dir: &RunDir) -> Result<History, TrainError> {
    let journal = dir.journal();
    check_same(&journal, Reader::open(&journal)?.header(), &job.header)?;
    History::read(&journal)
}

/// The run that `dir` holds, where its journal ends.
pub(super) fn resume<'r>(
    (job, dir): (&'r Job, &'r RunDir),
    oracle: &'r mut LiveOracle,
    mut optimizer: Box<dyn Optimizer>,
    interrupt: &'r Interrupt,
    tell: &'r mut dyn FnMut(Event<'_>),
    (begin, mut selection): (Instant, Selection),
) -> Result<Run<'r>, TrainError> {
    let history = history(job, dir)?;
    let from = start(dir, history, oracle.tuned_mut(), &mut *optimizer, tell)?;
    let kind = job.header.run;
    let journal = dir.journal();
    let mut reader = Reader::open(&journal)?;
    let (mut step, mut evaluated, mut base) = (from, None, Vec::new());
    while let Some(record) = reader.next_record()? {
        match record.kind {
            Kind::Step if record.step > from => {
                again(&job.config, &journal, (&mut World::of(kind, oracle), &mut *optimizer), &record)?;
                step = record.step;
                if step.is_multiple_of(TOLD_EVERY) || step == history.steps {
                    tell(Event::Replayed { step, of: history.steps });
                }
            }
            Kind::Step | Kind::End => {}
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
        }
    }
    // Those of steps that were made again are no step's to come.
    oracle.take_tokens();
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
        ended: history.ended,
        begin,
    };
    run.base = run.recorded_base(&base);
    Ok(run)
}

/// Puts the weights at the step that recorded steps are made again from: that of the last snapshot, or 0 where there is
/// none that fits. It fits if the journal reaches it, and if the best weights up to it are at hand: they could not be
/// made again from there.
fn start(
    dir: &RunDir,
    history: History,
    tuned: &mut Tuned,
    optimizer: &mut dyn Optimizer,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<u64, TrainError> {
    let Some(step) = snapshot::step(&dir.last()).filter(|&step| step <= history.steps) else { return Ok(0) };
    let is_behind = |best: u64| (1..=step).contains(&best);
    if history.best.is_some_and(is_behind) && snapshot::step(&dir.best()) != history.best {
        return Ok(0);
    }
    match snapshot::read(&dir.last(), tuned, optimizer) {
        Ok(_) => Ok(step),
        Err(error) => {
            tell(Event::Notice(&format!("{error}; all steps are made again from the journal instead")));
            tuned.return_to_base()?;
            Ok(0)
        }
    }
}
