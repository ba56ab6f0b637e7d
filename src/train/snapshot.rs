//! The weights of a run at one of its steps, with what else a run needs to go on from there.
//!
//! *What it is.* A file of [`tuned`], with the step, the draws and the optimizer's state as its facts.
//!
//! *What must stay true.* A snapshot says nothing that the journal up to its step does not make again: losing one costs
//! time only.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path, sync::Arc};

use super::{TrainError, Tuned};
use crate::{
    direction::Param,
    optim::{Optimizer, Space, StateVisitor},
    weights::{
        SnapshotProblem, WeightsError,
        tuned::{self, StateTensor, StateValues},
    },
};

/// The file in `last` and `best`.
const FILE: &str = "weights.safetensors";
const STEP: &str = "step";
const DRAWS: &str = "draws";
/// What the names of the optimizer's numbers begin with.
const STATE: &str = "optimizer.";

/// Collects an optimizer's state: numbers among the facts, and tensors.
#[derive(Default)]
struct Save {
    facts: BTreeMap<String, String>,
    tensors: Vec<(String, Arc<[f32]>)>,
}

impl StateVisitor for Save {
    fn count(&mut self, name: &str, value: &mut u64) {
        self.facts.insert(format!("{STATE}{name}"), value.to_string());
    }

    fn tensors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>) {
        self.tensors.extend(values.iter().map(|(param, values)| (format!("{name}/{param}"), Arc::clone(values))));
    }
}

/// Puts it back; a number that is missing stays as it is.
struct Restore(tuned::Snapshot);

impl StateVisitor for Restore {
    fn count(&mut self, name: &str, value: &mut u64) {
        *value = number(&self.0.facts, &format!("{STATE}{name}")).unwrap_or(*value);
    }

    fn tensors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>) {
        values.clear();
        for (tensor, state) in &self.0.state {
            if let (Some((of, param)), StateValues::F32(found)) = (tensor.split_once('/'), &state.values)
                && of == name
            {
                values.insert(param.to_owned(), Arc::from(&**found));
            }
        }
    }
}

/// Looks for a tensor that has not the number of values that its parameter asks for, or is missing beside others.
struct Check<'a> {
    snapshot: &'a tuned::Snapshot,
    tuned: &'a Tuned,
    odd: Option<SnapshotProblem>,
}

impl StateVisitor for Check<'_> {
    fn count(&mut self, _: &str, _: &mut u64) {}

    fn tensors(&mut self, name: &str, _: &mut BTreeMap<String, Arc<[f32]>>) {
        self.sizes(name, &Param::elements);
    }

    fn factors(&mut self, name: &str, _: &mut BTreeMap<String, Arc<[f32]>>, len: &dyn Fn(&Param) -> usize) {
        if self.sizes(name, len) > 0 {
            let params = self.tuned.trainable().iter().map(|&id| &self.tuned.params()[id]);
            let names = params.filter(|param| len(param) > 0).map(|param| format!("{name}/{}", param.name()));
            let restores = |state: &StateTensor<'_>| matches!(state.values, StateValues::F32(_));
            let of = |name: &String| self.snapshot.state.iter().find(|(tensor, _)| tensor == name);
            let missing = |name: &String| !of(name).is_some_and(|(_, state)| restores(state));
            let problem = names.into_iter().find(missing).map(|name| SnapshotProblem::Missing { name });
            self.odd = self.odd.take().or(problem);
        }
    }
}

impl Check<'_> {
    /// Checks the tensors of a group; answers how many there are.
    fn sizes(&mut self, name: &str, len: &dyn Fn(&Param) -> usize) -> usize {
        let group = self.snapshot.state.iter().filter_map(|(tensor, state)| {
            let (of, param) = tensor.split_once('/')?;
            (of == name).then_some((tensor, param, state))
        });
        let mut count = 0;
        for (tensor, param, state) in group {
            count += 1;
            let params = self.tuned.params();
            let expected = params.find(param).map(|id| len(&params[id]));
            if expected != Some(state.shape.iter().product()) {
                self.odd = Some(SnapshotProblem::Tensor {
                    name: tensor.clone(),
                    found: format!("{:?}", state.shape),
                    expected: expected.map_or("a parameter of the model".to_owned(), |len| format!("[{len}]")),
                });
            }
        }
        count
    }
}

/// Adds up what the tensors of an optimizer's state take.
#[derive(Default)]
struct Weigh(u64);

impl StateVisitor for Weigh {
    fn count(&mut self, _: &str, _: &mut u64) {}

    fn tensors(&mut self, _: &str, values: &mut BTreeMap<String, Arc<[f32]>>) {
        self.0 += values.values().map(|values| size_of_val(&**values) as u64).sum::<u64>();
    }
}

/// How many bytes an optimizer remembers.
pub(super) fn state_bytes(optimizer: &mut dyn Optimizer) -> u64 {
    let mut weigh = Weigh::default();
    optimizer.visit_state(&mut weigh);
    weigh.0
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
    let mut save = Save::default();
    optimizer.visit_state(&mut save);
    save.facts.insert(STEP.to_owned(), step.to_string());
    save.facts.insert(DRAWS.to_owned(), tuned.draws().to_string());
    let state: Vec<(String, StateTensor<'_>)> = save
        .tensors
        .iter()
        .map(|(name, values)| {
            let shape = vec![values.len()];
            (name.clone(), StateTensor { shape, values: StateValues::F32(Cow::Borrowed(values)) })
        })
        .collect();
    tuned::write(&dir.join(FILE), tuned.model().store(), tuned.trainable(), &save.facts, &state)?;
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
    let mut check = Check { snapshot: &snapshot, tuned, odd: None };
    optimizer.visit_state(&mut check);
    if let Some(problem) = check.odd {
        return Err(WeightsError::Snapshot { path: dir.join(FILE), problem }.into());
    }
    tuned.skip_to(number(&snapshot.facts, DRAWS).unwrap_or_default());
    let step = number(&snapshot.facts, STEP).unwrap_or_default();
    optimizer.visit_state(&mut Restore(snapshot));
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::{Context, Isa},
        model::Model,
        objective::{Criterion, Examples},
        optim::{self, Clock},
        task::Objective,
        testing::{assert_same_bits, examples::examples, reference::golden},
        train::LiveOracle,
    };

    fn oracle() -> LiveOracle {
        let model = Model::open(&golden::directory("llama")).expect("a golden checkpoint");
        let trainable = model.store().params().iter().map(|(id, _)| id).collect();
        let examples = Examples::new(model.spec(), Objective::Options, None, &examples(Objective::Options));
        let examples = examples.and_then(|examples| examples.minimising(Criterion::Loss)).expect("examples");
        LiveOracle::new(Tuned::new(model, Context::new(Isa::fastest()), trainable), examples, (4, 9), 1 << 20)
    }

    fn values(oracle: &LiveOracle) -> Vec<f32> {
        let store = oracle.tuned().model().store();
        let of = |(id, param): (_, &Param)| {
            let weight = store.weight(id);
            (0..param.elements()).map(move |at| weight.at(at / param.cols(), at % param.cols())).collect::<Vec<_>>()
        };
        store.params().iter().flat_map(of).collect()
    }

    #[test]
    fn every_optimizer_goes_on_from_its_snapshot_to_the_same_bits() {
        let dir = tempfile::tempdir().expect("a directory");
        let defaults = optim::REGISTRY.iter().map(|entry| (entry.name, ""));
        let branches = [
            ("hi_zfo", "backward_budget = 0.4\nzo_rule = \"adamw\""),
            ("green_trainer", "backward_budget = 0"),
            ("dizo", "interval = 1"),
            ("adalezo", "k_ratio = 1\ninner = \"lozo_m\""),
            ("mezo_gv", "keep_best = true"),
        ];
        for (name, options) in defaults.chain(branches) {
            let options = options.parse().expect("TOML");
            let new = || optim::find(name).and_then(|entry| entry.build(&options)).expect("an optimizer");
            let (mut unbroken, mut optimizer) = (oracle(), new());
            let run = |oracle: &mut LiveOracle, optimizer: &mut dyn Optimizer, steps: std::ops::Range<u64>| {
                for step in steps {
                    optimizer.step(oracle, Clock { seed: 3, step, steps: 4 }).expect("a step");
                }
            };
            run(&mut unbroken, &mut *optimizer, 0..2);
            write(dir.path(), unbroken.tuned(), &mut *optimizer, 2).expect("a snapshot");
            run(&mut unbroken, &mut *optimizer, 2..4);

            let (mut again, mut other) = (oracle(), new());
            let found = read(dir.path(), again.tuned_mut(), &mut *other);
            assert_eq!(found.unwrap_or_else(|error| panic!("{name}: {error}")), 2);
            run(&mut again, &mut *other, 2..4);
            assert_same_bits(&values(&again), &values(&unbroken), name);
        }
    }
}
