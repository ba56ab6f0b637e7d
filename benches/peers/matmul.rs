//! Matrix products at the 13 shapes of `docs/performance.md`, beside other libraries, in one run.
//!
//! `cargo bench --bench matmul` measures all; a filter picks, as in
//! `cargo bench --bench matmul -- 1024x576x1536`. `RAYON_NUM_THREADS` sets the threads of everyone.
//! Besides criterion's report it prints a table in GFLOP/s and per cent of the fused multiply-add
//! peak measured next to each shape. Every variant is checked against the scalar definition first.

use std::{
    cell::RefCell,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use half::{bf16, f16};
use zofo::{
    direction::{Dense, Perturbed, Term},
    kernels::{
        Context, Profile,
        matmul::{
            self, PanelSource,
            low_rank::{self, LowRank},
        },
        twin,
    },
    noise::{Law, NoiseKey, Role},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::roofline,
};

/// `m × k × n` of `y = x Wᵀ`: SmolLM2-135M's and OPT's layers, its head, wide layers, few rows.
const SHAPES: [(usize, usize, usize); 13] = [
    (1, 576, 576),
    (1, 576, 1536),
    (16, 576, 1536),
    (128, 576, 576),
    (512, 576, 1536),
    (1024, 576, 576),
    (1024, 576, 1536),
    (1024, 1536, 576),
    (1024, 576, 49152),
    (1024, 768, 3072),
    (1024, 2048, 2048),
    (512, 2048, 8192),
    (512, 4096, 4096),
];

const RANK: usize = 64;

/// Medians of one shape: variant, floating-point operations, seconds.
type Rows = RefCell<Vec<(String, f64, f64)>>;

fn values(len: usize, tensor: u64) -> Vec<f32> {
    let mut out = vec![0.0; len];
    NoiseKey::new(1, 0, Role::Init, 0).tensor(tensor).fill(Isa::fastest(), Law::Uniform, 0..1, 0..len, &mut out);
    out
}

/// Lets criterion time `work` and keeps its median.
fn time(c: &mut Criterion, rows: &Rows, shape: &str, variant: &str, flops: f64, mut work: impl FnMut()) {
    let mut samples = Vec::new();
    let mut group = c.benchmark_group(format!("matmul {shape}"));
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(flops as u64));
    group.bench_function(BenchmarkId::from_parameter(variant), |b| {
        b.iter_custom(|iterations| {
            let start = Instant::now();
            (0..iterations).for_each(|_| work());
            let elapsed = start.elapsed();
            samples.push(elapsed.as_secs_f64() / iterations as f64);
            elapsed
        });
    });
    group.finish();
    if !samples.is_empty() {
        samples.sort_by(f64::total_cmp);
        rows.borrow_mut().push((variant.to_owned(), flops, samples[samples.len() / 2]));
    }
}

/// One shape's operands.
struct Case {
    shape: (usize, usize, usize),
    x: Vec<f32>,
    w: Vec<f32>,
    w_bf16: Vec<bf16>,
    w_f16: Vec<f16>,
    y: Vec<f32>,
}

impl Case {
    fn new(shape: (usize, usize, usize)) -> Case {
        let (m, k, n) = shape;
        let w = values(n * k, 2);
        // 16-bit copies of the same values; the f32 variant keeps them unrounded.
        let (w_bf16, w_f16) = w.iter().map(|&w| (bf16::from_f32(w), f16::from_f32(w))).unzip();
        Case { shape, x: values(m * k, 1), w, w_bf16, w_f16, y: vec![0.0; m * n] }
    }

    fn flops(&self) -> f64 {
        let (m, k, n) = self.shape;
        2.0 * (m * k * n) as f64
    }

    /// Asserts corner elements of `y` against the definition; `w(j, l)` is the operand's element.
    fn check(&self, what: &str, profile: Profile, w: impl Fn(usize, usize) -> f32) {
        let (m, k, n) = self.shape;
        for (i, j) in [(0, 0), (m - 1, 0), (0, n - 1), (m - 1, n - 1), (m / 2, n / 3)] {
            let (x, w) = (|_, l: usize| self.x[i * k + l], |_, l: usize| w(j, l));
            let expected = match profile {
                Profile::StrictF32 => twin::matmul::product((1, k, 1), x, w, |_, _| 0.0),
                Profile::StrictBf16 => twin::matmul::product_bf16((1, k, 1), x, w, |_, _| 0.0),
            };
            assert_eq!(self.y[i * n + j].to_bits(), expected[0].to_bits(), "{what} element {i}, {j}");
        }
    }

    /// As `check` for libraries with another order of summation: k·2⁻²⁴ for each of at most k terms of
    /// magnitude below 1 (Higham, Accuracy and Stability, 3.1).
    fn check_nearly(&self, what: &str) {
        let (m, k, n) = self.shape;
        for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3)] {
            let exact: f64 = (0..k).map(|l| f64::from(self.x[i * k + l]) * f64::from(self.w[j * k + l])).sum();
            let error = (f64::from(self.y[i * n + j]) - exact).abs();
            assert!(error <= (k * k) as f64 * 2_f64.powi(-24), "{what} element {i}, {j} is off by {error}");
        }
    }
}

fn forward(cx: &Context, case: &mut Case, w: &impl PanelSource) {
    let (m, k, n) = case.shape;
    matmul::forward(cx, MatRef::new(&case.x, m, k), w, None, MatMut::new(&mut case.y, m, n));
}

/// zofo, every storage type and displacement.
fn ours(c: &mut Criterion, rows: &Rows, shape: &str, case: &mut Case) {
    let (m, k, n) = case.shape;
    let flops = case.flops();
    let f32_context = Context::new(Isa::active().expect("ZOFO_ISA names an available instruction set"));
    let bf16_context = f32_context.clone().with_profile(Profile::StrictBf16);
    let (w, w_bf16, w_f16) = (case.w.clone(), case.w_bf16.clone(), case.w_f16.clone());
    let weights = [WeightRef::f32(&w, n, k), WeightRef::bf16(&w_bf16, n, k), WeightRef::f16(&w_f16, n, k)];
    for w in weights {
        let name = format!("{} plain", w.dtype());
        forward(&f32_context, case, &w);
        case.check(&name, Profile::StrictF32, |j, l| w.at(j, l));
        time(c, rows, shape, &name, flops, || forward(&f32_context, case, &w));
    }
    for w in [weights[0], weights[1]] {
        let name = format!("{} strict-bf16", w.dtype());
        forward(&bf16_context, case, &w);
        case.check(&name, Profile::StrictBf16, |j, l| w.at(j, l));
        time(c, rows, shape, &name, flops, || forward(&bf16_context, case, &w));
    }
    let noise = NoiseKey::new(1, 1, Role::Dense, 0).tensor(3);
    let one = [Term { direction: Dense::Noise(noise, Law::Gaussian), coefficients: &[1e-3], mask: None }];
    let pair = [Term { direction: Dense::Noise(noise, Law::Gaussian), coefficients: &[1e-3, -1e-3], mask: None }];
    for w in weights {
        let perturbed = Perturbed::new(w, &one, 1);
        let name = format!("{} dense", w.dtype());
        forward(&f32_context, case, &perturbed);
        let z = |j: usize, l: usize| noise.at(Law::Gaussian, j as u64, l);
        case.check(&name, Profile::StrictF32, |j, l| 1e-3_f32.mul_add(z(j, l), w.at(j, l)));
        time(c, rows, shape, &name, flops, || forward(&f32_context, case, &perturbed));
        if m % 2 == 0 {
            // Half the rows at W + c·z, half at W − c·z: the same work as the plain product of m rows.
            let perturbed = Perturbed::new(w, &pair, 2);
            time(c, rows, shape, &format!("{} dense ±pair", w.dtype()), flops, || {
                forward(&f32_context, case, &perturbed);
            });
        }
    }
    let (left, right) = (values(n * RANK, 4), values(k * RANK, 5));
    let probe = LowRank { left: MatRef::new(&left, n, RANK), right: MatRef::new(&right, k, RANK), coefficient: 1e-3 };
    let more = 2.0 * (m * RANK * (k + n)) as f64;
    for w in weights {
        let name = format!("{} low-rank r={RANK}", w.dtype());
        time(c, rows, shape, &name, flops + more, || {
            let y = MatMut::new(&mut case.y, m, n);
            low_rank::forward(&f32_context, MatRef::new(&case.x, m, k), &w, &[probe], None, y);
        });
    }
}

/// The peers, f32, with the same threads.
fn peers(c: &mut Criterion, rows: &Rows, shape: &str, case: &mut Case) {
    let (m, k, n) = case.shape;
    let flops = case.flops();
    let threads = rayon::current_num_threads();
    let Case { x, w, y, .. } = case;
    let parallelism = if threads == 1 { faer::Par::Seq } else { faer::Par::rayon(threads) };
    time(c, rows, shape, "faer", flops, || {
        let (x, w) = (faer::MatRef::from_row_major_slice(x, m, k), faer::MatRef::from_row_major_slice(w, n, k));
        let y = faer::MatMut::from_row_major_slice_mut(y, m, n);
        faer::linalg::matmul::matmul(y, faer::Accum::Replace, x, w.transpose(), 1.0, parallelism);
    });
    case.check_nearly("faer");
    peers_by_pointer(c, rows, shape, case);
}

#[expect(unsafe_code, reason = "these libraries take pointers")]
fn peers_by_pointer(c: &mut Criterion, rows: &Rows, shape: &str, case: &mut Case) {
    let (m, k, n) = case.shape;
    let flops = case.flops();
    let threads = rayon::current_num_threads();
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let Case { x, w, y, .. } = case;
    time(c, rows, shape, "gemm", flops, || {
        let (y, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
        let (k_stride, n_stride) = (k as isize, n as isize);
        // SAFETY: dense row-major matrices [m, n], [m, k] and [n, k], the last read by columns.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                y,
                1,
                n_stride,
                false,
                x,
                1,
                k_stride,
                w,
                k_stride,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    });
    case.check_nearly("gemm");
    let Case { x, w, y, .. } = case;
    time(c, rows, shape, "matrixmultiply", flops, || {
        let (y, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
        let (k_stride, n_stride) = (k as isize, n as isize);
        // SAFETY: as above.
        unsafe { matrixmultiply::sgemm(m, k, n, 1.0, x, k_stride, 1, w, 1, k_stride, 0.0, y, n_stride, 1) };
    });
    case.check_nearly("matrixmultiply");
}

/// More than the last-level cache of any server we know of (384 MB a socket, shared).
const BYTES: usize = 1 << 30;

/// Single rows against weights that come from memory: copies of `1 × 576 × 49152` take turns.
fn streamed(c: &mut Criterion) {
    let (k, n) = (576, 49152);
    let shape = "1x576x49152 from memory";
    let cx = Context::new(Isa::active().expect("ZOFO_ISA names an available instruction set"));
    let x = values(k, 1);
    let mut y = vec![0.0; n];
    let bandwidth = roofline::read_bandwidth(cx.isa, BYTES);
    let rows = Rows::default();
    let copies = BYTES / (n * k * 4);
    let data = values(n * k, 2);
    let many: Vec<Vec<f32>> = (0..copies).map(|_| data.clone()).collect();
    let mut turn = 0;
    time(c, &rows, shape, "F32", (4 * n * k) as f64, || {
        turn = (turn + 1) % copies;
        matmul::forward(
            &cx,
            MatRef::new(&x, 1, k),
            &WeightRef::f32(&many[turn], n, k),
            None,
            MatMut::new(&mut y, 1, n),
        );
        black_box(&mut y);
    });
    drop(many);
    let rounded: Vec<bf16> = data.iter().map(|&w| bf16::from_f32(w)).collect();
    let many: Vec<Vec<bf16>> = (0..2 * copies).map(|_| rounded.clone()).collect();
    time(c, &rows, shape, "BF16", (2 * n * k) as f64, || {
        turn = (turn + 1) % (2 * copies);
        matmul::forward(
            &cx,
            MatRef::new(&x, 1, k),
            &WeightRef::bf16(&many[turn], n, k),
            None,
            MatMut::new(&mut y, 1, n),
        );
        black_box(&mut y);
    });
    for (variant, bytes, seconds) in rows.into_inner() {
        let rate = bytes / seconds;
        println!(
            "{shape:<24} {variant:<22} {:7.1} GB/s {:5.1} % of the {:.1} GB/s read bandwidth",
            rate / 1e9,
            100.0 * rate / bandwidth,
            bandwidth / 1e9
        );
    }
}

fn main() {
    let mut c = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    for shape in SHAPES {
        let rows = Rows::default();
        let name = format!("{}x{}x{}", shape.0, shape.1, shape.2);
        if !std::env::args().skip(1).filter(|a| !a.starts_with('-')).all(|filter| name.contains(&filter)) {
            continue;
        }
        let isa = Isa::active().expect("ZOFO_ISA names an available instruction set");
        let round = Duration::from_millis(30);
        let before = (roofline::fma_flops(isa, round), roofline::bf16_flops(isa, round));
        let mut case = Case::new(shape);
        ours(&mut c, &rows, &name, &mut case);
        peers(&mut c, &rows, &name, &mut case);
        let peak = before.0.max(roofline::fma_flops(isa, round));
        let bf16_peak = before.1.max(roofline::bf16_flops(isa, round));
        for (variant, flops, seconds) in rows.into_inner() {
            let (rate, peak) = (flops / seconds, if variant.ends_with("strict-bf16") { bf16_peak } else { peak });
            println!("{name:<24} {variant:<22} {:7.1} GFLOP/s {:5.1} % of peak", rate / 1e9, 100.0 * rate / peak);
        }
    }
    if std::env::args().skip(1).filter(|a| !a.starts_with('-')).all(|filter| "1x576x49152".contains(&filter)) {
        streamed(&mut c);
    }
    c.final_summary();
}
