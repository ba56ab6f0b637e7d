//! Nanoseconds per sample of each law on each instruction set, beside `rand_distr`.
//!
//! Criterion's throughput is in elements: 1 Gelem/s is 1 ns a sample. A tile of 16 rows by 256 columns
//! (16 KiB) stays in the first-level cache, as the packer's does.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use std::hint::black_box;
use zofo::{
    noise::{Law, NoiseKey, PANEL_ROWS, Role, TensorNoise},
    simd::{Isa, Simd, SimdOp},
};

const COLUMNS: usize = 256;

/// What a tile is filled in, or added to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// Column-major panels of sixteen rows.
    Panel,
    /// Row by row.
    Rows,
    /// A panel's values added to weights in registers: `w + c·z`.
    Fused,
}

struct Tile<'a> {
    noise: TensorNoise,
    law: Law,
    order: Order,
    first_row: u64,
    out: &'a mut [f32],
}

impl SimdOp for Tile<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, simd: S) {
        let Tile { noise, law, order, first_row, out } = self;
        match order {
            Order::Panel => noise.fill_panel(simd, law, first_row, 0..COLUMNS, out),
            Order::Rows => {
                for (row, out) in (first_row..).zip(out.chunks_exact_mut(COLUMNS)) {
                    noise.fill_row(simd, law, row, 0..COLUMNS, out);
                }
            }
            Order::Fused => {
                let c = simd.splat(1e-3);
                noise.columns(
                    simd,
                    law,
                    first_row,
                    0..COLUMNS,
                    #[inline(always)]
                    |column, lane, z| {
                        let w = &mut out[column * PANEL_ROWS + lane..];
                        simd.store(simd.mul_add(c, z, simd.load(w)), w);
                    },
                );
            }
        }
    }
}

/// The tile is what it should be: a fast wrong generator is not worth timing.
fn check(isa: Isa, law: Law, order: Order) {
    let noise = NoiseKey::new(1, 0, Role::Dense, 0).tensor(0);
    let mut out = vec![0.0; PANEL_ROWS * COLUMNS];
    isa.dispatch(Tile { noise, law, order, first_row: 0, out: &mut out });
    for (i, found) in out.into_iter().enumerate() {
        let (row, column) =
            if order == Order::Rows { (i / COLUMNS, i % COLUMNS) } else { (i % PANEL_ROWS, i / PANEL_ROWS) };
        let z = noise.at(law, row as u64, column);
        let expected = if order == Order::Fused { 1e-3_f32.mul_add(z, 0.0) } else { z };
        assert_eq!(found.to_bits(), expected.to_bits(), "{isa}, {law:?}, {order:?}, row {row}, column {column}");
    }
}

fn noise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("noise");
    group.throughput(Throughput::Elements((PANEL_ROWS * COLUMNS) as u64));
    let mut out = vec![0.0_f32; PANEL_ROWS * COLUMNS];

    let mut pcg = Pcg64Mcg::seed_from_u64(1);
    group.bench_function("rand_distr StandardNormal/Pcg64Mcg", |b| {
        b.iter(|| black_box(&mut out).iter_mut().for_each(|z| *z = StandardNormal.sample(&mut pcg)));
    });
    let mut xoshiro = Xoshiro256PlusPlus::seed_from_u64(1);
    group.bench_function("rand_distr StandardNormal/Xoshiro256PlusPlus", |b| {
        b.iter(|| black_box(&mut out).iter_mut().for_each(|z| *z = StandardNormal.sample(&mut xoshiro)));
    });

    for isa in Isa::available() {
        for law in Law::ALL {
            for order in [Order::Panel, Order::Rows, Order::Fused] {
                check(isa, law, order);
                let noise = NoiseKey::new(1, 0, Role::Dense, 0).tensor(0);
                let mut first_row = 0;
                group.bench_function(BenchmarkId::new(format!("{law:?} {order:?}"), isa), |b| {
                    b.iter(|| {
                        let out = black_box(&mut out[..]);
                        isa.dispatch(Tile { noise, law, order, first_row, out });
                        first_row += PANEL_ROWS as u64;
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, noise);
criterion_main!(benches);
