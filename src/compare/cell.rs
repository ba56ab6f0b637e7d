//! A cell of a comparison: one run of one method, in a directory of its own.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::train::{Budget, CompareConfig, Method, RunConfig};

/// The directory of all cells, in that of the comparison.
pub const CELLS: &str = "cells";

/// What a run is for. The order is that in which a comparison does them: a method that cannot be trained at all is met
/// within its first minutes, and what the machine does meanwhile meets all methods alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Stage {
    /// A few steps, to learn how long one takes.
    Rehearsal,
    /// Candidates are compared, and the better half of them goes on; from 1.
    Rung(usize),
    /// The best candidate trains with a seed that chose nothing; from 1.
    Seed(u64),
}

/// One run of one method.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The method's label.
    pub method: String,
    /// What the run is for.
    pub stage: Stage,
    /// Which candidate it tries; of how many.
    pub candidate: (usize, usize),
    /// How long it may train; as many steps as are set in a rehearsal.
    pub budget: Option<Budget>,
    /// How many times it is scored after its start.
    evaluations: u64,
    /// The run.
    pub config: RunConfig,
}

/// A time budget may be exceeded by a tenth before the run is cut off: where a step takes a little longer than it did
/// when the steps were counted, the run still ends as its schedule does.
const OVERTIME: (u64, u64) = (11, 10);

impl Cell {
    /// The run of `method` that tries `candidate` in a rehearsal of so many steps.
    pub(super) fn rehearsal(method: &Method, candidate: usize, steps: u64, output: &Path) -> Cell {
        let mut cell = Cell::new(method, Stage::Rehearsal, candidate, None, output);
        cell.config.data.num_dev = Some(1);
        cell.config.data.valid = None;
        cell.set_steps(steps);
        cell
    }

    /// The run of `method` that tries `candidate` in a rung, for `budget`: it is scored at its end alone, and on dev.
    pub(super) fn rung(method: &Method, rung: usize, candidate: usize, budget: Budget, output: &Path) -> Cell {
        let mut cell = Cell::new(method, Stage::Rung(rung), candidate, Some(budget), output);
        cell.config.data.valid = None;
        cell
    }

    /// The run of `method` with its `candidate` and the `seed`th further seed.
    pub(super) fn seed(method: &Method, seed: u64, candidate: usize, of: &CompareConfig) -> Cell {
        let mut cell = Cell::new(method, Stage::Seed(seed), candidate, Some(of.budget), &of.output);
        cell.evaluations = of.evaluations;
        // Run files hold seeds as TOML's integers.
        cell.config.seed = (cell.config.seed + seed) & i64::MAX as u64;
        cell
    }

    fn new(method: &Method, stage: Stage, candidate: usize, budget: Option<Budget>, output: &Path) -> Cell {
        let mut config = method.config.clone();
        config.optimizer.options.extend(method.candidates[candidate].clone());
        // The budget alone ends a run.
        config.train.patience = 0;
        config.train.seconds = match budget {
            Some(Budget::Seconds(seconds)) => Some((seconds * OVERTIME.0).div_ceil(OVERTIME.1)),
            Some(Budget::Forwards(_)) | None => None,
        };
        let candidate = (candidate, method.candidates.len());
        let mut cell = Cell { method: method.label.clone(), stage, candidate, budget, evaluations: 1, config };
        cell.config.output = output.join(CELLS).join(cell.name());
        cell
    }

    /// Sets how many steps it takes, and after how many of them it is scored.
    pub(super) fn set_steps(&mut self, steps: u64) {
        self.config.train.steps = steps;
        self.config.train.eval_every = steps.div_ceil(self.evaluations);
    }

    /// What it is called, and its directory among the [`CELLS`].
    pub fn name(&self) -> String {
        let Cell { method, stage, candidate: (candidate, of), .. } = self;
        let candidate = if *of > 1 { format!("-candidate-{}", candidate + 1) } else { String::new() };
        format!("{method}/{stage}{candidate}")
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Rehearsal => f.write_str("rehearsal"),
            Stage::Rung(rung) => write!(f, "rung-{rung}"),
            Stage::Seed(seed) => write!(f, "seed-{seed}"),
        }
    }
}

impl FromStr for Stage {
    type Err = String;
    fn from_str(text: &str) -> Result<Stage, String> {
        let stage = || match text.split_once('-') {
            None => (text == "rehearsal").then_some(Stage::Rehearsal),
            Some(("rung", rung)) => rung.parse().ok().map(Stage::Rung),
            Some(("seed", seed)) => seed.parse().ok().map(Stage::Seed),
            Some(_) => None,
        };
        stage().ok_or_else(|| format!("{text:?} is no stage of a comparison"))
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> String {
        stage.to_string()
    }
}

impl TryFrom<String> for Stage {
    type Error = String;
    fn try_from(text: String) -> Result<Stage, String> {
        text.parse()
    }
}
