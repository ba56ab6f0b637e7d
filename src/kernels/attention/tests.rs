use super::*;
use crate::{
    kernels::twin::{
        Real,
        attention::{Matrices, Sequence},
    },
    testing::{adjoint_gap, assert_same_bits, directional_derivative, everywhere},
};

/// One sequence and its inputs for every entry of `lengths` (queries, keys).
struct Batch {
    sequences: Vec<Sequence>,
    inputs: Vec<Matrices<f32>>,
}

/// Values in −2..2 from a multiplicative congruential generator.
fn random<R: Real>(n: usize, seed: &mut u64) -> Vec<R> {
    let mut next = || {
        *seed = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(0x9e37_79b9);
        (*seed >> 40) as f64 / f64::from(1 << 22) - 2.0
    };
    (0..n).map(|_| R::from_f64(next())).collect()
}

fn matrices<R: Real>(s: &Sequence, seed: &mut u64) -> Matrices<R> {
    let (wide, narrow) = (s.queries * s.heads * s.head_dim, s.keys * s.kv_heads * s.head_dim);
    Matrices { q: random(wide, seed), k: random(narrow, seed), v: random(narrow, seed) }
}

fn concat(parts: impl IntoIterator<Item = Matrices<f32>>) -> Matrices<f32> {
    let mut all = Matrices { q: vec![], k: vec![], v: vec![] };
    for part in parts {
        all.q.extend(part.q);
        all.k.extend(part.k);
        all.v.extend(part.v);
    }
    all
}

impl Batch {
    fn new(lengths: &[(usize, usize)], (heads, kv_heads): (usize, usize), head_dim: usize, mask: Mask) -> Batch {
        let sequence = |&(queries, keys): &(usize, usize)| {
            let scale = f64::from(1.0 / (head_dim as f32).sqrt());
            Sequence { queries, keys, heads, kv_heads, head_dim, mask, scale }
        };
        let sequences: Vec<_> = lengths.iter().map(sequence).collect();
        let mut seed = (heads * 7 + head_dim) as u64;
        let inputs = sequences.iter().map(|s| matrices(s, &mut seed)).collect();
        Batch { sequences, inputs }
    }

    fn more(&self, seed: u64) -> Vec<Matrices<f32>> {
        let mut seed = seed;
        self.sequences.iter().map(|s| matrices(s, &mut seed)).collect()
    }

    fn with<T>(&self, run: impl FnOnce(&Attention) -> T) -> T {
        let s = self.sequences[0];
        let queries = Sequences::from_lengths(self.sequences.iter().map(|s| s.queries));
        let keys = Sequences::from_lengths(self.sequences.iter().map(|s| s.keys));
        let Sequence { heads, kv_heads, head_dim, mask, .. } = s;
        let scale = s.scale as f32;
        run(&Attention { queries: &queries, keys: &keys, heads, kv_heads, head_dim, mask, scale })
    }

    fn each<T>(&self, value: impl Fn(usize, &Sequence, &Matrices<f32>) -> T) -> Vec<T> {
        self.sequences.iter().zip(&self.inputs).enumerate().map(|(i, (s, x))| value(i, s, x)).collect()
    }
}

fn view<'a>(layer: &Attention, x: &'a Matrices<f32>) -> Inputs<'a> {
    let (tq, tk) = (layer.queries.total(), layer.keys.total());
    let (wide, narrow) = (layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim);
    Inputs { q: MatRef::new(&x.q, tq, wide), k: MatRef::new(&x.k, tk, narrow), v: MatRef::new(&x.v, tk, narrow) }
}

fn run_forward(cx: &Context, layer: &Attention, x: &Matrices<f32>) -> Vec<f32> {
    let x = view(layer, x);
    let mut out = vec![f32::NAN; x.q.rows() * x.q.cols()];
    forward(cx, layer, x, MatMut::new(&mut out, x.q.rows(), x.q.cols()));
    out
}

/// Ragged batches with edges of vectors, tiles, groups and blocks in every dimension.
fn batches() -> Vec<Batch> {
    let (bidirectional, causal) = (Mask::Bidirectional, Mask::Causal);
    vec![
        Batch::new(&[(1, 1)], (1, 1), 1, causal),
        Batch::new(&[(0, 0), (2, 2), (0, 3), (17, 17), (1, 40)], (3, 1), 16, causal),
        Batch::new(&[(15, 15), (16, 16), (33, 33)], (4, 2), 17, bidirectional),
        Batch::new(&[(5, 70), (67, 67)], (2, 2), 64, causal),
        Batch::new(&[(40, 50)], (6, 2), 80, Mask::Window(7)),
        Batch::new(&[(90, 90)], (1, 1), 7, Mask::Window(33)),
        Batch::new(&[(3, 5)], (5, 5), 3, bidirectional),
        // Several blocks of query rows: 256 rows of three heads are 86 queries.
        Batch::new(&[(200, 260)], (3, 1), 4, causal),
        Batch::new(&[(200, 260)], (3, 1), 4, Mask::Window(50)),
    ]
}

#[test]
fn forward_has_the_bits_of_its_definition() {
    for batch in batches() {
        let expected = batch.each(|_, s, x| s.forward(x)).concat();
        let x = concat(batch.inputs.clone());
        batch.with(|layer| {
            everywhere(|cx, label| {
                assert_same_bits(&run_forward(cx, layer, &x), &expected, format!("{label} {layer:?}"));
            });
        });
    }
}

#[test]
fn tangent_has_the_bits_of_its_definition() {
    for batch in batches() {
        let dots = batch.more(3);
        let expected = batch.each(|i, s, x| s.tangent(x, &dots[i])).concat();
        let (x, x_dot) = (concat(batch.inputs.clone()), concat(dots));
        batch.with(|layer| {
            everywhere(|cx, label| {
                let (x, x_dot) = (view(layer, &x), view(layer, &x_dot));
                let mut out = vec![f32::NAN; x.q.rows() * x.q.cols()];
                tangent(cx, layer, x, x_dot, MatMut::new(&mut out, x.q.rows(), x.q.cols()));
                assert_same_bits(&out, &expected, format!("{label} {layer:?}"));
            });
        });
    }
}

#[test]
fn backward_has_the_bits_of_its_definition() {
    for batch in batches() {
        let bars: Vec<_> = batch.more(5).into_iter().map(|x| x.q).collect();
        let expected = concat(batch.each(|i, s, x| s.backward(x, &bars[i])));
        let (x, out_bar) = (concat(batch.inputs.clone()), bars.concat());
        batch.with(|layer| {
            everywhere(|cx, label| {
                let x = view(layer, &x);
                let ((tq, wide), (tk, narrow)) = ((x.q.rows(), x.q.cols()), (x.k.rows(), x.k.cols()));
                let mut bar = Matrices { q: vec![f32::NAN; tq * wide], k: vec![f32::NAN; tk * narrow], v: vec![] };
                bar.v.clone_from(&bar.k);
                let gradients = Gradients {
                    q: MatMut::new(&mut bar.q, tq, wide),
                    k: MatMut::new(&mut bar.k, tk, narrow),
                    v: MatMut::new(&mut bar.v, tk, narrow),
                };
                backward(cx, layer, x, MatRef::new(&out_bar, tq, wide), gradients);
                assert_same_bits(&bar.q, &expected.q, format!("q, {label} {layer:?}"));
                assert_same_bits(&bar.k, &expected.k, format!("k, {label} {layer:?}"));
                assert_same_bits(&bar.v, &expected.v, format!("v, {label} {layer:?}"));
            });
        });
    }
}

#[test]
fn cached_keys_give_the_bits_of_the_whole_sequence() {
    for mask in [Mask::Causal, Mask::Window(9)] {
        let whole = Batch::new(&[(37, 37)], (4, 2), 24, mask);
        let wide = 4 * 24;
        everywhere(|cx, label| {
            let all = whole.with(|layer| run_forward(cx, layer, &whole.inputs[0]));
            for cached in [1, 16, 30, 36] {
                let mut last = Batch::new(&[(37 - cached, 37)], (4, 2), 24, mask);
                last.inputs = whole.inputs.clone();
                last.inputs[0].q.drain(..cached * wide);
                let out = last.with(|layer| run_forward(cx, layer, &last.inputs[0]));
                assert_same_bits(&out, &all[cached * wide..], format!("{label}, {cached} cached, {mask:?}"));
            }
        });
    }
}

#[test]
fn rows_may_lie_apart_in_memory() {
    let batch = Batch::new(&[(19, 19)], (2, 1), 16, Mask::Causal);
    let x = &batch.inputs[0];
    // q, k and v of a token side by side, as a fused projection writes them.
    let fused: Vec<f32> =
        x.q.chunks(32).zip(x.k.chunks(16).zip(x.v.chunks(16))).flat_map(|(q, (k, v))| [q, k, v].concat()).collect();
    let expected = batch.sequences[0].forward(x);
    batch.with(|layer| {
        everywhere(|cx, label| {
            let part = |at: usize, cols| MatRef::with_stride(&fused[at..], 19, cols, 64);
            let mut out = vec![f32::NAN; 19 * 40];
            let view = Inputs { q: part(0, 32), k: part(32, 16), v: part(48, 16) };
            forward(cx, layer, view, MatMut::with_stride(&mut out, 19, 32, 40));
            for (out, expected) in out.chunks(40).zip(expected.chunks(32)) {
                assert_same_bits(&out[..32], expected, label);
                assert!(out[32..].iter().all(|x| x.is_nan()), "the gap between rows was written");
            }
        });
    });
}

#[test]
fn a_masked_key_touches_nothing_and_a_visible_nan_is_not_lost() {
    let clean = Batch::new(&[(20, 20)], (2, 1), 16, Mask::Causal);
    let (queries, wide) = (20, 32);
    for poison in [f32::NAN, f32::INFINITY] {
        for row in [3, 19] {
            let mut x = clean.inputs[0].clone();
            x.k[row * 16 + 5] = poison;
            x.v[row * 16 + 5] = poison;
            everywhere(|cx, label| {
                let out = clean.with(|layer| run_forward(cx, layer, &x));
                let expected = clean.with(|layer| run_forward(cx, layer, &clean.inputs[0]));
                let before = row * wide;
                assert_same_bits(&out[..before], &expected[..before], format!("{label}, rows before {row}"));
                for query in row..queries {
                    assert!(!out[query * wide + 5].is_finite(), "{label}: {poison} of key {row} is lost at {query}");
                }
            });
        }
    }
    let plant: [fn(&mut Matrices<f32>); 3] = [|x| x.q[0] = f32::NAN, |x| x.k[0] = f32::NAN, |x| x.v[0] = f32::NAN];
    for plant in plant {
        let mut x = clean.inputs[0].clone();
        plant(&mut x);
        everywhere(|cx, label| {
            let out = clean.with(|layer| run_forward(cx, layer, &x));
            assert!(out[0].is_nan(), "{label}: a NaN in row 0 is lost");
        });
    }
}

/// Inputs of the f64 definitions: two heads to a key head, a window that cuts both ends.
fn smooth() -> (Sequence, Matrices<f64>, Matrices<f64>) {
    let mask = Mask::Window(6);
    let s = Sequence { queries: 9, keys: 11, heads: 4, kv_heads: 2, head_dim: 3, mask, scale: 0.5 };
    let mut seed = 11;
    (s, matrices(&s, &mut seed), matrices(&s, &mut seed))
}

#[test]
fn tangent_is_the_derivative_of_forward() {
    let (s, x, x_dot) = smooth();
    let along = |t: f64| {
        let step = |x: &[f64], dot: &[f64]| x.iter().zip(dot).map(|(x, dot)| x + t * dot).collect();
        s.forward(&Matrices { q: step(&x.q, &x_dot.q), k: step(&x.k, &x_dot.k), v: step(&x.v, &x_dot.v) })
    };
    // |s| ≤ 3 · 4 · 0.5 = 6 errs by at most 5 roundings, 3.4e-15; so does e, relatively, and the ratio of
    // two sums of six terms |v| ≤ 2 by twice that and 14 more roundings: below 2e-14.
    let estimates = directional_derivative(2e-14, along);
    for (i, (estimate, exact)) in estimates.into_iter().zip(s.tangent(&x, &x_dot)).enumerate() {
        assert!(estimate.admits(exact), "output {i}: {estimate:?} does not admit {exact}");
    }
}

#[test]
fn backward_is_the_adjoint_of_tangent() {
    let (s, x, x_dot) = smooth();
    let out_bar: Vec<f64> = random(x.q.len(), &mut 17);
    let out_dot = s.tangent(&x, &x_dot);
    let bar = s.backward(&x, &out_bar);
    let flat = |x: &Matrices<f64>| [x.q.as_slice(), &x.k, &x.v].concat();
    // A term is the end of two chains over 3 features, two over 6 keys, a softmax of 6 keys (exp: 4
    // roundings) and a Jacobian: 40 roundings; `x − mean` may lose two bits to cancellation.
    let gap = adjoint_gap(4 * 40, (&out_dot, &out_bar), (&flat(&x_dot), &flat(&bar)));
    assert!(gap <= 1.0, "the adjoint identity misses its bound {gap} times over");
}

#[test]
#[should_panic(
    expected = "q (2, 4), k (2, 4), v (2, 4) and output (2, 4), where q and output want (2, 8), k and v (2, 4)"
)]
fn a_wrong_shape_names_the_shapes() {
    let two = Sequences::from_lengths([2]);
    let layer =
        Attention { queries: &two, keys: &two, heads: 2, kv_heads: 1, head_dim: 4, mask: Mask::Causal, scale: 0.5 };
    let (x, mut out) = ([0.0; 8], [0.0; 8]);
    let x = MatRef::new(&x, 2, 4);
    forward(
        &Context::new(crate::simd::Isa::fastest()),
        &layer,
        Inputs { q: x, k: x, v: x },
        MatMut::new(&mut out, 2, 4),
    );
}
