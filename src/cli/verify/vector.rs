//! Checks of floor 0: vector operations, elementary functions and canonical reductions.

use rayon::prelude::*;

use super::{
    check::{Bits, Check, Claim},
    inputs::Inputs,
};
use crate::{
    kernels::{
        reduce,
        twin::{self, Real},
    },
    simd::{MAX_LANES, Scalar, Simd, SimdOp, math},
};

/// Values per vector check: every awkward one meets random partners, and 16 rows cross every lane count.
const N: usize = 4096;
/// Values per piece of work: pieces go to whichever thread is free.
const PIECE: usize = 256;

/// A function of three values, lane by lane.
trait Lanes: Sync {
    const NAME: &'static str;
    fn lanes<S: Simd>(simd: S, x: S::F32, y: S::F32, z: S::F32) -> S::F32;
}

/// Applies `L` to a slice; the length is a multiple of 16.
struct Apply<'a, L> {
    x: &'a [f32],
    y: &'a [f32],
    z: &'a [f32],
    out: &'a mut [f32],
    function: std::marker::PhantomData<L>,
}

impl<L: Lanes> SimdOp for Apply<'_, L> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let inputs =
            self.x.chunks_exact(S::LANES).zip(self.y.chunks_exact(S::LANES)).zip(self.z.chunks_exact(S::LANES));
        for (out, ((x, y), z)) in self.out.chunks_exact_mut(S::LANES).zip(inputs) {
            simd.store(L::lanes(simd, simd.load(x), simd.load(y), simd.load(z)), out);
        }
    }
}

/// Three streams of any f32 whatever; the awkward values of one meet random ones of the others.
fn operands() -> [Vec<f32>; 3] {
    let mut inputs = Inputs::new(1);
    let mut streams = [inputs.patterns(N), inputs.patterns(N), inputs.patterns(N)];
    streams[1].rotate_right(N / 3);
    streams[2].rotate_right(N / 3 + 5);
    // Half of the rounds stay where arithmetic neither overflows nor underflows.
    for (stream, operand) in streams.iter_mut().enumerate() {
        operand[N / 2..].copy_from_slice(&Inputs::new(2 + stream as u64).values(N / 2, 16.0));
    }
    streams
}

fn apply<L: Lanes>(run: impl Fn(Apply<'_, L>) + Sync) -> Bits {
    let [x, y, z] = operands();
    let mut out = vec![0.0; N];
    let inputs = x.par_chunks(PIECE).zip(y.par_chunks(PIECE)).zip(z.par_chunks(PIECE));
    out.par_chunks_mut(PIECE)
        .zip(inputs)
        .for_each(|(out, ((x, y), z))| run(Apply { x, y, z, out, function: std::marker::PhantomData }));
    Bits::of(&out)
}

const fn lanes<L: Lanes>() -> Check {
    Check {
        name: L::NAME,
        claim: Claim::SameBits {
            kernel: |cx| apply::<L>(|op| cx.isa.dispatch(op)),
            twin: || apply::<L>(|op| Scalar.vectorize(op)),
        },
    }
}

/// One struct per row: `Name("row", |simd, x, y, z| expression)`.
macro_rules! lanes {
    ($($type:ident($name:literal, |$simd:ident, $x:ident, $y:ident, $z:ident| $value:expr);)*) => {
        $(
            struct $type;
            impl Lanes for $type {
                const NAME: &'static str = $name;
                #[inline(always)]
                fn lanes<S: Simd>($simd: S, $x: S::F32, $y: S::F32, $z: S::F32) -> S::F32 { $value }
            }
        )*
        /// The checks of functions of up to three values.
        pub(super) const LANES: &[Check] = &[$(lanes::<$type>()),*];
    };
}

lanes! {
    Add("simd.add", |simd, x, y, _z| simd.add(x, y));
    Sub("simd.sub", |simd, x, y, _z| simd.sub(x, y));
    Mul("simd.mul", |simd, x, y, _z| simd.mul(x, y));
    Div("simd.div", |simd, x, y, _z| simd.div(x, y));
    MulAdd("simd.mul_add", |simd, x, y, z| simd.mul_add(x, y, z));
    Sqrt("simd.sqrt", |simd, x, _y, _z| simd.sqrt(x));
    // The sign of a zero is not promised: +0 is added to make it positive.
    Max("simd.max", |simd, x, y, _z| simd.add(simd.max(x, y), simd.splat(0.0)));
    Min("simd.min", |simd, x, y, _z| simd.add(simd.min(x, y), simd.splat(0.0)));
    Select("simd.select", |simd, x, y, z| simd.select(simd.gt(x, y), y, simd.select(simd.ge(y, z), z, x)));
    // Beyond ±2²⁰ (and for NaN) the value stands for itself: rounding there is not specified.
    Round("simd.round", |simd, x, _y, _z| {
        let small = simd.lt(simd.abs(x), simd.splat((1 << 20) as f32));
        let whole = simd.from_i32(simd.to_i32(simd.select(small, x, simd.splat(0.0))));
        simd.add(simd.select(small, simd.round(simd.select(small, x, simd.splat(0.0))), x), whole)
    });
    Bf16Dot("simd.dot_bf16_pairs", |simd, x, y, z| simd.dot_bf16_pairs(simd.to_bits(x), simd.to_bits(y), z));
    Bits32("simd.bits", |simd, x, y, z| {
        let (x, y, z) = (simd.to_bits(x), simd.to_bits(y), simd.to_bits(z));
        let mixed = simd.xor(simd.add_u32(simd.mul_u32(x, y), z), simd.rotate_right(x, y));
        let shifted = simd.sub_u32(simd.or(simd.shl(mixed, 7), simd.shr(mixed, 9)), simd.and(y, z));
        // An integer below 2²³, so that no pattern becomes a NaN.
        simd.from_i32(simd.shr(shifted, 9))
    });
    Exp("math.exp", |simd, x, _y, _z| math::exp(simd, x));
    Ln("math.ln", |simd, x, _y, _z| math::ln(simd, x));
    Tanh("math.tanh", |simd, x, _y, _z| math::tanh(simd, x));
    Erf("math.erf", |simd, x, _y, _z| math::erf(simd, x));
    Sigmoid("math.sigmoid", |simd, x, _y, _z| math::sigmoid(simd, x));
}

/// The checks of operations on memory and of reductions.
pub(super) const ROWS: &[Check] = &[
    Check {
        name: "simd.widen",
        claim: Claim::SameBits { kernel: |cx| cx.isa.dispatch(Widen), twin: || Scalar.vectorize(Widen) },
    },
    Check {
        name: "simd.transpose",
        claim: Claim::SameBits { kernel: |cx| cx.isa.dispatch(Transpose), twin: transpose_twin },
    },
    Check {
        name: "kernels.reduce",
        claim: Claim::SameBits {
            kernel: |cx| reductions(|a, b| cx.isa.dispatch(Reduce { a, b })),
            twin: || reductions(reduce_twin),
        },
    },
];

/// Every bf16 and every f16, widened.
struct Widen;

impl SimdOp for Widen {
    type Output = Bits;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> Bits {
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        let mut wide = vec![0.0; 2 * patterns.len()];
        let (from_bf16, from_f16) = wide.split_at_mut(patterns.len());
        for (i, chunk) in patterns.chunks_exact(S::LANES).enumerate() {
            simd.store(simd.load_bf16(chunk), &mut from_bf16[i * S::LANES..]);
            simd.store(simd.load_f16(chunk), &mut from_f16[i * S::LANES..]);
        }
        Bits::of(&wide)
    }
}

/// Rows of [`Transpose`]'s matrix: one tile of the widest instruction set, whole tiles of the others.
const SIDE: usize = MAX_LANES;

/// A 16 × 16 matrix transposed tile by tile, then 16 rows of 32 16-bit values as pairs.
struct Transpose;

impl SimdOp for Transpose {
    type Output = Bits;
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> Bits {
        let (floats, halves) = transposed_inputs();
        let mut out = vec![0.0; SIDE * SIDE];
        let mut pairs = vec![0; SIDE * SIDE];
        for row in (0..SIDE).step_by(S::LANES) {
            for col in (0..SIDE).step_by(S::LANES) {
                let mut tile = [simd.splat(0.0); MAX_LANES];
                simd.load_transposed(&floats[row * SIDE + col..], SIDE, &mut tile[..S::LANES]);
                let mut pair_tile = [simd.splat_u32(0); MAX_LANES];
                simd.load_transposed_pairs(&halves[row * 2 * SIDE + 2 * col..], 2 * SIDE, &mut pair_tile[..S::LANES]);
                for c in 0..S::LANES {
                    simd.store(tile[c], &mut out[(col + c) * SIDE + row..]);
                    simd.store_u32(pair_tile[c], &mut pairs[(col + c) * SIDE + row..]);
                }
            }
        }
        Bits::of(&out).words(pairs)
    }
}

fn transposed_inputs() -> (Vec<f32>, Vec<u16>) {
    let mut inputs = Inputs::new(5);
    (inputs.values(SIDE * SIDE, 1.0), inputs.words(2 * SIDE * SIDE).into_iter().map(|word| word as u16).collect())
}

fn transpose_twin() -> Bits {
    let (floats, halves) = transposed_inputs();
    let at = |i: usize| (i % SIDE, i / SIDE);
    let out: Vec<f32> = (0..SIDE * SIDE).map(at).map(|(row, col)| floats[row * SIDE + col]).collect();
    let pair = |(row, col)| {
        let first = (row * SIDE + col) * 2;
        u32::from(halves[first]) | u32::from(halves[first + 1]) << 16
    };
    Bits::of(&out).words((0..SIDE * SIDE).map(at).map(pair))
}

/// Sum, squares, dot product and maximum of one row.
struct Reduce<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl SimdOp for Reduce<'_> {
    type Output = [f32; 4];
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) -> [f32; 4] {
        [
            reduce::sum(simd, self.a),
            reduce::sum_squares(simd, self.a, 0.25),
            reduce::dot(simd, self.a, self.b),
            reduce::max(simd, self.b),
        ]
    }
}

fn reduce_twin(a: &[f32], b: &[f32]) -> [f32; 4] {
    let centered: Vec<f32> = a.iter().map(|x| x - 0.25).collect();
    [
        twin::canonical_sum(a.len(), |i| a[i]),
        twin::canonical_dot(&centered, &centered),
        twin::canonical_dot(a, b),
        b.iter().fold(f32::NEG_INFINITY, |best, &x| Real::max(best, x)),
    ]
}

/// Rows of every length around the lane counts, and long ones.
fn reductions(reduce: impl Fn(&[f32], &[f32]) -> [f32; 4] + Sync) -> Bits {
    let lengths: Vec<usize> = (0..=67).chain([255, 256, 257, 1009]).collect();
    let results: Vec<[f32; 4]> = lengths
        .into_par_iter()
        .map(|n| {
            let mut inputs = Inputs::new(100 + n as u64);
            reduce(&inputs.rough_values(n, 1.0), &inputs.rough_values(n, 1.0))
        })
        .collect();
    Bits::of(results.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    #[test]
    fn a_transposed_matrix_differs_from_its_original() {
        let (floats, _) = transposed_inputs();
        assert_ne!(transpose_twin(), Bits::of(&floats));
    }

    #[test]
    fn a_kernel_that_is_one_ulp_off_is_noticed() {
        let off = |a: &[f32], b: &[f32]| {
            let mut results = reduce_twin(a, b);
            results[2] = results[2].next_up();
            results
        };
        assert_ne!(reductions(off), reductions(reduce_twin));
        assert_eq!(reductions(reduce_twin), reductions(|a, b| Isa::fastest().dispatch(Reduce { a, b })));
    }
}
