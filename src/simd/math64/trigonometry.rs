//! Sine and cosine.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use super::{ROUND, polynomial};

/// The largest |x| whose [`sin`] and [`cos`] are promised, 2²⁰; beyond it they are NaN.
pub const LARGEST_ANGLE: f64 = 1_048_576.0;

/// `x − n·π/2` as an unevaluated sum of two f64, and n mod 4, for |x| ≤ [`LARGEST_ANGLE`].
///
/// π/2 in three f64, 159 bits (Cody and Waite, "Software Manual for the Elementary Functions", 1980,
/// with fused operations):
/// - n < 2²⁰, and `x − n·P₁` is a multiple of 2⁻⁵³ below 1: exact in one fused operation (for n ≠ 0,
///   x ≥ π/4 is a multiple of 2⁻⁵³, n·P₁ of 2⁻⁵²).
/// - n·P₂ is split exactly into a product and its rounding error, and subtracted by a `TwoSum`, which
///   is exact as well: nothing is lost where the first difference cancels.
/// - n·P₃ < 2⁻⁸⁸ has an error below 2⁻¹⁴¹, and so has everything omitted. No f64 up to 2²⁰ is nearer
///   than about 2⁻⁶⁷ to a multiple of π/2 (20 exponent bits times 2⁵² significands, at random), so the
///   sum is right to 2⁻⁷⁰ or better, relatively.
#[inline(always)]
fn reduce(x: f64) -> (f64, f64, u64) {
    const P2: f64 = 6.123_233_995_736_766e-17;
    const P3: f64 = -1.497_384_904_859_169_8e-33;
    let shifted = x.mul_add(FRAC_2_PI, ROUND);
    let n = shifted - ROUND;
    let first = (-n).mul_add(FRAC_PI_2, x);
    let product = -n * P2;
    let product_error = (-n).mul_add(P2, -product);
    let sum = first + product;
    let from_product = sum - first;
    let sum_error = (first - (sum - from_product)) + (product - from_product);
    (sum, (-n).mul_add(P3, sum_error + product_error), shifted.to_bits() & 3)
}

/// sin(r + low) for |r| ≤ π/4. (sin r − r)/r³ in r²: relative error of sin at most 3.8e-18 = 2⁻⁵⁷·⁹.
#[inline(always)]
fn sin_near_zero(r: f64, low: f64) -> f64 {
    const TAIL: [f64; 6] = [
        -0.166_666_666_666_666_3,
        0.008_333_333_333_321_84,
        -0.000_198_412_698_293_585_6,
        2.755_731_353_854_253e-6,
        -2.505_073_439_634_317e-8,
        1.589_543_384_938_619_4e-10,
    ];
    let z = r * r;
    // The derivative of sin, 1 − r²/2, suffices for a `low` of half an ulp.
    let correction = (-0.5_f64).mul_add(z, 1.0) * low;
    r + (z * r).mul_add(polynomial(z, TAIL), correction)
}

/// cos(r + low) for |r| ≤ π/4. (cos r − 1 + r²/2)/r⁴ in r²: error of cos at most 5.7e-20 = 2⁻⁶³·⁹.
#[inline(always)]
fn cos_near_zero(r: f64, low: f64) -> f64 {
    const TAIL: [f64; 6] = [
        0.041_666_666_666_666_595,
        -0.001_388_888_888_887_334,
        2.480_158_728_899_96e-5,
        -2.755_731_421_605_210_4e-7,
        2.087_570_523_050_141e-9,
        -1.135_873_925_967_157_9e-11,
    ];
    let z = r * r;
    let half = 0.5 * z;
    let leading = 1.0 - half;
    // What rounding `1 − z/2` lost (exact, as 1 > z/2), and the derivative, −sin r ≈ −r, times `low`.
    let lost = (1.0 - leading) - half;
    leading + (z * z).mul_add(polynomial(z, TAIL), (-r).mul_add(low, lost))
}

/// The sine of `x` radians; NaN beyond [`LARGEST_ANGLE`].
#[inline(always)]
pub fn sin(x: f64) -> f64 {
    if x.abs() < 7.450_580_596_923_828e-9 {
        // Below 2⁻²⁷, x³/6 is less than a hundredth of an ulp; keeps −0.
        return x;
    }
    if x.abs() <= LARGEST_ANGLE { turned(x, 0) } else { f64::NAN }
}

/// The cosine of `x` radians; NaN beyond [`LARGEST_ANGLE`].
#[inline(always)]
pub fn cos(x: f64) -> f64 {
    if x.abs() <= LARGEST_ANGLE { turned(x, 1) } else { f64::NAN }
}

/// sin(x + quarters·π/2).
#[inline(always)]
fn turned(x: f64, quarters: u64) -> f64 {
    let (r, low, quadrant) = reduce(x);
    let quadrant = quadrant + quarters;
    let value = if quadrant & 1 == 0 { sin_near_zero(r, low) } else { cos_near_zero(r, low) };
    if quadrant & 2 == 0 { value } else { -value }
}
