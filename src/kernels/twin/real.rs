//! The two number types of a definition.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::simd::{Scalar, VIRTUAL_LANES, math, math64};

/// f32 with zofo's own elementary functions, or f64.
pub trait Real:
    Copy
    + PartialOrd
    + Default
    + std::fmt::Debug
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Rounds to this type.
    fn from_f64(x: f64) -> Self;
    /// Widens (exact).
    fn to_f64(self) -> f64;
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The IEEE square root.
    fn sqrt(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// `1 / (1 + e⁻ˣ)`.
    fn sigmoid(self) -> Self;
    /// The larger value; NaN if either is.
    fn max(self, other: Self) -> Self;
}

/// The canonical sum of `n` terms: padded with +0 to a multiple of 16, term `i` in lane `i % 16`,
/// each lane a chain from +0, lanes folded by halves.
pub fn canonical_sum<R: Real>(n: usize, term: impl Fn(usize) -> R) -> R {
    canonical_fold(n, |lane, i| lane + term(i), |lane| lane + R::default())
}

/// The canonical dot product of `a` and `b`: as [`canonical_sum`], each lane a chain of fused multiply-adds.
pub fn canonical_dot<R: Real>(a: &[R], b: &[R]) -> R {
    let zero = R::default();
    canonical_fold(a.len(), |lane, i| a[i].mul_add(b[i], lane), |lane| zero.mul_add(zero, lane))
}

fn canonical_fold<R: Real>(n: usize, step: impl Fn(R, usize) -> R, pad: impl Fn(R) -> R) -> R {
    let mut lanes = [R::default(); VIRTUAL_LANES];
    for i in 0..n.next_multiple_of(VIRTUAL_LANES) {
        let lane = &mut lanes[i % VIRTUAL_LANES];
        *lane = if i < n { step(*lane, i) } else { pad(*lane) };
    }
    let mut width = VIRTUAL_LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = lanes[i] + lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

impl Real for f32 {
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn mul_add(self, b: f32, c: f32) -> f32 {
        f32::mul_add(self, b, c)
    }
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn exp(self) -> f32 {
        math::exp(Scalar, self)
    }
    fn ln(self) -> f32 {
        math::ln(Scalar, self)
    }
    fn tanh(self) -> f32 {
        math::tanh(Scalar, self)
    }
    fn erf(self) -> f32 {
        math::erf(Scalar, self)
    }
    fn sigmoid(self) -> f32 {
        math::sigmoid(Scalar, self)
    }
    fn max(self, other: f32) -> f32 {
        if self.is_nan() || other.is_nan() { f32::NAN } else { f32::max(self, other) }
    }
}

impl Real for f64 {
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn mul_add(self, b: f64, c: f64) -> f64 {
        f64::mul_add(self, b, c)
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn exp(self) -> f64 {
        math64::exp(self)
    }
    fn ln(self) -> f64 {
        math64::ln(self)
    }
    fn tanh(self) -> f64 {
        math64::tanh(self)
    }
    fn erf(self) -> f64 {
        math64::erf(self)
    }
    fn sigmoid(self) -> f64 {
        1.0 / (1.0 + math64::exp(-self))
    }
    fn max(self, other: f64) -> f64 {
        if self.is_nan() || other.is_nan() { f64::NAN } else { f64::max(self, other) }
    }
}
