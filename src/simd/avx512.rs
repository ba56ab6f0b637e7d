//! x86-64 AVX-512 (F, BW, DQ, VL), sixteen lanes, with or without `AVX512_BF16`.
//!
//! Safety of the whole file: an [`Avx512`] value is made only by [`Avx512::detect`], after the CPU
//! reported every feature the file uses; `vendor!` wraps the intrinsics, whose only precondition is
//! that the CPU has them; memory intrinsics get pointers of arrays whose length the type states.
#![allow(unsafe_code, reason = "one of the four files where `unsafe` may stand")]

use core::arch::x86_64::*;

use super::{Simd, SimdOp};

const LANES: usize = 16;

/// Proof of AVX-512 F, BW, DQ, VL and, if `BF16`, `AVX512_BF16`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512<const BF16: bool> {
    _proof: (),
}

impl<const BF16: bool> Avx512<BF16> {
    pub(super) fn detect() -> Option<Self> {
        let available = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && (!BF16 || is_x86_feature_detected!("avx512bf16"));
        available.then_some(Avx512 { _proof: () })
    }
}

/// One intrinsic call whose only precondition is the CPU feature.
macro_rules! vendor {
    ($intrinsic:ident $(::<$($generic:tt),*>)? ($($argument:expr),*)) => {
        // SAFETY: an `Avx512` value exists only if the CPU has the features of its type
        // (`Avx512::detect`), the intrinsics' only precondition; pointer arguments are derived from
        // references to arrays of at least the accessed size, and the unaligned forms are used.
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
fn first_lanes(count: usize) -> __mmask16 {
    assert!(count <= LANES, "{count} values for {LANES} lanes");
    ((1_u32 << count) - 1) as __mmask16
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type F32 = __m512;
    type U32 = __m512i;
    /// Pairs of lanes in turn (0 1 4 5 …, 2 3 6 7 …), so that taking 32-bit halves is one in-lane shuffle.
    type U64 = [__m512i; 2];
    type Mask = __mmask16;

    const LANES: usize = LANES;
    const NAME: &'static str = "avx512";
    const BF16_DOT: bool = BF16;

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn trampoline<const BF16: bool, O: SimdOp>(simd: Avx512<BF16>, op: O) -> O::Output {
            op.eval(simd)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn trampoline_bf16<const BF16: bool, O: SimdOp>(simd: Avx512<BF16>, op: O) -> O::Output {
            op.eval(simd)
        }
        if BF16 {
            // SAFETY: `self` exists only if the CPU has these features (`Avx512::detect` with BF16).
            unsafe { trampoline_bf16(self, op) }
        } else {
            // SAFETY: `self` exists only if the CPU has these features (`Avx512::detect`).
            unsafe { trampoline(self, op) }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        vendor!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, src: &[f32]) -> __m512 {
        vendor!(_mm512_loadu_ps(first::<_, LANES>(src).as_ptr()))
    }
    #[inline(always)]
    fn store(self, x: __m512, dst: &mut [f32]) {
        vendor!(_mm512_storeu_ps(first_mut::<_, LANES>(dst).as_mut_ptr(), x));
    }
    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> __m512 {
        let mask = first_lanes(src.len());
        // SAFETY: the CPU has the instruction (see `vendor!`); only lanes of the mask are read, one for each value of `src`.
        unsafe { _mm512_maskz_loadu_ps(mask, src.as_ptr()) }
    }
    #[inline(always)]
    fn store_partial(self, x: __m512, dst: &mut [f32]) {
        let mask = first_lanes(dst.len());
        // SAFETY: the CPU has the instruction (see `vendor!`); only lanes of the mask are written, one for each value of `dst`.
        unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), mask, x) };
    }
    #[inline(always)]
    fn load_bf16(self, src: &[u16]) -> __m512 {
        let half = vendor!(_mm256_loadu_si256(first::<_, LANES>(src).as_ptr().cast()));
        let wide = vendor!(_mm512_cvtepu16_epi32(half));
        self.from_bits(self.shl(wide, 16))
    }
    #[inline(always)]
    fn load_f16(self, src: &[u16]) -> __m512 {
        let half = vendor!(_mm256_loadu_si256(first::<_, LANES>(src).as_ptr().cast()));
        vendor!(_mm512_cvtph_ps(half))
    }
    #[inline(always)]
    fn load_pairs(self, src: &[u16]) -> __m512i {
        vendor!(_mm512_loadu_si512(first::<_, { 2 * LANES }>(src).as_ptr().cast()))
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> __m512i {
        vendor!(_mm512_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn load_u32(self, src: &[u32]) -> __m512i {
        vendor!(_mm512_loadu_si512(first::<_, LANES>(src).as_ptr().cast()))
    }
    #[inline(always)]
    fn store_u32(self, x: __m512i, dst: &mut [u32]) {
        vendor!(_mm512_storeu_si512(first_mut::<_, LANES>(dst).as_mut_ptr().cast(), x));
    }
    #[inline(always)]
    fn splat_u64(self, x: u64) -> [__m512i; 2] {
        [vendor!(_mm512_set1_epi64(x.cast_signed())); 2]
    }
    #[inline(always)]
    fn load_u64(self, src: &[u64]) -> [__m512i; 2] {
        let src: &[u64; LANES] = first(src);
        let load = |half: &[u64]| vendor!(_mm512_loadu_si512(first::<_, 8>(half).as_ptr().cast()));
        let [low, high] = [load(&src[..8]), load(&src[8..])];
        let first = vendor!(_mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13));
        let second = vendor!(_mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15));
        [vendor!(_mm512_permutex2var_epi64(low, first, high)), vendor!(_mm512_permutex2var_epi64(low, second, high))]
    }
    #[inline(always)]
    fn store_u64(self, x: [__m512i; 2], dst: &mut [u64]) {
        let low = vendor!(_mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11));
        let high = vendor!(_mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15));
        for (half, order) in first_mut::<_, LANES>(dst).chunks_exact_mut(8).zip([low, high]) {
            let x = vendor!(_mm512_permutex2var_epi64(x[0], order, x[1]));
            vendor!(_mm512_storeu_si512(first_mut::<_, 8>(half).as_mut_ptr().cast(), x));
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, src: &[T], index: usize) {
        vendor!(_mm_prefetch::<_MM_HINT_T0>(src.as_ptr().wrapping_add(index).cast()));
    }

    #[inline(always)]
    fn transpose(self, tile: &mut [__m512]) {
        let t: &mut [__m512; LANES] = tile.try_into().expect("a tile of LANES vectors");
        // First the 128-bit blocks of rows r, r+4, r+8, r+12, so that everything after is in-lane.
        for r in 0..4 {
            [t[r], t[r + 4], t[r + 8], t[r + 12]] = self.transpose_quads([t[r], t[r + 4], t[r + 8], t[r + 12]]);
        }
        transpose_in_lanes(t);
    }
    #[inline(always)]
    fn load_transposed(self, src: &[f32], stride: usize, tile: &mut [__m512]) {
        // The last row is the farthest: where it exists, all do.
        first::<_, LANES>(&src[stride.saturating_mul(LANES - 1)..]);
        // SAFETY: as just checked, 16 rows of 16 f32 (64 bytes) lie `stride` values apart within `src`.
        unsafe { transpose_rows(tile, src.as_ptr().cast(), stride * size_of::<f32>()) };
    }
    #[inline(always)]
    fn load_transposed_pairs(self, src: &[u16], stride: usize, tile: &mut [__m512i]) {
        first::<_, { 2 * LANES }>(&src[stride.saturating_mul(LANES - 1)..]);
        let mut columns = [self.splat(0.0); LANES];
        // SAFETY: as just checked, 16 rows of 32 u16 (64 bytes) lie `stride` values apart within `src`.
        unsafe { transpose_rows(&mut columns, src.as_ptr().cast(), stride * size_of::<u16>()) };
        for (out, column) in tile.iter_mut().zip(columns) {
            *out = self.to_bits(column);
        }
    }

    #[inline(always)]
    fn transpose_quads(self, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
        let ab_low = vendor!(_mm512_shuffle_f32x4::<0x44>(a, b));
        let ab_high = vendor!(_mm512_shuffle_f32x4::<0xee>(a, b));
        let cd_low = vendor!(_mm512_shuffle_f32x4::<0x44>(c, d));
        let cd_high = vendor!(_mm512_shuffle_f32x4::<0xee>(c, d));
        [
            vendor!(_mm512_shuffle_f32x4::<0x88>(ab_low, cd_low)),
            vendor!(_mm512_shuffle_f32x4::<0xdd>(ab_low, cd_low)),
            vendor!(_mm512_shuffle_f32x4::<0x88>(ab_high, cd_high)),
            vendor!(_mm512_shuffle_f32x4::<0xdd>(ab_high, cd_high)),
        ]
    }
    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        let first = vendor!(_mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
        let rest = vendor!(_mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
        [vendor!(_mm512_permutex2var_ps(a, first, b)), vendor!(_mm512_permutex2var_ps(a, rest, b))]
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        vendor!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        vendor!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        vendor!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        vendor!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        vendor!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        vendor!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn sqrt(self, x: __m512) -> __m512 {
        vendor!(_mm512_sqrt_ps(x))
    }
    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        vendor!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // `maxps` answers `b` if either is NaN: right for a NaN in `b`; lanes where `a` is one keep it.
        vendor!(_mm512_mask_max_ps(a, self.eq(a, a), a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        vendor!(_mm512_mask_min_ps(a, self.eq(a, a), a, b))
    }
    #[inline(always)]
    fn dot_bf16_pairs(self, a: __m512i, b: __m512i, acc: __m512) -> __m512 {
        if BF16 {
            let (a, b) = (as_bf16(a), as_bf16(b));
            return vendor!(_mm512_dpbf16_ps(acc, a, b));
        }
        let high = self.splat_u32(0xffff_0000);
        let odd = self.mul_add(self.from_bits(self.and(a, high)), self.from_bits(self.and(b, high)), acc);
        self.mul_add(self.from_bits(self.shl(a, 16)), self.from_bits(self.shl(b, 16)), odd)
    }

    #[inline(always)]
    fn gt(self, a: __m512, b: __m512) -> __mmask16 {
        vendor!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b))
    }
    #[inline(always)]
    fn ge(self, a: __m512, b: __m512) -> __mmask16 {
        vendor!(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b))
    }
    #[inline(always)]
    fn eq(self, a: __m512, b: __m512) -> __mmask16 {
        vendor!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b))
    }
    #[inline(always)]
    fn test(self, x: __m512i, mask: __m512i) -> __mmask16 {
        vendor!(_mm512_test_epi32_mask(x, mask))
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, if_true: __m512, if_false: __m512) -> __m512 {
        vendor!(_mm512_mask_blend_ps(mask, if_false, if_true))
    }

    #[inline(always)]
    fn to_bits(self, x: __m512) -> __m512i {
        vendor!(_mm512_castps_si512(x))
    }
    #[inline(always)]
    fn from_bits(self, x: __m512i) -> __m512 {
        vendor!(_mm512_castsi512_ps(x))
    }
    #[inline(always)]
    fn from_i32(self, x: __m512i) -> __m512 {
        vendor!(_mm512_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn to_i32(self, x: __m512) -> __m512i {
        vendor!(_mm512_cvtps_epi32(x))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        vendor!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        vendor!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        vendor!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn add_u32(self, a: __m512i, b: __m512i) -> __m512i {
        vendor!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_u32(self, a: __m512i, b: __m512i) -> __m512i {
        vendor!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn mul_u32(self, a: __m512i, b: __m512i) -> __m512i {
        vendor!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn shl(self, x: __m512i, bits: u32) -> __m512i {
        vendor!(_mm512_sllv_epi32(x, self.splat_u32(bits)))
    }
    #[inline(always)]
    fn shr(self, x: __m512i, bits: u32) -> __m512i {
        vendor!(_mm512_srlv_epi32(x, self.splat_u32(bits)))
    }
    #[inline(always)]
    fn rotate_right(self, x: __m512i, bits: __m512i) -> __m512i {
        vendor!(_mm512_rorv_epi32(x, bits))
    }
    #[inline(always)]
    fn add_u64(self, a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
        [vendor!(_mm512_add_epi64(a[0], b[0])), vendor!(_mm512_add_epi64(a[1], b[1]))]
    }
    #[inline(always)]
    fn mul_u64(self, a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
        [vendor!(_mm512_mullo_epi64(a[0], b[0])), vendor!(_mm512_mullo_epi64(a[1], b[1]))]
    }
    #[inline(always)]
    fn xor_u64(self, a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
        [self.xor(a[0], b[0]), self.xor(a[1], b[1])]
    }
    #[inline(always)]
    fn shr_u64(self, x: [__m512i; 2], bits: u32) -> [__m512i; 2] {
        let [count, _] = self.splat_u64(u64::from(bits));
        [vendor!(_mm512_srlv_epi64(x[0], count)), vendor!(_mm512_srlv_epi64(x[1], count))]
    }
    #[inline(always)]
    fn low_u32(self, x: [__m512i; 2]) -> __m512i {
        let (a, b) = (self.from_bits(x[0]), self.from_bits(x[1]));
        self.to_bits(vendor!(_mm512_shuffle_ps::<0b10_00_10_00>(a, b)))
    }
    #[inline(always)]
    fn high_u32(self, x: [__m512i; 2]) -> __m512i {
        let (a, b) = (self.from_bits(x[0]), self.from_bits(x[1]));
        self.to_bits(vendor!(_mm512_shuffle_ps::<0b11_01_11_01>(a, b)))
    }
}

/// The same 512 bits, typed as bf16 values.
#[inline(always)]
fn as_bf16(x: __m512i) -> __m512bh {
    // SAFETY: both types are 64 bytes without invalid bit patterns.
    unsafe { core::mem::transmute::<__m512i, __m512bh>(x) }
}

/// Transposes 16 rows of 64 bytes, `stride` bytes apart. Joining half rows while loading takes no
/// shuffle, so that 48 shuffles remain of the 64 that 16 whole rows need.
///
/// # Safety
/// All 16 rows must be readable.
#[inline(always)]
unsafe fn transpose_rows(tile: &mut [__m512], rows: *const u8, stride: usize) {
    let t: &mut [__m512; LANES] = tile.try_into().expect("a tile of LANES vectors");
    for r in 0..4 {
        for half in 0..2 {
            let load = |row: usize| vendor!(_mm256_loadu_pd(rows.wrapping_add(row * stride + 32 * half).cast()));
            let join = |row: usize| {
                let low = vendor!(_mm512_castpd256_pd512(load(row)));
                let both = vendor!(_mm512_insertf64x4::<1>(low, load(row + 4)));
                vendor!(_mm512_castpd_ps(both))
            };
            // 128-bit blocks: the even ones, then the odd ones, of rows r, r + 4, r + 8, r + 12.
            let (a, b) = (join(r), join(r + 8));
            t[r + 8 * half] = vendor!(_mm512_shuffle_f32x4::<0x88>(a, b));
            t[r + 8 * half + 4] = vendor!(_mm512_shuffle_f32x4::<0xdd>(a, b));
        }
    }
    transpose_in_lanes(t);
}

/// Four-by-four transposes within the 128-bit lanes of each four consecutive vectors.
#[inline(always)]
fn transpose_in_lanes(t: &mut [__m512; LANES]) {
    for quad in t.chunks_exact_mut(4) {
        let low01 = vendor!(_mm512_unpacklo_ps(quad[0], quad[1]));
        let high01 = vendor!(_mm512_unpackhi_ps(quad[0], quad[1]));
        let low23 = vendor!(_mm512_unpacklo_ps(quad[2], quad[3]));
        let high23 = vendor!(_mm512_unpackhi_ps(quad[2], quad[3]));
        quad[0] = vendor!(_mm512_shuffle_ps::<0b01_00_01_00>(low01, low23));
        quad[1] = vendor!(_mm512_shuffle_ps::<0b11_10_11_10>(low01, low23));
        quad[2] = vendor!(_mm512_shuffle_ps::<0b01_00_01_00>(high01, high23));
        quad[3] = vendor!(_mm512_shuffle_ps::<0b11_10_11_10>(high01, high23));
    }
}
