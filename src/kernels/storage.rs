//! Matrices as they are stored, read across their rows: what packing and single-row products share.

use std::ops::Range;

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::simd::{MAX_LANES, Simd};

/// A type that matrices are stored in, row-major; widening to f32 is exact.
pub(super) trait Stored: Copy + Into<f32> {
    /// `LANES` rows by [`Stored::block`] columns in registers, transposed, not yet widened.
    type Block<S: Simd>: Copy;

    /// Columns of a block in units of `LANES`: 1 or 2.
    const BLOCK_VECTORS: usize;

    /// Columns of a block, an even number.
    #[inline(always)]
    fn block<S: Simd>() -> usize {
        const { assert!(S::LANES % 2 == 0, "columns come in pairs") };
        Self::BLOCK_VECTORS * S::LANES
    }

    /// The block at the start of `data`, its rows `stride` apart.
    fn read<S: Simd>(simd: S, data: &[Self], stride: usize) -> Self::Block<S>;

    /// Columns `2c` and `2c + 1` of a block: lane `r` is row `r`.
    fn pair<S: Simd>(simd: S, block: &Self::Block<S>, c: usize) -> [S::F32; 2];

    /// The first `LANES` values of `data`.
    fn load<S: Simd>(simd: S, data: &[Self]) -> S::F32;
}

impl Stored for f32 {
    type Block<S: Simd> = [S::F32; MAX_LANES];
    const BLOCK_VECTORS: usize = 1;

    #[inline(always)]
    fn read<S: Simd>(simd: S, data: &[f32], stride: usize) -> [S::F32; MAX_LANES] {
        let mut tile = [simd.splat(0.0); MAX_LANES];
        simd.load_transposed(data, stride, &mut tile[..S::LANES]);
        tile
    }
    #[inline(always)]
    fn pair<S: Simd>(_: S, block: &[S::F32; MAX_LANES], c: usize) -> [S::F32; 2] {
        [block[2 * c], block[2 * c + 1]]
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, data: &[f32]) -> S::F32 {
        simd.load(data)
    }
}

impl Stored for bf16 {
    type Block<S: Simd> = [S::U32; MAX_LANES];
    const BLOCK_VECTORS: usize = 2;

    /// Pairs are transposed as 32-bit units: two inputs for one shuffle.
    #[inline(always)]
    fn read<S: Simd>(simd: S, data: &[bf16], stride: usize) -> [S::U32; MAX_LANES] {
        let mut pairs = [simd.splat_u32(0); MAX_LANES];
        simd.load_transposed_pairs(data.reinterpret_cast(), stride, &mut pairs[..S::LANES]);
        pairs
    }
    #[inline(always)]
    fn pair<S: Simd>(simd: S, block: &[S::U32; MAX_LANES], c: usize) -> [S::F32; 2] {
        let even = simd.from_bits(simd.shl(block[c], 16));
        let odd = simd.from_bits(simd.and(block[c], simd.splat_u32(0xffff_0000)));
        [even, odd]
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, data: &[bf16]) -> S::F32 {
        simd.load_bf16(data.reinterpret_cast())
    }
}

impl Stored for f16 {
    type Block<S: Simd> = [S::F32; MAX_LANES];
    const BLOCK_VECTORS: usize = 1;

    /// Widened before it is transposed: transposing pairs would leave the halves to be converted apart.
    #[inline(always)]
    fn read<S: Simd>(simd: S, data: &[f16], stride: usize) -> [S::F32; MAX_LANES] {
        let mut tile = [simd.splat(0.0); MAX_LANES];
        for (r, row) in tile[..S::LANES].iter_mut().enumerate() {
            *row = Self::load(simd, &data[r * stride..]);
        }
        simd.transpose(&mut tile[..S::LANES]);
        tile
    }
    #[inline(always)]
    fn pair<S: Simd>(simd: S, block: &[S::F32; MAX_LANES], c: usize) -> [S::F32; 2] {
        f32::pair(simd, block, c)
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, data: &[f16]) -> S::F32 {
        simd.load_f16(data.reinterpret_cast())
    }
}

/// Fills a panel, `panel[(k − depth.start) · width + r]` with element (`rows.start + r`, `k`), where
/// `width = panel.len() / depth.len()`, a multiple of `LANES`; what is past the end of `rows` becomes +0.
#[inline(always)]
pub(super) fn fill_panel<S: Simd, T: Stored>(
    simd: S,
    data: &[T],
    stride: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    panel: &mut [f32],
) {
    let (width, block) = (panel.len() / depth.len(), T::block::<S>());
    for lane in (0..width).step_by(S::LANES) {
        let first = rows.start + lane;
        let mut k = depth.start;
        while first + S::LANES <= rows.end && k + block <= depth.end {
            let out = &mut panel[(k - depth.start) * width..];
            let read = T::read(simd, &data[first * stride + k..], stride);
            for c in 0..block / 2 {
                let [even, odd] = T::pair(simd, &read, c);
                simd.store(even, &mut out[2 * c * width + lane..]);
                simd.store(odd, &mut out[(2 * c + 1) * width + lane..]);
            }
            k += block;
        }
        // What is left: the last inputs, or a group of rows that is not whole.
        for (k, column) in (k..depth.end).zip(panel[(k - depth.start) * width..].chunks_exact_mut(width)) {
            for (r, out) in column[lane..lane + S::LANES].iter_mut().enumerate() {
                *out = if first + r < rows.end { data[(first + r) * stride + k].into() } else { 0.0 };
            }
        }
    }
}

/// Fills a panel with rows as they lie: `panel[(row − rows.start) · width + i]` is element (`row`,
/// `columns.start + i`), where `width = panel.len() / rows.len()`; what is past the end of `columns` becomes +0.
#[inline(always)]
pub(super) fn copy_panel<S: Simd, T: Stored>(
    simd: S,
    data: &[T],
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    panel: &mut [f32],
) {
    let width = panel.len() / rows.len();
    for (out, row) in panel.chunks_exact_mut(width).zip(rows) {
        for (v, lanes) in out.chunks_exact_mut(S::LANES).enumerate() {
            let first = columns.start + v * S::LANES;
            if first + S::LANES <= columns.end {
                simd.store(T::load(simd, &data[row * stride + first..]), lanes);
            } else {
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = if first + i < columns.end { data[row * stride + first + i].into() } else { 0.0 };
                }
            }
        }
    }
}
