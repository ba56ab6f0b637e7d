//! `cells.csv` and `curves.csv`: the cells of a comparison as tables.

use serde::Serialize;

use super::Command;
use crate::compare::{Comparison, Ended, Outcome, Scored, standing::said};

/// A row of a cell; empty where it did not finish.
#[derive(Debug, Serialize)]
struct Row<'r> {
    cell: &'r str,
    method: &'r str,
    stage: String,
    options: String,
    seed: u64,
    outcome: &'static str,
    budget: String,
    planned_steps: u64,
    steps: Option<u64>,
    stopped: Option<&'r str>,
    seconds: Option<f64>,
    seconds_per_step: Option<f64>,
    forwards: Option<u64>,
    tokens: Option<u64>,
    nonfinite: Option<u64>,
    peak_rss_bytes: Option<u64>,
    metric: Option<&'r str>,
    split: Option<&'r str>,
    base: Option<f64>,
    best: Option<f64>,
    best_low: Option<f64>,
    best_high: Option<f64>,
    best_loss: Option<f64>,
    best_step: Option<u64>,
    last: Option<f64>,
    last_low: Option<f64>,
    last_high: Option<f64>,
    last_loss: Option<f64>,
    weights_sha256: Option<&'r str>,
    wall_seconds: f64,
    message: Option<&'r str>,
    command: String,
}

/// A row of an evaluation.
#[derive(Debug, Serialize)]
struct Evaluation<'r> {
    cell: &'r str,
    method: &'r str,
    stage: String,
    seed: u64,
    step: u64,
    seconds: f64,
    forwards: u64,
    value: f64,
    loss: f64,
}

/// A row for each cell that is over.
pub(super) fn cells(comparison: &Comparison<'_>, command: Command<'_>) -> Vec<u8> {
    written(comparison.cells.iter().map(|ended| row(ended, command(ended))))
}

/// A row for each evaluation.
pub(super) fn curves(comparison: &Comparison<'_>) -> Vec<u8> {
    let measured = comparison.cells.iter().filter_map(|ended| Some((ended, ended.measured()?)));
    written(measured.flat_map(|(ended, run)| {
        run.curve.iter().map(|point| Evaluation {
            cell: &ended.cell,
            method: &ended.method,
            stage: ended.stage.to_string(),
            seed: ended.seed,
            step: point.step,
            seconds: point.seconds,
            forwards: point.forwards,
            value: point.value,
            loss: point.loss,
        })
    }))
}

fn row(ended: &Ended, command: String) -> Row<'_> {
    let run = ended.measured();
    let of = |scored: fn(&crate::compare::Measured) -> Scored| run.map(scored);
    let (base, best, last) = (of(|run| run.base), of(|run| run.best), of(|run| run.last));
    let (outcome, message) = match &ended.outcome {
        Outcome::Finished(_) => ("finished", None),
        Outcome::Failed { message, .. } => ("failed", Some(&**message)),
    };
    Row {
        cell: &ended.cell,
        method: &ended.method,
        stage: ended.stage.to_string(),
        options: said(&ended.options),
        seed: ended.seed,
        outcome,
        budget: ended.budget.map(|budget| budget.to_string()).unwrap_or_default(),
        planned_steps: ended.planned_steps,
        steps: run.map(|run| run.steps),
        stopped: run.map(|run| &*run.stopped),
        seconds: run.map(|run| run.seconds),
        seconds_per_step: run.map(|run| run.seconds_per_step),
        forwards: run.map(|run| run.forwards),
        tokens: run.map(|run| run.tokens),
        nonfinite: run.map(|run| run.nonfinite),
        peak_rss_bytes: run.map(|run| run.peak_rss_bytes),
        metric: run.map(|run| &*run.metric),
        split: run.map(|run| &*run.split),
        base: base.map(|base| base.value),
        best: best.map(|best| best.value),
        best_low: best.map(|best| best.ci95[0]),
        best_high: best.map(|best| best.ci95[1]),
        best_loss: best.map(|best| best.loss),
        best_step: run.map(|run| run.best_step),
        last: last.map(|last| last.value),
        last_low: last.map(|last| last.ci95[0]),
        last_high: last.map(|last| last.ci95[1]),
        last_loss: last.map(|last| last.loss),
        weights_sha256: run.map(|run| &*run.weights_sha256),
        wall_seconds: ended.wall_seconds,
        message,
        command,
    }
}

fn written(rows: impl Iterator<Item: Serialize>) -> Vec<u8> {
    let mut table = csv::Writer::from_writer(Vec::new());
    rows.for_each(|row| table.serialize(row).expect("numbers and texts, written to memory"));
    table.into_inner().expect("written to memory")
}
