//! Canonical reductions over one row: 16 virtual lanes, one fixed tree (contract C1).

use crate::simd::{Simd, VIRTUAL_LANES, tree_max, tree_sum};

/// Folds `n` terms in canonical order. `step(lanes, i)` advances the vector of virtual lanes by the
/// `LANES` terms from `i` on; `last(lanes, i, len)` by the final `len < LANES` terms, the rest +0.
macro_rules! fold {
    ($simd:expr, $n:expr, $init:expr, $step:expr, $last:expr) => {{
        let vectors = VIRTUAL_LANES / S::LANES;
        let mut acc = [$init; VIRTUAL_LANES];
        let mut at = 0;
        while at + VIRTUAL_LANES <= $n {
            for (v, acc) in acc[..vectors].iter_mut().enumerate() {
                *acc = $step(*acc, at + v * S::LANES);
            }
            at += VIRTUAL_LANES;
        }
        if at < $n {
            for (v, acc) in acc[..vectors].iter_mut().enumerate() {
                let from = (at + v * S::LANES).min($n);
                let len = ($n - from).min(S::LANES);
                *acc = $last(*acc, from, len);
            }
        }
        let mut lanes = [0.0; VIRTUAL_LANES];
        for (chunk, acc) in lanes.chunks_exact_mut(S::LANES).zip(acc) {
            $simd.store(acc, chunk);
        }
        lanes
    }};
}

/// Σ xᵢ.
#[inline(always)]
pub fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    tree_sum(fold!(simd, x.len(), simd.splat(0.0), |acc, at| simd.add(acc, simd.load(&x[at..])), |acc, at, len| simd
        .add(acc, simd.load_partial(&x[at..at + len]))))
}

/// Σ (xᵢ − center)², each term one fused multiply-add into its lane.
#[inline(always)]
pub fn sum_squares<S: Simd>(simd: S, x: &[f32], center: f32) -> f32 {
    let center = simd.splat(center);
    tree_sum(fold!(
        simd,
        x.len(),
        simd.splat(0.0),
        |acc, at| {
            let d = simd.sub(simd.load(&x[at..]), center);
            simd.mul_add(d, d, acc)
        },
        |acc, at, len| {
            // Only real elements have a deviation: the pad is +0, not 0 − center.
            let mut lanes = [0.0; VIRTUAL_LANES];
            simd.store(simd.sub(simd.load_partial(&x[at..at + len]), center), &mut lanes);
            let d = simd.load_partial(&lanes[..len]);
            simd.mul_add(d, d, acc)
        }
    ))
}

/// Σ aᵢ·bᵢ, each term one fused multiply-add into its lane.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "a dot product of {} and {} values", a.len(), b.len());
    tree_sum(fold!(
        simd,
        a.len(),
        simd.splat(0.0),
        |acc, at| simd.mul_add(simd.load(&a[at..]), simd.load(&b[at..]), acc),
        |acc, at, len| simd.mul_add(simd.load_partial(&a[at..at + len]), simd.load_partial(&b[at..at + len]), acc)
    ))
}

/// The largest value, −∞ of none; NaN if any is NaN.
#[inline(always)]
pub fn max<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let pad = [f32::NEG_INFINITY; VIRTUAL_LANES];
    tree_max(fold!(
        simd,
        x.len(),
        simd.splat(f32::NEG_INFINITY),
        |acc, at| simd.max(acc, simd.load(&x[at..])),
        |acc, at, len: usize| {
            let mut lanes = pad;
            lanes[..len].copy_from_slice(&x[at..at + len]);
            simd.max(acc, simd.load(&lanes))
        }
    ))
}
