//! The error function.

use super::super::Simd;
use super::{at_most, exp::exp_and_expm1, polynomial};

/// The error function, as `1 − e^(−w(x))` with `w(x) = −ln(1 − erf x)`, which is a tame polynomial on
/// 0 ≤ x ≤ 4 and keeps the relative accuracy at both ends when `e^(−w) − 1` is computed as one function.
///
/// w(x) = (2/√π)·x + x²·P(x), P of degree 8: relative error of erf at most 6e-10 = 0.01·2⁻²⁴; 2/√π in
/// two pieces, as f32 alone would add an error of half an ulp.
#[inline(always)]
pub fn erf<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    const LINEAR: f32 = -std::f32::consts::FRAC_2_SQRT_PI;
    #[expect(clippy::approx_constant, reason = "fitted: one ulp from 2/π")]
    const TAIL: [f32; 10] = [
        5.863_538_3e-8,
        -0.636_619_8,
        -0.102_771_61,
        0.019_119_27,
        0.000_249_292_2,
        -0.001_794_316_1,
        0.000_736_779_53,
        -0.000_165_743_91,
        2.094_553_4e-5,
        -1.153_918_3e-6,
    ];
    // erf 4 rounds to 1.
    let t = at_most(simd, simd.abs(x), 4.0);
    let tail = simd.mul(t, polynomial(simd, t, TAIL));
    let exponent = simd.mul_add(t, simd.splat(LINEAR), tail);
    let (_, expm1) = exp_and_expm1(simd, exponent);
    simd.copysign(expm1, x)
}
