//! The exponential and what is made of it.

use super::super::Simd;
use super::{at_least, at_most, polynomial};

/// `x = n·ln 2 + r` with integral n and |r| ≤ ½·ln 2, as `expm1(r)` and the bits `n + bias`.
struct Reduced<S: Simd> {
    /// e^r − 1, to about half an ulp.
    expm1: S::F32,
    /// n + bias in the low bits, higher bits set: shift left by 23 to make an exponent.
    biased: S::U32,
}

/// 1.5·2²³: adding it rounds to an integer (halves to even) and leaves the integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Splits `x`, |x| < 2²¹, for the exponential; NaN gives a NaN `expm1`.
///
/// r is accurate to half an ulp: `x − n·LN_2` is exact (a multiple of 2⁻²⁵ below ½, one fused
/// operation), then the remainder of ln 2 beyond f32 is subtracted.
/// (e^r − 1 − r)/r² on |r| ≤ 0.3469: relative error of e^r − 1 at most 3.4e-9 = 0.06·2⁻²⁴.
#[inline(always)]
fn reduce<S: Simd>(simd: S, x: S::F32, bias: f32) -> Reduced<S> {
    const LN_2_LOW: f32 = -1.904_654_3e-9;
    const TAIL: [f32; 6] = [0.5, 0.166_666_36, 0.041_666_51, 0.008_341_509, 0.001_393_054_3, 0.000_150_473_38];
    let shift = simd.splat(ROUND + bias);
    let shifted = simd.mul_add(x, simd.splat(std::f32::consts::LOG2_E), shift);
    let n = simd.sub(shifted, shift);
    let r = simd.neg_mul_add(n, simd.splat(std::f32::consts::LN_2), x);
    let r = simd.neg_mul_add(n, simd.splat(LN_2_LOW), r);
    let tail = polynomial(simd, r, TAIL);
    Reduced { expm1: simd.mul_add(simd.mul(r, r), tail, r), biased: simd.to_bits(shifted) }
}

/// e^x and e^x − 1, each accurate relative to itself, for −80 ≤ x ≤ 80.
#[inline(always)]
pub(super) fn exp_and_expm1<S: Simd>(simd: S, x: S::F32) -> (S::F32, S::F32) {
    let Reduced { expm1, biased } = reduce(simd, x, 127.0);
    let scale = simd.from_bits(simd.shl(biased, 23));
    let exp = simd.mul_add(scale, expm1, scale);
    (exp, simd.mul_add(scale, expm1, simd.sub(scale, simd.splat(1.0))))
}

/// e^x for x ≤ 89.
#[inline(always)]
fn exp_below<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // e^−104 is below half the smallest subnormal.
    let Reduced { expm1, biased } = reduce(simd, at_least(simd, x, -104.0), 254.0);
    // 2ⁿ as the product of 2^⌊n/2⌋ and 2^⌈n/2⌉, both normal: the first multiplication is exact and the
    // second rounds once, into the subnormals or to infinity if need be.
    let floor = simd.shr(biased, 1);
    let ceil = simd.sub_u32(biased, floor);
    let scale = |biased| simd.from_bits(simd.shl(biased, 23));
    let mantissa = simd.add(expm1, simd.splat(1.0));
    simd.mul(simd.mul(mantissa, scale(floor)), scale(ceil))
}

/// eˣ. Overflows to ∞ above 88.72283, underflows through the subnormals to +0 below −103.97.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // e^89 is beyond the largest f32.
    exp_below(simd, at_most(simd, x, 89.0))
}

/// The logistic function `1 / (1 + e⁻ˣ)`, accurate down to subnormal results.
///
/// With e = e^(−|x|) it is d = 1/(1 + e) for x > 0. Else it is e/(1 + e), written e − e·(e/(1 + e)) so
/// that the roundings of the quotient are scaled by e, which is small where the plain quotient is worst.
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let one = simd.splat(1.0);
    let small = exp_below(simd, simd.neg(simd.abs(x)));
    let positive = simd.gt(x, simd.splat(0.0));
    let quotient = simd.div(simd.select(positive, one, small), simd.add(one, small));
    simd.select(positive, quotient, simd.neg_mul_add(small, quotient, small))
}

/// The hyperbolic tangent.
///
/// With e = e^(−2|x|) and t = tanh |x| = (1 − e)/(1 + e): up to |x| = 1 it is h + h·t with h = (1 − e)/2,
/// so that the roundings of the quotient t are scaled by h, which vanishes with x; above it is
/// 1 − 2e/(1 + e), where those roundings are scaled by e, which vanishes at the other end.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let one = simd.splat(1.0);
    // tanh 10 rounds to 1.
    let magnitude = at_most(simd, simd.abs(x), 10.0);
    let (exp, expm1) = exp_and_expm1(simd, simd.mul(magnitude, simd.splat(-2.0)));
    let large = simd.gt(magnitude, one);
    let numerator = simd.select(large, simd.add(exp, exp), expm1);
    let quotient = simd.div(numerator, simd.add(exp, one));
    let scale = simd.select(large, one, simd.mul(expm1, simd.splat(-0.5)));
    simd.copysign(simd.neg_mul_add(scale, quotient, scale), x)
}
