//! `zofo compare`: several optimizers on the job of a run file, each with the same budget.

use std::{ffi::OsString, path::PathBuf, time::Instant};

use clap::Args;
use serde_json::{Value, json};
use toml::Value as Toml;

use super::{Exit, Failure, console::Console};
use crate::{
    compare::{Cell, Comparison, Conclusion, Ended, Event, Launcher, Outcome, Outlook, Session, Sign, report},
    kernels::Context,
    train::{Interrupt, RunFile, TrainError, duration},
};

/// Seconds between two lines about a cell where nobody watches a terminal.
const LINE_EVERY: f64 = 30.0;

/// What `zofo compare` takes. Flags are short for keys of the run file.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Run file (TOML) with the job, and what methods have otherwise under [compare]
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// What is compared: optimizers, or labels of [compare.methods] (sets compare.optimizers)
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    optimizers: Vec<String>,
    /// How long each trains in the end: 40s, 10m, 1h or 2000-forwards (sets compare.budget)
    #[arg(long, value_name = "BUDGET")]
    budget: Option<String>,
    /// With how many further seeds each trains (sets compare.seeds)
    #[arg(long, value_name = "K")]
    seeds: Option<u32>,
    /// Values of an option that are tried, for example lr=1e-6,1e-5; may be repeated (sets compare.grid)
    #[arg(long, value_name = "KEY=VALUE,…")]
    grid: Vec<String>,
    /// Directory of the comparison (sets compare.output, relative to the working directory)
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Set a key of the run file; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on with the comparison that the directory holds; methods and seeds may have been added
    #[arg(long)]
    resume: bool,
}

impl Arguments {
    /// The flags as settings of the run file.
    fn settings(&self) -> Result<Vec<String>, Failure> {
        let mut sets = self.set.clone();
        let mut add = |key: &str, value: &dyn std::fmt::Display| sets.push(format!("compare.{key}={value}"));
        if !self.optimizers.is_empty() {
            add("optimizers", &Toml::from(self.optimizers.clone()));
        }
        if let Some(budget) = &self.budget {
            add("budget", &Toml::from(budget.clone()));
        }
        if let Some(seeds) = self.seeds {
            add("seeds", &seeds);
        }
        if !self.grid.is_empty() {
            let lists: Result<toml::Table, Failure> = self.grid.iter().map(|list| values(list)).collect();
            add("grid", &Toml::Table(lists?));
        }
        if let Some(output) = &self.output {
            let whole = std::path::absolute(output);
            let whole = whole.map_err(|source| TrainError::Write { path: output.clone(), source })?;
            let text = whole.to_str().ok_or_else(|| TrainError::PathNotText { path: whole.clone() })?;
            add("output", &Toml::from(text));
        }
        Ok(sets)
    }
}

/// `KEY=VALUE,…` as an option with its values: TOML where they are, else texts.
fn values(list: &str) -> Result<(String, Toml), Failure> {
    let usage = || Failure::Usage {
        message: format!("--grid {} lists nothing; write KEY=VALUE,…, for example lr=1e-6,1e-5", list.escape_debug()),
    };
    let (key, list) =
        list.split_once('=').filter(|(key, list)| !key.is_empty() && !list.is_empty()).ok_or_else(usage)?;
    let value = |text: &str| {
        let table: Option<toml::Table> = format!("value={text}").parse().ok();
        table.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Toml::from(text))
    };
    Ok((key.to_owned(), Toml::Array(list.split(',').map(value).collect())))
}

pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let file = RunFile::read(&arguments.run, &arguments.settings()?)?;
    let program = std::env::current_exe()
        .map_err(|source| TrainError::Read { path: PathBuf::from("the path of this program"), source })?;
    let threads = rayon::current_num_threads().to_string();
    let arguments_of_cells = ["--threads", &threads, "--isa", cx.isa.name().as_str()].map(OsString::from).to_vec();
    let mut session = Session::open(&file, arguments.resume, Launcher::new(program, arguments_of_cells))?;
    let interrupt = Interrupt::listen()?;
    let mut progress = Progress { console: &mut *console, shown: Instant::now() };
    let conclusion = session.run(&interrupt, &mut |event| progress.show(&event))?;
    console.clear();
    let page = session.page();
    if let Conclusion::Interrupted { code } = conclusion {
        let next = "the same command with --resume";
        let stopped = json!({ "stopped": "signal", "exit": code, "next": next, "report": page });
        console.result(&stopped, &format!("stopped by a signal\nnext       {next}"))?;
        return Ok(if code == Exit::Interrupted as u8 { Exit::Interrupted } else { Exit::Terminated });
    }
    let comparison = session.comparison()?;
    let methods = report::methods(&comparison);
    let text = format!("{}\nreport     {}", table(&comparison), page.display());
    let result: Value = json!({ "methods": methods, "target": comparison.target, "report": page });
    console.result(&result, &text)?;
    Ok(Exit::Ok)
}

/// The outcome for people: a line a method, the best first.
fn table(comparison: &Comparison<'_>) -> String {
    let lines = comparison.standings.iter().map(|standing| {
        let label = &standing.method.label;
        let (Some(value), Some(peak)) = (standing.value(), standing.peak()) else {
            return format!("{label:14} {}", standing.failure.as_deref().unwrap_or("no run that counts"));
        };
        let seeds: Vec<String> = standing.runs.iter().map(|(_, run)| report::words::interval(&run.best)).collect();
        let target = match standing.time_to_target() {
            Some(seconds) => format!("target after {}", report::words::seconds(seconds)),
            None => "target not reached".to_owned(),
        };
        format!(
            "{label:14} {}  each {}  {target}, {}  {}",
            report::words::score(value),
            seeds.join(", "),
            report::words::megabytes(peak),
            standing.chosen()
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is shown while a comparison goes on.
struct Progress<'c> {
    console: &'c mut Console,
    /// When a line about a cell was kept last.
    shown: Instant,
}

impl Progress<'_> {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Begins { cell, outlook } => {
                self.shown = Instant::now();
                self.console.progress(&line(cell, outlook, "begins"), true);
            }
            Event::Runs { cell, sign, outlook } => {
                let kept = !self.console.is_live() && self.shown.elapsed().as_secs_f64() >= LINE_EVERY;
                if kept {
                    self.shown = Instant::now();
                }
                let how = match sign {
                    Sign::Steps(steps) => format!("step {steps} of {}", cell.config.train.steps),
                    Sign::Waiting => "another process still works on it".to_owned(),
                };
                self.console.progress(&line(cell, outlook, &how), kept);
            }
            Event::Ends(ended) => self.console.progress(&outcome(ended), true),
        }
    }
}

fn line(cell: &Cell, outlook: &Outlook, how: &str) -> String {
    let left = outlook.seconds_left.map(|seconds| format!(", about {} left", duration(seconds))).unwrap_or_default();
    format!("cell {} of {}  {}  {how}{left}", outlook.done + 1, outlook.of, cell.name())
}

fn outcome(ended: &Ended) -> String {
    match &ended.outcome {
        Outcome::Finished(run) => {
            let score = run.mark().map(|mark| format!("  dev {:.4}, loss {:.4}", mark.value, mark.loss));
            let took = format!("{} steps in {}", run.steps, report::words::seconds(run.seconds));
            format!("           {}  {took}{}", ended.cell, score.unwrap_or_default())
        }
        Outcome::Failed { message, .. } => format!("           {}  failed: {message}", ended.cell),
    }
}
