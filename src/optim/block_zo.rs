//! Block-wise `MeZO`: slopes along random directions of one layer a step, each layer in its turn.
//!
//! ```text
//! b = layer number step mod B                          in the order of the forward pass, or from the loss down
//! z_i ~ N(0, I) on b                                   i = 1..q, from the key (seed, step, i)
//! p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε             on one batch
//! θ_b ← θ_b − η (Σ p_i z_i / q + λ θ_b)
//! ```
//!
//! Zhang et al., "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A Benchmark", ICML 2024,
//! arXiv:2402.11592, its block-wise descent; the slope is that of [`super::mezo`].
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | μ, perturbation scale | `epsilon` |
//! | q, queries | `queries` |
//! | λ | `weight_decay` |
//!
//! A layer is what parameters have in common that follow each other and whose names agree up to the first number, or,
//! where there is none, up to the last dot: a block, a norm, a head. What lies before the layer is the same in all
//! probes, and an oracle of a model computes it once for all of them.
//!
//! **Deviations.** The released code moves every block in a step, one after the other on one batch; here that is as
//! many steps, each with a batch of its own. It draws the same noise for all blocks, so that those of one shape are
//! moved alike, and names the blocks of OPT only. Decoupled decay is ours.

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, StepReport,
    options::{choice, options},
    parts::{
        layers::layers,
        spsa::{self, Aggregate, Estimator},
        update::descend_some,
    },
    schedule::Schedule,
};
use crate::noise::Law;

choice! {
    /// Which layer follows which.
    pub enum Order {
        /// As in the forward pass.
        Ascending = "ascending",
        /// From the loss down.
        Descending = "descending",
    }
    expected "\"ascending\" or \"descending\""
}

options! {
    /// The options of block-wise `MeZO`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Which layer follows which: as in the forward pass, or from the loss down.
        order: Order = Order::Ascending, "";
        /// Decay of matrices in a step of their layer, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "block_zo",
    about: "slopes along random directions of one layer a step, what lies before it computed once",
    paper: "Zhang et al., Revisiting Zeroth-Order Optimization: A Benchmark, ICML 2024, arXiv:2402.11592",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| Ok(Box::new(BlockZo { options: Options::read(reader)?, schedule: Schedule::read(reader)? })),
};

struct BlockZo {
    options: Options,
    schedule: Schedule,
}

impl Optimizer for BlockZo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, epsilon, queries, estimator, order, weight_decay } = self.options;
        let lr = self.schedule.lr(lr, clock);
        let batch = oracle.draw(Pool::Train, None)?;
        let mut layers = layers(oracle.space());
        if order == Order::Descending {
            layers.reverse();
        }
        let layer = &layers[(clock.step % layers.len() as u64) as usize];
        let z: Vec<_> = (0..queries.get()).map(|i| spsa::direction(layer, clock, Law::Gaussian, i)).collect();
        let estimate = spsa::estimate(oracle, batch, &z, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let update = descend_some(oracle, layer, &z, &weights, (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

#[cfg(test)]
mod tests;
