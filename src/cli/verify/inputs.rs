//! Fixed inputs, the same on every machine: integers and exact conversions only.

/// Values where implementations part ways: signed zeros, the ends of the subnormal and normal ranges,
/// infinities, NaN, the neighbours of one, a tie of `round`, arguments at the edges of `exp` and `tanh`.
const AWKWARD: [u32; 24] = [
    0x0000_0000,
    0x8000_0000,
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x807f_ffff,
    0x0080_0000,
    0x8080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x3f80_0001,
    0x3f7f_ffff,
    0xbf80_0000,
    0x4020_0000,
    0xc020_0000,
    0x42b1_7218,
    0x42b1_7219,
    0xc2ae_ac50,
    0xc2cf_f1b5,
    0x4110_2cb4,
    0x3300_0000,
];

/// A stream of fixed values: xorshift64* (Vigna 2016), chosen for being four lines and not `noise`.
#[derive(Debug)]
pub(super) struct Inputs(u64);

impl Inputs {
    /// The stream number `stream`.
    pub(super) fn new(stream: u64) -> Self {
        let mut inputs = Inputs(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Neighbouring streams differ in few bits at first.
        for _ in 0..16 {
            inputs.word();
        }
        inputs
    }

    /// 32 bits.
    pub(super) fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// 32-bit words.
    pub(super) fn words(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.word()).collect()
    }

    /// Values spread evenly over [−`scale`, `scale`), multiples of `scale`·2⁻²³; `scale` is a power of two.
    pub(super) fn values(&mut self, n: usize, scale: f32) -> Vec<f32> {
        // 24 bits as a signed integer: conversion and scaling are exact.
        (0..n).map(|_| ((self.word() >> 8).cast_signed() - (1 << 23)) as f32 / (1 << 23) as f32 * scale).collect()
    }

    /// Any f32, finite or not: the awkward ones first, then patterns of random bits.
    pub(super) fn patterns(&mut self, n: usize) -> Vec<f32> {
        let patterns = AWKWARD.into_iter().chain(std::iter::repeat_with(|| self.word()));
        patterns.take(n).map(f32::from_bits).collect()
    }

    /// Finite values as kernels meet them, with what they seldom meet: every 7th is zero, every 11th
    /// subnormal, every 13th is 2²⁰ times larger than the rest (which are below `scale`).
    pub(super) fn rough_values(&mut self, n: usize, scale: f32) -> Vec<f32> {
        let mut values = self.values(n, scale);
        for (i, x) in values.iter_mut().enumerate() {
            if i % 7 == 3 {
                *x = f32::copysign(0.0, *x);
            } else if i % 11 == 5 {
                *x = f32::from_bits(x.to_bits() & 0x807f_ffff);
            } else if i % 13 == 8 {
                *x *= (1 << 20) as f32;
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_differ() {
        assert_eq!(Inputs::new(1).words(8), Inputs::new(1).words(8));
        assert_ne!(Inputs::new(1).words(8), Inputs::new(2).words(8));
    }

    #[test]
    fn values_stay_in_their_range_and_rough_ones_hold_what_is_promised() {
        assert!(Inputs::new(1).values(1000, 2.0).iter().all(|x| (-2.0..2.0).contains(x)));
        let rough = Inputs::new(1).rough_values(1000, 1.0);
        assert!(rough.iter().all(|x| x.is_finite()));
        assert!(rough.contains(&0.0) && rough.iter().any(|x| x.is_subnormal()) && rough.iter().any(|x| *x > 1e5));
    }
}
