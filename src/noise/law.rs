//! From 32-bit draws to values: the laws, in fixed fused arithmetic.
//!
//! Every operation is exact or rounded once, in one order, so the bits are those of every instruction
//! set. The polynomials are zofo's own minimax fits, coefficients rounded to f32 one after another with
//! the rest refitted; nothing is tuned to a CPU.

use crate::simd::{Simd, VIRTUAL_LANES};

/// A distribution of noise. All are symmetric about zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Law {
    /// Standard normal, |z| ≤ 6.56. Directions on the sphere are these divided by their norm
    /// ([`super::TensorNoise::squared_norm`]).
    Gaussian,
    /// −1 or +1.
    Rademacher,
    /// Uniform on (−1, 1), variance 1/3: the odd multiples of 2⁻²⁴, each exactly as likely.
    Uniform,
}

impl Law {
    /// Every law.
    pub const ALL: [Law; 3] = [Law::Gaussian, Law::Rademacher, Law::Uniform];
}

/// A law that makes two values from two draws: those of columns `2j` and `2j + 1`.
pub(super) trait PairLaw {
    /// `N` pairs at once. Written stage by stage over all of them, because one pair is a chain of some
    /// 80 cycles that no out-of-order window overlaps with the next by itself.
    fn pairs<S: Simd, const N: usize>(simd: S, even: [S::U32; N], odd: [S::U32; N]) -> [[S::F32; 2]; N];
}

/// [`Law::Uniform`]: each draw's upper 24 bits.
pub(super) struct Uniform;

impl PairLaw for Uniform {
    #[inline(always)]
    fn pairs<S: Simd, const N: usize>(simd: S, even: [S::U32; N], odd: [S::U32; N]) -> [[S::F32; 2]; N] {
        let mut z = [[simd.splat(0.0); 2]; N];
        for i in 0..N {
            z[i] = [uniform(simd, even[i]), uniform(simd, odd[i])];
        }
        z
    }
}

#[inline(always)]
fn uniform<S: Simd>(simd: S, draw: S::U32) -> S::F32 {
    // 2k + 1 − 2²⁴ for the 24-bit k is odd and below 2²⁴ in magnitude: all steps are exact.
    let odd = simd.or(simd.shr(draw, 7), simd.splat_u32(1));
    let centred = simd.sub_u32(odd, simd.splat_u32(1 << 24));
    simd.mul(simd.from_i32(centred), simd.splat(1.0 / 16_777_216.0))
}

/// [`Law::Gaussian`]: Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
///
/// The even draw's lower 31 bits are the radius and its sign bit the half-plane; the odd draw is the angle
/// within the half-plane, so that no quadrant has to be swapped.
pub(super) struct Gaussian;

impl PairLaw for Gaussian {
    #[inline(always)]
    fn pairs<S: Simd, const N: usize>(simd: S, even: [S::U32; N], odd: [S::U32; N]) -> [[S::F32; 2]; N] {
        let mut radius = minus_two_ln(simd, even);
        let mut angle = radius;
        let mut square = radius;
        for i in 0..N {
            let sign = simd.and(even[i], simd.splat_u32(0x8000_0000));
            radius[i] = simd.from_bits(simd.or(simd.to_bits(simd.sqrt(radius[i])), sign));
            // In quarter turns, [−1, 1].
            angle[i] = simd.mul(simd.from_i32(odd[i]), simd.splat(1.0 / 2_147_483_648.0));
            square[i] = simd.mul(angle[i], angle[i]);
        }
        let cos = horner(simd, square, &COS);
        let sin = horner(simd, square, &SIN);
        let mut z = [[radius[0]; 2]; N];
        for i in 0..N {
            z[i] = [simd.mul(radius[i], cos[i]), simd.mul(simd.mul(radius[i], angle[i]), sin[i])];
        }
        z
    }
}

/// −2·ln u ≥ 0 for u = (k | 1) / 2³¹ with `k` the lower 31 bits: relative error below 3·10⁻⁷.
///
/// The low bit makes u the midpoint of its cell, symmetric in (0, 1) and never zero. u is a power of two
/// times m in [3/4, 3/2), so that u = 1 gives exactly 0 and no u gives less.
#[inline(always)]
fn minus_two_ln<S: Simd, const N: usize>(simd: S, draws: [S::U32; N]) -> [S::F32; N] {
    /// 3/4 as bits, and 3/4 · 2³¹.
    const THREE_QUARTERS: u32 = 0x3f40_0000;
    const SCALED: u32 = THREE_QUARTERS + (31 << 23);
    let mut x = [simd.splat(0.0); N];
    let mut octaves = x;
    for i in 0..N {
        let odd = simd.or(simd.and(draws[i], simd.splat_u32(0x7fff_ffff)), simd.splat_u32(1));
        let distance = simd.sub_u32(simd.to_bits(simd.from_i32(odd)), simd.splat_u32(SCALED));
        // The exponent times 2²³, a negative integer, and the mantissa.
        let exponent = simd.from_i32(simd.and(distance, simd.splat_u32(0xff80_0000)));
        let mantissa = simd.add_u32(simd.and(distance, simd.splat_u32(0x007f_ffff)), simd.splat_u32(THREE_QUARTERS));
        x[i] = simd.sub(simd.from_bits(mantissa), simd.splat(1.0));
        octaves[i] = simd.mul(exponent, simd.splat(-2.0 * std::f32::consts::LN_2 / 8_388_608.0));
    }
    let series = horner(simd, x, &MINUS_TWO_LOG1P);
    for i in 0..N {
        x[i] = simd.mul_add(x[i], series[i], octaves[i]);
    }
    x
}

/// −2·ln(1 + x)/x on [−1/4, 1/2], lowest power first: relative error 1.8·10⁻⁷.
const MINUS_TWO_LOG1P: [f32; 8] =
    [-2.0000002, 1.0000042, -0.6665989, 0.4995435, -0.4021091, 0.34732473, -0.2827638, 0.13323602];

/// cos(π/2·√g) on [0, 1]: absolute error 6.2·10⁻⁸.
const COS: [f32; 5] = [0.99999994, -1.2336977, 0.25364742, -0.020804554, 0.0008548066];

/// sin(π/2·√g)/√g on [0, 1]: error 7.6·10⁻⁹ relative to √g.
#[expect(clippy::approx_constant, reason = "a fitted coefficient, one ulp below π/2")]
const SIN: [f32; 5] = [1.5707963, -0.6459628, 0.07968618, -0.004668947, 0.00014928299];

/// The polynomial with these coefficients, lowest power first, by Horner's rule.
#[inline(always)]
fn horner<S: Simd, const N: usize, const C: usize>(simd: S, x: [S::F32; N], coefficients: &[f32; C]) -> [S::F32; N] {
    let mut value = [simd.splat(coefficients[C - 1]); N];
    for power in (0..C - 1).rev() {
        for i in 0..N {
            value[i] = simd.mul_add(value[i], x[i], simd.splat(coefficients[power]));
        }
    }
    value
}

/// [`Law::Rademacher`]: columns per draw. Column `j` of a block is bit `j % 32` of draw `j / 32`.
pub(super) const SIGNS_PER_DRAW: usize = 32;

/// −1 where the lane's sign bit is set, else +1.
#[inline(always)]
pub(super) fn sign<S: Simd>(simd: S, x: S::U32) -> S::F32 {
    let sign = simd.and(x, simd.splat_u32(0x8000_0000));
    simd.from_bits(simd.or(sign, simd.to_bits(simd.splat(1.0))))
}

/// The sign bits of bit `bit + i` of `draw` in lane `i`.
#[inline(always)]
pub(super) fn bit_of_lane<S: Simd>(simd: S, draw: u32, bit: usize) -> S::U32 {
    let bits: [u32; VIRTUAL_LANES] = std::array::from_fn(|lane| lane as u32);
    let bits = simd.add_u32(simd.load_u32(&bits), simd.splat_u32(bit as u32));
    simd.shl(simd.rotate_right(simd.splat_u32(draw), bits), 31)
}
