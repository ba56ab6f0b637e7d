//! Instruction sets as values, and the vector mathematics written over them.
//!
//! *What it is.* A [`Simd`] token is a zero-sized value that exists only when the CPU has the
//! instructions it stands for: holding one is the proof, so every vector operation below is a safe
//! method. Algorithms are written once, generic over the token ([`SimdOp`]), and compiled once per
//! instruction set; [`Isa::dispatch`] is the only place where the choice is made.
//!
//! *What it is not.* A general vector library: it holds the operations the kernels need and no more.
//!
//! *What must stay true* (contract C1, "same bits"). Every operation is either exact, or correctly
//! rounded by IEEE 754 (`add`, `sub`, `mul`, `div`, `sqrt`, `mul_add`), or a bit manipulation, so a
//! generic algorithm gives equal bits on every instruction set provided that its *order* of operations
//! does not depend on [`Simd::LANES`]. No approximate reciprocals, no flush-to-zero, no libm.
//!
//! Everything reachable from [`SimdOp::eval`] must be `#[inline(always)]`: a function that is not
//! inlined into the trampoline is compiled without its target features and turns intrinsics into calls.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod fma;
pub mod math;
pub mod math64;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod scalar;
#[cfg(test)]
mod tests;

pub use dispatch::{Isa, IsaError, IsaName};
pub use fma::{fma_from_f64, subnormals_survive};
pub use scalar::Scalar;

use std::fmt::Debug;

/// Virtual lanes of every canonical reduction: element `i` belongs to lane `i % 16` on every
/// instruction set (one AVX-512 register, two AVX2, four NEON).
pub const VIRTUAL_LANES: usize = 16;

/// The most lanes of any instruction set; sizes stack arrays of one vector per lane.
pub const MAX_LANES: usize = 16;

/// A computation written once over [`Simd`] and compiled for every instruction set.
pub trait SimdOp {
    /// What the computation answers.
    type Output;
    /// The computation; implementations are `#[inline(always)]`.
    fn eval<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set this CPU has. See the module documentation for the contract.
///
/// Slices shorter than [`Simd::LANES`] panic in `load` and `store`; the `_partial` forms take any
/// length up to `LANES`. Lane 0 is the lowest address.
pub trait Simd: Copy + Send + Sync + Debug + 'static {
    /// `LANES` f32 values.
    type F32: Copy;
    /// `LANES` u32 values.
    type U32: Copy;
    /// `LANES` u64 values.
    type U64: Copy;
    /// One truth value per lane.
    type Mask: Copy;

    /// f32 values in a vector: 1, 4, 8 or 16, a divisor of [`VIRTUAL_LANES`].
    const LANES: usize;
    /// The name `ZOFO_ISA` knows.
    const NAME: &'static str;
    /// Whether [`Simd::dot_bf16_pairs`] is one instruction, so that packing bf16 pairs pays.
    const BF16_DOT: bool = false;

    /// Runs `op` with this instruction set's code generation enabled: the only trampoline.
    fn vectorize<O: SimdOp>(self, op: O) -> O::Output;

    // --- memory ---------------------------------------------------------------------------------

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// The first `LANES` values of `src`.
    fn load(self, src: &[f32]) -> Self::F32;
    /// Writes the first `LANES` values of `dst`.
    fn store(self, x: Self::F32, dst: &mut [f32]);
    /// All of `src` (at most `LANES` values), the remaining lanes +0.
    #[inline(always)]
    fn load_partial(self, src: &[f32]) -> Self::F32 {
        let mut lanes = [0.0; MAX_LANES];
        lanes[..src.len()].copy_from_slice(src);
        self.load(&lanes)
    }
    /// Fills all of `dst` (at most `LANES` values) from the lowest lanes.
    #[inline(always)]
    fn store_partial(self, x: Self::F32, dst: &mut [f32]) {
        let mut lanes = [0.0; MAX_LANES];
        self.store(x, &mut lanes);
        dst.copy_from_slice(&lanes[..dst.len()]);
    }
    /// The first `LANES` bf16 bit patterns of `src`, widened (exact).
    fn load_bf16(self, src: &[u16]) -> Self::F32;
    /// The first `LANES` IEEE half-precision bit patterns of `src`, widened (exact, subnormals included).
    fn load_f16(self, src: &[u16]) -> Self::F32;
    /// All lanes `x`.
    fn splat_u32(self, x: u32) -> Self::U32;
    /// The first `LANES` values of `src`.
    fn load_u32(self, src: &[u32]) -> Self::U32;
    /// Writes the first `LANES` values of `dst`.
    fn store_u32(self, x: Self::U32, dst: &mut [u32]);
    /// All lanes `x`.
    fn splat_u64(self, x: u64) -> Self::U64;
    /// The first `LANES` values of `src`.
    fn load_u64(self, src: &[u64]) -> Self::U64;
    /// Writes the first `LANES` values of `dst`.
    fn store_u64(self, x: Self::U64, dst: &mut [u64]);
    /// Asks for the cache line of `src[index]`; any index is allowed, one out of range does nothing harmful.
    #[inline(always)]
    fn prefetch<T>(self, src: &[T], index: usize) {
        let _ = (src, index);
    }

    // --- transposition --------------------------------------------------------------------------

    /// Transposes the `LANES` × `LANES` tile in place: afterwards lane `r` of `tile[c]` is what lane
    /// `c` of `tile[r]` was. `tile` has exactly `LANES` vectors.
    fn transpose(self, tile: &mut [Self::F32]);
    /// Lane `r` of `tile[c]` becomes `src[r * stride + c]`, for `LANES` rows and columns.
    #[inline(always)]
    fn load_transposed(self, src: &[f32], stride: usize, tile: &mut [Self::F32]) {
        for (r, row) in tile.iter_mut().enumerate() {
            *row = self.load(&src[r * stride..]);
        }
        self.transpose(tile);
    }
    /// As [`Simd::load_transposed`] over pairs of 16-bit values: lane `r` of `tile[c]` becomes
    /// `src[r * stride + 2c] | src[r * stride + 2c + 1] << 16`, for `LANES` rows and 2·`LANES` columns.
    #[inline(always)]
    fn load_transposed_pairs(self, src: &[u16], stride: usize, tile: &mut [Self::U32]) {
        let mut rows = [self.splat(0.0); MAX_LANES];
        for (r, row) in rows[..Self::LANES].iter_mut().enumerate() {
            *row = self.from_bits(self.load_pairs(&src[r * stride..]));
        }
        self.transpose(&mut rows[..Self::LANES]);
        for (out, row) in tile.iter_mut().zip(rows) {
            *out = self.to_bits(row);
        }
    }
    /// Transposes a matrix of four rows of quads, which are four consecutive lanes: first quad 0 of each row, then quad 1 of
    /// each, … Vectors of four lanes are quads themselves and stay as they are.
    #[inline(always)]
    fn transpose_quads(self, rows: [Self::F32; 4]) -> [Self::F32; 4] {
        rows
    }
    /// `a₀ b₀ a₁ b₁ …`, the first `LANES` of them and the rest.
    #[inline(always)]
    fn interleave(self, a: Self::F32, b: Self::F32) -> [Self::F32; 2] {
        let [mut even, mut odd] = [[0.0; MAX_LANES]; 2];
        self.store(a, &mut even);
        self.store(b, &mut odd);
        let mut both = [0.0; 2 * MAX_LANES];
        for (pair, (even, odd)) in both.chunks_exact_mut(2).zip(even.into_iter().zip(odd)) {
            pair.copy_from_slice(&[even, odd]);
        }
        [self.load(&both), self.load(&both[Self::LANES..])]
    }
    /// Lane `i` is `src[2i] | src[2i + 1] << 16`; `src` has at least 2·`LANES` values.
    fn load_pairs(self, src: &[u16]) -> Self::U32;

    // --- arithmetic, each operation rounded once ------------------------------------------------

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b`, rounded once.
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        self.mul_add(self.neg(a), b, c)
    }
    /// The IEEE square root.
    fn sqrt(self, x: Self::F32) -> Self::F32;
    /// The nearest integer, halves to even. Lanes with |x| ≥ 2³¹ or NaN are unspecified.
    fn round(self, x: Self::F32) -> Self::F32;
    /// The larger value; NaN if either is NaN, +0 above −0 is *not* promised.
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        // `a > b` is false for NaN: a NaN in `b` is taken by the second arm, one in `a` by the outer select.
        let larger = self.select(self.gt(a, b), a, b);
        self.select(self.eq(a, a), larger, a)
    }
    /// The smaller value; NaN if either is NaN.
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        let smaller = self.select(self.gt(b, a), a, b);
        self.select(self.eq(a, a), smaller, a)
    }
    /// Flips the sign bit.
    #[inline(always)]
    fn neg(self, x: Self::F32) -> Self::F32 {
        self.from_bits(self.xor(self.to_bits(x), self.splat_u32(0x8000_0000)))
    }
    /// Clears the sign bit.
    #[inline(always)]
    fn abs(self, x: Self::F32) -> Self::F32 {
        self.from_bits(self.and(self.to_bits(x), self.splat_u32(0x7fff_ffff)))
    }
    /// `magnitude` with the sign bit of `sign`.
    #[inline(always)]
    fn copysign(self, magnitude: Self::F32, sign: Self::F32) -> Self::F32 {
        let sign = self.and(self.to_bits(sign), self.splat_u32(0x8000_0000));
        self.from_bits(self.or(self.to_bits(self.abs(magnitude)), sign))
    }
    /// The bf16 dot product of profile `strict-bf16`: `acc = fma(a_hi, b_hi, acc)`, then
    /// `acc = fma(a_lo, b_lo, acc)`, each lane holding two bf16 (the odd element in the high half).
    #[inline(always)]
    fn dot_bf16_pairs(self, a: Self::U32, b: Self::U32, acc: Self::F32) -> Self::F32 {
        let high = self.splat_u32(0xffff_0000);
        let widen_odd = |x| self.from_bits(self.and(x, high));
        let widen_even = |x| self.from_bits(self.shl(x, 16));
        let acc = self.mul_add(widen_odd(a), widen_odd(b), acc);
        self.mul_add(widen_even(a), widen_even(b), acc)
    }

    // --- comparison -----------------------------------------------------------------------------

    /// `a < b`; false where either is NaN.
    #[inline(always)]
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        self.gt(b, a)
    }
    /// `a > b`; false where either is NaN.
    fn gt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a >= b`; false where either is NaN.
    fn ge(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`; false where either is NaN.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Whether any of the bits of `mask` is set in `x`.
    fn test(self, x: Self::U32, mask: Self::U32) -> Self::Mask;
    /// `if_true` where the mask holds, else `if_false`; moves bits, never changes them.
    fn select(self, mask: Self::Mask, if_true: Self::F32, if_false: Self::F32) -> Self::F32;

    // --- bits -----------------------------------------------------------------------------------

    /// The bit patterns.
    fn to_bits(self, x: Self::F32) -> Self::U32;
    /// The values with these bit patterns.
    #[expect(clippy::wrong_self_convention, reason = "the receiver is the instruction set, not the value")]
    fn from_bits(self, x: Self::U32) -> Self::F32;
    /// Each lane as a signed integer, converted (correctly rounded).
    #[expect(clippy::wrong_self_convention, reason = "the receiver is the instruction set, not the value")]
    fn from_i32(self, x: Self::U32) -> Self::F32;
    /// The nearest signed integer, halves to even; lanes out of range or NaN are unspecified.
    fn to_i32(self, x: Self::F32) -> Self::U32;
    /// Bitwise and.
    fn and(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Bitwise or.
    fn or(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Wrapping addition.
    fn add_u32(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Wrapping subtraction.
    fn sub_u32(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Wrapping product.
    fn mul_u32(self, a: Self::U32, b: Self::U32) -> Self::U32;
    /// Shifts every lane left by `bits` < 32.
    fn shl(self, x: Self::U32, bits: u32) -> Self::U32;
    /// Shifts every lane right by `bits` < 32, zeros enter.
    fn shr(self, x: Self::U32, bits: u32) -> Self::U32;
    /// Rotates lane `i` of `x` right by `bits[i] % 32`.
    fn rotate_right(self, x: Self::U32, bits: Self::U32) -> Self::U32;
    /// Wrapping addition.
    fn add_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// Wrapping product.
    fn mul_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// Bitwise exclusive or.
    fn xor_u64(self, a: Self::U64, b: Self::U64) -> Self::U64;
    /// Shifts every lane right by `bits` < 64, zeros enter.
    fn shr_u64(self, x: Self::U64, bits: u32) -> Self::U64;
    /// The low halves.
    fn low_u32(self, x: Self::U64) -> Self::U32;
    /// The high halves.
    #[inline(always)]
    fn high_u32(self, x: Self::U64) -> Self::U32 {
        self.low_u32(self.shr_u64(x, 32))
    }
}

/// `1 / 2ⁿ`-style scaling: `2ⁿ` for integral lanes −126 ≤ n ≤ 127, built from bits (exact).
#[inline(always)]
pub fn exp2_int<S: Simd>(simd: S, n: S::U32) -> S::F32 {
    simd.from_bits(simd.shl(simd.add_u32(n, simd.splat_u32(127)), 23))
}

/// The canonical sum of 16 virtual lanes: halves added pairwise, 16 → 8 → 4 → 2 → 1.
#[inline(always)]
pub fn tree_sum(mut lanes: [f32; VIRTUAL_LANES]) -> f32 {
    let mut width = VIRTUAL_LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of 16 virtual lanes; NaN if any lane is NaN.
#[inline(always)]
pub fn tree_max(lanes: [f32; VIRTUAL_LANES]) -> f32 {
    lanes.into_iter().fold(
        f32::NEG_INFINITY,
        |best, x| {
            if best.is_nan() || x.is_nan() { f32::NAN } else { best.max(x) }
        },
    )
}
