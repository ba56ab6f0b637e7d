//! tmp
use crate::simd::Simd;
/// tmp
#[inline(always)]
pub fn operand<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let bits = simd.to_bits(x);
    let lsb = simd.and(simd.shr(bits, 16), simd.splat_u32(1));
    let r = simd.add_u32(bits, simd.add_u32(lsb, simd.splat_u32(0x7fff)));
    let r = simd.from_bits(simd.and(r, simd.splat_u32(0xffff_0000)));
    let small = simd.gt(simd.splat(f32::from_bits((127 - 55) << 23)), simd.abs(r));
    let z = simd.from_bits(simd.and(bits, simd.splat_u32(0x8000_0000)));
    simd.select(simd.eq(x, x), simd.select(small, z, r), x)
}
