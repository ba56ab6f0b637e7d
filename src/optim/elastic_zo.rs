//! `ElasticZO`: gradients of the last layers, two-sided differences along random directions of those before.
//!
//! ```text
//! F = the parameters of the last C layers,  Z the others
//! u ~ N(0, I) on Z                                     from the key (seed, step)
//! p = (L(θ + ε u) − L(θ − ε u)) / 2ε
//! θ_Z ← θ_Z − r η p u
//! θ_F ← θ_F − η ∇_F L(θ)                               both on one batch, at the same θ
//! ```
//!
//! Sugiura and Matsutani, "`ElasticZO`: A Memory-Efficient On-Device Learning with Combined Zeroth- and First-Order
//! Optimization", 2025, arXiv:2501.04287.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr`, and `zo_lr_ratio` times it |
//! | ε | `epsilon` |
//! | layers that backpropagation trains | `first_order_layers` |
//!
//! A layer is what parameters have in common that follow each other and whose names agree up to the first number, or, where
//! there is none, up to the last dot: a block, a norm, a head.
//!
//! **Deviations.** Known by its abstract and summaries only. Gradients are taken at θ, one forward pass more than at a
//! perturbed θ; there is no 8-bit arithmetic; `fo_rule` and `zo_lr_ratio` are ours. A tied head lies with the embedding, before
//! all layers.

use super::{
    Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, StateVisitor, StepReport,
    options::options,
    parts::{
        descent::{Rule, betas},
        first_order::measured,
        gradient::Gradient,
        hybrid::FirstOrderSide,
        layers::last_layers,
        spsa::{self, Estimate},
        update::sum,
    },
    schedule::Schedule,
};
use crate::{
    direction::{Displacement, ParamId},
    noise::Law,
};

options! {
    /// The options of `ElasticZO`.
    pub struct Options {
        /// Learning rate.
        lr: NonNegative = NonNegative::new(1e-4), "";
        /// Learning rate of the layers before the last ones over lr.
        zo_lr_ratio: NonNegative = NonNegative::new(1.0), "lr";
        /// Scale of their perturbation.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// How many of the last layers take gradients.
        first_order_layers: u64 = 1, "layers";
        /// What is done with gradients.
        fo_rule: Rule = Rule::Sgd, "";
        /// How much of the running mean of gradients `AdamW` keeps.
        beta1: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares it keeps.
        beta2: Decay = Decay::new(0.999), "";
        /// What it adds to the root of that mean.
        adam_epsilon: Positive = Positive::new(1e-8), "";
        /// Decay of matrices that take gradients a step, times lr.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "elastic_zo",
    about: "gradients of the last layers, two-sided differences for those before",
    paper: "Sugiura and Matsutani, ElasticZO: A Memory-Efficient On-Device Learning, 2025, arXiv:2501.04287",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        let betas = betas(options.beta1, options.beta2, options.adam_epsilon);
        let first_order = FirstOrderSide::new(options.fo_rule, betas, options.weight_decay);
        Ok(Box::new(ElasticZo { options, schedule, first_order }))
    },
};

struct ElasticZo {
    options: Options,
    schedule: Schedule,
    first_order: FirstOrderSide,
}

impl Optimizer for ElasticZo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { zo_lr_ratio, epsilon, first_order_layers, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let batch = oracle.draw(Pool::Train, None)?;
        let last = last_layers(oracle.space(), first_order_layers);
        let (wrt, others): (Vec<ParamId>, Vec<ParamId>) = oracle.trainable().iter().partition(|id| last.contains(id));

        let z = (!others.is_empty()).then(|| spsa::direction(&others, clock, Law::Gaussian, 0));
        let z: Vec<_> = z.into_iter().collect();
        let mut estimate = measured(f64::NAN, 0);
        if !z.is_empty() {
            estimate = spsa::estimate(oracle, batch, &z, (spsa::Estimator::TwoSided, epsilon))?;
        }
        let mut gradient = Gradient::default();
        if !wrt.is_empty() {
            let (losses, by) = Gradient::of(oracle, batch, &[(1.0, Displacement::default())], &wrt)?;
            let Estimate { projected_grads, evaluations, .. } = estimate;
            (estimate, gradient) = (Estimate { loss: losses[0], projected_grads, evaluations: evaluations + 1 }, by);
        }
        let report = StepReport::of(estimate, lr);
        if !report.is_sound() || !gradient.is_finite() {
            return Ok(report.skip());
        }
        let mut update = sum(&z, &report.projected_grads, -lr * zo_lr_ratio.get());
        if !wrt.is_empty() {
            update.terms.extend(self.first_order.update(oracle, gradient, lr).terms);
        }
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.first_order.visit(visitor);
    }

    fn needs_gradients(&self) -> bool {
        self.options.first_order_layers > 0
    }
}

#[cfg(test)]
mod tests;
