//! Checks of floor 1: each kernel's `forward`, `tangent` and `backward` against the twin's.

use super::{
    check::{Bits, Check, Claim},
    inputs::Inputs,
};
use crate::{
    kernels::{
        Context, Profile,
        activation::{self, Activation},
        elementwise::{self, Store},
        embedding, matmul,
        norm::{self, Norm, NormGradient, NormTangent},
        rope::{self, RopeScaling, RopeTable},
        twin,
    },
    tensor::{MatMut, MatRef, WeightRef},
};

/// The checks of products and of operations on rows.
pub(super) const CHECKS: &[Check] = &[
    check("matmul.f32", |cx| matmul_kernel(cx, weight_f32), || matmul_twin(weight_f32, false)),
    check("matmul.bf16", |cx| matmul_kernel(cx, weight_bf16), || matmul_twin(weight_bf16, false)),
    check("matmul.f16", |cx| matmul_kernel(cx, weight_f16), || matmul_twin(weight_f16, false)),
    check(
        "matmul.strict-bf16",
        |cx| matmul_kernel(&cx.clone().with_profile(Profile::StrictBf16), weight_f32),
        || matmul_twin(weight_f32, true),
    ),
    check("matmul.product", product_kernel, product_twin),
    check("elementwise", elementwise_kernel, elementwise_twin),
    check("activation", activation_kernel, activation_twin),
    check("activation.gated", gated_kernel, gated_twin),
    check("norm.layer", |cx| norm_kernel(cx, true), || norm_twin(true)),
    check("norm.rms", |cx| norm_kernel(cx, false), || norm_twin(false)),
    check("rope", rope_kernel, rope_twin),
    check("embedding", embedding_kernel, embedding_twin),
];

pub(super) const fn check(name: &'static str, kernel: fn(&Context) -> Bits, twin: fn() -> Bits) -> Check {
    Check { name, claim: Claim::SameBits { kernel, twin } }
}

// --- matmul -------------------------------------------------------------------------------------

/// m × k × n: one row, tiles with ragged edges, a `k` beyond one block of 256, more columns than a panel.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 1, 1), (1, 67, 33), (3, 0, 5), (5, 300, 17), (16, 32, 48), (37, 129, 65)];

/// A weight of `n` values, whatever its storage, as f32.
type Widen = fn(&[u16]) -> Stored;

/// Weights as a checkpoint stores them.
enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<half::bf16>),
    F16(Vec<half::f16>),
}

fn weight_f32(bits: &[u16]) -> Stored {
    Stored::F32(bits.iter().map(|&bits| (f32::from(bits) - 32768.0) / 32768.0).collect())
}
fn weight_bf16(bits: &[u16]) -> Stored {
    // The exponent is kept within 2^±16 of one, the sign and mantissa are any.
    Stored::Bf16(bits.iter().map(|&bits| half::bf16::from_bits(bits & 0x87ff | 0x3800)).collect())
}
fn weight_f16(bits: &[u16]) -> Stored {
    // Subnormals included, infinities and NaN not.
    Stored::F16(bits.iter().map(|&bits| half::f16::from_bits(bits & 0xbfff)).collect())
}

impl Stored {
    fn view(&self, rows: usize, cols: usize) -> WeightRef<'_> {
        match self {
            Stored::F32(data) => WeightRef::f32(data, rows, cols),
            Stored::Bf16(data) => WeightRef::bf16(data, rows, cols),
            Stored::F16(data) => WeightRef::f16(data, rows, cols),
        }
    }
}

/// `x`, the weight's bits and the bias of shape number `shape`.
fn matmul_inputs(shape: usize) -> (Vec<f32>, Vec<u16>, Vec<f32>) {
    let (m, k, n) = SHAPES[shape];
    let mut inputs = Inputs::new(200 + shape as u64);
    let x = inputs.rough_values(m * k, 1.0);
    let w = inputs.words(n * k).into_iter().map(|word| word as u16).collect();
    (x, w, inputs.values(n, 2.0))
}

fn matmul_kernel(cx: &Context, weight: Widen) -> Bits {
    (0..SHAPES.len()).fold(Bits::default(), |bits, shape| {
        let ((m, k, n), (x, w, bias)) = (SHAPES[shape], matmul_inputs(shape));
        let (weight, mut y) = (weight(&w), vec![0.0; m * n]);
        matmul::forward(cx, MatRef::new(&x, m, k), &weight.view(n, k), Some(&bias), MatMut::new(&mut y, m, n));
        bits.and(&y)
    })
}

fn matmul_twin(weight: Widen, bf16: bool) -> Bits {
    (0..SHAPES.len()).fold(Bits::default(), |bits, shape| {
        let ((m, k, n), (x, w, bias)) = (SHAPES[shape], matmul_inputs(shape));
        let stored = weight(&w);
        let weight = stored.view(n, k);
        let (x, w, zero) = (|i, j| x[i * k + j], |i, j| weight.at(i, j), |_, _| 0.0);
        let mut y = if bf16 {
            twin::matmul::product_bf16((m, k, n), x, w, zero)
        } else {
            twin::matmul::product((m, k, n), x, w, zero)
        };
        for row in y.chunks_exact_mut(n) {
            row.iter_mut().zip(&bias).for_each(|(y, bias)| *y += bias);
        }
        bits.and(&y)
    })
}

/// m × k × n of the plain products, which continue what the output holds.
const PRODUCT: (usize, usize, usize) = (19, 45, 35);

fn product_inputs() -> [Vec<f32>; 3] {
    let (m, k, n) = PRODUCT;
    let mut inputs = Inputs::new(210);
    [inputs.rough_values(m * k, 1.0), inputs.rough_values(k * n, 1.0), inputs.values(m * n, 4.0)]
}

fn product_kernel(cx: &Context) -> Bits {
    let ((m, k, n), [a, b, start]) = (PRODUCT, product_inputs());
    let [mut nt, mut nn, mut tn] = [start.clone(), start.clone(), start];
    // The same values under three readings: only the last dimensions differ.
    matmul::product::nt(cx, MatRef::new(&a, m, k), MatRef::new(&b, n, k), true, MatMut::new(&mut nt, m, n));
    matmul::product::nn(cx, MatRef::new(&a, m, k), MatRef::new(&b, k, n), true, MatMut::new(&mut nn, m, n));
    matmul::product::tn(cx, MatRef::new(&a, k, m), MatRef::new(&b, k, n), true, MatMut::new(&mut tn, m, n));
    Bits::of(&nt).and(&nn).and(&tn)
}

fn product_twin() -> Bits {
    let ((m, k, n), [a, b, start]) = (PRODUCT, product_inputs());
    let start = |i: usize, j: usize| start[i * n + j];
    let nt = twin::matmul::product(PRODUCT, |i, p| a[i * k + p], |j, p| b[j * k + p], start);
    let nn = twin::matmul::product(PRODUCT, |i, p| a[i * k + p], |j, p| b[p * n + j], start);
    let tn = twin::matmul::product(PRODUCT, |i, p| a[p * m + i], |j, p| b[p * n + j], start);
    Bits::of(&nt).and(&nn).and(&tn)
}

// --- elementwise and activations ----------------------------------------------------------------

/// Values per operand: no multiple of any lane count, more than one piece of work.
const N: usize = 2003;

fn four_operands() -> [Vec<f32>; 4] {
    [0, 1, 2, 3].map(|stream| Inputs::new(220 + stream).rough_values(N, 4.0))
}

fn elementwise_kernel(cx: &Context) -> Bits {
    let [a, b, da, db] = four_operands();
    let [mut sum, mut axpy, mut tangent] = [vec![0.0; N], b.clone(), vec![0.0; N]];
    let mut columns = b[..59].to_vec();
    elementwise::add(cx, &a, &b, &mut sum);
    elementwise::axpy(cx, 0.3, &a, &mut axpy);
    elementwise::mul_tangent(cx, [&a, &b], [&da, &db], &mut tangent);
    elementwise::add_bias_backward(cx, MatRef::new(&a[..33 * 59], 33, 59), &mut columns);
    Bits::of(&sum).and(&axpy).and(&tangent).and(&columns)
}

fn elementwise_twin() -> Bits {
    let [a, b, da, db] = four_operands();
    let each = |value: &dyn Fn(usize) -> f32| (0..N).map(value).collect::<Vec<f32>>();
    let mut columns = b[..59].to_vec();
    twin::elementwise::column_sums(&a[..33 * 59], &mut columns);
    Bits::of(&each(&|i| a[i] + b[i]))
        .and(&each(&|i| twin::elementwise::axpy(0.3, a[i], b[i])))
        .and(&each(&|i| twin::elementwise::mul_tangent([a[i], b[i]], [da[i], db[i]])))
        .and(&columns)
}

fn activation_kernel(cx: &Context) -> Bits {
    let (x, dx) = (Inputs::new(230).patterns(N), Inputs::new(231).values(N, 1.0));
    Activation::ALL.into_iter().fold(Bits::default(), |bits, activation| {
        let [mut value, mut tangent] = [vec![0.0; N], vec![0.0; N]];
        activation::forward(cx, activation, &x, &mut value);
        activation::tangent(cx, activation, &x, &dx, &mut tangent);
        bits.and(&value).and(&tangent)
    })
}

fn activation_twin() -> Bits {
    let (x, dx) = (Inputs::new(230).patterns(N), Inputs::new(231).values(N, 1.0));
    Activation::ALL.into_iter().fold(Bits::default(), |bits, activation| {
        let both: Vec<_> = x.iter().map(|&x| twin::activation::value_and_slope(activation, x)).collect();
        let value: Vec<f32> = both.iter().map(|(value, _)| *value).collect();
        let tangent: Vec<f32> = both.iter().zip(&dx).map(|((_, slope), dx)| dx * slope).collect();
        bits.and(&value).and(&tangent)
    })
}

fn gated_kernel(cx: &Context) -> Bits {
    let [gate, up, dgate, dup] = four_operands();
    Activation::ALL.into_iter().fold(Bits::default(), |bits, activation| {
        let [mut value, mut tangent] = [vec![0.0; N], vec![0.0; N]];
        let [mut gate_bar, mut up_bar] = [gate.clone(), up.clone()];
        activation::gated_forward(cx, activation, &gate, &up, &mut value);
        activation::gated_tangent(cx, activation, [&gate, &up], [&dgate, &dup], &mut tangent);
        activation::gated_backward_in_place(cx, activation, &dup, [&mut gate_bar, &mut up_bar]);
        bits.and(&value).and(&tangent).and(&gate_bar).and(&up_bar)
    })
}

fn gated_twin() -> Bits {
    let [gate, up, dgate, dup] = four_operands();
    Activation::ALL.into_iter().fold(Bits::default(), |bits, activation| {
        let each = |value: &dyn Fn(usize) -> f32| (0..N).map(value).collect::<Vec<f32>>();
        let backward = |i: usize| twin::activation::gated_backward(activation, gate[i], up[i], dup[i]);
        bits.and(&each(&|i| twin::activation::gated(activation, gate[i], up[i])))
            .and(&each(&|i| twin::activation::gated_tangent(activation, [gate[i], up[i]], [dgate[i], dup[i]])))
            .and(&each(&|i| backward(i)[0]))
            .and(&each(&|i| backward(i)[1]))
    })
}

// --- norm, RoPE, embedding ----------------------------------------------------------------------

/// Rows and features of the norm checks.
const ROWS: usize = 13;
const FEATURES: usize = 75;
const NORM_EPS: f32 = 1e-5;

/// `x`, `ẋ`, `ȳ`, then weight, bias and their changes.
fn norm_inputs() -> ([Vec<f32>; 3], [Vec<f32>; 4]) {
    let matrix = |stream: u64| Inputs::new(240 + stream).rough_values(ROWS * FEATURES, 1.0);
    let vector = |stream: u64| Inputs::new(245 + stream).values(FEATURES, 2.0);
    ([0, 1, 2].map(matrix), [0, 1, 2, 3].map(vector))
}

fn norm_kernel(cx: &Context, centered: bool) -> Bits {
    let ([x, dx, dy], [weight, bias, dweight, dbias]) = norm_inputs();
    let norm = if centered { Norm::layer(&weight, Some(&bias), NORM_EPS) } else { Norm::rms(&weight, NORM_EPS) };
    let change = NormTangent { weight: &dweight, bias: centered.then_some(&dbias) };
    let view = |x| MatRef::new(x, ROWS, FEATURES);
    let [mut y, mut tangent, mut backward] = [(); 3].map(|()| vec![0.0; ROWS * FEATURES]);
    let [mut weight_bar, mut bias_bar] = [weight.clone(), bias.clone()];
    norm::forward(cx, norm, view(&x), MatMut::new(&mut y, ROWS, FEATURES));
    norm::tangent(cx, norm, view(&x), view(&dx), Some(change), MatMut::new(&mut tangent, ROWS, FEATURES));
    norm::backward(cx, norm, view(&x), view(&dy), Store::Write, MatMut::new(&mut backward, ROWS, FEATURES));
    let gradient = NormGradient { weight: &mut weight_bar, bias: Some(&mut bias_bar) };
    norm::backward_parameters(cx, norm, view(&x), view(&dy), gradient);
    Bits::of(&y).and(&tangent).and(&backward).and(&weight_bar).and(&bias_bar)
}

fn norm_twin(centered: bool) -> Bits {
    let ([x, dx, dy], [weight, bias, dweight, dbias]) = norm_inputs();
    let norm = twin::norm::Norm { weight: &weight[..], bias: centered.then_some(&bias[..]), eps: NORM_EPS, centered };
    let change = (&dweight[..], centered.then_some(&dbias[..]));
    let [mut y, mut tangent, mut backward] = [(); 3].map(|()| Vec::new());
    let [mut weight_bar, mut bias_bar] = [weight.clone(), bias.clone()];
    for ((x, dx), dy) in x.chunks_exact(FEATURES).zip(dx.chunks_exact(FEATURES)).zip(dy.chunks_exact(FEATURES)) {
        y.extend(norm.forward(x));
        tangent.extend(norm.tangent(x, dx, Some(change)));
        backward.extend(norm.backward(x, dy));
        norm.backward_parameters(x, dy, &mut weight_bar, Some(&mut bias_bar));
    }
    Bits::of(&y).and(&tangent).and(&backward).and(&weight_bar).and(&bias_bar)
}

const HEAD_DIM: usize = 12;
const HEADS: usize = 3;
const POSITIONS: [u32; 7] = [0, 1, 2, 50, 3, 199, 0];

fn rope_inputs() -> (RopeTable, Vec<f32>) {
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
    let x = Inputs::new(250).rough_values(POSITIONS.len() * HEADS * HEAD_DIM, 2.0);
    (RopeTable::new(HEAD_DIM, 10_000.0, scaling, 200), x)
}

fn rope_kernel(cx: &Context) -> Bits {
    let (table, x) = rope_inputs();
    let [mut forward, mut backward] = [x.clone(), x];
    rope::forward(cx, &table, &POSITIONS, MatMut::new(&mut forward, POSITIONS.len(), HEADS * HEAD_DIM));
    rope::backward(cx, &table, &POSITIONS, MatMut::new(&mut backward, POSITIONS.len(), HEADS * HEAD_DIM));
    Bits::of(&forward).and(&backward)
}

fn rope_twin() -> Bits {
    let (table, x) = rope_inputs();
    let turn = |rotate: fn([f32; 2], f32, f32) -> [f32; 2]| {
        let mut out = x.clone();
        for (row, &position) in out.chunks_exact_mut(HEADS * HEAD_DIM).zip(&POSITIONS) {
            let (cos, sin) = table.at(position);
            for head in row.chunks_exact_mut(HEAD_DIM) {
                let (first, second) = head.split_at_mut(HEAD_DIM / 2);
                for (i, (a, b)) in first.iter_mut().zip(second).enumerate() {
                    [*a, *b] = rotate([*a, *b], cos[i], sin[i]);
                }
            }
        }
        out
    };
    Bits::of(&turn(twin::rope::rotate)).and(&turn(twin::rope::rotate_back))
}

/// Rows and columns of the embedding table; the scale is no power of two, so that it rounds.
const TABLE: (usize, usize) = (23, 21);
const SCALE: f32 = 1.7;

fn embedding_inputs() -> (Vec<f32>, Vec<u32>, Vec<f32>) {
    let mut inputs = Inputs::new(260);
    let ids: Vec<u32> = inputs.words(40).into_iter().map(|word| word % TABLE.0 as u32).collect();
    (inputs.rough_values(TABLE.0 * TABLE.1, 1.0), ids, inputs.rough_values(40 * TABLE.1, 1.0))
}

fn embedding_kernel(cx: &Context) -> Bits {
    let (table, ids, dy) = embedding_inputs();
    let [mut y, mut table_bar] = [vec![0.0; dy.len()], table.clone()];
    let view = WeightRef::f32(&table, TABLE.0, TABLE.1);
    embedding::forward(cx, view, &ids, SCALE, Store::Write, MatMut::new(&mut y, ids.len(), TABLE.1));
    let dy = MatRef::new(&dy, ids.len(), TABLE.1);
    embedding::backward(cx, dy, &ids, SCALE, MatMut::new(&mut table_bar, TABLE.0, TABLE.1));
    Bits::of(&y).and(&table_bar)
}

fn embedding_twin() -> Bits {
    let (table, ids, dy) = embedding_inputs();
    let mut table_bar = table.clone();
    twin::embedding::backward(&dy, TABLE.1, &ids, SCALE, &mut table_bar);
    Bits::of(&twin::embedding::forward(&table, TABLE.1, &ids, SCALE)).and(&table_bar)
}
