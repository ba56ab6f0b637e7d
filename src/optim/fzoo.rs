//! FZOO: one-sided differences along random signs, with steps normalised by the spread of the losses.
//!
//! ```text
//! u_i ~ {−1, +1}ⁿ                                      i = 1..N, from the key (seed, step, i)
//! l_0 = L(θ),  l_i = L(θ + ε u_i)                      on one batch
//! σ   = std(l_1 .. l_N)
//! θ   ← θ − η / (N σ) Σ (l_i − l_0) u_i                nothing where σ = 0
//! ```
//!
//! Dang et al., "FZOO: Fast Zeroth-Order Optimizer for Fine-Tuning Large Language Models towards Adam-Scale Speed",
//! 2025, arXiv:2506.09034.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ε, perturbation scale | `epsilon` |
//! | N, batch of perturbations | `queries` |
//! | `(l_i − l_0) / ε` | [`StepReport::projected_grads`] |
//!
//! With the slopes `p_i = (l_i − l_0) / ε` the step is `η / (N std(p)) Σ p_i u_i`: ε cancels, and so does any scale of
//! the loss. A weight moves by about `η √((1 + m²/σ²) / N)`, `m` being the mean of `l_i − l_0`.
//!
//! **Deviations.** As in the released code, not the paper: σ is divided by N, not N − 1, and there is no further 1/ε
//! (η here is η/ε there). From the code: signs are those of the probes, σ = 0 is no division. Decoupled weight decay
//! on matrices is ours, and so are directions of examples ([`super::parts::per_example`]): `l_i` is then the loss of a
//! batch each example of which is at a point of its own, and the sum is over examples, too.

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, StepReport,
    options::options,
    parts::{
        per_example::{Directions, flipped},
        spsa::{self, Estimator},
        update::descend,
    },
    schedule::Schedule,
};
use crate::noise::Law;

options! {
    /// The options of FZOO.
    pub struct Options {
        /// Learning rate: about how far √queries directions move a weight in a step.
        lr: NonNegative = NonNegative::new(5e-5), "weights";
        /// Scale of the perturbation that losses are compared at.
        epsilon: Positive = Positive::new(1e-4), "weights";
        /// Directions a step; of a single one there is no spread, and nothing moves.
        queries: Queries = Queries::new(8), "directions";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "fzoo",
    about: "one-sided differences along random signs, steps normalised by the spread of the losses",
    paper: "Dang et al., FZOO: Fast Zeroth-Order Optimizer, 2025, arXiv:2506.09034",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| Ok(Box::new(Fzoo { options: Options::read(reader)?, schedule: Schedule::read(reader)? })),
};

struct Fzoo {
    options: Options,
    schedule: Schedule,
}

impl Optimizer for Fzoo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, epsilon, queries, directions, weight_decay } = self.options;
        let lr = self.schedule.lr(lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = directions.owners(oracle, batch)?;
        let u = flipped(spsa::directions(oracle, clock, Law::Rademacher, queries.get()), clock, owners);
        let estimate = spsa::estimate_of(oracle, batch, &u, owners, (Estimator::OneSided, epsilon))?;
        let weights = normalised(&estimate.projected_grads, queries.get() as usize);
        let update = descend(oracle, &u, &weights, (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

/// `p_i / (N std(p))`, or zeros where all slopes are equal. The slope of a query is the mean of its examples' own, which
/// stand together.
fn normalised(slopes: &[f64], queries: usize) -> Vec<f64> {
    let (count, examples) = (slopes.len() as f64, slopes.len() / queries);
    let of_query: Vec<f64> =
        slopes.chunks_exact(examples).map(|own| own.iter().sum::<f64>() / examples as f64).collect();
    // A spread does not see an offset. With the first slope as origin equal slopes have a spread of exactly 0, which
    // their rounded mean would turn into 1e-17 of themselves, and the step into a leap.
    let offsets: Vec<f64> = of_query.iter().map(|slope| slope - of_query[0]).collect();
    let mean = offsets.iter().sum::<f64>() / queries as f64;
    let variance = offsets.iter().map(|offset| (offset - mean) * (offset - mean)).sum::<f64>() / queries as f64;
    let spread = variance.sqrt();
    slopes.iter().map(|slope| if spread == 0.0 { 0.0 } else { slope / (count * spread) }).collect()
}

#[cfg(test)]
mod tests;
