//! MeZO-GV and MeZO-Greedy: the slope along a direction that is made of candidates, by the losses they lead to.
//!
//! ```text
//! z_i ~ N(0, I)                                        i = 1..P, from the key (seed, step, i)
//! f_i = L(θ + ε z_i)                                   on one batch
//! v   = mean of the ⌊P/2⌋ z_i with the lowest f_i − mean of the others        greedy: the z_i with the lowest f_i
//! p   = (L(θ + ε v) − L(θ − ε v)) / 2ε                 on the same batch
//! θ   ← θ − η (p v + λ θ)
//! ```
//!
//! "Prior-Informed Zeroth-Order Optimization with Adaptive Direction Alignment for Memory-Efficient LLM Fine-Tuning",
//! 2026, arXiv:2601.04710.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ε, perturbation scale | `epsilon` |
//! | P, candidates | `candidates` |
//! | v, guiding vector | `guide` |
//! | p, `projected_grad` | [`StepReport::projected_grads`] |
//!
//! On a linear loss `E p v = α g`. With σ² the variance of a value of v, a step at the rate that its noise allows gains α / σ²
//! times what one of `MeZO` does: of four candidates in halves `1 + 2√3/π`, 2.10; of the best of three `1 + √3/2π`, 1.28; of
//! two nothing, α being 2 = σ² in halves, where `p v` is the same for v and −v, and 1 for the best.
//!
//! **Deviations.** v is not stored: it is a sum of keyed directions in the probes as in the update. The released code's
//! default file, which keeps the best candidate of a step for the next one and evaluates it again there, is `keep_best`; it
//! seeds its generator once for a candidate, but once a tensor for v, so that v is made of candidates that were not
//! evaluated, and tensors of one shape get the same noise: not here. The estimators `one-sided` and `slope` are ours: they
//! take the slope along v, which is a sum of candidates, from what the candidates have told, and save the last two
//! forwards. Decoupled decay spares vectors by their shape.
//!
//! Over `MeZO`: no memory but the candidates' activations; P + 2 forwards, or P + 1.

use std::sync::Arc;

use super::{
    BatchId, Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, OracleError, Pool, Positive, Queries,
    StateVisitor, StepReport,
    options::{choice, options},
    parts::{
        spsa::{self, Estimate, Estimator},
        update::{descend, sum},
    },
    schedule::Schedule,
};
use crate::{
    direction::{DirectionSet, Displacement},
    noise::Law,
};

choice! {
    /// What candidates make.
    pub enum Guide {
        /// From the mean of the upper half to that of the lower one.
        Halves = "gv",
        /// The best of them.
        Best = "greedy",
    }
    expected "\"gv\" or \"greedy\""
}

options! {
    /// The options of MeZO-GV.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that losses and slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Random directions a step, of which one direction is made.
        candidates: Queries = Queries::new(2), "directions";
        /// What they make: from the mean of the upper half to that of the lower one, or the best.
        guide: Guide = Guide::Halves, "";
        /// Whether the best candidate of a step is one of the next.
        keep_best: bool = false, "";
        /// How the slope is measured: from both sides of θ, or from what candidates tell.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "mezo_gv",
    about: "the slope along a direction that is made of candidates, by the losses they lead to",
    paper: "Prior-Informed Zeroth-Order Optimization with Adaptive Direction Alignment, 2026, arXiv:2601.04710",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(MezoGv { options, schedule, best: None }))
    },
};

/// A candidate by name: the step that drew it, and its number there.
#[derive(Clone, Copy)]
struct Candidate {
    step: u64,
    probe: u32,
}

struct MezoGv {
    options: Options,
    schedule: Schedule,
    /// The best candidate of the last step, if it is kept.
    best: Option<Candidate>,
}

/// The direction of a step: candidates with their weights, and the slope along their sum.
struct Guided {
    best: usize,
    weights: Vec<f64>,
    estimate: Estimate,
}

impl Optimizer for MezoGv {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let lr = self.schedule.lr(self.options.lr, clock);
        let batch = oracle.draw(Pool::Train, None)?;
        let drawn = self.candidates(clock);
        let draw = |&Candidate { step, probe }: &Candidate| {
            spsa::direction(oracle.trainable(), Clock { step, ..clock }, Law::Gaussian, probe)
        };
        let z: Vec<_> = drawn.iter().map(draw).collect();
        let Guided { best, weights, estimate } = match self.options.estimator {
            Estimator::TwoSided => self.measure_sides(oracle, batch, &z)?,
            Estimator::OneSided | Estimator::Slope => self.reuse_candidates(oracle, batch, &z)?,
        };
        let slope = estimate.projected_grads[0];
        let gradient: Vec<f64> = weights.iter().map(|weight| slope * weight).collect();
        let update = descend(oracle, &z, &gradient, (lr, self.options.weight_decay));
        let report = StepReport::of(estimate, lr);
        if self.options.keep_best && report.allows(&update) {
            self.best = Some(drawn[best]);
        }
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        if self.options.keep_best {
            let mut kept = u64::from(self.best.is_some());
            let (mut step, mut probe) = self.best.map_or((0, 0), |best| (best.step, u64::from(best.probe)));
            visitor.count("kept", &mut kept);
            visitor.count("kept_step", &mut step);
            visitor.count("kept_probe", &mut probe);
            self.best = (kept > 0).then_some(Candidate { step, probe: probe as u32 });
        }
    }
}

impl MezoGv {
    /// The candidates of a step: new ones, at least one, then the kept one.
    fn candidates(&self, clock: Clock) -> Vec<Candidate> {
        let kept = u32::from(self.best.is_some());
        let new = (self.options.candidates.get() - kept).max(1);
        (0..new).map(|probe| Candidate { step: clock.step, probe }).chain(self.best).collect()
    }

    /// A loss at each candidate, then one on each side of θ along what they make.
    fn measure_sides(
        &self,
        oracle: &mut dyn Oracle,
        batch: BatchId,
        z: &[Arc<DirectionSet>],
    ) -> Result<Guided, OracleError> {
        let applied = self.options.epsilon.get() as f32;
        let epsilon = f64::from(applied);
        let probes: Vec<_> = z.iter().map(|z| Displacement::along(z, applied)).collect();
        let losses = spsa::totals(oracle, batch, &probes)?;
        let order = ascending(&losses);
        let weights = self.options.guide.weights(&order);
        let estimate = if losses.iter().all(|loss| loss.is_finite()) {
            let sides = [sum(z, &weights, epsilon), sum(z, &weights, -epsilon)];
            let sides = spsa::totals(oracle, batch, &sides)?;
            Estimate {
                loss: (sides[0] + sides[1]) / 2.0,
                projected_grads: vec![(sides[0] - sides[1]) / (2.0 * epsilon)],
                evaluations: z.len() + 2,
            }
        } else {
            // Which candidate is the better one is not known, so there is no direction.
            let loss = losses.iter().sum::<f64>() / z.len() as f64;
            Estimate { loss, projected_grads: vec![f64::NAN], evaluations: z.len() }
        };
        Ok(Guided { best: order[0], weights, estimate })
    }

    /// The slope along each candidate, of which the slope along what they make is a sum.
    fn reuse_candidates(
        &self,
        oracle: &mut dyn Oracle,
        batch: BatchId,
        z: &[Arc<DirectionSet>],
    ) -> Result<Guided, OracleError> {
        let mut estimate = spsa::estimate(oracle, batch, z, (self.options.estimator, self.options.epsilon))?;
        let order = ascending(&estimate.projected_grads);
        let weights = self.options.guide.weights(&order);
        let slope = weights.iter().zip(&estimate.projected_grads).map(|(weight, slope)| weight * slope).sum();
        estimate.projected_grads = vec![slope];
        Ok(Guided { best: order[0], weights, estimate })
    }
}

impl Guide {
    /// The weight of each candidate, which `order` numbers from the best to the worst, in the direction.
    fn weights(self, order: &[usize]) -> Vec<f64> {
        let (lower, upper) = match self {
            Guide::Halves => order.split_at(order.len() / 2),
            Guide::Best => (&order[..1], &[][..]),
        };
        let mut weights = vec![0.0; order.len()];
        for (half, sign) in [(lower, 1.0), (upper, -1.0)] {
            half.iter().for_each(|&at| weights[at] = sign / half.len() as f64);
        }
        weights
    }
}

/// The places of values in ascending order, of equal ones the first first.
fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

#[cfg(test)]
mod tests;
