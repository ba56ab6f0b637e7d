//! `SubZero`: gradient descent within orthonormal row and column spaces that stay for many steps.
//!
//! ```text
//! U, V ~ Haar, UᵀU = VᵀV = I    [m, r], [n, r]         every T₀ steps, from the key (seed, step / T₀)
//! Z_i  ~ N(0, I)                [r, r]                 i = 1..q, from the key (seed, step, i); z_i for vectors
//! c_i  = (L(W + ε s U Z_i Vᵀ) − L(W − ε s U Z_i Vᵀ)) / 2ε        s = √(m n) / r
//! W    ← W − η (s U (Σ c_i Z_i / q) Vᵀ + λ W)          vectors: w ← w − η Σ c_i z_i / q
//! ```
//!
//! Yu et al., "Zeroth-Order Fine-Tuning of LLMs in Random Subspaces", ICCV 2025, arXiv:2410.08989.
//!
//! | paper | released code | here |
//! | --- | --- | --- |
//! | η, learning rate | `learning_rate` | `lr` |
//! | ε, perturbation scale | `zo_eps` | `epsilon` |
//! | rank r | `gauss_rank` | `rank`, at most the shorter side of a matrix |
//! | subspace change frequency T₀ | `update_interval` | `refresh_interval` |
//! | ρ | `projected_grad` | [`StepReport::projected_grads`] |
//! | reshaping | in its modes lora, prefix and prompt | `reshape` |
//!
//! With s a direction has the length of `MeZO`'s, √(m n) on average, and the estimate is unbiased over fresh spaces:
//! rates and scales of `MeZO` carry over.
//!
//! **Deviations.** The paper's formulas are often printed without s (`scale = "1"`), the released code has it. The code
//! knows one query and casts `U` and `V` to the parameters' type; here they are f32, and a rank beyond a matrix's
//! shorter side is lowered to it, where the code's factors no longer fit each other. `reshape = "square"` is a choice
//! of the user's, not of a mode: it suits adapters. Decoupled decay, which spares vectors by their shape, is ours, and so
//! are `Z` of each example's own ([`super::parts::per_example`]).
//!
//! Over `MeZO`: `(m + n) r` values a matrix for `U` and `V` while they live, `m r` a query within a step; 2 forwards a
//! query.

use std::{num::NonZeroU32, ops::Range, sync::Arc};

use super::{
    Clock, Entry, NonNegative, OptimError, Optimizer, Oracle, Pool, Positive, Queries, Rank, Space, StepReport,
    options::{choice, options},
    parts::{
        per_example::{Directions, merged},
        spsa::{self, Aggregate, Estimator},
        subspace::{self, Factor, Lazy, Probe, directions, epoch, orthonormal},
        update::descend,
    },
    schedule::Schedule,
};
use crate::{
    direction::{Direction, Param, RowFn},
    noise::{NoiseKey, Role},
};

choice! {
    /// What directions of a matrix are multiplied by.
    pub enum Scale {
        /// The length of a direction of `MeZO`.
        Aligned = "sqrt(mn)/rank",
        /// As the paper's formulas are printed.
        Plain = "1",
    }
    expected "\"sqrt(mn)/rank\" or \"1\""
}

choice! {
    /// As what a matrix is seen.
    pub enum Reshape {
        /// As it is.
        Natural = "natural",
        /// As nearly square as its number of values allows.
        Square = "square",
    }
    expected "\"natural\" or \"square\""
}

options! {
    /// The options of `SubZero`.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-6), "";
        /// Scale of the perturbation that slopes are measured with.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Dimension of the row and column spaces, at most the shorter side of a matrix.
        rank: Rank = Rank::new(24), "columns";
        /// How many steps the spaces live.
        refresh_interval: NonZeroU32 = NonZeroU32::new(1000).expect("not zero"), "steps";
        /// Directions a step.
        queries: Queries = Queries::new(1), "directions";
        /// How slopes are measured.
        estimator: Estimator = Estimator::TwoSided, "";
        /// Whether all examples of a batch share the directions of a step, or each has its own.
        directions: Directions = Directions::Shared, "";
        /// What directions of a matrix are multiplied by: sqrt(mn)/rank gives them the length of those of mezo.
        scale: Scale = Scale::Aligned, "";
        /// As what a matrix is seen: as it is, or, for adapters, as nearly square as its number of values allows.
        reshape: Reshape = Reshape::Natural, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "subzero",
    about: "gradient descent within orthonormal row and column spaces that stay for many steps",
    paper: "Yu et al., Zeroth-Order Fine-Tuning of LLMs in Random Subspaces, ICCV 2025, arXiv:2410.08989",
    groups: &[Options::SPECS, Schedule::SPECS],
    new: |reader| {
        let (options, schedule) = (Options::read(reader)?, Schedule::read(reader)?);
        Ok(Box::new(SubZero { options, schedule, left: Lazy::default(), right: Lazy::default() }))
    },
};

struct SubZero {
    options: Options,
    schedule: Schedule,
    left: Lazy,
    right: Lazy,
}

impl Optimizer for SubZero {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { lr, epsilon, queries, estimator, weight_decay, .. } = self.options;
        let lr = self.schedule.lr(lr, clock);

        let batch = oracle.draw(Pool::Train, None)?;
        let owners = self.options.directions.owners(oracle, batch)?;
        let count = owners.directions(queries.get());
        let z = directions(&self.probes(oracle.space(), clock, count));
        let estimate = spsa::estimate_of(oracle, batch, &z, owners, (estimator, epsilon))?;
        let weights = spsa::aggregate(oracle, &z, &estimate.projected_grads, Aggregate::Mean);
        let (z, weights) = merged(oracle, &z, &weights, owners);
        let update = descend(oracle, &z, &weights, (lr, weight_decay));
        StepReport::of(estimate, lr).commit(oracle, &update)
    }
}

impl SubZero {
    /// The directions `s U Z Vᵀ` of a step, whose coordinates are `Z`.
    fn probes(&mut self, space: &dyn Space, clock: Clock, count: u32) -> Vec<Probe> {
        let (scale, reshape) = (self.options.scale, self.options.reshape);
        let rank = |param: &Param| {
            let (rows, cols) = reshape.shape(param);
            self.options.rank.get().min(rows).min(cols)
        };
        let epoch = epoch(clock, self.options.refresh_interval);
        let [left, right] = [Role::U, Role::V].map(|role| NoiseKey::new(clock.seed, epoch, role, 0));
        let u = self.left.at(left, |key| orthonormal(space, key, |param| (reshape.shape(param).0, rank(param))));
        let v = self.right.at(right, |key| orthonormal(space, key, |param| (reshape.shape(param).1, rank(param))));
        let core = |param: &Param| (rank(param), rank(param));
        subspace::probes(space, clock, count, (Role::Tau, core), |id, z| {
            let param = &space.params()[id];
            let scaled = match scale {
                Scale::Aligned => (param.elements() as f64).sqrt() / rank(param) as f64,
                Scale::Plain => 1.0,
            };
            let left = u[&id].product(space.context(), z).scaled_columns(&vec![scaled as f32; rank(param)]);
            match reshape {
                Reshape::Natural => left.times(&v[&id]),
                Reshape::Square => {
                    Direction::Rows(Arc::new(Reshaped { left, right: v[&id].clone(), cols: param.cols() }))
                }
            }
        })
    }
}

impl Reshape {
    /// The rows and columns that a matrix is seen with.
    fn shape(self, param: &Param) -> (usize, usize) {
        match self {
            Reshape::Natural => (param.rows(), param.cols()),
            Reshape::Square => most_square(param.elements()),
        }
    }
}

/// The divisor of `count` nearest to its root from below, and what it is multiplied by.
fn most_square(count: usize) -> (usize, usize) {
    let rows = (1..=count.isqrt()).rev().find(|rows| count.is_multiple_of(*rows)).expect("1 divides every count");
    (rows, count / rows)
}

/// `left · rightᵀ`, row after row, as the rows of a matrix of other sides: its values are made where they are needed.
#[derive(Debug)]
struct Reshaped {
    left: Factor,
    right: Factor,
    /// Of the matrix.
    cols: usize,
}

impl RowFn for Reshaped {
    fn row(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        for (col, out) in cols.zip(out) {
            let at = row * self.cols + col;
            let (left, right) =
                (self.left.view().row(at / self.right.rows()), self.right.view().row(at % self.right.rows()));
            *out = left.iter().zip(right).fold(0.0, |sum, (left, right)| sum + left * right);
        }
    }
}

#[cfg(test)]
mod tests;
