//! The natural logarithm.

use super::super::Simd;
use super::polynomial;

/// ln x; −∞ at ±0, NaN below.
///
/// x = 2ⁿ·(1 + f) with √½ ≤ 1 + f < √2, and ln x = n·ln 2 + ln(1 + f).
/// (ln(1 + f) − f)/f² on that range: relative error of ln(1 + f) at most 5e-9 = 0.08·2⁻²⁴.
#[inline(always)]
pub fn ln<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const LN_2_LOW: f32 = -1.904_654_3e-9;
    const SQRT_HALF: u32 = 0x3f35_04f3;
    const ONE: u32 = 0x3f80_0000;
    const TAIL: [f32; 9] = [
        -0.499_999_88,
        0.333_333_37,
        -0.250_016_4,
        0.200_012_06,
        -0.166_066_9,
        0.141_961_47,
        -0.132_806_45,
        0.128_246_22,
        -0.074_227_74,
    ];
    // Subnormals are scaled by 2²³, which counts as 23 less in the exponent.
    let subnormal = simd.lt(x, simd.splat(f32::MIN_POSITIVE));
    let normal = simd.select(subnormal, simd.mul(x, simd.splat(8_388_608.0)), x);
    let bias = simd.select(subnormal, simd.splat(-150.0), simd.splat(-127.0));
    // Rebased so that the exponent field changes at √½ instead of at 1.
    let bits = simd.add_u32(simd.to_bits(normal), simd.splat_u32(ONE - SQRT_HALF));
    let n = simd.add(simd.from_i32(simd.shr(bits, 23)), bias);
    let mantissa = simd.add_u32(simd.and(bits, simd.splat_u32(0x007f_ffff)), simd.splat_u32(SQRT_HALF));
    let f = simd.sub(simd.from_bits(mantissa), simd.splat(1.0));
    let tail = simd.mul_add(simd.mul(f, f), polynomial(simd, f, TAIL), simd.mul(n, simd.splat(LN_2_LOW)));
    let result = simd.mul_add(n, simd.splat(std::f32::consts::LN_2), simd.add(f, tail));
    // ∞ and NaN answer themselves; then negative numbers, then zeros.
    let result = simd.select(simd.lt(x, simd.splat(f32::INFINITY)), result, x);
    let result = simd.select(simd.lt(x, simd.splat(0.0)), simd.splat(f32::NAN), result);
    simd.select(simd.eq(x, simd.splat(0.0)), simd.splat(f32::NEG_INFINITY), result)
}
