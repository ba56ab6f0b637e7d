//! The seam where fusion happens: whatever can fill a panel can be multiplied by.
//!
//! A panel is `width` output features by a range of `k`, k-major: `panel[k · width + feature]`. The
//! micro-tile never learns whether it came from f32, bf16 or f16 storage, or was perturbed on the way.

use std::ops::Range;

use crate::{
    kernels::storage,
    simd::Simd,
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
            WeightRef::F32(data, _, stride) => storage::fill_panel(simd, data, stride, rows, depth, panel),
            WeightRef::Bf16(data, _, stride) => storage::fill_panel(simd, data, stride, rows, depth, panel),
            WeightRef::F16(data, _, stride) => storage::fill_panel(simd, data, stride, rows, depth, panel),
        }
    }
}

/// A matrix `[n, k]` is the right-hand operand of `a · bᵀ`.
impl PanelSource for MatRef<'_> {
    fn rows(&self) -> usize {
        MatRef::rows(*self)
    }
    fn cols(&self) -> usize {
        MatRef::cols(*self)
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let [panel] = panels else { unreachable!("a matrix has one branch") };
        storage::fill_panel(simd, self.data(), self.stride(), rows, depth, panel);
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
            storage::fill_panel(simd, matrix.data(), matrix.stride(), rows.clone(), depth.clone(), panel);
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
        storage::copy_panel(simd, self.0.data(), self.0.stride(), depth, rows, panel);
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
            return match weight {
                WeightRef::F32(data, _, stride) => storage::copy_panel(simd, data, stride, features, inputs, panel),
                WeightRef::Bf16(data, _, stride) => storage::copy_panel(simd, data, stride, features, inputs, panel),
                WeightRef::F16(data, _, stride) => storage::copy_panel(simd, data, stride, features, inputs, panel),
            };
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
