//! Subspace-MeZO: gradient descent within a random orthonormal column space that stays for many steps.
//!
//! ```text
//! P   ~ Haar, PᵀP = I  [m, r]                          every ν steps, from the key (seed, step / ν)
//! Ψ_i ~ N(0, I)        [r, n]                          i = 1..q, from the key (seed, step, i); z_i for vectors
//! c_i = (L(W + ε P Ψ_i) − L(W − ε P Ψ_i)) / 2ε         on one batch
//! W   ← W − η (P Σ c_i Ψ_i / q + λ W)                  vectors: w ← w − η₁ Σ c_i z_i / q
//! ```
//!
//! Lang et al., "Powering Up Zeroth-Order Training via Subspace Gradient Orthogonalization", 2026, arXiv:2602.17155:
//! the baseline of ZO-Muon, which is this with orthogonalised updates.
//!
//! | paper | released code (`sgd`) | here |
//! | --- | --- | --- |
//! | η, learning rate | `learning_rate` | `lr` |
//! | | fixed at 1e-7 | `one_d_lr` |
//! | ε, perturbation scale | `zo_eps` | `epsilon` |
//! | rank r | `rank_r` | `rank`, at most the rows of a matrix |
//! | period of P ν | `step_interval` | `refresh_interval` |
//! | c | | [`StepReport::projected_grads`] |
//!
//! The estimate is `P Pᵀ G` on average while `P` stays, and `r / m G` over fresh ones, which are r / m of a direction
//! of `MeZO` in squared length: a rate of m / r times `MeZO`'s makes as large a step.
//!
//! **Deviations.** The default of `lr` is that of the released scripts; the 1e-2 of its front page goes with ZO-Muon,
//! and is large for this. The code ends with a crash where r > m; here r is lowered to m. Several queries, other
//! estimators, Ψ of each example's own ([`super::parts::per_example`]) and decoupled decay by shape are ours.
//!
//! Over `MeZO`: `m r` values a matrix for `P` while it lives, `n r` a query within a step; 2 forwards a query.

use std::num::NonZeroU32;

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space, StepReport,
    options::options,
    parts::{
        per_example::{Directions, merged},
        spsa::{self, Aggregate, Estimator},
        subspace::{self, Factors, Lazy, Probe, directions, epoch, orthonormal},
        update::{Rates, descend_apart},
    },
    schedule::Schedule,
};
use crate::{
    direction::Param,
    noise::{NoiseKey, Role},
};

options! {
    /// The options of Subspace-MeZO.
    pub struct Options {
        /// Learning rate of matrices: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-5), "";
        /// Learning rate of vectors, on the same course.
        one_d_lr: NonNegative = NonNegative::new(1e-7), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Dimension of the column space, at most the rows of a matrix.
        rank: Rank = Rank::new(64), "columns";
        /// How many steps the space lives.
        refresh_interval: NonZeroU32 = NonZeroU32::new(100).expect("not zero"), "steps";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

/// Where this and ZO-Muon stand.
pub(super) const PAPER: &str =
    "Lang et al., Powering Up Zeroth-Order Training via Subspace Gradient Orthogonalization, 2026, arXiv:2602.17155";

pub(super) static ENTRY: Entry = Entry {
    name: "subspace_mezo",
    about: "gradient descent within a random orthonormal column space that stays for many steps",
    paper: PAPER,
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(SubspaceMezo { options, schedule, projection: Lazy::default() }))
    },
};

struct SubspaceMezo {
    options: Options,
    schedule: Schedule,
    projection: Lazy,
}

impl Optimizer for SubspaceMezo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, one_d_lr, epsilon, rank, refresh_interval, queries, estimator, weight_decay, .. } =
            self.options;
        let rates = Rates { matrices: self.schedule.lr(lr, clock), vectors: self.schedule.lr(one_d_lr, clock) };

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = self.options.directions.owners(oracle, batch)?;
        let epoch = epoch(clock, refresh_interval);
        let p = self.projection.at(key(clock.seed, epoch), |key| projection(oracle.space(), key, rank));
        let count = owners.directions(queries.get());
        let z = directions(&probes(oracle.space(), clock, count, p, rank));
        let estimate = spsa::estimate_of(oracle, batch, &z, owners, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let (z, weights) = merged(oracle, &z, &weights, owners);
        let update = descend_apart(oracle, &z, &weights, rates, (rates.matrices, weight_decay));
        StepReport::of(estimate, rates.matrices).commit(oracle, &update)
    }
}

/// The key of `P` in an epoch.
pub(super) fn key(seed: u64, epoch: u64) -> NoiseKey {
    NoiseKey::new(seed, epoch, Role::P, 0)
}

/// How many columns `P` has.
pub(super) fn columns(param: &Param, rank: Rank) -> usize {
    rank.get().min(param.rows())
}

/// The column spaces `P` of this key.
pub(super) fn projection(space: &dyn Space, key: NoiseKey, rank: Rank) -> Factors {
    orthonormal(space, key, |param| (param.rows(), columns(param, rank)))
}

/// The directions `P Ψ` of a step, whose coordinates are `Ψᵀ`.
pub(super) fn probes(space: &dyn Space, clock: Clock, count: u32, p: &Factors, rank: Rank) -> Vec<Probe> {
    let psi = (Role::Psi, |param: &Param| (param.cols(), columns(param, rank)));
    subspace::probes(space, clock, count, psi, |id, psi| p[&id].times(psi))
}

#[cfg(test)]
mod tests;
