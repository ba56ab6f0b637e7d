//! The weights of a run at one of its steps, with what else a run needs to go on from there.
//!
//! *What it is.* A file of [`tuned`], with the step, the draws and the optimizer's state as its facts.
//!
//! *What must stay true.* A snapshot says nothing that the journal up to its step does not make again: losing one costs
//! time only.

use std::{collections::BTreeMap, fs, path::Path};

use super::{TrainError, Tuned};
use crate::{
    optim::{Optimizer, Oracle, StateVisitor},
    weights::tuned,
};

/// The file in `last` and `best`.
const FILE: &str = "weights.safetensors";
const STEP: &str = "step";
const DRAWS: &str = "draws";
/// What the names of the optimizer's numbers begin with.
const STATE: &str = "optimizer.";

/// Puts the numbers of an optimizer's state among the facts.
struct Save<'f>(&'f mut BTreeMap<String, String>);

impl StateVisitor for Save<'_> {
    fn count(&mut self, name: &str, value: &mut u64) {
        self.0.insert(format!("{STATE}{name}"), value.to_string());
    }
}

/// Takes them from there; one that is missing stays as it is.
struct Restore<'f>(&'f BTreeMap<String, String>);

impl StateVisitor for Restore<'_> {
    fn count(&mut self, name: &str, value: &mut u64) {
        *value = number(self.0, &format!("{STATE}{name}")).unwrap_or(*value);
    }
}

fn number(facts: &BTreeMap<String, String>, name: &str) -> Option<u64> {
    facts.get(name)?.parse().ok()
}

/// Writes the weights after `step` steps to the directory `dir` of a run.
///
/// # Errors
/// [`TrainError::Write`], [`TrainError::Weights`].
pub(super) fn write(dir: &Path, tuned: &Tuned, optimizer: &mut dyn Optimizer, step: u64) -> Result<(), TrainError> {
    fs::create_dir_all(dir).map_err(|source| TrainError::Write { path: dir.to_owned(), source })?;
    let mut facts = BTreeMap::new();
    optimizer.visit_state(&mut Save(&mut facts));
    facts.insert(STEP.to_owned(), step.to_string());
    facts.insert(DRAWS.to_owned(), tuned.draws().to_string());
    tuned::write(&dir.join(FILE), tuned.model().store(), tuned.trainable(), &facts, &[])?;
    Ok(())
}

/// After which step the snapshot in `dir` was written; `None` if there is none that can be read.
pub(super) fn step(dir: &Path) -> Option<u64> {
    number(&tuned::facts(&dir.join(FILE)).ok()?, STEP)
}

/// Puts `tuned` and `optimizer` where the snapshot in `dir` was written; answers its step.
///
/// # Errors
/// [`TrainError::Weights`] if the file is missing, damaged, of other tensors, or replaced while it is read.
pub(super) fn read(dir: &Path, tuned: &mut Tuned, optimizer: &mut dyn Optimizer) -> Result<u64, TrainError> {
    let trainable = tuned.trainable().to_vec();
    let snapshot = tuned::read(&dir.join(FILE), tuned.model_mut().store_mut(), &trainable)?;
    optimizer.visit_state(&mut Restore(&snapshot.facts));
    tuned.skip_to(number(&snapshot.facts, DRAWS).unwrap_or_default());
    Ok(number(&snapshot.facts, STEP).unwrap_or_default())
}
