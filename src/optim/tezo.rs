//! `TeZO`: gradient descent within the span of a few rank-one matrices that stay for the whole run.
//!
//! ```text
//! u_s, v_s ~ N(0, I)            s = 1..r, once a run, from its seed
//! τ_i      ~ N(0, I)  [r]       i = 1..q, from the key (seed, step, i); z_i for vectors
//! Z_i      = Σ_s τ_is u_s v_sᵀ = U diag(τ_i) Vᵀ
//! κ_i      = (L(W + ρ Z_i) − L(W − ρ Z_i)) / 2ρ
//! W        ← W − η (Σ κ_i Z_i / (q r) + λ W)           vectors: w ← w − η Σ κ_i z_i / q
//! ```
//!
//! Sun et al., "`TeZO`: Empowering the Low-Rankness on the Temporal Dimension in the Zeroth-Order Optimization for
//! Fine-tuning LLMs", 2025, arXiv:2501.19057: the directions of all steps are one tensor of T slices and CP rank r.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ρ, perturbation scale | `epsilon` |
//! | r, rank of a layer | `rank` |
//! | κ | [`StepReport::projected_grads`] |
//!
//! All updates of a matrix lie in the r-dimensional span of its `u_s v_sᵀ`. Over fresh factors `E κ Z / r = G`.
//!
//! **Deviations.** No code was released. The factor 1 / r is that of the theory; the algorithm as printed seems to have
//! none (`scale = "1"`). The paper takes the rank of a layer from the spectra of its block, by constants that we could
//! not confirm; here all matrices have the rank of the option. `refresh_interval` draws new factors every so many
//! steps, which is ours, as are several queries, other estimators and decoupled decay, which spares vectors by their
//! shape.
//!
//! Over `MeZO`: `(m + n) r` values a matrix for the factors, `m r` a query within a step; 2 forwards a query.

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space, StepReport,
    lozo::Scale,
    options::options,
    parts::{
        spsa::{self, Aggregate, Estimator},
        subspace::{self, Factors, Lazy, Probe, directions, gaussian},
        update::descend_apart,
    },
    schedule::Schedule,
};
use crate::{
    direction::{Direction, DirectionSet, Param, ParamId},
    noise::{NoiseKey, Role},
};

options! {
    /// The options of `TeZO`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// How many rank-one matrices span the updates of a matrix.
        rank: Rank = Rank::new(32), "columns";
        /// How many steps these matrices live; 0: for the whole run.
        refresh_interval: u64 = 0, "steps";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// What the estimate of a matrix is multiplied by: 1/rank as in the theory, 1 as the algorithm is printed.
        scale: Scale = Scale::Mean, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

/// Where the three algorithms of the paper stand.
pub(super) const PAPER: &str = "Sun et al., TeZO: Empowering the Low-Rankness on the Temporal Dimension in the \
                                Zeroth-Order Optimization for Fine-tuning LLMs, 2025, arXiv:2501.19057";

pub(super) static ENTRY: Entry = Entry {
    name: "tezo",
    about: "gradient descent within the span of a few rank-one matrices that stay for the whole run",
    paper: PAPER,
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(Tezo { options, schedule, span: Span::default() }))
    },
};

struct Tezo {
    options: Options,
    schedule: Schedule,
    span: Span,
}

impl Optimizer for Tezo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, epsilon, rank, refresh_interval, queries, estimator, scale, weight_decay } = self.options;
        let lr = self.schedule.lr(lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let factors = self.span.factors(oracle.space(), (clock.seed, epoch(clock, refresh_interval)), rank);
        let z = directions(&factors.probes(oracle.space(), clock, queries));
        let estimate = spsa::estimate(oracle, batch, &z, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let update = descend_apart(oracle, &z, &weights, scale.rates(lr, rank), (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

/// How often factors have been drawn anew before this step; an interval of 0 is the whole run.
pub(super) fn epoch(clock: Clock, interval: u64) -> u64 {
    clock.step.checked_div(interval).unwrap_or(0)
}

/// Keeps the factors of a run.
#[derive(Debug, Default)]
pub(super) struct Span {
    left: Lazy,
    right: Lazy,
}

/// `U` and `V`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canonical<'l> {
    pub(super) left: &'l Factors,
    pub(super) right: &'l Factors,
    rank: Rank,
}

impl Span {
    /// The factors of an epoch.
    pub(super) fn factors(&mut self, space: &dyn Space, (seed, epoch): (u64, u64), rank: Rank) -> Canonical<'_> {
        let [left, right] = [Role::U, Role::V].map(|role| NoiseKey::new(seed, epoch, role, 0));
        Canonical {
            left: self.left.at(left, |key| gaussian(space, key, |param| (param.rows(), rank.get()))),
            right: self.right.at(right, |key| gaussian(space, key, |param| (param.cols(), rank.get()))),
            rank,
        }
    }
}

impl Canonical<'_> {
    /// The directions of a step, whose coordinates are `τ`.
    pub(super) fn probes(self, space: &dyn Space, clock: Clock, queries: Queries) -> Vec<Probe> {
        let tau = (Role::Tau, |_: &Param| (1, self.rank.get()));
        subspace::probes(space, clock, queries.get(), tau, |id, tau| self.direction(id, tau.values()))
    }

    /// `U diag(τ) Vᵀ`.
    pub(super) fn direction(self, id: ParamId, tau: &[f32]) -> Direction {
        self.left[&id].scaled_columns(tau).times(&self.right[&id])
    }

    /// `U diag(μ) Vᵀ` of each matrix, and each vector's own values.
    pub(super) fn lift<'v>(self, space: &dyn Space, coordinates: impl Fn(&Param) -> &'v [f32]) -> DirectionSet {
        let along = |&id: &ParamId| {
            let values = coordinates(&space.params()[id]);
            let matrix = self.left.contains_key(&id);
            (id, if matrix { self.direction(id, values) } else { Direction::Explicit(values.into()) })
        };
        DirectionSet::new(space.trainable().iter().map(along))
    }
}

/// How many coordinates a parameter has.
pub(super) fn coordinates(param: &Param, rank: Rank) -> usize {
    if subspace::is_matrix(param) { rank.get() } else { param.elements() }
}

#[cfg(test)]
mod tests;
