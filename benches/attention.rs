//! Attention: forward, tangent and backward at the shapes of SmolLM2-135M (9 query heads over 3 key heads of 64)
//! and of RoBERTa-base (12 over 12). Throughput counts the fused multiply-adds of visible keys, two
//! operations each: 4·hd per visible (query, key, head) forward, 10·hd tangent, 10·hd backward.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zofo::{
    kernels::{
        Context, Mask,
        attention::{self, Attention, Gradients, Inputs},
        twin::attention::{Matrices, Sequence},
    },
    simd::Isa,
    tensor::{MatMut, MatRef, Sequences},
};

fn values(n: usize, step: f32) -> Vec<f32> {
    (0..n).map(|i| ((i % 9973) as f32 * step).fract() - 0.5).collect()
}

/// Compares a short batch of the same geometry with the definition.
fn check(cx: &Context, layer: &Attention) {
    let (short, wide, narrow) = (33, layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim);
    let rows = Sequences::from_lengths([short]);
    let x =
        Matrices { q: values(short * wide, 0.37), k: values(short * narrow, 0.71), v: values(short * narrow, 0.53) };
    let view = Inputs {
        q: MatRef::new(&x.q, short, wide),
        k: MatRef::new(&x.k, short, narrow),
        v: MatRef::new(&x.v, short, narrow),
    };
    let mut out = vec![0.0; short * wide];
    attention::forward(
        cx,
        &Attention { queries: &rows, keys: &rows, ..*layer },
        view,
        MatMut::new(&mut out, short, wide),
    );
    let &Attention { heads, kv_heads, head_dim, mask, scale, .. } = layer;
    let twin = Sequence { queries: short, keys: short, heads, kv_heads, head_dim, mask, scale: f64::from(scale) };
    assert_eq!(out, twin.forward(&x), "the kernel differs from its definition");
}

fn bench(c: &mut Criterion) {
    let cx = Context::new(Isa::active().expect("ZOFO_ISA names an instruction set of this CPU"));
    let models = [("smollm2", 9, 3, Mask::Causal), ("roberta", 12, 12, Mask::Bidirectional)];
    for (model, heads, kv_heads, mask) in models {
        for (count, length) in [(16, 64), (4, 256), (1, 1024)] {
            let rows = Sequences::from_lengths(vec![length; count]);
            let layer = Attention { queries: &rows, keys: &rows, heads, kv_heads, head_dim: 64, mask, scale: 0.125 };
            check(&cx, &layer);
            let (t, wide, narrow) = (rows.total(), heads * 64, kv_heads * 64);
            let (q, k, v) = (values(t * wide, 0.37), values(t * narrow, 0.71), values(t * narrow, 0.53));
            let x =
                Inputs { q: MatRef::new(&q, t, wide), k: MatRef::new(&k, t, narrow), v: MatRef::new(&v, t, narrow) };
            let (mut out, mut k_bar, mut v_bar) = (vec![0.0; t * wide], vec![0.0; t * narrow], vec![0.0; t * narrow]);
            let visible: usize = (0..length).map(|i| mask.visible(i, length).len()).sum();
            let products = (visible * count * heads * 64 * 2) as u64;

            let mut group = c.benchmark_group(format!("attention/{model}"));
            let id = |mode| BenchmarkId::new(mode, format!("{count}x{length}"));
            group.throughput(Throughput::Elements(2 * products));
            group.bench_function(id("forward"), |b| {
                b.iter(|| attention::forward(&cx, &layer, black_box(x), MatMut::new(&mut out, t, wide)));
            });
            group.throughput(Throughput::Elements(5 * products));
            group.bench_function(id("tangent"), |b| {
                b.iter(|| attention::tangent(&cx, &layer, black_box(x), x, MatMut::new(&mut out, t, wide)));
            });
            group.bench_function(id("backward"), |b| {
                b.iter(|| {
                    let gradients = Gradients {
                        q: MatMut::new(&mut out, t, wide),
                        k: MatMut::new(&mut k_bar, t, narrow),
                        v: MatMut::new(&mut v_bar, t, narrow),
                    };
                    attention::backward(&cx, &layer, black_box(x), x.q, gradients);
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
