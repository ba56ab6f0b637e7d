//! PCG32 streams, many at a time and from any column on.
//!
//! A stream belongs to one (key, tensor, row, block of [`BLOCK_COLUMNS`] columns). It is the generator
//! `rand_pcg::Lcg64Xsh32::from_seed` makes (O'Neill, "PCG: A Family of Simple Fast Space-Efficient
//! Statistically Good Algorithms for Random Number Generation", 2014): a 64-bit congruential sequence
//! `s ← A·s + c` whose states are scrambled into 32 bits. Because `k` steps are again one
//! multiplication and one addition, lanes can be different streams (the same column of consecutive
//! rows) or different columns of one stream, and start anywhere.

use rand_pcg::{Lcg64Xsh32, rand_core::SeedableRng};

use super::TensorNoise;
use crate::simd::{MAX_LANES, Simd, VIRTUAL_LANES};

/// Columns of one stream.
pub const BLOCK_COLUMNS: usize = 256;
/// Rows of a tensor's noise: below this limit no two streams of a tensor can have equal seeds.
pub const MAX_ROWS: u64 = 1 << 40;
/// Columns of a tensor's noise, for the same reason.
pub const MAX_COLUMNS: usize = 1 << 32;

/// Bits of a stream's number that hold the block.
const BLOCK_BITS: u32 = 24;

/// The multiplier of PCG32.
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;

/// `k` steps at once: `s ← factor[k]·s + summand[k]·c`.
struct Jumps<const N: usize> {
    factor: [u64; N],
    summand: [u64; N],
}

/// The jumps of 0, `stride`, 2·`stride`, … steps.
const fn jumps<const N: usize>(stride: usize) -> Jumps<N> {
    let mut table = Jumps { factor: [0; N], summand: [0; N] };
    let (mut factor, mut summand) = (1_u64, 0_u64);
    let mut k = 0;
    while k < N * stride {
        if k.is_multiple_of(stride) {
            table.factor[k / stride] = factor;
            table.summand[k / stride] = summand;
        }
        factor = factor.wrapping_mul(MULTIPLIER);
        summand = summand.wrapping_mul(MULTIPLIER).wrapping_add(1);
        k += 1;
    }
    table
}

/// Jumps of any number of columns in a block; constant indices fold into constants.
static BY_COLUMN: Jumps<BLOCK_COLUMNS> = jumps(1);
/// Jumps of any number of column pairs: what consecutive lanes of one stream start with.
static BY_PAIR: Jumps<{ BLOCK_COLUMNS / 2 }> = jumps(2);

/// The finaliser of `SplitMix64` (Stafford's variant 13): a bijection of 64 bits with full avalanche.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// [`mix`] of every lane.
#[inline(always)]
fn mix_lanes<S: Simd>(simd: S, x: S::U64) -> S::U64 {
    let x = simd.xor_u64(x, simd.shr_u64(x, 30));
    let x = simd.mul_u64(x, simd.splat_u64(0xbf58_476d_1ce4_e5b9));
    let x = simd.xor_u64(x, simd.shr_u64(x, 27));
    let x = simd.mul_u64(x, simd.splat_u64(0x94d0_49bb_1331_11eb));
    simd.xor_u64(x, simd.shr_u64(x, 31))
}

/// The number of a stream in its tensor; distinct for all rows and blocks within the limits.
#[inline(always)]
fn stream_number(row: u64, block: usize) -> u64 {
    // A panel that begins within the limit may have ignored lanes beyond it.
    debug_assert!(row < MAX_ROWS + VIRTUAL_LANES as u64 && block < 1 << BLOCK_BITS, "row {row}, block {block}");
    row << BLOCK_BITS | block as u64
}

impl TensorNoise {
    /// The stream of `row` and `block`, as `rand_pcg` spells it: the definition of every bit below, and a
    /// sequential generator for users who want one (shuffles, sampling).
    pub fn generator(&self, row: u64, block: usize) -> Lcg64Xsh32 {
        let number = stream_number(row, block);
        let mut seed = [0; 16];
        seed[..8].copy_from_slice(&mix(self.words[0] ^ number).to_le_bytes());
        seed[8..].copy_from_slice(&mix(self.words[1] ^ number).to_le_bytes());
        Lcg64Xsh32::from_seed(seed)
    }
}

/// `LANES` congruential sequences: the states whose outputs are next, and the increments.
pub(super) struct Lanes<S: Simd> {
    state: S::U64,
    increment: S::U64,
}

impl<S: Simd> Lanes<S> {
    /// The streams of `row`, `row + 1`, …, one a lane, `columns` draws on.
    #[inline(always)]
    pub(super) fn rows(simd: S, noise: &TensorNoise, row: u64, block: usize, columns: usize) -> Self {
        let offsets: [u64; MAX_LANES] = std::array::from_fn(|lane| (lane as u64) << BLOCK_BITS);
        let number = simd.add_u64(simd.splat_u64(stream_number(row, block)), simd.load_u64(&offsets));
        Lanes::seeded(simd, noise, number).jumped(
            simd,
            simd.splat_u64(BY_COLUMN.factor[columns]),
            simd.splat_u64(BY_COLUMN.summand[columns]),
        )
    }

    /// One stream, lane `i` standing `2·(pair + i)` draws on: every other column of a row.
    #[inline(always)]
    pub(super) fn pairs(simd: S, noise: &TensorNoise, row: u64, block: usize, pair: usize) -> Self {
        let number = simd.splat_u64(stream_number(row, block));
        Lanes::seeded(simd, noise, number).jumped(
            simd,
            simd.load_u64(&BY_PAIR.factor[pair..]),
            simd.load_u64(&BY_PAIR.summand[pair..]),
        )
    }

    /// The states before the first draw.
    #[inline(always)]
    fn seeded(simd: S, noise: &TensorNoise, number: S::U64) -> Self {
        let [state, increment] = noise.words;
        let state = mix_lanes(simd, simd.xor_u64(simd.splat_u64(state), number));
        let increment = mix_lanes(simd, simd.xor_u64(simd.splat_u64(increment), number));
        // `increment | 1` from the operations at hand.
        let increment = simd.shr_u64(increment, 1);
        let increment = simd.add_u64(simd.add_u64(increment, increment), simd.splat_u64(1));
        // As rand_pcg does: one step from `state + increment`, away from the seed itself.
        Lanes { state: simd.add_u64(state, increment), increment }.jumped(
            simd,
            simd.splat_u64(MULTIPLIER),
            simd.splat_u64(1),
        )
    }

    #[inline(always)]
    fn jumped(self, simd: S, factor: S::U64, summand: S::U64) -> Self {
        let summand = simd.mul_u64(summand, self.increment);
        Lanes { state: simd.add_u64(simd.mul_u64(self.state, factor), summand), increment: self.increment }
    }

    /// Draws of every stream in turn: the next outputs, then the next.
    #[inline(always)]
    pub(super) fn one_by_one(self, simd: S) -> Chain<S> {
        Chain { state: self.state, factor: simd.splat_u64(MULTIPLIER), summand: self.increment }
    }

    /// The draws of even and of odd columns as two chains, each `2·stride` columns a step; two chains hide
    /// the latency of the 64-bit product.
    #[inline(always)]
    pub(super) fn two_by_two(self, simd: S, stride: usize) -> [Chain<S>; 2] {
        let odd = Lanes { ..self }.jumped(simd, simd.splat_u64(MULTIPLIER), simd.splat_u64(1));
        let factor = simd.splat_u64(BY_PAIR.factor[stride]);
        let summand = simd.mul_u64(simd.splat_u64(BY_PAIR.summand[stride]), self.increment);
        [Chain { state: self.state, factor, summand }, Chain { state: odd.state, factor, summand }]
    }
}

/// Congruential sequences that leap: `s ← factor·s + summand` in every lane.
pub(super) struct Chain<S: Simd> {
    state: S::U64,
    factor: S::U64,
    summand: S::U64,
}

impl<S: Simd> Chain<S> {
    /// The outputs of the current states; leaps on.
    #[inline(always)]
    pub(super) fn draw(&mut self, simd: S) -> S::U32 {
        let state = self.state;
        self.state = simd.add_u64(simd.mul_u64(state, self.factor), self.summand);
        // XSH RR: bits 27..59 of `s ^ s >> 18`, rotated right by the top five bits, from 32-bit halves
        // (8 instructions where the 64-bit form takes 13).
        let (high, low) = (simd.high_u32(state), simd.low_u32(state));
        let shifted = simd.xor(simd.xor(simd.shl(high, 5), simd.shr(high, 13)), simd.shr(low, 27));
        simd.rotate_right(shifted, simd.shr(high, 27))
    }
}
