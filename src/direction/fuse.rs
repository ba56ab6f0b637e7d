//! Perturbed weights, made while a matmul packs them: no perturbed copy ever exists.

use std::ops::Range;

pub use super::dense::{Dense, Mask, Source};
use super::dense::{FillPanel, blend};
use crate::{
    kernels::matmul::{DEPTH_BLOCK, PanelSource},
    noise::PANEL_ROWS,
    simd::Simd,
    tensor::WeightRef,
};

/// One scaled direction of a displacement.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// The direction.
    pub direction: Dense<'a>,
    /// The scale in each branch, for example `[epsilon, -epsilon]`; a branch whose scale is 0 keeps its bits, the
    /// sign of its zeros included.
    pub coefficients: &'a [f32],
}

/// `W + Σ cᵢ·zᵢ` for each of several branches that differ in the coefficients only: the noise of a
/// panel is generated once for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Perturbed<'a> {
    weight: WeightRef<'a>,
    terms: &'a [Term<'a>],
    branches: usize,
}

impl<'a> Perturbed<'a> {
    /// `branches` operands over one weight.
    ///
    /// # Panics
    /// If a term does not have a coefficient for each branch, or values, a scale, a mask or an anchor of another shape.
    pub fn new(weight: WeightRef<'a>, terms: &'a [Term<'a>], branches: usize) -> Self {
        for term in terms {
            let count = term.coefficients.len();
            assert_eq!(count, branches, "a term with {count} coefficients for {branches} branches");
            term.direction.check(weight);
        }
        Perturbed { weight, terms, branches }
    }

    /// The stored weight.
    pub fn weight(&self) -> WeightRef<'a> {
        self.weight
    }
    /// The terms, in order of application.
    pub fn terms(&self) -> &'a [Term<'a>] {
        self.terms
    }
}

impl PanelSource for Perturbed<'_> {
    fn rows(&self) -> usize {
        self.weight.rows()
    }
    fn cols(&self) -> usize {
        self.weight.cols()
    }
    fn branches(&self) -> usize {
        self.branches
    }
    fn as_weight(&self) -> Option<WeightRef<'_>> {
        (self.terms.is_empty() && self.branches == 1).then_some(self.weight)
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let (first, others) = panels.split_first_mut().expect("at least one branch");
        self.weight.fill(simd, rows.clone(), depth.clone(), &mut [first]);
        if self.terms.is_empty() {
            others.iter_mut().for_each(|panel| panel.copy_from_slice(first));
        }
        let mut direction = [0.0; DEPTH_BLOCK * PANEL_ROWS];
        let width = panels[0].len() / depth.len();
        for (index, term) in self.terms.iter().enumerate() {
            for offset in (0..width.min(rows.len())).step_by(PANEL_ROWS) {
                let rows = rows.start + offset..rows.end.min(rows.start + offset + PANEL_ROWS);
                let z = &mut direction[..depth.len() * PANEL_ROWS];
                simd.vectorize(FillPanel {
                    weight: self.weight,
                    direction: term.direction,
                    rows: rows.clone(),
                    depth: depth.clone(),
                    z,
                });
                // The first term finds every branch's weight in panel 0, which it therefore writes last.
                let shared = index == 0;
                let columns = z.chunks_exact(PANEL_ROWS).zip((offset..).step_by(width));
                if let Some(mask) = term.direction.mask {
                    let mut moving = [0; DEPTH_BLOCK];
                    mask.panel(rows, depth.clone(), &mut moving[..depth.len()]);
                    for ((z, at), moving) in columns.zip(moving) {
                        displace(simd, term.coefficients, z, moving, at, panels, shared);
                    }
                } else {
                    // Features past the end of the weight must stay +0.
                    let present = (1 << rows.len()) - 1;
                    for (z, at) in columns {
                        displace(simd, term.coefficients, z, present, at, panels, shared);
                    }
                }
            }
        }
    }
}

/// A direction alone as the operand of a matmul: what a tangent multiplies by.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The weight that it is a direction of.
    pub weight: WeightRef<'a>,
    /// The direction.
    pub direction: Dense<'a>,
}

impl PanelSource for Change<'_> {
    fn rows(&self) -> usize {
        self.weight.rows()
    }
    fn cols(&self) -> usize {
        self.weight.cols()
    }
    #[inline(always)]
    fn fill<S: Simd>(&self, simd: S, rows: Range<usize>, depth: Range<usize>, panels: &mut [&mut [f32]]) {
        let [panel] = panels else { unreachable!("a direction has one branch") };
        let width = panel.len() / depth.len();
        let mut scratch = [0.0; DEPTH_BLOCK * PANEL_ROWS];
        let z = &mut scratch[..depth.len() * PANEL_ROWS];
        let Change { weight, direction } = *self;
        for offset in (0..width).step_by(PANEL_ROWS) {
            // Features past the end of the weight are +0.
            let own = PANEL_ROWS.min(width - offset);
            let present = rows.len().saturating_sub(offset).min(own);
            if present > 0 {
                let rows = rows.start + offset..rows.start + offset + present;
                let depth = depth.clone();
                simd.vectorize(FillPanel { weight, direction, rows: rows.clone(), depth: depth.clone(), z: &mut *z });
                if let Some(mask) = direction.mask {
                    mask.clear(simd, rows, depth, z);
                }
            }
            for (column, z) in panel.chunks_exact_mut(width).zip(z.chunks_exact(PANEL_ROWS)) {
                column[offset..offset + present].copy_from_slice(&z[..present]);
                column[offset + present..offset + own].fill(0.0);
            }
        }
    }
}

/// `panel[b] = fma(c[b], z, base)` for the sixteen features from `at` on of every branch `b`, those that are bits of
/// `moving`; `base` is `panel[b]` itself or, if `shared`, what panel 0 held before.
#[inline(always)]
fn displace<S: Simd>(
    simd: S,
    coefficients: &[f32],
    z: &[f32],
    moving: u32,
    at: usize,
    panels: &mut [&mut [f32]],
    shared: bool,
) {
    let all = (1 << S::LANES) - 1;
    for lane in (0..PANEL_ROWS).step_by(S::LANES) {
        let (z, at, moving) = (simd.load(&z[lane..]), at + lane, moving >> lane);
        for branch in (0..panels.len()).rev() {
            let base = simd.load(&panels[if shared { 0 } else { branch }][at..]);
            let coefficient = coefficients[branch];
            let mut moved = if coefficient == 0.0 { base } else { simd.mul_add(simd.splat(coefficient), z, base) };
            if moving & all != all {
                moved = blend(simd, moving, moved, base);
            }
            simd.store(moved, &mut panels[branch][at..]);
        }
    }
}
