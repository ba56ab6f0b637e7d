//! `AdaZeta`: slopes along more and more random directions, of bottlenecks of tensor trains.
//!
//! ```text
//! Q   = min(max(⌊α e^β⌋, 1), Q_max)                    e = how often all examples have been drawn
//! z_i ~ N(0, I)                                        i = 1..Q, from the key (seed, step, i)
//! p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε             on one batch
//! θ   ← θ − η (Σ p_i z_i / Q + λ θ)
//! ```
//!
//! Yang et al., "`AdaZeta`: Adaptive Zeroth-Order Tensor-Train Adaption for Memory-Efficient Large Language Models
//! Fine-Tuning", EMNLP 2024, arXiv:2406.18060.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ε, perturbation scale | `epsilon` |
//! | `Q_max` | `queries` |
//! | α, `SHRINK` of the code | `shrink_factor` |
//! | β, `RATE` of the code | `inc_rate` |
//! | the tensorized adapters | what it tunes where a run does not say: [`Tunes::TensorTrains`] |
//!
//! **Deviations.** Epochs are counted over examples as they are drawn; the paper rounds an epoch up to whole batches. The
//! released adapters begin as noise, so that the loss jumps before the first step; here what they add begins at zero. Their
//! modes are fixed for a hidden size of 4096, here made for any. Weight decay spares vectors by their shape, not by names.
//! The released distributed trainer has neither scale nor cap: `shrink_factor = 1` and a large `queries`. The reported loss
//! is the mean of both sides of all directions, not that of the last at θ + εz.

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Share, StepReport, Tunes,
    options::options,
    parts::{
        spsa::{self, Aggregate, Estimator},
        update::descend,
    },
    schedule::Schedule,
};
use crate::noise::Law;

options! {
    /// The options of `AdaZeta`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-4), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Directions a step, at most.
        queries: Queries = Queries::new(15), "directions";
        /// What the epoch's power is multiplied by.
        shrink_factor: Share = Share::new(0.85), "directions";
        /// The power of the epoch that the number of directions grows by.
        inc_rate: Share = Share::new(0.4), "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.01), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "adazeta",
    about: "slopes along more directions each epoch, of bottlenecks of tensor trains",
    paper: "Yang et al., AdaZeta: Adaptive Zeroth-Order Tensor-Train Adaption, EMNLP 2024, arXiv:2406.18060",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| Ok(Box::new(AdaZeta { options: Options::read(reader)?, schedule: Schedule::read(reader)? })),
};

struct AdaZeta {
    options: Options,
    schedule: Schedule,
}

impl Optimizer for AdaZeta {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, epsilon, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(lr, clock);
        let batch = oracle.draw(Pool::Train, None)?;
        let queries = self.options.queries(oracle.epoch(batch)?);
        let z = spsa::directions(oracle, clock, Law::Gaussian, queries);
        let estimate = spsa::estimate(oracle, batch, &z, (Estimator::TwoSided, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let update = descend(oracle, &z, &weights, (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }

    fn tunes(&self) -> Tunes {
        Tunes::TensorTrains
    }
}

impl Options {
    /// The directions of a step in this epoch, from 0.
    fn queries(&self, epoch: u64) -> u32 {
        let wanted = self.shrink_factor.get() * power(epoch as f64, self.inc_rate.get());
        // A conversion takes the floor, and ends at the largest number.
        (wanted as u32).clamp(1, self.queries.get())
    }
}

/// `base^exponent` for an exponent from 0 to 1: roots of the base, one for each binary digit of the exponent. They are
/// correctly rounded, so that a journal replays the same number of directions on every machine.
fn power(base: f64, exponent: f64) -> f64 {
    let (mut power, mut root, mut digits) = (1.0, base, exponent);
    while digits > 0.0 {
        if digits >= 1.0 {
            power *= root;
            digits -= 1.0;
        }
        digits *= 2.0;
        root = root.sqrt();
    }
    power
}

#[cfg(test)]
mod tests;
