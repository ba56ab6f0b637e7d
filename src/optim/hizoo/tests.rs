//! What is measured, what is applied, and what is remembered of curvature.

use proptest::prelude::*;

use super::*;
use crate::{
    direction::materialize,
    optim::{
        OptionReader,
        fixture::{build, dot, fails_without_a_trace, first, linear, moments, run, wide},
    },
    testing::{
        assert_same_bits,
        worlds::{self, Dual, Facts, World},
    },
};

fn hizoo(options: &str) -> Hizoo {
    let table: toml::Table = options.parse().expect("TOML");
    let reader = OptionReader::new("hizoo", &table, ENTRY.options()).expect("options of the test");
    let options = Options::read(&reader).expect("options of the test");
    Hizoo { options, schedule: Schedule::read(&reader).expect("a schedule"), scale: BTreeMap::new() }
}

/// That of the eigenvalues of [`worlds::quadratic`].
fn eigenvalues() -> Vec<f64> {
    (0..24).map(|i| 1.0 + 3.0 * f64::from(i) / 23.0).collect()
}

/// Remembers this `1 / √H` of the only parameter of [`worlds::quadratic`], and answers H.
fn remember(hizoo: &mut Hizoo, scale: Vec<f32>) -> Vec<f64> {
    let hessian = scale.iter().map(|&s| f64::from(s).powi(-2)).collect();
    hizoo.scale.insert("x".to_owned(), scale.into());
    hessian
}

/// Scales from 0.5 to 1.5, in another order than the eigenvalues.
fn scales() -> Vec<f32> {
    (0..24).map(|i| 0.5 + (i * 7 % 24) as f32 / 23.0).collect()
}

/// The values of a direction of the first parameter.
fn values(world: &World, set: &DirectionSet) -> Vec<f32> {
    let (id, param) = first(world);
    materialize::direction(set.get(id).expect("it moves"), param, &world.values()[id.index()])
}

#[test]
fn without_smoothing_it_is_mezo_and_remembers_nothing() {
    for world in [worlds::quadratic, worlds::mixed_ranks] {
        let (mut found, mut expected) = (world(), world());
        let mut optimizer = hizoo("lr = 1e-3\nqueries = 2\nhessian_smooth = 0");
        run(&mut optimizer, &mut found, 3, 0..10);
        run(&mut *build("mezo", "lr = 1e-3\nqueries = 2"), &mut expected, 3, 0..10);
        for (found, expected) in found.values().iter().zip(expected.values()) {
            assert_same_bits(found, expected, "MeZO");
        }
        assert!(optimizer.scale.is_empty());
    }
}

#[test]
fn the_curvature_of_a_quadratic_loss_is_half_its_second_derivative_for_every_epsilon() {
    let (mut world, mut optimizer) = (worlds::quadratic(), hizoo(""));
    remember(&mut optimizer, scales());
    for seed in 0..10 {
        let z = spsa::directions(&world, Clock { seed, step: 0, steps: 1 }, Law::Gaussian, 2);
        let d = optimizer.shortened(&world, &z);
        for exponent in -3..=3 {
            let epsilon = 2_f64.powi(exponent);
            let batch = world.draw(Pool::Train, None).expect("a batch");
            let (_, found) = measure(&mut world, batch, &d, Positive::new(epsilon)).expect("losses");
            for (found, d) in found.iter().zip(&d) {
                let d = wide(&values(&world, d));
                let largest = d.iter().fold(0.0_f64, |most, d| most.max(d.abs()));
                let expected = 0.5 * eigenvalues().iter().zip(&d).map(|(h, d)| h * d * d).sum::<f64>();
                // θ = 2 and its minimum is within 1 of 0. Each of 24 displaced values is rounded by 2⁻²⁴ of itself where
                // the slope is at most 4 (3 + ε|d|); two such losses count, over 2ε². f64 arithmetic is exact beside it.
                let (away, slope) = (2.0 + epsilon * largest, 4.0 * (3.0 + epsilon * largest));
                let bound = 24.0 * slope * away * 2_f64.powi(-24) / (epsilon * epsilon);
                assert!((found - expected).abs() <= bound, "ε = {epsilon}: {found} against {expected} ± {bound}");
                assert!(bound < 0.05 * expected, "ε = {epsilon}: ± {bound} says nothing");
            }
        }
    }
}

#[test]
fn the_update_goes_down_the_very_direction_that_was_measured_and_not_along_the_new_curvature() {
    let (mut world, mut optimizer) = (worlds::quadratic(), hizoo("lr = 1e-3\nhessian_smooth = 0.5"));
    for step in 0..4 {
        let (scale, mut expected) = (optimizer.scale.get("x").cloned(), world.values()[0].clone());
        let clock = Clock { seed: 9, step, steps: 4 };
        let report = optimizer.step(&mut world, clock).expect("finite losses");
        let coefficient = (-1e-3 * report.projected_grads[0]) as f32;
        let z = values(&world, &spsa::directions(&world, clock, Law::Gaussian, 1)[0]);
        for (at, (value, z)) in expected.iter_mut().zip(z).enumerate() {
            let scale = scale.as_ref().map_or(1.0, |scale| scale[at]);
            *value = coefficient.mul_add(z * scale, *value);
        }
        assert_same_bits(&world.values()[0], &expected, "z times the scale that was measured along");
        assert_ne!(optimizer.scale.get("x"), scale.as_ref(), "the curvature is another one by now");
    }
}

#[test]
fn what_is_remembered_is_the_average_of_the_curvature_along_each_weight() {
    let (mut world, mut optimizer) = (worlds::quadratic(), hizoo("lr = 0\nhessian_smooth = 0.25\nqueries = 2"));
    let hessian = remember(&mut optimizer, scales());
    let z = spsa::directions(&world, Clock { seed: 5, step: 0, steps: 1 }, Law::Gaussian, 2);
    let d = optimizer.shortened(&world, &z);
    let batch = world.draw(Pool::Train, None).expect("a batch");
    let (_, curvatures) = measure(&mut world, batch, &d, Positive::new(1e-3)).expect("losses");
    run(&mut optimizer, &mut world, 5, 0..1);
    for (at, (&found, before)) in optimizer.scale["x"].iter().zip(hessian).enumerate() {
        let taken: f64 = z.iter().zip(&curvatures).map(|(z, c)| c * f64::from(values(&world, z)[at]).powi(2)).sum();
        let expected = (before * (0.75 + 0.25 * taken / 2.0)).powf(-0.5);
        // Of f32: a gain, a square, two products and two sums under a root, the root, a quotient.
        let bound = 16.0 * 2_f64.powi(-24) * expected;
        assert!((f64::from(found) - expected).abs() <= bound, "{at}: {found} against {expected}");
    }
}

/// One step from `1 / √H` for many seeds: the estimates `p d`, and what H becomes with α = ½.
fn samples(scale: &[f32]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let sample = |seed| -> (Vec<f64>, Vec<f64>) {
        let (mut world, mut optimizer) = (worlds::quadratic(), hizoo("lr = 0\nhessian_smooth = 0.5\nepsilon = 1"));
        remember(&mut optimizer, scale.to_vec());
        let z = spsa::directions(&world, Clock { seed, step: 0, steps: 1 }, Law::Gaussian, 1);
        let d = wide(&values(&world, &optimizer.shortened(&world, &z)[0]));
        let slope = run(&mut optimizer, &mut world, seed, 0..1)[0].projected_grads[0];
        let renewed = optimizer.scale["x"].iter().map(|&s| f64::from(s).powi(-2)).collect();
        (d.iter().map(|d| slope * d).collect(), renewed)
    };
    (0..4000).map(sample).unzip()
}

#[test]
fn the_estimate_is_the_gradient_over_the_curvature_on_average_and_as_noisy_as_theory_says() {
    let world = worlds::quadratic();
    let (g, scale) = (world.gradient(first(&world).0, 0), wide(&scales()));
    let once: Vec<f64> = g.iter().zip(&scale).map(|(g, s)| g * s).collect();
    let twice: Vec<f64> = once.iter().zip(&scale).map(|(g, s)| g * s).collect();
    let found = moments(&samples(&scales()).0, &[0.0; 24]);
    found.assert_mean(&twice);
    // Of d = s z: E (gᵀd)² ‖d‖² = ‖s g‖² Σ s² + 2 ‖s² g‖².
    found.assert_square(dot(&once, &once) * dot(&scale, &scale) + 2.0 * dot(&twice, &twice));
}

#[test]
fn the_average_of_what_is_taken_in_is_the_diagonal_and_half_the_trace_times_what_is_remembered() {
    let h = eigenvalues();
    let after = |scale: &[f32]| {
        let hessian: Vec<f64> = scale.iter().map(|&s| f64::from(s).powi(-2)).collect();
        let trace: f64 = h.iter().zip(&hessian).map(|(h, hessian)| h / hessian).sum();
        let taken = h.iter().zip(&hessian).map(|(h, hessian)| h + 0.5 * hessian * trace);
        let expected: Vec<f64> =
            hessian.iter().zip(taken).map(|(hessian, taken)| 0.5 * hessian + 0.5 * taken).collect();
        moments(&samples(scale).1, &[0.0; 24]).assert_mean(&expected);
        expected
    };
    after(&[1.0; 24]);
    after(&scales());
    let rest: Vec<f64> = h.iter().map(|h| h * (24.0 + 2.0) / 2.0).collect();
    let scale: Vec<f32> = rest.iter().map(|hessian| hessian.powf(-0.5) as f32).collect();
    for (after, before) in after(&scale).into_iter().zip(rest) {
        // Roots are rounded by 2⁻²⁴ of themselves, and counted squared, alone and in the trace.
        assert!((after / before - 1.0).abs() <= 8.0 * 2_f64.powi(-24), "H = {before} does not stay: {after}");
    }
}

#[test]
fn a_step_that_is_not_finite_leaves_no_trace() {
    fails_without_a_trace("hizoo", "lr = 1e-2\nhessian_smooth = 0.5", 1);
}

#[test]
fn a_curvature_that_overflows_changes_nothing() {
    // At the bottom of a bowl: no slope, and a curvature beyond f32.
    let bowl = |values: &[Vec<Dual>], _| vec![Dual::from(1e60) * values[0][0] * values[0][0]];
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    let mut world = World::new(&[("x", &[1], vec![0.0], vec![0.0])], &[], facts, Box::new(bowl));
    let mut optimizer = hizoo("");
    let report = run(&mut optimizer, &mut world, 1, 0..1).remove(0);
    assert!(report.nonfinite && report.projected_grads == [0.0]);
    assert!(world.values()[0] == [0.0] && optimizer.scale.is_empty());
}

proptest! {
    #[test]
    fn the_curvature_stays_positive_finite_and_above_its_floor(
        smooth in 0.0..1.0_f64, floor in prop::sample::select(vec![1e-18, 1e-4, 1.0, 1e18]),
        gains in prop::collection::vec(prop_oneof![Just(0.0_f32), Just(f32::MAX), 0.0..1e-6_f32, 0.0..1e6_f32], 1..20),
    ) {
        let world = linear(&[&[6, 5], &[4]]).world;
        let mut optimizer = hizoo(&format!("hessian_smooth = {smooth:?}\nhessian_floor = {floor:e}"));
        let longest = (1.0 / f64::sqrt(floor)) as f32;
        for (step, gain) in (0..).zip(gains) {
            let z = spsa::directions(&world, Clock { seed: 1, step, steps: 20 }, Law::Gaussian, 1);
            optimizer.renew(&world, &z, &[gain]);
            for scale in optimizer.scale.values().flat_map(|scale| scale.iter()) {
                prop_assert!((f32::MIN_POSITIVE..=longest).contains(scale), "{}", scale);
            }
        }
    }
}
