//! Signs of rows and columns: how one direction becomes as many as there are examples, drawn once.
//!
//! `s[row] · z[row, col] · t[col]` with signs of its own has the law of `z` wherever that is symmetric, and next to nothing
//! in common with the same `z` under other signs. A product never forms it: `x (s z t)ᵀ = ((x t) zᵀ) s`, so that rows of
//! `x` under any signs meet one `z` in one product (Wen et al., "Flipout", 2018, arXiv:1803.04386).
//!
//! *What must stay true.* A sign is exact: it commutes with every rounding, so that where it is applied changes no bit.

use std::ops::Range;

use crate::{
    noise::{Law, NoiseKey, PANEL_ROWS, TensorNoise},
    simd::{Isa, Simd},
};

/// The signs of a parameter's rows and of its columns; an axis without noise has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flips {
    rows: Option<TensorNoise>,
    cols: Option<TensorNoise>,
}

impl Flips {
    /// Those that the keys name in the tensor `tensor`.
    pub(super) fn new(rows: Option<NoiseKey>, cols: Option<NoiseKey>, tensor: u64) -> Self {
        let [rows, cols] = [rows, cols].map(|key| key.map(|key| key.tensor(tensor)));
        Flips { rows, cols }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_none() && self.cols.is_none()
    }

    /// The sign of one element: the definition.
    pub(super) fn at(&self, row: usize, col: usize) -> f32 {
        let sign = |noise: Option<TensorNoise>, at| noise.map_or(1.0, |noise| noise.at(Law::Rademacher, 0, at));
        sign(self.rows, row) * sign(self.cols, col)
    }

    /// The signs of some rows.
    pub(super) fn of_rows(&self, isa: Isa, rows: Range<usize>) -> Option<Vec<f32>> {
        signs(self.rows, isa, rows)
    }

    /// The signs of some columns.
    pub(super) fn of_cols(&self, isa: Isa, cols: Range<usize>) -> Option<Vec<f32>> {
        signs(self.cols, isa, cols)
    }

    /// Flips rows `rows` of a direction, whole ones that lie one after the other.
    pub(super) fn apply(&self, isa: Isa, rows: Range<usize>, z: &mut [f32]) {
        if self.is_empty() {
            return;
        }
        let cols = z.len() / rows.len();
        let (of_rows, of_cols) = (self.of_rows(isa, rows), self.of_cols(isa, 0..cols));
        for (row, z) in z.chunks_exact_mut(cols).enumerate() {
            flip(of_rows.as_ref().map_or(1.0, |signs| signs[row]), of_cols.as_deref(), z);
        }
    }

    /// Flips at most sixteen rows in the order of a panel, of columns that share a stream of noise.
    #[inline(always)]
    pub(super) fn apply_panel<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, z: &mut [f32]) {
        if self.is_empty() {
            return;
        }
        let (mut of_rows, mut of_cols) = ([1.0; PANEL_ROWS], [1.0; crate::kernels::matmul::DEPTH_BLOCK]);
        if let Some(noise) = self.rows {
            let count = rows.len();
            noise.fill_row(simd, Law::Rademacher, 0, rows, &mut of_rows[..count]);
        }
        if let Some(noise) = self.cols {
            let count = depth.len();
            noise.fill_row(simd, Law::Rademacher, 0, depth, &mut of_cols[..count]);
        }
        for (z, of_col) in z.chunks_exact_mut(PANEL_ROWS).zip(of_cols) {
            for (z, of_rows) in z.chunks_exact_mut(S::LANES).zip(of_rows.chunks_exact(S::LANES)) {
                let signs = simd.mul(simd.load(of_rows), simd.splat(of_col));
                simd.store(simd.mul(simd.load(z), signs), z);
            }
        }
    }
}

/// `(values[i] · signs[i]) · scale`, written over the values: one rounding, none where the scale is a sign.
pub(super) fn flip(scale: f32, signs: Option<&[f32]>, values: &mut [f32]) {
    match signs {
        Some(signs) => values.iter_mut().zip(signs).for_each(|(value, s)| *value = *value * s * scale),
        None => values.iter_mut().for_each(|value| *value *= scale),
    }
}

fn signs(noise: Option<TensorNoise>, isa: Isa, range: Range<usize>) -> Option<Vec<f32>> {
    noise.map(|noise| {
        let mut signs = vec![0.0; range.len()];
        noise.fill(isa, Law::Rademacher, 0..1, range, &mut signs);
        signs
    })
}
