//! ZO-Muon: steps of fixed size along an orthogonalised gradient estimate of a random column space.
//!
//! ```text
//! P, Ψ_i                                               as Subspace-MeZO, i = 1..N
//! c_i = (L(W + ε P Ψ_i) − L(W)) / ε                    on one batch, one loss at W for all
//! Ĝ   = Σ c_i Ψ_i / N          [r, n]
//! O   = orthogonalised Ĝ       [r, n]                  singular values moved to about 1
//! W   ← W − η (P O + λ W)                              vectors: w ← w − η₁ Σ c_i z_i / N
//! ```
//!
//! Lang et al., "Powering Up Zeroth-Order Training via Subspace Gradient Orthogonalization", 2026, arXiv:2602.17155.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | η, learning rate | `learning_rate` | `lr` |
//! | | fixed at 1e-7 | `one_d_lr` |
//! | ε, perturbation scale | `zo_eps` | `epsilon` |
//! | rank r | `rank_r` | `rank`, at most the rows of a matrix |
//! | period of P ν | `step_interval` | `refresh_interval` |
//! | N, queries | `num_samples` | `queries` |
//! | | `multiple_sample = false` | `queries = 1`, `estimator = "two-sided"` |
//! | orthogonalisation | `muon`, `muon_svd`, `sgd` | `orthogonalize = "newton-schulz"`, `"polar"`, `"none"` |
//!
//! A matrix moves by about `0.75 η √r` whatever the slopes: their scale cancels, and near a minimum the walk goes on
//! at that size, so that a course of `lr` that falls is advisable. There is no factor for the shape of a matrix.
//!
//! **Deviations.** In the released code each probe draws its own `P` on the steps that refresh it, and the update lifts
//! all by the last: here a step has one `P`. Newton-Schulz runs in f32, not in the parameters' type, and adds nothing
//! to the norm ([`crate::linalg::orthogonalize`]). Probes are not kept but for their step. Other estimators, Ψ of each
//! example's own ([`super::parts::per_example`]) and decoupled decay by shape are ours; there is no momentum, as in the code.
//!
//! Over `MeZO`: `m r` values a matrix for `P` while it lives, `n r` a query within a step; N + 1 forwards.

use std::num::NonZeroU32;

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space, StepReport,
    options::{choice, options},
    parts::{
        coordinates::{self, Coordinates},
        per_example::Directions,
        spsa::{self, Aggregate, Estimator},
        subspace::{Factor, Factors, Lazy, directions, epoch},
        update::{Rates, descend_apart},
    },
    schedule::Schedule,
    subspace_mezo::{PAPER, key, probes, projection},
};
use crate::{
    direction::{Direction, DirectionSet, ParamId},
    linalg::orthogonalize::{newton_schulz, polar},
    tensor::MatMut,
};

choice! {
    /// What is made of the estimate within the column space.
    pub enum Orthogonalize {
        /// Five steps of Newton and Schulz, as Muon does them: singular values end in 0.68 to 1.2.
        NewtonSchulz = "newton-schulz",
        /// The polar factor: all singular values 1.
        Polar = "polar",
        /// Nothing: Subspace-MeZO.
        None = "none",
    }
    expected "\"newton-schulz\", \"polar\" or \"none\""
}

options! {
    /// The options of ZO-Muon.
    pub struct Options {
        /// Learning rate of matrices: about how far each of the orthogonal directions moves.
        lr: NonNegative = NonNegative::new(1e-2), "weights";
        /// Learning rate of vectors, on the same course.
        one_d_lr: NonNegative = NonNegative::new(1e-7), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Dimension of the column space, at most the rows of a matrix.
        rank: Rank = Rank::new(64), "columns";
        /// How many steps the space lives.
        refresh_interval: NonZeroU32 = NonZeroU32::new(100).expect("not zero"), "steps";
        /// Directions a step.
        queries: Queries = Queries::new(4), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::OneSided, "";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// How the estimate is orthogonalised: by Newton-Schulz, exactly, or not at all.
        orthogonalize: Orthogonalize = Orthogonalize::NewtonSchulz, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "zo_muon",
    about: "steps of fixed size along an orthogonalised gradient estimate of a random column space",
    paper: PAPER,
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(ZoMuon { options, schedule, projection: Lazy::default() }))
    },
};

struct ZoMuon {
    options: Options,
    schedule: Schedule,
    projection: Lazy,
}

impl Optimizer for ZoMuon {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, rank, queries, estimator, orthogonalize, weight_decay, .. } = self.options;
        let [lr, one_d_lr] = [self.options.lr, self.options.one_d_lr].map(|lr| self.schedule.lr(lr, clock));
        let rates = Rates { matrices: lr, vectors: one_d_lr };

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = self.options.directions.owners(oracle, batch)?;
        let epoch = epoch(clock, self.options.refresh_interval);
        let p = self.projection.at(key(clock.seed, epoch), |key| projection(oracle.space(), key, rank));
        let count = owners.directions(queries.get());
        let probes = probes(oracle.space(), clock, count, p, rank);
        let z = directions(&probes);
        let estimate = spsa::estimate_of(oracle, batch, &z, owners, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);

        let report = StepReport::of(estimate, lr);
        if orthogonalize == Orthogonalize::None {
            let update = descend_apart(oracle, &z, &weights, rates, (lr, weight_decay));
            return report.commit(oracle, &update);
        }
        let gradient = coordinates::estimate(oracle.space(), &probes, &weights).filter(|_| report.is_sound());
        let Some(gradient) = gradient else { return Ok(report.skip()) };
        let lifted = lift(oracle.space(), p, &gradient, |_, factor| orthogonalize.apply(oracle.space(), factor));
        let update = descend_apart(oracle, &[lifted.into()], &[1.0], rates, (lr, weight_decay));
        report.commit(oracle, &update)
    }
}

impl Orthogonalize {
    /// `O` of an estimate; their transposes as well.
    fn apply(self, space: &dyn Space, estimate: &Factor) -> Factor {
        let (rows, cols) = (estimate.rows(), estimate.rank());
        let mut out = vec![0.0; rows * cols];
        let result = MatMut::new(&mut out, rows, cols);
        match self {
            Orthogonalize::NewtonSchulz => newton_schulz(space.context(), estimate.view(), result),
            Orthogonalize::Polar => polar(estimate.view(), result),
            Orthogonalize::None => return estimate.clone(),
        }
        Factor::new(out, cols)
    }
}

/// `P O` of each matrix, where `of` makes `Oᵀ` from its coordinates `[n, r]`, and each vector's own values.
pub(super) fn lift(
    space: &dyn Space,
    p: &Factors,
    coordinates: &Coordinates,
    of: impl Fn(ParamId, &Factor) -> Factor,
) -> DirectionSet {
    let along = |&id: &ParamId| {
        let values = &coordinates[&id][..];
        let direction = match p.get(&id) {
            Some(p) => p.times(&of(id, &Factor::new(values, p.rank()))),
            None => Direction::Explicit(values.into()),
        };
        (id, direction)
    };
    DirectionSet::new(space.trainable().iter().map(along))
}

#[cfg(test)]
mod tests;
