//! How row-wise kernels share work: blocks of whole rows, ranges of columns.
//!
//! *What it is not.* A source of results: every block is computed as if it were alone, so its size is free.

use std::ops::Range;

use rayon::prelude::*;

use super::lanewise::CHUNK;
use crate::tensor::MatMut;

/// Calls `work(first_row, block)` for consecutive blocks of the rows of `y`, on the threads of the current pool
/// if there are several blocks. A row costs about `row_cost` elements; a block about [`CHUNK`], at least one row.
pub(super) fn for_each_block(y: MatMut<'_>, row_cost: usize, work: impl Fn(usize, MatMut<'_>) + Sync) {
    let (rows, cols, stride) = (y.rows(), y.cols(), y.stride());
    if rows == 0 || cols == 0 {
        return;
    }
    let block = (CHUNK / row_cost.max(1)).max(1);
    if rows <= block {
        return work(0, y);
    }
    let used = (rows - 1) * stride + cols;
    y.into_data()[..used].par_chunks_mut(block * stride).enumerate().for_each(|(i, data)| {
        let first = i * block;
        work(first, MatMut::with_stride(data, block.min(rows - first), cols, stride));
    });
}

/// Columns of one task of a token reduction: four cache lines of every row, and nine strips in a width of 576, so that
/// threads get even shares. (Not tuned: `add_bias_backward` reaches a third of `add_assign`'s bytes per second in
/// `benches/kernels.rs`, the rest being bookkeeping per row and strip.)
const STRIP: usize = 64;

/// Calls `work(columns, sums[columns])` for disjoint strips of the columns of a `[rows, sums.len()]` reduction, on
/// the threads of the current pool if the matrix is larger than [`CHUNK`] values.
pub(super) fn for_each_strip(rows: usize, sums: &mut [f32], work: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let strip = |i: usize, sums: &mut [f32]| work(i * STRIP..i * STRIP + sums.len(), sums);
    if rows * sums.len() <= CHUNK {
        sums.chunks_mut(STRIP).enumerate().for_each(|(i, sums)| strip(i, sums));
    } else {
        sums.par_chunks_mut(STRIP).enumerate().for_each(|(i, sums)| strip(i, sums));
    }
}
