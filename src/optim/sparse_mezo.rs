//! Sparse-MeZO: `MeZO` on the smallest values of each tensor.
//!
//! ```text
//! h   = the (1 − s) n-th smallest |θ|                  of each tensor of n values, once, before the first step
//! m   = 1 where |θ| ≤ h, else 0                        every step anew
//! z_i ~ N(0, I)                                        i = 1..q, from the key (seed, step, i)
//! p_i = (L(θ + ε m z_i) − L(θ − ε m z_i)) / 2ε         on one batch
//! θ   ← θ − η m (Σ p_i z_i / q + λ θ)
//! ```
//!
//! Liu et al., "Sparse `MeZO`: Less Parameters for Better Performance in Zeroth-Order LLM Fine-Tuning", 2024,
//! arXiv:2402.15751. Random masks are those of Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient
//! LLM Fine-Tuning: A Benchmark", ICML 2024, arXiv:2402.11592.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ε, perturbation scale | `epsilon` |
//! | s, sparsity | `sparsity` |
//! | m, mask | `mask`; of the benchmark's it takes `refresh_interval` |
//! | `projected_grad` | [`StepReport::projected_grads`] |
//!
//! A value that leaves the mask, because a step made it larger than h, stays where it is from then on.
//!
//! **Deviations.** The paper makes the mask anew wherever it reads a weight; here it is made once a step, a bit for each
//! value, and the same bits are in all probes and the update. Vectors have thresholds of their own. A tensor whose
//! threshold is 0 takes part as a whole: the factor of an adapter that begins with zeros would freeze with its first
//! step. At least one value of a tensor takes part. The default of `sparsity` is that of a reproduction (Lang et al.,
//! 2026, arXiv:2602.17155). A random mask leaves out the share it says: the benchmark's code compares a normal draw, not
//! a uniform one, with its rate, which leaves out 0.69 at 0.5, and with several queries its update has no mask. Several
//! queries, other estimators and decoupled decay, of what takes part, are ours.
//!
//! Over `MeZO`: one bit for each trainable value within a step, one number for each tensor between steps; 2 forwards a
//! query.

use std::num::NonZeroU32;

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Share, StateVisitor, StepReport,
    options::{choice, options},
    parts::{
        sparsity::{Masks, Thresholds},
        spsa::{self, Aggregate, Estimator},
        subspace::epoch,
        update::descend_masked,
    },
    schedule::Schedule,
};
use crate::noise::{Law, NoiseKey, Role};

choice! {
    /// Which values take part.
    pub enum Mask {
        /// The smallest of each tensor in magnitude.
        Magnitude = "magnitude",
        /// Each with the same probability.
        Random = "random",
    }
    expected "\"magnitude\" or \"random\""
}

options! {
    /// The options of Sparse-MeZO.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Share of a tensor's values that take no part.
        sparsity: Share = Share::new(0.8), "";
        /// Which values take part: the smallest of each tensor, or some at random.
        mask: Mask = Mask::Magnitude, "";
        /// How many steps a random mask lives.
        refresh_interval: NonZeroU32 = NonZeroU32::MIN, "steps";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Decay a step of what takes part in matrices, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "sparse_mezo",
    about: "gradient descent on slopes along random directions of the smallest values of each tensor",
    paper: "Liu et al., Sparse MeZO: Less Parameters for Better Performance in Zeroth-Order LLM Fine-Tuning, 2024, \
            arXiv:2402.15751",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(SparseMezo { options, schedule, thresholds: Thresholds::default() }))
    },
};

struct SparseMezo {
    options: Options,
    schedule: Schedule,
    thresholds: Thresholds,
}

impl Optimizer for SparseMezo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, sparsity, queries, estimator, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let masks = match self.options.mask {
            Mask::Magnitude => self.thresholds.masks(oracle.space(), sparsity),
            Mask::Random => {
                let epoch = epoch(clock, self.options.refresh_interval);
                Masks::random(oracle.space(), NoiseKey::new(clock.seed, epoch, Role::Mask, 0), sparsity)
            }
        };
        let z = spsa::directions(oracle, clock, Law::Gaussian, queries.get());
        let z: Vec<_> = z.iter().map(|z| masks.over(z)).collect();
        let estimate = spsa::estimate(oracle, batch, &z, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let update = descend_masked(oracle, &masks, &z, &weights, (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        if self.options.mask == Mask::Magnitude {
            self.thresholds.visit(visitor);
        }
    }
}

#[cfg(test)]
mod tests;
