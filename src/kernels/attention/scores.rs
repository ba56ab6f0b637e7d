//! The score tile of a block: every row of the left factor against every key of the span.
//!
//! SIMD lanes run along keys, so that each score is one chain over the head dimension. Keys are packed a
//! panel at a time into lane order; a panel serves all query rows of the block and all heads of the group.

use super::{
    block::Block,
    tile::{self, MR, Tile},
};
use crate::{simd::Simd, tensor::MatRef};

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
                // On the diagonal the second half of a wide panel is often masked for the whole tile.
                let half = width / 2;
                let narrow = tile::vectors(S::LANES) == 4 && seen.end <= column + half;
                match (height, narrow) {
                    (MR, false) if tile::vectors(S::LANES) == 4 => strip::<S, MR, 4>(simd, scores, m, panel, column, out),
                    (MR, _) => strip::<S, MR, 2>(simd, scores, m, panel, column, out),
                    (2, false) if tile::vectors(S::LANES) == 4 => strip::<S, 2, 4>(simd, scores, m, panel, column, out),
                    (2, _) => strip::<S, 2, 2>(simd, scores, m, panel, column, out),
                    (_, false) if tile::vectors(S::LANES) == 4 => strip::<S, 1, 4>(simd, scores, m, panel, column, out),
                    (_, _) => strip::<S, 1, 2>(simd, scores, m, panel, column, out),
                }
            }
            m += height;
        }
    }
}
