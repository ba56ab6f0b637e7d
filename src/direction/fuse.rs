//! Perturbed weights, made while a matmul packs them: no perturbed copy ever exists.

use std::{borrow::Cow, ops::Range};

use crate::{
    kernels::{
        Context,
        matmul::{DEPTH_BLOCK, PanelSource},
    },
    noise::{Law, PANEL_ROWS, TensorNoise},
    simd::{Simd, SimdOp, VIRTUAL_LANES},
    tensor::{MatRef, WeightRef},
};

/// A direction with one value per weight element.
#[derive(Clone, Copy, Debug)]
pub enum Dense<'a> {
    /// Keyed noise: element `[row, col]` of the weight gets element `[row, col]` of the noise.
    Noise(TensorNoise, Law),
    /// Values of the weight's own shape `[n, k]`.
    Explicit(MatRef<'a>),
    /// The stored weight itself, whatever earlier terms added to it.
    Weights,
}

impl<'a> Dense<'a> {
    /// Its row `row`, where `stored` is that of the weight.
    pub(super) fn row<'z>(self, cx: &Context, row: usize, stored: &'z [f32]) -> Cow<'z, [f32]>
    where
        'a: 'z,
    {
        match self {
            Dense::Noise(noise, law) => {
                let mut z = vec![0.0; stored.len()];
                noise.fill(cx.isa, law, row as u64..row as u64 + 1, 0..stored.len(), &mut z);
                Cow::Owned(z)
            }
            Dense::Explicit(values) => Cow::Borrowed(values.row(row)),
            Dense::Weights => Cow::Borrowed(stored),
        }
    }
}

/// Which elements of a weight `[n, k]` take part: one bit an element, row after row, each row starting
/// a new word.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    words: &'a [u32],
    words_per_row: usize,
}

impl<'a> Mask<'a> {
    /// A mask for `[rows, cols]`: bit `col % 32` of word `row · ⌈cols / 32⌉ + col / 32`.
    ///
    /// # Panics
    /// If `words` does not have `rows · ⌈cols / 32⌉` words.
    pub fn new(words: &'a [u32], rows: usize, cols: usize) -> Self {
        let words_per_row = cols.div_ceil(32);
        assert_eq!(words.len(), rows * words_per_row, "a mask of [{rows}, {cols}] over {} words", words.len());
        Mask { words, words_per_row }
    }

    /// Whether element (`row`, `col`) takes part.
    #[inline(always)]
    pub fn contains(&self, row: usize, col: usize) -> bool {
        self.words[row * self.words_per_row + col / 32] >> (col % 32) & 1 == 1
    }
}

/// One scaled direction of a displacement.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// The direction.
    pub direction: Dense<'a>,
    /// The scale in each branch, for example `[epsilon, -epsilon]`; a branch whose scale is 0 keeps its bits, the
    /// sign of its zeros included.
    pub coefficients: &'a [f32],
    /// Elements outside stay as they are.
    pub mask: Option<Mask<'a>>,
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
    /// If a term does not have a coefficient for each branch, or explicit values of another shape.
    pub fn new(weight: WeightRef<'a>, terms: &'a [Term<'a>], branches: usize) -> Self {
        for term in terms {
            let count = term.coefficients.len();
            assert_eq!(count, branches, "a term with {count} coefficients for {branches} branches");
            if let Dense::Explicit(z) = term.direction {
                assert!(
                    (z.rows(), z.cols()) == (weight.rows(), weight.cols()),
                    "a direction [{}, {}] for a weight [{}, {}]",
                    z.rows(),
                    z.cols(),
                    weight.rows(),
                    weight.cols()
                );
            }
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
                simd.vectorize(Fill {
                    weight: self.weight,
                    direction: term.direction,
                    rows: rows.clone(),
                    depth: depth.clone(),
                    z,
                });
                // The first term finds every branch's weight in panel 0, which it therefore writes last.
                let shared = index == 0;
                for (column, (k, z)) in depth.clone().zip(z.chunks_exact(PANEL_ROWS).enumerate()) {
                    for lane in (0..PANEL_ROWS).step_by(S::LANES) {
                        let (own, at) = (rows.start + lane..rows.end, k * width + offset + lane);
                        displace(simd, term, (own, column), simd.load(&z[lane..]), at, panels, shared);
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
                simd.vectorize(Fill { weight, direction, rows, depth: depth.clone(), z: &mut *z });
            }
            for (column, z) in panel.chunks_exact_mut(width).zip(z.chunks_exact(PANEL_ROWS)) {
                column[offset..offset + present].copy_from_slice(&z[..present]);
                column[offset + present..offset + own].fill(0.0);
            }
        }
    }
}

/// Makes sixteen rows of a direction, in the order of a panel: `z[(k − depth.start) · 16 + row]`. An operation
/// of its own, compiled once an instruction set whatever operand it is part of.
struct Fill<'a, 'z> {
    weight: WeightRef<'a>,
    direction: Dense<'a>,
    rows: Range<usize>,
    depth: Range<usize>,
    z: &'z mut [f32],
}

impl SimdOp for Fill<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Fill { weight, direction, rows, depth, z } = self;
        match direction {
            Dense::Noise(noise, law) => noise.fill_panel(simd, law, rows.start as u64, depth, z),
            Dense::Explicit(values) => values.fill(simd, rows, depth, &mut [z]),
            Dense::Weights => weight.fill(simd, rows, depth, &mut [z]),
        }
    }
}

/// `panel[b] = fma(c[b], z, base)` for one vector, rows `rows` of one column, of every branch `b`; `base` is
/// `panel[b]` itself or, if `shared`, what panel 0 held before. `at` is the vector's place in the panels.
#[inline(always)]
fn displace<S: Simd>(
    simd: S,
    term: &Term<'_>,
    (rows, column): (Range<usize>, usize),
    z: S::F32,
    at: usize,
    panels: &mut [&mut [f32]],
    shared: bool,
) {
    // Features past the end of the weight must stay +0.
    let partial = term.mask.is_some() || rows.len() < S::LANES;
    for branch in (0..panels.len()).rev() {
        let base = simd.load(&panels[if shared { 0 } else { branch }][at..]);
        let coefficient = term.coefficients[branch];
        let mut moved = if coefficient == 0.0 { base } else { simd.mul_add(simd.splat(coefficient), z, base) };
        if partial {
            let keep = |lane: usize| {
                let row = rows.start + lane;
                row < rows.end && term.mask.is_none_or(|mask| mask.contains(row, column))
            };
            moved = blend(simd, moved, base, keep);
        }
        simd.store(moved, &mut panels[branch][at..]);
    }
}

/// `moved` where `keep(lane)` holds, else `base`.
#[inline(always)]
fn blend<S: Simd>(simd: S, moved: S::F32, base: S::F32, keep: impl Fn(usize) -> bool) -> S::F32 {
    let mut lanes = [0_u32; VIRTUAL_LANES];
    for (i, lane) in lanes[..S::LANES].iter_mut().enumerate() {
        *lane = u32::from(keep(i));
    }
    let mask = simd.test(simd.load_u32(&lanes), simd.splat_u32(1));
    simd.select(mask, moved, base)
}
