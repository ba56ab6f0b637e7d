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

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;
    use crate::{
        kernels::twin,
        testing::{assert_same_bits, awkward_values, directional_derivative, edge_length, everywhere, moderate_values},
    };

    const MASKS: &[Mask] =
        &[Mask::Bidirectional, Mask::Causal, Mask::Window(1), Mask::Window(5), Mask::Window(16), Mask::Window(40)];

    /// Sequences and the width of a score matrix for them.
    fn ragged() -> impl Strategy<Value = (Sequences, usize)> {
        (prop::collection::vec(edge_length().prop_filter("a short one", |n| *n < 50), 0..4), 0_usize..3).prop_map(
            |(lengths, spare)| {
                let longest = lengths.iter().copied().max().unwrap_or(0);
                (Sequences::from_lengths(lengths), longest + spare)
            },
        )
    }

    fn rows(mask: Mask, sequences: &Sequences) -> Vec<Range<usize>> {
        sequences.iter().flat_map(|rows| (0..rows.len()).map(move |i| mask.visible(i, rows.len()))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_instruction_set_has_the_bits_of_the_definition(
            mask in select(MASKS),
            (sequences, width, scores, dots) in ragged().prop_flat_map(|(sequences, width)| {
                let n = sequences.total() * width;
                (Just(sequences), Just(width), awkward_values(n), awkward_values(n))
            }),
        ) {
            let n = sequences.total();
            let row = |x: &[f32], r: usize| x[r * width..(r + 1) * width].to_vec();
            let visible = rows(mask, &sequences);
            let map = |f: &dyn Fn(usize, Range<usize>) -> Vec<f32>| -> Vec<f32> {
                visible.iter().enumerate().flat_map(|(r, visible)| f(r, visible.clone())).collect()
            };
            let p = map(&|r, visible| twin::softmax::forward(&row(&scores, r), visible));
            let expected = map(&|r, visible| twin::softmax::jacobian_product(&row(&p, r), &row(&dots, r), visible));
            everywhere(|cx, label| {
                let mut out = vec![f32::NAN; n * width];
                forward(cx, mask, &sequences, MatRef::new(&scores, n, width), MatMut::new(&mut out, n, width));
                assert_same_bits(&out, &p, format!("{label}, forward"));
                for product in [tangent, backward] {
                    let (p, x) = (MatRef::new(&p, n, width), MatRef::new(&dots, n, width));
                    product(cx, mask, &sequences, p, x, MatMut::new(&mut out, n, width));
                    assert_same_bits(&out, &expected, format!("{label}, Jacobian"));
                }
            });
        }

        #[test]
        fn the_jacobian_product_is_the_derivative(scores in moderate_values(11), dots in moderate_values(11)) {
            let seen = 2..9;
            let along = |t: f64| {
                let moved: Vec<f64> = scores.iter().zip(&dots).map(|(s, dot)| s + t * dot).collect();
                twin::softmax::forward(&moved, seen.clone())
            };
            let p = twin::softmax::forward(&scores, seen.clone());
            // s − max, at most 6, errs by 7e-16; exp by 2 ulp more; sum and quotient by 8 roundings of p ≤ 1.
            let estimates = directional_derivative(4e-15, along);
            let exact = twin::softmax::jacobian_product(&p, &dots, seen.clone());
            for (estimate, exact) in estimates.into_iter().zip(exact) {
                prop_assert!(estimate.admits(exact), "{estimate:?} does not admit {exact}");
            }
        }
    }

    #[test]
    fn equal_scores_share_equally_and_masked_keys_get_nothing() {
        let mut p = [f32::NAN; 16];
        let sequences = Sequences::from_lengths([4]);
        let cx = Context::new(crate::simd::Isa::fastest());
        forward(&cx, Mask::Causal, &sequences, MatRef::new(&[7.0; 16], 4, 4), MatMut::new(&mut p, 4, 4));
        let third = 1.0 / 3.0;
        assert_eq!(p, [1., 0., 0., 0., 0.5, 0.5, 0., 0., third, third, third, 0., 0.25, 0.25, 0.25, 0.25]);
    }

    #[test]
    #[should_panic(expected = "softmax from [2, 3] to [2, 3] over 4 rows of sequences of at most 4 keys")]
    fn rows_narrower_than_a_sequence_are_refused() {
        let sequences = Sequences::from_lengths([4]);
        check(&sequences, MatRef::new(&[0.0; 6], 2, 3), &MatMut::new(&mut [0.0; 6], 2, 3));
    }
}
