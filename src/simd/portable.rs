//! The portable instruction set: `wide` lanes, loads and arithmetic, four at a time.
//!
//! `wide` has no run-time detection and its `mul_add` rounds twice in a default x86-64 build, so the
//! fused multiply-add is ours, in two bodies with equal bits: [`HardwareFma`] enters through the fma
//! trampoline, where `f32::mul_add` inlines to the instruction; [`SoftwareFma`] computes it from f64.

use std::fmt::Debug;

use wide::{f32x4, i32x4, u32x4, u64x4};

use super::{Simd, SimdOp, fma::fma_from_f64};

const LANES: usize = 4;

/// How a portable vector multiplies and adds with one rounding.
pub(super) trait Fma: Copy + Send + Sync + Debug + 'static {
    const NAME: &'static str;
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4;
    fn vectorize<O: SimdOp>(self, simd: Portable<Self>, op: O) -> O::Output;
}

/// `f` lane by lane.
#[inline(always)]
fn lanes_of(a: f32x4, b: f32x4, c: f32x4, f: impl Fn(f32, f32, f32) -> f32) -> f32x4 {
    let (a, b, c) = (a.to_array(), b.to_array(), c.to_array());
    f32x4::new(std::array::from_fn(|i| f(a[i], b[i], c[i])))
}

/// The CPU's own fused multiply-add; a value proves that it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct HardwareFma {
    #[cfg(target_arch = "x86_64")]
    trampoline: super::avx2::FmaTrampoline,
}

impl HardwareFma {
    pub(super) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return super::avx2::FmaTrampoline::detect().map(|trampoline| HardwareFma { trampoline });
        // Fused multiply-add belongs to the AArch64 baseline; elsewhere only a build for such a CPU has it.
        #[cfg(not(target_arch = "x86_64"))]
        (cfg!(target_arch = "aarch64") || cfg!(target_feature = "fma")).then_some(HardwareFma {})
    }
}

impl Fma for HardwareFma {
    const NAME: &'static str = "portable";
    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        lanes_of(a, b, c, f32::mul_add)
    }
    #[inline(always)]
    fn vectorize<O: SimdOp>(self, simd: Portable<Self>, op: O) -> O::Output {
        #[cfg(target_arch = "x86_64")]
        return self.trampoline.vectorize(simd, op);
        #[cfg(not(target_arch = "x86_64"))]
        op.eval(simd)
    }
}

/// The fused multiply-add from f64 arithmetic ([`fma_from_f64`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct SoftwareFma;

impl Fma for SoftwareFma {
    const NAME: &'static str = "portable-soft";
    /// Out of line: some 80 instructions, which unrolled tiles would repeat a hundred times.
    #[inline(never)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        lanes_of(a, b, c, fma_from_f64)
    }
    #[inline(always)]
    fn vectorize<O: SimdOp>(self, simd: Portable<Self>, op: O) -> O::Output {
        op.eval(simd)
    }
}

/// The token; see the module documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable<F: Fma> {
    fma: F,
}

impl<F: Fma> Portable<F> {
    pub(super) fn new(fma: F) -> Self {
        Portable { fma }
    }
}

/// The first `N` values of a slice by value.
#[inline(always)]
fn first<T: Copy, const N: usize>(src: &[T]) -> [T; N] {
    *src.first_chunk().expect("a slice of at least LANES values")
}

impl<F: Fma> Simd for Portable<F> {
    type F32 = f32x4;
    type U32 = u32x4;
    type U64 = u64x4;
    type Mask = f32x4;

    const LANES: usize = LANES;
    const NAME: &'static str = F::NAME;

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
        self.fma.vectorize(self, op)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32x4 {
        f32x4::splat(x)
    }
    #[inline(always)]
    fn load(self, src: &[f32]) -> f32x4 {
        f32x4::new(first(src))
    }
    #[inline(always)]
    fn store(self, x: f32x4, dst: &mut [f32]) {
        dst[..LANES].copy_from_slice(&x.to_array());
    }
    #[inline(always)]
    fn load_bf16(self, src: &[u16]) -> f32x4 {
        f32x4::new(first::<_, LANES>(src).map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    #[inline(always)]
    fn load_f16(self, src: &[u16]) -> f32x4 {
        widen_f16(self, u32x4::new(first::<_, LANES>(src).map(u32::from)))
    }
    #[inline(always)]
    fn load_pairs(self, src: &[u16]) -> u32x4 {
        let pairs: [u16; 2 * LANES] = first(src);
        u32x4::new(std::array::from_fn(|i| u32::from(pairs[2 * i]) | u32::from(pairs[2 * i + 1]) << 16))
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> u32x4 {
        u32x4::splat(x)
    }
    #[inline(always)]
    fn load_u32(self, src: &[u32]) -> u32x4 {
        u32x4::new(first(src))
    }
    #[inline(always)]
    fn store_u32(self, x: u32x4, dst: &mut [u32]) {
        dst[..LANES].copy_from_slice(&x.to_array());
    }
    #[inline(always)]
    fn splat_u64(self, x: u64) -> u64x4 {
        u64x4::splat(x)
    }
    #[inline(always)]
    fn load_u64(self, src: &[u64]) -> u64x4 {
        u64x4::new(first(src))
    }
    #[inline(always)]
    fn store_u64(self, x: u64x4, dst: &mut [u64]) {
        dst[..LANES].copy_from_slice(&x.to_array());
    }
    #[inline(always)]
    fn transpose(self, tile: &mut [f32x4]) {
        let rows: [[f32; LANES]; LANES] = std::array::from_fn(|r| tile[r].to_array());
        for (c, column) in tile.iter_mut().enumerate() {
            *column = f32x4::new(std::array::from_fn(|r| rows[r][c]));
        }
    }

    #[inline(always)]
    fn add(self, a: f32x4, b: f32x4) -> f32x4 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x4, b: f32x4) -> f32x4 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x4, b: f32x4) -> f32x4 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x4, b: f32x4) -> f32x4 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        self.fma.mul_add(a, b, c)
    }
    #[inline(always)]
    fn sqrt(self, x: f32x4) -> f32x4 {
        x.sqrt()
    }
    #[inline(always)]
    fn round(self, x: f32x4) -> f32x4 {
        // Adding and subtracting 1.5·2²³ rounds to nearest even for |x| < 2²²; larger values go
        // through the sign-aware form below 2²³ and are integral from there on.
        let magnitude = x.abs();
        let big = f32x4::splat(8_388_608.0);
        let rounded = ((magnitude + big) - big).copysign(x);
        magnitude.simd_ge(big).select(x, rounded)
    }

    #[inline(always)]
    fn gt(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_gt(b)
    }
    #[inline(always)]
    fn ge(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_ge(b)
    }
    #[inline(always)]
    fn eq(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_eq(b)
    }
    #[inline(always)]
    fn test(self, x: u32x4, mask: u32x4) -> f32x4 {
        self.from_bits(!(x & mask).simd_eq(u32x4::splat(0)))
    }
    #[inline(always)]
    fn select(self, mask: f32x4, if_true: f32x4, if_false: f32x4) -> f32x4 {
        mask.select(if_true, if_false)
    }

    #[inline(always)]
    fn to_bits(self, x: f32x4) -> u32x4 {
        bytemuck::cast(x)
    }
    #[inline(always)]
    fn from_bits(self, x: u32x4) -> f32x4 {
        bytemuck::cast(x)
    }
    #[inline(always)]
    fn from_i32(self, x: u32x4) -> f32x4 {
        f32x4::from_i32x4(bytemuck::cast::<_, i32x4>(x))
    }
    #[inline(always)]
    fn to_i32(self, x: f32x4) -> u32x4 {
        let rounded = self.round(x).to_array();
        u32x4::new(rounded.map(|x| x as i32 as u32))
    }
    #[inline(always)]
    fn and(self, a: u32x4, b: u32x4) -> u32x4 {
        a & b
    }
    #[inline(always)]
    fn or(self, a: u32x4, b: u32x4) -> u32x4 {
        a | b
    }
    #[inline(always)]
    fn xor(self, a: u32x4, b: u32x4) -> u32x4 {
        a ^ b
    }
    #[inline(always)]
    fn add_u32(self, a: u32x4, b: u32x4) -> u32x4 {
        a + b
    }
    #[inline(always)]
    fn sub_u32(self, a: u32x4, b: u32x4) -> u32x4 {
        a - b
    }
    #[inline(always)]
    fn mul_u32(self, a: u32x4, b: u32x4) -> u32x4 {
        a * b
    }
    #[inline(always)]
    fn shl(self, x: u32x4, bits: u32) -> u32x4 {
        x << bits
    }
    #[inline(always)]
    fn shr(self, x: u32x4, bits: u32) -> u32x4 {
        x >> bits
    }
    #[inline(always)]
    fn rotate_right(self, x: u32x4, bits: u32x4) -> u32x4 {
        let (x, bits) = (x.to_array(), bits.to_array());
        u32x4::new(std::array::from_fn(|i| x[i].rotate_right(bits[i])))
    }
    #[inline(always)]
    fn add_u64(self, a: u64x4, b: u64x4) -> u64x4 {
        a + b
    }
    #[inline(always)]
    fn mul_u64(self, a: u64x4, b: u64x4) -> u64x4 {
        let (a, b) = (a.to_array(), b.to_array());
        u64x4::new(std::array::from_fn(|i| a[i].wrapping_mul(b[i])))
    }
    #[inline(always)]
    fn xor_u64(self, a: u64x4, b: u64x4) -> u64x4 {
        a ^ b
    }
    #[inline(always)]
    fn shr_u64(self, x: u64x4, bits: u32) -> u64x4 {
        x >> u64::from(bits)
    }
    #[inline(always)]
    fn low_u32(self, x: u64x4) -> u32x4 {
        u32x4::new(x.to_array().map(|x| x as u32))
    }
}

/// Half precision in the low 16 bits of each lane, widened exactly with integer and f32 operations:
/// the exponent is rebased by a multiplication by 2¹¹², which also normalises subnormals.
#[inline(always)]
pub(super) fn widen_f16<S: Simd>(simd: S, half: S::U32) -> S::F32 {
    let magnitude = simd.shl(simd.and(half, simd.splat_u32(0x7fff)), 13);
    let scaled = simd.mul(simd.from_bits(magnitude), simd.splat(f32::from_bits((112 + 127) << 23)));
    // Exponent 31 (infinity, NaN) lands at 2¹⁶ and above: give it the f32 exponent 255 instead.
    let special = simd.from_bits(simd.or(simd.to_bits(scaled), simd.splat_u32(0x7f80_0000)));
    let value = simd.select(simd.ge(scaled, simd.splat(65536.0)), special, scaled);
    let sign = simd.shl(simd.and(half, simd.splat_u32(0x8000)), 16);
    simd.from_bits(simd.or(simd.to_bits(value), sign))
}
