//! `MeZO`: gradient descent on slopes along random directions that are regenerated instead of stored.
//!
//! ```text
//! z_i ~ N(0, I)                                        i = 1..q, from the key (seed, step, i)
//! p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε             on one batch
//! θ   ← θ − η (Σ p_i z_i / q + λ θ)
//! ```
//!
//! Malladi et al., "Fine-Tuning Language Models with Just Forward Passes", 2023, arXiv:2305.17333. The rules
//! `sign` and `conservative` and the exact slope (their Forward-Grad) are those of Zhang et al., "Revisiting
//! Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A Benchmark", ICML 2024, arXiv:2402.11592.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ε, perturbation scale | `epsilon` |
//! | n, of n-SPSA | `queries` |
//! | λ, weight decay | `weight_decay` |
//! | `projected_grad` | [`StepReport::projected_grads`] |
//!
//! **Deviations.** From the released code: weights are never moved by probes, so nothing is restored and nothing
//! drifts; the reported loss is the mean of both sides, not that at θ + εz; weight decay spares vectors by their
//! shape, not by names that contain `bias` or `norm`; noise is our own. `sign` takes the sign of each slope, as the
//! benchmark's code does, not of each coordinate of the estimate, as its paper writes. `conservative` compares θ, the
//! update and its opposite by three probes instead of three moves. `least-squares` and directions of examples
//! ([`super::parts::per_example`]) are ours. The benchmark's momentum and Adam step one tensor at a time on a gradient that
//! is stored; here the estimate is made row by row, and decay is decoupled from both.

use super::{
    BatchId, Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, OracleError, Pool, Positive, Queries,
    StateVisitor, StepReport,
    options::{choice, options},
    parts::{
        moments::{Betas, Mean, Moments},
        per_example::{Directions, flipped},
        spsa::{self, Aggregate, Estimator},
        update::{descend, sum},
    },
    schedule::{Growth, Schedule},
};
use crate::{direction::Displacement, noise::Law};

choice! {
    /// What is done with the slopes.
    pub enum Rule {
        /// A step down the gradient estimate.
        Sgd = "sgd",
        /// A step down a running mean of estimates: one value more for each weight.
        Momentum = "momentum",
        /// A step down their mean over the root of their mean square: two values more for each weight.
        Adam = "adam",
        /// A step of fixed scale: slopes are replaced by their signs.
        Sign = "sign",
        /// The best of θ, a step down the estimate and a step up.
        Conservative = "conservative",
    }
    expected "\"sgd\", \"momentum\", \"adam\", \"sign\" or \"conservative\""
}

options! {
    /// The options of `MeZO`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// Course of the number of queries: constant, or linear from 1.
        queries_schedule: Growth = Growth::Constant, "";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// How several slopes make a gradient.
        aggregate: Aggregate = Aggregate::Mean, "";
        /// What is done with the slopes.
        rule: Rule = Rule::Sgd, "";
        /// How much of the running mean of estimates a step keeps, by the rules momentum and adam.
        momentum: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares a step keeps, by the rule adam.
        beta2: Decay = Decay::new(0.999), "";
        /// What is added to the root of that mean, by the rule adam.
        adam_epsilon: Positive = Positive::new(1e-8), "slopes";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "mezo",
    about: "gradient descent on slopes along random directions",
    paper: "Malladi et al., Fine-Tuning Language Models with Just Forward Passes, 2023, arXiv:2305.17333",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        if (options.aggregate, options.directions) == (Aggregate::LeastSquares, Directions::PerExample) {
            return Err(
                reader.refusal("aggregate", "\"mean\" where directions are per-example: slopes are of many losses")
            );
        }
        Ok(Box::new(Mezo { options, schedule, mean: Mean::default(), moments: Moments::default() }))
    },
};

struct Mezo {
    options: Options,
    schedule: Schedule,
    mean: Mean,
    moments: Moments,
}

impl Optimizer for Mezo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, queries, estimator, directions, aggregate, rule, .. } = self.options;
        let lr = self.schedule.lr(self.options.lr, clock);
        let queries = self.options.queries_schedule.queries(queries, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = directions.owners(oracle, batch)?;
        let z = flipped(spsa::directions(oracle, clock, Law::Gaussian, queries), clock, owners);
        let estimate = spsa::estimate_of(oracle, batch, &z, owners, (estimator, epsilon))?;
        let slopes: Vec<f64> = match rule {
            Rule::Sign => estimate.projected_grads.iter().map(|&slope| sign(slope)).collect(),
            _ => estimate.projected_grads.clone(),
        };
        let weights = spsa::aggregate(oracle, &z, &slopes, aggregate);

        let mut report = StepReport::of(estimate, lr);
        let gradient = sum(&z, &weights, 1.0);
        if !report.allows(&gradient) {
            // Nothing moves, and nothing is remembered.
            return report.commit(oracle, &gradient);
        }
        let step = (lr, self.options.weight_decay);
        let update = match rule {
            Rule::Sgd | Rule::Sign => descend(oracle, &z, &weights, step),
            Rule::Momentum => {
                let mean = self.mean.absorb(oracle, &gradient, self.options.momentum.get());
                descend(oracle, &[mean], &[1.0], step)
            }
            Rule::Adam => {
                let quotient = self.moments.absorb(oracle, &gradient, self.options.betas());
                descend(oracle, &[quotient], &[1.0], step)
            }
            Rule::Conservative => {
                let [down, up] = [lr, -lr].map(|lr| descend(oracle, &z, &weights, (lr, step.1)));
                let (loss, best) = best(oracle, batch, &[Displacement::default(), down, up])?;
                (report.loss, report.evaluations) = (loss, report.evaluations + 3);
                best
            }
        };
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        match self.options.rule {
            Rule::Momentum => self.mean.visit(visitor),
            Rule::Adam => self.moments.visit(visitor),
            Rule::Sgd | Rule::Sign | Rule::Conservative => {}
        }
    }
}

impl Options {
    fn betas(&self) -> Betas {
        Betas { mean: self.momentum.get(), square: self.beta2.get(), epsilon: self.adam_epsilon.get() }
    }
}

/// The sign of a slope, 0 for none.
fn sign(slope: f64) -> f64 {
    if slope == 0.0 { 0.0 } else { slope.signum() }
}

/// The loss of the first candidate, which is to stay, and the candidate of the smallest loss: one whose loss is not
/// finite is never preferred, nor is an equal one to an earlier.
fn best(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    candidates: &[Displacement],
) -> Result<(f64, Displacement), OracleError> {
    let losses = spsa::totals(oracle, batch, candidates)?;
    let better = |best: usize, at: usize| if losses[at].is_finite() && losses[at] < losses[best] { at } else { best };
    let best = (1..candidates.len()).fold(0, better);
    Ok((losses[0], candidates[best].clone()))
}

#[cfg(test)]
mod tests;
