//! Matrix products by definition.

use super::Real;
use crate::simd::Scalar;

/// `y[i][j] = Σₖ x(i, k) · w(j, k)`: one chain of fused multiply-adds over `k` ascending from
/// `start(i, j)`, row-major `[m, n]`.
pub fn product<R: Real>(
    (m, k, n): (usize, usize, usize),
    x: impl Fn(usize, usize) -> R,
    w: impl Fn(usize, usize) -> R,
    start: impl Fn(usize, usize) -> R,
) -> Vec<R> {
    let element = |i: usize, j: usize| (0..k).fold(start(i, j), |sum, k| x(i, k).mul_add(w(j, k), sum));
    (0..m * n).map(|at| element(at / n, at % n)).collect()
}

/// The same in profile `strict-bf16`: operands rounded, each pair's odd element first.
pub fn product_bf16(
    (m, k, n): (usize, usize, usize),
    x: impl Fn(usize, usize) -> f32,
    w: impl Fn(usize, usize) -> f32,
    start: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let round = |x| crate::kernels::round_bf16::operand(Scalar, x);
    let odd_first = |i: usize| if i ^ 1 < k { i ^ 1 } else { i };
    let (x, w) = (|i, k| round(x(i, odd_first(k))), |j, k| round(w(j, odd_first(k))));
    product((m, k, n), x, w, start)
}
