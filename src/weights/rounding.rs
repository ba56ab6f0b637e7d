//! Stochastic rounding of f32 to 16 bits.
//!
//! A value between two neighbours becomes the one farther from zero with the probability that keeps the mean: its
//! distance from the nearer-to-zero one, in units of their distance. A draw of 32 bits decides.
//!
//! *What must stay true.* A value that the type has is itself, whatever the draw. Nothing finite becomes infinite: past
//! the last finite neighbour values become that one. A NaN is the canonical one.

use half::{bf16, f16};

/// A bf16 next to `x`: exact for all values, since the distance is one of 2¹⁶ steps, and the draw's upper 16 bits are
/// as many.
#[inline(always)]
pub(super) fn to_bf16(x: f32, draw: u32) -> bf16 {
    if !x.is_finite() {
        return bf16::from_f32(x);
    }
    // Below the neighbour's bits lie those of the distance: a carry is a step away from zero, into the next binade too.
    let stepped = bf16::from_bits((x.to_bits().wrapping_add(draw >> 16) >> 16) as u16);
    if stepped.is_finite() { stepped } else { bf16::from_bits((x.to_bits() >> 16) as u16) }
}

/// An f16 next to `x`: exact for normal numbers, whose distance is one of 2¹³ steps; below them the probability is
/// right to 2⁻³².
#[inline(always)]
pub(super) fn to_f16(x: f32, draw: u32) -> f16 {
    /// Below the smallest normal f16, 2⁻¹⁴, its values are the multiples of 2⁻²⁴.
    const NORMAL: f32 = 1.0 / 16_384.0;
    const STEPS: f64 = 16_777_216.0;
    if !x.is_finite() {
        return f16::from_f32(x);
    }
    if x.abs() >= NORMAL {
        // f16 has 13 bits less than f32.
        let stepped = f32::from_bits(x.to_bits().wrapping_add(draw >> 19) & !0x1fff);
        return f16::from_f32(stepped.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
    }
    // Exact in f64, all of it: a scaling by a power of two, a fraction of 24 bits, a draw of 32.
    let steps = f64::from(x.abs()) * STEPS;
    let away = f64::from(draw) < steps.fract() * 4_294_967_296.0;
    let magnitude = (steps.floor() + f64::from(u8::from(away))) / STEPS;
    f16::from_f64(magnitude.copysign(f64::from(x)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Finite values of every magnitude.
    fn any_value() -> impl Strategy<Value = f32> {
        prop_oneof![
            any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |x| x.is_finite()),
            -2.0_f32..2.0,
            -1e-5_f32..1e-5,
        ]
    }

    proptest! {
        #[test]
        fn what_a_type_has_is_itself_whatever_the_draw(stored in any::<u16>(), draw in any::<u32>()) {
            let (b, h) = (bf16::from_bits(stored), f16::from_bits(stored));
            if !b.is_nan() {
                prop_assert_eq!(to_bf16(b.to_f32(), draw).to_bits(), stored);
            }
            if !h.is_nan() {
                prop_assert_eq!(to_f16(h.to_f32(), draw).to_bits(), stored);
            }
        }

        #[test]
        fn the_least_draw_rounds_towards_zero_and_the_largest_away_from_it(x in any_value()) {
            // Neighbours of magnitude: `lower` ≤ |x| < `upper` in the order of bits.
            let lower = |bits: u16, widened: f32| if widened.abs() > x.abs() { bits - 1 } else { bits };
            let b = bf16::from_f32(x);
            let b = bf16::from_bits(lower(b.to_bits(), b.to_f32()));
            prop_assert_eq!(to_bf16(x, 0), b);
            let inexact = b.to_f32() != x && b.to_bits() & 0x7fff < bf16::MAX.to_bits();
            prop_assert_eq!(to_bf16(x, u32::MAX).to_bits(), b.to_bits() + u16::from(inexact));
            if x.abs() >= 2.0_f32.powi(-14) {
                let h = f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
                let h = f16::from_bits(lower(h.to_bits(), h.to_f32()));
                prop_assert_eq!(to_f16(x, 0), h);
                let inexact = h.to_f32() != x && h.to_bits() & 0x7fff < f16::MAX.to_bits();
                prop_assert_eq!(to_f16(x, u32::MAX).to_bits(), h.to_bits() + u16::from(inexact));
            }
        }

        #[test]
        fn draws_in_even_steps_keep_the_mean_exactly(x in any_value()) {
            // All 2¹⁶ values of the upper bits, each as likely: the sum of what comes out is 2¹⁶ · x, for both types,
            // because every f16 distance is a multiple of 2⁻¹³ of a step, or the step is 2⁻²⁴ and x a multiple of 2⁻⁴⁰.
            let sum = |round: &dyn Fn(u32) -> f64| (0..1_u32 << 16).map(|draw| round(draw << 16)).sum::<f64>();
            if x.abs() < bf16::MAX.to_f32() {
                prop_assert_eq!(sum(&|draw| f64::from(to_bf16(x, draw)) / 65_536.0), f64::from(x));
            }
            let multiple = (f64::from(x) * 2.0_f64.powi(40)).fract() == 0.0;
            if x.abs() < f16::MAX.to_f32() && (x.abs() >= 2.0_f32.powi(-14) || multiple) {
                prop_assert_eq!(sum(&|draw| f64::from(to_f16(x, draw)) / 65_536.0), f64::from(x));
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_and_what_is_finite_stays_so() {
        for x in [f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!((to_bf16(x, u32::MAX).to_f32(), to_f16(x, u32::MAX).to_f32()), (x, x));
        }
        assert!(to_bf16(f32::NAN, u32::MAX).is_nan() && to_f16(f32::NAN, u32::MAX).is_nan());
        for x in [f32::MAX, f32::MIN] {
            let (b, h) = (to_bf16(x, u32::MAX), to_f16(x, u32::MAX));
            assert_eq!((b.to_f32(), h.to_f32()), (bf16::MAX.to_f32() * x.signum(), 65504.0 * x.signum()));
        }
    }
}
