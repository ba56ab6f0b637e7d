//! One row of `x`: weights go from memory to registers, transposed on the way, and are never packed.
//!
//! A weight that is used once does not pay for a store to scratch memory and a load back. Lanes still
//! run along output features (contract C1), so rows of `W` are transposed in registers, which costs
//! less than fetching them from beyond the L2. Generation lives here.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

use super::tile::{MAX_VECTORS, Start, TileShape};
use crate::{
    kernels::{Profile, round_bf16},
    simd::{MAX_LANES, Simd, SimdOp},
    tensor::WeightRef,
};

/// Weights of at least this many bytes come from memory, where asking for the next rows early should
/// pay; in cache the extra loads would only cost. Not tuned yet (`cargo bench -p zofo-peers`).
const STREAMED_BYTES: usize = 8 << 20;

/// Inputs that one block of the loop reads: `BLOCK / LANES` vectors, at most 32 for every instruction set.
const MAX_BLOCK: usize = 2 * MAX_LANES;

/// A range of output features for one row.
pub(super) struct Gemv<'a> {
    /// `[k]`.
    pub(super) x: &'a [f32],
    pub(super) w: WeightRef<'a>,
    /// `[n]`.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) start: Start,
    pub(super) profile: Profile,
    /// Output features to compute.
    pub(super) features: Range<usize>,
    /// One value a feature.
    pub(super) y: &'a mut [f32],
}

impl SimdOp for Gemv<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let cols = self.w.cols();
        let streamed = self.w.rows() * cols * self.w.dtype().size() >= STREAMED_BYTES;
        match self.w {
            WeightRef::F32(data, ..) => self.by_profile(
                simd,
                #[inline(always)]
                |row, k, tile: &mut [S::F32]| {
                    let at = row * cols + k;
                    let (left, right) = tile.split_at_mut(S::LANES);
                    simd.load_transposed(&data[at..], cols, left);
                    simd.load_transposed(&data[at + S::LANES..], cols, right);
                    if streamed {
                        ask_for_next(simd, data, at, cols);
                    }
                },
            ),
            WeightRef::Bf16(data, ..) => {
                let data: &[u16] = data.reinterpret_cast();
                self.by_profile(
                    simd,
                    #[inline(always)]
                    |row, k, tile: &mut [S::F32]| {
                        let at = row * cols + k;
                        let mut pairs = [simd.splat_u32(0); MAX_LANES];
                        simd.load_transposed_pairs(&data[at..], cols, &mut pairs[..S::LANES]);
                        for (columns, pair) in tile.chunks_exact_mut(2).zip(pairs) {
                            columns[0] = simd.from_bits(simd.shl(pair, 16));
                            columns[1] = simd.from_bits(simd.and(pair, simd.splat_u32(0xffff_0000)));
                        }
                        if streamed {
                            ask_for_next(simd, data, at, cols);
                        }
                    },
                );
            }
            WeightRef::F16(data, ..) => {
                let data: &[u16] = data.reinterpret_cast();
                self.by_profile(
                    simd,
                    #[inline(always)]
                    |row, k, tile: &mut [S::F32]| {
                        let at = row * cols + k;
                        for (half, tile) in tile.chunks_exact_mut(S::LANES).enumerate() {
                            for (r, column) in tile.iter_mut().enumerate() {
                                *column = simd.load_f16(&data[at + r * cols + half * S::LANES..]);
                            }
                            simd.transpose(tile);
                        }
                        if streamed {
                            ask_for_next(simd, data, at, cols);
                        }
                    },
                );
            }
        }
    }
}

/// Prefetches what the next group of features reads at the same `k`: the rows just below. Hardware
/// prefetchers follow a few runs of a page, not sixteen rows that take turns.
#[inline(always)]
fn ask_for_next<S: Simd, T>(simd: S, data: &[T], at: usize, cols: usize) {
    let ahead = at + TileShape::of::<S>().width * cols;
    let line = 64 / size_of::<T>();
    for r in 0..S::LANES {
        for part in (0..2 * S::LANES).step_by(line) {
            simd.prefetch(data, ahead + r * cols + part);
        }
    }
}

impl Gemv<'_> {
    #[inline(always)]
    fn by_profile<S: Simd>(self, simd: S, load: impl Fn(usize, usize, &mut [S::F32])) {
        match self.profile {
            Profile::StrictF32 => self.run::<S, false>(simd, load),
            Profile::StrictBf16 => self.run::<S, true>(simd, load),
        }
    }

    /// `load(feature, k, tile)` reads `LANES` features by 2·`LANES` inputs, one vector an input.
    #[inline(always)]
    fn run<S: Simd, const BF16: bool>(self, simd: S, load: impl Fn(usize, usize, &mut [S::F32])) {
        let Gemv { x, w, bias, start, features, y, .. } = self;
        let TileShape { vectors, width, .. } = TileShape::of::<S>();
        let block = 2 * S::LANES;
        for (first, y) in features.clone().step_by(width).zip(y.chunks_mut(width)) {
            let mut acc = [simd.splat(0.0); MAX_VECTORS];
            if start == Start::Continue {
                acc = load_vectors(simd, y);
            }
            for (k, x) in (0..x.len()).step_by(block).zip(x.chunks(block)) {
                // A panel's vectors take turns, so that their chains hide each other's latency.
                for (v, acc) in acc[..vectors].iter_mut().enumerate() {
                    let row = first + v * S::LANES;
                    let mut tile = [simd.splat(0.0); MAX_BLOCK];
                    if x.len() == block && row + S::LANES <= features.end {
                        load(row, k, &mut tile[..block]);
                        *acc = chain::<S, BF16>(simd, x, &tile, *acc);
                    } else {
                        let edge = EdgeBlock::read(w, row..features.end, k, x);
                        for (column, lanes) in tile[..block].iter_mut().zip(&edge.w) {
                            *column = simd.load(lanes);
                        }
                        *acc = chain::<S, BF16>(simd, &edge.x[..block], &tile, *acc);
                    }
                }
            }
            if let Some(bias) = bias {
                let bias = load_vectors(simd, &bias[first..first + y.len()]);
                for v in 0..vectors {
                    acc[v] = simd.add(acc[v], bias[v]);
                }
            }
            for (y, acc) in y.chunks_mut(S::LANES).zip(acc) {
                simd.store_partial(acc, y);
            }
        }
    }
}

/// Up to [`MAX_VECTORS`] vectors of a slice that may end early.
#[inline(always)]
fn load_vectors<S: Simd>(simd: S, src: &[f32]) -> [S::F32; MAX_VECTORS] {
    let mut vectors = [simd.splat(0.0); MAX_VECTORS];
    for (vector, src) in vectors.iter_mut().zip(src.chunks(S::LANES)) {
        *vector = simd.load_partial(src);
    }
    vectors
}

/// 2·`LANES` steps of every lane's chain.
#[inline(always)]
fn chain<S: Simd, const BF16: bool>(simd: S, x: &[f32], tile: &[S::F32; MAX_BLOCK], mut acc: S::F32) -> S::F32 {
    let x = &x[..2 * S::LANES];
    for i in 0..2 * S::LANES {
        let c = if BF16 { i ^ 1 } else { i };
        acc = if BF16 {
            let x = round_bf16::operand(simd, simd.splat(x[c]));
            simd.mul_add(x, round_bf16::operand(simd, tile[c]), acc)
        } else {
            simd.mul_add(simd.splat(x[c]), tile[c], acc)
        };
    }
    acc
}

/// A block at the edge of the weight, read element by element: missing inputs are −0 in `x` and +0 in
/// `w`, whose product −0 changes no sum (see `pack`); missing features are +0.
struct EdgeBlock {
    x: [f32; MAX_BLOCK],
    w: [[f32; MAX_LANES]; MAX_BLOCK],
}

impl EdgeBlock {
    /// Kept out of line: rare, and it would be compiled into every variant of the loop.
    #[inline(never)]
    fn read(w: WeightRef<'_>, features: Range<usize>, k: usize, x: &[f32]) -> EdgeBlock {
        let mut edge = EdgeBlock { x: [-0.0; MAX_BLOCK], w: [[0.0; MAX_LANES]; MAX_BLOCK] };
        edge.x[..x.len()].copy_from_slice(x);
        for (c, column) in edge.w[..x.len()].iter_mut().enumerate() {
            for (lane, feature) in column.iter_mut().zip(features.clone()) {
                *lane = w.at(feature, k + c);
            }
        }
        edge
    }
}
