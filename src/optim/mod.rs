//! Optimizers: one file per algorithm, each of which sees the world through an [`Oracle`] that answers numbers.
//!
//! *What it is.* [`REGISTRY`] names the algorithms with their papers and options; [`Entry::build`] makes one from the
//! `[optimizer]` table of a run file. A step draws a batch, evaluates probes, and commits one update.
//!
//! *What it is not.* No model, no data, no files, no loop.
//!
//! *What must stay true.*
//! - A step is a function of the clock, the options and the oracle's answers: coefficients are f64 arithmetic in a
//!   fixed order, rounded to f32 once, at the end. A run resumes by replaying recorded answers (contract C4).
//! - All evaluations of a step come before its first write (contract C3).
//! - A loss that is not finite changes no weight (contract C5): `StepReport::commit` is the only way to an update.
//!
//! *To add one*: its file with an `ENTRY`, a line in [`REGISTRY`], a line for each of its options' branches in
//! `conformance.rs`, and its page in `docs/algorithms`.

pub mod adalezo;
pub mod adamw;
pub mod adazeta;
pub mod addax;
pub mod block_zo;
pub mod bszo;
pub mod dizo;
pub mod elastic_zo;
mod error;
pub mod forward_grad;
pub mod fzoo;
pub mod green_trainer;
pub mod hi_zfo;
pub mod hizoo;
pub mod loren;
pub mod lozo;
pub mod lozo_m;
pub mod mezo;
pub mod mezo_gv;
pub mod muon;
pub mod nonfinite;
mod options;
mod oracle;
pub mod parts;
pub mod schedule;
pub mod sgd;
pub mod sparse_mezo;
pub mod subspace_mezo;
pub mod subzero;
pub mod tezo;
pub mod tezo_adam;
pub mod tezo_m;
pub mod zo_mopi;
pub mod zo_muon;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod fixture;

pub use error::OptimError;
pub use options::{
    Auto, Decay, Names, NonNegative, OptionReader, OptionSpec, OptionValue, Positive, Queries, Rank, Share,
};
pub use oracle::{
    BatchId, CommitReport, Cost, CostUnit, GradientSink, Losses, OperatorCost, Oracle, OracleError, Pool, Space,
};

use std::{collections::BTreeMap, sync::Arc};

use crate::direction::{Displacement, Param};
use nonfinite::{Patience, Patient};
use parts::spsa::Estimate;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The run's seed.
    pub seed: u64,
    /// The step, from 0.
    pub step: u64,
    /// How many steps the run has.
    pub steps: u64,
}

/// What a step measured and did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The loss at θ; where only θ ± εz was evaluated, the mean of those, which is the loss up to O(ε²).
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// The slope along each direction.
    pub projected_grads: Vec<f64>,
    /// Losses and slopes that were evaluated.
    pub evaluations: usize,
    /// Root mean square of the update.
    pub update_rms: f64,
    /// Root mean square of what rounding changed on top of it.
    pub rounding_rms: f64,
    /// Whether a loss, a slope or a coefficient was not finite, so that no weight was changed.
    pub nonfinite: bool,
    /// What else the algorithm says of the step, by name; no weight depends on it.
    pub scalars: BTreeMap<&'static str, f64>,
}

impl StepReport {
    /// The report of a step that measured and has not committed.
    fn of(estimate: Estimate, lr: f64) -> Self {
        let Estimate { loss, projected_grads, evaluations } = estimate;
        StepReport {
            loss,
            lr,
            projected_grads,
            evaluations,
            update_rms: 0.0,
            rounding_rms: 0.0,
            nonfinite: false,
            scalars: BTreeMap::new(),
        }
    }

    /// Whether what was measured is finite.
    fn is_sound(&self) -> bool {
        self.loss.is_finite() && self.projected_grads.iter().all(|slope| slope.is_finite())
    }

    /// Whether what was measured and what is to be done with it is finite.
    fn allows(&self, update: &Displacement) -> bool {
        self.is_sound() && update.is_finite()
    }

    /// Ends a step without an update: what it measured, or would have remembered, is not finite.
    fn skip(mut self) -> StepReport {
        self.nonfinite = true;
        self
    }

    /// Counts in what further updates of the step did.
    fn add(&mut self, update: CommitReport) {
        let before = CommitReport { update_rms: self.update_rms, rounding_rms: self.rounding_rms };
        let CommitReport { update_rms, rounding_rms } = before.and(update);
        (self.update_rms, self.rounding_rms) = (update_rms, rounding_rms);
    }

    /// Commits the step's update, unless it or what it was made of is not finite.
    fn commit(mut self, oracle: &mut dyn Oracle, update: &Displacement) -> Result<StepReport, OptimError> {
        self.nonfinite = !self.allows(update);
        if !self.nonfinite {
            let CommitReport { update_rms, rounding_rms } = oracle.commit(update)?;
            (self.update_rms, self.rounding_rms) = (update_rms, rounding_rms);
        }
        Ok(self)
    }
}

/// An algorithm with its state.
pub trait Optimizer: Send {
    /// One step: draws, evaluates, and commits at most one update.
    ///
    /// # Errors
    /// [`OptimError`] if the oracle fails, or too many steps in a row met losses that are not finite.
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError>;

    /// Shows `visitor` everything that is remembered from step to step: a snapshot stores it, and puts it back.
    fn visit_state(&mut self, _visitor: &mut dyn StateVisitor) {}

    /// What it tunes where a run does not say.
    fn tunes(&self) -> Tunes {
        Tunes::default()
    }

    /// Whether it may ask for gradients: the numbers that its steps were answered do not make them again then.
    fn needs_gradients(&self) -> bool {
        false
    }

    /// Whether each parameter that may move takes gradients, by name, where the optimizer has chosen which do.
    fn partition(&self) -> Option<BTreeMap<String, bool>> {
        None
    }
}

/// What of a model an optimizer tunes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tunes {
    /// All that the model has.
    #[default]
    Model,
    /// Bottlenecks of tensor trains, which the model gets.
    TensorTrains,
}

/// Is shown the state of an optimizer, and may replace it. Names are unique within an optimizer.
pub trait StateVisitor {
    /// A whole number.
    fn count(&mut self, name: &str, value: &mut u64);

    /// A number, to the bit.
    fn number(&mut self, name: &str, value: &mut f64) {
        let mut bits = value.to_bits();
        self.count(name, &mut bits);
        *value = f64::from_bits(bits);
    }

    /// Values of parameters, by the parameters' names; empty in an optimizer that has taken no step.
    fn tensors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>);

    /// The same where a parameter has not its own number of values but `len` of them, 0 if it has none: coordinates,
    /// thin factors. Unless the group is empty, every trainable parameter that has some is in it.
    fn factors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>, _len: &dyn Fn(&Param) -> usize) {
        self.tensors(name, values);
    }
}

/// An algorithm of the registry.
#[derive(Debug)]
pub struct Entry {
    /// What run files call it.
    pub name: &'static str,
    /// One line for lists.
    pub about: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// The algorithm's own options, in groups.
    groups: &'static [&'static [OptionSpec]],
    /// Makes it from checked options.
    new: fn(&OptionReader<'_>) -> Result<Box<dyn Optimizer>, OptimError>,
}

impl Entry {
    /// All options: the algorithm's own, then those that every algorithm has.
    pub fn options(&self) -> impl Iterator<Item = &'static OptionSpec> {
        self.groups.iter().copied().flatten().chain(Patience::SPECS)
    }

    /// The optimizer with the options of `table`, the `[optimizer]` table of a run file without its `name`.
    ///
    /// # Errors
    /// [`OptimError`] naming the first option that is unknown or has no value of its own.
    pub fn build(&self, table: &toml::Table) -> Result<Box<dyn Optimizer>, OptimError> {
        let reader = OptionReader::new(self.name, table, self.options())?;
        let patience = Patience::read(&reader)?;
        Ok(Box::new(Patient::new((self.new)(&reader)?, patience)))
    }
}

/// Every algorithm, by name.
pub const REGISTRY: &[&Entry] = &[
    &adalezo::ENTRY,
    &adamw::ENTRY,
    &adazeta::ENTRY,
    &addax::ENTRY,
    &block_zo::ENTRY,
    &bszo::ENTRY,
    &dizo::ENTRY,
    &elastic_zo::ENTRY,
    &forward_grad::ENTRY,
    &fzoo::ENTRY,
    &green_trainer::ENTRY,
    &hi_zfo::ENTRY,
    &hizoo::ENTRY,
    &loren::ENTRY,
    &lozo::ENTRY,
    &lozo_m::ENTRY,
    &mezo::ENTRY,
    &mezo_gv::ENTRY,
    &muon::ENTRY,
    &sgd::ENTRY,
    &sparse_mezo::ENTRY,
    &subspace_mezo::ENTRY,
    &subzero::ENTRY,
    &tezo::ENTRY,
    &tezo_adam::ENTRY,
    &tezo_m::ENTRY,
    &zo_mopi::ENTRY,
    &zo_muon::ENTRY,
];

/// The algorithm of that name.
///
/// # Errors
/// [`OptimError::UnknownOptimizer`] with the nearest name.
pub fn find(name: &str) -> Result<&'static Entry, OptimError> {
    let unknown = || OptimError::UnknownOptimizer {
        found: name.to_owned(),
        nearest: options::nearest(name, REGISTRY.iter().map(|entry| entry.name)),
    };
    REGISTRY.iter().copied().find(|entry| entry.name == name).ok_or_else(unknown)
}
