//! Steps that take gradients of some parameters and differences along a random direction of the others.
//!
//! *What it is.* [`Hybrid`] selects what takes gradients, evaluates a batch at θ and, once, beside it, and commits one update
//! of both sides. Without a zeroth-order side the others stay where they are.
//!
//! *What must stay true.* θ is never perturbed: both losses, and the gradient of their weighted sum, are of one evaluation of
//! two displacements. A side that is empty leaves the other's method bit for bit: `AdamW`, or one-sided `MeZO`.

use std::collections::BTreeMap;

use super::{
    descent::{Descent, Named, Rule},
    first_order::descended,
    gradient::Gradient,
    moments::{Betas, Moments},
    partition::{Outcome, Partition, Selection},
    spsa::{self, Estimate},
    update::sum,
};
use crate::{
    direction::{Displacement, ParamId},
    noise::Law,
    optim::{
        BatchId, Clock, Names, NonNegative, OptimError, Optimizer, Oracle, OracleError, Pool, Positive, StateVisitor,
        StepReport, schedule::Schedule,
    },
};

/// An optimizer of two sides.
pub struct Hybrid {
    lr: NonNegative,
    schedule: Schedule,
    selection: Selection,
    partition: Partition,
    first_order: FirstOrderSide,
    zeroth_order: Option<ZerothOrderSide>,
}

/// What is done with gradients.
pub struct FirstOrderSide {
    rule: Rule,
    betas: Betas,
    weight_decay: NonNegative,
    descent: Box<dyn Descent>,
}

/// What is done with the parameters that take no gradient.
pub struct ZerothOrderSide {
    /// Their learning rate over that of the others.
    pub lr_ratio: f64,
    /// Scale of the perturbation.
    pub epsilon: Positive,
    /// Weight of the perturbed loss in what gradients are taken of.
    pub coupling: f64,
    /// What is done with the estimate.
    pub rule: Rule,
    /// Its means.
    pub betas: Betas,
    /// Parts of the names of parameters that are not perturbed.
    pub without: Names,
    /// What the rule remembers.
    pub moments: Moments,
}

impl FirstOrderSide {
    /// A side that has not begun.
    pub fn new(rule: Rule, betas: Betas, weight_decay: NonNegative) -> Self {
        FirstOrderSide { rule, betas, weight_decay, descent: rule.descent(betas) }
    }

    /// Forgets what it remembers.
    fn restart(&mut self) {
        self.descent = self.rule.descent(self.betas);
    }

    /// The update of finite gradients.
    pub fn update(&mut self, oracle: &dyn Oracle, gradient: Gradient, lr: f64) -> Displacement {
        let space = oracle.space();
        descended(&mut *self.descent, (space.context(), space.params()), gradient, (lr, self.weight_decay))
    }

    /// Shows `visitor` what it remembers.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        self.descent.visit(visitor);
    }
}

impl ZerothOrderSide {
    /// The update of a slope along `probe`'s direction.
    fn update(&mut self, oracle: &dyn Oracle, probe: &Probe, slope: f64, lr: f64) -> Displacement {
        let z = std::slice::from_ref(&probe.z);
        match self.rule {
            Rule::Sgd => sum(z, &[slope], -lr),
            Rule::Adamw => {
                let estimate = sum(z, &[slope], 1.0);
                let quotient = self.moments.absorb_some(oracle.space(), &probe.ids, &estimate, self.betas);
                sum(&[quotient], &[1.0], -lr)
            }
        }
    }
}

/// The direction of a step and where it leads.
struct Probe {
    ids: Vec<ParamId>,
    z: std::sync::Arc<crate::direction::DirectionSet>,
    epsilon: f64,
    displacement: Displacement,
}

impl Hybrid {
    /// A run that has not begun.
    pub fn new(
        (lr, schedule): (NonNegative, Schedule),
        selection: Selection,
        first_order: FirstOrderSide,
        zeroth_order: Option<ZerothOrderSide>,
    ) -> Self {
        Hybrid { lr, schedule, selection, partition: Partition::default(), first_order, zeroth_order }
    }

    /// The perturbation of the parameters `others`, if any of them is to be perturbed.
    fn probe(&self, oracle: &dyn Oracle, others: &[ParamId], clock: Clock) -> Option<Probe> {
        let side = self.zeroth_order.as_ref()?;
        let is_moved = |id: &&ParamId| !side.without.stand_in(oracle.params()[**id].name());
        let ids: Vec<ParamId> = others.iter().filter(is_moved).copied().collect();
        if ids.is_empty() {
            return None;
        }
        let (z, applied) = (spsa::direction(&ids, clock, Law::Gaussian, 0), side.epsilon.get() as f32);
        let displacement = Displacement::along(&z, applied);
        Some(Probe { ids, z, epsilon: f64::from(applied), displacement })
    }

    /// The loss at θ and, after it, at θ + the probe, with the gradient of the first and `coupling` times the second.
    fn evaluate(
        oracle: &mut dyn Oracle,
        batch: BatchId,
        wrt: &[ParamId],
        probe: Option<&Displacement>,
        coupling: f64,
    ) -> Result<(Vec<f64>, Gradient), OracleError> {
        let here = Displacement::default;
        let probe = probe.cloned();
        if wrt.is_empty() {
            let probes: Vec<_> = std::iter::once(here()).chain(probe).collect();
            return Ok((spsa::totals(oracle, batch, &probes)?, Gradient::default()));
        }
        match probe {
            // Nothing is perturbed: both losses are one.
            None => Gradient::of(oracle, batch, &[(1.0 + coupling, here())], wrt),
            Some(probe) if coupling != 0.0 => Gradient::of(oracle, batch, &[(1.0, here()), (coupling, probe)], wrt),
            Some(probe) => {
                let beside = spsa::totals(oracle, batch, &[probe])?;
                let (mut losses, gradient) = Gradient::of(oracle, batch, &[(1.0, here())], wrt)?;
                losses.extend(beside);
                Ok((losses, gradient))
            }
        }
    }
}

impl Optimizer for Hybrid {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let lr = self.schedule.lr(self.lr, clock);
        let batch = oracle.draw(Pool::Train, None)?;
        let FirstOrderSide { rule, betas, .. } = self.first_order;
        let first = |gradient| rule.first(betas, gradient);
        let selected = match self.partition.update(oracle, (batch, clock, lr), &self.selection, first)? {
            Outcome::Kept => 0,
            Outcome::Same(evaluations) => evaluations,
            Outcome::Changed(evaluations) => {
                self.first_order.restart();
                if let Some(side) = &mut self.zeroth_order {
                    side.moments = Moments::default();
                }
                evaluations
            }
            Outcome::NotFinite(loss, evaluations) => {
                let estimate = Estimate { loss, projected_grads: Vec::new(), evaluations };
                return Ok(StepReport::of(estimate, lr).skip());
            }
        };
        let (wrt, others) = self.partition.sides(oracle);
        let probe = self.probe(oracle, &others, clock);
        let coupling = self.zeroth_order.as_ref().map_or(0.0, |side| side.coupling);
        let beside = probe.as_ref().map(|probe| &probe.displacement);
        let (losses, gradient) = Hybrid::evaluate(oracle, batch, &wrt, beside, coupling)?;

        let slope = probe.as_ref().map(|probe| (losses[1] - losses[0]) / probe.epsilon);
        let estimate = Estimate {
            loss: losses[0],
            projected_grads: slope.into_iter().collect(),
            evaluations: selected + losses.len(),
        };
        let report = StepReport::of(estimate, lr);
        if !report.is_sound() || !gradient.is_finite() {
            return Ok(report.skip());
        }
        let mut update = Displacement::default();
        if !wrt.is_empty() {
            update.terms.extend(self.first_order.update(oracle, gradient, lr).terms);
        }
        if let (Some(side), Some(probe), Some(slope)) = (&mut self.zeroth_order, &probe, slope) {
            update.terms.extend(side.update(oracle, probe, slope, lr * side.lr_ratio).terms);
        }
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.partition.visit(visitor);
        self.first_order.visit(visitor);
        if let Some(side) = &mut self.zeroth_order
            && side.rule == Rule::Adamw
        {
            side.moments.visit(&mut Named { visitor, prefix: "zeroth_order" });
        }
    }

    fn needs_gradients(&self) -> bool {
        true
    }

    fn partition(&self) -> Option<BTreeMap<String, bool>> {
        self.partition.by_name()
    }
}
