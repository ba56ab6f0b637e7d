//! Steps down gradients: what first-order optimizers share beside their rule.
//!
//! *What it is.* [`FirstOrder`] takes the gradient of a batch, cuts its length, and commits one update; in place it moves
//! each tensor as soon as its gradient is there, so that of all gradients one is in memory.
//!
//! *What must stay true.* A loss that is not finite changes nothing: it is known before the first gradient. Of a gradient
//! that is not finite nothing is applied or remembered either, except in place: tensors that moved before it was met stay
//! moved, and those after it move; the step is reported as not finite.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    descent::Descent,
    gradient::{self, Gradient},
    spsa::Estimate,
    subspace::is_matrix,
};
use crate::{
    direction::{Coefficients, Direction, DirectionSet, Displacement, ParamId, ParamTable, Term},
    kernels::Context,
    optim::{
        BatchId, Clock, CommitReport, GradientSink, NonNegative, OptimError, Optimizer, OptionReader, Oracle,
        OracleError, Pool, StateVisitor, StepReport, options::options, schedule::Schedule,
    },
    tensor::Block,
};

options! {
    /// How gradients are consumed.
    pub struct Consumption {
        /// Length that the gradient of a step is scaled down to where it is longer; 0: it keeps any.
        clip: NonNegative = NonNegative::new(0.0), "";
        /// Whether each tensor moves as soon as its gradient is there, so that of all gradients one is in memory.
        in_place: bool = false, "";
    }
}

impl Consumption {
    /// As [`Self::read`], where the two go together.
    ///
    /// # Errors
    /// [`OptimError`] also for a length in place: it is that of all gradients.
    pub fn checked(reader: &OptionReader<'_>) -> Result<Self, OptimError> {
        let consumption = Consumption::read(reader)?;
        if consumption.in_place && consumption.clip.get() != 0.0 {
            return Err(reader.refusal("clip", "0 where in_place is true, which never has all gradients to measure"));
        }
        Ok(consumption)
    }
}

/// An optimizer that steps down gradients.
pub struct FirstOrder<D> {
    /// The learning rate.
    pub lr: NonNegative,
    /// Decay of matrices a step, times lr.
    pub weight_decay: NonNegative,
    /// The course of lr.
    pub schedule: Schedule,
    /// How gradients are consumed.
    pub consumption: Consumption,
    /// What is done with them.
    pub descent: D,
}

impl<D: Descent> Optimizer for FirstOrder<D> {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let lr = self.schedule.lr(self.lr, clock);
        let batch = oracle.draw(Pool::Train, None)?;
        let wrt = oracle.trainable().to_vec();
        let rates = (lr, self.weight_decay);
        if self.consumption.in_place {
            let moved = descend_in_place(&mut self.descent, oracle, batch, &wrt, rates)?;
            let mut report = StepReport::of(measured(moved.loss, 1), lr);
            report.nonfinite = !moved.is_sound;
            report.add(moved.report);
            return Ok(report);
        }
        let (losses, mut gradient) = Gradient::of(oracle, batch, &[(1.0, Displacement::default())], &wrt)?;
        let report = StepReport::of(measured(losses[0], 1), lr);
        if !report.is_sound() || !gradient.is_finite() {
            return Ok(report.skip());
        }
        if self.consumption.clip.get() != 0.0 {
            gradient.clip(self.consumption.clip.get());
        }
        let space = oracle.space();
        let update = descended(&mut self.descent, (space.context(), space.params()), gradient, rates);
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.descent.visit(visitor);
    }

    fn needs_gradients(&self) -> bool {
        true
    }
}

/// What a step measured that has no directions.
pub fn measured(loss: f64, evaluations: usize) -> Estimate {
    Estimate { loss, projected_grads: Vec::new(), evaluations }
}

/// The update that a rule makes of finite gradients.
pub fn descended(
    descent: &mut dyn Descent,
    (cx, params): (&Context, &ParamTable),
    gradient: Gradient,
    rates: (f64, NonNegative),
) -> Displacement {
    descent.begin();
    let direction = |(id, gradient)| (id, descent.direction(cx, (id, &params[id]), gradient));
    let directions: Vec<_> = gradient.into_values().map(direction).collect();
    against(descent, params, directions, rates)
}

/// `θ ← θ − lr·weight_decay·θ − lr·z` with each parameter's rate; decay leaves vectors alone.
fn against(
    descent: &dyn Descent,
    params: &ParamTable,
    directions: Vec<(ParamId, Direction)>,
    (lr, weight_decay): (f64, NonNegative),
) -> Displacement {
    let rate = |id: ParamId| lr * descent.rate(&params[id]);
    let ids: Vec<ParamId> = directions.iter().map(|(id, _)| *id).collect();
    let term = |directions: Vec<(ParamId, Direction)>, coefficient: &dyn Fn(ParamId) -> f64| {
        let coefficients: BTreeMap<_, _> = directions.iter().map(|(id, _)| (*id, coefficient(*id) as f32)).collect();
        Term { set: Arc::new(DirectionSet::new(directions)), coefficients: Coefficients::PerParam(coefficients) }
    };
    let mut update = Displacement::default();
    if weight_decay.get() != 0.0 {
        let matrices = ids.iter().filter(|&&id| is_matrix(&params[id])).map(|&id| (id, Direction::Weights));
        update.terms.push(term(matrices.collect(), &|id| -rate(id) * weight_decay.get()));
    }
    update.terms.push(term(directions, &|id| -rate(id)));
    update
}

/// What an update in place did.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// The loss before it.
    pub loss: f64,
    /// What all updates together did.
    pub report: CommitReport,
    /// Whether loss and gradients were finite, so that all of them moved.
    pub is_sound: bool,
}

/// Moves each of the parameters `wrt` as soon as its gradient is there.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn descend_in_place(
    descent: &mut dyn Descent,
    oracle: &mut dyn Oracle,
    batch: BatchId,
    wrt: &[ParamId],
    rates: (f64, NonNegative),
) -> Result<Moved, OracleError> {
    let (params, cx) = (oracle.params().clone(), oracle.space().context().clone());
    let report = CommitReport::default();
    let mut sink = InPlace { descent, params, cx, rates, begun: false, report, is_sound: true };
    let losses = oracle.gradients(batch, &[(1.0, Displacement::default())], wrt, &mut sink)?;
    let loss = losses[0].total;
    Ok(Moved { loss, report: sink.report, is_sound: sink.is_sound && loss.is_finite() })
}

/// Answers each gradient with the update of its parameter.
struct InPlace<'d> {
    descent: &'d mut dyn Descent,
    params: ParamTable,
    cx: Context,
    rates: (f64, NonNegative),
    /// Whether the rule has counted the step.
    begun: bool,
    /// What all updates together did.
    report: CommitReport,
    /// Whether every gradient was finite.
    is_sound: bool,
}

impl GradientSink for InPlace<'_> {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        if !gradient::is_finite(&gradient) {
            self.is_sound = false;
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.descent.begin();
        }
        let param = &self.params[id];
        let direction = self.descent.direction(&self.cx, (id, param), gradient);
        Some(against(self.descent, &self.params, vec![(id, direction)], self.rates))
    }

    fn moved(&mut self, report: CommitReport) {
        self.report = self.report.and(report);
    }
}

#[cfg(test)]
mod tests;
