//! Matrix products at 13 shapes, beside other libraries, in one run.
//!
//! `cargo bench -p zofo-peers` measures all; a filter picks shapes, as in `cargo bench -p zofo-peers -- 1024x576`.
//! `RAYON_NUM_THREADS` sets the threads (and `MATMUL_NUM_THREADS` those of `matrixmultiply`).
//!
//! All variants of a shape take turns, round after round, with the fused multiply-add peak measured in every
//! round, and figures are medians over rounds of what was measured in the same round: on a shared machine
//! speeds drift by half within minutes, ratios inside a round do not. That is why criterion, which measures one
//! variant after the other, is not used here. Every variant is checked against the scalar definition first.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use half::{bf16, f16};
use zofo::{
    direction::fuse::{Perturbed, Source, Term},
    kernels::{
        Context, Profile,
        matmul::{
            self, PanelSource,
            low_rank::{self, LowRank},
        },
        twin,
    },
    noise::{Law, NoiseKey, Role, TensorNoise},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::roofline,
};

/// `(m, k, n)`.
type Shape = (usize, usize, usize);

/// Of `y = x Wᵀ`: SmolLM2-135M's and OPT's layers, its head, wide layers, few rows.
const SHAPES: [Shape; 13] = [
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
const ROUNDS: usize = 11;
/// A sample takes at least this long.
const SAMPLE: Duration = Duration::from_millis(12);
const FMA_ROUND: Duration = Duration::from_millis(4);
const EPSILON: f32 = 1e-3;

fn values(len: usize, tensor: u64) -> Vec<f32> {
    let mut out = vec![0.0; len];
    NoiseKey::new(1, 0, Role::Init, 0).tensor(tensor).fill(Isa::fastest(), Law::Uniform, 0..1, 0..len, &mut out);
    out
}

/// The operands of one shape.
struct Case {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    w_bf16: Vec<bf16>,
    w_f16: Vec<f16>,
    left: Vec<f32>,
    right: Vec<f32>,
    noise: TensorNoise,
}

impl Case {
    fn new(shape: Shape) -> Case {
        let (m, k, n) = shape;
        let w = values(n * k, 2);
        // 16-bit copies of the same values; the f32 variant keeps them unrounded.
        let (w_bf16, w_f16) = w.iter().map(|&w| (bf16::from_f32(w), f16::from_f32(w))).unzip();
        let noise = NoiseKey::new(1, 1, Role::Dense, 0).tensor(3);
        Case {
            shape,
            x: values(m * k, 1),
            w,
            w_bf16,
            w_f16,
            left: values(n * RANK, 4),
            right: values(k * RANK, 5),
            noise,
        }
    }

    fn flops(&self) -> f64 {
        let (m, k, n) = self.shape;
        2.0 * (m * k * n) as f64
    }

    fn x(&self) -> MatRef<'_> {
        MatRef::new(&self.x, self.shape.0, self.shape.1)
    }

    fn weights(&self) -> [WeightRef<'_>; 3] {
        let (_, k, n) = self.shape;
        [WeightRef::f32(&self.w, n, k), WeightRef::bf16(&self.w_bf16, n, k), WeightRef::f16(&self.w_f16, n, k)]
    }

    /// Asserts corner elements of `y` against the definition; `w(i, j, l)` is what row `i` is multiplied by.
    fn check(&self, y: &[f32], what: &str, profile: Profile, w: impl Fn(usize, usize, usize) -> f32) {
        let (m, k, n) = self.shape;
        for (i, j) in [(0, 0), (m - 1, 0), (0, n - 1), (m - 1, n - 1), (m / 2, n / 3)] {
            let (x, w) = (|_, l: usize| self.x[i * k + l], |_, l: usize| w(i, j, l));
            let expected = match profile {
                Profile::StrictF32 => twin::matmul::product((1, k, 1), x, w, |_, _| 0.0),
                Profile::StrictBf16 => twin::matmul::product_bf16((1, k, 1), x, w, |_, _| 0.0),
            };
            assert_eq!(y[i * n + j].to_bits(), expected[0].to_bits(), "{what} element {i}, {j}");
        }
    }

    /// As `check` for sums in another order or of other terms: `bound` per term of magnitude below 1, of which
    /// there are k, for each of the k additions (Higham, Accuracy and Stability, 3.1).
    fn check_nearly(&self, y: &[f32], what: &str, w: impl Fn(usize, usize) -> f64) {
        let (m, k, n) = self.shape;
        for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3)] {
            let exact: f64 = (0..k).map(|l| f64::from(self.x[i * k + l]) * w(j, l)).sum();
            let error = (f64::from(y[i * n + j]) - exact).abs();
            assert!(error <= (k * k) as f64 * 2_f64.powi(-24), "{what} element {i}, {j} is off by {error}");
        }
    }
}

/// Computes a product into its argument.
type Work<'a> = Box<dyn FnMut(&mut [f32]) + Send + 'a>;

/// One way to compute the product: its name, its floating-point operations and the work.
struct Variant<'a> {
    name: String,
    flops: f64,
    work: Work<'a>,
}

/// zofo, every storage type, profile and displacement.
fn ours<'a>(case: &'a Case, y: &mut [f32]) -> Vec<Variant<'a>> {
    let (m, k, n) = case.shape;
    let flops = case.flops();
    let f32_context = Context::new(Isa::active().expect("ZOFO_ISA names an available instruction set"));
    let bf16_context = f32_context.clone().with_profile(Profile::StrictBf16);
    let mut variants = Vec::new();
    let mut add = |name: String, flops: f64, work: Work<'a>| {
        variants.push(Variant { name, flops, work });
        let work = &mut variants.last_mut().expect("just pushed").work;
        work(y);
        y.to_vec()
    };
    for (profile, cx) in [(Profile::StrictF32, &f32_context), (Profile::StrictBf16, &bf16_context)] {
        for w in case.weights() {
            let name =
                if profile == Profile::StrictF32 { w.dtype().to_string() } else { format!("{} {profile}", w.dtype()) };
            let cx = cx.clone();
            let y = add(
                name.clone(),
                flops,
                Box::new(move |y| matmul::forward(&cx, case.x(), &w, None, MatMut::new(y, m, n))),
            );
            case.check(&y, &name, profile, |_, j, l| w.at(j, l));
        }
    }
    let z = |j: usize, l: usize| case.noise.at(Law::Gaussian, j as u64, l);
    for (kind, coefficients) in [("dense", &[EPSILON][..]), ("±pair", &[EPSILON, -EPSILON])] {
        if m % coefficients.len() != 0 {
            continue;
        }
        for w in case.weights() {
            let (name, cx) = (format!("{} {kind}", w.dtype()), f32_context.clone());
            let y = add(
                name.clone(),
                flops,
                Box::new(move |y| {
                    let direction = Source::Noise(case.noise, Law::Gaussian).into();
                    let terms = [Term { direction, coefficients }];
                    let w = Perturbed::new(w, &terms, coefficients.len());
                    matmul::forward(&cx, case.x(), &w, None, MatMut::new(y, m, n));
                }),
            );
            let branch = |i: usize| i / (m / coefficients.len());
            case.check(&y, &name, Profile::StrictF32, |i, j, l| coefficients[branch(i)].mul_add(z(j, l), w.at(j, l)));
        }
    }
    let more = 2.0 * (m * RANK * (k + n)) as f64;
    for w in case.weights() {
        let (name, cx) = (format!("{} low-rank r={RANK}", w.dtype()), f32_context.clone());
        let (left, right) = (MatRef::new(&case.left, n, RANK), MatRef::new(&case.right, k, RANK));
        let probe = LowRank { left, right, coefficient: EPSILON };
        let y = add(
            name.clone(),
            flops + more,
            Box::new(move |y| {
                low_rank::forward(&cx, case.x(), &w, &[probe], None, MatMut::new(y, m, n));
            }),
        );
        let side = |j: usize, l: usize| {
            left.row(j).iter().zip(right.row(l)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
        };
        case.check_nearly(&y, &name, |j, l| f64::from(w.at(j, l)) + f64::from(EPSILON) * side(j, l));
    }
    variants
}

/// The peers, f32, with the same threads.
fn peers<'a>(case: &'a Case, y: &mut [f32]) -> Vec<Variant<'a>> {
    let (m, k, n) = case.shape;
    let threads = rayon::current_num_threads();
    let faer_threads = if threads == 1 { faer::Par::Seq } else { faer::Par::rayon(threads) };
    let gemm_threads = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let mut variants = vec![
        Variant {
            name: "faer".to_owned(),
            flops: case.flops(),
            work: Box::new(move |y| {
                let x = faer::MatRef::from_row_major_slice(&case.x, m, k);
                let w = faer::MatRef::from_row_major_slice(&case.w, n, k);
                let y = faer::MatMut::from_row_major_slice_mut(y, m, n);
                faer::linalg::matmul::matmul(y, faer::Accum::Replace, x, w.transpose(), 1.0, faer_threads);
            }),
        },
        Variant {
            name: "gemm".to_owned(),
            flops: case.flops(),
            work: Box::new(move |y| gemm_product(case.shape, &case.x, &case.w, y, gemm_threads)),
        },
    ];
    // It counts its threads itself: only where it takes as many is it a peer.
    let own_threads = std::env::var("MATMUL_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    if own_threads.or(std::thread::available_parallelism().map(usize::from).ok()) == Some(threads) {
        variants.push(Variant {
            name: "matrixmultiply".to_owned(),
            flops: case.flops(),
            work: Box::new(move |y| matrixmultiply_product(case.shape, &case.x, &case.w, y)),
        });
    }
    for variant in &mut variants {
        (variant.work)(y);
        case.check_nearly(y, &variant.name, |j, l| f64::from(case.w[j * k + l]));
    }
    variants
}

#[expect(unsafe_code, reason = "this library takes pointers")]
fn gemm_product((m, k, n): Shape, x: &[f32], w: &[f32], y: &mut [f32], parallelism: gemm::Parallelism) {
    assert!((x.len(), w.len(), y.len()) == (m * k, n * k, m * n));
    let (k_stride, n_stride) = (k as isize, n as isize);
    let (y, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
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
}

#[expect(unsafe_code, reason = "this library takes pointers")]
fn matrixmultiply_product((m, k, n): Shape, x: &[f32], w: &[f32], y: &mut [f32]) {
    assert!((x.len(), w.len(), y.len()) == (m * k, n * k, m * n));
    let (k_stride, n_stride) = (k as isize, n as isize);
    let (y, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
    // SAFETY: dense row-major matrices [m, n], [m, k] and [n, k], the last read by columns.
    unsafe { matrixmultiply::sgemm(m, k, n, 1.0, x, k_stride, 1, w, 1, k_stride, 0.0, y, n_stride, 1) };
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Seconds of one call: as many calls as take [`SAMPLE`].
fn seconds(calls: &mut usize, mut work: impl FnMut()) -> f64 {
    loop {
        let start = Instant::now();
        (0..*calls).for_each(|_| work());
        let elapsed = start.elapsed();
        if elapsed >= SAMPLE {
            return elapsed.as_secs_f64() / *calls as f64;
        }
        *calls *= 2;
    }
}

/// Operations per second of each variant in each round, and the f32 and bf16 peaks of the rounds.
struct Measured {
    names: Vec<String>,
    rates: Vec<Vec<f64>>,
    peaks: Vec<[f64; 2]>,
}

impl Measured {
    fn of(mut variants: Vec<Variant<'_>>, y: &mut [f32]) -> Measured {
        let isa = Isa::active().expect("ZOFO_ISA names an available instruction set");
        let mut calls = vec![1; variants.len()];
        let mut rates = vec![Vec::new(); variants.len()];
        let mut peaks = Vec::new();
        for _ in 0..ROUNDS {
            let before = [roofline::fma_flops(isa, FMA_ROUND), roofline::bf16_flops(isa, FMA_ROUND)];
            for ((variant, rates), calls) in variants.iter_mut().zip(&mut rates).zip(&mut calls) {
                let time = seconds(calls, || {
                    (variant.work)(black_box(&mut *y));
                });
                rates.push(variant.flops / time);
            }
            let after = [roofline::fma_flops(isa, FMA_ROUND), roofline::bf16_flops(isa, FMA_ROUND)];
            peaks.push([before[0].max(after[0]), before[1].max(after[1])]);
        }
        Measured { names: variants.into_iter().map(|variant| variant.name).collect(), rates, peaks }
    }

    fn rates(&self, name: &str) -> Option<&[f64]> {
        Some(&self.rates[self.names.iter().position(|known| known == name)?])
    }

    /// The best peer of each round.
    fn best_peer(&self) -> Vec<f64> {
        let peers: Vec<_> =
            ["faer", "gemm", "matrixmultiply"].into_iter().filter_map(|name| self.rates(name)).collect();
        (0..ROUNDS).map(|round| peers.iter().map(|rates| rates[round]).fold(0.0, f64::max)).collect()
    }

    /// The median over rounds of `of` as a share of `to`.
    fn ratio(&self, of: &[f64], to: &[f64]) -> f64 {
        median(of.iter().zip(to).map(|(a, b)| a / b).collect())
    }

    /// Median rate, and its share of the peaks: the median round and the least disturbed one.
    fn cell(&self, name: &str, peak: usize) -> String {
        let Some(rates) = self.rates(name) else { return "-".to_owned() };
        let peaks: Vec<f64> = self.peaks.iter().map(|peaks| peaks[peak]).collect();
        let best = rates.iter().zip(&peaks).map(|(rate, peak)| rate / peak).fold(0.0, f64::max);
        let rate = median(rates.to_vec()) / 1e9;
        format!("{rate:.0} ({:.0} %, best {:.0} %)", 100.0 * self.ratio(rates, &peaks), 100.0 * best)
    }
}

/// One table of rows `shape | …`, printed as Markdown.
fn table(title: &str, columns: &[&str]) {
    println!("\n{title}\n\n| m × k × n | {} |\n| --- |{}", columns.join(" | "), " ---: |".repeat(columns.len()));
}

fn print_plain(measured: &[(Shape, Measured)]) {
    table(
        "f32 weights, `strict-f32`, GFLOP/s (% of the peak of the round: median, best)",
        &["zofo", "faer", "gemm", "matrixmultiply", "zofo / best peer"],
    );
    for (shape, one) in measured {
        let cells = ["F32", "faer", "gemm", "matrixmultiply"].map(|name| one.cell(name, 0));
        let own = one.rates("F32").expect("measured");
        println!("| {} | {} | {:.2} |", name(*shape), cells.join(" | "), one.ratio(own, &one.best_peer()));
    }
}

fn print_variants(measured: &[(Shape, Measured)]) {
    let kinds = ["", " dense", " ±pair", " low-rank r=64"];
    let names: Vec<String> = ["F32", "BF16", "F16"]
        .iter()
        .flat_map(|dtype| kinds.iter().map(move |kind| format!("{dtype}{kind}")))
        .skip(1)
        .collect();
    let columns: Vec<_> = names.iter().map(String::as_str).collect();
    table("Time of other operands, divided by that of the plain f32 weight", &columns);
    for (shape, one) in measured {
        let (_, k, n) = *shape;
        let extra = (RANK * (k + n)) as f64 / (k * n) as f64;
        let cells: Vec<_> = names
            .iter()
            .map(|name| {
                let own = one.rates("F32").expect("measured");
                let Some(rates) = one.rates(name) else { return "-".to_owned() };
                let work = if name.contains("low-rank") { 1.0 + extra } else { 1.0 };
                let time = work * one.ratio(own, rates);
                if work > 1.0 { format!("{time:.2} (FLOPs {work:.2})") } else { format!("{time:.2}") }
            })
            .collect();
        println!("| {} | {} |", name(*shape), cells.join(" | "));
    }
    let columns = ["F32", "BF16", "F16"];
    table("`strict-bf16`, GFLOP/s (% of the bf16 peak of the round: median, best)", &columns);
    for (shape, one) in measured {
        let cells = columns.map(|dtype| one.cell(&format!("{dtype} strict-bf16"), 1));
        println!("| {} | {} |", name(*shape), cells.join(" | "));
    }
}

fn name((m, k, n): Shape) -> String {
    format!("{m}x{k}x{n}")
}

/// More than the last-level cache of any server we know of (384 MB a socket, shared).
const BYTES: usize = 1 << 30;

/// Single rows against weights that come from memory: copies of `1 × 576 × 49152` take turns.
fn streamed() {
    let (k, n) = (576, 49152);
    let cx = Context::new(Isa::active().expect("ZOFO_ISA names an available instruction set"));
    let x = values(k, 1);
    let mut y = vec![0.0; n];
    let as_f32 = values(n * k, 2);
    let as_bf16: Vec<bf16> = as_f32.iter().map(|&w| bf16::from_f32(w)).collect();
    let many_f32: Vec<Vec<f32>> = (0..BYTES / (n * k * 4)).map(|_| as_f32.clone()).collect();
    let many_bf16: Vec<Vec<bf16>> = (0..BYTES / (n * k * 2)).map(|_| as_bf16.clone()).collect();
    let mut shares = [Vec::new(), Vec::new()];
    let mut bandwidths = Vec::new();
    let mut all = |weights: &[WeightRef<'_>]| {
        let start = Instant::now();
        for w in weights {
            matmul::forward(&cx, MatRef::new(&x, 1, k), w, None, MatMut::new(black_box(&mut y), 1, n));
        }
        let bytes: usize = weights.iter().map(|w| w.rows() * w.cols() * w.dtype().size()).sum();
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    let weights = [
        many_f32.iter().map(|w| WeightRef::f32(w, n, k)).collect::<Vec<_>>(),
        many_bf16.iter().map(|w| WeightRef::bf16(w, n, k)).collect(),
    ];
    for _ in 0..ROUNDS {
        let bandwidth = roofline::read_bandwidth(cx.isa, BYTES);
        for (weights, shares) in weights.iter().zip(&mut shares) {
            shares.push(all(weights) / bandwidth);
        }
        bandwidths.push(bandwidth);
    }
    let bandwidth = median(bandwidths);
    table("Weights that come from memory, % of the read bandwidth of the round", &["bandwidth", "F32", "BF16"]);
    let [as_f32, as_bf16] = shares.map(|shares| 100.0 * median(shares));
    println!("| 1x{k}x{n} | {:.1} GB/s | {as_f32:.0} % | {as_bf16:.0} % |", bandwidth / 1e9);
}

fn run() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |shape: &str| filters.is_empty() || filters.iter().any(|filter| shape.contains(filter));
    let isa = Isa::active().expect("ZOFO_ISA names an available instruction set");
    println!("{isa}, {} threads, {ROUNDS} rounds", rayon::current_num_threads());
    let mut measured = Vec::new();
    for shape in SHAPES.into_iter().filter(|&shape| wanted(&name(shape))) {
        let case = Case::new(shape);
        let mut y = vec![0.0; shape.0 * shape.2];
        let mut variants = ours(&case, &mut y);
        variants.extend(peers(&case, &mut y));
        let one = Measured::of(variants, &mut y);
        let peak = median(one.peaks.iter().map(|peak| peak[0]).collect());
        eprintln!("{} measured, peak {:.0} GFLOP/s", name(shape), peak / 1e9);
        measured.push((shape, one));
    }
    print_plain(&measured);
    print_variants(&measured);
    if wanted("1x576x49152") {
        streamed();
    }
}

fn main() {
    // In a thread of the pool, as the program's own kernels run: a call from outside would wake it every time.
    rayon::scope(|_| run());
}
