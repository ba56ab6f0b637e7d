//! `TeZO`-Adam: `TeZO` with Adam's two means, of which a matrix remembers 2 r numbers.
//!
//! ```text
//! U, V, τ_i, κ_i                                       as TeZO
//! g   = Σ κ_i τ_i / q                    [r]           vectors: g = Σ κ_i z_i / q
//! μ   ← β₁ μ + (1 − β₁) g
//! ν   ← β₂ ν + (1 − β₂) g²
//! M   = U diag(μ) Vᵀ,  S = (U ∘ U) diag(ν) (V ∘ V)ᵀ    vectors: M = μ, S = ν
//! W   ← W − η (M / √(S + δ) + λ W)                     elementwise
//! ```
//!
//! Sun et al., "`TeZO`: Empowering the Low-Rankness on the Temporal Dimension in the Zeroth-Order Optimization for
//! Fine-tuning LLMs", 2025, arXiv:2501.19057.
//!
//! | paper | here |
//! | --- | --- |
//! | β₁, β₂ | `momentum`, `beta2` |
//! | δ | `adam_epsilon` |
//! | all others | as [`super::tezo`] |
//!
//! `S` stands for the running mean of squared estimates: of `(κ Z)²` it keeps the products of a rank-one matrix with
//! itself and leaves out those of two, whose mean is zero. It is exact for r = 1. Neither `M` nor `S` is ever formed: a
//! row of the update is made where it is added.
//!
//! **Deviations.** Those of [`super::tezo`]. That δ stands within the root and that there is no correction of the bias
//! is our reading; with the defaults of β the first step has the size of any other, (1 − β₁) / √(1 − β₂) = 1. How the
//! paper treats vectors is not confirmed; here they have means of their own. With `refresh_interval` new factors begin
//! both means anew.
//!
//! Over `MeZO`: `(m + n) r` values a matrix for the factors, `2 n r` within a step and 2 r for the means, two a value
//! of a vector; 2 forwards a query, and `4 m n r` operations for the update of a matrix.

use std::{ops::Range, sync::Arc};

use super::{
    Clock, Decay, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space,
    StateVisitor, StepReport,
    options::options,
    parts::{
        coordinates::{self, Running},
        spsa::{self, Aggregate, Estimator},
        subspace::{Factor, directions},
        update::descend,
    },
    schedule::Schedule,
    tezo::{self, Canonical, PAPER, Span, epoch},
};
use crate::{
    direction::{Direction, DirectionSet, ParamId, RowFn},
    kernels::{Context, elementwise},
};

options! {
    /// The options of `TeZO`-Adam.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-5), "weights";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// How many rank-one matrices span the directions of a matrix.
        rank: Rank = Rank::new(32), "columns";
        /// How many steps these matrices live; 0: for the whole run.
        refresh_interval: u64 = 0, "steps";
        /// How much of the running mean of estimates a step keeps.
        momentum: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares a step keeps.
        beta2: Decay = Decay::new(0.99), "";
        /// What is added to that mean, within the root.
        adam_epsilon: Positive = Positive::new(1e-8), "slopes²";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "tezo_adam",
    about: "TeZO with Adam's two means, of which a matrix remembers a few numbers",
    paper: PAPER,
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        let (span, mean, square) = (Span::default(), Running::default(), Running::default());
        Ok(Box::new(TezoAdam { options, schedule, span, mean, square, epoch: 0 }))
    },
};

struct TezoAdam {
    options: Options,
    schedule: Schedule,
    span: Span,
    /// `μ`.
    mean: Running,
    /// `ν`.
    square: Running,
    /// That of the factors which both stand between.
    epoch: u64,
}

impl Optimizer for TezoAdam {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { epsilon, rank, momentum, beta2, queries, estimator, weight_decay, .. } = self.options;
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
            self.square.clear();
            self.epoch = epoch;
        }
        self.mean.absorb(oracle.space(), &gradient, momentum.get());
        self.square.absorb_squares(oracle.space(), &gradient, beta2.get());
        let means = (&self.mean, &self.square);
        let quotient = quotient(oracle.space(), factors, means, self.options.adam_epsilon);
        let update = descend(oracle, &[quotient.into()], &[1.0], (lr, weight_decay));
        report.commit(oracle, &update)
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("epoch", &mut self.epoch);
        let rank = self.options.rank;
        self.mean.visit(visitor, "mean", &|param| tezo::coordinates(param, rank));
        self.square.visit(visitor, "square", &|param| tezo::coordinates(param, rank));
    }
}

/// `M / √(S + δ)`.
fn quotient(
    space: &dyn Space,
    factors: Canonical<'_>,
    (mean, square): (&Running, &Running),
    adam_epsilon: Positive,
) -> DirectionSet {
    let epsilon = adam_epsilon.get() as f32;
    let along = |&id: &ParamId| {
        let param = &space.params()[id];
        let (mean, square) = (mean.get(param), square.get(param));
        let direction = match (factors.left.get(&id), factors.right.get(&id)) {
            (Some(left), Some(right)) => {
                let cx = space.context().clone();
                Direction::Rows(Arc::new(Quotient::new(cx, (left, right), (mean, square), epsilon)))
            }
            _ => {
                let values = mean.iter().zip(square).map(|(mean, square)| mean / (square + epsilon).sqrt());
                Direction::Explicit(values.collect())
            }
        };
        (id, direction)
    };
    DirectionSet::new(space.trainable().iter().map(along))
}

/// `M / √(S + δ)` of a matrix, row by row.
#[derive(Debug)]
struct Quotient {
    cx: Context,
    /// `U diag(μ)` and `(U ∘ U) diag(ν)`.
    mean: Factor,
    square: Factor,
    /// `Vᵀ` and `(V ∘ V)ᵀ`, a row for each of the r columns.
    columns: Factor,
    squared_columns: Factor,
    epsilon: f32,
}

impl Quotient {
    fn new(cx: Context, (left, right): (&Factor, &Factor), (mean, square): (&[f32], &[f32]), epsilon: f32) -> Self {
        let squared = |factor: &Factor| {
            let values: Vec<f32> = factor.values().iter().map(|x| x * x).collect();
            Factor::new(values, factor.rank())
        };
        Quotient {
            cx,
            mean: left.scaled_columns(mean),
            square: squared(left).scaled_columns(square),
            columns: right.transposed(),
            squared_columns: squared(right).transposed(),
            epsilon,
        }
    }
}

impl RowFn for Quotient {
    fn row(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let combine = |factor: &Factor, columns: &Factor, out: &mut [f32]| {
            for (s, &c) in factor.view().row(row).iter().enumerate() {
                elementwise::axpy(&self.cx, c, &columns.view().row(s)[cols.clone()], out);
            }
        };
        let mut square = vec![0.0; out.len()];
        out.fill(0.0);
        combine(&self.mean, &self.columns, out);
        combine(&self.square, &self.squared_columns, &mut square);
        out.iter_mut().zip(square).for_each(|(out, square)| *out /= (square + self.epsilon).sqrt());
    }
}

#[cfg(test)]
mod tests;
