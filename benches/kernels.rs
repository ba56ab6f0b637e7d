//! The row-wise kernels against the memory they move: one row per kernel, each checked once before it is timed.
//!
//! Shapes are a layer of a small model (512 tokens of 576 features, 9 heads of 64, a gated layer of 1,536): 1.2 MB
//! a matrix, so that operands of one kernel stay in L2 or L3 as they do between the layers of a forward pass.
//! Throughput counts the bytes a kernel must read and write. Threads: those of rayon's global pool.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use zofo::{
    kernels::{
        Context,
        activation::{self, Activation},
        elementwise::{self, Store},
        embedding,
        norm::{self, Norm, NormGradient},
        rope::{self, RopeScaling, RopeTable},
        round_bf16, twin,
    },
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::assert_same_bits,
};

const TOKENS: usize = 512;
const WIDTH: usize = 576;
const HIDDEN: usize = 1536;
const HEAD_DIM: usize = 64;
const VOCABULARY: usize = 4096;
const MATRIX: usize = TOKENS * WIDTH;

/// `n` values in −4..4 that repeat in no short period.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 21) as f32 - 4.0
    };
    (0..n).map(|_| next()).collect()
}

/// Checks `kernel` against `expected` from the outputs it starts with, then times it; it moves `bytes` a call.
fn row(
    c: &mut Criterion,
    name: &str,
    bytes: usize,
    expected: &[f32],
    start: &[f32],
    mut kernel: impl FnMut(&mut [f32]),
) {
    let mut out = start.to_vec();
    kernel(&mut out);
    assert_same_bits(&out, expected, name);
    let mut group = c.benchmark_group("kernels");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(name, |b| b.iter(|| kernel(black_box(&mut out))));
    group.finish();
}

fn elementwise_rows(c: &mut Criterion, cx: &Context) {
    let (x, y) = (values(MATRIX, 1), values(MATRIX, 2));
    let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
    row(c, "add", 12 * MATRIX, &sum, &y, |out| elementwise::add(cx, &x, &y, out));
    row(c, "add_assign", 12 * MATRIX, &sum, &y, |out| elementwise::add_assign(cx, &x, out));
    // A factor this small keeps thousands of repetitions finite.
    let line: Vec<f32> = x.iter().zip(&y).map(|(&x, &y)| twin::elementwise::axpy(1e-6, x, y)).collect();
    row(c, "axpy", 12 * MATRIX, &line, &y, |out| elementwise::axpy(cx, 1e-6, &x, out));
    let mut sums = vec![0.0; WIDTH];
    twin::elementwise::column_sums(&x, &mut sums);
    row(c, "add_bias_backward", 4 * MATRIX, &sums, &[0.0; WIDTH], |out| {
        elementwise::add_bias_backward(cx, MatRef::new(&x, TOKENS, WIDTH), out);
    });
    let rounded: Vec<f32> = x.iter().map(|&x| twin::round_bf16::operand(x)).collect();
    row(c, "bf16_operand", 8 * MATRIX, &rounded, &x, |out| round_bf16::operand_slice(cx.isa, out));
}

fn activation_rows(c: &mut Criterion, cx: &Context) {
    let n = TOKENS * HIDDEN;
    let (gate, up, dy) = (values(n, 3), values(n, 4), values(n, 5));
    for act in Activation::ALL {
        let value: Vec<f32> = gate.iter().map(|&x| twin::activation::value_and_slope(act, x).0).collect();
        row(c, &format!("{act}"), 8 * n, &value, &up, |out| activation::forward(cx, act, &gate, out));
        let slope: Vec<f32> =
            gate.iter().zip(&dy).map(|(&x, dy)| twin::activation::value_and_slope(act, x).1 * dy).collect();
        row(c, &format!("{act}_backward"), 12 * n, &slope, &up, |out| activation::backward(cx, act, &gate, &dy, out));
    }
    let act = Activation::Silu;
    let product: Vec<f32> = gate.iter().zip(&up).map(|(&gate, &up)| twin::activation::gated(act, gate, up)).collect();
    row(c, "silu_gated", 12 * n, &product, &up, |out| activation::gated_forward(cx, act, &gate, &up, out));
    let pairs = gate.iter().zip(&up).zip(&dy);
    let (mut both, dup): (Vec<f32>, Vec<f32>) =
        pairs.map(|((&g, &u), &dy)| twin::activation::gated_backward(act, g, u, dy).into()).unzip();
    both.extend(dup);
    row(c, "silu_gated_backward", 20 * n, &both, &vec![0.0; 2 * n], |out| {
        activation::gated_backward(cx, act, [&gate, &up], &dy, out.split_at_mut(n).into());
    });
}

/// `f` of every row of `x` and of `d`, in order.
fn by_rows(x: &[f32], d: &[f32], f: impl Fn(&[f32], &[f32]) -> Vec<f32>) -> Vec<f32> {
    x.chunks(WIDTH).zip(d.chunks(WIDTH)).flat_map(|(x, d)| f(x, d)).collect()
}

fn norm_rows(c: &mut Criterion, cx: &Context) {
    let (x, dy) = (values(MATRIX, 6), values(MATRIX, 7));
    let (weight, bias) = (values(WIDTH, 8), values(WIDTH, 9));
    let [x_rows, dy_rows] = [&x, &dy].map(|data| MatRef::new(data, TOKENS, WIDTH));
    for (name, norm) in
        [("layer_norm", Norm::layer(&weight, Some(&bias), 1e-5)), ("rms_norm", Norm::rms(&weight, 1e-5))]
    {
        let centered = name == "layer_norm";
        let bias = centered.then_some(bias.as_slice());
        let definition = twin::norm::Norm { weight: &weight, bias, eps: 1e-5, centered };
        let y = by_rows(&x, &dy, |x, _| definition.forward(x));
        row(c, name, 8 * MATRIX, &y, &dy, |out| norm::forward(cx, norm, x_rows, MatMut::new(out, TOKENS, WIDTH)));
        let tangent = by_rows(&x, &dy, |x, dx| definition.tangent(x, dx, None));
        row(c, &format!("{name}_tangent"), 12 * MATRIX, &tangent, &x, |out| {
            norm::tangent(cx, norm, x_rows, dy_rows, None, MatMut::new(out, TOKENS, WIDTH));
        });
        let dx = by_rows(&x, &dy, |x, dy| definition.backward(x, dy));
        row(c, &format!("{name}_backward"), 12 * MATRIX, &dx, &x, |out| {
            norm::backward(cx, norm, x_rows, dy_rows, Store::Write, MatMut::new(out, TOKENS, WIDTH));
        });
        let mut sums = vec![0.0; WIDTH];
        for (x, dy) in x.chunks(WIDTH).zip(dy.chunks(WIDTH)) {
            definition.backward_parameters(x, dy, &mut sums, None);
        }
        row(c, &format!("{name}_backward_parameters"), 8 * MATRIX, &sums, &[0.0; WIDTH], |out| {
            norm::backward_parameters(cx, norm, x_rows, dy_rows, NormGradient { weight: out, bias: None });
        });
    }
}

fn rope_rows(c: &mut Criterion, cx: &Context) {
    let table = RopeTable::new(HEAD_DIM, 1e5, RopeScaling::Default, TOKENS);
    let positions: Vec<u32> = (0..TOKENS as u32).collect();
    let x = values(MATRIX, 10);
    let mut turned = x.clone();
    for (t, row) in turned.chunks_mut(WIDTH).enumerate() {
        let (cos, sin) = table.at(t as u32);
        for head in row.chunks_mut(HEAD_DIM) {
            for i in 0..HEAD_DIM / 2 {
                [head[i], head[i + HEAD_DIM / 2]] =
                    twin::rope::rotate([head[i], head[i + HEAD_DIM / 2]], cos[i], sin[i]);
            }
        }
    }
    row(c, "rope", 8 * MATRIX, &turned, &x, |out| {
        rope::forward(cx, &table, &positions, MatMut::new(out, TOKENS, WIDTH));
    });
}

fn embedding_rows(c: &mut Criterion, cx: &Context) {
    let ids: Vec<u32> = (0..TOKENS as u32).map(|t| t * t % VOCABULARY as u32).collect();
    let table: Vec<bf16> = values(VOCABULARY * WIDTH, 11).into_iter().map(bf16::from_f32).collect();
    let widened: Vec<f32> = table.iter().map(|w| w.to_f32()).collect();
    let (dy, gathered) = (values(MATRIX, 12), twin::embedding::forward(&widened, WIDTH, &ids, 1.0));
    let weight = WeightRef::bf16(&table, VOCABULARY, WIDTH);
    row(c, "embedding_bf16", 6 * MATRIX, &gathered, &dy, |out| {
        embedding::forward(cx, weight, &ids, 1.0, Store::Write, MatMut::new(out, TOKENS, WIDTH));
    });
    let mut gradient = vec![0.0; VOCABULARY * WIDTH];
    twin::embedding::backward(&dy, WIDTH, &ids, 1.0, &mut gradient);
    row(c, "embedding_backward", 12 * MATRIX, &gradient, &vec![0.0; VOCABULARY * WIDTH], |out| {
        embedding::backward(cx, MatRef::new(&dy, TOKENS, WIDTH), &ids, 1.0, MatMut::new(out, VOCABULARY, WIDTH));
    });
}

fn kernels(c: &mut Criterion) {
    let cx = Context::new(Isa::active().expect("the instruction set of ZOFO_ISA"));
    elementwise_rows(c, &cx);
    activation_rows(c, &cx);
    norm_rows(c, &cx);
    rope_rows(c, &cx);
    embedding_rows(c, &cx);
}

criterion_group!(benches, kernels);
criterion_main!(benches);
