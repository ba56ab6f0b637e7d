//! The noise of an estimate, by Monte Carlo; that what is applied is what was measured.

use super::*;
use crate::{
    direction::{Coefficients, Displacement, Term, materialize},
    noise::Law,
    optim::{
        fixture::{Moments, build, dot, moments, run},
        parts::spsa,
    },
    testing::{
        assert_same_bits,
        record::Recording,
        worlds::{Dual, Facts, World, uniform},
    },
};

/// The loss `Σ ⟨aᵢ, θ⟩` over a tensor of this shape from zero, of which each `aᵢ` is an example's.
fn world(shape: &[usize], a: &[Vec<f64>]) -> World {
    let slopes = a.to_vec();
    let loss = move |values: &[Vec<Dual>], _| {
        let of = |a: &Vec<f64>| values[0].iter().zip(a).fold(Dual::from(0.0), |sum, (x, a)| sum + *x * Dual::from(*a));
        slopes.iter().map(of).collect()
    };
    let zeros = vec![0.0; shape.iter().product()];
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    World::new(&[("w", shape, zeros.clone(), zeros)], &[], facts, Box::new(loss))
}

/// The mean over `B` of gradients `g + d`, where `d` are signs times `deviation`: `‖d‖² = n·deviation²` is σ².
fn batch(g: &[f64], deviation: f64, examples: usize, seed: u64) -> Vec<Vec<f64>> {
    let signs = |example: usize| NoiseKey::new(seed, 0, Role::Init, 0).extended(example as u64).tensor(0);
    let of = |example| {
        let signs = signs(example);
        let value =
            |(at, g): (usize, &f64)| (g + deviation * f64::from(signs.at(Law::Rademacher, 0, at))) / examples as f64;
        g.iter().enumerate().map(value).collect()
    };
    (0..examples).map(of).collect()
}

fn sum(a: &[Vec<f64>]) -> Vec<f64> {
    (0..a[0].len()).map(|at| a.iter().map(|a| a[at]).sum()).collect()
}

fn gradient(n: usize) -> Vec<f64> {
    uniform(n, 100).into_iter().map(f64::from).collect()
}

/// The first step's estimate less the gradient of its batch, over `samples` seeds and batches.
fn errors(options: &str, shape: &[usize], (deviation, examples): (f64, usize), samples: u64) -> Moments {
    let g = gradient(shape.iter().product());
    let name = options.split_once('\n').expect("a name first").0;
    let error = |seed| {
        let a = batch(&g, deviation, examples, seed);
        let mut world = world(shape, &a);
        let report = run(&mut *build(name, &options[name.len()..]), &mut world, seed, 0..1).remove(0);
        let estimate = world.values()[0].iter().map(|x| f64::from(*x) / -report.lr);
        estimate.zip(sum(&a)).map(|(estimate, g)| estimate - g).collect()
    };
    moments(&(0..samples).map(error).collect::<Vec<_>>(), &vec![0.0; g.len()])
}

#[test]
fn the_noise_of_examples_own_directions_is_divided_by_their_number_not_that_of_their_gradients_alone() {
    const EXAMPLES: f64 = 5.0;
    let n = 24.0;
    let g = gradient(24);
    let norm = dot(&g, &g);
    for deviation in [0.0, 0.5, 2.0] {
        let variance = n * deviation * deviation;
        // Of the batch's own gradient, and of its examples' over B².
        let (of_sum, of_each) = (norm + variance / EXAMPLES, (norm + variance) / EXAMPLES);
        for (directions, expected) in
            [("shared", (n + 1.0) * of_sum), ("per-example", (n - 1.0) * of_each + 2.0 * of_sum)]
        {
            let options = format!("mezo\nlr = 1\nestimator = \"slope\"\ndirections = {directions:?}");
            let found = errors(&options, &[4, 6], (deviation, EXAMPLES as usize), 1500);
            found.assert_mean(&[0.0; 24]);
            // Standard errors are of the samples; the rounding of a slope and of five terms is below 1e-5 of them.
            found.assert_square(expected);
        }
    }
}

#[test]
fn the_noise_of_random_signs_is_that_of_independent_directions() {
    let g = gradient(24);
    let norm = dot(&g, &g);
    // FZOO's directions: its estimate is divided by a spread, so they are measured as they are.
    let error = |seed| {
        let a = batch(&g, 0.5, 4, seed);
        let mut oracle = world(&[24], &a);
        let clock = Clock { seed, step: 0, steps: 1 };
        let z = flipped(spsa::directions(&oracle, clock, Law::Rademacher, 1), clock, Owners::Each(4));
        let how = (spsa::Estimator::Slope, crate::optim::Positive::new(1.0));
        let slopes = spsa::estimate_of(&mut oracle, BatchId(0), &z, Owners::Each(4), how).expect("slopes");
        let (id, param) = oracle.space().params().iter().next().map(|(id, param)| (id, param.clone())).expect("one");
        let mut estimate: Vec<f64> = sum(&a).iter().map(|g| -g).collect();
        for (z, slope) in z.iter().zip(&slopes.projected_grads) {
            let z = materialize::direction(z.get(id).expect("it moves"), &param, &[0.0; 24]);
            estimate.iter_mut().zip(z).for_each(|(sum, z)| *sum += slope / 4.0 * f64::from(z));
        }
        estimate
    };
    let found = moments(&(0..1500).map(error).collect::<Vec<_>>(), &[0.0; 24]);
    found.assert_mean(&[0.0; 24]);
    found.assert_square(23.0 * (norm + 24.0 * 0.25) / 4.0);
}

#[test]
fn own_left_factors_of_lozo_divide_the_noise_of_all_but_their_common_right_one() {
    const EXAMPLES: f64 = 5.0;
    let (m, n, r) = (6.0, 5.0, 2.0);
    let g = gradient(30);
    let norm = dot(&g, &g);
    // Of one direction, c U Vᵀ / r with c = ⟨G V, U⟩: given V it is ‖G V‖² m tr VᵀV + 2 tr G V VᵀV VᵀGᵀ over r², and over
    // Gaussian V with n rows E ‖G V‖² ‖V‖² = ‖G‖² r (n r + 2), E V VᵀV Vᵀ = r (r + n + 1) I. Given V the estimate is
    // G V Vᵀ / r on average, which V scatters by (n + 1) / r of ‖G‖².
    let square = (m * (n * r + 2.0) + 2.0 * (r + n + 1.0)) / r * norm;
    let given_v = (r + n + 1.0) / r * norm;
    for (directions, divisor) in [("shared", 1.0), ("per-example", EXAMPLES)] {
        let options = format!("lozo\nlr = 1\nestimator = \"slope\"\ndirections = {directions:?}");
        let found = errors(&options, &[6, 5], (0.0, EXAMPLES as usize), 2000);
        found.assert_mean(&[0.0; 30]);
        found.assert_square((n + 1.0) / r * norm + (square - given_v) / divisor);
    }
}

#[test]
fn an_update_goes_down_the_very_directions_that_each_example_was_probed_along() {
    let g = gradient(24);
    let a = batch(&g, 0.5, 3, 1);
    for estimator in ["two-sided", "one-sided", "slope"] {
        let (start, mut moved) = (world(&[4, 6], &a), world(&[4, 6], &a));
        let options = format!("lr = 0.5\nqueries = 2\nestimator = {estimator:?}\ndirections = \"per-example\"");
        let report = run(&mut *build("mezo", &options), &mut moved, 9, 0..1).remove(0);
        let (id, param) = start.space().params().iter().next().expect("a parameter");
        let clock = Clock { seed: 9, step: 0, steps: 1 };
        let z = flipped(spsa::directions(&start, clock, Law::Gaussian, 2), clock, Owners::Each(3));
        assert_eq!(report.projected_grads.len(), 6);
        let term = |(set, slope): (&Arc<DirectionSet>, &f64)| Term {
            set: Arc::clone(set),
            coefficients: Coefficients::One((-0.5 * (slope / 6.0)) as f32),
        };
        let update = Displacement { terms: z.iter().zip(&report.projected_grads).map(term).collect() };
        let expected = materialize::displaced(&start.values()[0], id, param, &update);
        assert_same_bits(&moved.values()[0], &expected, estimator);
        for ((slope, set), example) in report.projected_grads.iter().zip(&z).zip((0..3).cycle()) {
            let z = materialize::direction(set.get(id).expect("it moves"), param, &start.values()[0]);
            let z: Vec<f64> = z.into_iter().map(f64::from).collect();
            let (own, scale) = (dot(&a[example], &z), a[example].iter().fold(0.0, |sum, a| sum + a.abs()));
            // Both places, of values below 6.56 ε, are rounded to f32; the slope is three times that of a contribution.
            let bound = 3.0 * scale * 6.56 * 2_f64.powi(-23);
            assert!((slope - 3.0 * own).abs() <= bound, "{estimator}: {slope} of example {example}, not {}", 3.0 * own);
        }
    }
}

#[test]
fn slopes_of_many_losses_have_no_least_squares() {
    let table = "directions = \"per-example\"\naggregate = \"least-squares\"".parse().expect("TOML");
    let error = crate::optim::find("mezo").and_then(|entry| entry.build(&table).map(drop)).expect_err("refused");
    assert!(
        error.to_string().starts_with("option aggregate of mezo is \"least-squares\", expected \"mean\""),
        "{error}"
    );
}

#[test]
fn merged_directions_have_the_sum_of_all() {
    for (name, terms) in [("lozo", 1), ("subspace_mezo", 1), ("subzero", 1), ("mezo", 15)] {
        let mut recording = Recording::new(world(&[6, 5], &batch(&gradient(30), 0.5, 5, 1)));
        run(&mut *build(name, "queries = 3\ndirections = \"per-example\""), &mut recording, 3, 0..1);
        assert_eq!(recording.updates[0].terms.len(), terms, "{name}");
    }
    let noise = |seed, len| -> Arc<[f32]> { uniform(len, seed).into() };
    let (right, left) = (noise(1, 10), noise(2, 12));
    let low_rank = |left: &Arc<[f32]>, right: &Arc<[f32]>| Direction::LowRank {
        left: Arc::clone(left),
        right: Arc::clone(right),
        rank: 2,
    };
    let oracle = world(&[6, 5], &[vec![0.0; 30]]);
    let (id, param) = oracle.space().params().iter().next().expect("a parameter");
    let lefts = [low_rank(&noise(3, 12), &right), low_rank(&noise(4, 12), &right)];
    let rights = [low_rank(&left, &noise(5, 10)), low_rank(&left, &noise(6, 10))];
    let neither = [low_rank(&left, &right), low_rank(&noise(3, 12), &noise(5, 10))];
    for (directions, terms) in [(lefts, 1), (rights, 1), (neither, 2)] {
        let z = directions.map(|z| Arc::new(DirectionSet::new([(id, z)])));
        let (sets, weights) = merged(&oracle, &z, &[0.5, -2.0], Owners::Each(2));
        let values = |sets: &[Arc<DirectionSet>], weights: &[f64]| {
            let mut sum = vec![0.0; 30];
            for (set, weight) in sets.iter().zip(weights) {
                let Some(z) = set.get(id) else { continue };
                let z = materialize::direction(z, param, &[0.0; 30]);
                sum.iter_mut().zip(z).for_each(|(sum, z)| *sum += weight * f64::from(z));
            }
            sum
        };
        assert_eq!(sets.iter().filter(|set| set.get(id).is_some()).count(), terms);
        for (found, expected) in values(&sets, &weights).iter().zip(values(&z, &[0.5, -2.0])) {
            // Two factors of magnitude 1 at most, twice; a sum of 2.5 of them and a product of two are each rounded by less
            // than four times 2⁻²⁴ of 5.
            assert!((found - expected).abs() <= 8.0 * 5.0 * 2_f64.powi(-24), "{found} {expected}");
        }
    }
}
