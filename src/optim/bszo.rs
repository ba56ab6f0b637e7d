//! BSZO: differences along a few random directions, shrunk by what a Kalman filter believes of their noise.
//!
//! ```text
//! B = [z_1 .. z_k],  z_i ~ N(0, I)                     from the keys (seed, step, i)
//! y_i = (L(θ + ε z_i) − L(θ)) / ε                      i = 1..k, on one batch
//! g = Bᵀ∇L ~ N(μ, Σ),  μ = 0, Σ = σ_p² I               the prior, anew in every step
//! for each reading y along an axis e of g:             the y_i along e_i, then m − k extra ones
//!     s ← (1 − α) s + α (y − eᵀμ)²                     kept from step to step, at first σ_0²
//!     σ_e = max(σ_0 / 10, √s)
//!     v = Σ e,  K = v / (eᵀv + σ_e²)
//!     μ ← μ + K (y − eᵀμ),  Σ ← Σ − K vᵀ
//! θ ← θ − η (Σ μ_i z_i + λ θ)
//! ```
//!
//! Feng and Huang, "Robust and Efficient Zeroth-Order LLM Fine-Tuning via Adaptive Bayesian Subspace Optimizer", 2026,
//! arXiv:2601.01452.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | η, learning rate | `learning_rate` | `lr` |
//! | ε, perturbation scale | `zo_eps` | `epsilon` |
//! | k, m | `k`, `m` | `k`, `m` |
//! | `σ_p`, `σ_0`, of prior and of first noise | `sigma_p`, `sigma_0` | `sigma_p`, `sigma_0` |
//! | y | | [`StepReport::projected_grads`] |
//! | `σ_e`, noise of a reading | | `noise` of [`StepReport::scalars`] |
//! | γ, gain | | `gain` of [`StepReport::scalars`]: the mean of `1 − Σ_ii / σ_p²`, which is `μ_i / y_i` |
//!
//! Readings along axes do not correlate: `μ_i = γ_i y_i`, and `γ_i = σ_p² / (σ_p² + σ_e²)` after one reading. So a step is
//! that of one-sided `MeZO`, summed instead of averaged, with a gain for each slope. As s contains α y², a first reading
//! moves an axis by at most `σ_p / 2√α`, whatever the losses were. An extra reading is that of the axis which is known
//! least: the same number once more, which brings its gain from γ to 2γ / (1 + γ).
//!
//! **Deviations.** We had no text to compare with; the update is that of the released code. It has two files:
//! `extra = "cached"`, which its commands run with k = 2 and m = 3, and `extra = "remeasure"`, which gives the same numbers,
//! since a loss is a function of weights and batch. Its prior `√(n / 10⁶)` expects gradients of 10⁻³ a weight. Those of the
//! few weights of adapters are larger, and a narrow prior would stop them: n counts as a million at least. Two-sided
//! differences do without `L(θ)`. What is not finite is not remembered; there, one NaN stays in s for good. There, 10⁻¹⁰ is
//! added to each variance after a reading, axes with `|μ_i| ≤ 10⁻¹⁰` do not move, and schedules are ignored. The exact
//! slope and decoupled weight decay, which spares vectors by their shape, are ours.
//!
//! Over `MeZO`: one number; within a step k keys and k² + k numbers. All probes are evaluated in one pass, but for an
//! axis that is measured once more: which one it is follows from the readings before it.

use super::{
    Auto, Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Rank, Share, StateVisitor,
    StepReport,
    options::{choice, options},
    parts::{
        kalman::Posterior,
        spsa::{self, Estimator},
        update::descend,
    },
    schedule::Schedule,
};
use crate::noise::Law;

choice! {
    /// Where the readings beyond the first k come from.
    pub enum Extra {
        /// There are none.
        None = "none",
        /// The reading of the axis that is known least is taken in once more.
        Cached = "cached",
        /// That axis is measured once more.
        Remeasure = "remeasure",
    }
    expected "\"none\", \"cached\" or \"remeasure\""
}

options! {
    /// The options of BSZO.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-4), "weights";
        /// Directions a step.
        k: Rank = Rank::new(2), "directions";
        /// Readings a step, auto being k + 1: with fewer than k some directions stay out, those beyond k are extra.
        m: Auto<Rank> = Auto::Auto, "readings";
        /// Where the readings beyond k come from: nowhere, from those there are, or from a further evaluation each.
        extra: Extra = Extra::Cached, "";
        /// How slopes are measured.
        estimator: Estimator = Estimator::OneSided, "";
        /// Scale of slopes that the prior expects; auto is √(n / 10⁶) for n trained weights, at least 1.
        sigma_p: Auto<Positive> = Auto::Auto, "slopes";
        /// Noise of a slope at first, ten times what it is at least; auto as for the prior.
        sigma_0: Auto<Positive> = Auto::Auto, "slopes";
        /// Whether that noise follows the readings.
        adaptive_noise: bool = true, "";
        /// How much a reading counts in the noise.
        alpha: Share = Share::new(0.1), "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

/// The least `σ_e / σ_0`.
const NOISE_FLOOR: f64 = 0.1;

pub(super) static ENTRY: Entry = Entry {
    name: "bszo",
    about: "differences along a few directions, shrunk by what a Kalman filter believes of their noise",
    paper: "Feng and Huang, Robust and Efficient Zeroth-Order LLM Fine-Tuning via Adaptive Bayesian Subspace Optimizer, \
            2026, arXiv:2601.01452",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(Bszo { options, schedule, noise: 1.0 }))
    },
};

struct Bszo {
    options: Options,
    schedule: Schedule,
    /// `s / σ_0²`.
    noise: f64,
}

impl Optimizer for Bszo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, k, m, extra, estimator, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let readings = m.given().map_or(k.get() + 1, Rank::get);

        let batch = oracle.draw(Pool::Train, None)?;
        let z = spsa::directions(oracle, clock, Law::Gaussian, k.get().min(readings) as u32);
        let estimate = spsa::estimate(oracle, batch, &z, (estimator, epsilon))?;
        let mut report = StepReport::of(estimate, lr);
        if !report.is_sound() {
            return Ok(report.skip());
        }
        let mut filter = Filter::new(&self.options, z.len(), oracle.dimension(), self.noise);
        for (axis, slope) in report.projected_grads.iter().enumerate() {
            filter.absorb(axis, *slope);
        }
        for _ in z.len()..readings {
            let axis = filter.posterior.widest();
            let slope = match extra {
                Extra::None => break,
                Extra::Cached => report.projected_grads[axis],
                Extra::Remeasure => {
                    let how = (estimator, epsilon);
                    let (slope, evaluations) = spsa::slope(oracle, batch, &z[axis], how, report.loss)?;
                    report.evaluations += evaluations;
                    slope
                }
            };
            filter.absorb(axis, slope);
        }
        let update = descend(oracle, &z, filter.posterior.mean(), (lr, weight_decay));
        if !filter.noise.is_finite() || !report.allows(&update) {
            return Ok(report.skip());
        }
        report.scalars = [("gain", filter.gain()), ("noise", filter.variance().sqrt())].into();
        self.noise = filter.noise;
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.number("noise", &mut self.noise);
    }
}

/// `√(n / 10⁶)`, n being at least a million.
fn automatic(dimension: usize) -> Positive {
    Positive::new((dimension as f64 / 1e6).max(1.0).sqrt())
}

/// What a step makes of its readings.
struct Filter {
    posterior: Posterior,
    /// `σ_p²`.
    prior: f64,
    /// `σ_0²`.
    initial: f64,
    /// `s / σ_0²`.
    noise: f64,
    /// α, 0 where the noise stays.
    alpha: f64,
}

impl Filter {
    /// Before the first reading of a step along `axes` directions of `dimension` weights.
    fn new(options: &Options, axes: usize, dimension: usize, noise: f64) -> Self {
        let Options { sigma_p, sigma_0, adaptive_noise, alpha, .. } = options;
        let [prior, initial] = [sigma_p, sigma_0].map(|sigma| {
            let sigma = sigma.given().unwrap_or_else(|| automatic(dimension)).get();
            sigma * sigma
        });
        let alpha = if *adaptive_noise { alpha.get() } else { 0.0 };
        Filter { posterior: Posterior::prior(axes, prior), prior, initial, noise, alpha }
    }

    /// `σ_e²`.
    fn variance(&self) -> f64 {
        self.initial * self.noise.max(NOISE_FLOOR * NOISE_FLOOR)
    }

    /// Takes in a slope along an axis.
    fn absorb(&mut self, axis: usize, slope: f64) {
        let mut along = vec![0.0; self.posterior.mean().len()];
        along[axis] = 1.0;
        let residual = self.posterior.residual(&along, slope);
        self.noise = (1.0 - self.alpha) * self.noise + self.alpha * residual * residual / self.initial;
        self.posterior.absorb(&along, slope, self.variance());
    }

    /// The part of the prior variance that readings have resolved, on average over axes.
    fn gain(&self) -> f64 {
        let left = self.posterior.variances().sum::<f64>() / self.posterior.mean().len() as f64;
        1.0 - left / self.prior
    }
}

#[cfg(test)]
mod tests;
