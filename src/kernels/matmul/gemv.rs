//! One row of `x`: weights go from memory to registers, transposed on the way, and are never packed.
//!
//! A weight that is used once does not pay for a store to scratch memory and a load back. Lanes still
//! run along output features (contract C1), so rows of `W` are transposed in registers, which costs
//! less than fetching them from beyond the L2. Generation lives here.

use std::ops::Range;

use super::tile::{MAX_VECTORS, Start, unroll};
use crate::{
    kernels::{Profile, round_bf16, storage::Stored},
    simd::{MAX_LANES, Simd, SimdOp},
    tensor::WeightRef,
};

/// Weights of at least this many bytes come from memory, where rows are asked for early: 80 % of the read
/// bandwidth at `1 × 576 × 49152` in f32 (`cargo bench -p zofo-peers`). In cache the extra loads would only
/// cost; the boundary itself is not tuned.
const STREAMED_BYTES: usize = 8 << 20;

/// Inputs that one vector of features reads before the next vector's turn: a few cache lines of each of
/// its rows at a time, which prefetchers can follow.
const RUN: usize = 64;

/// A range of output features for one row.
pub(super) struct Gemv<'a> {
    /// `[k]`, in profile `strict-bf16` already rounded to operands.
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
        match self.w {
            WeightRef::F32(data, ..) => self.by_profile(simd, data),
            WeightRef::Bf16(data, ..) => self.by_profile(simd, data),
            WeightRef::F16(data, ..) => self.by_profile(simd, data),
        }
    }
}

impl Gemv<'_> {
    #[inline(always)]
    fn by_profile<S: Simd, T: Stored>(self, simd: S, w: &[T]) {
        match self.profile {
            Profile::StrictF32 => self.run::<S, T, false>(simd, w),
            Profile::StrictBf16 => self.run::<S, T, true>(simd, w),
        }
    }

    #[inline(always)]
    fn run<S: Simd, T: Stored, const BF16: bool>(self, simd: S, w: &[T]) {
        let Gemv { x, bias, start, features, y, .. } = self;
        let vectors = vectors_in_turn::<S, T>();
        let (cols, block, width) = (self.w.cols(), T::block::<S>(), vectors * S::LANES);
        let streamed = self.w.rows() * cols * self.w.dtype().size() >= STREAMED_BYTES;
        for (first, y) in features.clone().step_by(width).zip(y.chunks_mut(width)) {
            let mut acc = [simd.splat(0.0); MAX_VECTORS];
            if start == Start::Continue {
                acc = load_vectors(simd, y);
            }
            for from in (0..x.len()).step_by(RUN) {
                unroll!(V in [0 1 2 3] {
                    if V < vectors {
                        let row = first + V * S::LANES;
                        let run = from..(from + RUN).min(x.len());
                        for k in run.clone().step_by(block) {
                            let x = &x[k..run.end.min(k + block)];
                            acc[V] = if x.len() == block && row + S::LANES <= features.end {
                                if streamed {
                                    ask_for_next(simd, w, (row + width) * cols + k, cols);
                                }
                                whole_block::<S, T, BF16>(simd, w, row * cols + k, cols, x, acc[V])
                            } else {
                                EdgeBlock::read(w, row..features.end, cols, k, x).extend::<S, BF16>(simd, acc[V])
                            };
                        }
                    }
                });
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

/// Vectors of features that take turns: enough for their chains to hide each other's latency, and no
/// more, because each is `LANES` more streams of memory to follow. A step of a chain takes 4 cycles; with
/// sixteen lanes transposing takes about as long as the chain of one f32 block, with eight half as long.
const fn vectors_in_turn<S: Simd, T: Stored>() -> usize {
    let latency = MAX_LANES / S::LANES * T::BLOCK_VECTORS;
    if latency < MAX_VECTORS { latency } else { MAX_VECTORS }
}

/// Prefetches what the next group of features reads at the same `k`: the rows just below. Hardware
/// prefetchers follow a few runs of a page, not sixteen rows that take turns.
#[inline(always)]
fn ask_for_next<S: Simd, T: Stored>(simd: S, w: &[T], at: usize, cols: usize) {
    for r in 0..S::LANES {
        simd.prefetch(w, at + r * cols);
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

/// The steps of one pair of inputs: ascending, or in profile `strict-bf16` rounded and the odd one first.
#[inline(always)]
fn pair<S: Simd, const BF16: bool>(simd: S, x: [f32; 2], [even, odd]: [S::F32; 2], acc: S::F32) -> S::F32 {
    let [x_even, x_odd] = [simd.splat(x[0]), simd.splat(x[1])];
    if BF16 {
        let [even, odd] = [round_bf16::operand(simd, even), round_bf16::operand(simd, odd)];
        return simd.mul_add(x_even, even, simd.mul_add(x_odd, odd, acc));
    }
    simd.mul_add(x_odd, odd, simd.mul_add(x_even, even, acc))
}

/// One block of inputs of every lane's chain.
#[inline(always)]
fn whole_block<S: Simd, T: Stored, const BF16: bool>(
    simd: S,
    w: &[T],
    at: usize,
    cols: usize,
    x: &[f32],
    mut acc: S::F32,
) -> S::F32 {
    let x = &x[..T::block::<S>()];
    let block = T::read(simd, &w[at..], cols);
    for c in 0..T::block::<S>() / 2 {
        acc = pair::<S, BF16>(simd, [x[2 * c], x[2 * c + 1]], T::pair(simd, &block, c), acc);
    }
    acc
}

/// Inputs of the longest [`Stored::block`].
const MAX_BLOCK: usize = 2 * MAX_LANES;

/// A block at the edge of the weight, the last inputs or fewer features than lanes, read element by
/// element: missing inputs are −0 in `x` and +0 in `w`, whose product −0 changes no sum (see `pack`);
/// missing features are +0.
struct EdgeBlock {
    len: usize,
    x: [f32; MAX_BLOCK],
    w: [[f32; MAX_LANES]; MAX_BLOCK],
}

impl EdgeBlock {
    /// Kept out of line: rare, and it would be compiled into every variant of the loop.
    #[inline(never)]
    fn read<T: Stored>(w: &[T], features: Range<usize>, cols: usize, k: usize, x: &[f32]) -> EdgeBlock {
        let mut edge = EdgeBlock { len: x.len(), x: [-0.0; MAX_BLOCK], w: [[0.0; MAX_LANES]; MAX_BLOCK] };
        edge.x[..x.len()].copy_from_slice(x);
        for (c, column) in edge.w[..x.len()].iter_mut().enumerate() {
            for (lane, feature) in column.iter_mut().zip(features.clone()) {
                *lane = w[feature * cols + k + c].into();
            }
        }
        edge
    }

    #[inline(always)]
    fn extend<S: Simd, const BF16: bool>(&self, simd: S, mut acc: S::F32) -> S::F32 {
        for (x, w) in self.x[..self.len.next_multiple_of(2)].as_chunks::<2>().0.iter().zip(self.w.as_chunks::<2>().0) {
            acc = pair::<S, BF16>(simd, *x, [simd.load(&w[0]), simd.load(&w[1])], acc);
        }
        acc
    }
}
