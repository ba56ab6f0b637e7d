//! Small dense linear algebra at the sizes of subspace methods on a 1.3B model: sketches of 64 columns,
//! bases of 32. Each row checks its result once before it is timed.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use zofo::{
    kernels::Context,
    linalg::{
        Square,
        cholesky::Cholesky,
        orthogonalize::{newton_schulz, polar, singular_values},
        power_iteration::sweep,
        qr::thin_qr,
        symmetric_eigen::symmetric_eigen,
    },
    simd::Isa,
    tensor::{MatMut, MatRef},
};

fn gaussian(rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = rand_pcg::Pcg64::seed_from_u64(1);
    (0..rows * cols).map(|_| rng.sample::<f32, _>(rand_distr::StandardNormal)).collect()
}

/// The largest element of `|AᵀA − I|`.
fn orthogonality_error(a: &[f32], cols: usize) -> f64 {
    let mut gram = vec![0.0; cols * cols];
    for row in a.chunks_exact(cols) {
        for (sums, &x) in gram.chunks_exact_mut(cols).zip(row) {
            sums.iter_mut().zip(row).for_each(|(sum, &y)| *sum += f64::from(x) * f64::from(y));
        }
    }
    (0..cols).for_each(|i| gram[i * (cols + 1)] -= 1.0);
    gram.into_iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Rounding moves an element of an orthonormal matrix by at most 2⁻²⁴ of itself.
const ONE_ROUNDING: f64 = 2.01 / (1 << 24) as f64;

fn tall(c: &mut Criterion) {
    let mut group = c.benchmark_group("thin_qr");
    group.sample_size(10);
    for (m, n) in [(2048, 32), (8192, 64), (50_272, 64)] {
        let a = gaussian(m, n);
        let mut q = a.clone();
        thin_qr(MatMut::new(&mut q, m, n));
        assert!(orthogonality_error(&q, n) <= ONE_ROUNDING);
        group.throughput(Throughput::Elements(4 * (m * n * n) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{m}x{n}")), |b| {
            b.iter(|| {
                q.copy_from_slice(&a);
                black_box(thin_qr(MatMut::new(&mut q, m, n)))
            });
        });
    }
    group.finish();
}

fn wide(c: &mut Criterion) {
    let (r, n, k) = (64, 8192, 32);
    let cx = Context::new(Isa::active().expect("a usable instruction set"));
    let data = gaussian(r, n);
    let m = MatRef::new(&data, r, n);
    let mut out = vec![0.0; r * n];
    let mut group = c.benchmark_group("64x8192");
    group.sample_size(10);

    newton_schulz(&cx, m, MatMut::new(&mut out, r, n));
    assert!(singular_values(MatRef::new(&out, r, n)).iter().all(|s| (0.68..=1.14).contains(s)));
    group.bench_function("newton_schulz", |b| b.iter(|| newton_schulz(&cx, m, MatMut::new(&mut out, r, n))));

    polar(m, MatMut::new(&mut out, r, n));
    // Eigenvalues of a Gram matrix move by at most its error: 64 elements a row, each ONE_ROUNDING.
    let near_one = |s: &f64| (s * s - 1.0).abs() <= 64.0 * ONE_ROUNDING;
    assert!(singular_values(MatRef::new(&out, r, n)).iter().all(near_one));
    group.bench_function("polar", |b| b.iter(|| polar(m, MatMut::new(&mut out, r, n))));

    let mut v = gaussian(n, k);
    sweep(&cx, m, MatMut::new(&mut v, n, k));
    assert!(orthogonality_error(&v, k) <= ONE_ROUNDING);
    group.bench_function("sweep_32", |b| b.iter(|| sweep(&cx, m, MatMut::new(&mut v, n, k))));
    group.finish();
}

fn small(c: &mut Criterion) {
    let mut group = c.benchmark_group("symmetric");
    group.sample_size(10);
    for n in [64, 256] {
        // The second-difference matrix: eigenvalues 4·sin²(jπ/(2(n + 1))), determinant n + 1.
        let a = Square::from_fn(n, |i, j| [2.0, -1.0, 0.0][i.abs_diff(j).min(2)]);
        let largest = 4.0 * (n as f64 * std::f64::consts::FRAC_PI_2 / (n + 1) as f64).sin().powi(2);
        assert!((symmetric_eigen(&a).values[0] - largest).abs() <= 64.0 * n as f64 * f64::EPSILON);
        group.bench_function(BenchmarkId::new("eigen", n), |b| b.iter(|| symmetric_eigen(black_box(&a))));
        let lower = Cholesky::new(&a).expect("positive definite").lower().clone();
        assert!((lower[(n - 1, n - 1)].powi(2) - (n + 1) as f64 / n as f64).abs() <= n as f64 * f64::EPSILON);
        group.bench_function(BenchmarkId::new("cholesky", n), |b| b.iter(|| Cholesky::new(black_box(&a))));
    }
    group.finish();
}

criterion_group!(benches, tall, wide, small);
criterion_main!(benches);
