//! Closed forms: linear and quadratic losses, and the moments of the estimate.

use std::sync::Arc;

use super::*;
use crate::{
    direction::{Direction, DirectionSet, ParamId, materialize},
    optim::Space,
    testing::{
        assert_same_bits,
        record::Recording,
        worlds::{self, Dual, Facts, World},
    },
};

const ANY: Facts = Facts { smoothness: 1.0, convexity: 0.0 };

fn optimizer(options: &str) -> Box<dyn Optimizer> {
    ENTRY.build(&options.parse().expect("TOML")).expect("options of the test")
}

fn step(options: &str, oracle: &mut dyn Oracle, seed: u64) -> StepReport {
    optimizer(options).step(oracle, Clock { seed, step: 0, steps: 1 }).expect("a finite loss")
}

/// The first direction of a step, for the first parameter.
fn noise(world: &World, clock: Clock) -> Vec<f64> {
    values(world, spsa::directions(world, clock, Law::Gaussian, 1).pop())
}

/// Direction `probe` of the first step, for the first parameter.
fn z(world: &World, seed: u64, probe: u32) -> Vec<f64> {
    values(world, spsa::directions(world, Clock { seed, step: 0, steps: 1 }, Law::Gaussian, probe + 1).pop())
}

fn values(world: &World, set: Option<Arc<DirectionSet>>) -> Vec<f64> {
    let id = world.trainable()[0];
    let set = set.expect("at least one direction");
    let direction: &Direction = set.get(id).expect("trainable");
    let z = materialize::direction(direction, &world.params()[id], &world.values()[id.index()]);
    z.into_iter().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// `Σ aᵢ xᵢ` at x = 0.
fn linear(a: &'static [f64]) -> World {
    let loss = move |values: &[Vec<Dual>], _| values[0].iter().zip(a).map(|(x, a)| *x * Dual::from(*a)).collect();
    let zeros = vec![0.0; a.len()];
    World::new(&[("x", &[a.len()], zeros.clone(), zeros)], &[], ANY, Box::new(loss))
}

#[test]
fn the_slope_of_a_linear_loss_is_exact_for_every_epsilon() {
    const A: &[f64] = &[3.0, -1.0, 0.5, 2.0, -4.0, 1.0];
    for seed in 0..20 {
        let expected = dot(A, &z(&linear(A), seed, 0));
        for estimator in ["two-sided", "one-sided"] {
            // ε z is exact for a power of two, and so is each sum of six f32 in f64.
            for exponent in 0..12 {
                let options = format!("epsilon = {}\nestimator = \"{estimator}\"", 0.5_f64.powi(exponent));
                assert_eq!(step(&options, &mut linear(A), seed).projected_grads, [expected], "{options}");
            }
            // Else each εz is rounded to 2⁻²⁴ of itself; 2 covers the f64 arithmetic.
            let magnitude: f64 = A.iter().zip(z(&linear(A), seed, 0)).map(|(a, z)| (a * z).abs()).sum();
            for epsilon in [1e-1, 1e-3, 1e-5] {
                let options = format!("epsilon = {epsilon:e}\nestimator = \"{estimator}\"");
                let error = step(&options, &mut linear(A), seed).projected_grads[0] - expected;
                assert!(error.abs() <= 2.0 * 2_f64.powi(-24) * magnitude, "{options}: {error}");
            }
        }
    }
}

#[test]
fn two_sides_cancel_the_curvature_of_a_quadratic_loss_and_one_side_keeps_half_of_it() {
    // θ = 2 and ε = 1/8: the displaced values are below 8, hence rounded by at most 2⁻²²; times the slope of
    // either loss there, at most 4·7, 24 of them, over ε, and the f64 sums are exact beside it.
    let bound = 24.0 * 28.0 * 2_f64.powi(-22) / 0.125;
    for seed in 0..20 {
        let mut world = worlds::quadratic();
        let (z, g) = (z(&world, seed, 0), world.gradient(world.trainable()[0], 0));
        let curvature: f64 = z.iter().enumerate().map(|(i, z)| (1.0 + 3.0 * i as f64 / 23.0) * z * z).sum();
        let mut slope = |estimator| {
            let options = format!("lr = 0\nepsilon = 0.125\nestimator = \"{estimator}\"");
            step(&options, &mut world, seed).projected_grads[0]
        };
        assert!((slope("two-sided") - dot(&g, &z)).abs() <= bound);
        assert!((slope("one-sided") - dot(&g, &z) - 0.125 / 2.0 * curvature).abs() <= 2.0 * bound);
        // The f64 derivative: 24 terms of at most 4·3·|z|.
        assert!((slope("slope") - dot(&g, &z)).abs() <= 1e-12);
    }
}

#[test]
fn the_estimate_is_the_gradient_on_average_and_as_noisy_as_theory_says() {
    const SAMPLES: u64 = 4000;
    let mut world = worlds::quadratic();
    let g = world.gradient(world.trainable()[0], 0);
    let (mut mean, mut square) = (vec![0.0; g.len()], 0.0);
    for seed in 0..SAMPLES {
        let p = step("lr = 0\nestimator = \"slope\"", &mut world, seed).projected_grads[0];
        let z = z(&world, seed, 0);
        mean.iter_mut().zip(&z).for_each(|(mean, z)| *mean += p * z / SAMPLES as f64);
        square += p * p * dot(&z, &z) / SAMPLES as f64;
    }
    let norm = dot(&g, &g);
    for (mean, g) in mean.iter().zip(&g) {
        // Var pzᵢ = ‖g‖² + gᵢ²; five standard errors.
        let error = ((norm + g * g) / SAMPLES as f64).sqrt();
        assert!((mean - g).abs() < 5.0 * error, "{mean} against {g} ± {error}");
    }
    // E‖pz‖² = (n + 2)‖g‖², and its standard deviation is 1.65 of that for n = 24 (E r²(r + s)² with r ~ χ²₁ and
    // s ~ χ²₂₃ is 2520, the square of the mean 676): five standard errors of 4000 samples.
    let ratio = square / ((g.len() as f64 + 2.0) * norm);
    assert!((ratio - 1.0).abs() < 5.0 * 1.65 / (SAMPLES as f64).sqrt(), "{ratio}");
}

#[test]
fn the_update_goes_down_the_very_directions_that_were_probed() {
    let (start, mut world) = (worlds::quadratic(), worlds::quadratic());
    let report = step("lr = 1e-3\nqueries = 3", &mut world, 9);
    let mut expected = start.values()[0].clone();
    for probe in 0..3 {
        let coefficient = (-1e-3 * (report.projected_grads[probe as usize] / 3.0)) as f32;
        let z = z(&start, 9, probe);
        expected.iter_mut().zip(z).for_each(|(value, z)| *value = coefficient.mul_add(z as f32, *value));
    }
    assert_same_bits(&world.values()[0], &expected, "one fused multiply-add a direction");
    assert!(world.loss(0) < start.loss(0));
}

#[test]
fn weight_decay_is_decoupled_and_spares_vectors() {
    // A flat loss: only decay moves.
    let flat = |values: &[Vec<Dual>], _| vec![values[0][0] * Dual::from(0.0)];
    let tensors =
        [("matrix", &[2_usize, 2][..], vec![4.0; 4], vec![0.0; 4]), ("norm", &[2], vec![4.0; 2], vec![0.0; 2])];
    let mut world = World::new(&tensors, &[], ANY, Box::new(flat));
    step("lr = 0.5\nweight_decay = 0.25", &mut world, 1);
    assert_eq!(world.values(), [vec![3.5; 4], vec![4.0; 2]]);
}

#[test]
fn a_sign_step_has_the_scale_of_the_learning_rate_whatever_the_slope() {
    let mut world = Recording::new(worlds::quadratic());
    let report = step("lr = 0.25\nrule = \"sign\"\nqueries = 2", &mut world, 4);
    for (term, slope) in world.updates[0].terms.iter().zip(report.projected_grads) {
        assert_eq!(term.coefficients, crate::direction::Coefficients::One(-0.125 * slope.signum() as f32));
    }
    let mut flat = Recording::new(linear(&[0.0, 0.0]));
    assert_eq!(step("lr = 1\nrule = \"sign\"", &mut flat, 4).update_rms, 0.0);
}

#[test]
fn a_conservative_step_never_raises_the_loss_even_at_a_rate_that_would() {
    let mut world = worlds::quadratic();
    let mut optimizer = optimizer("lr = 0.05\nrule = \"conservative\"");
    let mut stayed = 0;
    for step in 0..50 {
        let before = world.loss(0);
        let report = optimizer.step(&mut world, Clock { seed: 1, step, steps: 50 }).expect("a finite loss");
        assert_eq!(report.loss, before, "the loss at θ itself");
        assert!(world.loss(0) <= before);
        stayed += u32::from(report.update_rms == 0.0);
    }
    // lr is ten times 1 / (L(n + 2)): some steps down overshoot.
    assert!((1..50).contains(&stayed), "{stayed}");
}

#[test]
fn a_candidate_whose_loss_is_not_finite_is_not_taken() {
    // Finite where slopes are measured, −∞ one step away on either side.
    let cliff = |values: &[Vec<Dual>], _| {
        let x = values[0][0];
        vec![if x.value.abs() < 0.5 { x } else { Dual::from(f64::NEG_INFINITY) }]
    };
    let mut world = World::new(&[("x", &[1], vec![0.0], vec![0.0])], &[], ANY, Box::new(cliff));
    let report = step("lr = 1e6\nrule = \"conservative\"", &mut world, 1);
    assert_eq!((report.nonfinite, report.update_rms, report.loss), (false, 0.0, 0.0));
    assert_eq!(world.values()[0], [0.0]);
}

#[test]
fn a_conservative_step_goes_up_the_estimate_where_that_is_better() {
    // Rising where the slope is measured; a hill lies below it and a pit above.
    let deceptive = |values: &[Vec<Dual>], _| {
        let x = values[0][0];
        vec![if x.value.abs() < 0.5 { x } else { Dual::from(-x.value.signum()) }]
    };
    let mut world = World::new(&[("x", &[1], vec![0.0], vec![0.0])], &[], ANY, Box::new(deceptive));
    let report = step("lr = 1e6\nrule = \"conservative\"", &mut world, 1);
    assert_eq!((report.loss, world.loss(0)), (0.0, -1.0));
}

#[test]
fn least_squares_finds_the_vector_that_has_all_the_slopes() {
    let world = worlds::quadratic();
    let clock = Clock { seed: 2, step: 0, steps: 1 };
    let sets = spsa::directions(&world, clock, Law::Gaussian, 5);
    let slopes = [1.0, -2.0, 0.5, 3.0, -1.5];
    let weights = spsa::aggregate(&world, &sets, &slopes, Aggregate::LeastSquares);
    let directions: Vec<_> = (0..5).map(|probe| z(&world, 2, probe)).collect();
    let estimate: Vec<f64> =
        (0..24).map(|i| directions.iter().zip(&weights).map(|(z, weight)| weight * z[i]).sum()).collect();
    for (z, slope) in directions.iter().zip(slopes) {
        // n/q = 24/5 is the scale of the estimate. Five Gaussian directions of 24 values have a condition below 1e3.
        assert!((dot(z, &estimate) * 5.0 / 24.0 - slope).abs() < 1e3 * 100.0 * f64::EPSILON);
    }
}

#[test]
fn least_squares_of_one_direction_is_the_mean_up_to_its_length() {
    let world = worlds::quadratic();
    let sets = spsa::directions(&world, Clock { seed: 2, step: 0, steps: 1 }, Law::Gaussian, 1);
    let z = z(&world, 2, 0);
    let weight = spsa::aggregate(&world, &sets, &[3.0], Aggregate::LeastSquares)[0];
    assert!((weight * dot(&z, &z) / 24.0 - 3.0).abs() < 100.0 * f64::EPSILON, "{weight}");
}

#[test]
fn a_slope_that_overflows_the_coefficients_changes_nothing() {
    const STEEP: &[f64] = &[1e300];
    let mut world = linear(STEEP);
    let report = step("lr = 1", &mut world, 1);
    assert!(report.nonfinite && report.projected_grads[0].is_finite());
    assert_eq!(world.values(), linear(STEEP).values());
}

#[test]
fn only_trainable_parameters_have_directions() {
    let world = worlds::mixed_ranks();
    let sets = spsa::directions(&world, Clock { seed: 1, step: 0, steps: 1 }, Law::Gaussian, 2);
    for set in &sets {
        assert_eq!(set.params().collect::<Vec<ParamId>>(), world.trainable());
    }
}

#[test]
fn momentum_is_the_sum_of_estimates_that_fade() {
    // With a linear loss every estimate has the slope of its own direction; T steps leave m = Σ β^(T−1−t) pₜzₜ.
    const A: &[f64] = &[3.0, -1.0, 0.5];
    let mut world = linear(A);
    let mut momentum = optimizer("lr = 1\nrule = \"momentum\"\nmomentum = 0.5\nepsilon = 1");
    let (mut mean, mut place) = (vec![0.0; 3], vec![0.0; 3]);
    for step in 0..6 {
        momentum.step(&mut world, Clock { seed: 4, step, steps: 6 }).expect("a finite loss");
        let z = noise(&world, Clock { seed: 4, step, steps: 6 });
        let slope = dot(A, &z);
        for ((mean, place), z) in mean.iter_mut().zip(&mut place).zip(z) {
            *mean = 0.5 * *mean + slope * z;
            *place -= *mean;
        }
    }
    for (found, expected) in world.values()[0].iter().zip(place) {
        // Of values below 64 each rounding is at most 64 · 2⁻²⁴. A step rounds its slope (Σ|a| = 4.5 times the places it is
        // measured at, and once more), its mean and its place; a slope counts |z| < 4 times, and twice as the mean fades.
        let error = 6.0 * (2.0 * 4.0 * (4.5 + 1.0) + 2.0 + 1.0) * 64.0 * 2_f64.powi(-24);
        assert!(expected.abs() < 64.0 && (f64::from(*found) - expected).abs() <= error, "{found} {expected}");
    }
}

#[test]
fn the_first_step_of_adam_has_the_size_of_the_learning_rate_in_every_weight() {
    for seed in 0..10 {
        let mut world = linear(&[3.0, -1.0, 0.5]);
        step("lr = 1e-2\nrule = \"adam\"\nepsilon = 1", &mut world, seed);
        for value in &world.values()[0] {
            // m̂ / (√v̂ + ε) is ±1 less 1e-8 over a slope, which is above 1e-3 here; five operations round it.
            assert!((value.abs() - 1e-2).abs() <= 1e-2 * (1e-5 + 8.0 * f32::EPSILON), "{value}");
        }
    }
}
