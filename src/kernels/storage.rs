//! Matrices as they are stored, read across their rows: what packing and single-row products share.

use std::ops::Range;

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::simd::{MAX_LANES, Simd};

/// Row-major values of one type, `stride` apart from row to row.
pub(super) trait Storage: Copy {
    /// Inputs that one call of [`Storage::columns`] reads; even.
    fn block<S: Simd>() -> usize;

    /// Reads `LANES` rows by [`Storage::block`] columns from element `at`, transposed: `each(c, [even, odd])`
    /// gets columns `2c` and `2c + 1`, `c` ascending, lane `r` being row `r`. Widening is exact.
    fn columns<S: Simd>(self, simd: S, at: usize, stride: usize, each: impl FnMut(usize, [S::F32; 2]));

    /// `LANES` consecutive values from element `at`.
    fn row<S: Simd>(self, simd: S, at: usize) -> S::F32;

    /// One value.
    fn get(self, at: usize) -> f32;

    /// Asks for the cache line of element `at`.
    fn prefetch<S: Simd>(self, simd: S, at: usize);
}

impl Storage for &[f32] {
    #[inline(always)]
    fn block<S: Simd>() -> usize {
        const { assert!(S::LANES % 2 == 0) };
        S::LANES
    }
    #[inline(always)]
    fn columns<S: Simd>(self, simd: S, at: usize, stride: usize, mut each: impl FnMut(usize, [S::F32; 2])) {
        let mut tile = [simd.splat(0.0); MAX_LANES];
        simd.load_transposed(&self[at..], stride, &mut tile[..S::LANES]);
        for c in 0..S::LANES / 2 {
            each(c, [tile[2 * c], tile[2 * c + 1]]);
        }
    }
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, at: usize) -> S::F32 {
        simd.load(&self[at..])
    }
    #[inline(always)]
    fn get(self, at: usize) -> f32 {
        self[at]
    }
    #[inline(always)]
    fn prefetch<S: Simd>(self, simd: S, at: usize) {
        simd.prefetch(self, at);
    }
}

impl Storage for &[bf16] {
    #[inline(always)]
    fn block<S: Simd>() -> usize {
        2 * S::LANES
    }
    /// Pairs are transposed as 32-bit units: two inputs for one shuffle.
    #[inline(always)]
    fn columns<S: Simd>(self, simd: S, at: usize, stride: usize, mut each: impl FnMut(usize, [S::F32; 2])) {
        let mut pairs = [simd.splat_u32(0); MAX_LANES];
        simd.load_transposed_pairs(&self.reinterpret_cast()[at..], stride, &mut pairs[..S::LANES]);
        for (c, &pair) in pairs[..S::LANES].iter().enumerate() {
            let even = simd.from_bits(simd.shl(pair, 16));
            let odd = simd.from_bits(simd.and(pair, simd.splat_u32(0xffff_0000)));
            each(c, [even, odd]);
        }
    }
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, at: usize) -> S::F32 {
        simd.load_bf16(&self.reinterpret_cast()[at..])
    }
    #[inline(always)]
    fn get(self, at: usize) -> f32 {
        self[at].to_f32()
    }
    #[inline(always)]
    fn prefetch<S: Simd>(self, simd: S, at: usize) {
        simd.prefetch(self, at);
    }
}

impl Storage for &[f16] {
    #[inline(always)]
    fn block<S: Simd>() -> usize {
        const { assert!(S::LANES % 2 == 0) };
        S::LANES
    }
    #[inline(always)]
    fn columns<S: Simd>(self, simd: S, at: usize, stride: usize, mut each: impl FnMut(usize, [S::F32; 2])) {
        let mut tile = [simd.splat(0.0); MAX_LANES];
        for (r, row) in tile[..S::LANES].iter_mut().enumerate() {
            *row = self.row(simd, at + r * stride);
        }
        simd.transpose(&mut tile[..S::LANES]);
        for c in 0..S::LANES / 2 {
            each(c, [tile[2 * c], tile[2 * c + 1]]);
        }
    }
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, at: usize) -> S::F32 {
        simd.load_f16(&self.reinterpret_cast()[at..])
    }
    #[inline(always)]
    fn get(self, at: usize) -> f32 {
        self[at].to_f32()
    }
    #[inline(always)]
    fn prefetch<S: Simd>(self, simd: S, at: usize) {
        simd.prefetch(self, at);
    }
}

/// Fills a panel, `panel[(k − depth.start) · width + r]` with element (`rows.start + r`, `k`), where
/// `width = panel.len() / depth.len()`, a multiple of `LANES`; what is past the end of `rows` becomes +0.
#[inline(always)]
pub(super) fn fill_panel<S: Simd, W: Storage>(
    simd: S,
    data: W,
    stride: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    panel: &mut [f32],
) {
    let (width, block) = (panel.len() / depth.len(), W::block::<S>());
    for lane in (0..width).step_by(S::LANES) {
        let first = rows.start + lane;
        let mut k = depth.start;
        while first + S::LANES <= rows.end && k + block <= depth.end {
            let out = &mut panel[(k - depth.start) * width..];
            data.columns(
                simd,
                first * stride + k,
                stride,
                #[inline(always)]
                |c, [even, odd]| {
                    simd.store(even, &mut out[2 * c * width + lane..]);
                    simd.store(odd, &mut out[(2 * c + 1) * width + lane..]);
                },
            );
            k += block;
        }
        // What is left: the last inputs, or a group of rows that is not whole.
        for (k, column) in (k..depth.end).zip(panel[(k - depth.start) * width..].chunks_exact_mut(width)) {
            for (r, out) in column[lane..lane + S::LANES].iter_mut().enumerate() {
                *out = if first + r < rows.end { data.get((first + r) * stride + k) } else { 0.0 };
            }
        }
    }
}

/// Fills a panel with rows as they lie: `panel[(row − rows.start) · width + i]` is element (`row`,
/// `columns.start + i`), where `width = panel.len() / rows.len()`; what is past the end of `columns` becomes +0.
#[inline(always)]
pub(super) fn copy_panel<S: Simd, W: Storage>(
    simd: S,
    data: W,
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
                simd.store(data.row(simd, row * stride + first), lanes);
            } else {
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = if first + i < columns.end { data.get(row * stride + first + i) } else { 0.0 };
                }
            }
        }
    }
}
