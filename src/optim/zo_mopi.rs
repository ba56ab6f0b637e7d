//! ZO-MOPI: ZO-Muon that orthogonalises only the dominant directions of a momentum, followed by power iteration.
//!
//! ```text
//! P   = Q([P_old U_k, N(0, I)])                        every ν steps, U_k the k dominant left singular vectors of M
//! M   ← PᵀP_old M                                      where P is new
//! Ψ_i, c_i                                             as ZO-Muon, i = 1..N
//! M   ← β M + (1 − β) Σ c_i Ψ_i / N    [r, n]          the first time M = Σ c_i Ψ_i / N
//! V   ← Q(Mᵀ M V)                      [n, k]          one sweep from the V of the last step
//! U   = M V with columns of length 1   [r, k]
//! W   ← W − η (P U Vᵀ + λ W)                           vectors: m as M, w ← w − η₁ m
//! ```
//!
//! Chen and Ma, "Accelerating Zeroth-Order Spectral Optimization with Partial Orthogonalization from Power Iteration",
//! 2026, arXiv:2605.09034.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | η, learning rate | `learning_rate` | `lr` |
//! | | `one_d_lr` | `one_d_lr` |
//! | μ, perturbation scale | `zo_eps` | `epsilon` |
//! | rank r of the sketch | `rank_r` | `rank`, at most the rows of a matrix |
//! | k, spectral rank | `k_start` | `k`, at most `rank` and the columns of a matrix |
//! | period of P ν | `step_interval` | `refresh_interval` |
//! | N, queries | `num_samples` | `queries` |
//! | β | `zo_muon_beta` | `momentum` |
//! | `P` from the momentum | (commented out) | `projection = "anchored"` |
//! | | `reset_v_on_p_refresh` | `reset_v_on_p_refresh` |
//!
//! The directions of a ZO estimate beyond its dominant ones are noise, which full orthogonalisation lifts to their
//! size. `‖U Vᵀ‖_F = √k`, and `⟨U Vᵀ, M⟩ = Σ ‖M v_j‖ ≥ 0`.
//!
//! **Deviations.** As released is `momentum = 0`, `projection = "random"`, `reset_v_on_p_refresh = true`; defaults are
//! as described. The formulas show two-sided differences, the code and its results are one-sided, and so is the default
//! here. The code restores weights with another Ψ than it probed on steps that refresh `P`; here nothing is moved, so
//! nothing is restored. It keeps `M` in the coordinates of the old `P`; here `PᵀP_old M` is what of it lies in the new
//! space (the code that is commented out divides by m). Its `phase2_steps`, after which it becomes ZO-Muon and which no
//! published setting reaches, are left out. Power iteration differs as [`crate::linalg::power_iteration`] says. Other
//! estimators, Ψ of each example's own ([`super::parts::per_example`]) and decoupled decay by shape are ours.
//!
//! Over `MeZO`: `m r + n r + n k` values a matrix for `P`, `M` and `V`, one a value of a vector, `n r` a query within a
//! step; N + 1 forwards.

use std::num::NonZeroU32;

use super::{
    Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space,
    StateVisitor, StepReport,
    options::{choice, options},
    parts::{
        coordinates::{self, Coordinates, Running},
        per_example::Directions,
        spsa::{self, Aggregate, Estimator},
        subspace::{Factor, Factors, directions, epoch, gaussian, is_matrix, matrices, orthonormal},
        update::{Rates, descend_apart},
    },
    schedule::Schedule,
    subspace_mezo::{columns, key, probes, projection},
};
use crate::{
    direction::{Direction, DirectionSet, Param, ParamId},
    linalg::{
        Square,
        power_iteration::{sweep, truncated_polar},
        qr::thin_qr,
        symmetric_eigen::symmetric_eigen,
    },
    noise::{NoiseKey, Role},
    tensor::MatMut,
};

choice! {
    /// Where a new column space comes from.
    pub enum Projection {
        /// The dominant directions of momentum stay in it, the others are random.
        Anchored = "anchored",
        /// All of it is random.
        Random = "random",
    }
    expected "\"anchored\" or \"random\""
}

options! {
    /// The options of ZO-MOPI.
    pub struct Options {
        /// Learning rate of matrices: about how far each of the k directions moves.
        lr: NonNegative = NonNegative::new(5e-3), "weights";
        /// Learning rate of vectors, on the same course.
        one_d_lr: NonNegative = NonNegative::new(1e-7), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Dimension of the column space, at most the rows of a matrix.
        rank: Rank = Rank::new(64), "columns";
        /// How many directions of momentum are orthogonalised, at most rank and the columns of a matrix.
        k: Rank = Rank::new(32), "columns";
        /// How many steps the space lives.
        refresh_interval: NonZeroU32 = NonZeroU32::new(500).expect("not zero"), "steps";
        /// How much of the running mean of estimates a step keeps; 0 as released.
        momentum: Decay = Decay::new(0.9), "";
        /// Where a new space comes from: from momentum and chance, or as released from chance.
        projection: Projection = Projection::Anchored, "";
        /// Whether power iteration begins anew in a new space; true as released.
        reset_v_on_p_refresh: bool = false, "";
        /// Directions a step.
        queries: Queries = Queries::new(8), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::OneSided, "";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "zo_mopi",
    about: "ZO-Muon that orthogonalises only the dominant directions of a momentum, followed by power iteration",
    paper: "Chen and Ma, Accelerating Zeroth-Order Spectral Optimization with Partial Orthogonalization from Power \
            Iteration, 2026, arXiv:2605.09034",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(ZoMopi { options, schedule, frame: Frame::default() }))
    },
};

struct ZoMopi {
    options: Options,
    schedule: Schedule,
    frame: Frame,
}

/// What a step finds and leaves: values are shared, so that a step that fails leaves the frame it found.
#[derive(Clone, Debug, Default)]
struct Frame {
    /// That of `P`.
    epoch: u64,
    /// `P`.
    projection: Running,
    /// `Mᵀ`, and `m` of vectors.
    momentum: Running,
    /// `V`.
    basis: Running,
}

impl Optimizer for ZoMopi {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, rank, queries, estimator, weight_decay, .. } = self.options;
        let [lr, one_d_lr] = [self.options.lr, self.options.one_d_lr].map(|lr| self.schedule.lr(lr, clock));
        let epoch = epoch(clock, self.options.refresh_interval);

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = self.options.directions.owners(oracle, batch)?;
        let mut frame = self.frame.clone();
        frame.enter(oracle.space(), (clock.seed, epoch), &self.options);
        let p = frame.projection(oracle.space(), rank);
        let count = owners.directions(queries.get());
        let probes = probes(oracle.space(), clock, count, &p, rank);
        let z = directions(&probes);
        let estimate = spsa::estimate_of(oracle, batch, &z, owners, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);

        let report = StepReport::of(estimate, lr);
        let gradient = coordinates::estimate(oracle.space(), &probes, &weights).filter(|_| report.is_sound());
        let Some(gradient) = gradient else { return Ok(report.skip()) };
        let partial = frame.absorb(oracle.space(), clock.seed, &gradient, &self.options);
        self.frame = frame;
        let rates = Rates { matrices: lr, vectors: one_d_lr };
        let update = descend_apart(oracle, &[partial.into()], &[1.0], rates, (lr, weight_decay));
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        let Options { rank, k, projection, .. } = self.options;
        visitor.count("epoch", &mut self.frame.epoch);
        let momentum = |param: &Param| {
            if is_matrix(param) { param.cols() * columns(param, rank) } else { param.elements() }
        };
        self.frame.momentum.visit(visitor, "momentum", &momentum);
        let of_matrices = |param: &Param, len: usize| if is_matrix(param) { len } else { 0 };
        let basis = |param: &Param| of_matrices(param, param.cols() * directions_of(param, rank, k));
        self.frame.basis.visit(visitor, "basis", &basis);
        // A random one is made again from its key.
        if projection == Projection::Anchored {
            let len = |param: &Param| of_matrices(param, param.rows() * columns(param, rank));
            self.frame.projection.visit(visitor, "projection", &len);
        }
    }
}

/// How many directions of a matrix are orthogonalised.
fn directions_of(param: &Param, rank: Rank, k: Rank) -> usize {
    k.get().min(columns(param, rank)).min(param.cols())
}

impl Frame {
    /// Brings the frame to an epoch: draws `P`, and carries `M` over.
    fn enter(&mut self, space: &dyn Space, (seed, epoch): (u64, u64), options: &Options) {
        let Options { rank, k, projection: from, reset_v_on_p_refresh, .. } = *options;
        if self.projection.is_empty() {
            self.put(space, projection(space, key(seed, self.epoch), rank));
        }
        if self.epoch == epoch {
            return;
        }
        self.epoch = epoch;
        let old = self.projection(space, rank);
        let begun = !self.momentum.is_empty();
        let new = match from {
            Projection::Anchored if begun => self.anchored(space, key(seed, epoch), (rank, k)),
            _ => projection(space, key(seed, epoch), rank),
        };
        if begun {
            for (id, param) in matrices(space) {
                let overlap = old[&id].transposed_product(space.context(), &new[&id]);
                let carried = self.momentum.factor(param, columns(param, rank)).product(space.context(), &overlap);
                self.momentum.set(param, carried.into_values());
            }
        }
        if reset_v_on_p_refresh {
            self.basis.clear();
        }
        self.put(space, new);
    }

    /// `P` of each matrix.
    fn projection(&self, space: &dyn Space, rank: Rank) -> Factors {
        matrices(space).map(|(id, param)| (id, self.projection.factor(param, columns(param, rank)))).collect()
    }

    fn put(&mut self, space: &dyn Space, projection: Factors) {
        for (id, factor) in projection {
            self.projection.set(&space.params()[id], factor.into_values());
        }
    }

    /// `Q([P U_k, N(0, I)])`.
    fn anchored(&self, space: &dyn Space, key: NoiseKey, (rank, k): (Rank, Rank)) -> Factors {
        let fresh = gaussian(space, key, |param| (param.rows(), columns(param, rank)));
        let anchor = |(id, param): (ParamId, &Param)| {
            let (columns, kept) = (columns(param, rank), directions_of(param, rank, k));
            let momentum = self.momentum.factor(param, columns);
            let dominant = dominant(&momentum.transposed(), kept);
            let anchor = self.projection.factor(param, columns).product(space.context(), &dominant);
            let mut values = fresh[&id].values().to_vec();
            for (values, anchor) in values.chunks_exact_mut(columns).zip(anchor.values().chunks_exact(kept)) {
                values[..kept].copy_from_slice(anchor);
            }
            thin_qr(MatMut::new(&mut values, param.rows(), columns));
            (id, Factor::new(values, columns))
        };
        matrices(space).map(anchor).collect()
    }

    /// Takes an estimate in, and answers `P U Vᵀ` of matrices and `m` of vectors.
    fn absorb(&mut self, space: &dyn Space, seed: u64, gradient: &Coordinates, options: &Options) -> DirectionSet {
        let Options { rank, k, momentum, .. } = *options;
        let beta = if self.momentum.is_empty() { 0.0 } else { momentum.get() };
        self.momentum.absorb(space, gradient, beta);
        if self.basis.is_empty() {
            let key = NoiseKey::new(seed, self.epoch, Role::V, 0);
            let first = orthonormal(space, key, |param| (param.cols(), directions_of(param, rank, k)));
            first.into_iter().for_each(|(id, v)| self.basis.set(&space.params()[id], v.into_values()));
        }
        let mut along = |&id: &ParamId| {
            let param = &space.params()[id];
            if !is_matrix(param) {
                return (id, Direction::Explicit(self.momentum.get(param).into()));
            }
            let momentum = self.momentum.factor(param, columns(param, rank)).transposed();
            let (u, v) = partial(space, &momentum, &self.basis.factor(param, directions_of(param, rank, k)));
            let left = self.projection.factor(param, columns(param, rank)).product(space.context(), &u);
            let direction = left.times(&v);
            self.basis.set(param, v.into_values());
            (id, direction)
        };
        DirectionSet::new(space.trainable().iter().map(&mut along))
    }
}

/// `U` `[r, k]` and `V` `[n, k]` of `M` `[r, n]`, one sweep from an earlier `V`.
fn partial(space: &dyn Space, momentum: &Factor, basis: &Factor) -> (Factor, Factor) {
    let (n, k) = (basis.rows(), basis.rank());
    let (mut v, mut u) = (basis.values().to_vec(), vec![0.0; momentum.rows() * k]);
    sweep(space.context(), momentum.view(), MatMut::new(&mut v, n, k));
    let v = Factor::new(v, k);
    truncated_polar(space.context(), momentum.view(), v.view(), MatMut::new(&mut u, momentum.rows(), k));
    (Factor::new(u, k), v)
}

/// The `count` dominant left singular vectors of `M` `[r, n]`, as columns. `M Mᵀ` is summed in f64: squares of any f32
/// fit.
fn dominant(momentum: &Factor, count: usize) -> Factor {
    let rows = momentum.view();
    let product = |i: usize, j: usize| {
        let pairs = rows.row(i).iter().zip(rows.row(j));
        pairs.fold(0.0, |sum, (a, b)| sum + f64::from(*a) * f64::from(*b))
    };
    // The lower triangle is all that is read.
    let gram = Square::from_fn(rows.rows(), |i, j| if j <= i { product(i, j) } else { 0.0 });
    let vectors = symmetric_eigen(&gram).vectors;
    let dominant: Vec<f32> = (0..count).flat_map(|i| vectors.row(i)).map(|x| *x as f32).collect();
    Factor::new(dominant, rows.rows()).transposed()
}

#[cfg(test)]
mod tests;
