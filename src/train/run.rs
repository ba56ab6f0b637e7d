//! A run: steps, evaluations, snapshots and the record of them, from the first step or from where it was left.
//!
//! *What must stay true* (contract C4). The order of writing is what makes a run safe to end at any moment: a step's
//! record after its update, an evaluation's record before the snapshots that follow from it, the journal synced before
//! any snapshot, the best weights before the last, the report after everything. Whatever is missing when the run goes
//! on is made again from the journal, to the same bits.

mod resume;

pub use resume::finished;

use std::time::Instant;

use super::{
    Best, Exam, Interrupt, Job, LiveOracle, Mark, Metrics, Partition, Report, RunDir, Score, Selection, StepMetrics,
    TrainError,
    memory::Resident,
    replace_file,
    replay::{self, World},
    snapshot,
};
use crate::{
    journal::{Flags, Kind, Record, Recorder, SyncPolicy, Writer},
    optim::{Clock, Optimizer, Space},
    weights::tuned,
};

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'e> {
    /// It goes on from a step that it had reached before.
    Resumed {
        /// How many steps are complete.
        step: u64,
    },
    /// A recorded step is being made again, up to `of`.
    Replayed {
        /// The step.
        step: u64,
        /// The last one recorded.
        of: u64,
    },
    /// Something that a user would want to know.
    Notice(&'e str),
    /// A step is complete.
    Step(&'e StepMetrics),
    /// Examples of an evaluation are done.
    Scoring {
        /// Which examples.
        split: &'static str,
        /// How many are done.
        done: usize,
        /// How many there are.
        of: usize,
    },
    /// An evaluation is complete.
    Scored {
        /// After which step.
        step: u64,
        /// Which examples.
        split: &'static str,
        /// The score.
        score: &'e Score,
        /// Whether it is the best so far.
        best: bool,
    },
}

/// How a run ended, or was left.
#[derive(Debug)]
pub enum Outcome {
    /// It is over; the report is that of `report.json`.
    Finished(serde_json::Value),
    /// A signal ended it; it can be resumed.
    Interrupted {
        /// The exit code of the signal.
        code: u8,
        /// Steps that are complete.
        step: u64,
    },
}

/// A run under way.
pub struct Run<'r> {
    job: &'r Job,
    dir: &'r RunDir,
    oracle: &'r mut LiveOracle,
    optimizer: Box<dyn Optimizer>,
    interrupt: &'r Interrupt,
    tell: &'r mut dyn FnMut(Event<'_>),
    journal: Writer,
    metrics: Metrics,
    selection: Selection,
    /// Steps that are complete.
    step: u64,
    /// The last step that was evaluated.
    evaluated: Option<u64>,
    /// The report's data scored at the base weights.
    base: Option<Score>,
    /// Whether the journal says that the run is over.
    ended: bool,
    /// When this process began, and how long those before it took.
    begin: Instant,
    before: f64,
}

impl<'r> Run<'r> {
    /// Begins the run of `job` in `dir`, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`TrainError`]: a journal that is damaged or of another run, a directory that cannot be written.
    pub fn open(
        job: &'r Job,
        dir: &'r RunDir,
        oracle: &'r mut LiveOracle,
        interrupt: &'r Interrupt,
        tell: &'r mut dyn FnMut(Event<'_>),
    ) -> Result<Run<'r>, TrainError> {
        let begin = Instant::now();
        let optimizer = replay::optimizer(&job.config.optimizer)?;
        let selection = Selection::new(job.task.metric(), job.config.train.patience);
        if dir.holds_run() {
            return resume::resume((job, dir), oracle, optimizer, interrupt, tell, (begin, selection));
        }
        replace_file(&dir.config(), job.header.config.as_bytes())?;
        let metrics = Metrics::open(&dir.metrics(), 0)?;
        let journal = Writer::create(&dir.journal(), &job.header, SyncPolicy::default())?;
        Ok(Run {
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
            step: 0,
            evaluated: None,
            base: None,
            ended: false,
            begin,
        })
    }

    /// Goes on to the end, or until a signal comes.
    ///
    /// # Errors
    /// [`TrainError`]; what was recorded before it stays, and the run can be resumed.
    pub fn finish(mut self) -> Result<Outcome, TrainError> {
        while !self.ended {
            if self.is_due() && !self.evaluate()? {
                return self.leave();
            }
            if self.is_over() || self.selection.exhausted() {
                self.save_last()?;
                self.journal.append(&record(Kind::End, Flags::NONE, self.step, Vec::new()))?;
                self.journal.sync()?;
                self.ended = true;
            } else if self.interrupt.exit_code().is_some() {
                return self.leave();
            } else {
                self.take_step()?;
            }
        }
        self.save_last()?;
        self.report()
    }

    fn leave(mut self) -> Result<Outcome, TrainError> {
        self.journal.sync()?;
        let code = self.interrupt.exit_code().expect("a run is left because of a signal");
        Ok(Outcome::Interrupted { code, step: self.step })
    }

    fn take_step(&mut self) -> Result<(), TrainError> {
        let begin = Instant::now();
        let clock = Clock { seed: self.job.config.seed, step: self.step, steps: self.job.config.train.steps };
        self.oracle.tuned_mut().begin_step(self.step);
        let mut recorder = Recorder::new(self.oracle);
        let report = self.optimizer.step(&mut recorder, clock)?;
        let record = recorder.record(self.step + 1, &report);
        self.journal.append(&record)?;
        self.step += 1;
        let metrics = StepMetrics {
            step: self.step,
            loss: report.loss,
            lr: report.lr as f32,
            projected_grad: report.projected_grads,
            update_rms: report.update_rms,
            rounding_rms: report.rounding_rms,
            forwards: report.evaluations as u64,
            tokens: self.oracle.take_tokens(),
            seconds: begin.elapsed().as_secs_f64(),
            elapsed: self.elapsed(),
            rss_bytes: Resident::measure().now,
            nonfinite: report.nonfinite,
            scalars: report.scalars,
        };
        self.metrics.append(&metrics)?;
        (self.tell)(Event::Step(&metrics));
        Ok(())
    }

    /// Seconds of the run, all its processes together.
    fn elapsed(&self) -> f64 {
        self.before + self.begin.elapsed().as_secs_f64()
    }

    /// Whether no step is to come: all are taken, or those that are have taken all their time.
    fn is_over(&self) -> bool {
        let config = &self.job.config.train;
        self.step == config.steps || config.seconds.is_some_and(|seconds| self.metrics.training() >= seconds as f64)
    }

    /// Whether the weights as they are have an evaluation to come.
    fn is_due(&self) -> bool {
        let is_time = self.step.is_multiple_of(self.job.config.train.eval_every) || self.is_over();
        self.evaluated != Some(self.step) && is_time
    }

    /// Evaluates the weights, takes note of it, and keeps them; `false` if a signal came first.
    fn evaluate(&mut self) -> Result<bool, TrainError> {
        let mut values = Vec::new();
        let mut flags = Flags::NONE;
        if let Some(exam) = &self.job.dev {
            let Some(score) = self.score("dev", exam)? else { return Ok(false) };
            let best = self.selection.add(Mark { step: self.step, value: score.value, loss: score.loss });
            if best {
                flags = Flags::BEST;
            }
            values.extend(numbers(&score));
            (self.tell)(Event::Scored { step: self.step, split: "dev", score: &score, best });
        }
        if self.step == 0 {
            if let Some(exam) = &self.job.valid {
                let Some(score) = self.score("valid", exam)? else { return Ok(false) };
                values.extend(numbers(&score));
                (self.tell)(Event::Scored { step: 0, split: "valid", score: &score, best: false });
            }
            self.base = self.recorded_base(&values);
        }
        self.journal.append(&record(Kind::Evaluation, flags, self.step, values))?;
        self.journal.sync()?;
        self.evaluated = Some(self.step);
        if self.step > 0 {
            if flags.contains(Flags::BEST) {
                snapshot::write(&self.dir.best(), self.oracle.tuned(), &mut *self.optimizer, self.step)?;
            }
            self.save_last()?;
        }
        Ok(true)
    }

    /// The score of the base weights on the report's data, from the record of step 0.
    fn recorded_base(&self, values: &[f64]) -> Option<Score> {
        let (_, exam) = self.job.split()?;
        let &[value, loss, low, high] = values.last_chunk()?;
        let metric = self.job.task.metric().name();
        Some(Score { metric, value, ci95: [low, high], loss, count: exam.len() })
    }

    /// Keeps the weights of this step, if they are not kept already.
    fn save_last(&mut self) -> Result<(), TrainError> {
        let last = self.dir.last();
        if self.step > 0 && snapshot::step(&last) != Some(self.step) {
            self.journal.sync()?;
            snapshot::write(&last, self.oracle.tuned(), &mut *self.optimizer, self.step)?;
        }
        Ok(())
    }

    /// The score of the weights as they are; `None` if a signal came first.
    fn score(&mut self, split: &'static str, exam: &Exam) -> Result<Option<Score>, TrainError> {
        let tuned = self.oracle.tuned();
        let (interrupt, tell) = (self.interrupt, &mut self.tell);
        let mut progress = |done, _| {
            tell(Event::Scoring { split, done, of: exam.len() });
            interrupt.exit_code().is_none()
        };
        exam.score(tuned.model(), tuned.context(), &mut progress)
    }

    /// Scores the last and the best weights on the report's data and writes the report.
    fn report(mut self) -> Result<Outcome, TrainError> {
        let digest = |run: &Self| {
            let tuned = run.oracle.tuned();
            tuned::hex(&tuned::digest(tuned.model().store(), tuned.trainable()))
        };
        let weights_sha256 = digest(&self);
        let partition = self.optimizer.partition().map(Partition::of);
        let job = self.job;
        let (mut last, mut best) = (None, None);
        if let Some((split, exam)) = job.split() {
            let Some(score) = self.score(split, exam)? else { return self.leave() };
            (self.tell)(Event::Scored { step: self.step, split, score: &score, best: false });
            last = Some(score);
        }
        match self.selection.best().map(|mark| mark.step) {
            None => {}
            Some(step) if step == self.step => {
                best = last.clone().map(|score| Best { step, score, weights_sha256: weights_sha256.clone() });
            }
            Some(step) => {
                self.load_best(step)?;
                let score = match (step, job.split()) {
                    (0, _) | (_, None) => self.base.clone(),
                    (_, Some((split, exam))) => {
                        let Some(score) = self.score(split, exam)? else { return self.leave() };
                        (self.tell)(Event::Scored { step, split, score: &score, best: false });
                        Some(score)
                    }
                };
                best = score.map(|score| Best { step, score, weights_sha256: digest(&self) });
            }
        }
        let report = Report {
            task: job.task.name().to_owned(),
            optimizer: job.config.optimizer.name.clone(),
            steps: self.step,
            stopped: match () {
                () if self.step == job.config.train.steps => "steps",
                () if self.is_over() => "seconds",
                () => "patience",
            },
            split: job.split().map(|(split, _)| split),
            majority: job.majority,
            base: self.base.clone(),
            best,
            last,
            seconds: self.elapsed(),
            training_seconds: self.metrics.training(),
            peak_rss_bytes: Resident::measure().peak,
            rounding_per_update: self.metrics.rounding_per_update(),
            partition,
            journal_bytes: self.journal.bytes(),
            weights_sha256,
        };
        let report = serde_json::to_value(report).expect("numbers and names");
        replace_file(&self.dir.report(), format!("{report:#}\n").as_bytes())?;
        Ok(Outcome::Finished(report))
    }

    /// Puts the model at its best weights: those that were kept, or made again if they cannot be read.
    fn load_best(&mut self, step: u64) -> Result<(), TrainError> {
        let kept = snapshot::read(&self.dir.best(), self.oracle.tuned_mut(), &mut *self.optimizer);
        match kept {
            Ok(found) if found == step => return Ok(()),
            Ok(_) => {}
            Err(_) if step == 0 => {}
            Err(error) => (self.tell)(Event::Notice(&format!("{error}; made again from the journal instead"))),
        }
        let config = &self.job.config;
        self.oracle.tuned_mut().return_to_base()?;
        let mut optimizer = replay::optimizer(&config.optimizer)?;
        let mut told = |step, of| (self.tell)(Event::Replayed { step, of });
        let mut world = World::of(self.job.header.run, self.oracle);
        replay::advance(config, &self.dir.journal(), (&mut world, &mut *optimizer), 0..step, &mut told)
    }
}

/// What an evaluation's record says of a score.
fn numbers(score: &Score) -> [f64; 4] {
    [score.value, score.loss, score.ci95[0], score.ci95[1]]
}

fn record(kind: Kind, flags: Flags, step: u64, values: Vec<f64>) -> Record {
    Record { step, kind, flags, values, lr: 0.0, coefficients: 0 }
}
