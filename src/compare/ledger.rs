//! What the cells that are over came to: `compare.json`, from which a comparison goes on.
//!
//! *What must stay true.* The file is replaced whole after every cell. Of what it holds only the cells are read back: all
//! else follows from them and from the run file.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Cell, CompareError, Stage};
use crate::{
    task::Metric,
    train::{Budget, Difference, Mark, RunFile, TrainError, first_difference},
};

/// A cell that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Its name.
    pub cell: String,
    /// The method's label.
    pub method: String,
    /// What it was for.
    pub stage: Stage,
    /// Which candidate it tried, from 0.
    pub candidate: usize,
    /// What that one says.
    pub options: toml::Table,
    /// The seed.
    pub seed: u64,
    /// How long it was to train.
    pub budget: Option<Budget>,
    /// How many steps that was expected to be.
    pub planned_steps: u64,
    /// How long its last process took: loading, evaluating and saving as well.
    #[serde(deserialize_with = "number")]
    pub wall_seconds: f64,
    /// The resolved run file.
    pub run_file: String,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It is over.
    Finished(Box<Measured>),
    /// It broke off for a reason that is the method's own.
    Failed {
        /// The exit code; nothing if a signal ended the process.
        exit: Option<i32>,
        /// What it said.
        message: String,
    },
}

/// What was measured of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Steps that it took.
    pub steps: u64,
    /// Why no more: `steps`, or `seconds` if it was cut off.
    pub stopped: String,
    /// How long its steps took.
    #[serde(deserialize_with = "number")]
    pub seconds: f64,
    /// How long one took, the first left out: it draws what later ones keep, and touches memory for the first time.
    #[serde(deserialize_with = "number")]
    pub seconds_per_step: f64,
    /// Forward passes, each branch counted.
    pub forwards: u64,
    /// Tokens that went through them.
    pub tokens: u64,
    /// Steps whose loss was not finite, so that they changed nothing.
    pub nonfinite: u64,
    /// The most memory that its last process held.
    pub peak_rss_bytes: u64,
    /// The metric's name.
    pub metric: String,
    /// What the scores below were measured on: `valid` or `dev`.
    pub split: String,
    /// The weights that it began with.
    pub base: Scored,
    /// The best weights by dev.
    pub best: Scored,
    /// The weights after the last step.
    pub last: Scored,
    /// After which step the best were.
    pub best_step: u64,
    /// The digest of the last weights.
    pub weights_sha256: String,
    /// What it scored on dev on the way.
    pub curve: Vec<Point>,
}

/// A score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The metric.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// Its 95 % confidence interval.
    #[serde(deserialize_with = "numbers")]
    pub ci95: [f64; 2],
    /// The mean loss.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Of how many examples.
    pub count: usize,
}

/// A score on the way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps that were complete.
    pub step: u64,
    /// How long they had taken.
    #[serde(deserialize_with = "number")]
    pub seconds: f64,
    /// Their forward passes.
    pub forwards: u64,
    /// The metric on dev.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// The mean loss there.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
}

impl Ended {
    /// What became of `cell`, whose candidate says `options`, in so many seconds.
    pub(super) fn of(cell: &Cell, options: &toml::Table, outcome: Outcome, wall_seconds: f64) -> Ended {
        Ended {
            cell: cell.name(),
            method: cell.method.clone(),
            stage: cell.stage,
            candidate: cell.candidate.0,
            options: options.clone(),
            seed: cell.config.seed,
            budget: cell.budget,
            planned_steps: cell.config.train.steps,
            wall_seconds,
            run_file: cell.config.to_toml(),
            outcome,
        }
    }

    /// What was measured, if it finished.
    pub fn measured(&self) -> Option<&Measured> {
        match &self.outcome {
            Outcome::Finished(measured) => Some(measured),
            Outcome::Failed { .. } => None,
        }
    }

    /// Whether it would come to the same once more: a loss that is not finite does, a full disk need not.
    fn is_settled(&self) -> bool {
        const NONFINITE: i32 = 3;
        match &self.outcome {
            Outcome::Finished(_) => true,
            Outcome::Failed { exit, .. } => *exit == Some(NONFINITE),
        }
    }
}

impl Measured {
    /// The metric.
    pub fn metric(&self) -> Metric {
        // Only what a metric was named by is ever written.
        Metric::ALL.into_iter().find(|metric| metric.name() == self.metric).unwrap_or(Metric::Accuracy)
    }

    /// What the weights of its end scored on dev.
    pub fn mark(&self) -> Option<Mark> {
        self.curve.last().map(|point| Mark { step: point.step, value: point.value, loss: point.loss })
    }
}

/// The cells that are over.
#[derive(Debug, Default)]
pub struct Ledger {
    path: PathBuf,
    cells: BTreeMap<String, Ended>,
}

impl Ledger {
    /// Reads the file at `path`, if there is one. Cells that may come to something else now are left out.
    ///
    /// # Errors
    /// [`CompareError::Ledger`], [`TrainError::Read`].
    pub fn open(path: &Path) -> Result<Ledger, CompareError> {
        #[derive(Deserialize)]
        struct File {
            cells: Vec<Ended>,
        }
        let file: File = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| CompareError::Ledger { path: path.to_owned(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => File { cells: Vec::new() },
            Err(source) => return Err(TrainError::Read { path: path.to_owned(), source }.into()),
        };
        let settled = file.cells.into_iter().filter(Ended::is_settled);
        Ok(Ledger { path: path.to_owned(), cells: settled.map(|ended| (ended.cell.clone(), ended)).collect() })
    }

    /// All cells that are over, by name.
    pub fn cells(&self) -> impl Iterator<Item = &Ended> {
        self.cells.values()
    }

    /// Takes note of a cell.
    pub fn add(&mut self, ended: Ended) {
        self.cells.insert(ended.cell.clone(), ended);
    }

    /// What `cell` came to, if it is over. How many steps it was given then stays as it was.
    ///
    /// # Errors
    /// [`TrainError::Differs`] if it was another run.
    pub fn of(&self, cell: &Cell) -> Result<Option<&Ended>, CompareError> {
        let Some(ended) = self.cells.get(&cell.name()) else { return Ok(None) };
        let mut cell = cell.clone();
        cell.set_steps(ended.planned_steps);
        let differs = |what| TrainError::Differs { path: self.path.clone(), what: Difference::Setting(what) };
        if ended.budget != cell.budget {
            let budget =
                |budget: Option<Budget>| budget.map_or_else(|| "not set".to_owned(), |budget| budget.to_string());
            let (was, is) = (budget(ended.budget), budget(cell.budget));
            return Err(differs(format!("the budget of {} was {was}, is {is}", cell.name())).into());
        }
        let begun = RunFile::parse(&ended.run_file, &self.path, Path::new("/"), &[])?.config;
        if begun.digest() != cell.config.digest() {
            let change = first_difference(&ended.run_file, &cell.config.to_toml());
            let change = change.unwrap_or_else(|| "the run file".to_owned());
            return Err(differs(format!("of {}, {change}", cell.name())).into());
        }
        Ok(Some(ended))
    }
}

/// JSON has no NaN: it is written as `null`.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

pub(super) fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<[f64; 2], D::Error> {
    Ok(<[Option<f64>; 2]>::deserialize(from)?.map(|number| number.unwrap_or(f64::NAN)))
}
