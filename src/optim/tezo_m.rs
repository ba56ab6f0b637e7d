//! `TeZO`-m: `TeZO` with momentum, of which a matrix remembers r numbers.
//!
//! ```text
//! U, V, τ_i, κ_i                                       as TeZO
//! μ   ← β₁ μ + (1 − β₁) Σ κ_i τ_i / q    [r]           vectors: m ← β₁ m + (1 − β₁) Σ κ_i z_i / q
//! W   ← W − η (U diag(μ) Vᵀ / r + λ W)                 vectors: w ← w − η m
//! ```
//!
//! Sun et al., "`TeZO`: Empowering the Low-Rankness on the Temporal Dimension in the Zeroth-Order Optimization for
//! Fine-tuning LLMs", 2025, arXiv:2501.19057.
//!
//! | paper | here |
//! | --- | --- |
//! | β₁ | `momentum` |
//! | all others | as [`super::tezo`] |
//!
//! `U diag(μ) Vᵀ` is the running mean of whole estimates, not an approximation of it: the factors stay.
//!
//! **Deviations.** Those of [`super::tezo`]. How the paper treats vectors is not confirmed; here they have a mean of
//! their own. With `refresh_interval` new factors begin a mean anew.
//!
//! Over `MeZO`: `(m + n) r` values a matrix for the factors and r for the mean, one a value of a vector; 2 forwards a
//! query.

use super::{
    Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, StateVisitor,
    StepReport,
    lozo::Scale,
    options::options,
    parts::{
        coordinates::{self, Running},
        spsa::{self, Aggregate, Estimator},
        subspace::directions,
        update::descend_apart,
    },
    schedule::Schedule,
    tezo::{self, PAPER, Span, epoch},
};

options! {
    /// The options of `TeZO`-m.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// How many rank-one matrices span the updates of a matrix.
        rank: Rank = Rank::new(32), "columns";
        /// How many steps these matrices live; 0: for the whole run.
        refresh_interval: u64 = 0, "steps";
        /// How much of the running mean of estimates a step keeps.
        momentum: Decay = Decay::new(0.9), "";
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

pub(super) static ENTRY: Entry = Entry {
    name: "tezo_m",
    about: "TeZO with momentum, of which a matrix remembers a few numbers",
    paper: PAPER,
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(TezoM { options, schedule, span: Span::default(), mean: Running::default(), epoch: 0 }))
    },
};

struct TezoM {
    options: Options,
    schedule: Schedule,
    span: Span,
    /// `μ`, and `m` of vectors.
    mean: Running,
    /// That of the factors which `μ` stands between.
    epoch: u64,
}

impl Optimizer for TezoM {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, rank, queries, estimator, scale, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let epoch = epoch(clock, self.options.refresh_interval);

        let batch = oracle.draw(Pool::Train, None)?;
        let factors = self.span.factors(oracle.space(), (clock.seed, epoch), rank);
        let probes = factors.probes(oracle.space(), clock, queries);
        let z = directions(&probes);
        let estimate = spsa::estimate(oracle, batch, &z, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);

        let report = StepReport::of(estimate, lr);
        let gradient = coordinates::estimate(oracle.space(), &probes, &weights).filter(|_| report.is_sound());
        let Some(gradient) = gradient else { return Ok(report.skip()) };
        if self.epoch != epoch {
            self.mean.clear();
            self.epoch = epoch;
        }
        self.mean.absorb(oracle.space(), &gradient, self.options.momentum.get());
        let mean = factors.lift(oracle.space(), |param| self.mean.get(param));
        let update = descend_apart(oracle, &[mean.into()], &[1.0], scale.rates(lr, rank), (lr, weight_decay));
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("epoch", &mut self.epoch);
        let rank = self.options.rank;
        self.mean.visit(visitor, "mean", &|param| tezo::coordinates(param, rank));
    }
}

#[cfg(test)]
mod tests;
