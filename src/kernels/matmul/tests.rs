//! Equal bits: every product on every instruction set, in both profiles, for every cut of the work.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{forward, product};
use crate::{
    kernels::{Context, Profile, twin},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::{assert_same_bits, on_threads},
};

/// Sizes where cuts go wrong: nothing, one, around the lanes, tile heights, panels and blocks of `k`.
const ROWS: [usize; 14] = [0, 1, 2, 3, 5, 6, 7, 13, 14, 15, 16, 17, 29, 43];
const DEPTHS: [usize; 16] = [0, 1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 255, 257, 767, 769, 1031];
const COLUMNS: [usize; 14] = [0, 1, 3, 4, 7, 8, 9, 15, 17, 31, 32, 33, 64, 97];

/// Reproducible values: mostly of order one, some zero, subnormal, huge or of either sign of zero.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 40) as f32 / 8_388_608.0 - 1.0;
            match state % 61 {
                0 => 0.0,
                1 => -0.0,
                2 => x * 1e-40,
                3 => x * 1e-22,
                4 => x * 1e18,
                _ => x,
            }
        })
        .collect()
}

fn contexts(profile: Profile) -> Vec<Context> {
    Isa::available().into_iter().map(|isa| Context::new(isa).with_profile(profile)).collect()
}

fn expected(
    profile: Profile,
    shape: (usize, usize, usize),
    x: impl Fn(usize, usize) -> f32,
    w: impl Fn(usize, usize) -> f32,
    start: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    match profile {
        Profile::StrictF32 => twin::matmul::product(shape, x, w, start),
        Profile::StrictBf16 => twin::matmul::product_bf16(shape, x, w, start),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn forward_gives_the_bits_of_its_definition(
        m in prop::sample::select(&ROWS[..]),
        k in prop::sample::select(&DEPTHS[..]),
        n in prop::sample::select(&COLUMNS[..]),
        seed in any::<u64>(),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        with_bias in any::<bool>(),
        threads in prop::sample::select(vec![1, 2, 3, 5]),
    ) {
        let (x, w) = (values(m * k, seed), values(n * k, seed ^ 1));
        let bias = with_bias.then(|| values(n, seed ^ 2));
        let (as_bf16, as_f16): (Vec<bf16>, Vec<f16>) =
            w.iter().map(|&w| (bf16::from_f32(w), f16::from_f32(w))).unzip();
        let weights = [WeightRef::f32(&w, n, k), WeightRef::bf16(&as_bf16, n, k), WeightRef::f16(&as_f16, n, k)];
        for w in weights {
            let mut twin = expected(profile, (m, k, n), |i, l| x[i * k + l], |j, l| w.at(j, l), |_, _| 0.0);
            if let Some(bias) = &bias {
                twin.iter_mut().enumerate().for_each(|(at, y)| *y += bias[at % n]);
            }
            for cx in contexts(profile) {
                let mut y = vec![f32::NAN; m * n];
                on_threads(threads, || {
                    forward(&cx, MatRef::new(&x, m, k), &w, bias.as_deref(), MatMut::new(&mut y, m, n));
                });
                assert_same_bits(&y, &twin, format_args!("{} {profile} {} {m}x{k}x{n}", cx.isa, w.dtype()));
            }
        }
    }

    #[test]
    fn plain_products_give_the_bits_of_their_definition(
        m in prop::sample::select(&ROWS[..]),
        k in prop::sample::select(&DEPTHS[..]),
        n in prop::sample::select(&COLUMNS[..]),
        gap in 0_usize..5,
        seed in any::<u64>(),
        accumulate in any::<bool>(),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        // `a` is [m, k] or, transposed, [k, m]; `b` is [n, k] or [k, n]; rows lie `gap` apart.
        let strided = |rows: usize, cols: usize, salt| values(rows * (cols + gap), seed ^ salt);
        let (a, a_t) = (strided(m, k, 1), strided(k, m, 2));
        let (b, b_t) = (strided(n, k, 3), strided(k, n, 4));
        let view = |data, rows, cols| MatRef::with_stride(data, rows, cols, cols + gap);
        let before = values(m * n, seed ^ 5);
        let start = |i: usize, j: usize| if accumulate { before[i * n + j] } else { 0.0 };
        let shape = (m, k, n);
        let nt = twin::matmul::product(shape, |i, l| a[i * (k + gap) + l], |j, l| b[j * (k + gap) + l], start);
        let nn = twin::matmul::product(shape, |i, l| a[i * (k + gap) + l], |j, l| b_t[l * (n + gap) + j], start);
        let tn = twin::matmul::product(shape, |i, l| a_t[l * (m + gap) + i], |j, l| b_t[l * (n + gap) + j], start);
        for cx in contexts(Profile::StrictBf16) {
            let run = |product: &(dyn Fn(MatMut<'_>) + Sync)| {
                let mut out = before.clone();
                on_threads(threads, || product(MatMut::new(&mut out, m, n)));
                out
            };
            let (a, a_t, b, b_t) = (view(&a, m, k), view(&a_t, k, m), view(&b, n, k), view(&b_t, k, n));
            assert_same_bits(&run(&|out| product::nt(&cx, a, b, accumulate, out)), &nt, format_args!("nt {shape:?}"));
            assert_same_bits(&run(&|out| product::nn(&cx, a, b_t, accumulate, out)), &nn, format_args!("nn {shape:?}"));
            assert_same_bits(&run(&|out| product::tn(&cx, a_t, b_t, accumulate, out)), &tn, format_args!("tn {shape:?}"));
        }
    }

    #[test]
    fn a_batch_gives_the_same_bits_whole_or_split(
        cut in 0_usize..=37,
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        seed in any::<u64>(),
    ) {
        let (m, k, n) = (37, 300, 45);
        let (x, w) = (values(m * k, seed), values(n * k, seed ^ 1));
        let w = WeightRef::f32(&w, n, k);
        for cx in contexts(profile) {
            let (mut whole, mut split) = (vec![0.0; m * n], vec![0.0; m * n]);
            forward(&cx, MatRef::new(&x, m, k), &w, None, MatMut::new(&mut whole, m, n));
            let (top, bottom) = split.split_at_mut(cut * n);
            forward(&cx, MatRef::new(&x[..cut * k], cut, k), &w, None, MatMut::new(top, cut, n));
            forward(&cx, MatRef::new(&x[cut * k..], m - cut, k), &w, None, MatMut::new(bottom, m - cut, n));
            assert_same_bits(&whole, &split, format_args!("{} cut at {cut}", cx.isa));
        }
    }
}

#[test]
fn one_nan_reaches_its_row_or_column_and_nothing_else() {
    let (m, k, n) = (17, 65, 35);
    for profile in [Profile::StrictF32, Profile::StrictBf16] {
        for cx in contexts(profile) {
            let (mut x, mut w) = (vec![0.5; m * k], vec![0.5; n * k]);
            x[3 * k + 64] = f32::NAN;
            w[34 * k + 7] = f32::NAN;
            let mut y = vec![0.0; m * n];
            let weights = WeightRef::f32(&w, n, k);
            forward(&cx, MatRef::new(&x, m, k), &weights, None, MatMut::new(&mut y, m, n));
            for (at, y) in y.iter().enumerate() {
                assert_eq!(y.is_nan(), at / n == 3 || at % n == 34, "{} {profile} element {at}", cx.isa);
            }
        }
    }
}

#[test]
#[should_panic(expected = "x [2, 3] times the transpose of w [4, 5]")]
fn a_wrong_shape_names_both_shapes() {
    let (x, w, mut y) = ([0.0; 6], [0.0; 20], [0.0; 8]);
    let cx = Context::new(Isa::fastest());
    forward(&cx, MatRef::new(&x, 2, 3), &WeightRef::f32(&w, 4, 5), None, MatMut::new(&mut y, 2, 4));
}
