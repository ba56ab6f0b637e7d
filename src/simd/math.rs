//! f32 elementary functions as fused polynomials.

use super::Simd;

/// eˣ.
#[inline(always)]
pub fn exp<S: Simd>(_simd: S, x: S::F32) -> S::F32 {
    x
}
/// Natural logarithm.
#[inline(always)]
pub fn ln<S: Simd>(_simd: S, x: S::F32) -> S::F32 {
    x
}
/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<S: Simd>(_simd: S, x: S::F32) -> S::F32 {
    x
}
/// Error function.
#[inline(always)]
pub fn erf<S: Simd>(_simd: S, x: S::F32) -> S::F32 {
    x
}
/// Logistic function.
#[inline(always)]
pub fn sigmoid<S: Simd>(_simd: S, x: S::F32) -> S::F32 {
    x
}
