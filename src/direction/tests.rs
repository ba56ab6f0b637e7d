//! Fused equals materialised, bit for bit: directions with one value per element.

use std::{ops::Range, sync::Arc};

use half::{bf16, f16};
use proptest::prelude::*;

use super::{
    Anchor, Coefficients, Direction, DirectionSet, Displacement, Moves, ParamTable, RowFn, Stored, Tangents,
    fuse::{Change, Dense, Mask, Perturbed, Source, Term},
    materialize,
    thin::Part,
};
use crate::{
    kernels::{
        Context, Profile,
        matmul::{self, DEPTH_BLOCK, PanelSource, backward},
    },
    noise::{Law, NoiseKey, PANEL_ROWS, Role},
    simd::{Isa, Simd, SimdOp},
    tensor::{MatMut, MatRef, WeightRef},
    testing::{assert_same_bits, on_threads},
};

pub(super) fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; len];
    NoiseKey::new(seed, 0, Role::Init, 0).tensor(0).fill(Isa::fastest(), Law::Uniform, 0..1, 0..len, &mut out);
    out
}

/// Words of a mask, some of them empty, some full.
fn words(rows: usize, cols: usize, seed: u64) -> Vec<u32> {
    let word = |i: u32| match i % 5 {
        0 => 0,
        1 => u32::MAX,
        _ => (i ^ seed as u32).wrapping_mul(0x9e37_79b9),
    };
    (0..rows * cols.div_ceil(32)).map(|i| word(i as u32 + seed as u32 % 5)).collect()
}

/// A checkpoint's values.
#[derive(Debug)]
struct Held {
    values: Vec<f16>,
    rows: usize,
    cols: usize,
}

impl Anchor for Held {
    fn weight(&self) -> WeightRef<'_> {
        WeightRef::f16(&self.values, self.rows, self.cols)
    }
}

/// Adam's update.
#[derive(Debug)]
struct Moments {
    m: Vec<f32>,
    v: Vec<f32>,
    cols: usize,
}

impl Moments {
    fn new(rows: usize, cols: usize, seed: u64) -> Self {
        let v = values(rows * cols, seed ^ 1).iter().map(|x| x * x).collect();
        Moments { m: values(rows * cols, seed), v, cols }
    }
}

impl RowFn for Moments {
    fn row(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        assert_eq!(out.len(), cols.len());
        for (out, at) in out.iter_mut().zip(row * self.cols + cols.start..) {
            *out = self.m[at] / (self.v[at].sqrt() + 1e-3);
        }
    }
}

/// Every kind of elementwise direction, plain, scaled, masked and flipped.
pub(super) fn elementwise(rows: usize, cols: usize, seed: u64) -> Vec<Direction> {
    let count = rows * cols;
    let anchor = Held { values: values(count, seed ^ 3).iter().map(|&w| f16::from_f32(w)).collect(), rows, cols };
    let noise = Direction::Dense { key: NoiseKey::new(seed, 1, Role::Dense, 0), law: Law::Gaussian };
    let explicit = Direction::Explicit(values(count, seed ^ 1).into());
    let drift = Direction::Drift(Arc::new(anchor));
    let rule = Direction::Rows(Arc::new(Moments::new(rows, cols, seed ^ 5)));
    let scaled = |of: &Direction| Direction::Scaled { of: Box::new(of.clone()), scale: values(count, seed ^ 4).into() };
    let masked = |of: &Direction| Direction::Masked { of: Box::new(of.clone()), mask: words(rows, cols, seed).into() };
    let signs = |probe| Some(NoiseKey::new(seed, 2, Role::Dense, probe));
    let flipped = |of: &Direction, rows, cols| Direction::Flipped { of: Box::new(of.clone()), rows, cols };
    let decorated = [
        flipped(&noise, signs(0), signs(1)),
        flipped(&scaled(&masked(&explicit)), signs(2), None),
        scaled(&masked(&flipped(&drift, None, signs(3)))),
        masked(&noise),
        scaled(&noise),
        scaled(&masked(&explicit)),
        masked(&Direction::Weights),
        masked(&scaled(&drift)),
        scaled(&rule),
        masked(&rule),
    ];
    [noise, explicit, Direction::Weights, drift, rule].into_iter().chain(decorated).collect()
}

/// Weights that bf16 holds exactly, a quarter of them −0.
fn weights(len: usize, seed: u64) -> Vec<f32> {
    let mut out = values(len, seed);
    out.iter_mut().enumerate().for_each(|(i, w)| *w = if i % 4 == 1 { -0.0 } else { bf16::from_f32(*w).to_f32() });
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

/// Features `rows` and inputs `depth` of every branch of an operand.
fn panels(isa: Isa, operand: &impl PanelSource, rows: &Range<usize>, depth: &Range<usize>) -> Vec<Vec<f32>> {
    struct Fill<'a, P>(&'a P, Range<usize>, Range<usize>, Vec<&'a mut [f32]>);

    impl<P: PanelSource> SimdOp for Fill<'_, P> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(mut self, simd: S) {
            self.0.fill(simd, self.1, self.2, &mut self.3);
        }
    }

    let len = rows.len().next_multiple_of(PANEL_ROWS) * depth.len();
    let mut panels = vec![vec![f32::NAN; len]; operand.branches()];
    let parts = panels.iter_mut().map(Vec::as_mut_slice).collect();
    isa.dispatch(Fill(operand, rows.clone(), depth.clone(), parts));
    panels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_packed_panel_holds_the_bits_of_the_materialised_weight_signs_of_zeros_included(
        (rows, first, features) in (1_usize..40).prop_flat_map(|rows| (Just(rows), 0..rows, 1_usize..=32)),
        (cols, from) in prop::sample::select(vec![1_usize, 7, 31, 32, 33, 100, 255, 257, 300])
            .prop_flat_map(|cols| (Just(cols), 0..cols)),
        seed in any::<u64>(),
        half in any::<bool>(),
    ) {
        let mut table = ParamTable::new();
        let id = table.add("w", &[rows, cols]);
        let stored = weights(rows * cols, seed ^ 2);
        let rounded: Vec<bf16> = stored.iter().map(|&w| bf16::from_f32(w)).collect();
        let weight =
            if half { WeightRef::bf16(&rounded, rows, cols) } else { WeightRef::f32(&stored, rows, cols) };
        let features = first..rows.min(first + features);
        let depth = from..cols.min((from / DEPTH_BLOCK + 1) * DEPTH_BLOCK);
        let width = features.len().next_multiple_of(PANEL_ROWS);
        let panel_of = |values: &[f32]| -> Vec<f32> {
            let at = |k: usize, j: usize| {
                if j < features.len() { values[(features.start + j) * cols + depth.start + k] } else { 0.0 }
            };
            (0..depth.len() * width).map(|i| at(i / width, i % width)).collect()
        };
        let coefficients = [0.5, 0.0, -0.25];
        for (number, direction) in elementwise(rows, cols, seed).into_iter().enumerate() {
            let Part::Dense(dense) = Part::of(&direction, &table[id]) else { panic!("direction {number} is thin") };
            let terms = [Term { direction: dense, coefficients: &coefficients }];
            let perturbed = Perturbed::new(weight, &terms, coefficients.len());
            let change = Change { weight, direction: dense };
            let z = panel_of(&materialize::direction(&direction, &table[id], &stored));
            let set = Arc::new(DirectionSet::new([(id, direction.clone())]));
            for isa in Isa::available() {
                let found = panels(isa, &perturbed, &features, &depth);
                for (branch, (found, c)) in found.iter().zip(coefficients).enumerate() {
                    let expected = materialize::displaced(&stored, id, &table[id], &Displacement::along(&set, c));
                    assert_same_bits(found, &panel_of(&expected), format_args!("{isa}, {c} times direction {number}"));
                    assert_same_bits(&materialize::dense(&perturbed, branch), &expected, "the two materialised ones");
                }
                let found = panels(isa, &change, &features, &depth);
                assert_same_bits(&found[0], &z, format_args!("{isa}, direction {number} alone"));
            }
        }
    }

    #[test]
    fn a_fused_dense_displacement_equals_the_materialised_one_bit_for_bit(
        m in prop::sample::select(vec![1_usize, 2, 5, 15, 17]),
        k in prop::sample::select(vec![1_usize, 2, 31, 255, 256, 257, 600]),
        n in prop::sample::select(vec![1_usize, 3, 15, 16, 17, 33, 64, 70]),
        seed in any::<u64>(),
        law in prop::sample::select(vec![Law::Gaussian, Law::Rademacher, Law::Uniform]),
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        (masked, scaled) in any::<(bool, bool)>(),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let branches = 2;
        let (x, w, explicit) = (values(branches * m * k, seed), values(n * k, seed ^ 1), values(n * k, seed ^ 2));
        let (words, scale, rule) = (words(n, k, seed), values(n * k, seed ^ 4), Moments::new(n, k, seed ^ 5));
        let (mask, scale) = (masked.then(|| Mask::new(&words, n, k)), scaled.then(|| MatRef::new(&scale, n, k)));
        let noise = NoiseKey::new(seed, 3, Role::Dense, 1).tensor(7);
        let rounded: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
        let terms = [
            Term { direction: Dense { scale, mask, ..Source::Noise(noise, law).into() }, coefficients: &[1e-3, -1e-3] },
            Term { direction: Source::Explicit(MatRef::new(&explicit, n, k)).into(), coefficients: &[0.25, 0.0] },
            Term { direction: Dense { mask, ..Source::Weights.into() }, coefficients: &[-0.125, 0.5] },
            Term { direction: Source::Drift(WeightRef::bf16(&rounded, n, k)).into(), coefficients: &[0.75, -2.0] },
            Term { direction: Dense { scale, mask, ..Source::Rows(&rule).into() }, coefficients: &[0.0, 0.5] },
        ];
        for weight in [WeightRef::f32(&w, n, k), WeightRef::bf16(&rounded, n, k)] {
            for terms in [&terms[..], &terms[..1], &terms[2..], &terms[4..], &[]] {
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
        profile in prop::sample::select(vec![Profile::StrictF32, Profile::StrictBf16]),
        threads in prop::sample::select(vec![1, 3]),
    ) {
        let mut table = ParamTable::new();
        let (w, bias, still) = (table.add("w", &[rows, cols]), table.add("b", &[cols]), table.add("s", &[cols]));
        let (of_w, of_bias) = (elementwise(rows, cols, seed), elementwise(1, cols, seed ^ 9));
        let sets = of_w.into_iter().zip(of_bias).map(|(z, b)| Arc::new(DirectionSet::new([(w, z), (bias, b)])));
        // A positive scale: −0 + 0.25 · +0 is +0, so that a masked element shows whether it was left alone.
        let mut lanes: Vec<_> = sets.map(|set| Displacement::along(&set, 0.25)).collect();
        // One more lane with all terms, one of which has its own coefficients.
        let mut all = Displacement { terms: lanes.iter().flat_map(|lane| lane.terms.clone()).collect() };
        all.terms.iter_mut().for_each(|term| term.coefficients = Coefficients::One(-0.125));
        all.terms[1].coefficients = Coefficients::PerParam([(w, own), (still, 1.0)].into());
        prop_assert!(all.moves(w) && all.moves(bias) && !all.moves(still));
        lanes.push(all);
        lanes.push(Displacement::default());

        for (id, param) in table.iter() {
            let (rows, cols) = (param.rows(), param.cols());
            let stored = weights(rows * cols, seed ^ 2);
            let rounded: Vec<bf16> = stored.iter().map(|&w| bf16::from_f32(w)).collect();
            let expected: Vec<_> =
                lanes.iter().map(|lane| materialize::displaced(&stored, id, param, lane)).collect();
            prop_assert_eq!(expected[0] != stored, id != still);
            for isa in Isa::available() {
                let cx = Context::new(isa).with_profile(profile);
                for (number, (lane, expected)) in lanes.iter().zip(&expected).enumerate() {
                    let moves = Moves::of(std::slice::from_ref(lane), id, param);
                    let update = moves.update(&cx);
                    for height in [1, 16] {
                        let mut applied = stored.clone();
                        let blocks = applied.chunks_mut(height * cols).enumerate();
                        blocks.for_each(|(block, values)| update(block * height, values));
                        assert_same_bits(&applied, expected, format_args!("{isa}, lane {number}, {height} rows at once"));
                    }
                }
                if id == still {
                    continue;
                }
                let moves = Moves::of(&lanes, id, param);
                if rows == 1 {
                    for (lent, expected) in moves.values(&cx, &stored).iter().zip(&expected) {
                        assert_same_bits(&lent[0], expected, format_args!("{isa}, lent"));
                    }
                }
                for weight in [WeightRef::f32(&stored, rows, cols), WeightRef::bf16(&rounded, rows, cols)] {
                    let ids: Vec<u32> = (0..rows as u32).rev().collect();
                    let mut gathered = vec![0.0; lanes.len() * rows * cols];
                    on_threads(threads, || {
                        moves.gather(&cx, weight, &ids, MatMut::new(&mut gathered, lanes.len() * rows, cols));
                    });
                    let reversed: Vec<f32> =
                        expected.iter().flat_map(|values| values.rchunks(cols).flatten().copied()).collect();
                    assert_same_bits(&gathered, &reversed, format_args!("{isa}, gathered"));
                    for layout in [Stored::OutIn, Stored::InOut] {
                        let (k, n) = if layout == Stored::OutIn { (cols, rows) } else { (rows, cols) };
                        let (m, x) = (3, values(lanes.len() * 3 * k, seed ^ 3));
                        let x = MatRef::new(&x, lanes.len() * m, k);
                        let (mut fused, mut plain) = (vec![0.0; lanes.len() * m * n], vec![0.0; lanes.len() * m * n]);
                        on_threads(threads, || {
                            moves.linear(&cx, x, (weight, layout), None, MatMut::new(&mut fused, lanes.len() * m, n));
                        });
                        for (lane, (expected, y)) in expected.iter().zip(plain.chunks_mut(m * n)).enumerate() {
                            let (x, y) = (x.row_range(lane * m..(lane + 1) * m), MatMut::new(y, m, n));
                            let expected = WeightRef::f32(expected, rows, cols);
                            match layout {
                                Stored::OutIn => matmul::forward(&cx, x, &expected, None, y),
                                Stored::InOut => matmul::forward_transposed(&cx, x, &expected, None, y),
                            }
                        }
                        assert_same_bits(&fused, &plain, format_args!("{isa} {profile} {rows}x{cols} {layout:?}"));
                        // The way back of the same lanes, from what the way there made.
                        let (dy, mut plain) = (MatRef::new(&plain, lanes.len() * m, n), vec![0.0; x.data().len()]);
                        let mut fused = plain.clone();
                        on_threads(threads, || {
                            let dx = MatMut::new(&mut fused, lanes.len() * m, k);
                            moves.linear_backward(&cx, dy, (weight, layout), dx);
                        });
                        for (lane, (expected, dx)) in expected.iter().zip(plain.chunks_mut(m * k)).enumerate() {
                            let (dy, dx) = (dy.row_range(lane * m..(lane + 1) * m), MatMut::new(dx, m, k));
                            let expected = WeightRef::f32(expected, rows, cols);
                            match layout {
                                Stored::OutIn => backward::input(&cx, dy, &expected, false, dx),
                                Stored::InOut => matmul::forward(&cx, dy, &expected, None, dx),
                            }
                        }
                        assert_same_bits(&fused, &plain, format_args!("{isa} {profile} {rows}x{cols} {layout:?} back"));
                    }
                }
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
        let mut directions: Vec<_> = elementwise(rows, cols, seed).into_iter().map(Some).collect();
        directions.insert(1, None);
        let set = |direction: &Option<Direction>| {
            direction.clone().map_or_else(|| DirectionSet::new([(still, Direction::Weights)]), |z| DirectionSet::new([(id, z)]))
        };
        let (sets, groups) = (directions.iter().map(set).collect::<Vec<_>>(), 1 + directions.len());
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
                    prop_assert_eq!(found.first().map(|found| &**found), expected.as_deref());
                }
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
        let terms = [Term { direction: Source::Noise(noise, Law::Gaussian).into(), coefficients: &[0.5] }];
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
    fn a_drift_moves_a_weight_between_it_and_its_anchor(
        seed in any::<u64>(),
        gamma in prop::sample::select(vec![0.0_f32, 1e-6, 0.1, 0.9, 0.999, 1.5]),
    ) {
        let mut table = ParamTable::new();
        let (id, count) = (table.add("w", &[5, 37]), 5 * 37);
        let held = values(count, seed ^ 1).iter().map(|&w| f16::from_f32(w)).collect();
        let held = Arc::new(Held { values: held, rows: 5, cols: 37 });
        let (stored, anchor) = (values(count, seed), held.weight());
        let set = Arc::new(DirectionSet::new([(id, Direction::Drift(held.clone()))]));
        let lanes = [Displacement::along(&set, gamma - 1.0)];
        let moves = Moves::of(&lanes, id, &table[id]);
        let cx = Context::new(Isa::fastest());
        let (mut moved, update) = (stored.clone(), moves.update(&cx));
        moved.chunks_mut(37).enumerate().for_each(|(row, values)| update(row, values));
        for (at, (&moved, &theta)) in moved.iter().zip(&stored).enumerate() {
            let (origin, theta) = (f64::from(anchor.at(at / 37, at % 37)), f64::from(theta));
            let (gamma, drift) = (f64::from(gamma), theta - origin);
            let target = origin + gamma * drift;
            // With u = 2⁻²⁴, gamma − 1 and the drift are rounded by at most u of themselves each, their product is
            // not, and the sum is by u of itself or, if subnormal, by half of the last place, 2⁻¹⁵⁰. 1.01 covers second
            // order and the target's own roundings in f64.
            let u = 2_f64.powi(-24);
            let bound = 1.01 * u * (target.abs() + 2.0 * ((gamma - 1.0) * drift).abs()) + 2_f64.powi(-150);
            prop_assert!((f64::from(moved) - target).abs() <= bound, "{moved} for {target} ± {bound}");
        }
    }
}

fn part_of_a_matrix(direction: &Direction) {
    let mut table = ParamTable::new();
    let id = table.add("layer.weight", &[2, 40]);
    Part::of(direction, &table[id]);
}

fn masked(of: Direction) -> Direction {
    Direction::Masked { of: Box::new(of), mask: vec![7; 4].into() }
}

fn scaled(of: Direction) -> Direction {
    Direction::Scaled { of: Box::new(of), scale: vec![2.0; 80].into() }
}

#[test]
#[should_panic(expected = "the direction of \"layer.weight\" is masked twice")]
fn a_direction_that_is_masked_twice_is_refused() {
    part_of_a_matrix(&masked(scaled(masked(Direction::Weights))));
}

#[test]
#[should_panic(expected = "the direction of \"layer.weight\" is scaled twice")]
fn a_direction_that_is_scaled_twice_is_refused() {
    part_of_a_matrix(&scaled(scaled(Direction::Weights)));
}

#[test]
#[should_panic(expected = "the low-rank direction of \"layer.weight\" is scaled or masked")]
fn a_masked_low_rank_direction_is_refused() {
    part_of_a_matrix(&masked(Direction::LowRank { left: [].into(), right: [].into(), rank: 0 }));
}

#[test]
#[should_panic(expected = "a mask of [2, 40] over 3 words")]
fn a_mask_without_a_word_of_its_own_for_each_row_is_refused() {
    part_of_a_matrix(&Direction::Masked { of: Box::new(Direction::Weights), mask: vec![7; 3].into() });
}

#[test]
#[should_panic(expected = "the anchor of \"layer.weight\" has not its rows and columns")]
fn an_anchor_of_another_shape_is_refused() {
    part_of_a_matrix(&Direction::Drift(Arc::new(Held { values: vec![f16::ONE; 80], rows: 40, cols: 2 })));
}
