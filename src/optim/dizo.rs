//! `DiZO`: `MeZO` whose way from where it began is stretched or shrunk, matrix by matrix, every so many steps.
//!
//! ```text
//! every κ steps:                                       θ₀ the values before the run
//!     Δ_l = θ_l − θ₀_l,  N_l = ‖Δ_l‖,  γ_l = N_l       for each projected l
//!     T times, each on a batch of its own:
//!         z_l ~ N(0, 1), clipped to ±τ N_l / ε_g       from the key (seed, step, i)
//!         g   = (L(γ + ε_g z) − L(γ − ε_g z)) / 2ε_g   the loss where l is θ₀_l + γ_l / N_l · Δ_l
//!         γ_l ← clip(γ_l − s N_l g z_l, (1 ± τ) N_l)
//!     θ_l ← θ₀_l + γ_l / N_l · Δ_l
//! every step:
//!     θ ← θ − η (Σ p_i u_i / q + λ θ)                  u_i ~ N(0, I), p_i = (L(θ + ε u_i) − L(θ − ε u_i)) / 2ε
//! ```
//!
//! Tan et al., "Harmony in Divergence: Towards Fast, Accurate, and Memory-efficient Zeroth-order LLM Fine-tuning", 2025,
//! arXiv:2502.03304.
//!
//! | paper | here |
//! | --- | --- |
//! | η, ε, q of `MeZO` | `lr`, `epsilon`, `queries` |
//! | κ, training steps between projections | `interval` |
//! | T, iterations of a projection | `projection_steps` |
//! | `ε_g` | `zo_eps_projection` |
//! | s, step size of γ | `step_size_projection` |
//! | τ | `clip_range` |
//! | γ, the norm of the projected displacement | `scalar = "norm"` |
//!
//! Nothing is copied: θ₀ is read where the checkpoint lies, and θ₀ + a Δ is evaluated as θ + (a − 1) Δ.
//!
//! **Deviations.** A projection opens the step after the κ-th instead of closing the κ-th, so that every evaluation
//! comes before the one update; the last step of a run is followed by none. The paper projects queries and values, the
//! released code keys and values: `projected`. That code gives up silently on models other than OPT; here all that is
//! trained is projected where none of it is named so. It freezes the embedding; here that is for the run to say.
//! `scalar = "ratio"` is that of other implementations: it moves `a = γ / N`, which is near 1, so that `ε_g` and s mean
//! the same for every matrix and at all times. The first-order search for γ is left out. Decay is ours.

use std::{num::NonZeroU32, sync::Arc};

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, OracleError, Pool, Positive, Queries, Share, StepReport,
    options::{choice, options},
    parts::{
        first_order::measured,
        per_example::Owners,
        spsa::{self, Aggregate, Estimate},
        subspace::is_matrix,
        update::descend,
    },
    schedule::Schedule,
};
use crate::{
    direction::{Coefficients, Direction, DirectionSet, Displacement, Param, ParamId, Term},
    noise::{Law, NoiseKey, Role},
};

choice! {
    /// Whose displacements are projected.
    pub enum Projected {
        /// Those of queries and values, and of adapters.
        QueryValue = "query-value",
        /// As released: those of keys and values, and of adapters.
        KeyValue = "key-value",
        /// Those of all that is trained.
        All = "all",
    }
    expected "\"query-value\", \"key-value\" or \"all\""
}

choice! {
    /// What a projection searches for.
    pub enum Scalar {
        /// The norm of each displacement.
        Norm = "norm",
        /// The norm of each displacement over what it was.
        Ratio = "ratio",
    }
    expected "\"norm\" or \"ratio\""
}

options! {
    /// The options of `DiZO`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// After how many steps displacements are projected.
        interval: NonZeroU32 = NonZeroU32::new(50).expect("not zero"), "steps";
        /// How often the scalars of a projection move, each time on a batch of its own.
        projection_steps: Queries = Queries::new(10), "batches";
        /// Scale of the perturbation of the scalars.
        zo_eps_projection: Positive = Positive::new(0.1), "scalars";
        /// Learning rate of the scalars, of norms times the norm.
        step_size_projection: NonNegative = NonNegative::new(2.0), "";
        /// How much longer or shorter a projection may make a displacement.
        clip_range: Share = Share::new(0.2), "of its norm";
        /// What is projected: queries and values as in the paper, keys and values as released, or all that is trained.
        projected: Projected = Projected::QueryValue, "";
        /// What the scalars are: norms of displacements, or their ratios to what they were.
        scalar: Scalar = Scalar::Norm, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "dizo",
    about: "MeZO with the displacement of each matrix projected to a length that differences of losses choose",
    paper: "Tan et al., Harmony in Divergence: Towards Fast, Accurate, and Memory-efficient Zeroth-order LLM \
            Fine-tuning, 2025, arXiv:2502.03304",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| Ok(Box::new(Dizo { options: Options::read(reader)?, schedule: Schedule::read(reader)? })),
};

struct Dizo {
    options: Options,
    schedule: Schedule,
}

impl Optimizer for Dizo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, queries, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);

        let (mut projection, mut searched) = (Projection::default(), 0);
        if clock.step > 0 && clock.step.is_multiple_of(u64::from(self.options.interval.get())) {
            projection = Projection::of(oracle, &self.options);
            let search = StepReport::of(projection.search(oracle, clock, &self.options)?, lr);
            if !search.is_sound() {
                return Ok(search.skip());
            }
            searched = search.evaluations;
        }
        let mut update = projection.displacement(|_| 0.0);
        let batch = oracle.draw(Pool::Train, None)?;
        let u = spsa::directions(oracle, clock, Law::Gaussian, queries.get());
        let mut estimate = spsa::two_sided(oracle, batch, &update, (&u, Owners::All), epsilon.get() as f32)?;
        estimate.evaluations += searched;
        let weights = spsa::aggregate(oracle, &u, &estimate.projected_grads, Aggregate::Mean);
        update.terms.extend(descend(oracle, &u, &weights, (lr, weight_decay)).terms);
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

/// Displacements that are made longer or shorter. The default has none.
#[derive(Debug, Default)]
struct Projection {
    drift: Arc<DirectionSet>,
    scaled: Vec<Scaled>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    id: ParamId,
    /// Names the noise of its scalar.
    noise_name: u64,
    /// What its scalar is divided by to be a ratio.
    unit: f64,
    /// `γ / N`.
    ratio: f64,
}

impl Projection {
    /// The displacements as they are: those that have a length, and not that of an overflow.
    fn of(oracle: &dyn Oracle, options: &Options) -> Self {
        let (mut drift, mut scaled) = (Vec::new(), Vec::new());
        for id in options.projected.among(oracle) {
            let direction = Direction::Drift(oracle.space().anchor(id));
            let norm = oracle.norm(id, &direction);
            if norm.is_normal() {
                let unit = match options.scalar {
                    Scalar::Norm => norm,
                    Scalar::Ratio => 1.0,
                };
                scaled.push(Scaled { id, noise_name: oracle.params()[id].noise_name(), unit, ratio: 1.0 });
                drift.push((id, direction));
            }
        }
        Projection { drift: Arc::new(DirectionSet::new(drift)), scaled }
    }

    /// Moves the scalars down slopes along random directions of theirs, and answers the slopes: a last one that is not
    /// finite moves nothing.
    fn search(&mut self, oracle: &mut dyn Oracle, clock: Clock, options: &Options) -> Result<Estimate, OracleError> {
        let Options { projection_steps, zo_eps_projection, step_size_projection, clip_range, .. } = *options;
        let (epsilon, range) = (zo_eps_projection.get(), clip_range.get());
        let mut search = measured(0.0, 0);
        for step in 0..projection_steps.get() {
            let batch = oracle.draw(Pool::Train, None)?;
            let z = self.noise(NoiseKey::new(clock.seed, clock.step, Role::Tau, step), range / epsilon);
            let side = |epsilon: f64| self.displacement(|at| epsilon * z[at] / self.scaled[at].unit);
            let losses = spsa::totals(oracle, batch, &[side(epsilon), side(-epsilon)])?;
            let slope = (losses[0] - losses[1]) / (2.0 * epsilon);
            search.loss = f64::midpoint(losses[0], losses[1]);
            search.projected_grads.push(slope);
            search.evaluations += losses.len();
            if !slope.is_finite() {
                break;
            }
            for (scaled, z) in self.scaled.iter_mut().zip(z) {
                let moved = scaled.ratio - step_size_projection.get() * slope * z;
                scaled.ratio = moved.clamp(1.0 - range, 1.0 + range);
            }
        }
        Ok(search)
    }

    /// `z` of each scalar, at most `bound` times its unit in magnitude.
    fn noise(&self, key: NoiseKey, bound: f64) -> Vec<f64> {
        let z = |scaled: &Scaled| {
            let z = f64::from(key.tensor(scaled.noise_name).at(Law::Gaussian, 0, 0));
            z.clamp(-bound * scaled.unit, bound * scaled.unit)
        };
        self.scaled.iter().map(z).collect()
    }

    /// From θ to θ₀ + a Δ, `a` being the ratio of each displacement and what `more` answers for it.
    fn displacement(&self, more: impl Fn(usize) -> f64) -> Displacement {
        let coefficient = |(at, scaled): (usize, &Scaled)| (scaled.id, (scaled.ratio - 1.0 + more(at)) as f32);
        let coefficients = Coefficients::PerParam(self.scaled.iter().enumerate().map(coefficient).collect());
        Displacement { terms: vec![Term { set: Arc::clone(&self.drift), coefficients }] }
    }
}

impl Projected {
    /// The trainable parameters that are projected: all of them, if none has one of the names.
    fn among(self, oracle: &dyn Oracle) -> Vec<ParamId> {
        let named = |id: &ParamId| self.names(&oracle.params()[*id]);
        let ids: Vec<ParamId> = oracle.trainable().iter().copied().filter(named).collect();
        if ids.is_empty() { oracle.trainable().to_vec() } else { ids }
    }

    /// Whether a parameter is a matrix of such a layer, of one that holds it among others, or of an adapter.
    fn names(self, param: &Param) -> bool {
        let parts: &[&str] = match self {
            Projected::QueryValue => &["q_proj", "query", "v_proj", "value", "c_attn", "lora_"],
            Projected::KeyValue => &["k_proj", "key", "v_proj", "value", "c_attn", "lora_"],
            Projected::All => &[""],
        };
        parts.iter().any(|part| param.name().contains(part)) && (is_matrix(param) || self == Projected::All)
    }
}

#[cfg(test)]
mod tests;
