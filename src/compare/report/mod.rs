//! What a comparison writes: `compare.json` with everything, two tables, and a page that needs nothing but a browser.
//!
//! *What must stay true.* Every file is replaced whole, the record first: it alone is read back.

mod charts;
mod html;
mod labels;
mod scale;
mod svg;
mod table;
pub mod words;

use std::{fs, path::Path};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CompareError, Comparison, Ended,
    standing::{Standing, said},
};
use crate::train::{RunConfig, replace_file};

/// The record.
pub(super) const RECORD: &str = "compare.json";
/// The page.
pub(super) const PAGE: &str = "report.html";

/// The command line of a cell.
type Command<'c> = &'c dyn Fn(&Ended) -> String;

/// What all methods do.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    task: String,
    model: String,
    profile: &'static str,
    num_train: Option<u64>,
    num_dev: Option<u64>,
    batch_size: u64,
    seed: u64,
    machine: Machine,
}

/// What they do it on.
#[derive(Clone, Debug, Serialize)]
struct Machine {
    cpu: String,
    threads: usize,
}

impl Job {
    /// The job of a run file, on this machine.
    pub fn of(config: &RunConfig) -> Job {
        let model = config.model.file_name().unwrap_or(config.model.as_os_str());
        Job {
            task: config.data.task.clone(),
            model: model.to_string_lossy().into_owned(),
            profile: config.profile.as_str(),
            num_train: config.data.num_train,
            num_dev: config.data.num_dev,
            batch_size: config.train.batch_size,
            seed: config.seed,
            machine: Machine { cpu: cpu(), threads: rayon::current_num_threads() },
        }
    }
}

/// The processor's name, where the system says it.
fn cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Writes all files of `comparison` to `output`.
///
/// # Errors
/// [`TrainError::Write`](crate::train::TrainError::Write).
pub(super) fn write(
    comparison: &Comparison<'_>,
    job: &Job,
    command: Command<'_>,
    output: &Path,
) -> Result<(), CompareError> {
    let record = format!("{:#}\n", record(comparison, job, command));
    for (name, bytes) in [
        (RECORD, record.into_bytes()),
        ("cells.csv", table::cells(comparison, command)),
        ("curves.csv", table::curves(comparison)),
        (PAGE, html::page(comparison, job, command).into_bytes()),
    ] {
        replace_file(&output.join(name), &bytes)?;
    }
    Ok(())
}

/// Everything, as JSON.
fn record(comparison: &Comparison<'_>, job: &Job, command: Command<'_>) -> Value {
    let config = comparison.config;
    let cells = comparison.cells.iter().map(|ended| {
        let mut cell = serde_json::to_value(ended).expect("numbers and texts");
        cell["command"] = command(ended).into();
        cell
    });
    json!({
        "format": 1,
        "zofo": env!("CARGO_PKG_VERSION"),
        "job": job,
        "settings": {
            "budget": config.budget,
            "rungs": config.rungs,
            "rehearsal": config.rehearsal,
            "seeds": config.seeds,
            "evaluations": config.evaluations,
        },
        "target": comparison.target,
        "methods": methods(comparison),
        "cells": cells.collect::<Vec<_>>(),
    })
}

/// What became of each method, the best first.
pub fn methods(comparison: &Comparison<'_>) -> Value {
    let method = |standing: &Standing<'_>| {
        let others = comparison.ranked().filter(|other| other.method.label != standing.method.label);
        let against = others.map(|other| (other.method.label.clone(), json!(comparison.verdict(standing, other))));
        let seeds =
            standing.runs.iter().map(|(seed, run)| json!({ "seed": seed, "best": run.best, "final": run.last }));
        json!({
            "method": standing.method.label,
            "optimizer": standing.method.config.optimizer,
            "tune": standing.method.config.tune,
            "candidates": standing.method.candidates,
            "chosen": standing.chosen.map(|candidate| &standing.method.candidates[candidate]),
            "value": standing.value(),
            "loss": standing.mean(|run| run.best.loss),
            "seconds": standing.mean(|run| run.seconds),
            "seconds_per_step": standing.mean(|run| run.seconds_per_step),
            "forwards": standing.mean(|run| run.forwards as f64),
            "peak_rss_bytes": standing.peak(),
            "seconds_to_target": standing.time_to_target(),
            "seeds": seeds.collect::<Vec<_>>(),
            "against": against.collect::<serde_json::Map<_, _>>(),
            "failure": standing.failure,
        })
    };
    comparison.standings.iter().map(method).collect()
}

/// What a candidate says, for people.
fn options(ended: &Ended) -> String {
    match said(&ended.options) {
        none if none.is_empty() => "as the run file says".to_owned(),
        said => said,
    }
}

#[cfg(test)]
mod tests;
