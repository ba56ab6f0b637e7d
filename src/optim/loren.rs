//! LOREN: leave-one-out differences along Gaussian directions that are short along a learned axis of each tensor.
//!
//! ```text
//! a   ~ N(0, I)  [n]                                   at first, of each tensor [m, n]; a vector is one row
//! x_k = u_k − (1 + r) τ_k Â,  u_k ~ N(0, I)            k = 1..K, from the key (seed, step, k); Cov x = (I + A Aᵀ / ρ)⁻¹
//!       A = 1 aᵀ,  Â = A / ‖A‖,  r = √ρ / √(ρ + ‖A‖²),  τ_k = ⟨Â, u_k⟩
//! f_k = L(θ + ε x_k),  w_k = (f_k − f̄) / (K − 1)       on one batch; f̄ is the mean of all f_k
//! M   ← β M + Σ w_k x_k / ε                            vectors: M = Σ w_k x_k / ε
//! W   ← W − η (M + λ W)
//! a   ← a − ν (s Σ w_k √ρ ∇_a log p(x_k) + λ a)        s = ε² or 1
//! ```
//!
//! Seung et al., "Low-Rank Curvature for Zeroth-Order Optimization in LLM Fine-Tuning", AAAI 2026, arXiv:2511.07971. The
//! formulas are those of the released code, in terms that stay finite as `a` goes to 0.
//!
//! | released code | here |
//! | --- | --- |
//! | `lr`, η | `lr` |
//! | `perturbation_scale`, ε | `epsilon` |
//! | `num_queries`, K | `queries` |
//! | `damping`, ρ | `damping` |
//! | `lr_cov`, ν | `lr_cov` |
//! | `beta1`, β | `momentum` |
//! | `(fvals − fmean) / ε` | [`StepReport::projected_grads`] |
//!
//! `E Σ w_k x_k / ε = Cov(x) g`: the preconditioned gradient. `Σ w_k √ρ ∇_a log p` estimates the derivative of the expected
//! loss by `a`, times √ρ: the axis turns to where the loss is curved.
//!
//! **Deviations.** From the released code, which makes K updates one after the other and draws each `x_k` anew along an
//! axis that the ones before have moved: here a step is one update along the directions that were measured, then the axis
//! moves. Hence momentum and decay, of weights and of the axis, count once a step, not K times. The code sums the gradient
//! of a vector's axis to one number and adds that to all of `a`; here the axis has a gradient of its own shape. The factor
//! s = ε² is the code's; with it no f32 of `a` changes, and the curvature is that of the first draw. `cov_scale = "1"` lets
//! it learn. The default `lr` is ours, that of `MeZO`: the code's 2e-3 is that of any of its optimizers, and its examples
//! leave the rate open. Decay of weights spares vectors.
//!
//! Over `MeZO`: n values a tensor for its axis, a value a weight for momentum, within a step n values a tensor and
//! direction; K forwards.

mod axis;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Space, StateVisitor,
    StepReport,
    options::{choice, options},
    parts::{
        moments::Mean,
        spsa::{self, Estimate},
        subspace::{is_matrix, normal},
        update::{descend, sum},
    },
    schedule::Schedule,
};
use crate::{
    direction::{Coefficients, Direction, DirectionSet, Displacement, Param, ParamId, Term},
    noise::{Law, NoiseKey, Role},
};
use axis::{Axis, sum_of_rows};

choice! {
    /// What the gradient of an axis is multiplied by.
    pub enum CovScale {
        /// As released: axes stay where they are.
        Square = "epsilon^2",
        /// By nothing: axes learn.
        One = "1",
    }
    expected "\"epsilon^2\" or \"1\""
}

options! {
    /// The options of LOREN.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that losses are compared at.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Directions a step: two or more, each is compared with the others.
        queries: Queries = Queries::new(10), "directions";
        /// What ‖A‖² is compared with: directions are √(damping / (damping + ‖A‖²)) as long along an axis as across.
        damping: Positive = Positive::new(0.1), "";
        /// Learning rate of axes.
        lr_cov: NonNegative = NonNegative::new(1e-3), "";
        /// What the gradient of an axis is multiplied by: epsilon^2 as released, 1 for axes that learn.
        cov_scale: CovScale = CovScale::Square, "";
        /// How much of the running sum of estimates of matrices a step keeps; 0: nothing is remembered of weights.
        momentum: Decay = Decay::new(0.9), "";
        /// Decay of matrices a step, times lr, and of axes, times their own rate; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "loren",
    about: "leave-one-out differences along directions that are short along a learned axis of each tensor",
    paper: "Seung et al., Low-Rank Curvature for Zeroth-Order Optimization in LLM Fine-Tuning, AAAI 2026, \
            arXiv:2511.07971",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        if options.queries.get() < 2 {
            return Err(reader.refusal("queries", "an integer from 2 to 10000: each is compared with the others"));
        }
        Ok(Box::new(Loren { options, schedule, axes: BTreeMap::new(), momentum: Mean::default() }))
    },
};

struct Loren {
    options: Options,
    schedule: Schedule,
    /// `a` of each parameter, by its name.
    axes: Rows,
    /// `M`.
    momentum: Mean,
}

/// A row of each parameter, by its name.
type Rows = BTreeMap<String, Arc<[f32]>>;

impl Optimizer for Loren {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, queries, momentum, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let applied = f64::from(epsilon.get() as f32);

        let batch = oracle.draw(Pool::Train, None)?;
        let x = Probes::draw(oracle, clock, self.axes(oracle.space(), clock.seed), queries);
        let probes: Vec<_> = (0..x.u.len()).map(|k| x.along([(k, applied)])).collect();
        let losses = spsa::totals(oracle, batch, &probes)?;
        let (loss, differences) = leave_one_out(&losses);
        let weights: Vec<f64> = differences.iter().map(|w| w / applied).collect();
        let slopes = weights.iter().map(|w| w * (weights.len() - 1) as f64).collect();

        let report = StepReport::of(Estimate { loss, projected_grads: slopes, evaluations: losses.len() }, lr);
        let estimate = |scale: f64| x.along(weights.iter().map(|w| scale * w).enumerate());
        let axes = self.turned(oracle.space(), &x, &differences).filter(|_| report.allows(&estimate(1.0)));
        let Some(axes) = axes else { return Ok(report.skip()) };
        let update = if momentum.get() == 0.0 {
            let mut update = descend(oracle, &[], &[], (lr, weight_decay));
            update.terms.extend(estimate(-lr).terms);
            update
        } else {
            let mean = self.absorb(oracle.space(), &estimate(1.0));
            descend(oracle, &[mean], &[1.0], (lr, weight_decay))
        };
        let report = report.commit(oracle, &update)?;
        if !report.nonfinite {
            self.axes = axes;
        }
        Ok(report)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.factors("axis", &mut self.axes, &Param::cols);
        if self.options.momentum.get() != 0.0 {
            self.momentum.visit(visitor);
        }
    }
}

impl Loren {
    /// The axes as they are, or as they are first drawn.
    fn axes(&self, space: &dyn Space, seed: u64) -> BTreeMap<ParamId, Axis> {
        let key = NoiseKey::new(seed, 0, Role::V, 0);
        let axis = |&id: &ParamId| {
            let param = &space.params()[id];
            let kept = self.axes.get(param.name()).cloned();
            let row = kept.unwrap_or_else(|| normal(space, key, param, (1, param.cols())).into());
            (id, Axis::new(row, param.rows(), self.options.damping.get()))
        };
        space.trainable().iter().map(axis).collect()
    }

    /// `a − ν (s Σ w_k √ρ ∇_a log p(x_k) + λ a)`; `None` if a value is not finite.
    fn turned(&self, space: &dyn Space, x: &Probes, differences: &[f64]) -> Option<Rows> {
        let Options { epsilon, lr_cov, cov_scale, weight_decay, .. } = self.options;
        let scale = match cov_scale {
            CovScale::Square => epsilon.get() * epsilon.get(),
            CovScale::One => 1.0,
        };
        let turned = |(id, axis): (&ParamId, &Axis)| {
            let kept = 1.0 - lr_cov.get() * weight_decay.get();
            let mut row: Vec<f64> = axis.row().iter().map(|&a| kept * f64::from(a)).collect();
            for (sums, w) in x.sums.iter().zip(differences) {
                let rate = lr_cov.get() * scale * w;
                row.iter_mut().zip(axis.score(&sums[id])).for_each(|(a, score)| *a -= rate * score);
            }
            let row: Arc<[f32]> = row.into_iter().map(|a| a as f32).collect();
            row.iter().all(|a| a.is_finite()).then(|| (space.params()[*id].name().to_owned(), row))
        };
        x.axes.iter().map(turned).collect()
    }

    /// `M ← β M + ĝ`, without β for vectors.
    fn absorb(&mut self, space: &dyn Space, estimate: &Displacement) -> Arc<DirectionSet> {
        let mean = |&id: &ParamId| {
            let param = &space.params()[id];
            let beta = if is_matrix(param) { self.options.momentum.get() } else { 0.0 };
            (id, Direction::Explicit(self.momentum.take(space.context(), (id, param), estimate, beta)))
        };
        Arc::new(DirectionSet::new(space.trainable().iter().map(mean)))
    }
}

/// The directions of a step.
struct Probes {
    axes: BTreeMap<ParamId, Axis>,
    /// `Â`.
    along: Arc<DirectionSet>,
    /// `u_k`,
    u: Vec<Arc<DirectionSet>>,
    /// and the sum of the rows of each parameter's.
    sums: Vec<BTreeMap<ParamId, Vec<f64>>>,
}

impl Probes {
    fn draw(oracle: &dyn Oracle, clock: Clock, axes: BTreeMap<ParamId, Axis>, queries: Queries) -> Self {
        let along = Arc::new(DirectionSet::new(axes.iter().map(|(&id, axis)| (id, axis.direction()))));
        let u = spsa::directions(oracle, clock, Law::Gaussian, queries.get());
        let sum = |u, &id: &ParamId| (id, sum_of_rows(oracle.space(), (id, &oracle.params()[id]), u));
        let sums = u.iter().map(|u| axes.keys().map(|id| sum(u, id)).collect()).collect();
        Probes { axes, along, u, sums }
    }

    /// `Σ w_k x_k` over some of them. The term that all have in common comes first, so that lanes can share it.
    fn along(&self, weights: impl IntoIterator<Item = (usize, f64)>) -> Displacement {
        let (of, weights): (Vec<usize>, Vec<f64>) = weights.into_iter().unzip();
        let coefficient = |(&id, axis): (&ParamId, &Axis)| {
            let sums = of.iter().map(|&k| &self.sums[k][&id]);
            (id, sums.zip(&weights).fold(0.0, |sum, (rows, w)| sum + w * axis.coefficient(rows)) as f32)
        };
        let coefficients = Coefficients::PerParam(self.axes.iter().map(coefficient).collect());
        let mut terms = vec![Term { set: Arc::clone(&self.along), coefficients }];
        let u: Vec<_> = of.iter().map(|&k| Arc::clone(&self.u[k])).collect();
        terms.extend(sum(&u, &weights, 1.0).terms);
        Displacement { terms }
    }
}

/// The mean `f̄` of losses, and `(f_k − f̄) / (K − 1)`: a K-th of what `f_k` is above the mean of the others.
fn leave_one_out(losses: &[f64]) -> (f64, Vec<f64>) {
    let count = losses.len() as f64;
    // With the first loss as origin equal losses differ by exactly 0, whatever their mean is rounded to.
    let offsets = losses.iter().map(|loss| loss - losses[0]);
    let mean = offsets.clone().sum::<f64>() / count;
    (losses[0] + mean, offsets.map(|offset| (offset - mean) / (count - 1.0)).collect())
}

#[cfg(test)]
mod tests;
