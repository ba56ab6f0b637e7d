//! Products with a banded factor: probabilities times values and their relatives.
//!
//! Row `m` of `out` gains `Σₖ left[m][k] · right[k]` over the `k` in a range of its own, whose two ends
//! grow with `m`: a causal triangle, a sliding window, a rectangle. What lies outside the range is not
//! multiplied by zero but not touched at all (contract C1: `0 · ∞` is NaN, and `−0 + 0` is not −0).

use std::ops::Range;

use super::tile::{self, MR, Tile};
use crate::simd::{Simd, SimdOp};

/// Steps of k between visits to the accumulators in memory: 64 rows of 64 values are 16 KiB of `right`,
/// half of a first-level cache, and the visits cost 1 % of the arithmetic.
const KC: usize = 64;

/// The factors of a banded product.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a> {
    /// The banded factor; element (m, k) is at `m * left_stride + k`, or at `k * left_stride + m` where
    /// the product runs [`by columns`](product).
    pub(super) left: &'a [f32],
    pub(super) left_stride: usize,
    /// The dense factor; row k starts at `k * right_stride`.
    pub(super) right: &'a [f32],
    pub(super) right_stride: usize,
    /// Columns of the dense factor and of the result.
    pub(super) width: usize,
}

/// Continues the chains of `out`, dense `[rows, width]`, each over its range in ascending order.
/// `BY_COLUMNS` says how `left` is stored.
#[inline(always)]
pub(super) fn product<S: Simd, const BY_COLUMNS: bool>(
    simd: S,
    factors: &Factors,
    rows: usize,
    range: impl Fn(usize) -> Range<usize>,
    out: &mut [f32],
) {
    if rows == 0 {
        return;
    }
    let (first, end) = (range(0).start, range(rows - 1).end);
    for k in (first..end).step_by(KC) {
        let chunk = k..end.min(k + KC);
        let clip = |range: Range<usize>| {
            let start = range.start.clamp(chunk.start, chunk.end);
            start..range.end.clamp(start, chunk.end)
        };
        let mut m = 0;
        while m < rows {
            let height = if m + MR <= rows {
                MR
            } else if m + 2 <= rows {
                2
            } else {
                1
            };
            // What all rows of the tile share; before and after it, each row is on its own.
            let shared = clip(range(m + height - 1).start..range(m).end.max(range(m + height - 1).start));
            if shared.is_empty() {
                for m in m..m + height {
                    strip::<S, 1, BY_COLUMNS>(simd, factors, m, clip(range(m)), out);
                }
            } else {
                for m in m..m + height - 1 {
                    strip::<S, 1, BY_COLUMNS>(simd, factors, m, clip(range(m)).start..shared.start, out);
                }
                match height {
                    MR => strip::<S, MR, BY_COLUMNS>(simd, factors, m, shared.clone(), out),
                    2 => strip::<S, 2, BY_COLUMNS>(simd, factors, m, shared.clone(), out),
                    _ => strip::<S, 1, BY_COLUMNS>(simd, factors, m, shared.clone(), out),
                }
                for m in m + 1..m + height {
                    strip::<S, 1, BY_COLUMNS>(simd, factors, m, shared.end..clip(range(m)).end, out);
                }
            }
            m += height;
        }
    }
}

/// Rows `m..m + M` of the result, over the steps `k`, all columns.
#[inline(always)]
fn strip<S: Simd, const M: usize, const BY_COLUMNS: bool>(
    simd: S,
    factors: &Factors,
    m: usize,
    k: Range<usize>,
    out: &mut [f32],
) {
    if k.is_empty() {
        return;
    }
    let width = factors.width;
    let mut column = 0;
    if tile::vectors(S::LANES) == 4 {
        while column + 4 * S::LANES <= width {
            block::<S, M, 4, BY_COLUMNS>(simd, factors, m, k.clone(), column, out);
            column += 4 * S::LANES;
        }
    }
    while column + 2 * S::LANES <= width {
        block::<S, M, 2, BY_COLUMNS>(simd, factors, m, k.clone(), column, out);
        column += 2 * S::LANES;
    }
    while column + S::LANES <= width {
        block::<S, M, 1, BY_COLUMNS>(simd, factors, m, k.clone(), column, out);
        column += S::LANES;
    }
    if column < width {
        rest::<S, M, BY_COLUMNS>(simd, factors, m, k, column, out);
    }
}

/// One register tile: columns `column..column + NV * LANES`. A function of its own, so that its accumulators
/// do not share a stack frame with other tiles', which would spill them.
#[inline(never)]
fn block<S: Simd, const M: usize, const NV: usize, const BY_COLUMNS: bool>(
    simd: S,
    factors: &Factors,
    m: usize,
    k: Range<usize>,
    column: usize,
    out: &mut [f32],
) {
    simd.vectorize(Block::<M, NV, BY_COLUMNS> { factors, m, k, column, out });
}

struct Block<'a, const M: usize, const NV: usize, const BY_COLUMNS: bool> {
    factors: &'a Factors<'a>,
    m: usize,
    k: Range<usize>,
    column: usize,
    out: &'a mut [f32],
}

impl<const M: usize, const NV: usize, const BY_COLUMNS: bool> SimdOp for Block<'_, M, NV, BY_COLUMNS> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Block { factors, m, k, column, out } = self;
        let &Factors { left, left_stride, right, right_stride, width } = factors;
        let mut acc: Tile<S, M, NV> = [[simd.splat(0.0); NV]; M];
        for (i, acc) in acc.iter_mut().enumerate() {
            let out = &out[(m + i) * width + column..][..NV * S::LANES];
            for (v, acc) in acc.iter_mut().enumerate() {
                *acc = simd.load(&out[v * S::LANES..]);
            }
        }
        let right = &right[k.start * right_stride + column..];
        let acc = if BY_COLUMNS {
            let left = &left[k.start * left_stride + m..];
            tile::by_columns(simd, k.len(), (left, left_stride), (right, right_stride), acc)
        } else {
            let mut rows: [&[f32]; M] = [&[]; M];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &left[(m + i) * left_stride + k.start..][..k.len()];
            }
            tile::by_rows(simd, rows, right, right_stride, acc)
        };
        for (i, acc) in acc.iter().enumerate() {
            let out = &mut out[(m + i) * width + column..][..NV * S::LANES];
            for (v, acc) in acc.iter().enumerate() {
                simd.store(*acc, &mut out[v * S::LANES..]);
            }
        }
    }
}

/// The last `width - column` < `LANES` columns, where a head is no multiple of a vector.
#[inline(always)]
fn rest<S: Simd, const M: usize, const BY_COLUMNS: bool>(
    simd: S,
    factors: &Factors,
    m: usize,
    k: Range<usize>,
    column: usize,
    out: &mut [f32],
) {
    let &Factors { left, left_stride, right, right_stride, width } = factors;
    for m in m..m + M {
        let out = &mut out[m * width + column..(m + 1) * width];
        let mut acc = simd.load_partial(out);
        for k in k.clone() {
            let factor = left[if BY_COLUMNS { k * left_stride + m } else { m * left_stride + k }];
            let right = simd.load_partial(&right[k * right_stride + column..][..width - column]);
            acc = simd.mul_add(simd.splat(factor), right, acc);
        }
        simd.store_partial(acc, out);
    }
}
