//! Every operation of every instruction set against one lane of plain Rust.

use proptest::prelude::*;

use super::*;

/// The operands of one case, 16 lanes of each kind.
#[derive(Clone, Debug)]
struct Operands {
    a: [u32; MAX_LANES],
    b: [u32; MAX_LANES],
    c: [u32; MAX_LANES],
    wide_a: [u64; MAX_LANES],
    wide_b: [u64; MAX_LANES],
    shift: u32,
}

/// Named results; one list entry per operation, one number per lane.
type Results = Vec<(&'static str, Vec<u64>)>;

/// Applies every lanewise operation to 16 lanes, `LANES` at a time.
struct Lanewise<'a>(&'a Operands);

impl SimdOp for Lanewise<'_> {
    type Output = Results;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> Results {
        let mut results = Results::new();
        for at in (0..MAX_LANES).step_by(S::LANES) {
            // The n-th call of a round belongs to the n-th operation.
            let mut nth = 0;
            let mut record = |name: &'static str, lanes: &[u64]| {
                if at == 0 {
                    results.push((name, Vec::new()));
                }
                results[nth].1.extend_from_slice(&lanes[..S::LANES]);
                nth += 1;
            };
            lanewise(simd, self.0, at, &mut record);
        }
        results
    }
}

/// One round of [`Lanewise`]: lanes `at..at + LANES`.
#[inline(always)]
fn lanewise<S: Simd>(simd: S, operands: &Operands, at: usize, record: &mut impl FnMut(&'static str, &[u64])) {
    let float = |bits: &[u32; MAX_LANES]| simd.from_bits(simd.load_u32(&bits[at..]));
    let (a, b, c) = (float(&operands.a), float(&operands.b), float(&operands.c));
    let (bits_a, bits_b) = (simd.to_bits(a), simd.to_bits(b));
    let (wide_a, wide_b) = (simd.load_u64(&operands.wide_a[at..]), simd.load_u64(&operands.wide_b[at..]));
    let shift = operands.shift;

    let bits = |x: S::U32| {
        let mut lanes = [0; MAX_LANES];
        simd.store_u32(x, &mut lanes);
        lanes.map(u64::from)
    };
    let wide = |x: S::U64| {
        let mut lanes = [0; MAX_LANES];
        simd.store_u64(x, &mut lanes);
        lanes
    };
    // Bit patterns where an operation only moves bits; NaN canonicalised where it computes.
    let moved = |x: S::F32| bits(simd.to_bits(x));
    let computed = |x: S::F32| {
        let mut lanes = [0.0; MAX_LANES];
        simd.store(x, &mut lanes);
        lanes.map(|x| u64::from(if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }))
    };
    let truth = |mask: S::Mask| moved(simd.select(mask, simd.splat(1.0), simd.splat(0.0)));
    // `round` and `to_i32` are specified below 2³¹ only: larger lanes are halved into range.
    let clear_top = simd.splat_u32(0xbfff_ffff);
    let out_of_range = simd.ge(simd.abs(a), simd.splat(2_147_483_520.0));
    let in_range = simd.select(out_of_range, simd.from_bits(simd.and(bits_a, clear_top)), a);
    let in_range = simd.select(simd.eq(in_range, in_range), in_range, b);
    let in_range = simd.select(simd.lt(simd.abs(in_range), simd.splat(2_147_483_520.0)), in_range, simd.splat(-2.5));

    record("splat", &moved(simd.splat(f32::from_bits(operands.a[0]))));
    record("splat_u32", &bits(simd.splat_u32(operands.a[0])));
    record("splat_u64", &wide(simd.splat_u64(operands.wide_a[0])));
    record("load and store", &moved(a));
    record("load_u64", &wide(wide_a));
    record("add", &computed(simd.add(a, b)));
    record("sub", &computed(simd.sub(a, b)));
    record("mul", &computed(simd.mul(a, b)));
    record("div", &computed(simd.div(a, b)));
    record("mul_add", &computed(simd.mul_add(a, b, c)));
    record("neg_mul_add", &computed(simd.neg_mul_add(a, b, c)));
    record("mul_add, cancelling", &computed(simd.mul_add(a, b, simd.neg(simd.mul(a, b)))));
    record("sqrt", &computed(simd.sqrt(a)));
    record("round", &computed(simd.round(in_range)));
    record("to_i32", &bits(simd.to_i32(in_range)));
    record("from_i32", &computed(simd.from_i32(bits_a)));
    record("max", &computed(simd.max(a, b)));
    record("min", &computed(simd.min(a, b)));
    record("neg", &moved(simd.neg(a)));
    record("abs", &moved(simd.abs(a)));
    record("copysign", &moved(simd.copysign(a, b)));
    record("dot_bf16_pairs", &computed(simd.dot_bf16_pairs(bits_a, bits_b, c)));
    record("lt", &truth(simd.lt(a, b)));
    record("gt", &truth(simd.gt(a, b)));
    record("ge", &truth(simd.ge(a, b)));
    record("eq", &truth(simd.eq(a, b)));
    record("eq to itself", &truth(simd.eq(a, a)));
    record("test", &truth(simd.test(bits_a, bits_b)));
    record("test of one bit", &truth(simd.test(bits_a, simd.splat_u32(1 << shift))));
    record("select", &moved(simd.select(simd.gt(a, b), b, c)));
    record("and", &bits(simd.and(bits_a, bits_b)));
    record("or", &bits(simd.or(bits_a, bits_b)));
    record("xor", &bits(simd.xor(bits_a, bits_b)));
    record("add_u32", &bits(simd.add_u32(bits_a, bits_b)));
    record("sub_u32", &bits(simd.sub_u32(bits_a, bits_b)));
    record("mul_u32", &bits(simd.mul_u32(bits_a, bits_b)));
    record("shl", &bits(simd.shl(bits_a, shift)));
    record("shr", &bits(simd.shr(bits_a, shift)));
    record("rotate_right", &bits(simd.rotate_right(bits_a, bits_b)));
    record("rotate_right by 0 to 31", &bits(simd.rotate_right(bits_a, simd.splat_u32(shift))));
    record("add_u64", &wide(simd.add_u64(wide_a, wide_b)));
    record("mul_u64", &wide(simd.mul_u64(wide_a, wide_b)));
    record("xor_u64", &wide(simd.xor_u64(wide_a, wide_b)));
    record("shr_u64", &wide(simd.shr_u64(wide_a, shift)));
    record("shr_u64 by 32 to 63", &wide(simd.shr_u64(wide_a, shift + 32)));
    record("low_u32", &bits(simd.low_u32(wide_a)));
}

/// f32 bit patterns: any, special ones, halves of small integers, and neighbours of powers of two.
fn float_bits() -> impl Strategy<Value = u32> {
    let special = [0.0, f32::MIN_POSITIVE, f32::from_bits(1), 1.0, 8_388_608.0, f32::MAX, f32::INFINITY, f32::NAN];
    let special = special.into_iter().flat_map(|x: f32| [x.to_bits(), (-x).to_bits()]).chain([0x7f80_0001]);
    prop_oneof![
        4 => any::<u32>(),
        2 => prop::sample::select(special.collect::<Vec<_>>()),
        2 => (-2001..=2001).prop_map(|halves| (halves as f32 * 0.5).to_bits()),
        1 => (-20..33, -2_i32..3, any::<bool>()).prop_map(|(exponent, ulps, negative)| {
            let x = f32::from_bits(2.0_f32.powi(exponent).to_bits().wrapping_add_signed(ulps));
            (if negative { -x } else { x }).to_bits()
        }),
    ]
}

prop_compose! {
    fn operands()(
        a in prop::array::uniform16(float_bits()),
        b in prop::array::uniform16(float_bits()),
        c in prop::array::uniform16(float_bits()),
        wide_a in prop::array::uniform16(any::<u64>()),
        wide_b in prop::array::uniform16(any::<u64>()),
        shift in 0_u32..32,
    ) -> Operands {
        Operands { a, b, c, wide_a, wide_b, shift }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_lanewise_operation_equals_plain_rust(operands in operands()) {
        let expected = Scalar.vectorize(Lanewise(&operands));
        for isa in Isa::available() {
            for (found, expected) in isa.dispatch(Lanewise(&operands)).iter().zip(&expected) {
                prop_assert_eq!(found, expected, "on {}", isa);
            }
        }
    }
}

/// Lanes that [`Simd::transpose_quads`] keeps together.
const QUAD: usize = 4;

/// Transposes a tile read at a stride by each way.
struct Transpose<'a> {
    floats: &'a [f32],
    halves: &'a [u16],
    stride: usize,
}

impl SimdOp for Transpose<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Transpose { floats, halves, stride } = self;
        let mut tile = [simd.splat(0.0); MAX_LANES];
        let mut pairs = [simd.splat_u32(0); MAX_LANES];
        let (tile, pairs) = (&mut tile[..S::LANES], &mut pairs[..S::LANES]);
        let mut column = [0; MAX_LANES];

        simd.load_transposed(floats, stride, tile);
        for (c, &x) in tile.iter().enumerate() {
            simd.store_u32(simd.to_bits(x), &mut column);
            for r in 0..S::LANES {
                assert_eq!(column[r], floats[r * stride + c].to_bits(), "load_transposed, row {r}, column {c}");
            }
        }
        // The transpose of the transpose is the tile.
        simd.transpose(tile);
        for (r, &x) in tile.iter().enumerate() {
            simd.store_u32(simd.to_bits(x), &mut column);
            for c in 0..S::LANES {
                assert_eq!(column[c], floats[r * stride + c].to_bits(), "transpose, row {r}, column {c}");
            }
        }
        if S::LANES >= QUAD {
            let rows = std::array::from_fn(|r| simd.load(&floats[r * stride..]));
            for (v, x) in simd.transpose_quads(rows).into_iter().enumerate() {
                simd.store_u32(simd.to_bits(x), &mut column);
                for (lane, bits) in column[..S::LANES].iter().enumerate() {
                    let (quad, within) = ((v * S::LANES + lane) / QUAD, lane % QUAD);
                    let (r, c) = (quad % 4, quad / 4 * QUAD + within);
                    assert_eq!(*bits, floats[r * stride + c].to_bits(), "transpose_quads, row {r}, column {c}");
                }
            }
        }
        simd.load_transposed_pairs(halves, stride, pairs);
        for (c, &x) in pairs.iter().enumerate() {
            simd.store_u32(x, &mut column);
            for r in 0..S::LANES {
                let [low, high] = [2 * c, 2 * c + 1].map(|c| u32::from(halves[r * stride + c]));
                assert_eq!(column[r], low | high << 16, "load_transposed_pairs, row {r}, column {c}");
            }
        }
    }
}

#[test]
fn tiles_are_transposed_at_any_stride_without_reading_past_the_last_row() {
    // Distinct bit patterns, NaNs among them: transposition moves bits.
    let float = |i: usize| f32::from_bits((i as u32).wrapping_mul(0x9e37_79b9));
    for isa in Isa::available() {
        for stride in [2 * MAX_LANES, 2 * MAX_LANES + 1, 67, 576] {
            let floats: Vec<f32> = (0..MAX_LANES * stride).map(float).collect();
            let halves: Vec<u16> = (0..MAX_LANES * stride).map(|i| (i * 40_503) as u16).collect();
            isa.dispatch(Transpose { floats: &floats, halves: &halves, stride });
        }
        isa.dispatch(ExactTile);
    }
}

/// A matrix of exactly `LANES` × `LANES`, where reading one value too many panics.
struct ExactTile;

impl SimdOp for ExactTile {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let floats: Vec<f32> = (0..S::LANES * S::LANES).map(|i| i as f32).collect();
        let mut tile = [simd.splat(0.0); MAX_LANES];
        simd.load_transposed(&floats, S::LANES, &mut tile[..S::LANES]);
        let mut column = [0.0; MAX_LANES];
        simd.store(tile[S::LANES - 1], &mut column);
        assert_eq!(column[S::LANES - 1], floats[S::LANES * S::LANES - 1], "the last column of the last row");
    }
}

/// Loads and stores of every length up to `LANES`.
struct Partial;

impl SimdOp for Partial {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let src: [f32; MAX_LANES] = std::array::from_fn(|i| -1.0 - i as f32);
        for length in 0..=S::LANES {
            let mut lanes = [7.0; MAX_LANES];
            simd.store(simd.load_partial(&src[..length]), &mut lanes);
            assert_eq!(lanes[..length], src[..length], "load_partial of {length}");
            for x in &lanes[length..S::LANES] {
                assert_eq!(x.to_bits(), 0, "the lanes after {length} are +0");
            }
            let mut dst = [7.0; MAX_LANES];
            simd.store_partial(simd.load(&src), &mut dst[..length]);
            assert_eq!(dst[..length], src[..length], "store_partial of {length}");
            assert_eq!(dst[length..], [7.0; MAX_LANES][length..], "nothing is written after {length}");
        }
        simd.prefetch(&src, usize::MAX);
    }
}

#[test]
fn partial_loads_fill_with_zeros_and_partial_stores_touch_nothing_else() {
    for isa in Isa::available() {
        isa.dispatch(Partial);
    }
    Scalar.vectorize(Partial);
}

/// Widens all 65,536 patterns of both 16-bit formats, and joins them in pairs.
struct Widen<'a>(&'a [u16]);

impl SimdOp for Widen<'_> {
    type Output = [Vec<u32>; 3];
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> [Vec<u32>; 3] {
        let mut lanes = [0; MAX_LANES];
        let mut widened = [const { Vec::new() }; 3];
        for src in self.0.chunks_exact(2 * S::LANES) {
            for half in src.chunks_exact(S::LANES) {
                for (format, x) in [simd.load_bf16(half), simd.load_f16(half)].into_iter().enumerate() {
                    simd.store_u32(simd.to_bits(x), &mut lanes);
                    widened[format].extend_from_slice(&lanes[..S::LANES]);
                }
            }
            simd.store_u32(simd.load_pairs(src), &mut lanes);
            widened[2].extend_from_slice(&lanes[..S::LANES]);
        }
        widened
    }
}

#[test]
fn all_16_bit_patterns_widen_exactly() {
    let patterns: Vec<u16> = (0..=u16::MAX).collect();
    let canonical = |bits: u32| if f32::from_bits(bits).is_nan() { 0x7fc0_0000 } else { bits };
    let scalar = Scalar.vectorize(Widen(&patterns));
    for widened in Isa::available().into_iter().map(|isa| isa.dispatch(Widen(&patterns))).chain([scalar]) {
        for &bits in &patterns {
            let [bf16, f16] = [0, 1].map(|format| widened[format][usize::from(bits)]);
            assert_eq!(bf16, u32::from(bits) << 16, "bf16 {bits:#06x}");
            assert_eq!(canonical(f16), canonical(half::f16::from_bits(bits).to_f32().to_bits()), "f16 {bits:#06x}");
        }
        for (pair, bits) in widened[2].iter().zip(patterns.chunks_exact(2)) {
            assert_eq!(*pair, u32::from(bits[0]) | u32::from(bits[1]) << 16);
        }
    }
}

#[test]
fn a_nan_in_either_operand_of_max_and_min_is_the_answer() {
    for a in [f32::NAN, 1.0, f32::NEG_INFINITY, 0.0] {
        for b in [f32::NAN, -1.0, f32::INFINITY] {
            let operands = Operands {
                a: [a.to_bits(); MAX_LANES],
                b: [b.to_bits(); MAX_LANES],
                c: [0; MAX_LANES],
                wide_a: [0; MAX_LANES],
                wide_b: [0; MAX_LANES],
                shift: 0,
            };
            let (larger, smaller) = if a.is_nan() || b.is_nan() { (f32::NAN, f32::NAN) } else { (a.max(b), a.min(b)) };
            for isa in Isa::available() {
                for (name, lanes) in isa.dispatch(Lanewise(&operands)) {
                    let expected = match name {
                        "max" => larger,
                        "min" => smaller,
                        _ => continue,
                    };
                    assert_eq!(lanes, [u64::from(expected.to_bits()); MAX_LANES], "{name}({a}, {b}) on {isa}");
                }
            }
        }
    }
}
