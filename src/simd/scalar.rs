//! One lane of plain Rust: the definition that every instruction set is held to.
//!
//! Not a choice of [`super::Isa`]; the scalar twins of the kernels call the vector mathematics with it.

use super::{Simd, SimdOp, portable::widen_f16};

/// The token of one-lane code; needs nothing of the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Simd for Scalar {
    type F32 = f32;
    type U32 = u32;
    type U64 = u64;
    type Mask = bool;

    const LANES: usize = 1;
    const NAME: &'static str = "scalar";

    fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
        op.eval(self)
    }
    fn splat(self, x: f32) -> f32 {
        x
    }
    fn load(self, src: &[f32]) -> f32 {
        src[0]
    }
    fn store(self, x: f32, dst: &mut [f32]) {
        dst[0] = x;
    }
    fn load_bf16(self, src: &[u16]) -> f32 {
        f32::from_bits(u32::from(src[0]) << 16)
    }
    fn load_f16(self, src: &[u16]) -> f32 {
        widen_f16(self, u32::from(src[0]))
    }
    fn load_pairs(self, src: &[u16]) -> u32 {
        u32::from(src[0]) | u32::from(src[1]) << 16
    }
    fn splat_u32(self, x: u32) -> u32 {
        x
    }
    fn load_u32(self, src: &[u32]) -> u32 {
        src[0]
    }
    fn store_u32(self, x: u32, dst: &mut [u32]) {
        dst[0] = x;
    }
    fn splat_u64(self, x: u64) -> u64 {
        x
    }
    fn load_u64(self, src: &[u64]) -> u64 {
        src[0]
    }
    fn store_u64(self, x: u64, dst: &mut [u64]) {
        dst[0] = x;
    }
    fn transpose(self, tile: &mut [f32]) {
        assert_eq!(tile.len(), 1, "a tile of LANES vectors");
    }
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    fn sqrt(self, x: f32) -> f32 {
        x.sqrt()
    }
    fn round(self, x: f32) -> f32 {
        x.round_ties_even()
    }
    fn gt(self, a: f32, b: f32) -> bool {
        a > b
    }
    fn ge(self, a: f32, b: f32) -> bool {
        a >= b
    }
    fn eq(self, a: f32, b: f32) -> bool {
        a == b
    }
    fn test(self, x: u32, mask: u32) -> bool {
        x & mask != 0
    }
    fn select(self, mask: bool, if_true: f32, if_false: f32) -> f32 {
        if mask { if_true } else { if_false }
    }
    fn to_bits(self, x: f32) -> u32 {
        x.to_bits()
    }
    fn from_bits(self, x: u32) -> f32 {
        f32::from_bits(x)
    }
    fn from_i32(self, x: u32) -> f32 {
        x.cast_signed() as f32
    }
    fn to_i32(self, x: f32) -> u32 {
        (x.round_ties_even() as i32).cast_unsigned()
    }
    fn and(self, a: u32, b: u32) -> u32 {
        a & b
    }
    fn or(self, a: u32, b: u32) -> u32 {
        a | b
    }
    fn xor(self, a: u32, b: u32) -> u32 {
        a ^ b
    }
    fn add_u32(self, a: u32, b: u32) -> u32 {
        a.wrapping_add(b)
    }
    fn sub_u32(self, a: u32, b: u32) -> u32 {
        a.wrapping_sub(b)
    }
    fn mul_u32(self, a: u32, b: u32) -> u32 {
        a.wrapping_mul(b)
    }
    fn shl(self, x: u32, bits: u32) -> u32 {
        x << bits
    }
    fn shr(self, x: u32, bits: u32) -> u32 {
        x >> bits
    }
    fn rotate_right(self, x: u32, bits: u32) -> u32 {
        x.rotate_right(bits)
    }
    fn add_u64(self, a: u64, b: u64) -> u64 {
        a.wrapping_add(b)
    }
    fn mul_u64(self, a: u64, b: u64) -> u64 {
        a.wrapping_mul(b)
    }
    fn xor_u64(self, a: u64, b: u64) -> u64 {
        a ^ b
    }
    fn shr_u64(self, x: u64, bits: u32) -> u64 {
        x >> bits
    }
    fn low_u32(self, x: u64) -> u32 {
        x as u32
    }
}
