//! Gaussian directions of a parameter that are short along one axis, and how their density depends on it.
//!
//! ```text
//! A = 1 aᵀ [m, n],  Â = A / ‖A‖,  r = √ρ / √(ρ + ‖A‖²)      Â = 0 where a = 0
//! x = u − (1 + r) τ Â,  τ = ⟨Â, u⟩,  u ~ N(0, I)            Cov x = (I + A Aᵀ / ρ)⁻¹ = I − (1 − r²) Â Âᵀ
//! √ρ ∇_a log p(x) = √(1 − r²) 1ᵀ(τ u − ((1 + r) τ² − r) Â)  its mean is 0
//! ```
//!
//! *What must stay true.* Of `u` all that counts is the sum of its rows, which is made in a fixed order: the same bits on
//! every instruction set and for every number of threads.

use std::sync::Arc;

use rayon::prelude::*;

use crate::{
    direction::{Direction, DirectionSet, Displacement, Moves, Param, ParamId},
    noise::PANEL_ROWS,
    optim::{Space, parts::subspace::Factor},
};

/// The axis of a parameter.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// `a`.
    row: Arc<[f32]>,
    /// A row of `Â`: what directions are made of, hence rounded before anything else is made of it.
    unit: Factor,
    /// `m`.
    rows: usize,
    /// `r`: how much is left of a direction's length along the axis.
    kept: f64,
}

impl Axis {
    /// The axis `a` of a parameter of so many rows.
    pub(super) fn new(a: Arc<[f32]>, rows: usize, damping: f64) -> Self {
        let square = rows as f64 * a.iter().fold(0.0, |sum, &a| sum + f64::from(a) * f64::from(a));
        let length = square.sqrt();
        let unit = |&a: &f32| if length == 0.0 { 0.0 } else { (f64::from(a) / length) as f32 };
        let unit = Factor::new(a.iter().map(unit).collect::<Vec<_>>(), 1);
        Axis { row: a, unit, rows, kept: (damping / (damping + square)).sqrt() }
    }

    /// `a`.
    pub(super) fn row(&self) -> &[f32] {
        &self.row
    }

    /// `Â`.
    pub(super) fn direction(&self) -> Direction {
        Factor::new(vec![1.0; self.rows], 1).times(&self.unit)
    }

    /// `τ`, of the sum of the rows of `u`.
    pub(super) fn along(&self, sum: &[f64]) -> f64 {
        self.unit.values().iter().zip(sum).fold(0.0, |product, (&unit, sum)| product + f64::from(unit) * sum)
    }

    /// The coefficient of `Â` in `x`: `−(1 + r) τ`.
    pub(super) fn coefficient(&self, sum: &[f64]) -> f64 {
        -(1.0 + self.kept) * self.along(sum)
    }

    /// `√ρ ∇_a log p(x)`.
    pub(super) fn score<'s>(&'s self, sum: &'s [f64]) -> impl Iterator<Item = f64> + 's {
        let (kept, along) = (self.kept, self.along(sum));
        let excess = self.rows as f64 * ((1.0 + kept) * along * along - kept);
        let scale = ((1.0 - kept) * (1.0 + kept)).sqrt();
        sum.iter().zip(self.unit.values()).map(move |(sum, &unit)| scale * (along * sum - excess * f64::from(unit)))
    }
}

/// Rows whose sum one thread makes.
const BLOCK: usize = 4 * PANEL_ROWS;

/// The sum of the rows of a parameter's direction: a chain over each block of rows, and one over the blocks.
pub(super) fn sum_of_rows(space: &dyn Space, (id, param): (ParamId, &Param), u: &Arc<DirectionSet>) -> Vec<f64> {
    let (rows, cols) = (param.rows(), param.cols());
    let u = Displacement::along(u, 1.0);
    let moves = Moves::of(std::slice::from_ref(&u), id, param);
    let draw = moves.update(space.context());
    let sum = |first: usize| {
        let mut values = vec![0.0; BLOCK.min(rows - first) * cols];
        draw(first, &mut values);
        let mut sum = vec![0.0; cols];
        values.chunks_exact(cols).for_each(|row| add(&mut sum, row.iter().copied().map(f64::from)));
        sum
    };
    let firsts: Vec<usize> = (0..rows).step_by(BLOCK).collect();
    let blocks: Vec<Vec<f64>> = firsts.into_par_iter().map(sum).collect();
    let mut sum = vec![0.0; cols];
    blocks.into_iter().for_each(|block| add(&mut sum, block));
    sum
}

fn add(sum: &mut [f64], values: impl IntoIterator<Item = f64>) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}
