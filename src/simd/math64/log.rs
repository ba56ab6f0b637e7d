//! The natural logarithm.

use std::f64::consts::LN_2;

use super::{LN_2_LOW, polynomial};

/// ln x; −∞ at ±0, NaN below.
///
/// x = 2ⁿ·(1 + f) with √½ ≤ 1 + f < √2; with s = f/(2 + f), ln(1 + f) = 2·artanh s = 2s + s·R(s²), and
/// 2s = f − f²/2 + s·f²/2 keeps the leading term exact.
/// R(z)/z on 0 ≤ z ≤ 0.02945: relative error of ln(1 + f) at most 1.3e-18 = 2⁻⁵⁹·⁴.
#[inline(always)]
pub fn ln(x: f64) -> f64 {
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    const TAIL: [f64; 7] = [
        0.666_666_666_666_673_4,
        0.399_999_999_994_164_2,
        0.285_714_287_421_110_8,
        0.222_221_985_938_641_26,
        0.181_835_635_499_856_46,
        0.153_140_643_412_672_18,
        0.147_958_620_761_173_32,
    ];
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x <= 0.0 {
        return if x == 0.0 { f64::NEG_INFINITY } else { f64::NAN };
    }
    // Subnormals are scaled by 2⁵⁴, which counts as 54 less in the exponent.
    let (normal, bias) = if x < f64::MIN_POSITIVE { (x * 18_014_398_509_481_984.0, 1077) } else { (x, 1023) };
    // Rebased so that the exponent field changes at √½ instead of at 1.
    let bits = normal.to_bits() + (ONE - SQRT_HALF);
    let n = f64::from((bits >> 52) as i32 - bias);
    let f = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + SQRT_HALF) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let half_square = 0.5 * f * f;
    let tail = s.mul_add(z.mul_add(polynomial(z, TAIL), half_square), n * LN_2_LOW);
    n.mul_add(LN_2, f - (half_square - tail))
}
