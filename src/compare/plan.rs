//! Which cells a comparison has, and which comes next: a rehearsal of each method, the rungs of successive halving, then
//! the chosen candidate with each further seed.
//!
//! *What must stay true.* The plan follows from the run file and from the cells that are over. A time budget becomes a
//! number of steps before a run begins, by the pace of the stage before: the run is an ordinary one, whose schedule is over
//! its steps and whose journal replays.

use super::{
    Cell, CompareError, Ended, Ledger, Measured, Stage,
    halving::{better_half, half},
};
use crate::{
    task::Metric,
    train::{Budget, CompareConfig, Method},
};

/// What is to be done, and what is done of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// How methods are compared.
    pub config: &'p CompareConfig,
    /// The methods.
    pub methods: &'p [Method],
    /// The cells that are over.
    pub ledger: &'p Ledger,
}

/// How far a comparison has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Cells that are over.
    pub done: usize,
    /// All cells, unless a method drops out.
    pub of: usize,
    /// How long the others may take, if that can be told.
    pub seconds_left: Option<f64>,
}

impl<'p> Plan<'p> {
    /// The cell that comes next; `None` if all are over.
    ///
    /// # Errors
    /// [`CompareError`] if a cell that is over was another one.
    pub fn next(&self) -> Result<Option<Cell>, CompareError> {
        for stage in self.stages() {
            for method in self.methods {
                for cell in self.cells(method, stage)? {
                    if self.ledger.of(&cell)?.is_none() {
                        return Ok(Some(cell));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The candidate of `method` that its rungs chose; `None` while they have not, or if none of them finished.
    ///
    /// # Errors
    /// As [`Plan::next`].
    pub fn chosen(&self, method: &Method) -> Result<Option<usize>, CompareError> {
        Ok(self.field(method, self.config.rungs.len() + 1)?.and_then(|field| field.first().copied()))
    }

    /// What the runs of `method` with further seeds came to, as far as they are over.
    ///
    /// # Errors
    /// As [`Plan::next`].
    pub fn runs(&self, method: &Method) -> Result<Vec<&'p Ended>, CompareError> {
        let Some(chosen) = self.chosen(method)? else { return Ok(Vec::new()) };
        let ended = |seed| self.ledger.of(&Cell::seed(method, seed, chosen, self.config)).transpose();
        (1..=self.config.seeds).filter_map(ended).collect()
    }

    /// How far it has come.
    ///
    /// # Errors
    /// As [`Plan::next`].
    pub fn outlook(&self) -> Result<Outlook, CompareError> {
        let (mut done, mut of, mut ahead) = (0, 0, 0.0);
        for method in self.methods {
            let is_out = self.is_out(method)?;
            for stage in self.stages() {
                let mut over = self.ledger.cells().filter(|ended| ended.method == method.label && ended.stage == stage);
                let expected = self.expected(method, stage);
                let over = over.by_ref().count().min(expected);
                let expected = if is_out { over } else { expected };
                let budget = self.budget(stage).map_or(0.0, |budget| budget.amount() as f64);
                (done, of, ahead) = (done + over, of + expected, ahead + (expected - over) as f64 * budget);
            }
        }
        let measured = self.ledger.cells().filter(|ended| ended.measured().is_some());
        let (wall, budgets) = measured.fold((0.0, 0.0), |(wall, budgets), ended| match ended.budget {
            Some(budget) => (wall + ended.wall_seconds, budgets + budget.amount() as f64),
            None => (wall, budgets),
        });
        let rate = match self.config.budget {
            _ if budgets > 0.0 => Some(wall / budgets),
            Budget::Seconds(_) => Some(1.0),
            Budget::Forwards(_) => None,
        };
        Ok(Outlook { done, of, seconds_left: rate.map(|rate| rate * ahead) })
    }

    fn stages(&self) -> impl Iterator<Item = Stage> + use<> {
        let rungs = (1..=self.config.rungs.len()).map(Stage::Rung);
        [Stage::Rehearsal].into_iter().chain(rungs).chain((1..=self.config.seeds).map(Stage::Seed))
    }

    fn budget(&self, stage: Stage) -> Option<Budget> {
        match stage {
            Stage::Rehearsal => None,
            Stage::Rung(rung) => Some(self.config.rungs[rung - 1]),
            Stage::Seed(_) => Some(self.config.budget),
        }
    }

    /// How many cells of a stage a method has if it does not drop out.
    fn expected(&self, method: &Method, stage: Stage) -> usize {
        match stage {
            Stage::Rehearsal | Stage::Seed(_) => 1,
            Stage::Rung(rung) => match (1..rung).fold(method.candidates.len(), |candidates, _| half(candidates)) {
                1 => 0,
                candidates => candidates,
            },
        }
    }

    /// The cells of a method in a stage, as far as those before decide them.
    fn cells(&self, method: &Method, stage: Stage) -> Result<Vec<Cell>, CompareError> {
        let mut cells: Vec<Cell> = match stage {
            Stage::Rehearsal => return Ok(vec![self.rehearsal(method)]),
            Stage::Rung(rung) => match self.field(method, rung)? {
                Some(field) if field.len() > 1 => {
                    field.into_iter().map(|candidate| self.rung(method, rung, candidate)).collect()
                }
                _ => Vec::new(),
            },
            Stage::Seed(seed) => {
                let chosen = self.chosen(method)?;
                chosen.into_iter().map(|candidate| Cell::seed(method, seed, candidate, self.config)).collect()
            }
        };
        let Some(pace) = self.pace(method, stage) else { return Ok(Vec::new()) };
        cells.iter_mut().for_each(|cell| cell.set_steps(pace.steps(self.budget(stage).expect("no rehearsal"))));
        Ok(cells)
    }

    fn rehearsal(&self, method: &Method) -> Cell {
        Cell::rehearsal(method, 0, self.config.rehearsal, &self.config.output)
    }

    fn rung(&self, method: &Method, rung: usize, candidate: usize) -> Cell {
        Cell::rung(method, rung, candidate, self.config.rungs[rung - 1], &self.config.output)
    }

    /// The candidates of a method that enter a rung, behind the first rung the best first; `None` while the rungs before
    /// are not over. Where one is left it has nobody to run against.
    fn field(&self, method: &Method, rung: usize) -> Result<Option<Vec<usize>>, CompareError> {
        let mut field: Vec<usize> = (0..method.candidates.len()).collect();
        for before in 1..rung {
            if field.len() > 1 {
                let (mut marks, mut metric) = (Vec::new(), Metric::Accuracy);
                for candidate in field {
                    let Some(ended) = self.ledger.of(&self.rung(method, before, candidate))? else { return Ok(None) };
                    metric = ended.measured().map_or(metric, Measured::metric);
                    marks.push((candidate, ended.measured().and_then(Measured::mark)));
                }
                field = better_half(&marks, metric);
            }
        }
        Ok(Some(field))
    }

    /// Whether a method has dropped out: it cannot be trained, or with no candidate.
    pub(super) fn is_out(&self, method: &Method) -> Result<bool, CompareError> {
        let rehearsed = self.ledger.of(&self.rehearsal(method))?;
        let field = self.field(method, self.config.rungs.len() + 1)?;
        Ok(rehearsed.is_some_and(|ended| ended.measured().is_none()) || field.is_some_and(|field| field.is_empty()))
    }

    /// What a step of `method` takes, by its runs of the last stage before `stage` that has any.
    fn pace(&self, method: &Method, stage: Stage) -> Option<Pace> {
        let before = self.ledger.cells().filter(|ended| {
            ended.method == method.label && ended.stage < stage && !matches!(ended.stage, Stage::Seed(_))
        });
        let before: Vec<(Stage, &Measured)> =
            before.filter_map(|ended| Some((ended.stage, ended.measured()?))).collect();
        let last = before.iter().map(|(stage, _)| *stage).max()?;
        let of_last = before.iter().filter(|(stage, _)| *stage == last).map(|(_, measured)| *measured);
        Some(Pace::mean(of_last))
    }
}

/// What a step takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    seconds: f64,
    forwards: f64,
}

impl Pace {
    /// The mean over runs.
    fn mean<'m>(runs: impl Iterator<Item = &'m Measured>) -> Pace {
        let (mut seconds, mut forwards, mut count) = (0.0, 0.0, 0.0);
        for run in runs {
            seconds += run.seconds_per_step;
            forwards += run.forwards as f64 / run.steps as f64;
            count += 1.0;
        }
        Pace { seconds: seconds / count, forwards: forwards / count }
    }

    /// How many steps a budget is, at least one.
    fn steps(self, budget: Budget) -> u64 {
        let step = match budget {
            Budget::Seconds(_) => self.seconds,
            Budget::Forwards(_) => self.forwards,
        };
        // Saturates where a step took no time that could be measured.
        ((budget.amount() as f64 / step) as u64).clamp(1, MOST_STEPS)
    }
}

/// What a run file may ask for.
const MOST_STEPS: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests;
