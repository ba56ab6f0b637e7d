//! The result of a run: what `zofo train` prints at its end and keeps as `report.json`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Score;

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The task.
    pub task: String,
    /// The optimizer.
    pub optimizer: String,
    /// How many steps were taken.
    pub steps: u64,
    /// Why no more: `steps`, `seconds` or `patience`.
    pub stopped: &'static str,
    /// What the scores below were measured on: `valid`, or `dev`; nothing where there is no data to measure on.
    pub split: Option<&'static str>,
    /// The share of that data's most frequent answer: what a model scores that always gives it.
    pub majority: Option<f64>,
    /// The score of the weights that the run began with.
    pub base: Option<Score>,
    /// The score of the best weights.
    pub best: Option<Best>,
    /// The score of the last step's weights.
    #[serde(rename = "final")]
    pub last: Option<Score>,
    /// How long the run took, all its processes together.
    pub seconds: f64,
    /// How long its steps took: what `train.seconds` bounds.
    pub training_seconds: f64,
    /// The most memory that the last process of the run held.
    pub peak_rss_bytes: u64,
    /// How much more rounding changed the weights than updates did, root mean squares over steps; 0 where they are stored
    /// exactly. Above 1 a run walks at random more than it learns.
    pub rounding_per_update: f64,
    /// What the last step took gradients of, where the optimizer chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// The size of the journal.
    pub journal_bytes: u64,
    /// The digest of the last step's tuned tensors.
    pub weights_sha256: String,
}

/// The best weights of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Best {
    /// After which step.
    pub step: u64,
    /// What they scored.
    #[serde(flatten)]
    pub score: Score,
    /// The digest of the tuned tensors.
    pub weights_sha256: String,
}

/// The parameters that may move, by how.
#[derive(Clone, Debug, Serialize)]
pub struct Partition {
    /// The names of those that take gradients.
    pub gradients: Vec<String>,
    /// The names of all others.
    pub others: Vec<String>,
}

impl Partition {
    /// Of whether each parameter takes gradients.
    pub(super) fn of(by_name: BTreeMap<String, bool>) -> Partition {
        let (gradients, others): (Vec<_>, Vec<_>) = by_name.into_iter().partition(|(_, takes)| *takes);
        let names = |side: Vec<(String, bool)>| side.into_iter().map(|(name, _)| name).collect();
        Partition { gradients: names(gradients), others: names(others) }
    }
}
