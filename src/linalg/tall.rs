//! A tall matrix in f64, cut into row blocks that fit a second-level cache.
//!
//! The cut depends on the shape only, so block results combined in block order are the same for every
//! number of threads.

use rayon::prelude::*;

use crate::tensor::{MatMut, MatRef};

/// f64 values of a block: 256 KiB, so that a block and its image share a second-level cache of 1 MiB
/// (half that on the smallest server cores, where one of the two streams).
const BLOCK: usize = 32 * 1024;

/// Rows of a block of a matrix with `cols` columns: at least four per column, so that stacking the
/// triangles of the blocks shrinks the matrix by four or more.
pub(super) fn block_rows(cols: usize) -> usize {
    (BLOCK / cols.max(1)).max(4 * cols)
}

/// Consecutive rows of a tall matrix, column-major: a column is contiguous.
#[derive(Clone, Debug)]
pub(super) struct Block {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Block {
    pub(super) fn zeros(rows: usize, cols: usize) -> Self {
        Block { rows, cols, data: vec![0.0; rows * cols] }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn column(&self, c: usize) -> &[f64] {
        &self.data[c * self.rows..][..self.rows]
    }

    pub(super) fn column_mut(&mut self, c: usize) -> &mut [f64] {
        &mut self.data[c * self.rows..][..self.rows]
    }

    /// Columns `..c` and `c..`, each a sequence of columns.
    pub(super) fn split_columns_mut(&mut self, c: usize) -> (&mut [f64], &mut [f64]) {
        self.data.split_at_mut(c * self.rows)
    }
}

/// The blocks of `a`, or of its transpose if `a` is wider than tall: rows ≥ columns either way.
pub(super) fn load(a: MatRef<'_>) -> Vec<Block> {
    let transposed = a.rows() < a.cols();
    let (rows, cols) = if transposed { (a.cols(), a.rows()) } else { (a.rows(), a.cols()) };
    // The remainder joins the last block, which thus is never wider than tall.
    let count = (rows / block_rows(cols)).max(1);
    let load_block = |b: usize| {
        let first = b * block_rows(cols);
        let end = if b + 1 == count { rows } else { first + block_rows(cols) };
        let mut block = Block::zeros(end - first, cols);
        if transposed {
            for c in 0..cols {
                block.column_mut(c).iter_mut().zip(&a.row(c)[first..end]).for_each(|(x, &y)| *x = f64::from(y));
            }
        } else {
            // Eight rows at a time: each column receives a whole cache line.
            for r in (first..end).step_by(8) {
                let stop = (r + 8).min(end);
                for c in 0..cols {
                    let line = &mut block.column_mut(c)[r - first..stop - first];
                    line.iter_mut().zip(r..stop).for_each(|(x, r)| *x = f64::from(a.row(r)[c]));
                }
            }
        }
        block
    };
    (0..count).into_par_iter().map(load_block).collect()
}

/// Rounds the blocks to f32 into `out`, which has the shape of the matrix they were loaded from.
pub(super) fn store(blocks: &[Block], mut out: MatMut<'_>) {
    let transposed = out.rows() < out.cols();
    let mut first = 0;
    for block in blocks {
        if transposed {
            for c in 0..block.cols {
                let row = &mut out.row_mut(c)[first..first + block.rows];
                row.iter_mut().zip(block.column(c)).for_each(|(x, &y)| *x = y as f32);
            }
        } else {
            for r in (0..block.rows).step_by(8) {
                let stop = (r + 8).min(block.rows);
                for c in 0..block.cols {
                    for (r, &x) in (r..stop).zip(&block.column(c)[r..stop]) {
                        out.row_mut(first + r)[c] = x as f32;
                    }
                }
            }
        }
        first += block.rows;
    }
}

/// Lanes of [`dot`]: four SSE2 or NEON registers, enough to hide the latency of an addition.
const LANES: usize = 8;

/// Σ aᵢ·bᵢ: term `i` in lane `i % 8`, lanes folded by halves.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "a dot product of {} and {} values", a.len(), b.len());
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += a * b;
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// `y += s·x`.
pub(super) fn add_scaled(y: &mut [f64], s: f64, x: &[f64]) {
    assert_eq!(y.len(), x.len(), "{} values plus a multiple of {}", y.len(), x.len());
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += s * x);
}
