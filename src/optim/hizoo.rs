//! `HiZOO`: `MeZO` along directions that are the shorter, weight by weight, the more the loss is curved.
//!
//! ```text
//! z_i ~ N(0, I),  d_i = z_i / √H                       i = 1..q, from the key (seed, step, i); H = 1 at first
//! l   = L(θ),  l_i± = L(θ ± ε d_i)                     on one batch
//! p_i = (l_i+ − l_i−) / 2ε,  c_i = |l_i+ + l_i− − 2 l| / 2ε²
//! θ   ← θ − η (Σ p_i d_i / q + λ θ)
//! H   ← max((1 − α) H + α H Σ c_i z_i² / q, h_min)     elementwise
//! ```
//!
//! Zhao et al., "Second-Order Fine-Tuning without Pain for LLMs: A Hessian Informed Zeroth-Order Optimizer", ICLR 2025,
//! arXiv:2402.15173.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | learning rate η | `learning_rate` | `lr` |
//! | perturbation scale μ | `zo_eps` | `epsilon` |
//! | smooth scale α | `hessian_smooth_type` | `hessian_smooth` |
//! | Σ⁻¹ | `Hessian_matrix` | `H`, remembered as Σ^½ = 1 / √H |
//! | `projected_grad` | `projected_grad` | [`StepReport::projected_grads`] |
//!
//! `E Σ p_i d_i / q = g / H`, the gradient over H. Where the loss is a quadratic whose Hessian has the diagonal h,
//! `E H c z² = h + ½ H Σ h_j / H_j`: what is averaged is not h but h and a multiple of H, so that H comes to rest at
//! `h (n + 2) / 2`: by then `g / H` is a Newton step divided by `(n + 2) / 2`.
//!
//! **Deviations.** Paper and code move along `z / √H` of the new H, a direction that was not measured; here the direction
//! that is applied is the one that was measured, always. The two differ by a part of about α c of the step. H has a floor;
//! with the authors' α no run comes near it. The code evaluates a fourth loss, after the update, for its log. Its weight
//! decay takes in every tensor; here it is decoupled and spares vectors. Several queries are ours.
//!
//! Over `MeZO`: a value a weight, none if α = 0; 3 forwards, two more for each further query.

use std::{collections::BTreeMap, sync::Arc};

use rayon::prelude::*;

use super::{
    BatchId, Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, OracleError, Pool, Positive, Queries,
    Space, StateVisitor, StepReport,
    options::options,
    parts::{
        spsa::{self, Aggregate, Estimate},
        update::descend,
    },
    schedule::Schedule,
};
use crate::{
    direction::{Direction, DirectionSet, Displacement, Moves, ParamId},
    noise::{Law, PANEL_ROWS},
};

options! {
    /// The options of `HiZOO`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes and curvatures are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// How much of the curvature H a step renews; 0: H stays 1, and nothing is remembered.
        hessian_smooth: Decay = Decay::new(1e-8), "";
        /// What H is at least: with 1e-4 a weight is probed at most 100 times as far as at first.
        hessian_floor: Positive = Positive::new(1e-4), "";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "hizoo",
    about: "MeZO along directions that are shorter where the loss is curved",
    paper: "Zhao et al., Second-Order Fine-Tuning without Pain for LLMs: A Hessian Informed Zeroth-Order Optimizer, \
            ICLR 2025, arXiv:2402.15173",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(Hizoo { options, schedule, scale: BTreeMap::new() }))
    },
};

struct Hizoo {
    options: Options,
    schedule: Schedule,
    /// `1 / √H` of each parameter, by its name; 1 where there is none.
    scale: BTreeMap<String, Arc<[f32]>>,
}

impl Optimizer for Hizoo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, hessian_smooth, queries, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let z = spsa::directions(oracle, clock, Law::Gaussian, queries.get());
        let d = self.shortened(oracle.space(), &z);
        let (estimate, curvatures) = measure(oracle, batch, &d, epsilon)?;
        let weights = spsa::aggregate(oracle, &d, &estimate.projected_grads, Aggregate::Mean);
        let update = descend(oracle, &d, &weights, (lr, weight_decay));

        let report = StepReport::of(estimate, lr);
        let renewal = hessian_smooth.get() / f64::from(queries.get());
        let gains: Vec<f32> = curvatures.into_iter().map(|c| (renewal * c) as f32).collect();
        if gains.iter().any(|gain| !gain.is_finite()) {
            return Ok(report.skip());
        }
        let report = report.commit(oracle, &update)?;
        if !report.nonfinite && hessian_smooth.get() > 0.0 {
            // Who still holds a direction of this step would keep the values of its scale from being written in place.
            drop((d, update));
            self.renew(oracle.space(), &z, &gains);
        }
        Ok(report)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.tensors("scale", &mut self.scale);
    }
}

impl Hizoo {
    /// `z / √H`.
    fn shortened(&self, space: &dyn Space, z: &[Arc<DirectionSet>]) -> Vec<Arc<DirectionSet>> {
        let along = |z: &DirectionSet, id: ParamId| {
            let of = z.get(id).expect("a direction of each parameter that moves").clone();
            match self.scale.get(space.params()[id].name()) {
                Some(scale) => Direction::Scaled { of: Box::new(of), scale: Arc::clone(scale) },
                None => of,
            }
        };
        z.iter().map(|z| Arc::new(DirectionSet::new(z.params().map(|id| (id, along(z, id)))))).collect()
    }

    /// `H ← max(H (1 − α + Σ gain_i z_i²), h_min)`, as `1 / √H`.
    fn renew(&mut self, space: &dyn Space, z: &[Arc<DirectionSet>], gains: &[f32]) {
        let kept = (1.0 - self.options.hessian_smooth.get()) as f32;
        let longest = (1.0 / self.options.hessian_floor.get().sqrt()) as f32;
        let z: Vec<Displacement> = z.iter().map(|z| Displacement::along(z, 1.0)).collect();
        for &id in space.trainable() {
            let param = &space.params()[id];
            let moves: Vec<Moves<'_>> = z.iter().map(|z| Moves::of(std::slice::from_ref(z), id, param)).collect();
            let draws: Vec<_> = moves.iter().map(|moves| moves.update(space.context())).collect();
            let scale = self.scale.entry(param.name().to_owned()).or_insert_with(|| vec![1.0; param.elements()].into());
            let block = PANEL_ROWS * param.cols();
            let rows = || (vec![0.0; block], vec![0.0; block]);
            Arc::make_mut(scale).par_chunks_mut(block).enumerate().for_each_init(rows, |(growth, z), (at, scale)| {
                let (growth, z) = (&mut growth[..scale.len()], &mut z[..scale.len()]);
                growth.fill(kept);
                for (draw, gain) in draws.iter().zip(gains) {
                    z.fill(0.0);
                    draw(at * PANEL_ROWS, z);
                    growth.iter_mut().zip(&*z).for_each(|(growth, z)| *growth += gain * (z * z));
                }
                for (scale, growth) in scale.iter_mut().zip(growth) {
                    *scale = (*scale / growth.sqrt()).clamp(f32::MIN_POSITIVE, longest);
                }
            });
        }
    }
}

/// The loss with the slope along each direction, and the curvatures `c_i`, in one evaluation.
fn measure(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    d: &[Arc<DirectionSet>],
    epsilon: Positive,
) -> Result<(Estimate, Vec<f64>), OracleError> {
    let applied = epsilon.get() as f32;
    let epsilon = f64::from(applied);
    let pairs = d.iter().flat_map(|d| [Displacement::along(d, applied), Displacement::along(d, -applied)]);
    let probes: Vec<_> = std::iter::once(Displacement::default()).chain(pairs).collect();
    let losses = spsa::totals(oracle, batch, &probes)?;
    let (loss, sides) = (losses[0], losses[1..].chunks_exact(2));
    let curvature = |pair: &[f64]| ((pair[0] - loss) + (pair[1] - loss)).abs() / (2.0 * epsilon * epsilon);
    let curvatures = sides.clone().map(curvature).collect();
    let projected_grads = sides.map(|pair| (pair[0] - pair[1]) / (2.0 * epsilon)).collect();
    Ok((Estimate { loss, projected_grads, evaluations: losses.len() }, curvatures))
}

#[cfg(test)]
mod tests;
