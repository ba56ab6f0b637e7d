//! The result of a run: what `zofo train` prints at its end and keeps as `report.json`.

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
    /// Why no more: `steps`, or `patience`.
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
    /// The most memory that the last process of the run held.
    pub peak_rss_bytes: u64,
    /// How much more rounding changed the weights than updates did, root mean squares over steps; 0 where they are stored
    /// exactly. Above 1 a run walks at random more than it learns.
    pub rounding_per_update: f64,
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
