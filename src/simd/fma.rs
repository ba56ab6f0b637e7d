//! The fused multiply-add of CPUs that have none, and the start-up check for flushed subnormals.

/// `a * b + c` rounded once, from f64 arithmetic: the bits of `f32::mul_add` without the instruction.
///
/// The product of two f32 is exact in f64 (24 + 24 ≤ 53 bits). `TwoSum` (Knuth, TAOCP 4.2.2) gives the
/// f64 sum and its exact error; where the error is not zero the sum is turned into its *odd* rounding
/// (if its last bit is even, one ulp towards the error), which makes the final rounding to f32 right
/// because 53 ≥ 2·24 + 2 (Boldo & Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
/// Merely setting the last bit would be wrong below midpoints, where the error is negative.
#[inline(always)]
pub fn fma_from_f64(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let addend = f64::from(c);
    let sum = product + addend;
    let from_product = sum - addend;
    let error = (product - from_product) + (addend - (sum - from_product));
    // A non-finite sum has a NaN error or is already right; an odd last bit already is the odd rounding.
    if sum.is_finite() && sum.to_bits() & 1 == 0 && error != 0.0 {
        // One ulp away from zero if the error has the sum's sign, else towards zero. The sum is not
        // zero here: TwoSum is exact, so a zero sum has a zero error.
        let outward = (error > 0.0) == (sum > 0.0);
        let bits = sum.to_bits();
        let odd = if outward { bits + 1 } else { bits - 1 };
        return f64::from_bits(odd) as f32;
    }
    sum as f32
}

/// Whether the calling thread computes with subnormals (neither flush-to-zero nor
/// denormals-are-zero is set): contract C1 cannot hold otherwise, so start-up checks it.
pub fn subnormals_survive() -> bool {
    let smallest = std::hint::black_box(f32::from_bits(1));
    let halved = std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
    smallest + smallest == f32::from_bits(2) && halved == f32::from_bits(0x0040_0000)
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::simd::{Isa, IsaName, MAX_LANES, Simd, SimdOp};

    /// What a triple of operands is made to provoke.
    #[derive(Clone, Copy, Debug)]
    enum Family {
        /// Any bit patterns.
        Any,
        /// A sum a few ulp of the product wide.
        Cancelling,
        /// A subnormal result, or one next to the subnormals.
        Subnormal,
        /// Overflow, infinities and NaN.
        Infinite,
        /// A product exactly between two f32, and a sum that a product puts exactly between two f32,
        /// both moved by something tiny or by nothing.
        Midpoint,
    }

    const FAMILIES: [Family; 5] =
        [Family::Any, Family::Cancelling, Family::Subnormal, Family::Infinite, Family::Midpoint];

    /// xorshift64: the quality of the bits does not matter here, their speed does.
    struct Words(u64);

    impl Words {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
        /// ±2ᵉ·[1, 2) with e uniform in `exponents`.
        fn float(&mut self, exponents: std::ops::Range<i32>) -> f32 {
            let word = self.next();
            let exponent = exponents.start + ((word >> 32) % exponents.len() as u64) as i32;
            f32::from_bits((word as u32 & 0x807f_ffff) | ((exponent + 127) as u32) << 23)
        }
        fn triple(&mut self, family: Family) -> [f32; 3] {
            match family {
                Family::Any => {
                    let (first, second) = (self.next(), self.next());
                    [first >> 32, second >> 32, second ^ first].map(|bits| f32::from_bits(bits as u32))
                }
                Family::Cancelling => {
                    let (a, b) = (self.float(-40..40), self.float(-40..40));
                    let ulps = (self.next() >> 40) as i32 % 4;
                    [a, b, f32::from_bits((-(a * b)).to_bits().wrapping_add_signed(ulps - 1))]
                }
                Family::Subnormal => {
                    let a = self.float(-100..-40);
                    let b = self.float(-40..-20);
                    let c = f32::from_bits(self.next() as u32 & 0x80ff_ffff);
                    [a, b, c]
                }
                Family::Infinite => {
                    let [a, b, c] = [self.float(55..70), self.float(55..70), self.float(115..128)];
                    match self.next() >> 60 {
                        0 => [a, f32::INFINITY, c],
                        1 => [a, b, f32::NEG_INFINITY],
                        2 => [0.0, f32::INFINITY, c],
                        3 => [f32::INFINITY, b, f32::NEG_INFINITY],
                        4 => [a, f32::NAN, c],
                        _ => [a, b, c],
                    }
                }
                Family::Midpoint => self.midpoint(),
            }
        }
        fn midpoint(&mut self) -> [f32; 3] {
            let sign = if self.next() >> 63 == 0 { 1.0 } else { -1.0 };
            let tiny = match self.next() >> 62 {
                0 => sign * f32::from_bits(1),
                1 => 0.0,
                _ => self.float(-126..-60),
            };
            if self.next() >> 63 == 0 {
                // Two odd 13-bit numbers with a 25-bit product: its last bit is half an f32 ulp.
                loop {
                    let word = self.next();
                    let [a, b] = [word >> 20, word >> 40].map(|bits| (bits & 0xfff) as u32 | 0x1001);
                    if a * b < 1 << 25 {
                        let scale = 2.0_f32.powi((word >> 58) as i32 - 32);
                        return [sign * a as f32 * scale, b as f32, tiny];
                    }
                }
            }
            // c, and a product within a few 2⁻²³ of half its ulp.
            let c = self.float(-60..60);
            let half_ulp = (f32::from_bits(c.to_bits() & 0x7f80_0000)) * 2.0_f32.powi(-24);
            let word = self.next();
            let near_one = |ulps: u64| f32::from_bits(1.0_f32.to_bits() + (ulps % 3) as u32 - 1);
            [sign * half_ulp * near_one(word >> 20), near_one(word >> 40), c]
        }
    }

    /// The instruction over whole arrays, `results[i] = a[i]·b[i] + c[i]`.
    struct Hardware<'a> {
        operands: &'a [[f32; MAX_LANES]; 3],
        results: &'a mut [f32; MAX_LANES],
    }

    impl SimdOp for Hardware<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, simd: S) {
            for at in (0..MAX_LANES).step_by(S::LANES) {
                let [a, b, c] = [0, 1, 2].map(|operand: usize| simd.load(&self.operands[operand][at..]));
                simd.store(simd.mul_add(a, b, c), &mut self.results[at..]);
            }
        }
    }

    /// Checks `count` triples of every family, in chunks of fixed seeds.
    fn compare_with_hardware(count: u64) {
        const CHUNK: u64 = 1 << 16;
        let isa = Isa::fastest();
        // A CPU without the instruction has nothing to compare with but the code under test.
        assert_ne!(isa.name(), IsaName::PortableSoft, "this test needs a CPU with a fused multiply-add");
        for family in FAMILIES {
            (0..count.div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
                let mut words = Words((chunk + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                for _ in 0..CHUNK / MAX_LANES as u64 {
                    let mut operands = [[0.0; MAX_LANES]; 3];
                    for lane in 0..MAX_LANES {
                        let triple = words.triple(family);
                        for (operand, x) in operands.iter_mut().zip(triple) {
                            operand[lane] = x;
                        }
                    }
                    let mut results = [0.0; MAX_LANES];
                    isa.dispatch(Hardware { operands: &operands, results: &mut results });
                    for (lane, hardware) in results.into_iter().enumerate() {
                        let [a, b, c] = operands.map(|operand| operand[lane]);
                        let soft = fma_from_f64(a, b, c);
                        assert!(
                            soft.to_bits() == hardware.to_bits() || (soft.is_nan() && hardware.is_nan()),
                            "{family:?}: {a:e} · {b:e} + {c:e} is {hardware:e}, not {soft:e}"
                        );
                    }
                }
            });
        }
    }

    #[test]
    fn the_emulated_fma_gives_the_bits_of_the_instruction() {
        compare_with_hardware(1_000_000);
    }

    #[test]
    #[ignore = "10^8 triples of each of five families: half a minute of one core; cargo test --release -- --ignored fma"]
    fn the_emulated_fma_gives_the_bits_of_the_instruction_100_million_times() {
        compare_with_hardware(100_000_000);
    }

    #[test]
    fn rounding_below_a_midpoint_goes_down() {
        // (2¹² + 1)·(2¹² + 3) = 16,793,603 is odd and has 25 bits: a midpoint of f32.
        assert_eq!(fma_from_f64(4097.0, 4099.0, -1e-30), 16_793_602.0);
        assert_eq!(fma_from_f64(4097.0, 4099.0, 1e-30), 16_793_604.0);
    }

    #[test]
    fn subnormals_survive_in_this_thread() {
        assert!(subnormals_survive());
    }
}
