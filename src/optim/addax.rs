//! Addax: one update of a gradient on a batch and of a difference along a random direction on another.
//!
//! ```text
//! B_0 of the examples longer than L_T, B_1 of all others; both of all where one of the two has none, or without L_T
//! z ~ N(0, I)                                          from the key (seed, step)
//! g_0 = (L(θ + ε z; B_0) − L(θ − ε z; B_0)) / 2ε
//! θ   ← θ − η (α g_0 z + (1 − α) ∇L(θ; B_1))           both at the same θ
//! ```
//!
//! Li et al., "Addax: Utilizing Zeroth-Order Gradients to Improve Memory Efficiency and Performance of SGD for Fine-Tuning
//! Language Models", ICLR 2025, arXiv:2410.06441; without `longest` its Addax-WA, "without assignment".
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ε | `epsilon` |
//! | α, weight of the zeroth-order gradient | `alpha` |
//! | K⁰, K¹, sizes of B⁰ and B¹ | `zo_batch`, `fo_batch` |
//! | `L_T`, length beyond which examples are left to differences | `longest` |
//!
//! **Deviations.** Known by its README and summaries: defaults are ours. A length is the number of tokens that an example
//! takes in a pass, those of all its candidates, because that is what activations cost. Decay is decoupled and spares
//! vectors. `in_place = false` keeps all gradients, and so none of the update of a gradient that is not finite.

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Share, StateVisitor, StepReport,
    options::options,
    parts::{
        descent::{Descent, Momentum},
        first_order::{descend_in_place, descended, measured},
        gradient::Gradient,
        spsa::{self, Estimator},
        update::descend,
    },
    schedule::Schedule,
};
use crate::{direction::Displacement, noise::Law};

options! {
    /// The options of Addax.
    pub struct Options {
        /// Learning rate.
        lr: NonNegative = NonNegative::new(1e-4), "";
        /// Weight of the zeroth-order gradient: 0 is SGD, 1 is `MeZO`.
        alpha: Share = Share::new(0.01), "";
        /// Scale of the perturbation.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Examples of the batch of the zeroth-order gradient; 0: the run's batch size.
        zo_batch: u64 = 0, "examples";
        /// Examples of the batch of the first-order gradient; 0: the run's batch size.
        fo_batch: u64 = 0, "examples";
        /// Tokens of the longest example that gradients are taken of, longer ones are for differences; 0: both are of all.
        longest: u64 = 0, "tokens";
        /// Whether each tensor moves as soon as its gradient is there, so that of all gradients one is in memory.
        in_place: bool = true, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "addax",
    about: "one update of a gradient on a batch and of a two-sided difference on another",
    paper: "Li et al., Addax: Utilizing Zeroth-Order Gradients to Improve SGD, ICLR 2025, arXiv:2410.06441",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| Ok(Box::new(Addax { options: Options::read(reader)?, schedule: Schedule::read(reader)? })),
};

struct Addax {
    options: Options,
    schedule: Schedule,
}

/// Where the batches of the zeroth-order and of the first-order gradient come from.
fn pools(longest: u64) -> [Pool; 2] {
    match u32::try_from(longest) {
        Ok(longest @ 1..) => [Pool::Long(longest), Pool::Short(longest)],
        // No example is longer than that.
        _ => [Pool::Train; 2],
    }
}

/// The size to ask a batch of.
fn size(examples: u64) -> Option<usize> {
    (examples > 0).then(|| usize::try_from(examples).unwrap_or(usize::MAX))
}

impl Optimizer for Addax {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { alpha, epsilon, zo_batch, fo_batch, in_place, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let [long, short] = pools(self.options.longest);
        let alpha = alpha.get();

        let mut estimate = measured(f64::NAN, 0);
        let mut along = Displacement::default();
        if alpha > 0.0 {
            let batch = oracle.draw(long, size(zo_batch))?;
            let z = spsa::directions(oracle, clock, Law::Gaussian, 1);
            estimate = spsa::estimate(oracle, batch, &z, (Estimator::TwoSided, epsilon))?;
            along = descend(oracle, &z, &estimate.projected_grads, (lr * alpha, weight_decay));
            if alpha == 1.0 {
                return StepReport::of(estimate, lr).commit(oracle, &along);
            }
            let report = StepReport::of(estimate.clone(), lr);
            if !report.allows(&along) {
                return Ok(report.skip());
            }
        }
        let batch = oracle.draw(short, size(fo_batch))?;
        let wrt = oracle.trainable().to_vec();
        let rates = (lr * (1.0 - alpha), weight_decay);
        // Steps down the gradient itself: nothing is remembered.
        let descent: &mut dyn Descent = &mut Momentum::default();
        estimate.evaluations += 1;
        if in_place {
            let moved = descend_in_place(descent, oracle, batch, &wrt, rates)?;
            estimate.loss = moved.loss;
            let report = StepReport::of(estimate, lr);
            let mut report = match (moved.is_sound, alpha > 0.0) {
                (false, _) => report.skip(),
                (true, true) => report.commit(oracle, &along)?,
                (true, false) => report,
            };
            report.add(moved.report);
            return Ok(report);
        }
        let (losses, gradient) = Gradient::of(oracle, batch, &[(1.0, Displacement::default())], &wrt)?;
        estimate.loss = losses[0];
        let report = StepReport::of(estimate, lr);
        if !report.is_sound() || !gradient.is_finite() {
            return Ok(report.skip());
        }
        let space = oracle.space();
        let mut update = descended(descent, (space.context(), space.params()), gradient, rates);
        update.terms.extend(along.terms);
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, _: &mut dyn StateVisitor) {}

    fn needs_gradients(&self) -> bool {
        self.options.alpha.get() < 1.0
    }
}

#[cfg(test)]
mod tests;
