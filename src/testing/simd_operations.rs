//! Every operation of [`Simd`] on every instruction set against one lane of plain Rust.
//!
//! *What it is.* The test of contract C1 at its root: a kernel can only give equal bits if each vector
//! operation does. Property tests and the fuzz target `simd_ops` call the same function.
//!
//! *What it is not.* A test of what the operations mean: [`Scalar`] defines that.
//!
//! *What must stay true.* A new operation of the trait gets a line in `EveryOperation`. Results of
//! arithmetic are compared with NaNs canonicalised; moves and bit operations keep every bit of a NaN.

use crate::simd::{Isa, MAX_LANES, Scalar, Simd, SimdOp};

/// Values at which operations change behaviour: zeros, subnormals, ties, ends of ranges, NaNs of both kinds.
const SPECIAL: [f32; 28] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::from_bits(1),
    -f32::from_bits(1),
    f32::from_bits(0x007f_ffff),
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::from_bits(0xffc0_0001),
    f32::from_bits(0x7f80_0001),
    f32::EPSILON,
    1.0 + f32::EPSILON,
    1.0 - f32::EPSILON / 2.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    4_194_303.5,
    8_388_609.0,
    -16_777_215.0,
    2_147_483_520.0,
    -2_147_483_520.0,
];

/// Three operands of sixteen lanes, as bit patterns.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    a: [u32; MAX_LANES],
    b: [u32; MAX_LANES],
    c: [u32; MAX_LANES],
}

impl Operands {
    /// Operands from any bytes: a byte below 64 stands for a special value, a larger one introduces a
    /// little-endian word; after the last byte come zeros.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut bytes = bytes.iter().copied();
        let mut next = || bytes.next().unwrap_or(0);
        let mut word = || match usize::from(next()) {
            tag @ 0..64 => SPECIAL[tag % SPECIAL.len()].to_bits(),
            _ => u32::from_le_bytes([next(), next(), next(), next()]),
        };
        let mut lanes = || std::array::from_fn(|_| word());
        Operands { a: lanes(), b: lanes(), c: lanes() }
    }
}

/// Asserts that every vector operation gives the bits of [`Scalar`] on every available instruction set.
///
/// # Panics
/// If one does not, naming the instruction set, the operation, the lane and both bit patterns.
pub fn assert_equal_on_every_isa(operands: &Operands) {
    let expected = Scalar.vectorize(EveryOperation(operands));
    for isa in Isa::available() {
        let found = isa.dispatch(EveryOperation(operands));
        assert_eq!(found.len(), expected.len(), "operations tried on {isa}");
        for ((operation, found), (_, expected)) in found.into_iter().zip(&expected) {
            for lane in 0..MAX_LANES {
                let (found, expected) = (found[lane], expected[lane]);
                assert!(
                    found == expected,
                    "{operation} on {isa}, lane {lane}: {found:#x} instead of {expected:#x}, \
                     a = {:#x}, b = {:#x}, c = {:#x}",
                    operands.a[lane],
                    operands.b[lane],
                    operands.c[lane],
                );
            }
        }
        isa.dispatch(ShapedByLanes(operands));
        if isa.has_bf16_dot() {
            let instruction = isa.dispatch_bf16(Bf16Dot(operands));
            assert_eq!(instruction, Scalar.vectorize(Bf16Dot(operands)), "the bf16 dot product instruction of {isa}");
        }
    }
}

/// Name and sixteen results, widened to 64 bits.
type Row = (&'static str, [u64; MAX_LANES]);

/// All results of all lane-wise operations, in a fixed order.
struct EveryOperation<'a>(&'a Operands);

impl SimdOp for EveryOperation<'_> {
    type Output = Vec<Row>;

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> Vec<Row> {
        let Operands { a, b, c } = *self.0;
        let floats = |x: [u32; MAX_LANES]| x.map(f32::from_bits);
        let (fa, fb, fc) = (floats(a), floats(b), floats(c));
        // `round` and `to_i32` answer nothing definite beyond ±2³¹.
        let fi = fa.map(|x| if x.abs() < 2_147_483_648.0 { x } else { 0.5 });
        let halves: [u16; 2 * MAX_LANES] = std::array::from_fn(|i| (a[i / 2] >> (16 * (i % 2))) as u16);
        let wide = |high: [u32; MAX_LANES], low: [u32; MAX_LANES]| -> [u64; MAX_LANES] {
            std::array::from_fn(|i| u64::from(high[i]) << 32 | u64::from(low[i]))
        };
        let (wa, wb) = (wide(a, b), wide(b, c));
        let (short, long) = (c[0] % 32, c[0] % 64);

        let mut rows = Vec::with_capacity(64);
        // One row: `$body` with `$at` the first lane of each vector, stored by `$store`.
        macro_rules! row {
            ($name:literal, $type:ty, $store:ident, $bits:expr, |$at:ident| $body:expr) => {{
                let mut out = [<$type>::default(); MAX_LANES];
                for $at in (0..MAX_LANES).step_by(S::LANES) {
                    simd.$store($body, &mut out[$at..]);
                }
                rows.push(($name, out.map($bits)));
            }};
        }
        /// Arithmetic: NaNs are equal.
        macro_rules! rounded {
            ($name:literal, |$at:ident| $body:expr) => {
                row!($name, f32, store, |x: f32| u64::from(if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }), |$at| {
                    $body
                })
            };
        }
        /// Moves: every bit counts.
        macro_rules! moved {
            ($name:literal, |$at:ident| $body:expr) => {
                row!($name, f32, store, |x: f32| u64::from(x.to_bits()), |$at| $body)
            };
        }
        macro_rules! integer {
            ($name:literal, |$at:ident| $body:expr) => {
                row!($name, u32, store_u32, u64::from, |$at| $body)
            };
        }
        macro_rules! integer64 {
            ($name:literal, |$at:ident| $body:expr) => {
                row!($name, u64, store_u64, |x: u64| x, |$at| $body)
            };
        }
        macro_rules! f {
            ($x:ident, $at:ident) => {
                simd.load(&$x[$at..])
            };
        }
        macro_rules! u {
            ($x:ident, $at:ident) => {
                simd.load_u32(&$x[$at..])
            };
        }
        macro_rules! w {
            ($x:ident, $at:ident) => {
                simd.load_u64(&$x[$at..])
            };
        }
        macro_rules! compared {
            ($name:literal, $operation:ident) => {
                moved!($name, |at| {
                    let mask = simd.$operation(f!(fa, at), f!(fb, at));
                    simd.select(mask, f!(fb, at), f!(fc, at))
                })
            };
        }

        moved!("splat", |_at| simd.splat(fa[3]));
        moved!("load", |at| f!(fa, at));
        moved!("load_bf16", |at| simd.load_bf16(&halves[at..]));
        rounded!("load_f16", |at| simd.load_f16(&halves[at..]));
        integer!("load_pairs", |at| simd.load_pairs(&halves[2 * at..]));
        integer!("splat_u32", |_at| simd.splat_u32(a[5]));
        integer!("load_u32", |at| u!(a, at));
        integer64!("splat_u64", |_at| simd.splat_u64(wa[7]));
        integer64!("load_u64", |at| w!(wa, at));

        rounded!("add", |at| simd.add(f!(fa, at), f!(fb, at)));
        rounded!("sub", |at| simd.sub(f!(fa, at), f!(fb, at)));
        rounded!("mul", |at| simd.mul(f!(fa, at), f!(fb, at)));
        rounded!("div", |at| simd.div(f!(fa, at), f!(fb, at)));
        rounded!("mul_add", |at| simd.mul_add(f!(fa, at), f!(fb, at), f!(fc, at)));
        rounded!("neg_mul_add", |at| simd.neg_mul_add(f!(fa, at), f!(fb, at), f!(fc, at)));
        rounded!("sqrt", |at| simd.sqrt(f!(fa, at)));
        rounded!("round", |at| simd.round(f!(fi, at)));
        rounded!("max", |at| simd.max(f!(fa, at), f!(fb, at)));
        rounded!("min", |at| simd.min(f!(fa, at), f!(fb, at)));
        rounded!("dot_bf16_pairs", |at| simd.dot_bf16_pairs(u!(a, at), u!(b, at), f!(fc, at)));
        moved!("neg", |at| simd.neg(f!(fa, at)));
        moved!("abs", |at| simd.abs(f!(fa, at)));
        moved!("copysign", |at| simd.copysign(f!(fa, at), f!(fb, at)));

        compared!("lt", lt);
        compared!("gt", gt);
        compared!("ge", ge);
        compared!("eq", eq);
        moved!("test", |at| simd.select(simd.test(u!(a, at), u!(b, at)), f!(fb, at), f!(fc, at)));

        integer!("to_bits", |at| simd.to_bits(f!(fa, at)));
        moved!("from_bits", |at| simd.from_bits(u!(a, at)));
        rounded!("from_i32", |at| simd.from_i32(u!(a, at)));
        integer!("to_i32", |at| simd.to_i32(f!(fi, at)));
        integer!("and", |at| simd.and(u!(a, at), u!(b, at)));
        integer!("or", |at| simd.or(u!(a, at), u!(b, at)));
        integer!("xor", |at| simd.xor(u!(a, at), u!(b, at)));
        integer!("add_u32", |at| simd.add_u32(u!(a, at), u!(b, at)));
        integer!("sub_u32", |at| simd.sub_u32(u!(a, at), u!(b, at)));
        integer!("mul_u32", |at| simd.mul_u32(u!(a, at), u!(b, at)));
        integer!("shl", |at| simd.shl(u!(a, at), short));
        integer!("shr", |at| simd.shr(u!(a, at), short));
        integer!("rotate_right", |at| simd.rotate_right(u!(a, at), u!(b, at)));
        integer64!("add_u64", |at| simd.add_u64(w!(wa, at), w!(wb, at)));
        integer64!("mul_u64", |at| simd.mul_u64(w!(wa, at), w!(wb, at)));
        integer64!("xor_u64", |at| simd.xor_u64(w!(wa, at), w!(wb, at)));
        integer64!("shr_u64", |at| simd.shr_u64(w!(wa, at), long));
        integer!("low_u32", |at| simd.low_u32(w!(wa, at)));
        rows
    }
}

/// The operations whose shape depends on the number of lanes, against their definition.
struct ShapedByLanes<'a>(&'a Operands);

impl SimdOp for ShapedByLanes<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        // Rows of LANES vectors with a gap, every element distinct in position.
        let stride = S::LANES + 3;
        let words = |i: usize| self.0.a[i % MAX_LANES] ^ self.0.b[i / MAX_LANES % MAX_LANES] ^ (i as u32);
        let values: Vec<f32> = (0..stride * S::LANES).map(|i| f32::from_bits(words(i))).collect();
        let mut tile = [simd.splat(0.0); MAX_LANES];
        let check = |tile: &[S::F32], operation: &str| {
            for (c, column) in tile.iter().enumerate() {
                let mut lanes = [0.0; MAX_LANES];
                simd.store(*column, &mut lanes);
                for (r, lane) in lanes[..S::LANES].iter().enumerate() {
                    let expected = values[r * stride + c].to_bits();
                    assert_eq!(lane.to_bits(), expected, "{operation} on {}, row {r}, column {c}", S::NAME);
                }
            }
        };
        for (r, row) in tile[..S::LANES].iter_mut().enumerate() {
            *row = simd.load(&values[r * stride..]);
        }
        simd.transpose(&mut tile[..S::LANES]);
        check(&tile[..S::LANES], "transpose");
        simd.load_transposed(&values, stride, &mut tile[..S::LANES]);
        check(&tile[..S::LANES], "load_transposed");

        for length in 0..=S::LANES {
            let mut lanes = [f32::NAN; MAX_LANES];
            simd.store(simd.load_partial(&values[..length]), &mut lanes);
            let padded = (0..S::LANES).map(|i| if i < length { values[i] } else { 0.0 });
            for (lane, expected) in lanes.iter().zip(padded) {
                assert_eq!(lane.to_bits(), expected.to_bits(), "load_partial on {}, {length} values", S::NAME);
            }
            let mut stored = vec![0.0; length];
            simd.store_partial(simd.load(&values), &mut stored);
            let same = stored.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "store_partial on {}, {length} values", S::NAME);
        }

        let stride = 2 * S::LANES + 3;
        let halves: Vec<u16> = (0..stride * S::LANES).map(|i| words(i) as u16).collect();
        let mut tile = [simd.splat_u32(0); MAX_LANES];
        simd.load_transposed_pairs(&halves, stride, &mut tile[..S::LANES]);
        for (c, column) in tile[..S::LANES].iter().enumerate() {
            let mut lanes = [0; MAX_LANES];
            simd.store_u32(*column, &mut lanes);
            for (r, lane) in lanes[..S::LANES].iter().enumerate() {
                let at = r * stride + 2 * c;
                let expected = u32::from(halves[at]) | u32::from(halves[at + 1]) << 16;
                assert_eq!(*lane, expected, "load_transposed_pairs on {}, row {r}, column {c}", S::NAME);
            }
        }
        simd.prefetch(&values, 0);
        simd.prefetch(&values, usize::MAX / 8);
    }
}

/// The bf16 dot product inside the operand range of profile `strict-bf16`.
struct Bf16Dot<'a>(&'a Operands);

impl SimdOp for Bf16Dot<'_> {
    type Output = [u32; MAX_LANES];

    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> [u32; MAX_LANES] {
        // Magnitudes below 2⁻⁵⁵ are zero in the profile; accumulators are multiples of 2⁻¹²⁴, which any
        // f32 of magnitude 2⁻¹⁰⁰ or more is.
        let half = |bits: u32| if bits & 0x7fff < (127 - 55) << 7 { bits & 0x8000 } else { bits };
        let pair = |bits: u32| half(bits >> 16) << 16 | half(bits & 0xffff);
        let (a, b) = (self.0.a.map(pair), self.0.b.map(pair));
        let c = self.0.c.map(|bits| f32::from_bits(if bits & 0x7fff_ffff < (127 - 100) << 23 { 0 } else { bits }));
        let mut out = [0.0_f32; MAX_LANES];
        for at in (0..MAX_LANES).step_by(S::LANES) {
            let sum = simd.dot_bf16_pairs(simd.load_u32(&a[at..]), simd.load_u32(&b[at..]), simd.load(&c[at..]));
            simd.store(sum, &mut out[at..]);
        }
        out.map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_pair_of_special_values_gives_the_scalar_bits() {
        for (i, _) in SPECIAL.iter().enumerate() {
            for (j, _) in SPECIAL.iter().enumerate() {
                let tags: Vec<u8> = (0..3 * MAX_LANES)
                    .map(|at| match at / MAX_LANES {
                        0 => i as u8,
                        1 => j as u8,
                        _ => (at % SPECIAL.len()) as u8,
                    })
                    .collect();
                assert_equal_on_every_isa(&Operands::from_bytes(&tags));
            }
        }
    }

    #[test]
    fn every_half_precision_value_widens_to_the_scalar_bits() {
        for high in 0..=u16::MAX / 16 {
            let value = |i: usize| u32::from(high) * 16 + i as u32;
            let a = std::array::from_fn(|i| value(2 * i % 16) | value((2 * i + 1) % 16) << 16);
            let zero = [0; MAX_LANES];
            assert_equal_on_every_isa(&Operands { a, b: zero, c: zero });
        }
    }

    #[test]
    fn the_maximum_of_opposite_zeros_is_the_second_operand_everywhere() {
        // The order of zeros is not promised by the trait, but equal bits are: `fmax` would differ.
        let max = |a: f32, b: f32| Scalar.max(a, b).to_bits();
        assert_eq!(max(0.0, -0.0), (-0.0_f32).to_bits());
        assert_eq!(max(-0.0, 0.0), 0.0_f32.to_bits());
    }

    proptest! {
        #[test]
        fn every_operation_gives_the_scalar_bits_on_every_instruction_set(
            bytes in proptest::collection::vec(any::<u8>(), 0..240),
        ) {
            assert_equal_on_every_isa(&Operands::from_bytes(&bytes));
        }
    }
}
