//! Low-rank directions: bits in rows, a derived bound of the materialised ones in products.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{
    Direction, DirectionSet, Displacement, Moves, ParamTable, Stored, Tangents, materialize, tests::values,
};
use crate::{
    kernels::{
        Context, Profile,
        matmul::{low_rank, product},
    },
    noise::{Law, NoiseKey, Role},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::{assert_same_bits, on_threads},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn low_rank_terms_are_the_materialised_ones_in_rows_and_within_their_bound_in_products(
        rows in prop::sample::select(vec![1_usize, 2, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 33, 300]),
        rank in prop::sample::select(vec![0_usize, 1, 2, 7]),
        seed in any::<u64>(),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let stored = values(rows * cols, seed);
        let low_rank = |rank: usize, seed: u64| {
            let (left, right) = (values(rows * rank, seed).into(), values(cols * rank, seed ^ 8).into());
            Arc::new(DirectionSet::new([(id, Direction::LowRank { left, right, rank })]))
        };
        let noise = Direction::Dense { key: NoiseKey::new(seed, 1, Role::Dense, 0), law: Law::Uniform };
        let dense = Arc::new(DirectionSet::new([(id, noise)]));
        let (a, b) = (low_rank(rank, seed ^ 1), low_rank(3, seed ^ 2));
        let mut both = Displacement::along(&a, 0.5);
        both.terms.extend(Displacement::along(&dense, 0.25).terms);
        both.terms.extend(Displacement::along(&b, -0.125).terms);
        let lanes = [Displacement::along(&a, 0.25), Displacement::default(), Displacement::along(&a, -0.25), both];
        let weight = WeightRef::f32(&stored, rows, cols);
        let ids: Vec<u32> = (0..rows as u32).rev().collect();
        for isa in Isa::available() {
            let cx = Context::new(isa);
            // Lanes whose terms are low-rank only, then with a lane that has a dense term beside them.
            for lanes in [&lanes[..3], &lanes] {
                let moves = Moves::of(lanes, id, &table[id]);
                let mut gathered = vec![0.0; lanes.len() * rows * cols];
                on_threads(threads, || {
                    moves.gather(&cx, weight, &ids, MatMut::new(&mut gathered, lanes.len() * rows, cols));
                });
                let displaced: Vec<_> =
                    lanes.iter().map(|lane| materialize::displaced(&stored, id, &table[id], lane)).collect();
                let expected: Vec<f32> =
                    displaced.iter().flat_map(|values| values.rchunks(cols).flatten().copied()).collect();
                assert_same_bits(&gathered, &expected, format_args!("{isa}, gathered"));
                for (lane, expected) in lanes.iter().zip(&displaced) {
                    let alone = Moves::of(std::slice::from_ref(lane), id, &table[id]);
                    let update = alone.update(&cx);
                    for height in [1, 16] {
                        let mut applied = stored.clone();
                        let blocks = applied.chunks_mut(height * cols).enumerate();
                        blocks.for_each(|(block, values)| update(block * height, values));
                        assert_same_bits(&applied, expected, format_args!("{isa}, {height} rows at once"));
                    }
                    if rows == 1 {
                        assert_same_bits(&alone.values(&cx, &stored)[0][0], expected, format_args!("{isa}, lent"));
                    }
                }
                for direction in [Stored::OutIn, Stored::InOut] {
                    let (k, n) = if direction == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                    let (m, x) = (3, values(lanes.len() * 3 * k, seed ^ 4));
                    let x = MatRef::new(&x, lanes.len() * m, k);
                    let mut y = vec![0.0; lanes.len() * m * n];
                    on_threads(threads, || {
                        moves.linear(&cx, x, (weight, direction), None, MatMut::new(&mut y, lanes.len() * m, n));
                    });
                    for (at_lane, lane) in lanes.iter().enumerate() {
                        let (mut alone, own) = (vec![0.0; m * n], at_lane * m..(at_lane + 1) * m);
                        let moves = Moves::of(std::slice::from_ref(lane), id, &table[id]);
                        let y_alone = MatMut::new(&mut alone, m, n);
                        moves.linear(&cx, x.row_range(own.clone()), (weight, direction), None, y_alone);
                        let found = &y[own.start * n..own.end * n];
                        assert_same_bits(found, &alone, format_args!("{isa}, lane {at_lane} alone, {direction:?}"));
                        for (place, &found) in found.iter().enumerate() {
                            let (i, j) = (place / n, place % n);
                            let element = |l: usize| if direction == Stored::OutIn { j * k + l } else { l * n + j };
                            let terms = (0..k).map(|l| (f64::from(x.row(own.start + i)[l]), element(l)));
                            let (mut sum, mut magnitude) = (0.0, 0.0);
                            for (x, at) in terms {
                                sum += x * f64::from(displaced[at_lane][at]);
                                // All values are below 1: |w| ≤ 1, a term of rank r at most |c|·r, noise at most √3/4.
                                magnitude += x.abs() * (1.0 + 0.5 * rank as f64 + 0.125 * 3.0 + 0.5);
                            }
                            // As below, with two thin terms; and the displaced weights are rounded themselves: at
                            // most rank + 1 times a term, three terms.
                            let roundings = 2 * k + 4 * (rank + 3) + 8;
                            let bound = 2.0 * roundings as f64 * 2_f64.powi(-24) * magnitude;
                            prop_assert!((f64::from(found) - sum).abs() <= bound, "{found} for {sum} ± {bound}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_low_rank_tangent_is_its_side_product_and_its_rows_are_the_materialised_ones(
        rows in prop::sample::select(vec![1_usize, 2, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 33, 300]),
        rank in prop::sample::select(vec![1_usize, 2, 7]),
        seed in any::<u64>(),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let (stored, left, right) = (values(rows * cols, seed), values(rows * rank, seed ^ 1), values(cols * rank, seed ^ 2));
        let z = Direction::LowRank { left: left.as_slice().into(), right: right.as_slice().into(), rank };
        let sets = [DirectionSet::new([(id, Direction::Weights)]), DirectionSet::new([(id, z.clone())])];
        let tangents = Tangents::of(&sets, id, &table[id]);
        let change = materialize::direction(&z, &table[id], &stored);
        let weight = WeightRef::f32(&stored, rows, cols);
        let (left, right) = (MatRef::new(&left, rows, rank), MatRef::new(&right, cols, rank));
        for isa in Isa::available() {
            let cx = Context::new(isa);
            for direction in [Stored::OutIn, Stored::InOut] {
                let (k, n) = if direction == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                let (m, x) = (3, values(9 * k, seed ^ 4));
                let x = MatRef::new(&x, 3 * m, k);
                let mut y = vec![0.0; 3 * m * n];
                on_threads(threads, || tangents.linear(&cx, x, (weight, direction), MatMut::new(&mut y, 3 * m, n)));
                let (mut side, mut expected) = (vec![0.0; m * rank], vec![0.0; m * n]);
                let (x, x_dot, y_dot) = (x.row_range(0..m), x.row_range(2 * m..3 * m), MatMut::new(&mut expected, m, n));
                let (input, output) = if direction == Stored::OutIn { (right, left) } else { (left, right) };
                product::nn(&cx, x, input, false, MatMut::new(&mut side, m, rank));
                let side = low_rank::Side { x: MatRef::new(&side, m, rank), left: &[output] };
                match direction {
                    Stored::OutIn => low_rank::with_side(&cx, x_dot, &weight, side, None, y_dot),
                    Stored::InOut => low_rank::with_side_transposed(&cx, x_dot, &weight, side, None, y_dot),
                }
                assert_same_bits(&y[2 * m * n..], &expected, format_args!("{isa} {direction:?}"));
            }
            let ids: Vec<u32> = (0..rows as u32).rev().collect();
            let mut gathered = vec![f32::NAN; 3 * rows * cols];
            tangents.gather(&cx, weight, &ids, MatMut::new(&mut gathered, 3 * rows, cols));
            let expected: Vec<f32> = change.rchunks(cols).flatten().copied().collect();
            assert_same_bits(&gathered[2 * rows * cols..], &expected, format_args!("{isa}, gathered"));
            if rows == 1 {
                let found = tangents.values(&cx, &stored);
                assert_same_bits(&found[1][0], &change, format_args!("{isa}, lent"));
            }
        }
    }

    #[test]
    fn a_low_rank_side_product_is_within_its_bound_of_the_materialised_weight(
        m in prop::sample::select(vec![1_usize, 3, 17]),
        k in prop::sample::select(vec![1_usize, 33, 256, 300]),
        n in prop::sample::select(vec![1_usize, 17, 64]),
        rank in prop::sample::select(vec![0_usize, 1, 2, 7, 64]),
        seed in any::<u64>(),
    ) {
        let x = values(2 * m * k, seed);
        let w = values(n * k, seed ^ 1);
        let (left, right) = (values(n * rank, seed ^ 2), values(k * rank, seed ^ 3));
        let (left, right) = (MatRef::new(&left, n, rank), MatRef::new(&right, k, rank));
        let probes = [0.125, -0.125].map(|coefficient| low_rank::LowRank { left, right, coefficient });
        let weight = WeightRef::f32(&w, n, k);
        let mut y = vec![0.0; 2 * m * n];
        let cx = Context::new(Isa::fastest());
        low_rank::forward(&cx, MatRef::new(&x, 2 * m, k), &weight, &probes, None, MatMut::new(&mut y, 2 * m, n));
        for (at, &y) in y.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let c = f64::from(probes[i / m].coefficient);
            let (mut sum, mut magnitude) = (0.0, 0.0);
            for l in 0..k {
                let z: f64 = (0..rank).map(|r| f64::from(left.row(j)[r]) * f64::from(right.row(l)[r])).sum();
                let z_magnitude: f64 = (0..rank).map(|r| f64::from((left.row(j)[r] * right.row(l)[r]).abs())).sum();
                let x = f64::from(x[i * k + l]);
                sum += x * (f64::from(w[j * k + l]) + c * z);
                magnitude += x.abs() * (f64::from(w[j * k + l]).abs() + c.abs() * z_magnitude);
            }
            // Every term passes at most k roundings in t = x R, one in c·t and k + rank in the chain of
            // y, each of relative size 2⁻²⁴ (Higham, Accuracy and Stability, 3.1); 2 covers second order.
            let bound = 2.0 * (2 * k + rank + 1) as f64 * 2_f64.powi(-24) * magnitude + f64::from(f32::MIN_POSITIVE);
            assert!((f64::from(y) - sum).abs() <= bound, "{m}x{k}x{n} rank {rank}: {y} against {sum} ± {bound}");
        }
    }

    #[test]
    fn a_low_rank_side_product_has_the_same_bits_everywhere(
        m in prop::sample::select(vec![1_usize, 8, 17]),
        k in prop::sample::select(vec![1_usize, 33, 300]),
        n in prop::sample::select(vec![1_usize, 17, 70]),
        rank in prop::sample::select(vec![1_usize, 5, 64]),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        threads in prop::sample::select(vec![1, 3]),
        seed in any::<u64>(),
    ) {
        let (x, w) = (values(2 * m * k, seed), values(n * k, seed ^ 1));
        let factors: Vec<_> = (0..2).map(|p| (values(n * rank, seed ^ p), values(k * rank, seed ^ 8 ^ p))).collect();
        let probes: Vec<_> = factors
            .iter()
            .map(|(left, right)| low_rank::LowRank {
                left: MatRef::new(left, n, rank),
                right: MatRef::new(right, k, rank),
                coefficient: 1e-2,
            })
            .collect();
        let weight = WeightRef::f32(&w, n, k);
        let run = |isa, probes: &[low_rank::LowRank<'_>], x: &[f32]| {
            let rows = x.len() / k;
            let mut y = vec![0.0; rows * n];
            let cx = Context::new(isa).with_profile(profile);
            low_rank::forward(&cx, MatRef::new(x, rows, k), &weight, probes, None, MatMut::new(&mut y, rows, n));
            y
        };
        let mut expected = run(Isa::available()[0], &probes[..1], &x[..m * k]);
        expected.extend(run(Isa::available()[0], &probes[1..], &x[m * k..]));
        for isa in Isa::available() {
            let y = on_threads(threads, || run(isa, &probes, &x));
            assert_same_bits(&y, &expected, format_args!("{isa} {profile} {m}x{k}x{n} rank {rank}"));
        }
    }
}
