//! Rounding of f32 to bf16, as values: what a bf16 checkpoint or an operand of profile `strict-bf16` holds.
//!
//! *What it is not.* A storage format: results are f32 whose low 16 bits are zero; [`pair`] joins two of
//! them into the word that [`Simd::dot_bf16_pairs`] reads. Stochastic rounding is not here.
//!
//! *What must stay true.* Rounding is to nearest, ties to even; infinities stay, values beyond the
//! largest bf16 become infinite, a NaN stays a (quiet) NaN of the same sign. [`operand`] comes first of
//! all: the bits of every `strict-bf16` product depend on it.

use super::lanewise::{self, Lanewise};
use crate::simd::{Isa, Simd};

/// The smallest magnitude of a `strict-bf16` operand, 2⁻⁵⁵. A bf16 of at least this size is a multiple of
/// 2⁻⁶² (8 significant bits), so every product and partial sum is a multiple of 2⁻¹²⁴: above the subnormals
/// (below 2⁻¹²⁶) that the bf16 dot product instruction flushes to zero.
pub const SMALLEST_OPERAND: f32 = f32::from_bits((127 - 55) << 23);

/// `x` to the nearest bf16, ties to even.
#[inline(always)]
pub fn round<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let bits = simd.to_bits(x);
    // Adding just under half a unit of the last kept bit, or exactly half where that bit is odd, carries
    // into the kept bits exactly when nearest-even rounds up; the carry may run into the exponent.
    let odd = simd.and(simd.shr(bits, 16), simd.splat_u32(1));
    let carried = simd.add_u32(bits, simd.add_u32(odd, simd.splat_u32(0x7fff)));
    // A NaN payload must not carry into the sign, nor lose its only set bits.
    let quiet = simd.or(bits, simd.splat_u32(0x0040_0000));
    let kept = simd.select(simd.eq(x, x), simd.from_bits(carried), simd.from_bits(quiet));
    simd.from_bits(simd.and(simd.to_bits(kept), simd.splat_u32(0xffff_0000)))
}

/// `x` as an operand of profile `strict-bf16`: [`round`], then magnitudes below [`SMALLEST_OPERAND`]
/// become zero of the same sign.
#[inline(always)]
pub fn operand<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let rounded = round(simd, x);
    let zero = simd.from_bits(simd.and(simd.to_bits(x), simd.splat_u32(0x8000_0000)));
    // The comparison is false for NaN, which therefore stays.
    let tiny = simd.lt(simd.abs(rounded), simd.splat(SMALLEST_OPERAND));
    simd.select(tiny, zero, rounded)
}

/// Two vectors of rounded values as bf16 pairs: lane `i` is `even[i]` in the low half, `odd[i]` in the high.
#[inline(always)]
pub fn pair<S: Simd>(simd: S, even: S::F32, odd: S::F32) -> S::U32 {
    simd.or(simd.shr(simd.to_bits(even), 16), simd.to_bits(odd))
}

/// Rounds every value of `x` to bf16 in place.
pub fn round_slice(isa: Isa, x: &mut [f32]) {
    lanewise::run(isa, Round, [], x);
}

/// Makes every value of `x` an operand of profile `strict-bf16` in place.
pub fn operand_slice(isa: Isa, x: &mut [f32]) {
    lanewise::run(isa, Operand, [], x);
}

#[derive(Clone, Copy)]
struct Round;
impl Lanewise<0, 1> for Round {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, _: [S::F32; 0], [x]: [S::F32; 1]) -> [S::F32; 1] {
        [round(simd, x)]
    }
}

#[derive(Clone, Copy)]
struct Operand;
impl Lanewise<0, 1> for Operand {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, _: [S::F32; 0], [x]: [S::F32; 1]) -> [S::F32; 1] {
        [operand(simd, x)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        kernels::twin,
        simd::SimdOp,
        testing::{assert_same_bits, awkward_values, edge_length, everywhere},
    };

    /// Every bf16, the exact midpoint above it, and both neighbours of that midpoint.
    fn all_decision_points() -> Vec<f32> {
        (0..=u16::MAX)
            .flat_map(|high| [0x0000_u32, 0x7fff, 0x8000, 0x8001].map(|low| u32::from(high) << 16 | low))
            .map(f32::from_bits)
            .collect()
    }

    #[test]
    fn rounding_agrees_with_its_definition_at_every_midpoint_and_beside_it() {
        let points = all_decision_points();
        let nearest: Vec<f32> = points.iter().map(|&x| twin::round_bf16::round(x)).collect();
        let operands: Vec<f32> = points.iter().map(|&x| twin::round_bf16::operand(x)).collect();
        everywhere(|cx, label| {
            let mut x = points.clone();
            round_slice(cx.isa, &mut x);
            assert_same_bits(&x, &nearest, format_args!("round, {label}"));
            let mut x = points.clone();
            operand_slice(cx.isa, &mut x);
            assert_same_bits(&x, &operands, format_args!("operand, {label}"));
        });
    }

    #[test]
    fn a_nan_stays_a_quiet_nan_and_keeps_its_sign() {
        // Patterns whose payload would vanish (low bits only) or carry into the sign (all ones).
        let nans = [0x7f80_0001, 0x7f80_ffff, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff_u32].map(f32::from_bits);
        everywhere(|cx, label| {
            let mut x = nans;
            operand_slice(cx.isa, &mut x);
            for (x, nan) in x.iter().zip(nans) {
                let quiet = x.is_nan() && x.to_bits() & 0x0040_0000 != 0;
                assert!(quiet && x.is_sign_negative() == nan.is_sign_negative(), "{nan:?} became {x:?}, {label}");
            }
        });
    }

    #[test]
    fn the_zero_threshold_is_applied_after_rounding() {
        let below = f32::from_bits(SMALLEST_OPERAND.to_bits() - 1);
        let largest_bf16_below = f32::from_bits(SMALLEST_OPERAND.to_bits() - 0x1_0000);
        everywhere(|cx, label| {
            let mut x = [below, -below, largest_bf16_below, -largest_bf16_below];
            operand_slice(cx.isa, &mut x);
            assert_same_bits(&x, &[SMALLEST_OPERAND, -SMALLEST_OPERAND, 0.0, -0.0], label);
        });
    }

    struct Pairs<'a>(&'a [f32], &'a [f32], &'a mut [u32]);

    impl SimdOp for Pairs<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            for ((even, odd), out) in
                self.0.chunks_exact(S::LANES).zip(self.1.chunks_exact(S::LANES)).zip(self.2.chunks_exact_mut(S::LANES))
            {
                let (even, odd) = (operand(simd, simd.load(even)), operand(simd, simd.load(odd)));
                simd.store_u32(pair(simd, even, odd), out);
            }
        }
    }

    proptest! {
        #[test]
        fn any_values_round_as_defined(x in edge_length().prop_flat_map(awkward_values)) {
            let expected: Vec<f32> = x.iter().map(|&x| twin::round_bf16::operand(x)).collect();
            everywhere(|cx, label| {
                let mut x = x.clone();
                operand_slice(cx.isa, &mut x);
                assert_same_bits(&x, &expected, label);
            });
        }

        #[test]
        fn a_pair_holds_the_even_element_low_and_the_odd_one_high(even in awkward_values(16), odd in awkward_values(16)) {
            let half = |x: f32| u32::from(half::bf16::from_f32(twin::round_bf16::operand(x)).to_bits());
            for isa in Isa::available() {
                let mut words = [0; 16];
                isa.dispatch(Pairs(&even, &odd, &mut words));
                for i in 0..16 {
                    prop_assert_eq!(words[i], half(odd[i]) << 16 | half(even[i]), "lane {}, {}", i, isa);
                }
            }
        }
    }
}
