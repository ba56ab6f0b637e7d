//! Fused equals materialised: bits for dense directions, a derived bound for low-rank ones.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Coefficients, Direction, DirectionSet, Displacement, Moves, ParamTable, Stored, Tangents,
    fuse::{Dense, Mask, Perturbed, Term},
    materialize,
};
use crate::{
    kernels::{
        Context, Profile,
        matmul::{self, backward, low_rank, product},
    },
    noise::{Law, NoiseKey, Role},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::{assert_same_bits, on_threads},
};

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; len];
    NoiseKey::new(seed, 0, Role::Init, 0).tensor(0).fill(Isa::fastest(), Law::Uniform, 0..1, 0..len, &mut out);
    out
}

/// The right-hand side of a test's matmul, materialised per branch.
fn multiply_materialised(cx: &Context, x: &[f32], m: usize, w: &Perturbed<'_>, branches: usize) -> Vec<f32> {
    let (n, k) = (w.weight().rows(), w.weight().cols());
    let mut y = vec![0.0; branches * m * n];
    for b in 0..branches {
        let dense = materialize::dense(w, b);
        let x = MatRef::new(&x[b * m * k..(b + 1) * m * k], m, k);
        let y = MatMut::new(&mut y[b * m * n..(b + 1) * m * n], m, n);
        matmul::forward(cx, x, &WeightRef::f32(&dense, n, k), None, y);
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_fused_dense_displacement_equals_the_materialised_one_bit_for_bit(
        m in prop::sample::select(vec![1_usize, 2, 5, 15, 17]),
        k in prop::sample::select(vec![1_usize, 2, 31, 255, 256, 257, 600]),
        n in prop::sample::select(vec![1_usize, 3, 15, 16, 17, 33, 64, 70]),
        seed in any::<u64>(),
        law in prop::sample::select(vec![Law::Gaussian, Law::Rademacher, Law::Uniform]),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        masked in any::<bool>(),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let branches = 2;
        let (x, w, explicit) = (values(branches * m * k, seed), values(n * k, seed ^ 1), values(n * k, seed ^ 2));
        let words: Vec<u32> = (0..n * k.div_ceil(32)).map(|i| (i as u32).wrapping_mul(0x9e37_79b9)).collect();
        let mask = masked.then(|| Mask::new(&words, n, k));
        let noise = NoiseKey::new(seed, 3, Role::Dense, 1).tensor(7);
        let terms = [
            Term { direction: Dense::Noise(noise, law), coefficients: &[1e-3, -1e-3], mask },
            Term { direction: Dense::Explicit(MatRef::new(&explicit, n, k)), coefficients: &[0.25, 0.0], mask: None },
            Term { direction: Dense::Weights, coefficients: &[-0.125, 0.5], mask },
        ];
        let rounded: Vec<half::bf16> = w.iter().map(|&w| half::bf16::from_f32(w)).collect();
        for weight in [WeightRef::f32(&w, n, k), WeightRef::bf16(&rounded, n, k)] {
            for terms in [&terms[..], &terms[..1], &terms[2..], &[]] {
                let perturbed = Perturbed::new(weight, terms, branches);
                for isa in Isa::available() {
                    let cx = Context::new(isa).with_profile(profile);
                    let expected = multiply_materialised(&cx, &x, m, &perturbed, branches);
                    let mut y = vec![0.0; branches * m * n];
                    on_threads(threads, || {
                        let x = MatRef::new(&x, branches * m, k);
                        matmul::forward(&cx, x, &perturbed, None, MatMut::new(&mut y, branches * m, n));
                    });
                    assert_same_bits(&y, &expected, format_args!("{isa} {profile} {m}x{k}x{n} {} terms", terms.len()));
                }
            }
        }
    }

    #[test]
    fn applied_gathered_multiplied_and_lent_values_are_the_materialised_ones_bit_for_bit(
        rows in prop::sample::select(vec![1_usize, 2, 15, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 16, 33, 300]),
        seed in any::<u64>(),
        own in prop::sample::select(vec![0.0_f32, -0.5, 1e-3]),
    ) {
        let mut table = ParamTable::new();
        let (w, bias, still) = (table.add("w", &[rows, cols]), table.add("b", &[cols]), table.add("s", &[cols]));
        let explicit: Arc<[f32]> = values(rows * cols, seed ^ 1).into();
        let noise = Direction::Dense { key: NoiseKey::new(seed, 1, Role::Dense, 0), law: Law::Gaussian };
        let noise = Arc::new(DirectionSet::new([(w, noise.clone()), (bias, noise)]));
        let explicit = Arc::new(DirectionSet::new([(w, Direction::Explicit(explicit))]));
        let decay = Arc::new(DirectionSet::new([(w, Direction::Weights)]));
        let mut displacement = Displacement::along(&noise, 1e-2);
        displacement.terms.extend(Displacement::along(&decay, -0.25).terms);
        let per_param = Coefficients::PerParam([(w, own), (still, 1.0)].into());
        displacement.terms.push(super::Term { set: explicit, coefficients: per_param });
        prop_assert!(displacement.moves(w) && displacement.moves(bias) && !displacement.moves(still));

        let lanes = [displacement];
        for (id, param) in table.iter() {
            let stored = values(param.elements(), seed ^ 2);
            let (rows, cols) = (param.rows(), param.cols());
            let expected = materialize::displaced(&stored, id, param, &lanes[0]);
            prop_assert_eq!(expected != stored, id != still);
            for isa in Isa::available() {
                let cx = Context::new(isa);
                let moves = Moves::of(&lanes, id, param);
                let mut applied = stored.clone();
                let update = moves.update(&cx);
                applied.chunks_mut(cols).enumerate().for_each(|(row, values)| update(row, values));
                assert_same_bits(&applied, &expected, "applied");
                let ids: Vec<u32> = (0..rows as u32).collect();
                let mut gathered = vec![0.0; rows * cols];
                let weight = WeightRef::f32(&stored, rows, cols);
                moves.gather(&cx, weight, &ids, MatMut::new(&mut gathered, rows, cols));
                assert_same_bits(&gathered, &expected, "gathered");
                if rows == 1 {
                    assert_same_bits(&moves.values(&cx, &stored)[0], &expected, "lent");
                }
                let x = values(3 * cols, seed ^ 3);
                let (mut fused, mut plain) = (vec![0.0; 3 * rows], vec![0.0; 3 * rows]);
                let x = MatRef::new(&x, 3, cols);
                moves.linear(&cx, x, (weight, Stored::OutIn), None, MatMut::new(&mut fused, 3, rows));
                let expected = WeightRef::f32(&expected, rows, cols);
                matmul::forward(&cx, x, &expected, None, MatMut::new(&mut plain, 3, rows));
                assert_same_bits(&fused, &plain, "multiplied");
            }
        }
    }

    #[test]
    fn the_tangents_of_a_parameter_are_those_of_its_materialised_directions_bit_for_bit(
        rows in prop::sample::select(vec![1_usize, 2, 15, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 16, 33, 300]),
        seed in any::<u64>(),
        threads in prop::sample::select(vec![1, 3]),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
    ) {
        let mut table = ParamTable::new();
        let (id, still) = (table.add("w", &[rows, cols]), table.add("s", &[1]));
        let stored = values(rows * cols, seed);
        let noise = Direction::Dense { key: NoiseKey::new(seed, 1, Role::Dense, 0), law: Law::Gaussian };
        let explicit = Direction::Explicit(values(rows * cols, seed ^ 1).into());
        let directions = [Some(noise), None, Some(Direction::Weights), Some(explicit)];
        let set = |direction: &Option<Direction>| {
            direction.clone().map_or_else(|| DirectionSet::new([(still, Direction::Weights)]), |z| DirectionSet::new([(id, z)]))
        };
        let (sets, groups) = (directions.each_ref().map(set), 1 + directions.len());
        let tangents = Tangents::of(&sets, id, &table[id]);
        let changes: Vec<_> =
            directions.iter().map(|z| z.as_ref().map(|z| materialize::direction(z, &table[id], &stored))).collect();
        let weight = WeightRef::f32(&stored, rows, cols);
        for isa in Isa::available() {
            let cx = Context::new(isa).with_profile(profile);
            for direction in [Stored::OutIn, Stored::InOut] {
                let (k, n) = if direction == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                let (m, x) = (3, values(groups * 3 * k, seed ^ 2));
                let x = MatRef::new(&x, groups * m, k);
                let mut fused = vec![0.0; groups * m * n];
                on_threads(threads, || {
                    tangents.linear(&cx, x, (weight, direction), MatMut::new(&mut fused, groups * m, n));
                });
                let transposed = |values: &[f32]| -> Vec<f32> {
                    let at = |j: usize, l: usize| if direction == Stored::OutIn { j * k + l } else { l * n + j };
                    (0..n * k).map(|i| values[at(i / k, i % k)]).collect()
                };
                let own = transposed(&stored);
                let own = WeightRef::f32(&own, n, k);
                let mut plain = vec![0.0; groups * m * n];
                matmul::forward(&cx, x.row_range(0..m), &own, None, MatMut::new(&mut plain[..m * n], m, n));
                for (at, change) in changes.iter().enumerate() {
                    let (rows, values) = ((at + 1) * m..(at + 2) * m, x.row_range(0..m));
                    let change = change.as_deref().map(transposed);
                    let change = change.as_deref().map(|change| WeightRef::f32(change, n, k));
                    let y = MatMut::new(&mut plain[rows.start * n..rows.end * n], m, n);
                    backward::tangent(&cx, (values, Some(x.row_range(rows))), (&own, change.as_ref()), None, y);
                }
                assert_same_bits(&fused, &plain, format_args!("{isa} {profile} {rows}x{cols} {direction:?}"));
            }
            let ids: Vec<u32> = (0..rows as u32).rev().collect();
            let mut gathered = vec![f32::NAN; groups * rows * cols];
            on_threads(threads, || {
                tangents.gather(&cx, weight, &ids, MatMut::new(&mut gathered, groups * rows, cols));
            });
            let zeros = vec![0.0; rows * cols];
            let all = std::iter::once(&stored).chain(changes.iter().map(|change| change.as_ref().unwrap_or(&zeros)));
            let expected: Vec<f32> = all.flat_map(|values| values.rchunks(cols).flatten().copied()).collect();
            assert_same_bits(&gathered, &expected, format_args!("{isa}, gathered"));
            if rows == 1 {
                for (found, expected) in tangents.values(&cx, &stored).iter().zip(&changes) {
                    prop_assert_eq!(found.as_deref(), expected.as_deref());
                }
            }
        }
    }

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
                    let mut applied = stored.clone();
                    let alone = Moves::of(std::slice::from_ref(lane), id, &table[id]);
                    let update = alone.update(&cx);
                    applied.chunks_mut(cols).enumerate().for_each(|(row, values)| update(row, values));
                    assert_same_bits(&applied, expected, format_args!("{isa}, applied"));
                    if rows == 1 {
                        assert_same_bits(&alone.values(&cx, &stored)[0], expected, format_args!("{isa}, lent"));
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
                assert_same_bits(found[1].as_deref().expect("it moves"), &change, format_args!("{isa}, lent"));
            }
        }
    }

    #[test]
    fn the_input_gradient_of_a_perturbed_weight_equals_the_materialised_one_bit_for_bit(
        m in prop::sample::select(vec![1_usize, 5, 17]),
        k in prop::sample::select(vec![1_usize, 31, 250, 256, 270]),
        n in prop::sample::select(vec![1_usize, 15, 17, 64, 300]),
        seed in any::<u64>(),
    ) {
        let (dy, w) = (values(m * n, seed), values(n * k, seed ^ 1));
        let noise = NoiseKey::new(seed, 0, Role::Dense, 0).tensor(1);
        let terms = [Term { direction: Dense::Noise(noise, Law::Gaussian), coefficients: &[0.5], mask: None }];
        let perturbed = Perturbed::new(WeightRef::f32(&w, n, k), &terms, 1);
        let dense = materialize::dense(&perturbed, 0);
        for isa in Isa::available() {
            let cx = Context::new(isa);
            let (mut fused, mut plain) = (vec![0.0; m * k], vec![0.0; m * k]);
            let dy = MatRef::new(&dy, m, n);
            backward::input(&cx, dy, &perturbed, false, MatMut::new(&mut fused, m, k));
            backward::input(&cx, dy, &WeightRef::f32(&dense, n, k), false, MatMut::new(&mut plain, m, k));
            assert_same_bits(&fused, &plain, format_args!("{isa} {m}x{k}x{n}"));
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
