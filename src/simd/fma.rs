//! The fused multiply-add of CPUs that have none, and the start-up check for flushed subnormals.

/// `a * b + c` rounded once, from f64 arithmetic: the bits of `f32::mul_add` without the instruction.
///
/// The product of two f32 is exact in f64 (24 + 24 ≤ 53 bits). TwoSum (Knuth, TAOCP 4.2.2) gives the
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
