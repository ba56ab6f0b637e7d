//! The score tile of a block: every row of the left factor against every key of the span.
//!
//! SIMD lanes run along keys, so that each score is one chain over the head dimension. Keys are packed a
//! panel at a time into lane order; a panel serves all query rows of the block and all heads of the group.

use super::{
    block::Block,
    tile::{self, MR, Tile},
};
use crate::{
    simd::{Simd, SimdOp},
    tensor::MatRef,
};

/// A product of a block's rows with the keys of its span.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    /// The left factor, dense `[rows, depth]`.
    pub(super) left: &'a [f32],
    /// The right factor: its row `first_key + c` is column `c` of the tile.
    pub(super) right: MatRef<'a>,
    pub(super) first_key: usize,
    /// First column of the right factor's head, and the columns of a head.
    pub(super) column: usize,
    pub(super) depth: usize,
    /// Whether the chains continue from what `out` holds, or start at +0.
    pub(super) carry: bool,
    /// Multiplies each finished chain.
    pub(super) scale: f32,
}

/// Keys of a panel.
#[inline(always)]
pub(super) const fn panel_width(lanes: usize) -> usize {
    tile::vectors(lanes) * lanes
}

/// Elements from one row of a score tile to the next: whole panels, so that no store is partial.
#[inline(always)]
pub(super) fn row_stride(block: &Block, lanes: usize) -> usize {
    block.span.len().next_multiple_of(panel_width(lanes))
}

/// Fills the score tile `out`, `[rows, row_stride]`, wherever any row of a register tile sees any key of
/// its columns; the rest keeps what it held. `panel` has `depth * panel_width` values of scratch.
#[inline(always)]
pub(super) fn fill<S: Simd>(simd: S, block: &Block, scores: &Scores, panel: &mut [f32], out: &mut [f32]) {
    let (rows, keys, width) = (block.rows(), block.span.len(), panel_width(S::LANES));
    let row_stride = row_stride(block, S::LANES);
    for column in (0..keys).step_by(width) {
        let have = width.min(keys - column);
        let source = (scores.first_key + column, have);
        tile::pack_panel(simd, scores.right, source, (scores.column, scores.depth), width, panel);
        let mut m = 0;
        while m < rows {
            let height = if m + MR <= rows {
                MR
            } else if m + 2 <= rows {
                2
            } else {
                1
            };
            let seen = block.columns_of(m).start..block.columns_of(m + height - 1).end;
            if seen.start < column + width && column < seen.end {
                // On the diagonal the second half of a panel of four vectors is often masked for the whole tile.
                let wide = tile::vectors(S::LANES) == 4 && seen.end > column + width / 2;
                match (height, wide) {
                    (MR, true) => strip::<S, MR, 4>(simd, scores, m, panel, column, row_stride, out),
                    (MR, false) => strip::<S, MR, 2>(simd, scores, m, panel, column, row_stride, out),
                    (2, true) => strip::<S, 2, 4>(simd, scores, m, panel, column, row_stride, out),
                    (2, false) => strip::<S, 2, 2>(simd, scores, m, panel, column, row_stride, out),
                    (_, true) => strip::<S, 1, 4>(simd, scores, m, panel, column, row_stride, out),
                    (_, false) => strip::<S, 1, 2>(simd, scores, m, panel, column, row_stride, out),
                }
            }
            m += height;
        }
    }
}

/// One register tile: rows `m..m + M`, columns from `column` on; a function of its own as in `band`.
#[inline(never)]
fn strip<S: Simd, const M: usize, const NV: usize>(
    simd: S,
    scores: &Scores,
    m: usize,
    panel: &[f32],
    column: usize,
    row_stride: usize,
    out: &mut [f32],
) {
    simd.vectorize(Strip::<M, NV> { scores, m, panel, column, row_stride, out });
}

struct Strip<'a, const M: usize, const NV: usize> {
    scores: &'a Scores<'a>,
    m: usize,
    panel: &'a [f32],
    column: usize,
    row_stride: usize,
    out: &'a mut [f32],
}

impl<const M: usize, const NV: usize> SimdOp for Strip<'_, M, NV> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Strip { scores, m, panel, column, row_stride, out } = self;
        let depth = scores.depth;
        let mut acc: Tile<S, M, NV> = [[simd.splat(0.0); NV]; M];
        if scores.carry {
            for (i, acc) in acc.iter_mut().enumerate() {
                let out = &out[(m + i) * row_stride + column..][..NV * S::LANES];
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = simd.load(&out[v * S::LANES..]);
                }
            }
        }
        let mut rows: [&[f32]; M] = [&[]; M];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = &scores.left[(m + i) * depth..][..depth];
        }
        let acc = tile::by_rows(simd, rows, panel, panel_width(S::LANES), acc);
        let scale = simd.splat(scores.scale);
        for (i, acc) in acc.iter().enumerate() {
            let out = &mut out[(m + i) * row_stride + column..][..NV * S::LANES];
            for (v, acc) in acc.iter().enumerate() {
                simd.store(simd.mul(*acc, scale), &mut out[v * S::LANES..]);
            }
        }
    }
}
