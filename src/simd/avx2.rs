//! x86-64 AVX2 + FMA + F16C, eight lanes; and the fma trampoline of the portable code.
//!
//! Safety of the whole file: an [`Avx2`] value is made only by [`Avx2::detect`], after the CPU
//! reported every feature the file uses; `vendor!` wraps the intrinsics, whose only precondition is
//! that the CPU has them; memory intrinsics get pointers of arrays whose length the type states.
#![allow(unsafe_code, reason = "one of the four files where `unsafe` may stand")]

use core::arch::x86_64::*;

use super::{Simd, SimdOp};

const LANES: usize = 8;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2 {
    _proof: (),
}

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let available =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        available.then_some(Avx2 { _proof: () })
    }
}

/// Proof of FMA, for portable code: inside the trampoline `f32::mul_add` is one instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct FmaTrampoline {
    _proof: (),
}

impl FmaTrampoline {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("fma").then_some(FmaTrampoline { _proof: () })
    }
    #[inline(always)]
    pub(super) fn vectorize<S: Simd, O: SimdOp>(self, simd: S, op: O) -> O::Output {
        #[target_feature(enable = "fma")]
        fn trampoline<S: Simd, O: SimdOp>(simd: S, op: O) -> O::Output {
            op.eval(simd)
        }
        // SAFETY: `self` exists only if the CPU has FMA (`FmaTrampoline::detect`).
        unsafe { trampoline(simd, op) }
    }
}

/// One intrinsic call whose only precondition is the CPU feature.
macro_rules! vendor {
    ($intrinsic:ident $(::<$($generic:tt),*>)? ($($argument:expr),*)) => {
        // SAFETY: an `Avx2` value exists only if the CPU has AVX2, FMA and F16C (`Avx2::detect`), the
        // intrinsics' only precondition; pointer arguments are derived from references to arrays of
        // at least the accessed size, and the loads and stores used are the unaligned ones.
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

/// The mask of the first `count` lanes.
#[inline(always)]
fn first_lanes(count: usize) -> __m256i {
    assert!(count <= LANES, "{count} values for {LANES} lanes");
    let lanes = vendor!(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    let count = vendor!(_mm256_set1_epi32(count as i32));
    vendor!(_mm256_cmpgt_epi32(count, lanes))
}

impl Simd for Avx2 {
    type F32 = __m256;
    type U32 = __m256i;
    /// Lanes 0 1 4 5 and 2 3 6 7, so that taking 32-bit halves is one in-lane shuffle.
    type U64 = [__m256i; 2];
    type Mask = __m256;

    const LANES: usize = LANES;
    const NAME: &'static str = "avx2";

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn trampoline<O: SimdOp>(simd: Avx2, op: O) -> O::Output {
            op.eval(simd)
        }
        // SAFETY: `self` exists only if the CPU has AVX2, FMA and F16C (`Avx2::detect`).
        unsafe { trampoline(self, op) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        vendor!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, src: &[f32]) -> __m256 {
        vendor!(_mm256_loadu_ps(first::<_, LANES>(src).as_ptr()))
    }
    #[inline(always)]
    fn store(self, x: __m256, dst: &mut [f32]) {
        vendor!(_mm256_storeu_ps(first_mut::<_, LANES>(dst).as_mut_ptr(), x));
    }
    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> __m256 {
        let mask = first_lanes(src.len());
        // SAFETY: the CPU has the instruction (see `vendor!`); only lanes of the mask are read, one for each value of `src`.
        unsafe { _mm256_maskload_ps(src.as_ptr(), mask) }
    }
    #[inline(always)]
    fn store_partial(self, x: __m256, dst: &mut [f32]) {
        let mask = first_lanes(dst.len());
        // SAFETY: the CPU has the instruction (see `vendor!`); only lanes of the mask are written, one for each value of `dst`.
        unsafe { _mm256_maskstore_ps(dst.as_mut_ptr(), mask, x) };
    }
    #[inline(always)]
    fn load_bf16(self, src: &[u16]) -> __m256 {
        let half = vendor!(_mm_loadu_si128(first::<_, LANES>(src).as_ptr().cast()));
        let wide = vendor!(_mm256_cvtepu16_epi32(half));
        self.from_bits(self.shl(wide, 16))
    }
    #[inline(always)]
    fn load_f16(self, src: &[u16]) -> __m256 {
        let half = vendor!(_mm_loadu_si128(first::<_, LANES>(src).as_ptr().cast()));
        vendor!(_mm256_cvtph_ps(half))
    }
    #[inline(always)]
    fn load_pairs(self, src: &[u16]) -> __m256i {
        vendor!(_mm256_loadu_si256(first::<_, { 2 * LANES }>(src).as_ptr().cast()))
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> __m256i {
        vendor!(_mm256_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn load_u32(self, src: &[u32]) -> __m256i {
        vendor!(_mm256_loadu_si256(first::<_, LANES>(src).as_ptr().cast()))
    }
    #[inline(always)]
    fn store_u32(self, x: __m256i, dst: &mut [u32]) {
        vendor!(_mm256_storeu_si256(first_mut::<_, LANES>(dst).as_mut_ptr().cast(), x));
    }
    #[inline(always)]
    fn splat_u64(self, x: u64) -> [__m256i; 2] {
        [vendor!(_mm256_set1_epi64x(x.cast_signed())); 2]
    }
    #[inline(always)]
    fn load_u64(self, src: &[u64]) -> [__m256i; 2] {
        let src: &[u64; LANES] = first(src);
        let load = |half: &[u64]| vendor!(_mm256_loadu_si256(first::<_, 4>(half).as_ptr().cast()));
        let (low, high) = (load(&src[..4]), load(&src[4..]));
        [vendor!(_mm256_permute2x128_si256::<0x20>(low, high)), vendor!(_mm256_permute2x128_si256::<0x31>(low, high))]
    }
    #[inline(always)]
    fn store_u64(self, x: [__m256i; 2], dst: &mut [u64]) {
        let low = vendor!(_mm256_permute2x128_si256::<0x20>(x[0], x[1]));
        let high = vendor!(_mm256_permute2x128_si256::<0x31>(x[0], x[1]));
        for (half, x) in first_mut::<_, LANES>(dst).chunks_exact_mut(4).zip([low, high]) {
            vendor!(_mm256_storeu_si256(first_mut::<_, 4>(half).as_mut_ptr().cast(), x));
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, src: &[T], index: usize) {
        vendor!(_mm_prefetch::<_MM_HINT_T0>(src.as_ptr().wrapping_add(index).cast()));
    }

    #[inline(always)]
    fn transpose(self, tile: &mut [__m256]) {
        let t: &mut [__m256; LANES] = tile.try_into().expect("a tile of LANES vectors");
        // Rows r and r + 4 are joined by 128-bit halves first, so that everything after is in-lane.
        for r in 0..4 {
            let (low, high) = (t[r], t[r + 4]);
            t[r] = vendor!(_mm256_permute2f128_ps::<0x20>(low, high));
            t[r + 4] = vendor!(_mm256_permute2f128_ps::<0x31>(low, high));
        }
        transpose_in_lanes(t);
    }
    #[inline(always)]
    fn load_transposed(self, src: &[f32], stride: usize, tile: &mut [__m256]) {
        // The last row is the farthest: where it exists, all do.
        first::<_, LANES>(&src[stride.saturating_mul(LANES - 1)..]);
        // SAFETY: as just checked, 8 rows of 8 f32 (32 bytes) lie `stride` values apart within `src`.
        unsafe { transpose_rows(tile, src.as_ptr().cast(), stride * size_of::<f32>()) };
    }
    #[inline(always)]
    fn load_transposed_pairs(self, src: &[u16], stride: usize, tile: &mut [__m256i]) {
        first::<_, { 2 * LANES }>(&src[stride.saturating_mul(LANES - 1)..]);
        let mut columns = [self.splat(0.0); LANES];
        // SAFETY: as just checked, 8 rows of 16 u16 (32 bytes) lie `stride` values apart within `src`.
        unsafe { transpose_rows(&mut columns, src.as_ptr().cast(), stride * size_of::<u16>()) };
        for (out, column) in tile.iter_mut().zip(columns) {
            *out = self.to_bits(column);
        }
    }

    #[inline(always)]
    fn transpose_quads(self, [a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
        [
            vendor!(_mm256_permute2f128_ps::<0x20>(a, b)),
            vendor!(_mm256_permute2f128_ps::<0x20>(c, d)),
            vendor!(_mm256_permute2f128_ps::<0x31>(a, b)),
            vendor!(_mm256_permute2f128_ps::<0x31>(c, d)),
        ]
    }
    #[inline(always)]
    fn interleave(self, a: __m256, b: __m256) -> [__m256; 2] {
        let low = vendor!(_mm256_unpacklo_ps(a, b));
        let high = vendor!(_mm256_unpackhi_ps(a, b));
        [vendor!(_mm256_permute2f128_ps::<0x20>(low, high)), vendor!(_mm256_permute2f128_ps::<0x31>(low, high))]
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        vendor!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        vendor!(_mm256_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn sqrt(self, x: __m256) -> __m256 {
        vendor!(_mm256_sqrt_ps(x))
    }
    #[inline(always)]
    fn round(self, x: __m256) -> __m256 {
        vendor!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // `maxps` answers `b` if either is NaN: right for a NaN in `b`, mended for one in `a`.
        let larger = vendor!(_mm256_max_ps(a, b));
        self.select(vendor!(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)), a, larger)
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        let smaller = vendor!(_mm256_min_ps(a, b));
        self.select(vendor!(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)), a, smaller)
    }
    #[inline(always)]
    fn gt(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b))
    }
    #[inline(always)]
    fn ge(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b))
    }
    #[inline(always)]
    fn eq(self, a: __m256, b: __m256) -> __m256 {
        vendor!(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b))
    }
    #[inline(always)]
    fn test(self, x: __m256i, mask: __m256i) -> __m256 {
        let zero = vendor!(_mm256_setzero_si256());
        let none = vendor!(_mm256_cmpeq_epi32(self.and(x, mask), zero));
        self.from_bits(self.xor(none, self.splat_u32(u32::MAX)))
    }
    #[inline(always)]
    fn select(self, mask: __m256, if_true: __m256, if_false: __m256) -> __m256 {
        vendor!(_mm256_blendv_ps(if_false, if_true, mask))
    }

    #[inline(always)]
    fn to_bits(self, x: __m256) -> __m256i {
        vendor!(_mm256_castps_si256(x))
    }
    #[inline(always)]
    fn from_bits(self, x: __m256i) -> __m256 {
        vendor!(_mm256_castsi256_ps(x))
    }
    #[inline(always)]
    fn from_i32(self, x: __m256i) -> __m256 {
        vendor!(_mm256_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn to_i32(self, x: __m256) -> __m256i {
        vendor!(_mm256_cvtps_epi32(x))
    }
    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        vendor!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        vendor!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        vendor!(_mm256_xor_si256(a, b))
    }
    #[inline(always)]
    fn add_u32(self, a: __m256i, b: __m256i) -> __m256i {
        vendor!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_u32(self, a: __m256i, b: __m256i) -> __m256i {
        vendor!(_mm256_sub_epi32(a, b))
    }
    #[inline(always)]
    fn mul_u32(self, a: __m256i, b: __m256i) -> __m256i {
        vendor!(_mm256_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn shl(self, x: __m256i, bits: u32) -> __m256i {
        vendor!(_mm256_sllv_epi32(x, self.splat_u32(bits)))
    }
    #[inline(always)]
    fn shr(self, x: __m256i, bits: u32) -> __m256i {
        vendor!(_mm256_srlv_epi32(x, self.splat_u32(bits)))
    }
    #[inline(always)]
    fn rotate_right(self, x: __m256i, bits: __m256i) -> __m256i {
        let bits = self.and(bits, self.splat_u32(31));
        // Variable shifts by 32 give zero, so a rotation by zero is `x | 0`.
        let right = vendor!(_mm256_srlv_epi32(x, bits));
        let left = vendor!(_mm256_sllv_epi32(x, self.sub_u32(self.splat_u32(32), bits)));
        self.or(right, left)
    }
    #[inline(always)]
    fn add_u64(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        [vendor!(_mm256_add_epi64(a[0], b[0])), vendor!(_mm256_add_epi64(a[1], b[1]))]
    }
    #[inline(always)]
    fn mul_u64(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        // AVX2 has no 64-bit product: low·low plus the two cross products shifted up.
        let product = |a, b| {
            let (a_high, b_high) = (vendor!(_mm256_srli_epi64::<32>(a)), vendor!(_mm256_srli_epi64::<32>(b)));
            let cross = vendor!(_mm256_mul_epu32(a_high, b));
            let other = vendor!(_mm256_mul_epu32(a, b_high));
            let cross = vendor!(_mm256_add_epi64(cross, other));
            let cross = vendor!(_mm256_slli_epi64::<32>(cross));
            let low = vendor!(_mm256_mul_epu32(a, b));
            vendor!(_mm256_add_epi64(low, cross))
        };
        [product(a[0], b[0]), product(a[1], b[1])]
    }
    #[inline(always)]
    fn xor_u64(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        [self.xor(a[0], b[0]), self.xor(a[1], b[1])]
    }
    #[inline(always)]
    fn shr_u64(self, x: [__m256i; 2], bits: u32) -> [__m256i; 2] {
        let [count, _] = self.splat_u64(u64::from(bits));
        [vendor!(_mm256_srlv_epi64(x[0], count)), vendor!(_mm256_srlv_epi64(x[1], count))]
    }
    #[inline(always)]
    fn low_u32(self, x: [__m256i; 2]) -> __m256i {
        let (a, b) = (self.from_bits(x[0]), self.from_bits(x[1]));
        self.to_bits(vendor!(_mm256_shuffle_ps::<0b10_00_10_00>(a, b)))
    }
    #[inline(always)]
    fn high_u32(self, x: [__m256i; 2]) -> __m256i {
        let (a, b) = (self.from_bits(x[0]), self.from_bits(x[1]));
        self.to_bits(vendor!(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)))
    }
}

/// Transposes 8 rows of 32 bytes, `stride` bytes apart: `tile[4·h + r]` is filled with half `h` of
/// rows `r` and `r + 4`, and the rest of the transposition is in-lane. Inserting the upper half from
/// memory needs no shuffle port, unlike `permute2f128`.
///
/// # Safety
/// All 8 rows must be readable.
#[inline(always)]
unsafe fn transpose_rows(tile: &mut [__m256], rows: *const u8, stride: usize) {
    let t: &mut [__m256; LANES] = tile.try_into().expect("a tile of LANES vectors");
    for r in 0..4 {
        for half in 0..2 {
            let block = |row: usize| vendor!(_mm_loadu_ps(rows.wrapping_add(row * stride + 16 * half).cast()));
            let low = vendor!(_mm256_castps128_ps256(block(r)));
            t[r + 4 * half] = vendor!(_mm256_insertf128_ps::<1>(low, block(r + 4)));
        }
    }
    transpose_in_lanes(t);
}

/// Four-by-four transposes within the 128-bit lanes of vectors 0-3 and of vectors 4-7.
#[inline(always)]
fn transpose_in_lanes(t: &mut [__m256; LANES]) {
    for half in t.chunks_exact_mut(4) {
        let low01 = vendor!(_mm256_unpacklo_ps(half[0], half[1]));
        let high01 = vendor!(_mm256_unpackhi_ps(half[0], half[1]));
        let low23 = vendor!(_mm256_unpacklo_ps(half[2], half[3]));
        let high23 = vendor!(_mm256_unpackhi_ps(half[2], half[3]));
        half[0] = vendor!(_mm256_shuffle_ps::<0b01_00_01_00>(low01, low23));
        half[1] = vendor!(_mm256_shuffle_ps::<0b11_10_11_10>(low01, low23));
        half[2] = vendor!(_mm256_shuffle_ps::<0b01_00_01_00>(high01, high23));
        half[3] = vendor!(_mm256_shuffle_ps::<0b11_10_11_10>(high01, high23));
    }
}
