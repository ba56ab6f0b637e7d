//! LOZO: gradient descent along low-rank directions, one factor of which stays for many steps.
//!
//! ```text
//! V   ~ N(0, I)  [n, r]                                every ν steps, from the key (seed, step / ν)
//! U_i ~ N(0, I)  [m, r]                                i = 1..q, from the key (seed, step, i); z_i for vectors
//! c_i = (L(W + ε U_i Vᵀ) − L(W − ε U_i Vᵀ)) / 2ε       all matrices and vectors at once, on one batch
//! W   ← W − η (Σ c_i U_i Vᵀ / (q r) + λ W)             vectors: w ← w − η Σ c_i z_i / q
//! ```
//!
//! Chen et al., "Enhancing Zeroth-order Fine-tuning for Language Models with Low-rank Structures", ICLR 2025,
//! arXiv:2410.07698.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | learning rate α | `learning_rate` | `lr`, with `scale = "1"` in the units of the code |
//! | perturbation scale ε | `zo_eps` | `epsilon` |
//! | rank r | `rank_r` | `rank` |
//! | period of lazy sampling ν | `step_interval` | `refresh_interval` |
//! | c | `projected_grad` | [`StepReport::projected_grads`] |
//!
//! The estimate is unbiased over a fresh `V`: `E c U Vᵀ / r = G`. Values of `U Vᵀ` have the variance r, so that a
//! matrix is probed at a distance of `ε √r` where a vector, and `MeZO`, has ε.
//!
//! **Deviations.** The released code draws `U` and `V` from one stream and draws `V` again only while probing: on the
//! steps that refresh it (one of ν) its update goes along a `U` that was never measured. Here the direction that is
//! applied is the one that was measured, always. The code has no 1 / r (`scale = "1"`). Several queries, other
//! estimators, `U` of each example's own ([`super::parts::per_example`]) and decoupled decay, which spares vectors by their
//! shape, are ours.
//!
//! Over `MeZO`: `n r` values a matrix for `V` while it lives, `m r` a query (and example) within a step; 2 forwards a query.

use std::num::NonZeroU32;

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space, StepReport,
    options::{choice, options},
    parts::{
        per_example::{Directions, merged},
        spsa::{self, Aggregate, Estimator},
        subspace::{self, Factors, Lazy, Probe, directions, epoch, gaussian},
        update::{Rates, descend_apart},
    },
    schedule::Schedule,
};
use crate::{
    direction::Param,
    noise::{NoiseKey, Role},
};

choice! {
    /// What the estimate of a matrix is multiplied by.
    pub enum Scale {
        /// The mean over directions is the gradient: rates are those of `MeZO`.
        Mean = "1/rank",
        /// As released: the step grows with the rank.
        Sum = "1",
    }
    expected "\"1/rank\" or \"1\""
}

options! {
    /// The options of LOZO.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Rank of the directions of a matrix.
        rank: Rank = Rank::new(2), "columns";
        /// How many steps the right factors of directions live.
        refresh_interval: NonZeroU32 = NonZeroU32::new(100).expect("not zero"), "steps";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// What the estimate of a matrix is multiplied by: 1/rank as in the paper, 1 as in the released code.
        scale: Scale = Scale::Mean, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "lozo",
    about: "gradient descent along low-rank directions, one factor of which stays for many steps",
    paper: "Chen et al., Enhancing Zeroth-order Fine-tuning for Language Models with Low-rank Structures, ICLR 2025, \
            arXiv:2410.07698",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(Lozo { options, schedule, right: Lazy::default() }))
    },
};

struct Lozo {
    options: Options,
    schedule: Schedule,
    right: Lazy,
}

impl Optimizer for Lozo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, epsilon, rank, refresh_interval, queries, estimator, scale, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = self.options.directions.owners(oracle, batch)?;
        let v = right(&mut self.right, oracle.space(), (clock.seed, epoch(clock, refresh_interval)), rank);
        let count = owners.directions(queries.get());
        let z = directions(&probes(oracle.space(), clock, count, v, rank));
        let estimate = spsa::estimate_of(oracle, batch, &z, owners, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let (z, weights) = merged(oracle, &z, &weights, owners);
        let update = descend_apart(oracle, &z, &weights, scale.rates(lr, rank), (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

impl Scale {
    /// The rates of a step: vectors are never scaled.
    pub(super) fn rates(self, lr: f64, rank: Rank) -> Rates {
        let matrices = match self {
            Scale::Mean => lr / rank.get() as f64,
            Scale::Sum => lr,
        };
        Rates { matrices, vectors: lr }
    }
}

/// The right factors `V` of an epoch.
pub(super) fn right<'l>(lazy: &'l mut Lazy, space: &dyn Space, (seed, epoch): (u64, u64), rank: Rank) -> &'l Factors {
    let key = NoiseKey::new(seed, epoch, Role::V, 0);
    lazy.at(key, |key| gaussian(space, key, |param| (param.cols(), rank.get())))
}

/// The directions `U Vᵀ` of a step, whose coordinates are `U`.
pub(super) fn probes(space: &dyn Space, clock: Clock, count: u32, v: &Factors, rank: Rank) -> Vec<Probe> {
    let drawn = (Role::U, |param: &Param| (param.rows(), rank.get()));
    subspace::probes(space, clock, count, drawn, |id, u| u.times(&v[&id]))
}

#[cfg(test)]
mod tests;
