//! The seam where fusion happens: whatever can fill a panel can be multiplied by.
//!
//! A panel is `width` output features by a range of `k`, k-major: `panel[k · width + feature]`. The
//! micro-tile never learns whether it came from f32, bf16 or f16 storage, or was perturbed on the way.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;

use crate::{
    simd::{MAX_LANES, Simd},
    tensor::{MatRef, WeightRef},
};

/// A right-hand operand `[rows, cols]` = `[n, k]`, produced panel by panel while packing.
///
/// An operand may have several *branches* (`W + c·z` and `W − c·z`): all branches of a panel are
/// filled by one call, so that what they share is made once.
pub trait PanelSource: Sync {
    /// Output features, `n`.
    fn rows(&self) -> usize;
    /// Input features, `k`.
    fn cols(&self) -> usize;
    /// How many operands this is: the left operand has as many row groups.
    fn branches(&self) -> usize {
        1
    }
    /// The stored weight, if this is nothing else: few rows of `x` then read it without packing.
    fn as_weight(&self) -> Option<WeightRef<'_>> {
        None
    }
    /// Writes features `rows`, inputs `depth`, of every branch: `panels[branch][k · width + feature]`,
    /// where `width = panels[branch].len() / depth.len()`; features past the end of `rows` become +0.
    ///
    /// `depth` never crosses a multiple of [`DEPTH_BLOCK`], so keyed noise is seeded once per call.
    /// Implementations are `#[inline(always)]`.
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]);
}

/// Inputs per [`PanelSource::fill`] call, at most: the block of columns that shares one noise stream.
pub const DEPTH_BLOCK: usize = 256;

impl PanelSource for WeightRef<'_> {
    fn rows(&self) -> usize {
        WeightRef::rows(*self)
    }
    fn cols(&self) -> usize {
        WeightRef::cols(*self)
    }
    fn as_weight(&self) -> Option<WeightRef<'_>> {
        Some(*self)
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let [panel] = panels else { unreachable!("a plain weight has one branch") };
        match *self {
            WeightRef::F32(data, _, cols) => transpose_rows(simd, data, cols, rows, depth, panel),
            WeightRef::Bf16(data, _, cols) => {
                fill_bf16(simd, data.reinterpret_cast(), cols, rows, depth, panel);
            }
            WeightRef::F16(data, _, cols) => {
                let data = data.reinterpret_cast();
                fill_by_rows(
                    simd,
                    cols,
                    rows,
                    depth,
                    panel,
                    #[inline(always)]
                    |at, len| {
                        if len == S::LANES {
                            simd.load_f16(&data[at..])
                        } else {
                            let mut lanes = [0; MAX_LANES];
                            lanes[..len].copy_from_slice(&data[at..at + len]);
                            simd.load_f16(&lanes)
                        }
                    },
                );
            }
        }
    }
}

/// The right-hand operand of `a · bᵀ`: `b` as `[n, k]`, rows `stride` apart.
pub(super) struct Transposed<'a>(pub(super) MatRef<'a>);

impl PanelSource for Transposed<'_> {
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn cols(&self) -> usize {
        self.0.cols()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let [panel] = panels else { unreachable!("a matrix has one branch") };
        transpose_rows(simd, self.0.data(), self.0.stride(), rows, depth, panel);
    }
}

/// One `[n, r]` matrix per branch, each as the right-hand operand of `a · bᵀ`.
pub(super) struct Groups<'a>(pub(super) &'a [MatRef<'a>]);

impl PanelSource for Groups<'_> {
    fn rows(&self) -> usize {
        self.0[0].rows()
    }
    fn cols(&self) -> usize {
        self.0[0].cols()
    }
    fn branches(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        for (matrix, panel) in self.0.iter().zip(panels) {
            transpose_rows(simd, matrix.data(), matrix.stride(), rows.clone(), depth.clone(), panel);
        }
    }
}

/// The right-hand operand of `a · b`: `b` as `[k, n]`, already k-major, copied in runs.
pub(super) struct Plain<'a>(pub(super) MatRef<'a>);

impl PanelSource for Plain<'_> {
    fn rows(&self) -> usize {
        self.0.cols()
    }
    fn cols(&self) -> usize {
        self.0.rows()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let [panel] = panels else { unreachable!("a matrix has one branch") };
        let width = panel.len() / depth.len();
        for (out, k) in panel.chunks_exact_mut(width).zip(depth) {
            let src = &self.0.row(k)[rows.clone()];
            let (head, pad) = out.split_at_mut(src.len());
            if pad.is_empty() {
                for (out, src) in head.chunks_exact_mut(S::LANES).zip(src.chunks_exact(S::LANES)) {
                    simd.store(simd.load(src), out);
                }
            } else {
                head.copy_from_slice(src);
                pad.fill(0.0);
            }
        }
    }
}

/// A weight `[n, k]` as the right-hand operand of `dy · W`: features and inputs change places.
pub(super) struct ByInput<'a, P>(pub(super) &'a P);

/// Output features that [`ByInput`] reads at a time.
const INPUT_GROUP: usize = 16;
/// The widest panel of any instruction set.
const MAX_WIDTH: usize = 32;

impl<P: PanelSource> PanelSource for ByInput<'_, P> {
    fn rows(&self) -> usize {
        self.0.cols()
    }
    fn cols(&self) -> usize {
        self.0.rows()
    }
    fn branches(&self) -> usize {
        self.0.branches()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let (inputs, features) = (rows, depth);
        if let Some(weight) = self.0.as_weight() {
            let [panel] = panels else { unreachable!("a plain weight has one branch") };
            return widen_rows(simd, weight, inputs, features, panel);
        }
        // The source fills `[input][feature]` panels of a few features, which are transposed back.
        let width = panels[0].len() / features.len();
        let mut scratch = vec![0.0; panels.len() * MAX_WIDTH * INPUT_GROUP];
        for first in features.clone().step_by(INPUT_GROUP) {
            let group = first..(first + INPUT_GROUP).min(features.end);
            // An input range must not cross a block of noise.
            let cut = inputs.end.min((inputs.start / DEPTH_BLOCK + 1) * DEPTH_BLOCK);
            for part in [inputs.start..cut, cut..inputs.end] {
                if part.is_empty() {
                    continue;
                }
                let len = part.len() * INPUT_GROUP;
                let mut parts: Vec<_> = scratch.chunks_exact_mut(len).take(panels.len()).collect();
                self.0.fill(simd, group.clone(), part.clone(), &mut parts);
                for (panel, filled) in panels.iter_mut().zip(&parts) {
                    for (i, column) in filled.chunks_exact(INPUT_GROUP).enumerate() {
                        let input = part.start - inputs.start + i;
                        for (feature, &w) in group.clone().zip(column) {
                            panel[(feature - features.start) * width + input] = w;
                        }
                    }
                }
            }
        }
        for panel in panels {
            panel.chunks_exact_mut(width).for_each(|row| row[inputs.len()..].fill(0.0));
        }
    }
}

/// Fills a panel with rows of a weight as they lie: `panel[feature · width + input]`.
#[inline(always)]
fn widen_rows<S: Simd>(simd: S, w: WeightRef<'_>, inputs: Range<usize>, features: Range<usize>, panel: &mut [f32]) {
    let width = panel.len() / features.len();
    let load = |at: usize| match w {
        WeightRef::F32(data, ..) => simd.load(&data[at..]),
        WeightRef::Bf16(data, ..) => simd.load_bf16(&data.reinterpret_cast()[at..]),
        WeightRef::F16(data, ..) => simd.load_f16(&data.reinterpret_cast()[at..]),
    };
    for (row, feature) in panel.chunks_exact_mut(width).zip(features) {
        for (v, lanes) in row.chunks_exact_mut(S::LANES).enumerate() {
            let first = inputs.start + v * S::LANES;
            if first + S::LANES <= inputs.end {
                simd.store(load(feature * w.cols() + first), lanes);
            } else {
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = if first + i < inputs.end { w.at(feature, first + i) } else { 0.0 };
                }
            }
        }
    }
}

/// Fills a panel from f32 rows `stride` apart.
#[inline(always)]
fn transpose_rows<S: Simd>(
    simd: S,
    data: &[f32],
    stride: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    panel: &mut [f32],
) {
    let width = panel.len() / depth.len();
    let mut tile = [simd.splat(0.0); MAX_LANES];
    let tile = &mut tile[..S::LANES];
    for first in (0..width).step_by(S::LANES) {
        let present = rows.len().saturating_sub(first).min(S::LANES);
        for k in depth.clone().step_by(S::LANES) {
            let len = (depth.end - k).min(S::LANES);
            let at = (rows.start + first) * stride + k;
            if present == S::LANES && len == S::LANES {
                simd.load_transposed(&data[at..], stride, tile);
            } else {
                partial_tile(
                    simd,
                    tile,
                    present,
                    #[inline(always)]
                    |r| simd.load_partial(&data[at + r * stride..][..len]),
                );
            }
            store_columns(simd, tile, &mut panel[(k - depth.start) * width..], width, first, len);
        }
    }
}

/// Fills a panel from bf16 rows: pairs are transposed as 32-bit units, two inputs for one shuffle.
#[inline(always)]
fn fill_bf16<S: Simd>(
    simd: S,
    data: &[u16],
    stride: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    panel: &mut [f32],
) {
    let width = panel.len() / depth.len();
    let paired = depth.len() / (2 * S::LANES) * 2 * S::LANES;
    let mut pairs = [simd.splat_u32(0); MAX_LANES];
    for first in (0..width).step_by(S::LANES) {
        if rows.len() < first + S::LANES {
            continue;
        }
        for step in (0..paired).step_by(2 * S::LANES) {
            let at = (rows.start + first) * stride + depth.start + step;
            simd.load_transposed_pairs(&data[at..], stride, &mut pairs[..S::LANES]);
            let out = panel[step * width..].chunks_exact_mut(2 * width);
            for (out, &pair) in out.zip(&pairs[..S::LANES]) {
                simd.store(simd.from_bits(simd.shl(pair, 16)), &mut out[first..]);
                let odd = simd.from_bits(simd.and(pair, simd.splat_u32(0xffff_0000)));
                simd.store(odd, &mut out[width + first..]);
            }
        }
    }
    // What whole pairs of vectors did not cover: a last partial group of features, the last inputs.
    let load = |at: usize, len: usize| {
        let mut lanes = [0; MAX_LANES];
        lanes[..len].copy_from_slice(&data[at..at + len]);
        simd.load_bf16(&lanes)
    };
    let full = rows.len() / S::LANES * S::LANES;
    if paired < depth.len() {
        let (rest, from) = (&mut panel[paired * width..], depth.start + paired);
        fill_by_rows(simd, stride, rows.clone(), from..depth.end, rest, load);
    }
    if full < width {
        fill_columns(
            simd,
            stride,
            rows.start + full..rows.end,
            depth.start..depth.start + paired,
            panel,
            full,
            width,
            load,
        );
    }
}

/// Fills a panel from rows that are loaded as vectors by `load(element offset, length)`.
#[inline(always)]
fn fill_by_rows<S: Simd>(
    simd: S,
    stride: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    panel: &mut [f32],
    load: impl Fn(usize, usize) -> S::F32,
) {
    let width = panel.len() / depth.len();
    fill_columns(simd, stride, rows, depth, panel, 0, width, load);
}

/// As [`fill_by_rows`] for the panel's columns from `from` to `width`, which hold `rows`.
#[expect(clippy::too_many_arguments, reason = "one rectangle of one panel; a struct would only rename it")]
#[inline(always)]
fn fill_columns<S: Simd>(
    simd: S,
    stride: usize,
    rows: Range<usize>,
    depth: Range<usize>,
    panel: &mut [f32],
    from: usize,
    width: usize,
    load: impl Fn(usize, usize) -> S::F32,
) {
    let mut tile = [simd.splat(0.0); MAX_LANES];
    let tile = &mut tile[..S::LANES];
    for first in (from..width).step_by(S::LANES) {
        let present = (rows.len() + from).saturating_sub(first).min(S::LANES);
        for k in depth.clone().step_by(S::LANES) {
            let len = (depth.end - k).min(S::LANES);
            partial_tile(
                simd,
                tile,
                present,
                #[inline(always)]
                |r| load((rows.start + first - from + r) * stride + k, len),
            );
            store_columns(simd, tile, &mut panel[(k - depth.start) * width..], width, first, len);
        }
    }
}

/// Transposes a tile of which only the first `present` rows exist.
#[inline(always)]
fn partial_tile<S: Simd>(simd: S, tile: &mut [S::F32], present: usize, load: impl Fn(usize) -> S::F32) {
    for (r, row) in tile.iter_mut().enumerate() {
        *row = if r < present { load(r) } else { simd.splat(0.0) };
    }
    simd.transpose(tile);
}

/// Writes the first `len` vectors of a transposed tile to consecutive `k` of a panel.
#[inline(always)]
fn store_columns<S: Simd>(simd: S, tile: &[S::F32], panel: &mut [f32], width: usize, first: usize, len: usize) {
    for (out, &column) in panel.chunks_exact_mut(width).zip(&tile[..len]) {
        simd.store(column, &mut out[first..]);
    }
}
