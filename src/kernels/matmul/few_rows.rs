//! A few rows of `x`: too few to pay for packing a weight, enough to reuse it in registers.
//!
//! As in `gemv` a block of the weight goes from memory to registers, transposed on the way; here it
//! then meets every tile of `x` before the next block is read. Accumulators of a tile live in registers
//! for the length of a block and in the L1 between blocks.

use std::ops::Range;

use super::tile::{DEPTH_UNROLL, Start};
use crate::{
    kernels::storage::Stored,
    simd::{MAX_LANES, Simd, SimdOp},
    tensor::WeightRef,
};

/// The most rows that come here: at 16 this is faster than packing (`cargo bench -p zofo-peers -- 16x576x1536`);
/// more was not tried.
pub(super) const MAX_ROWS: usize = 16;

/// Cuts `rows` into tiles of 8, 4, 2 and 1 rows: heights with code of their own.
pub(super) fn row_tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let height = [8, 4, 2, 1].into_iter().find(|height| next + height <= rows)?;
        next += height;
        Some(next - height..next)
    })
}

/// A range of output features for a few rows, profile `strict-f32`.
pub(super) struct FewRows<'a, 'y> {
    /// `x` packed in the tiles of [`row_tiles`].
    pub(super) packed: &'a [f32],
    pub(super) tiles: &'a [Range<usize>],
    pub(super) w: WeightRef<'a>,
    /// `[n]`.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) start: Start,
    /// Output features to compute.
    pub(super) features: Range<usize>,
    /// The rows of `y`, restricted to `features`.
    pub(super) y: Vec<&'y mut [f32]>,
}

impl SimdOp for FewRows<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        match self.w {
            WeightRef::F32(data, ..) => self.run(simd, data),
            WeightRef::Bf16(data, ..) => self.run(simd, data),
            WeightRef::F16(data, ..) => self.run(simd, data),
        }
    }
}

impl FewRows<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, T: Stored>(self, simd: S, w: &[T]) {
        let FewRows { packed, tiles, w: weight, bias, start, features, mut y } = self;
        let (depth, block) = (weight.cols(), T::block::<S>());
        let steps = depth.next_multiple_of(DEPTH_UNROLL);
        for first in features.clone().step_by(S::LANES) {
            let span = first - features.start..(first + S::LANES).min(features.end) - features.start;
            let mut acc = [simd.splat(0.0); MAX_ROWS];
            if start == Start::Continue {
                for (acc, y) in acc.iter_mut().zip(&y) {
                    *acc = simd.load_partial(&y[span.clone()]);
                }
            }
            let mut k = 0;
            while k + block <= depth && first + S::LANES <= features.end {
                let read = T::read(simd, &w[first * depth + k..], depth);
                for tile in tiles {
                    let x = &packed[tile.start * steps + k * tile.len()..][..block * tile.len()];
                    let acc = &mut acc[tile.clone()];
                    match tile.len() {
                        8 => extend::<S, T, 8>(simd, &read, x, acc),
                        4 => extend::<S, T, 4>(simd, &read, x, acc),
                        2 => extend::<S, T, 2>(simd, &read, x, acc),
                        _ => extend::<S, T, 1>(simd, &read, x, acc),
                    }
                }
                k += block;
            }
            // What is left: the last inputs, or fewer features than lanes.
            for k in k..depth {
                let mut column = [0.0; MAX_LANES];
                for (lane, feature) in column.iter_mut().zip(first..features.end) {
                    *lane = w[feature * depth + k].into();
                }
                let column = simd.load(&column);
                for tile in tiles {
                    let x = &packed[tile.start * steps + (k & !(DEPTH_UNROLL - 1)) * tile.len()..];
                    for (r, acc) in acc[tile.clone()].iter_mut().enumerate() {
                        *acc = simd.mul_add(simd.splat(x[r * DEPTH_UNROLL + k % DEPTH_UNROLL]), column, *acc);
                    }
                }
            }
            let bias =
                bias.map(|bias| simd.load_partial(&bias[features.start + span.start..features.start + span.end]));
            for (acc, y) in acc.iter().zip(&mut y) {
                let sum = bias.map_or(*acc, |bias| simd.add(*acc, bias));
                simd.store_partial(sum, &mut y[span.clone()]);
            }
        }
    }
}

/// `acc[r] = fma(x[r][k], block[k], acc[r])` for the inputs of one block ascending.
#[inline(always)]
fn extend<S: Simd, T: Stored, const ROWS: usize>(simd: S, block: &T::Block<S>, x: &[f32], acc: &mut [S::F32]) {
    let x = &x[..T::block::<S>() * ROWS];
    let acc: &mut [S::F32; ROWS] = acc.try_into().expect("an accumulator a row");
    let mut sums = *acc;
    for c in 0..T::block::<S>() / 2 {
        for (i, column) in T::pair(simd, block, c).into_iter().enumerate() {
            let k = 2 * c + i;
            for (r, sum) in sums.iter_mut().enumerate() {
                let at = (k / DEPTH_UNROLL * ROWS + r) * DEPTH_UNROLL + k % DEPTH_UNROLL;
                *sum = simd.mul_add(simd.splat(x[at]), column, *sum);
            }
        }
    }
    *acc = sums;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_tiles_cover_every_row_once() {
        for rows in 0..=3 * MAX_ROWS {
            let tiles: Vec<_> = row_tiles(rows).collect();
            assert!(tiles.iter().all(|tile| [1, 2, 4, 8].contains(&tile.len())));
            assert_eq!(tiles.into_iter().flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
        }
    }
}
