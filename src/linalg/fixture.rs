//! Inputs and f64 measurements shared by the tests of this folder.

use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64;

use crate::{
    kernels::{Context, Isa},
    tensor::{MatMut, MatRef},
};

/// 2⁻²⁴: the relative error of rounding to f32.
pub(super) const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// `rows × cols` independent standard normals.
pub(super) fn gaussian(seed: u64, rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = Pcg64::seed_from_u64(seed);
    (0..rows * cols).map(|_| rng.sample::<f32, _>(StandardNormal)).collect()
}

/// The matrices `[rows, cols]` that break naive code.
pub(super) fn awkward(rows: usize, cols: usize) -> Vec<(&'static str, Vec<f32>)> {
    let noise = gaussian(7, rows, cols);
    let scaled = |s: f32| noise.iter().map(|x| x * s).collect::<Vec<_>>();
    let by_position = |f: &dyn Fn(usize, usize) -> f32| (0..rows * cols).map(|i| f(i / cols, i % cols)).collect();
    vec![
        ("zero", vec![0.0; rows * cols]),
        ("ones", vec![1.0; rows * cols]),
        ("1e30", scaled(1e30)),
        ("1e-30", scaled(1e-30)),
        ("subnormal", scaled(1e-43)),
        ("largest", noise.iter().map(|x| f32::MAX.copysign(*x)).collect()),
        ("columns in pairs", by_position(&|r, c| noise[r * cols + c / 2 * 2])),
        ("every other column zero", by_position(&|r, c| if c % 2 == 0 { 0.0 } else { noise[r * cols + c] })),
        (
            "columns from 1e-38 to 1e38",
            by_position(&|r, c| noise[r * cols + c] * 10_f32.powi((c * 13 % 77) as i32 - 38)),
        ),
        ("one element", by_position(&|r, c| if (r, c) == (rows / 2, cols / 3) { -3.0 } else { 0.0 })),
        ("almost parallel columns", by_position(&|r, c| noise[r * cols] + 1e-6 * noise[r * cols + c])),
    ]
}

/// The largest element of `|AᵀA − I|`, in f64.
pub(super) fn orthogonality_error(a: MatRef<'_>) -> f64 {
    let n = a.cols();
    let mut gram = vec![0.0; n * n];
    for r in 0..a.rows() {
        for (sums, &x) in gram.chunks_exact_mut(n.max(1)).zip(a.row(r)) {
            sums.iter_mut().zip(a.row(r)).for_each(|(sum, &y)| *sum += f64::from(x) * f64::from(y));
        }
    }
    (0..n * n).map(|i| (gram[i] - f64::from(u8::from(i / n == i % n))).abs()).fold(0.0, f64::max)
}

/// Bit patterns, every NaN the same.
pub(super) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// The bits of `run` for every instruction set here and 1, 2 and 3 threads, all found equal.
///
/// # Panics
/// If two of them differ.
pub(super) fn same_bits(rows: usize, cols: usize, run: impl Fn(&Context, MatMut<'_>) + Sync) -> Vec<f32> {
    let mut first: Option<Vec<f32>> = None;
    for isa in Isa::available() {
        for threads in 1..=3 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; rows * cols];
            pool.install(|| run(&Context::new(isa), MatMut::new(&mut out, rows, cols)));
            let first = first.get_or_insert_with(|| out.clone());
            assert_eq!(bits(first), bits(&out), "{isa} with {threads} threads");
        }
    }
    first.expect("at least one instruction set")
}
