//! What candidates make, and what it is worth.

use std::f64::consts::PI;

use proptest::prelude::*;

use super::*;
use crate::{
    direction::materialize,
    optim::fixture::{build, dot, first, linear, run, updates, wide},
    testing::{
        assert_same_bits,
        worlds::{self, World},
    },
};

const SHAPE: &[usize] = &[6, 5];

/// Candidate `probe` of a step, for the first parameter.
fn z(world: &World, step: u64, probe: u32) -> Vec<f32> {
    let (id, param) = first(world);
    let set = spsa::direction(&[id], Clock { seed: 3, step, steps: 1 }, Law::Gaussian, probe);
    materialize::direction(set.get(id).expect("drawn for it"), param, &world.values()[id.index()])
}

proptest! {
    #[test]
    fn the_lower_half_has_positive_weights_and_the_upper_one_negative(
        losses in prop::collection::vec(prop_oneof![-9.0..9.0_f64, Just(0.0), Just(f64::INFINITY)], 1..20),
    ) {
        let order = ascending(&losses);
        let weights = Guide::Halves.weights(&order);
        let half = losses.len() / 2;
        let sorted = { let mut sorted = losses.clone(); sorted.sort_by(f64::total_cmp); sorted };
        prop_assert!(order.iter().map(|&at| losses[at]).eq(sorted), "an order by loss");
        for (place, &at) in order.iter().enumerate() {
            let expected = if place < half { 1.0 / half as f64 } else { -1.0 / (losses.len() - half) as f64 };
            prop_assert_eq!(weights[at], expected);
        }
        let best = Guide::Best.weights(&order);
        let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
        prop_assert!(losses[best.iter().position(|weight| *weight == 1.0).expect("one")] == lowest);
        prop_assert_eq!(best.iter().sum::<f64>(), 1.0);
    }
}

#[test]
fn two_candidates_in_halves_make_the_same_step_whichever_is_better() {
    let mut orders = [0, 0];
    for seed in 0..20 {
        let (start, mut world) = (worlds::quadratic(), worlds::quadratic());
        let report = run(&mut *build("mezo_gv", "lr = 1e-3\nepsilon = 0.125"), &mut world, seed, 0..1).remove(0);
        let z: Vec<_> = {
            let (id, _) = first(&start);
            let direction = |probe| spsa::direction(&[id], Clock { seed, step: 0, steps: 1 }, Law::Gaussian, probe);
            (0..2).map(direction).collect()
        };
        // v = z₁ − z₂, whatever the losses say.
        let mut oracle = worlds::quadratic();
        let batch = oracle.draw(Pool::Train, None).expect("a toy");
        let sides = [1.0, -1.0].map(|sign| sum(&z, &[1.0, -1.0], 0.125 * sign));
        let sides = spsa::totals(&mut oracle, batch, &sides).expect("a toy");
        let slope = (sides[0] - sides[1]) / 0.25;
        oracle.commit(&sum(&z, &[slope, -slope], -1e-3)).expect("a toy");
        assert_same_bits(&world.values()[0], &oracle.values()[0], seed);
        assert_eq!(report.projected_grads[0].abs(), slope.abs());
        orders[usize::from(report.projected_grads[0] == slope)] += 1;
    }
    assert!(orders.iter().all(|count| *count > 0), "both orders were met: {orders:?}");
}

#[test]
fn one_candidate_is_mezo_at_three_forwards() {
    for guide in ["gv", "greedy"] {
        for estimator in ["two-sided", "one-sided", "slope"] {
            let end = |name, more: &str| {
                let mut world = worlds::mixed_ranks();
                let options = format!("lr = 1e-3\nweight_decay = 0.5\nestimator = {estimator:?}\n{more}");
                let reports = run(&mut *build(name, &options), &mut world, 3, 0..5);
                (world.values().concat(), reports[0].evaluations)
            };
            let (found, evaluations) = end("mezo_gv", &format!("candidates = 1\nguide = {guide:?}"));
            assert_same_bits(&found, &end("mezo", "").0, format!("{guide} {estimator}"));
            assert_eq!(evaluations, if estimator == "two-sided" { 3 } else { 2 });
        }
    }
}

#[test]
fn a_step_evaluates_each_candidate_and_both_sides_or_theta() {
    for candidates in [1, 2, 5] {
        for (estimator, more) in [("two-sided", 2), ("one-sided", 1), ("slope", 1)] {
            for keep_best in [false, true] {
                let options = format!("candidates = {candidates}\nestimator = {estimator:?}\nkeep_best = {keep_best}");
                let reports = run(&mut *build("mezo_gv", &options), &mut worlds::quadratic(), 3, 0..3);
                let found: Vec<_> = reports.iter().map(|report| report.evaluations).collect();
                // Beside the one that is kept there is always a new one.
                let later = if keep_best { candidates.max(2) } else { candidates };
                assert_eq!(found, [candidates + more, later + more, later + more], "{options}");
            }
        }
    }
}

#[test]
fn along_a_linear_loss_all_estimators_measure_the_slope_of_the_sum() {
    for guide in ["gv", "greedy"] {
        for candidates in [2, 3, 6] {
            let [two_sided, one_sided, slope] = ["two-sided", "one-sided", "slope"].map(|estimator| {
                let options = format!(
                    "lr = 1\nepsilon = 1\nguide = {guide:?}\ncandidates = {candidates}\nestimator = {estimator:?}"
                );
                let mut world = linear(&[SHAPE]).world;
                let report = run(&mut *build("mezo_gv", &options), &mut world, 3, 0..1).remove(0);
                (report.projected_grads[0], wide(&world.values()[0]))
            });
            // From zero a probe at ε = 1 is the candidate itself, whose slope is exact to the f64 sum. The sides are sums
            // of at most six candidates, below 8, each rounded by 2⁻²² at most, in 30 values that weigh 1 or less.
            let bound = 30.0 * 6.0 * 2_f64.powi(-22);
            assert!((two_sided.0 - slope.0).abs() <= bound && (one_sided.0 - slope.0).abs() <= 1e-12);
            for (a, b) in two_sided.1.iter().zip(&slope.1) {
                // The update is slope times v, of which a value is below 8, rounded as often.
                assert!((a - b).abs() <= 8.0 * bound + 6.0 * b.abs().max(64.0) * 2_f64.powi(-24), "{a} {b}");
            }
        }
    }
}

#[test]
fn the_direction_that_is_made_of_keys_is_the_one_that_would_be_stored() {
    for candidates in [2_u32, 4, 5] {
        let mut linear = linear(&[SHAPE]);
        let drawn: Vec<_> = (0..candidates).map(|probe| z(&linear.world, 0, probe)).collect();
        let slopes: Vec<f64> = drawn.iter().map(|z| dot(&wide(z), &linear.gradient[0])).collect();
        let weights = Guide::Halves.weights(&ascending(&slopes));
        let stored: Vec<f64> =
            (0..30).map(|at| drawn.iter().zip(&weights).map(|(z, weight)| weight * f64::from(z[at])).sum()).collect();
        let options = format!("lr = 1\nestimator = \"slope\"\ncandidates = {candidates}");
        let found = updates("mezo_gv", &options, &mut linear, 1).remove(0);
        let slope = dot(&stored, &linear.gradient[0]);
        for (at, (found, v)) in found.iter().zip(&stored).enumerate() {
            // Each term rounds its coefficient and the sum so far, by 2⁻²⁴ of what all terms are together.
            let terms: f64 = drawn.iter().zip(&weights).map(|(z, weight)| (weight * f64::from(z[at])).abs()).sum();
            let bound = 2.0 * f64::from(candidates) * slope.abs() * terms * 2_f64.powi(-24);
            assert!((found - slope * v).abs() <= bound, "{found} {}", slope * v);
        }
    }
}

#[test]
fn the_slope_is_as_much_larger_than_that_of_mezo_as_theory_says() {
    const SAMPLES: u64 = 8000;
    // E (vᵀg)² / ‖g‖² from the second moments of the order statistics of normal values.
    for (options, expected) in [
        ("guide = \"gv\"\ncandidates = 2", 2.0),
        ("guide = \"gv\"\ncandidates = 3", 1.5 + 9.0 * 3_f64.sqrt() / (8.0 * PI)),
        ("guide = \"gv\"\ncandidates = 4", 1.0 + 2.0 * 3_f64.sqrt() / PI),
        ("guide = \"greedy\"\ncandidates = 2", 1.0),
        ("guide = \"greedy\"\ncandidates = 3", 1.0 + 3_f64.sqrt() / (2.0 * PI)),
    ] {
        let mut optimizer = build("mezo_gv", &format!("lr = 0\nestimator = \"slope\"\n{options}"));
        let mut linear = linear(&[&[9]]);
        let squares: Vec<f64> = run(&mut *optimizer, &mut linear.world, 3, 0..SAMPLES)
            .iter()
            .map(|report| report.projected_grads[0].powi(2) / dot(&linear.gradient[0], &linear.gradient[0]))
            .collect();
        let count = SAMPLES as f64;
        let mean = squares.iter().sum::<f64>() / count;
        let variance = squares.iter().map(|square| (square - mean).powi(2)).sum::<f64>() / (count - 1.0);
        // Five standard errors.
        let error = 5.0 * (variance / count).sqrt();
        assert!((mean - expected).abs() < error, "{options}: {mean} ± {error} is not {expected}");
    }
}

#[test]
fn the_candidate_that_is_kept_is_the_best_of_all_so_far_on_a_loss_whose_slopes_stay() {
    let mut linear = linear(&[SHAPE]);
    let options = "lr = 0.0009765625\nestimator = \"slope\"\nkeep_best = true";
    let mut optimizer = build("mezo_gv", options);
    let slope_of =
        |world: &World, (step, probe): (u64, u32), gradient: &[f64]| dot(&wide(&z(world, step, probe)), gradient);
    let mut best = None;
    let mut changes = 0;
    for step in 0..12 {
        let new = if best.is_some() { 1 } else { 2 };
        let drawn: Vec<(u64, u32)> = (0..new).map(|probe| (step, probe)).chain(best).collect();
        let slopes: Vec<f64> = drawn.iter().map(|&name| slope_of(&linear.world, name, &linear.gradient[0])).collect();
        let report = run(&mut *optimizer, &mut linear.world, 3, step..step + 1).remove(0);
        // 30 products and their sums in f64, in another order.
        let expected = -(slopes[0] - slopes[1]).abs();
        assert!((report.projected_grads[0] - expected).abs() < 1e-12, "step {step}");
        let lowest = if slopes[1] < slopes[0] { drawn[1] } else { drawn[0] };
        changes += u32::from(best != Some(lowest));
        best = Some(lowest);
    }
    assert!((2..12).contains(&changes), "{changes}");
}

#[test]
fn a_step_that_fails_keeps_the_candidate_of_the_one_before() {
    let values = |fails: bool| {
        let world = linear(&[SHAPE]).world;
        let mut world = if fails { world.failing([2], f64::NAN) } else { world };
        let mut optimizer = build("mezo_gv", "lr = 0.01\nkeep_best = true");
        run(&mut *optimizer, &mut world, 3, 0..2);
        if fails {
            let report = run(&mut *optimizer, &mut world, 3, 2..3).remove(0);
            assert!(report.nonfinite && report.evaluations == 2, "the sides of no direction are not asked for");
        }
        run(&mut *optimizer, &mut world, 3, 3..6);
        world.values().to_vec()
    };
    assert_eq!(values(true), values(false));
}
