//! What takes part and what does not, in probes and updates alike.

use super::*;
use crate::{
    direction::{Direction, materialize},
    optim::fixture::{assert_applies_what_it_measured, build, dot, estimate, first, linear, moments, run},
    testing::{
        assert_same_bits, canonical_bits,
        worlds::{self, Dual, Facts, World, uniform},
    },
};

const SHAPE: [usize; 2] = [4, 6];
const VALUES: usize = 24;

/// `h` of the values that [`steep`] starts from, and which of them it lets through: a quarter.
fn smallest() -> (f32, Vec<bool>) {
    let start = uniform(VALUES, 1);
    let mut sorted: Vec<f32> = start.iter().map(|x| x.abs()).collect();
    sorted.sort_by(f32::total_cmp);
    let threshold = sorted[VALUES / 4 - 1];
    (threshold, start.iter().map(|x| x.abs() <= threshold).collect())
}

/// A linear loss whose slope is 1 along the smallest quarter of the values and a million along all others.
fn steep() -> World {
    let mask = smallest().1;
    let loss = move |values: &[Vec<Dual>], _| {
        let slope = |smallest: &bool| Dual::from(if *smallest { 1.0 } else { 1e6 });
        vec![values[0].iter().zip(&mask).fold(Dual::from(0.0), |sum, (x, smallest)| sum + *x * slope(smallest))]
    };
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    World::new(&[("a", &SHAPE, uniform(VALUES, 1), vec![0.0; VALUES])], &[], facts, Box::new(loss))
}

/// Direction `probe` of step 0, before any mask.
fn z(world: &World, probe: u32) -> Vec<f32> {
    let (id, param) = first(world);
    let set = spsa::direction(&[id], Clock { seed: 3, step: 0, steps: 1 }, Law::Gaussian, probe);
    let direction: &Direction = set.get(id).expect("drawn for it");
    materialize::direction(direction, param, &[0.0; VALUES])
}

#[test]
fn probes_and_updates_move_the_smallest_values_and_no_bit_of_the_others() {
    let (start, (_, mask)) = (steep(), smallest());
    for estimator in ["two-sided", "one-sided", "slope"] {
        let mut world = steep();
        let options = format!("lr = 0.01\nepsilon = 0.5\nsparsity = 0.75\nqueries = 2\nestimator = {estimator:?}");
        let report = run(&mut *build("sparse_mezo", &options), &mut world, 3, 0..1).remove(0);
        let mut expected = start.values()[0].clone();
        for (probe, &slope) in (0..).zip(&report.projected_grads) {
            let z = z(&start, probe);
            let of_smallest: f64 = z.iter().zip(&mask).filter(|(_, m)| **m).map(|(z, _)| f64::from(*z)).sum();
            // Six values below 8 are rounded by 2⁻²² at most, on either side of 2ε = 1; sums of 24 f64 below 2·10⁷
            // by 24 · 2⁻²⁹. Any other value that moved by its z would weigh a million times as much.
            let bound = 12.0 * 2_f64.powi(-22) + 48.0 * 2_f64.powi(-29);
            assert!((slope - of_smallest).abs() <= 2.0 * bound, "{estimator}: {slope} {of_smallest}");
            let coefficient = (-0.01 * (slope / 2.0)) as f32;
            for ((value, z), _) in expected.iter_mut().zip(z).zip(&mask).filter(|(_, m)| **m) {
                *value = coefficient.mul_add(z, *value);
            }
        }
        assert_same_bits(&world.values()[0], &expected, estimator);
    }
}

#[test]
fn a_value_that_outgrows_the_threshold_stays_from_then_on() {
    let (threshold, mask) = smallest();
    let mut world = steep();
    let mut optimizer = build("sparse_mezo", "lr = 0.005\nsparsity = 0.75\nestimator = \"slope\"\nweight_decay = 0.5");
    let mut moving = mask.iter().filter(|m| **m).count();
    let at_first = moving;
    for step in 0..40 {
        let before = world.values()[0].clone();
        run(&mut *optimizer, &mut world, 3, step..step + 1);
        for (before, after) in before.iter().zip(&world.values()[0]) {
            let stays = before.abs() > threshold;
            assert_eq!(canonical_bits(*before) == canonical_bits(*after), stays, "step {step}: {before} {after}");
        }
        let now = world.values()[0].iter().filter(|x| x.abs() <= threshold).count();
        assert!(now <= moving, "step {step}");
        moving = now;
    }
    assert!((1..at_first).contains(&moving), "{moving} of {at_first} are left");
}

#[test]
fn a_tensor_that_begins_with_zeros_moves_as_a_whole_in_every_step() {
    let mut world = linear(&[&SHAPE]).world;
    let mut optimizer = build("sparse_mezo", "lr = 0.01");
    for step in 0..3 {
        let before = world.values()[0].clone();
        run(&mut *optimizer, &mut world, 3, step..step + 1);
        assert!(before.iter().zip(&world.values()[0]).all(|(before, after)| before != after), "step {step}");
    }
}

#[test]
fn without_sparsity_it_is_mezo() {
    for world in [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression, worlds::mixed_ranks] {
        for options in
            ["weight_decay = 0.5", "queries = 3", "estimator = \"one-sided\"", "estimator = \"slope\"\nqueries = 2"]
        {
            let end = |name, more| {
                let mut world = world();
                run(&mut *build(name, &format!("lr = 1e-4\n{options}\n{more}")), &mut world, 3, 0..6);
                world.values().concat()
            };
            assert_same_bits(&end("sparse_mezo", "sparsity = 0"), &end("mezo", ""), options);
            assert_same_bits(&end("sparse_mezo", "sparsity = 0\nmask = \"random\""), &end("mezo", ""), options);
        }
    }
}

/// Which values of the first parameter a step changed.
fn moved(optimizer: &mut dyn Optimizer, world: &mut World, step: u64) -> Vec<bool> {
    let before = world.values()[0].clone();
    run(optimizer, world, 3, step..step + 1);
    before.iter().zip(&world.values()[0]).map(|(before, after)| before != after).collect()
}

#[test]
fn a_random_mask_lives_for_its_interval() {
    let (mut world, mut optimizer) =
        (steep(), build("sparse_mezo", "lr = 1e-9\nmask = \"random\"\nsparsity = 0.5\nrefresh_interval = 3"));
    let masks: Vec<_> = (0..9).map(|step| moved(&mut *optimizer, &mut world, step)).collect();
    for (step, mask) in masks.iter().enumerate() {
        assert_eq!(mask, &masks[step / 3 * 3], "step {step}");
        // 24 fair coins: all of them alike is 2⁻²³.
        assert!(mask.contains(&true) && mask.contains(&false), "step {step}");
    }
    assert!(masks[0] != masks[3] && masks[3] != masks[6]);
}

#[test]
fn what_is_applied_was_measured_on_steps_that_refresh_and_on_others() {
    for options in ["", "\nestimator = \"one-sided\"", "\nestimator = \"slope\""] {
        let options =
            format!("lr = 0.0625\nepsilon = 1\nmask = \"random\"\nsparsity = 0.5\nrefresh_interval = 2{options}");
        assert_applies_what_it_measured("sparse_mezo", &options, 6, 0.0625);
    }
}

#[test]
fn over_random_masks_the_estimate_is_a_share_of_the_gradient_with_the_variance_of_theory() {
    // With the share k of values: E mᵢzᵢ Σ mⱼzⱼgⱼ = k gᵢ, and E ‖ĝ‖² = Σᵢ k (3gᵢ² + k Σⱼ≠ᵢ gⱼ²) = k (3 + k (n − 1)) ‖g‖².
    let (shape, n): (&[usize], _) = (&[3, 4], 12.0);
    for share in [0.25, 0.75] {
        let options = format!("lr = 1\nestimator = \"slope\"\nmask = \"random\"\nsparsity = {}", 1.0 - share);
        let samples: Vec<_> = (0..6000).map(|seed| estimate("sparse_mezo", &options, &[shape], seed)).collect();
        let g = &linear(&[shape]).gradient[0];
        let expected: Vec<f64> = g.iter().map(|g| share * g).collect();
        let found = moments(&samples, &expected);
        found.assert_mean(&expected);
        found.assert_square(share * (3.0 + share * (n - 1.0) - share) * dot(g, g));
    }
}
