//! `zofo train`: fine-tunes a model as a run file says.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use serde_json::json;

use super::{Exit, Failure, console::Console, load, report};
use crate::{
    kernels::Context,
    optim::{self, Optimizer},
    train::{Event, Interrupt, Job, Outcome, Plan, Run, RunDir, RunFile, StepMetrics, TrainError, duration, finished},
};

/// Seconds between two lines about steps and evaluations where nobody watches a terminal.
const LINE_EVERY: f64 = 10.0;

/// What `zofo train` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run file (TOML): model, data, optimizer, steps
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Set a key of the run file, for example optimizer.lr=1e-6; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the run that the output directory holds, from its last step
    #[arg(long)]
    resume: bool,
}

/// What `zofo plan` takes.
#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Run file (TOML)
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Set a key of the run file; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let file = RunFile::read(&arguments.run, &arguments.set)?;
    let output = file.config.output.clone();
    let outcome = fine_tune(file, arguments.resume, cx, console)?;
    console.clear();
    match outcome {
        Outcome::Finished(report) => {
            let output = output.display();
            let next = format!("run        {output}\nnext       zofo export {output} DIRECTORY");
            console.result(&report, &format!("{}\n{next}", report::text(&report)))?;
            Ok(Exit::Ok)
        }
        Outcome::Interrupted { code, step } => left((code, step), &output, console),
    }
}

/// Says where a run was left and how it goes on.
pub(super) fn left((code, step): (u8, u64), output: &Path, console: &mut Console) -> Result<Exit, Failure> {
    let next = format!("zofo train {}/config.toml --resume", output.display());
    let stopped = json!({ "stopped": "signal", "exit": code, "steps": step, "next": next });
    console.result(&stopped, &format!("stopped by a signal after step {step}\nnext       {next}"))?;
    Ok(if code == Exit::Interrupted as u8 { Exit::Interrupted } else { Exit::Terminated })
}

/// Trains as `file` says, from the start or from where the run was left.
pub(super) fn fine_tune(file: RunFile, resume: bool, cx: &Context, console: &mut Console) -> Result<Outcome, Failure> {
    let mut rehearsed = optimizer(&file)?;
    let config = file.config;
    let dir = RunDir::open(&config.output, &config.model, resume)?;
    let interrupt = Interrupt::listen()?;
    let model = load::model(&config.model, console)?;
    let cx = Context { profile: config.profile, ..cx.clone() };
    let (job, mut oracle) = Job::open(config, model, cx)?;
    if let Some(report) = finished(&job, &dir)? {
        return Ok(Outcome::Finished(report));
    }
    if !dir.holds_run() {
        let plan = Plan::of(&job, &mut oracle, &mut *rehearsed)?;
        show_plan(console, &plan);
    }
    let mut progress =
        Progress { console, steps: job.config.train.steps, shown: Instant::now(), loss: None, first: None };
    let mut tell = |event: Event<'_>| progress.show(&event);
    Ok(Run::open(&job, &dir, &mut oracle, &interrupt, &mut tell)?.finish()?)
}

pub(super) fn plan(arguments: &PlanArguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let file = RunFile::read(&arguments.run, &arguments.set)?;
    let mut rehearsed = optimizer(&file)?;
    let model = load::model(&file.config.model, console)?;
    let cx = Context { profile: file.config.profile, ..cx.clone() };
    let (job, mut oracle) = Job::open(file.config, model, cx)?;
    let plan = Plan::of(&job, &mut oracle, &mut *rehearsed)?;
    console.result(&plan, &lines(&plan).join("\n"))?;
    Ok(Exit::Ok)
}

/// The optimizer of a run file; what is wrong with it is said with its place.
fn optimizer(file: &RunFile) -> Result<Box<dyn Optimizer>, TrainError> {
    let config = &file.config.optimizer;
    optim::find(&config.name).and_then(|entry| entry.build(&config.options)).map_err(|error| {
        let key = error.option().map_or_else(|| "optimizer.name".to_owned(), |option| format!("optimizer.{option}"));
        TrainError::Optimizer { place: file.place(&key).cloned().map(Box::new), error }
    })
}

/// The lines of a plan.
fn lines(plan: &Plan) -> Vec<String> {
    let Plan { steps, examples, trained_parameters, parameters, evaluations, tokens, seconds, .. } = plan;
    let examples: Vec<String> = examples.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let cut = if plan.cut > 0 { format!("; {} are too long for the model and cut", plan.cut) } else { String::new() };
    let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let state = match plan.state_bytes {
        0 => String::new(),
        bytes => format!(", {} MB for what the optimizer remembers", megabytes(bytes)),
    };
    let passes = if *evaluations == 1 { "pass" } else { "passes" };
    vec![
        format!("examples   {}{cut}", examples.join(", ")),
        format!("trained    {trained_parameters} of {parameters} parameters"),
        format!(
            "memory     {} MB, {} MB of it for the trained weights{state}; disk {} MB",
            megabytes(plan.resident_bytes),
            megabytes(plan.overlay_bytes),
            megabytes(plan.disk_bytes)
        ),
        format!(
            "steps      {steps}, each {evaluations} forward {passes} over {tokens} tokens in all, {seconds:.2} s: {}",
            duration(seconds * *steps as f64)
        ),
    ]
}

fn show_plan(console: &mut Console, plan: &Plan) {
    console.clear();
    lines(plan).iter().for_each(|line| console.progress(line, true));
}

/// What is shown while a run goes on.
struct Progress<'c> {
    console: &'c mut Console,
    steps: u64,
    /// When a line about steps was kept last.
    shown: Instant,
    /// The loss, smoothed over about ten steps.
    loss: Option<f64>,
    /// The first step that was shown and the run's seconds when it began: what came before, the scores of the base model
    /// among it, comes once.
    first: Option<(u64, f64)>,
}

impl Progress<'_> {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Resumed { step } => self.console.progress(&format!("going on after step {step}"), true),
            Event::Replayed { step, of } => self.console.progress(&format!("step {step} of {of} made again"), false),
            Event::Notice(text) => self.console.progress(text, true),
            Event::Step(metrics) => self.step(metrics),
            Event::Scoring { split, done, of } => {
                let kept = self.is_time() && done < of;
                self.console.progress(&format!("{split}: {done} of {of} examples"), kept);
            }
            Event::Scored { step, split, score, best } => {
                let [low, high] = score.ci95;
                let best = if *best { ", the best so far" } else { "" };
                let line = format!(
                    "step {step:6}  {split} {} {:.4} ({low:.4} to {high:.4}), loss {:.4}{best}",
                    score.metric, score.value, score.loss
                );
                self.console.progress(&line, true);
            }
        }
    }

    fn step(&mut self, metrics: &StepMetrics) {
        const KEPT: f64 = 0.9;
        let loss = self.loss.map_or(metrics.loss, |loss| KEPT * loss + (1.0 - KEPT) * metrics.loss);
        self.loss = Some(loss).filter(|loss| loss.is_finite());
        let StepMetrics { step, seconds, .. } = metrics;
        let (first, begun) = *self.first.get_or_insert((*step, metrics.elapsed - seconds));
        let left = (metrics.elapsed - begun) / (step + 1 - first) as f64 * (self.steps - step) as f64;
        let line = format!(
            "step {step:6} of {}  loss {loss:.4}  {seconds:.2} s a step, at most {} left{}",
            self.steps,
            duration(left),
            if metrics.nonfinite { "  not finite: skipped" } else { "" }
        );
        let kept = self.is_time();
        self.console.progress(&line, kept);
    }

    /// Whether a line is to be kept: now and then, where no terminal shows all of them.
    fn is_time(&mut self) -> bool {
        let is_time = !self.console.is_live() && self.shown.elapsed().as_secs_f64() >= LINE_EVERY;
        if is_time {
            self.shown = Instant::now();
        }
        is_time
    }
}
