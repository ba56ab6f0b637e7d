//! Checks of floor 1, continued: softmax, attention, cross-entropy and the fused head.

use super::{
    check::{Bits, Check},
    inputs::Inputs,
    kernels::check,
};
use crate::{
    kernels::{
        Context, Mask,
        attention::{self, Attention, Gradients, Inputs as Operands},
        cross_entropy::{self, Targets, Vocabulary},
        head, softmax,
        twin::{
            self,
            attention::{Matrices, Sequence},
        },
    },
    tensor::{MatMut, MatRef, Sequences, WeightRef},
};

/// The checks of softmax, attention and losses.
pub(super) const CHECKS: &[Check] = &[
    check("softmax", softmax_kernel, softmax_twin),
    check("attention.causal", |cx| attention_kernel(cx, Mask::Causal), || attention_twin(Mask::Causal)),
    check("attention.window", |cx| attention_kernel(cx, Mask::Window(5)), || attention_twin(Mask::Window(5))),
    check(
        "attention.bidirectional",
        |cx| attention_kernel(cx, Mask::Bidirectional),
        || attention_twin(Mask::Bidirectional),
    ),
    check("cross_entropy", loss_kernel, loss_twin),
    check("head", head_kernel, head_twin),
];

/// Rows per sequence: ragged, one empty, one beyond two vectors of any instruction set.
const LENGTHS: [usize; 4] = [5, 0, 37, 1];

// --- softmax ------------------------------------------------------------------------------------

/// Scores `[rows, longest]` and something to multiply the Jacobian by.
fn softmax_inputs() -> (Sequences, usize, Vec<f32>, Vec<f32>) {
    let sequences = Sequences::from_lengths(LENGTHS);
    let longest = 37;
    let n = sequences.total() * longest;
    let mut inputs = Inputs::new(300);
    (sequences, longest, inputs.values(n, 8.0), inputs.values(n, 1.0))
}

fn softmax_kernel(cx: &Context) -> Bits {
    let (sequences, cols, scores, change) = softmax_inputs();
    let rows = sequences.total();
    let [mut p, mut p_dot] = [vec![0.0; rows * cols], vec![0.0; rows * cols]];
    let scores = MatRef::new(&scores, rows, cols);
    softmax::forward(cx, Mask::Causal, &sequences, scores, MatMut::new(&mut p, rows, cols));
    let (given, change) = (MatRef::new(&p, rows, cols), MatRef::new(&change, rows, cols));
    softmax::tangent(cx, Mask::Causal, &sequences, given, change, MatMut::new(&mut p_dot, rows, cols));
    visible_bits(&sequences, cols, &p, &p_dot)
}

fn softmax_twin() -> Bits {
    let (sequences, cols, scores, change) = softmax_inputs();
    let [mut p, mut p_dot] = [Vec::new(), Vec::new()];
    for rows in sequences.iter() {
        for row in rows.clone() {
            let keys = rows.len();
            let visible = Mask::Causal.visible(row - rows.start, keys);
            let of = |x: &[f32]| x[row * cols..][..cols].to_vec();
            p.extend(twin::softmax::forward(&of(&scores), visible.clone()));
            p_dot.extend(twin::softmax::jacobian_product(&of(&p), &of(&change), visible));
        }
    }
    visible_bits(&sequences, cols, &p, &p_dot)
}

/// The part of each row that belongs to its own sequence.
fn visible_bits(sequences: &Sequences, cols: usize, p: &[f32], p_dot: &[f32]) -> Bits {
    sequences
        .iter()
        .flat_map(|rows| rows.clone().map(move |row| (row * cols, rows.len())))
        .fold(Bits::default(), |bits, (start, keys)| bits.and(&p[start..start + keys]).and(&p_dot[start..start + keys]))
}

// --- attention ----------------------------------------------------------------------------------

const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 10;
const SCALE: f32 = 0.3;

/// q, k, v, their changes, and the gradient of the output.
fn attention_inputs() -> (Sequences, [Vec<f32>; 7]) {
    let sequences = Sequences::from_lengths(LENGTHS);
    let (wide, narrow) = (sequences.total() * HEADS * HEAD_DIM, sequences.total() * KV_HEADS * HEAD_DIM);
    let of = |stream: u64, n| Inputs::new(310 + stream).values(n, 2.0);
    let operands = [of(0, wide), of(1, narrow), of(2, narrow), of(3, wide), of(4, narrow), of(5, narrow), of(6, wide)];
    (sequences, operands)
}

fn attention_kernel(cx: &Context, mask: Mask) -> Bits {
    let (sequences, [q, k, v, dq, dk, dv, out_bar]) = attention_inputs();
    let (rows, wide, narrow) = (sequences.total(), HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let layer = Attention {
        queries: &sequences,
        keys: &sequences,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        mask,
        scale: SCALE,
    };
    let x = operands(rows, [&q, &k, &v]);
    let x_dot = operands(rows, [&dq, &dk, &dv]);
    let [mut out, mut out_dot, mut q_bar] = [(); 3].map(|()| vec![0.0; rows * wide]);
    let [mut k_bar, mut v_bar] = [(); 2].map(|()| vec![0.0; rows * narrow]);
    attention::forward(cx, &layer, x, MatMut::new(&mut out, rows, wide));
    attention::tangent(cx, &layer, x, x_dot, MatMut::new(&mut out_dot, rows, wide));
    let gradients = Gradients {
        q: MatMut::new(&mut q_bar, rows, wide),
        k: MatMut::new(&mut k_bar, rows, narrow),
        v: MatMut::new(&mut v_bar, rows, narrow),
    };
    attention::backward(cx, &layer, x, MatRef::new(&out_bar, rows, wide), gradients);
    Bits::of(&out).and(&out_dot).and(&q_bar).and(&k_bar).and(&v_bar)
}

fn operands<'a>(rows: usize, [q, k, v]: [&'a [f32]; 3]) -> Operands<'a> {
    Operands {
        q: MatRef::new(q, rows, HEADS * HEAD_DIM),
        k: MatRef::new(k, rows, KV_HEADS * HEAD_DIM),
        v: MatRef::new(v, rows, KV_HEADS * HEAD_DIM),
    }
}

fn attention_twin(mask: Mask) -> Bits {
    let (sequences, [q, k, v, dq, dk, dv, out_bar]) = attention_inputs();
    let [mut out, mut out_dot, mut q_bar, mut k_bar, mut v_bar] = [(); 5].map(|()| Vec::new());
    for rows in sequences.iter() {
        let length = rows.len();
        let sequence = Sequence {
            queries: length,
            keys: length,
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            mask,
            scale: f64::from(SCALE),
        };
        let part = |x: &[f32], heads: usize| x[rows.start * heads * HEAD_DIM..][..length * heads * HEAD_DIM].to_vec();
        let x = Matrices { q: part(&q, HEADS), k: part(&k, KV_HEADS), v: part(&v, KV_HEADS) };
        let x_dot = Matrices { q: part(&dq, HEADS), k: part(&dk, KV_HEADS), v: part(&dv, KV_HEADS) };
        out.extend(sequence.forward(&x));
        out_dot.extend(sequence.tangent(&x, &x_dot));
        let bar = sequence.backward(&x, &part(&out_bar, HEADS));
        q_bar.extend(bar.q);
        k_bar.extend(bar.k);
        v_bar.extend(bar.v);
    }
    Bits::of(&out).and(&out_dot).and(&q_bar).and(&k_bar).and(&v_bar)
}

// --- losses -------------------------------------------------------------------------------------

/// Rows, vocabulary, features; every third row has no label.
const LOSS: (usize, usize, usize) = (43, 101, 29);

fn labels() -> Vec<Option<u32>> {
    let labels = Inputs::new(320).words(LOSS.0).into_iter().map(|word| word % LOSS.1 as u32);
    labels.enumerate().map(|(row, label)| (row % 3 != 0).then_some(label)).collect()
}

/// Per-row scales of the backward pass.
fn scales() -> Vec<f32> {
    Inputs::new(321).values(LOSS.0, 1.0)
}

fn logits() -> [Vec<f32>; 2] {
    [0, 1].map(|stream| Inputs::new(322 + stream).values(LOSS.0 * LOSS.1, 8.0))
}

fn loss_kernel(cx: &Context) -> Bits {
    let ((rows, vocabulary, _), labels, [logits, change]) = (LOSS, labels(), logits());
    let examples = Sequences::from_lengths(LENGTHS);
    let targets = Targets { vocabulary: Vocabulary::Full(vocabulary), labels: &labels, examples: &examples };
    let view = |x| MatRef::new(x, rows, vocabulary);
    let loss = cross_entropy::forward(cx, &targets, view(&logits));
    let slope = cross_entropy::tangent(cx, &targets, view(&logits), view(&change));
    let mut gradient = vec![0.0; rows * vocabulary];
    let out = MatMut::new(&mut gradient, rows, vocabulary);
    cross_entropy::backward(cx, &targets, view(&logits), &scales(), out);
    Bits::of(&gradient).and_f64(&loss.per_example).and_f64(&slope.per_example).and_f64(&[loss.total, slope.total])
}

fn loss_twin() -> Bits {
    let ((rows, vocabulary, _), labels, [logits, change], scales) = (LOSS, labels(), logits(), scales());
    let row = |matrix: &'_ [f32], r: usize| matrix[r * vocabulary..][..vocabulary].to_vec();
    let gradient: Vec<f32> = (0..rows)
        .flat_map(|r| match labels[r] {
            Some(label) => twin::cross_entropy::backward(&row(&logits, r), label as usize, scales[r]),
            None => vec![0.0; vocabulary],
        })
        .collect();
    let loss = sums(&labels, |r, label| twin::cross_entropy::forward(&row(&logits, r), label));
    let slope = sums(&labels, |r, label| twin::cross_entropy::tangent(&row(&logits, r), &row(&change, r), label));
    Bits::of(&gradient).and_f64(&loss).and_f64(&slope).and_f64(&[total(&loss), total(&slope)])
}

/// One chain over the labelled rows of each example.
fn sums(labels: &[Option<u32>], value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let chain = |rows: std::ops::Range<usize>| {
        rows.filter_map(|r| labels[r].map(|label| value(r, label as usize))).fold(0.0, |sum, value| sum + value)
    };
    Sequences::from_lengths(LENGTHS).iter().map(chain).collect()
}

/// One chain over examples.
fn total(per_example: &[f64]) -> f64 {
    per_example.iter().fold(0.0, |sum, value| sum + value)
}

fn head_inputs() -> [Vec<f32>; 3] {
    let (rows, vocabulary, features) = LOSS;
    let mut inputs = Inputs::new(330);
    [inputs.values(rows * features, 1.0), inputs.values(vocabulary * features, 1.0), inputs.values(vocabulary, 1.0)]
}

fn head_kernel(cx: &Context) -> Bits {
    let ((rows, vocabulary, features), labels, [x, weight, bias]) = (LOSS, labels(), head_inputs());
    let examples = Sequences::from_lengths(LENGTHS);
    let targets = Targets { vocabulary: Vocabulary::Full(vocabulary), labels: &labels, examples: &examples };
    let weight = WeightRef::f32(&weight, vocabulary, features);
    let loss = head::forward(cx, MatRef::new(&x, rows, features), &weight, Some(&bias), &targets);
    loss.into_iter().fold(Bits::default(), |bits, loss| bits.and_f64(&loss.per_example).and_f64(&[loss.total]))
}

fn head_twin() -> Bits {
    let ((rows, vocabulary, features), labels, [x, weight, bias]) = (LOSS, labels(), head_inputs());
    let (x, w) = (|r, k| x[r * features + k], |v, k| weight[v * features + k]);
    let mut logits = twin::matmul::product((rows, features, vocabulary), x, w, |_, _| 0.0);
    for row in logits.chunks_exact_mut(vocabulary) {
        row.iter_mut().zip(&bias).for_each(|(logit, bias)| *logit += bias);
    }
    let loss = sums(&labels, |r, label| twin::cross_entropy::forward(&logits[r * vocabulary..][..vocabulary], label));
    Bits::default().and_f64(&loss).and_f64(&[total(&loss)])
}
