//! Masked softmax over the keys of ragged sequences.
//!
//! A score matrix `[T, L]` holds one row per query; column `j` of a row is key `j` of the query's own
//! sequence, so rows are as wide as the longest sequence and a row's columns past its own keys do not
//! exist.
//!
//! *What must stay true* (contract C1). The row maximum comes first, then `e = exp(s − max)`, then the
//! denominator, whose virtual lane is the key's position in its own sequence mod 16, then one division.
//! A masked key is skipped: its score is not read and its probability is +0. Scores of −∞ are ordinary
//! numbers, but a row of nothing else is NaN, as 0/0 is.

use std::ops::Range;

use rayon::prelude::*;

use super::{Context, Mask, reduce};
use crate::{
    simd::{Simd, SimdOp, VIRTUAL_LANES, math},
    tensor::{MatMut, MatRef, Sequences},
};

/// Rows per parallel task; any number gives the same bits.
const ROWS: usize = 16;

/// `p = softmax(s)` over the keys each query sees; +0 elsewhere.
///
/// `scores` and `p` are `[T, L]`.
///
/// # Panics
/// If the shapes differ, or `T` rows or `L` columns do not fit `sequences`.
pub fn forward(cx: &Context, mask: Mask, sequences: &Sequences, scores: MatRef, p: MatMut) {
    check(sequences, scores, &p);
    for_rows(mask, sequences, p, |row, visible, out| {
        cx.isa.dispatch(Forward { scores: scores.row(row), visible, out });
    });
}

/// `ṗ = p ⊙ (ṡ − ⟨p, ṡ⟩)`: the change of `p` along `scores_dot`.
///
/// All matrices are `[T, L]`; `p` is what [`forward`] gave, its zeros included.
///
/// # Panics
/// As [`forward`].
pub fn tangent(cx: &Context, mask: Mask, sequences: &Sequences, p: MatRef, scores_dot: MatRef, p_dot: MatMut) {
    check(sequences, scores_dot, &p_dot);
    check(sequences, p, &p_dot);
    for_rows(mask, sequences, p_dot, |row, visible, out| {
        cx.isa.dispatch(JacobianProduct { p: p.row(row), x: scores_dot.row(row), visible, out });
    });
}

/// `s̄ = p ⊙ (p̄ − ⟨p, p̄⟩)`: the gradient of the scores from the gradient of the probabilities.
///
/// The Jacobian of softmax is symmetric: this is [`tangent`] under its other name.
///
/// # Panics
/// As [`forward`].
pub fn backward(cx: &Context, mask: Mask, sequences: &Sequences, p: MatRef, p_bar: MatRef, scores_bar: MatMut) {
    tangent(cx, mask, sequences, p, p_bar, scores_bar);
}

fn check(sequences: &Sequences, input: MatRef, output: &MatMut) {
    let longest = sequences.iter().map(|rows| rows.len()).max().unwrap_or(0);
    assert!(
        (input.rows(), input.cols()) == (output.rows(), output.cols())
            && input.rows() == sequences.total()
            && input.cols() >= longest,
        "softmax from [{}, {}] to [{}, {}] over {} rows of sequences of at most {longest} keys",
        input.rows(),
        input.cols(),
        output.rows(),
        output.cols(),
        sequences.total(),
    );
}

fn for_rows(mask: Mask, sequences: &Sequences, out: MatMut, op: impl Fn(usize, Range<usize>, &mut [f32]) + Sync) {
    let visible = sequences.iter().flat_map(|rows| {
        let keys = rows.len();
        (0..keys).map(move |position| mask.visible(position, keys))
    });
    let mut rows: Vec<_> = out.into_rows().zip(visible).collect();
    rows.par_chunks_mut(ROWS).enumerate().for_each(|(chunk, rows)| {
        for (i, (out, visible)) in rows.iter_mut().enumerate() {
            op(chunk * ROWS + i, visible.clone(), out);
        }
    });
}

struct Forward<'a> {
    scores: &'a [f32],
    visible: Range<usize>,
    out: &'a mut [f32],
}

impl SimdOp for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Forward { scores, visible, out } = self;
        out.fill(0.0);
        out[visible.clone()].copy_from_slice(&scores[visible.clone()]);
        let denominator = exponentials(simd, out, visible.clone());
        divide(simd, &mut out[visible], denominator);
    }
}

struct JacobianProduct<'a> {
    p: &'a [f32],
    x: &'a [f32],
    visible: Range<usize>,
    out: &'a mut [f32],
}

impl SimdOp for JacobianProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let JacobianProduct { p, x, visible, out } = self;
        out.fill(0.0);
        out[visible.clone()].copy_from_slice(&x[visible.clone()]);
        jacobian_product(simd, p, out, visible);
    }
}

/// The columns of the whole groups of 16 virtual lanes that `visible` touches, within `len`.
#[inline(always)]
fn lane_groups(visible: &Range<usize>, len: usize) -> Range<usize> {
    let start = visible.start - visible.start % VIRTUAL_LANES;
    start..visible.end.next_multiple_of(VIRTUAL_LANES).min(len)
}

/// +0 in the columns of `groups` that are not visible: what a skipped key adds to a canonical reduction.
#[inline(always)]
fn clear_masked(row: &mut [f32], groups: &Range<usize>, visible: &Range<usize>) {
    row[groups.start..visible.start].fill(0.0);
    row[visible.end..groups.end].fill(0.0);
}

/// Replaces the visible scores of a row by `exp(s − max)` and returns their canonical sum. Other columns
/// of the groups of 16 that the visible ones touch become +0; they may hold anything before.
///
/// Column 0 of `row` is a key whose position is a multiple of 16.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, row: &mut [f32], visible: Range<usize>) -> f32 {
    // The sign of a zero maximum may depend on the instruction set; s − max then differs in the sign
    // of a zero only, and exp does not see that.
    let max = simd.splat(reduce::max(simd, &row[visible.clone()]));
    let groups = lane_groups(&visible, row.len());
    let mut chunks = row[groups.clone()].chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let e = math::exp(simd, simd.sub(simd.load(chunk), max));
        simd.store(e, chunk);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        let e = math::exp(simd, simd.sub(simd.load_partial(rest), max));
        simd.store_partial(e, rest);
    }
    clear_masked(row, &groups, &visible);
    reduce::sum(simd, &row[groups])
}

/// Divides every value by `denominator`.
#[inline(always)]
pub(super) fn divide<S: Simd>(simd: S, row: &mut [f32], denominator: f32) {
    let denominator = simd.splat(denominator);
    let mut chunks = row.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        simd.store(simd.div(simd.load(chunk), denominator), chunk);
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        simd.store_partial(simd.div(simd.load_partial(rest), denominator), rest);
    }
}

/// Replaces the visible `x` of a row by `p ⊙ (x − ⟨p, x⟩)`. `p` is +0 in the other columns of the
/// groups of 16 that the visible ones touch, and `row` becomes so. Column 0 as in [`exponentials`].
#[inline(always)]
pub(super) fn jacobian_product<S: Simd>(simd: S, p: &[f32], row: &mut [f32], visible: Range<usize>) {
    let groups = lane_groups(&visible, row.len());
    clear_masked(row, &groups, &visible);
    // A lane may underflow to −0; +0 makes a zero sum positive whether masked keys were skipped or added +0.
    let mean = simd.splat(reduce::dot(simd, &p[groups.clone()], &row[groups.clone()]) + 0.0);
    let mut chunks = row[groups.clone()].chunks_exact_mut(S::LANES);
    let mut p_chunks = p[groups.clone()].chunks_exact(S::LANES);
    for (chunk, p) in (&mut chunks).zip(&mut p_chunks) {
        simd.store(simd.mul(simd.load(p), simd.sub(simd.load(chunk), mean)), chunk);
    }
    let (rest, p) = (chunks.into_remainder(), p_chunks.remainder());
    if !rest.is_empty() {
        simd.store_partial(simd.mul(simd.load_partial(p), simd.sub(simd.load_partial(rest), mean)), rest);
    }
    clear_masked(row, &groups, &visible);
}
