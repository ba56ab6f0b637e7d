//! What a run directory says of its run: scores by step, and what the steps until then took.
//!
//! *What must stay true.* Seconds are those of steps alone. What a crash cost the file of metrics is missing from seconds
//! and passes, never from the scores, which the journal has.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use serde::Deserialize;

use super::{
    CompareError, Measured, Point, Scored,
    ledger::{number, numbers},
};
use crate::{
    journal::{Kind, Reader},
    train::{Layout, TrainError},
};

/// What steps took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Taken {
    seconds: f64,
    forwards: u64,
    tokens: u64,
    nonfinite: u64,
}

/// A line of the metrics.
#[derive(Debug, Deserialize)]
struct Line {
    step: u64,
    seconds: f64,
    forwards: u64,
    tokens: u64,
    nonfinite: bool,
}

/// What is read of a report.
#[derive(Debug, Deserialize)]
struct Report {
    steps: u64,
    stopped: String,
    split: Option<String>,
    base: Option<Measure>,
    best: Option<Measure>,
    #[serde(rename = "final")]
    last: Option<Measure>,
    peak_rss_bytes: u64,
    weights_sha256: String,
}

/// A score of a report.
#[derive(Debug, Deserialize)]
struct Measure {
    metric: String,
    #[serde(default)]
    step: u64,
    #[serde(deserialize_with = "number")]
    value: f64,
    #[serde(deserialize_with = "numbers")]
    ci95: [f64; 2],
    #[serde(deserialize_with = "number")]
    loss: f64,
    count: usize,
}

/// What came of the run in `dir`, which is over.
///
/// # Errors
/// [`CompareError::NoDev`] if nothing was scored; [`CompareError::Report`] and [`TrainError`] for files that are not as
/// they were written.
pub(super) fn measure(cell: &str, dir: &Layout) -> Result<Measured, CompareError> {
    let path = dir.report();
    let bytes = std::fs::read(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
    let report: Report = serde_json::from_slice(&bytes).map_err(|source| CompareError::Report { path, source })?;
    let taken = taken(&dir.metrics())?;
    let curve = curve(&dir.journal(), &taken)?;
    let Report { split: Some(split), base: Some(base), best: Some(best), last: Some(last), .. } = report else {
        return Err(CompareError::NoDev { cell: cell.to_owned() });
    };
    let Taken { seconds, forwards, tokens, nonfinite } = taken.last().map(|(_, taken)| *taken).unwrap_or_default();
    let first = taken.first().map_or(0.0, |(_, taken)| taken.seconds);
    let seconds_per_step = match taken.len() {
        0 | 1 => seconds,
        lines => (seconds - first) / (lines - 1) as f64,
    };
    let scored = |of: &Measure| Scored { value: of.value, ci95: of.ci95, loss: of.loss, count: of.count };
    Ok(Measured {
        steps: report.steps,
        stopped: report.stopped,
        seconds,
        seconds_per_step,
        forwards,
        tokens,
        nonfinite,
        peak_rss_bytes: report.peak_rss_bytes,
        split,
        base: scored(&base),
        best: scored(&best),
        last: scored(&last),
        best_step: best.step,
        metric: base.metric,
        weights_sha256: report.weights_sha256,
        curve,
    })
}

/// After each step, what it and those before it took.
fn taken(metrics: &Path) -> Result<Vec<(u64, Taken)>, CompareError> {
    let failed = |source| TrainError::Read { path: metrics.to_owned(), source };
    let (mut sums, mut sum) = (Vec::new(), Taken::default());
    for line in BufReader::new(File::open(metrics).map_err(failed)?).lines() {
        let line: Line = serde_json::from_str(&line.map_err(failed)?)
            .map_err(|source| CompareError::Report { path: metrics.to_owned(), source })?;
        sum.seconds += line.seconds;
        sum.forwards += line.forwards;
        sum.tokens += line.tokens;
        sum.nonfinite += u64::from(line.nonfinite);
        sums.push((line.step, sum));
    }
    Ok(sums)
}

/// The evaluations on dev that a journal holds.
fn curve(journal: &Path, taken: &[(u64, Taken)]) -> Result<Vec<Point>, CompareError> {
    let mut reader = Reader::open(journal).map_err(TrainError::from)?;
    let mut points = Vec::new();
    while let Some(record) = reader.next_record().map_err(TrainError::from)? {
        if let (Kind::Evaluation, &[value, loss, ..]) = (record.kind, &record.values[..]) {
            let before = taken.partition_point(|(step, _)| *step <= record.step);
            let Taken { seconds, forwards, .. } = before.checked_sub(1).map(|last| taken[last].1).unwrap_or_default();
            points.push(Point { step: record.step, seconds, forwards, value, loss });
        }
    }
    Ok(points)
}
