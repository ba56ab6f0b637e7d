//! Any shape and any bits: a matrix product gives the bits of its definition, for every storage type, in
//! both profiles, on every instruction set.

#![no_main]

use half::{bf16, f16};
use libfuzzer_sys::fuzz_target;
use zofo::{
    kernels::{Context, Profile, matmul, twin},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::assert_same_bits,
};

fuzz_target!(|bytes: &[u8]| {
    let &[m, n, k_low, k_high, kind, ref bytes @ ..] = bytes else { return };
    // Rows on both sides of the limits of single and few rows; k up to 799 crosses a block of `k`.
    let (m, n) = (usize::from(m % 36), usize::from(n % 70));
    let k = usize::from(u16::from_le_bytes([k_low, k_high]) % 800);
    // The input's words, repeated with a different sign and exponent each time round.
    let words: Vec<u32> = bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let value = |i: usize| match words.len() {
        0 => i as f32 - 7.5,
        len => f32::from_bits(words[i % len].wrapping_add(((i / len) as u32).wrapping_mul(0x80c1_0203))),
    };
    let x: Vec<f32> = (0..m * k).map(value).collect();
    let w: Vec<f32> = (0..n * k).map(|i| value(m * k + i)).collect();
    let bias: Vec<f32> = (0..n).map(|i| value(i * 3 + 1)).collect();
    let bias = (kind & 1 == 1).then_some(bias.as_slice());
    let profile = if kind & 2 == 0 { Profile::StrictF32 } else { Profile::StrictBf16 };
    let (as_bf16, as_f16): (Vec<bf16>, Vec<f16>) = w.iter().map(|&w| (bf16::from_f32(w), f16::from_f32(w))).unzip();
    let weight = match kind >> 2 & 3 {
        0 | 1 => WeightRef::f32(&w, n, k),
        2 => WeightRef::bf16(&as_bf16, n, k),
        _ => WeightRef::f16(&as_f16, n, k),
    };

    let (at_x, at_w) = (|i: usize, l: usize| x[i * k + l], |j: usize, l: usize| weight.at(j, l));
    let mut expected = match profile {
        Profile::StrictF32 => twin::matmul::product((m, k, n), at_x, at_w, |_, _| 0.0),
        Profile::StrictBf16 => twin::matmul::product_bf16((m, k, n), at_x, at_w, |_, _| 0.0),
    };
    if let Some(bias) = bias {
        expected.iter_mut().enumerate().for_each(|(at, y)| *y += bias[at % n]);
    }
    for isa in Isa::available() {
        let mut y = vec![f32::NAN; m * n];
        let cx = Context::new(isa).with_profile(profile);
        matmul::forward(&cx, MatRef::new(&x, m, k), &weight, bias, MatMut::new(&mut y, m, n));
        assert_same_bits(&y, &expected, format_args!("{isa} {profile} {} {m}x{k}x{n}", weight.dtype()));
    }
});
