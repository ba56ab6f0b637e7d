//! f32 elementary functions as fused polynomials, written once over [`Simd`].
//!
//! *What it is.* `exp`, `ln`, `tanh`, `erf` and `sigmoid` for softmax, losses and activations. Each is
//! a fixed sequence of exact or correctly rounded operations without branches, so all lanes, all
//! instruction sets and [`super::Scalar`] give the same bits.
//!
//! *What it is not.* Correctly rounded. The error stays within 2 ulp, subnormal inputs and results
//! included. Measured over every f32 between the ends where the functions are plain (1, x, ±1, ∞, 0):
//! exp 0.99, tanh 1.93, erf 1.59, sigmoid 1.66, and ln 0.88 over every f32 from 0.2 to 4.
//!
//! *What must stay true.* ±0, ±∞, NaN and subnormals behave as IEEE 754 recommends; `tanh` and `erf`
//! are exactly odd; NaN enters and leaves as NaN although `round` and `to_i32` are unspecified there:
//! clamps are compare-and-select, which keep NaN, and integers are only taken from the bits of a sum
//! whose float twin still carries the NaN.
//!
//! Coefficients are minimax fits: a Remez exchange on the weighted (relative) error in 60-digit
//! arithmetic, in which the coefficients are rounded to f32 one after another, lowest degree first,
//! and the remaining ones fitted again after each rounding. The error stated beside a table is that of
//! the rounded coefficients.

mod erf;
mod exp;
mod log;
#[cfg(test)]
mod tests;

pub use erf::erf;
pub use exp::{exp, sigmoid, tanh};
pub use log::ln;

use super::Simd;

/// `c[0] + c[1]·x + c[2]·x² + …` by Horner's rule. The kernels interleave many independent vectors, so
/// the fewest operations win over the shortest chain.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::F32, c: [f32; N]) -> S::F32 {
    let mut sum = simd.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        sum = simd.mul_add(sum, x, simd.splat(c));
    }
    sum
}

/// The smaller of `x` and `limit`, NaN if `x` is NaN: cheaper than [`Simd::min`], whose operands may
/// both be NaN.
#[inline(always)]
fn at_most<S: Simd>(simd: S, x: S::F32, limit: f32) -> S::F32 {
    let limit = simd.splat(limit);
    simd.select(simd.gt(x, limit), limit, x)
}

/// The larger of `x` and `limit`, NaN if `x` is NaN.
#[inline(always)]
fn at_least<S: Simd>(simd: S, x: S::F32, limit: f32) -> S::F32 {
    let limit = simd.splat(limit);
    simd.select(simd.lt(x, limit), limit, x)
}
