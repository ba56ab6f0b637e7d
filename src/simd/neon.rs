//! AArch64 Advanced SIMD (NEON), four lanes.
//!
//! Only instructions that IEEE 754 defines are used: no reciprocal or square-root estimates, and not
//! the bf16 dot products (they round in their own order). `max` and `min` stay the trait's selects:
//! `fmax` would propagate NaN too, but orders −0 below +0, where every other instruction set answers
//! the second operand (contract C1).
//!
//! Safety of the whole file: a [`Neon`] value is made only by [`Neon::detect`], after the CPU reported
//! the feature; `vendor!` wraps the intrinsics, whose only precondition is that the CPU has it; memory
//! intrinsics get pointers of arrays whose length the type states.
#![allow(unsafe_code, reason = "one of the four files where `unsafe` may stand")]

use core::arch::{aarch64::*, asm};

use super::{Simd, SimdOp, portable::widen_f16};

const LANES: usize = 4;

/// Proof of Advanced SIMD, which on AArch64 includes the fused multiply-add.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon {
    _proof: (),
}

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon { _proof: () })
    }
}

/// One intrinsic call whose only precondition is the CPU feature.
macro_rules! vendor {
    ($intrinsic:ident $(::<$($generic:tt),*>)? ($($argument:expr),*)) => {
        // SAFETY: a `Neon` value exists only if the CPU has Advanced SIMD (`Neon::detect`), the
        // intrinsics' only precondition; pointer arguments are derived from references to arrays of
        // at least the accessed size, and NEON loads and stores need only the element's alignment.
        unsafe { $intrinsic $(::<$($generic),*>)? ($($argument),*) }
    };
}

#[inline(always)]
fn first<T, const N: usize>(src: &[T]) -> &[T; N] {
    src.first_chunk().expect("a slice of at least LANES values")
}

#[inline(always)]
fn first_mut<T, const N: usize>(dst: &mut [T]) -> &mut [T; N] {
    dst.first_chunk_mut().expect("a slice of at least LANES values")
}

/// Shifts every lane of `x` left by its own signed count; a count of ±32 and beyond gives zero.
#[inline(always)]
fn shift(x: uint32x4_t, bits: int32x4_t) -> uint32x4_t {
    vendor!(vshlq_u32(x, bits))
}

impl Simd for Neon {
    type F32 = float32x4_t;
    type U32 = uint32x4_t;
    /// Lanes 0-1 and 2-3.
    type U64 = [uint64x2_t; 2];
    type Mask = uint32x4_t;

    const LANES: usize = LANES;
    const NAME: &'static str = "neon";

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "neon")]
        fn trampoline<O: SimdOp>(simd: Neon, op: O) -> O::Output {
            op.eval(simd)
        }
        // SAFETY: `self` exists only if the CPU has Advanced SIMD (`Neon::detect`).
        unsafe { trampoline(self, op) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        vendor!(vdupq_n_f32(x))
    }
    #[inline(always)]
    fn load(self, src: &[f32]) -> float32x4_t {
        vendor!(vld1q_f32(first::<_, LANES>(src).as_ptr()))
    }
    #[inline(always)]
    fn store(self, x: float32x4_t, dst: &mut [f32]) {
        vendor!(vst1q_f32(first_mut::<_, LANES>(dst).as_mut_ptr(), x));
    }
    #[inline(always)]
    fn load_bf16(self, src: &[u16]) -> float32x4_t {
        let half = vendor!(vld1_u16(first::<_, LANES>(src).as_ptr()));
        self.from_bits(vendor!(vshll_n_u16::<16>(half)))
    }
    #[inline(always)]
    fn load_f16(self, src: &[u16]) -> float32x4_t {
        // The conversion instruction's intrinsic needs the f16 type, which is younger than our
        // minimum Rust version.
        let half = vendor!(vld1_u16(first::<_, LANES>(src).as_ptr()));
        widen_f16(self, vendor!(vmovl_u16(half)))
    }
    #[inline(always)]
    fn load_pairs(self, src: &[u16]) -> uint32x4_t {
        let pairs = vendor!(vld1q_u16(first::<_, { 2 * LANES }>(src).as_ptr()));
        vendor!(vreinterpretq_u32_u16(pairs))
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> uint32x4_t {
        vendor!(vdupq_n_u32(x))
    }
    #[inline(always)]
    fn load_u32(self, src: &[u32]) -> uint32x4_t {
        vendor!(vld1q_u32(first::<_, LANES>(src).as_ptr()))
    }
    #[inline(always)]
    fn store_u32(self, x: uint32x4_t, dst: &mut [u32]) {
        vendor!(vst1q_u32(first_mut::<_, LANES>(dst).as_mut_ptr(), x));
    }
    #[inline(always)]
    fn splat_u64(self, x: u64) -> [uint64x2_t; 2] {
        [vendor!(vdupq_n_u64(x)); 2]
    }
    #[inline(always)]
    fn load_u64(self, src: &[u64]) -> [uint64x2_t; 2] {
        let src: &[u64; LANES] = first(src);
        let load = |half: &[u64]| vendor!(vld1q_u64(first::<_, 2>(half).as_ptr()));
        [load(&src[..2]), load(&src[2..])]
    }
    #[inline(always)]
    fn store_u64(self, x: [uint64x2_t; 2], dst: &mut [u64]) {
        for (half, x) in first_mut::<_, LANES>(dst).chunks_exact_mut(2).zip(x) {
            vendor!(vst1q_u64(first_mut::<_, 2>(half).as_mut_ptr(), x));
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, src: &[T], index: usize) {
        let line = src.as_ptr().wrapping_add(index);
        // SAFETY: a prefetch is a hint: it reads nothing the program can see, touches no register or
        // flag, and an address that is not mapped raises no fault (Arm ARM, PRFM).
        unsafe { asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags, readonly)) };
    }

    #[inline(always)]
    fn transpose(self, tile: &mut [float32x4_t]) {
        let t: &mut [float32x4_t; LANES] = tile.try_into().expect("a tile of LANES vectors");
        // Two-by-two blocks by pairs of rows, then the blocks themselves as 64-bit lanes.
        let wide = |x| vendor!(vreinterpretq_u64_f32(x));
        let even01 = wide(vendor!(vtrn1q_f32(t[0], t[1])));
        let odd01 = wide(vendor!(vtrn2q_f32(t[0], t[1])));
        let even23 = wide(vendor!(vtrn1q_f32(t[2], t[3])));
        let odd23 = wide(vendor!(vtrn2q_f32(t[2], t[3])));
        let narrow = |x| vendor!(vreinterpretq_f32_u64(x));
        t[0] = narrow(vendor!(vtrn1q_u64(even01, even23)));
        t[1] = narrow(vendor!(vtrn1q_u64(odd01, odd23)));
        t[2] = narrow(vendor!(vtrn2q_u64(even01, even23)));
        t[3] = narrow(vendor!(vtrn2q_u64(odd01, odd23)));
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vendor!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vendor!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vendor!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vendor!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vendor!(vfmaq_f32(c, a, b))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vendor!(vfmsq_f32(c, a, b))
    }
    #[inline(always)]
    fn sqrt(self, x: float32x4_t) -> float32x4_t {
        vendor!(vsqrtq_f32(x))
    }
    #[inline(always)]
    fn round(self, x: float32x4_t) -> float32x4_t {
        vendor!(vrndnq_f32(x))
    }
    #[inline(always)]
    fn neg(self, x: float32x4_t) -> float32x4_t {
        vendor!(vnegq_f32(x))
    }
    #[inline(always)]
    fn abs(self, x: float32x4_t) -> float32x4_t {
        vendor!(vabsq_f32(x))
    }
    #[inline(always)]
    fn copysign(self, magnitude: float32x4_t, sign: float32x4_t) -> float32x4_t {
        self.select(self.splat_u32(0x8000_0000), sign, magnitude)
    }
    #[inline(always)]
    fn gt(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        vendor!(vcgtq_f32(a, b))
    }
    #[inline(always)]
    fn ge(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        vendor!(vcgeq_f32(a, b))
    }
    #[inline(always)]
    fn eq(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        vendor!(vceqq_f32(a, b))
    }
    #[inline(always)]
    fn test(self, x: uint32x4_t, mask: uint32x4_t) -> uint32x4_t {
        vendor!(vtstq_u32(x, mask))
    }
    #[inline(always)]
    fn select(self, mask: uint32x4_t, if_true: float32x4_t, if_false: float32x4_t) -> float32x4_t {
        vendor!(vbslq_f32(mask, if_true, if_false))
    }

    #[inline(always)]
    fn to_bits(self, x: float32x4_t) -> uint32x4_t {
        vendor!(vreinterpretq_u32_f32(x))
    }
    #[inline(always)]
    fn from_bits(self, x: uint32x4_t) -> float32x4_t {
        vendor!(vreinterpretq_f32_u32(x))
    }
    #[inline(always)]
    fn from_i32(self, x: uint32x4_t) -> float32x4_t {
        let signed = vendor!(vreinterpretq_s32_u32(x));
        vendor!(vcvtq_f32_s32(signed))
    }
    #[inline(always)]
    fn to_i32(self, x: float32x4_t) -> uint32x4_t {
        let nearest = vendor!(vcvtnq_s32_f32(x));
        vendor!(vreinterpretq_u32_s32(nearest))
    }
    #[inline(always)]
    fn and(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        vendor!(vandq_u32(a, b))
    }
    #[inline(always)]
    fn or(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        vendor!(vorrq_u32(a, b))
    }
    #[inline(always)]
    fn xor(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        vendor!(veorq_u32(a, b))
    }
    #[inline(always)]
    fn add_u32(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        vendor!(vaddq_u32(a, b))
    }
    #[inline(always)]
    fn sub_u32(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        vendor!(vsubq_u32(a, b))
    }
    #[inline(always)]
    fn mul_u32(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        vendor!(vmulq_u32(a, b))
    }
    #[inline(always)]
    fn shl(self, x: uint32x4_t, bits: u32) -> uint32x4_t {
        shift(x, vendor!(vdupq_n_s32(bits.cast_signed())))
    }
    #[inline(always)]
    fn shr(self, x: uint32x4_t, bits: u32) -> uint32x4_t {
        shift(x, vendor!(vdupq_n_s32(-bits.cast_signed())))
    }
    #[inline(always)]
    fn rotate_right(self, x: uint32x4_t, bits: uint32x4_t) -> uint32x4_t {
        let bits = self.and(bits, self.splat_u32(31));
        let right = vendor!(vreinterpretq_s32_u32(self.sub_u32(self.splat_u32(0), bits)));
        let left = vendor!(vreinterpretq_s32_u32(self.sub_u32(self.splat_u32(32), bits)));
        // A rotation by zero is `x | 0`: a left shift by 32 gives zero.
        self.or(shift(x, right), shift(x, left))
    }
    #[inline(always)]
    fn add_u64(self, a: [uint64x2_t; 2], b: [uint64x2_t; 2]) -> [uint64x2_t; 2] {
        [vendor!(vaddq_u64(a[0], b[0])), vendor!(vaddq_u64(a[1], b[1]))]
    }
    #[inline(always)]
    fn mul_u64(self, a: [uint64x2_t; 2], b: [uint64x2_t; 2]) -> [uint64x2_t; 2] {
        // NEON has no 64-bit product: low·low plus the two cross products shifted up. Swapping the
        // halves of `b` puts both cross products side by side, one pairwise addition joins them.
        let product = |a, b| {
            let (halves, swapped) = (vendor!(vreinterpretq_u32_u64(a)), vendor!(vreinterpretq_u32_u64(b)));
            let swapped = vendor!(vrev64q_u32(swapped));
            let cross = vendor!(vpaddlq_u32(self.mul_u32(halves, swapped)));
            let cross = vendor!(vshlq_n_u64::<32>(cross));
            let (a_low, b_low) = (vendor!(vmovn_u64(a)), vendor!(vmovn_u64(b)));
            vendor!(vmlal_u32(cross, a_low, b_low))
        };
        [product(a[0], b[0]), product(a[1], b[1])]
    }
    #[inline(always)]
    fn xor_u64(self, a: [uint64x2_t; 2], b: [uint64x2_t; 2]) -> [uint64x2_t; 2] {
        [vendor!(veorq_u64(a[0], b[0])), vendor!(veorq_u64(a[1], b[1]))]
    }
    #[inline(always)]
    fn shr_u64(self, x: [uint64x2_t; 2], bits: u32) -> [uint64x2_t; 2] {
        let count = vendor!(vdupq_n_s64(-i64::from(bits)));
        x.map(|x| vendor!(vshlq_u64(x, count)))
    }
    #[inline(always)]
    fn low_u32(self, x: [uint64x2_t; 2]) -> uint32x4_t {
        let [low, high] = x.map(|x| vendor!(vreinterpretq_u32_u64(x)));
        vendor!(vuzp1q_u32(low, high))
    }
}
