//! A comparison under way: one cell after the other, and everything written anew after each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Cell, CompareError, Comparison, Ended, Ending, Launcher, Ledger, Outcome, Outlook, Plan, Sign,
    report::{self, Job, RECORD},
    running::{forget_weights, run_file},
};
use crate::train::{Interrupt, Layout, Method, RunFile, TrainError, lock};

/// What a comparison tells while it goes on.
#[derive(Debug)]
pub enum Event<'e> {
    /// A cell begins, or goes on.
    Begins {
        /// The cell.
        cell: &'e Cell,
        /// How far the comparison has come.
        outlook: Outlook,
    },
    /// A cell goes on.
    Runs {
        /// The cell.
        cell: &'e Cell,
        /// How.
        sign: Sign,
        /// How far the comparison has come.
        outlook: Outlook,
    },
    /// A cell is over.
    Ends(&'e Ended),
}

/// How a comparison ended, or was left.
#[derive(Debug)]
pub enum Conclusion {
    /// Every cell is over.
    Finished,
    /// A signal ended it; it can go on.
    Interrupted {
        /// The exit code of the signal.
        code: u8,
    },
}

/// A comparison that this process may write to.
#[derive(Debug)]
pub struct Session<'s> {
    file: &'s RunFile,
    methods: Vec<Method>,
    ledger: Ledger,
    launcher: Launcher,
    /// Held until dropped.
    _lock: fs::File,
}

impl<'s> Session<'s> {
    /// Opens the comparison that `file` describes, or goes on with the one that is there if `resume` asks for it.
    ///
    /// # Errors
    /// [`CompareError`]: methods that cannot be meant, a directory that is in use or holds a comparison.
    pub fn open(file: &'s RunFile, resume: bool, launcher: Launcher) -> Result<Session<'s>, CompareError> {
        let methods = file.methods()?;
        let output = &file.compare.output;
        fs::create_dir_all(output).map_err(|source| TrainError::Write { path: output.clone(), source })?;
        let lock = lock(output)?;
        let path = output.join(RECORD);
        if path.exists() && !resume {
            return Err(CompareError::Holds { path: output.clone() });
        }
        Ok(Session { file, methods, ledger: Ledger::open(&path)?, launcher, _lock: lock })
    }

    /// Runs what is left to run.
    ///
    /// # Errors
    /// [`CompareError`]; what is over stays, and the comparison can go on.
    pub fn run(&mut self, interrupt: &Interrupt, tell: &mut dyn FnMut(Event<'_>)) -> Result<Conclusion, CompareError> {
        self.write()?;
        while let Some(mut cell) = self.plan().next()? {
            if let Some(code) = interrupt.exit_code() {
                return Ok(Conclusion::Interrupted { code });
            }
            keep_steps(&mut cell);
            let outlook = self.plan().outlook()?;
            tell(Event::Begins { cell: &cell, outlook });
            let mut runs = |sign| tell(Event::Runs { cell: &cell, sign, outlook });
            match self.launcher.run(&cell, interrupt, &mut runs)? {
                Ending::Interrupted(code) => return Ok(Conclusion::Interrupted { code }),
                Ending::Over(outcome, seconds) => {
                    let ended = self.ended(&cell, outcome, seconds);
                    tell(Event::Ends(&ended));
                    self.ledger.add(ended);
                    self.write()?;
                    if !self.file.compare.keep_weights {
                        forget_weights(&cell.config.output)?;
                    }
                }
            }
        }
        Ok(Conclusion::Finished)
    }

    /// The comparison as far as it has come.
    ///
    /// # Errors
    /// [`CompareError`] if a cell that is over was another one.
    pub fn comparison(&self) -> Result<Comparison<'_>, CompareError> {
        Comparison::of(&self.plan())
    }

    /// The page that shows it.
    pub fn page(&self) -> PathBuf {
        self.file.compare.output.join(report::PAGE)
    }

    fn plan(&self) -> Plan<'_> {
        Plan { config: &self.file.compare, methods: &self.methods, ledger: &self.ledger }
    }

    fn write(&self) -> Result<(), CompareError> {
        let command = |ended: &Ended| {
            let output = self.file.compare.output.join(super::cell::CELLS).join(&ended.cell);
            self.launcher.shown(&run_file(&output))
        };
        report::write(&self.comparison()?, &Job::of(&self.file.config), &command, &self.file.compare.output)
    }

    fn ended(&self, cell: &Cell, outcome: Outcome, seconds: f64) -> Ended {
        let method = self.methods.iter().find(|method| method.label == cell.method).expect("the plan's own");
        Ended::of(cell, &method.candidates[cell.candidate.0], outcome, seconds)
    }
}

/// A run that was begun keeps the steps that it was begun with: by now the pace of those before it may be another.
fn keep_steps(cell: &mut Cell) {
    let output: &Path = &cell.config.output;
    if Layout::of(output).journal().exists()
        && let Ok(begun) = RunFile::read(&run_file(output), &[])
    {
        cell.set_steps(begun.config.train.steps);
    }
}
