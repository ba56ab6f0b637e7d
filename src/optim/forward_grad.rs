//! Forward gradients: exact slopes along random tangents, times the tangents.
//!
//! ```text
//! v_i ~ N(0, I), or uniform on {−1, +1}ⁿ               i = 1..q, from the key (seed, step, i)
//! p_i = ∇L(θ) · v_i                                    by forward-mode differentiation, all with L(θ) in one pass
//! θ   ← θ − η (Σ p_i v_i / q + λ θ)
//! ```
//!
//! Baydin et al., "Gradients without Backpropagation", 2022, arXiv:2202.08587. It is the Forward-Grad of Zhang et al.,
//! "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A Benchmark", ICML 2024,
//! arXiv:2402.11592, from where the default `lr` is.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | v, perturbation or tangent | one of `queries`, of the law `tangents` |
//! | `d`, directional derivative | [`StepReport::projected_grads`] |
//! | λ, weight decay of the benchmark | `weight_decay` |
//!
//! It differs from [`super::mezo`] in that nothing is displaced: there is no ε, no difference of two losses that cancel,
//! and no bias, but the objective must have derivatives. Given the same tangents it is `MeZO` by `estimator = "slope"`,
//! whose rules it does not have; what they share is in [`super::parts::spsa`].
//!
//! **Deviations.** The paper and the benchmark have one tangent a step; several share the pass, so that more of them
//! are cheap, and the default is four. Signs as tangents are ours, as is `least-squares`. Decay spares vectors
//! by their shape, not by names that contain `bias` or `norm`.

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Queries, StepReport,
    options::{choice, options},
    parts::{
        per_example::Owners,
        spsa::{self, Aggregate},
        update::descend,
    },
    schedule::Schedule,
};
use crate::noise::Law;

choice! {
    /// How tangents are distributed: independent values of mean 0 and variance 1.
    pub enum Tangents {
        /// Standard normal.
        Gaussian = "gaussian",
        /// Signs: the least noise of all such laws.
        Rademacher = "rademacher",
    }
    expected "\"gaussian\" or \"rademacher\""
}

options! {
    /// The options of forward gradients.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(5e-7), "";
        /// Tangents a step.
        queries: Queries = Queries::new(4), "directions";
        /// How the values of tangents are distributed: standard normal, or signs.
        tangents: Tangents = Tangents::Gaussian, "";
        /// How several slopes make a gradient.
        aggregate: Aggregate = Aggregate::Mean, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "forward_grad",
    about: "gradient descent on exact slopes along random tangents",
    paper: "Baydin et al., Gradients without Backpropagation, 2022, arXiv:2202.08587",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| Ok(Box::new(ForwardGrad { options: Options::read(reader)?, schedule: Schedule::read(reader)? })),
};

struct ForwardGrad {
    options: Options,
    schedule: Schedule,
}

impl Optimizer for ForwardGrad {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, queries, tangents, aggregate, weight_decay } = self.options;
        let lr = self.schedule.lr(lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let v = spsa::directions(oracle, clock, tangents.law(), queries.get());
        let estimate = spsa::slopes(oracle, batch, &v, Owners::All)?;
        let weights = spsa::aggregate(oracle, &v, &estimate.projected_grads, aggregate);
        let update = descend(oracle, &v, &weights, (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

impl Tangents {
    fn law(self) -> Law {
        match self {
            Tangents::Gaussian => Law::Gaussian,
            Tangents::Rademacher => Law::Rademacher,
        }
    }
}

#[cfg(test)]
mod tests;
