//! The definition of one row of the masked softmax.

use std::ops::Range;

use super::{Real, canonical_dot, canonical_sum};

/// The exponentials e^(s − max) of the visible keys, +0 for all others, and their canonical sum.
pub fn exponentials<R: Real>(scores: &[R], visible: Range<usize>) -> (Vec<R>, R) {
    let max = visible.clone().fold(R::from_f64(f64::NEG_INFINITY), |max, j| max.max(scores[j]));
    let mut e = vec![R::default(); scores.len()];
    for j in visible.clone() {
        e[j] = (scores[j] - max).exp();
    }
    let denominator = canonical_sum(visible.end, |j| e[j]);
    (e, denominator)
}

/// Softmax of the visible scores, +0 for all others.
pub fn forward<R: Real>(scores: &[R], visible: Range<usize>) -> Vec<R> {
    let (mut p, denominator) = exponentials(scores, visible.clone());
    for p in &mut p[visible] {
        *p = *p / denominator;
    }
    p
}

/// The softmax Jacobian at output `p` times `x`: `p ⊙ (x − ⟨p, x⟩)`. The Jacobian is symmetric, so this
/// is the tangent of `x = ṡ` and the backward of `x = p̄`.
pub fn jacobian_product<R: Real>(p: &[R], x: &[R], visible: Range<usize>) -> Vec<R> {
    let only_visible = |x: &[R]| -> Vec<R> {
        (0..visible.end).map(|j| if visible.contains(&j) { x[j] } else { R::default() }).collect()
    };
    // Adding +0 makes a zero sum positive: keys that are skipped and keys that add +0 are then the same.
    let mean = canonical_dot(&only_visible(p), &only_visible(x)) + R::default();
    (0..p.len()).map(|j| if visible.contains(&j) { p[j] * (x[j] - mean) } else { R::default() }).collect()
}
