//! Directions of examples: bits in rows and vectors, the bits of each example alone and a derived bound of the
//! materialised weight in products.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{
    Direction, DirectionSet, Displacement, ExampleRows, Moves, Param, ParamId, ParamTable, Stored, Tangents,
    flips::Flips, materialize, tests::values,
};
use crate::{
    kernels::{Context, Profile},
    noise::{Law, NoiseKey, Role},
    simd::Isa,
    tensor::{MatMut, MatRef, WeightRef},
    testing::{assert_same_bits, on_threads},
};

const EXAMPLES: usize = 4;

fn key(seed: u64, probe: u32, example: usize) -> Option<NoiseKey> {
    Some(NoiseKey::new(seed, 1, Role::Dense, probe).extended(example as u64))
}

/// A direction for each of four examples, in every way in which they can be: the same noise under signs of both axes or of
/// one, values and factors of their own, and some of each.
fn kinds(rows: usize, cols: usize, seed: u64) -> Vec<Vec<Direction>> {
    let noise = Direction::Dense { key: NoiseKey::new(seed, 0, Role::Dense, 0), law: Law::Uniform };
    let low_rank = |rank: usize, seed: u64| Direction::LowRank {
        left: values(rows * rank, seed).into(),
        right: values(cols * rank, seed ^ 8).into(),
        rank,
    };
    let each = |of: &dyn Fn(usize) -> Direction| (0..EXAMPLES).map(of).collect::<Vec<_>>();
    let flipped = |of: &Direction, example, axes: [bool; 2]| {
        let [rows, cols] = [0, 1].map(|axis| key(seed, axis, example).filter(|_| axes[axis as usize]));
        Direction::Flipped { of: Box::new(of.clone()), rows, cols }
    };
    let explicit = |example: usize| Direction::Explicit(values(rows * cols, seed ^ (16 + example as u64)).into());
    let own = each(&|example| low_rank(1 + example % 2, seed ^ (32 + example as u64)));
    let mixed = vec![flipped(&noise, 0, [true; 2]), explicit(1), own[2].clone(), flipped(&noise, 3, [true; 2])];
    vec![
        each(&|example| flipped(&noise, example, [true, true])),
        each(&|example| flipped(&noise, example, [false, true])),
        each(&|example| flipped(&explicit(0), example, [true, false])),
        each(&explicit),
        own,
        mixed,
    ]
}

/// The set in which each example has one of these directions.
fn per_example(id: ParamId, directions: &[Direction]) -> Arc<DirectionSet> {
    let sets: Vec<_> = directions.iter().map(|z| Arc::new(DirectionSet::new([(id, z.clone())]))).collect();
    Arc::new(DirectionSet::per_example(&sets))
}

/// Two lanes on both sides, one that stays, and one with a direction of all examples before that of each.
fn lanes(id: ParamId, set: &Arc<DirectionSet>, seed: u64) -> [Displacement; 4] {
    let shared = Direction::Dense { key: NoiseKey::new(seed, 5, Role::Dense, 0), law: Law::Rademacher };
    let mut both = Displacement::along(&Arc::new(DirectionSet::new([(id, shared)])), 0.125);
    both.terms.extend(Displacement::along(set, 0.5).terms);
    [Displacement::along(set, 0.25), Displacement::along(set, -0.25), Displacement::default(), both]
}

/// The rows of a lane by their examples: of the second there are two parts, of the third none.
fn examples() -> Vec<ExampleRows> {
    ExampleRows::of([0, 0, 1, 3, 3, 3, 1])
}

/// The elements of a direction, and the sums of the magnitudes that they are made of.
fn exact(z: &Direction, param: &Param) -> (Vec<f64>, Vec<f64>) {
    let cols = param.cols();
    match z {
        Direction::Flipped { of, rows, cols: columns } => {
            let flips = Flips::new(*rows, *columns, param.noise_name());
            let (mut z, magnitude) = exact(of, param);
            z.iter_mut().enumerate().for_each(|(at, z)| *z *= f64::from(flips.at(at / cols, at % cols)));
            (z, magnitude)
        }
        Direction::LowRank { left, right, rank } => {
            let terms = |at: usize| {
                let (left, right) = (&left[at / cols * rank..][..*rank], &right[at % cols * rank..][..*rank]);
                left.iter().zip(right).map(|(l, r)| f64::from(*l) * f64::from(*r))
            };
            let all = 0..param.elements();
            (all.clone().map(|at| terms(at).sum()).collect(), all.map(|at| terms(at).map(f64::abs).sum()).collect())
        }
        z => {
            let z = materialize::direction(z, param, &vec![0.0; param.elements()]);
            z.into_iter().map(f64::from).map(|z| (z, z.abs())).unzip()
        }
    }
}

/// What [`Moves::linear`] makes of a layer, on so many threads.
fn linear(
    cx: &Context,
    moves: &Moves<'_>,
    x: &[f32],
    layer: (WeightRef<'_>, Stored),
    (k, n): (usize, usize),
    threads: usize,
) -> Vec<f32> {
    let m = x.len() / k;
    let (mut y, bias) = (vec![0.0; m * n], values(n, 77));
    on_threads(threads, || moves.linear(cx, MatRef::new(x, m, k), layer, Some(&bias), MatMut::new(&mut y, m, n)));
    y
}

/// The rows of some of a lane's, in every lane.
fn select(x: &[f32], width: usize, lanes: usize, rows: &(impl Iterator<Item = usize> + Clone)) -> Vec<f32> {
    let m = x.len() / width / lanes;
    let rows = (0..lanes).flat_map(|lane| rows.clone().map(move |row| lane * m + row));
    rows.flat_map(|row| x[row * width..(row + 1) * width].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn rows_of_an_example_have_the_bits_they_have_alone_on_every_machine_and_are_within_their_bound(
        rows in prop::sample::select(vec![1_usize, 2, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 33, 300]),
        seed in any::<u64>(),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let stored = values(rows * cols, seed);
        let weight = WeightRef::f32(&stored, rows, cols);
        let runs = examples();
        let owners: Vec<usize> = runs.iter().flat_map(|run| run.rows.clone().map(|_| run.example)).collect();
        for (kind, directions) in kinds(rows, cols, seed).iter().enumerate() {
            let set = per_example(id, directions);
            let lanes = lanes(id, &set, seed);
            let moves = Moves::of(&lanes, id, &table[id]).over(&runs);
            for layout in [Stored::OutIn, Stored::InOut] {
                let (k, n) = if layout == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                let x = values(lanes.len() * owners.len() * k, seed ^ 4);
                let first = Context::new(Isa::available()[0]).with_profile(profile);
                let expected = linear(&first, &moves, &x, (weight, layout), (k, n), 1);
                for isa in Isa::available() {
                    let cx = Context::new(isa).with_profile(profile);
                    let found = linear(&cx, &moves, &x, (weight, layout), (k, n), threads);
                    assert_same_bits(&found, &expected, format_args!("{isa} {profile}, kind {kind}, {layout:?}"));
                    for example in 0..EXAMPLES {
                        let own = (0..owners.len()).filter(|&row| owners[row] == example);
                        let alone = ExampleRows::of(own.clone().map(|_| example));
                        let moves = Moves::of(&lanes, id, &table[id]).over(&alone);
                        let x = select(&x, k, lanes.len(), &own);
                        let found = linear(&cx, &moves, &x, (weight, layout), (k, n), 1);
                        let expected = select(&expected, n, lanes.len(), &own);
                        assert_same_bits(&found, &expected, format_args!("{isa} {profile}, kind {kind}, {example} alone"));
                    }
                }
                if profile == Profile::StrictBf16 {
                    continue;
                }
                let bias = values(n, 77);
                let shared = NoiseKey::new(seed, 5, Role::Dense, 0).tensor(table[id].noise_name());
                let exact: Vec<_> = directions.iter().map(|z| exact(z, &table[id])).collect();
                for (place, &found) in expected.iter().enumerate() {
                    let (row, j) = (place / n, place % n);
                    let (lane, owner) = (row / owners.len(), owners[row % owners.len()]);
                    let c = [0.25, -0.25, 0.0, 0.5][lane];
                    let mut sum = f64::from(bias[j]);
                    let mut magnitude = sum.abs();
                    for l in 0..k {
                        let at = if layout == Stored::OutIn { j * k + l } else { l * n + j };
                        let also = if lane == 3 { 0.125 * f64::from(shared.at(Law::Rademacher, (at / cols) as u64, at % cols)) } else { 0.0 };
                        let x = f64::from(x[row * k + l]);
                        sum += x * (f64::from(stored[at]) + also + c * exact[owner].0[at]);
                        magnitude += x.abs() * (f64::from(stored[at]).abs() + also.abs() + c.abs() * exact[owner].1[at]);
                    }
                    // Every term passes at most two roundings where it is formed (w + c z, c x), k in t = x R, k in the
                    // chain of the weight, k or a rank of at most 3 in its own, and the bias: each of relative size 2⁻²⁴
                    // (Higham, Accuracy and Stability, 3.1); 2 covers second order.
                    let bound = 2.0 * (3 * k + 6) as f64 * 2_f64.powi(-24) * magnitude;
                    prop_assert!((f64::from(found) - sum).abs() <= bound, "kind {kind}: {found} for {sum} ± {bound}");
                }
            }
        }
    }

    #[test]
    fn gathered_rows_and_lent_vectors_of_an_example_are_those_of_its_own_displacement_bit_for_bit(
        rows in prop::sample::select(vec![1_usize, 2, 17]),
        cols in prop::sample::select(vec![1_usize, 7, 300]),
        seed in any::<u64>(),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let stored = values(rows * cols, seed);
        let weight = WeightRef::f32(&stored, rows, cols);
        let runs = examples();
        let owners: Vec<usize> = runs.iter().flat_map(|run| run.rows.clone().map(|_| run.example)).collect();
        let ids: Vec<u32> = (0..owners.len()).map(|row| (row * 5 % rows) as u32).collect();
        for (kind, directions) in kinds(rows, cols, seed).iter().enumerate() {
            let set = per_example(id, directions);
            let lanes = lanes(id, &set, seed);
            let moves = Moves::of(&lanes, id, &table[id]).over(&runs);
            let at = |lane: &Displacement, example| materialize::displaced(&stored, id, &table[id], &lane.of_example(example));
            let sets = [DirectionSet::default(), (*set).clone()];
            let tangents = Tangents::of(&sets, id, &table[id]).over(&runs);
            let change = |example: usize| materialize::direction(&directions[example], &table[id], &stored);
            let of_ids = |of: &dyn Fn(usize) -> Vec<f32>| -> Vec<f32> {
                let row = |(&owner, &row): (&usize, &u32)| of(owner)[row as usize * cols..][..cols].to_vec();
                owners.iter().zip(&ids).flat_map(row).collect()
            };
            for isa in Isa::available() {
                let cx = Context::new(isa);
                let mut gathered = vec![0.0; lanes.len() * ids.len() * cols];
                on_threads(threads, || {
                    moves.gather(&cx, weight, &ids, MatMut::new(&mut gathered, lanes.len() * ids.len(), cols));
                });
                let expected: Vec<f32> = lanes.iter().flat_map(|lane| of_ids(&|example| at(lane, example))).collect();
                assert_same_bits(&gathered, &expected, format_args!("{isa}, kind {kind}, gathered"));
                let mut gathered = vec![0.0; 3 * ids.len() * cols];
                tangents.gather(&cx, weight, &ids, MatMut::new(&mut gathered, 3 * ids.len(), cols));
                let changes = &gathered[2 * ids.len() * cols..];
                assert_same_bits(changes, &of_ids(&change), format_args!("{isa}, kind {kind}, gathered changes"));
                if rows == 1 {
                    for (lent, lane) in moves.values(&cx, &stored).iter().zip(&lanes) {
                        prop_assert_eq!(lent.len(), runs.len());
                        for (lent, run) in lent.iter().zip(&runs) {
                            assert_same_bits(lent, &at(lane, run.example), format_args!("{isa}, kind {kind}, lent"));
                        }
                    }
                    let lent = tangents.values(&cx, &stored);
                    prop_assert_eq!((lent[0].len(), lent[1].len()), (0, runs.len()));
                    for (lent, run) in lent[1].iter().zip(&runs) {
                        assert_same_bits(lent, &change(run.example), format_args!("{isa}, kind {kind}, lent change"));
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_along_directions_of_examples_is_that_of_a_lane_less_the_weight(
        rows in prop::sample::select(vec![1_usize, 2, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 33, 300]),
        seed in any::<u64>(),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
    ) {
        // Over a weight of zeros a lane of coefficient 1 and the tangent are the same chains, the value's rows being read.
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let zeros = vec![0.0; rows * cols];
        let weight = WeightRef::f32(&zeros, rows, cols);
        let runs = examples();
        let m = runs[runs.len() - 1].rows.end;
        let cx = Context::new(Isa::fastest()).with_profile(profile);
        for (kind, directions) in kinds(rows, cols, seed).iter().enumerate() {
            let set = per_example(id, directions);
            let lane = [Displacement::along(&set, 1.0)];
            for layout in [Stored::OutIn, Stored::InOut] {
                let (k, n) = if layout == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                let x = values(3 * m * k, seed ^ 4);
                let (mut moved, mut changed) = (vec![0.0; m * n], vec![0.0; 3 * m * n]);
                let moves = Moves::of(&lane, id, &table[id]).over(&runs);
                moves.linear(&cx, MatRef::new(&x[..m * k], m, k), (weight, layout), None, MatMut::new(&mut moved, m, n));
                let sets = [DirectionSet::default(), (*set).clone()];
                let tangents = Tangents::of(&sets, id, &table[id]).over(&runs);
                tangents.linear(&cx, MatRef::new(&x, 3 * m, k), (weight, layout), MatMut::new(&mut changed, 3 * m, n));
                // The products with zeros that come first leave a sum of +0.
                assert_same_bits(&changed[2 * m * n..], &moved, format_args!("{profile}, kind {kind}, {layout:?}"));
                assert_same_bits(&changed[..2 * m * n], &vec![0.0; 2 * m * n], "what does not move");
            }
        }
    }

    #[test]
    fn own_factors_of_examples_that_are_all_the_same_are_shared_factors_bit_for_bit(
        rows in prop::sample::select(vec![1_usize, 2, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 33, 300]),
        rank in prop::sample::select(vec![1_usize, 2, 7]),
        seed in any::<u64>(),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let (stored, runs) = (values(rows * cols, seed), examples());
        let weight = WeightRef::f32(&stored, rows, cols);
        let (left, right) = (values(rows * rank, seed ^ 1).into(), values(cols * rank, seed ^ 2).into());
        let z = Direction::LowRank { left, right, rank };
        let own = per_example(id, &vec![z.clone(); EXAMPLES]);
        let all = Arc::new(DirectionSet::new([(id, z)]));
        let m = runs[runs.len() - 1].rows.end;
        for isa in Isa::available() {
            let cx = Context::new(isa).with_profile(profile);
            for layout in [Stored::OutIn, Stored::InOut] {
                let (k, n) = if layout == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                let x = values(2 * m * k, seed ^ 4);
                let [own, all] = [&own, &all].map(|set| {
                    let lanes = [Displacement::along(set, 1e-2), Displacement::along(set, -1e-2)];
                    let moves = Moves::of(&lanes, id, &table[id]).over(&runs);
                    linear(&cx, &moves, &x, (weight, layout), (k, n), 1)
                });
                assert_same_bits(&own, &all, format_args!("{isa} {profile}, {layout:?}"));
            }
        }
    }

    #[test]
    fn an_update_along_directions_that_share_their_values_is_the_materialised_one_bit_for_bit(
        rows in prop::sample::select(vec![1_usize, 2, 17, 40]),
        cols in prop::sample::select(vec![1_usize, 7, 300]),
        seed in any::<u64>(),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let stored = values(rows * cols, seed);
        let terms = kinds(rows, cols, seed).into_iter().flatten().enumerate().flat_map(|(at, z)| {
            let masked = Direction::Masked { of: Box::new(Direction::Weights), mask: vec![0x5555_5555; rows * cols.div_ceil(32)].into() };
            let plain = (at % 6 == 5).then_some(masked);
            std::iter::once(z).chain(plain).enumerate().flat_map(move |(plain, z)| {
                Displacement::along(&Arc::new(DirectionSet::new([(id, z)])), 0.01 * (1 + at + plain) as f32).terms
            })
        });
        let update = Displacement { terms: terms.collect() };
        let expected = materialize::displaced(&stored, id, &table[id], &update);
        for isa in Isa::available() {
            let cx = Context::new(isa);
            let moves = Moves::of(std::slice::from_ref(&update), id, &table[id]);
            let update = moves.update(&cx);
            for height in [1, 16] {
                let mut applied = stored.clone();
                applied.chunks_mut(height * cols).enumerate().for_each(|(block, values)| update(block * height, values));
                assert_same_bits(&applied, &expected, format_args!("{isa}, {height} rows at once"));
            }
        }
    }
}
