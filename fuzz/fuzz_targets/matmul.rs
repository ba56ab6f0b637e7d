//! Any shape and any bits: a matrix product gives the bits of one chain of fused multiply-adds per
//! output, on every instruction set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zofo::{
    kernels::{Context, matmul},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
};

/// Canonical bits: all NaNs are equal (contract C1).
fn bits(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }
}

fuzz_target!(|bytes: &[u8]| {
    let &[m, n, k_low, k_high, with_bias, ref bytes @ ..] = bytes else { return };
    // k up to 767 crosses the block of 256 columns twice.
    let (m, n) = (usize::from(m % 40), usize::from(n % 70));
    let k = usize::from(u16::from_le_bytes([k_low, k_high]) % 768);
    // The input's words, repeated with a different sign and exponent each time round.
    let words: Vec<u32> = bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let value = |i: usize| match words.len() {
        0 => i as f32 - 7.5,
        len => f32::from_bits(words[i % len].wrapping_add(((i / len) as u32).wrapping_mul(0x80c1_0203))),
    };
    let x: Vec<f32> = (0..m * k).map(value).collect();
    let w: Vec<f32> = (0..n * k).map(|i| value(m * k + i)).collect();
    let bias: Vec<f32> = (0..n).map(|i| value(i * 3 + 1)).collect();
    let bias = (with_bias % 2 == 1).then_some(bias.as_slice());
    for isa in Isa::available() {
        let mut y = vec![f32::NAN; m * n];
        let weight = WeightRef::f32(&w, n, k);
        matmul::forward(&Context::new(isa), MatRef::new(&x, m, k), &weight, bias, MatMut::new(&mut y, m, n));
        for row in 0..m {
            for column in 0..n {
                let chain = (0..k).fold(0.0_f32, |sum, i| x[row * k + i].mul_add(w[column * k + i], sum));
                let expected = bias.map_or(chain, |bias| chain + bias[column]);
                assert_eq!(
                    bits(y[row * n + column]),
                    bits(expected),
                    "y[{row}, {column}] of [{m}, {k}] times the transpose of [{n}, {k}] on {isa}"
                );
            }
        }
    }
});
