//! LOZO-M: LOZO with momentum, which is remembered as a thin factor.
//!
//! ```text
//! V, U_i, c_i                                          as LOZO
//! N   ← N V_oldᵀ V / n                                 where V is new
//! N   ← β N + (1 − β) Σ c_i U_i / q      [m, r]        vectors: m ← β m + (1 − β) Σ c_i z_i / q
//! W   ← W − η (N Vᵀ / r + λ W)                         vectors: w ← w − η m
//! ```
//!
//! Chen et al., "Enhancing Zeroth-order Fine-tuning for Language Models with Low-rank Structures", ICLR 2025,
//! arXiv:2410.07698.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | momentum β | `beta1` | `momentum` |
//! | all others | | as [`super::lozo`] |
//!
//! While `V` stays, `N Vᵀ` is the running mean of the estimates themselves. The projection on another `V` keeps about
//! r / n of its square: momentum starts almost anew (`on_refresh = "zero"` does so), and helps only where V lives much
//! longer than 1 / (1 − β) steps.
//!
//! **Deviations.** Those of [`super::lozo`]. The released code starts from `N = c U`, without 1 − β; here `N` starts at
//! zero, as in the paper. With ν = 1 the code never keeps an old `V` and so has no momentum; here it has.
//!
//! Over `MeZO`: `n r + m r` values a matrix, one a value of a vector; 2 forwards a query.

use std::num::NonZeroU32;

use super::{
    Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space,
    StateVisitor, StepReport,
    lozo::{Scale, probes, right},
    options::{choice, options},
    parts::{
        coordinates::{self, Running},
        spsa::{self, Aggregate, Estimator},
        subspace::{Lazy, directions, epoch, is_matrix, matrices},
        update::descend_apart,
    },
    schedule::Schedule,
};
use crate::direction::{Direction, DirectionSet, Param};

choice! {
    /// What becomes of momentum where the right factors are new.
    pub enum OnRefresh {
        /// It is projected on them.
        Project = "project",
        /// It starts at zero again, that of vectors excepted.
        Zero = "zero",
    }
    expected "\"project\" or \"zero\""
}

options! {
    /// The options of LOZO-M.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Rank of the directions of a matrix.
        rank: Rank = Rank::new(2), "columns";
        /// How many steps the right factors of directions live.
        refresh_interval: NonZeroU32 = NonZeroU32::new(100).expect("not zero"), "steps";
        /// How much of the running mean of estimates a step keeps.
        momentum: Decay = Decay::new(0.9), "";
        /// What becomes of that mean where the right factors are new.
        on_refresh: OnRefresh = OnRefresh::Project, "";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// What the estimate of a matrix is multiplied by: 1/rank as in the paper, 1 as in the released code.
        scale: Scale = Scale::Mean, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "lozo_m",
    about: "LOZO with momentum, which is remembered as a thin factor",
    paper: "Chen et al., Enhancing Zeroth-order Fine-tuning for Language Models with Low-rank Structures, ICLR 2025, \
            arXiv:2410.07698",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(LozoM { options, schedule, right: Lazy::default(), mean: Running::default(), epoch: 0 }))
    },
};

struct LozoM {
    options: Options,
    schedule: Schedule,
    right: Lazy,
    /// `N`, and `m` of vectors.
    mean: Running,
    /// That of the `V` which `N` stands in front of.
    epoch: u64,
}

impl Optimizer for LozoM {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, rank, queries, estimator, scale, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let epoch = epoch(clock, self.options.refresh_interval);

        let batch = oracle.draw(Pool::Train, None)?;
        let v = right(&mut self.right, oracle.space(), (clock.seed, epoch), rank);
        let probes = probes(oracle.space(), clock, queries.get(), v, rank);
        let z = directions(&probes);
        let estimate = spsa::estimate(oracle, batch, &z, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);

        let report = StepReport::of(estimate, lr);
        let gradient = coordinates::estimate(oracle.space(), &probes, &weights).filter(|_| report.is_sound());
        let Some(gradient) = gradient else { return Ok(report.skip()) };
        self.carry_over(oracle.space(), clock.seed, epoch);
        self.mean.absorb(oracle.space(), &gradient, self.options.momentum.get());
        let mean = self.direction(oracle.space(), (clock.seed, epoch));
        let update = descend_apart(oracle, &[mean.into()], &[1.0], scale.rates(lr, rank), (lr, weight_decay));
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("epoch", &mut self.epoch);
        let rank = self.options.rank.get();
        let len = |param: &Param| if is_matrix(param) { param.rows() * rank } else { param.elements() };
        self.mean.visit(visitor, "mean", &len);
    }
}

impl LozoM {
    /// Brings `N` in front of the `V` of `epoch`.
    fn carry_over(&mut self, space: &dyn Space, seed: u64, epoch: u64) {
        let before = std::mem::replace(&mut self.epoch, epoch);
        if before == epoch || self.mean.is_empty() {
            return;
        }
        let Options { rank, on_refresh, .. } = self.options;
        let mut lazy = Lazy::default();
        let old = right(&mut lazy, space, (seed, before), rank);
        let new = right(&mut self.right, space, (seed, epoch), rank);
        for (id, param) in matrices(space) {
            let before = self.mean.factor(param, rank.get());
            let carried = match on_refresh {
                OnRefresh::Zero => vec![0.0; before.values().len()].into(),
                OnRefresh::Project => {
                    let overlap = old[&id].transposed_product(space.context(), &new[&id]);
                    let overlap = overlap.scaled_columns(&vec![1.0 / param.cols() as f32; rank.get()]);
                    before.product(space.context(), &overlap).into_values()
                }
            };
            self.mean.set(param, carried);
        }
    }

    /// `N Vᵀ`, and `m` of vectors.
    fn direction(&mut self, space: &dyn Space, key: (u64, u64)) -> DirectionSet {
        let rank = self.options.rank;
        let v = right(&mut self.right, space, key, rank);
        let along = |&id| {
            let param = &space.params()[id];
            let direction = match v.get(&id) {
                Some(v) => self.mean.factor(param, rank.get()).times(v),
                None => Direction::Explicit(self.mean.get(param).into()),
            };
            (id, direction)
        };
        DirectionSet::new(space.trainable().iter().map(along))
    }
}

#[cfg(test)]
mod tests;
