//! The distribution of directions, the moments of estimates, and what moves an axis.

use proptest::prelude::*;

use super::*;
use crate::{
    direction::materialize,
    optim::{
        OptionReader,
        fixture::{
            Linear, assert_applies_what_it_measured, build, dot, fails_without_a_trace, first, flat, linear, moments,
            run, wide,
        },
    },
    testing::{
        assert_same_bits, on_threads,
        worlds::{Dual, Facts, World, uniform},
    },
};

fn loren(options: &str) -> Loren {
    let table: toml::Table = options.parse().expect("TOML");
    let reader = OptionReader::new("loren", &table, ENTRY.options()).expect("options of the test");
    let (options, schedule) = (Options::read(&reader).expect("options"), Schedule::read(&reader).expect("a schedule"));
    Loren { options, schedule, axes: BTreeMap::new(), momentum: Mean::default() }
}

/// Gives each parameter of a world this axis, one value for each column and then from the first again.
fn remember(loren: &mut Loren, world: &World, axis: &[f32]) {
    for (_, param) in Space::params(world).iter() {
        let row = axis.iter().cycle().take(param.cols()).copied().collect();
        loren.axes.insert(param.name().to_owned(), row);
    }
}

/// `A` of a parameter, in f64.
fn repeated(a: &[f32], rows: usize) -> Vec<f64> {
    wide(a).repeat(rows)
}

/// Standard normal values.
fn normals(count: usize, seed: u64) -> Vec<f64> {
    let noise = NoiseKey::new(seed, 0, Role::Dense, 0).tensor(1);
    (0..count).map(|at| f64::from(noise.at(Law::Gaussian, 0, at))).collect()
}

/// The sum of rows.
fn sum_of(u: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).map(|col| u.iter().skip(col).step_by(cols).sum()).collect()
}

/// What an axis makes of `u`.
fn direction(axis: &Axis, u: &[f64]) -> Vec<f64> {
    let cols = axis.row().len();
    let Direction::LowRank { left, right, rank: 1 } = axis.direction() else { panic!("an axis is one column") };
    assert!(left.iter().all(|one| *one == 1.0) && left.len() * cols == u.len());
    let coefficient = axis.coefficient(&sum_of(u, cols));
    u.iter().zip(wide(&right).iter().cycle()).map(|(u, unit)| u + coefficient * unit).collect()
}

proptest! {
    #[test]
    fn the_root_times_its_transpose_is_the_covariance(
        rows in 1_usize..5, cols in 1_usize..5, seed in 0_u64..1000, damping in 1e-3..1e3_f64,
    ) {
        let a = uniform(cols, seed);
        let (axis, long) = (Axis::new(a.clone().into(), rows, damping), repeated(&a, rows));
        let count = rows * cols;
        let unit = |at: usize| (0..count).map(|i| f64::from(i == at)).collect::<Vec<_>>();
        // Row i of the root, which is symmetric.
        let root: Vec<Vec<f64>> = (0..count).map(|at| direction(&axis, &unit(at))).collect();
        let square = dot(&long, &long);
        for (i, left) in root.iter().enumerate() {
            for (j, right) in root.iter().enumerate() {
                // Sherman-Morrison: (I + A Aᵀ / ρ)⁻¹ = I − A Aᵀ / (ρ + ‖A‖²).
                let expected = f64::from(i == j) - long[i] * long[j] / (damping + square);
                // Â is rounded by 2⁻²⁴ of itself and meets itself four times, with coefficients of at most 2 · 2.
                let error = (dot(left, right) - expected).abs();
                prop_assert!(error <= 32.0 * 2_f64.powi(-24), "{} {}: {}", i, j, error);
            }
        }
    }

    #[test]
    fn the_score_is_the_derivative_of_the_log_density(
        rows in 1_usize..5, cols in 1_usize..5, seed in 0_u64..1000, damping in 1e-2..1e2_f64,
    ) {
        let a = uniform(cols, seed);
        let (axis, long) = (Axis::new(a.clone().into(), rows, damping), repeated(&a, rows));
        let u = normals(rows * cols, seed);
        let (x, square) = (direction(&axis, &u), dot(&long, &long));
        // log p = ½ log(1 + ‖A‖²/ρ) − ½ (‖x‖² + ⟨A, x⟩²/ρ): by A it is A / (ρ + ‖A‖²) − ⟨A, x⟩ x / ρ.
        let along = dot(&long, &x);
        let derivative: Vec<f64> =
            long.iter().zip(&x).map(|(a, x)| damping.sqrt() * (a / (damping + square) - along * x / damping)).collect();
        // What rounds Â by 2⁻²⁴ of itself changes ⟨A, x⟩ by 2⁻²² of ‖A‖ ‖u‖ and x by as much of ‖u‖, and counts with
        // the other of the two over √ρ; `u` and `x` are at most ‖u‖ and twice that long.
        let length = dot(&u, &u).sqrt();
        let bound = 2_f64.powi(-20) * rows as f64 * (1.0 + (square / damping).sqrt()) * (1.0 + length * length);
        for (found, expected) in axis.score(&sum_of(&u, cols)).zip(sum_of(&derivative, cols)) {
            prop_assert!((found - expected).abs() <= bound, "{} against {} ± {}", found, expected, bound);
        }
    }
}

#[test]
fn the_mean_of_the_score_is_zero() {
    let axis = Axis::new(uniform(3, 1).into(), 4, 0.5);
    let score = |seed| axis.score(&sum_of(&normals(12, seed), 3)).collect::<Vec<f64>>();
    moments(&(0..4000).map(score).collect::<Vec<_>>(), &[0.0; 3]).assert_mean(&[0.0; 3]);
}

#[test]
fn the_estimate_is_the_preconditioned_gradient_on_average_and_as_noisy_as_theory_says() {
    const AXIS: [f32; 4] = [1.0, -0.5, 0.25, 1.5];
    const SHAPES: [&[usize]; 2] = [&[3, 4], &[5]];
    let sample = |seed| {
        let Linear { mut world, .. } = linear(&SHAPES);
        let mut optimizer = loren("lr = 1\nepsilon = 1\nmomentum = 0\nqueries = 3\ndamping = 2\nlr_cov = 0");
        remember(&mut optimizer, &world, &AXIS);
        run(&mut optimizer, &mut world, seed, 0..1);
        world.values().iter().flatten().map(|x| -f64::from(*x)).collect::<Vec<_>>()
    };
    let Linear { world, gradient } = linear(&SHAPES);
    let (mut mean, mut trace) = (Vec::new(), 0.0);
    for ((_, param), g) in Space::params(&world).iter().zip(&gradient) {
        let row: Vec<f32> = AXIS.iter().cycle().take(param.cols()).copied().collect();
        let long = repeated(&row, param.rows());
        let square = dot(&long, &long);
        let along = dot(&long, g) / (2.0 + square);
        mean.extend(g.iter().zip(&long).map(|(g, a)| g - along * a));
        trace += param.elements() as f64 - square / (2.0 + square);
    }
    let found = moments(&(0..4000).map(sample).collect::<Vec<_>>(), &[0.0; 17]);
    found.assert_mean(&mean);
    // A sample covariance of slope and direction over K of them: of C g, and (gᵀCg tr C + ‖Cg‖²) / (K − 1) around it.
    let shared = dot(&gradient.concat(), &mean);
    found.assert_square(dot(&mean, &mean) + (shared * trace + dot(&mean, &mean)) / 2.0);
}

#[test]
fn of_two_directions_the_estimate_is_the_difference_along_their_difference() {
    let Linear { mut world, .. } = linear(&[&[3, 4], &[5]]);
    let mut optimizer = loren("lr = 1\nepsilon = 1\nmomentum = 0\nqueries = 2");
    let clock = Clock { seed: 3, step: 0, steps: 1 };
    let x = Probes::draw(&world, clock, optimizer.axes(&world, 3), Queries::new(2));
    let probes = [0, 1].map(|k| x.along([(k, 1.0)]));
    let batch = world.draw(Pool::Train, None).expect("a batch");
    let losses = spsa::totals(&mut world, batch, &probes).expect("losses");
    let report = run(&mut optimizer, &mut world, 3, 0..1).remove(0);
    assert_eq!(report.projected_grads, [0.5 * (losses[0] - losses[1]), 0.5 * (losses[1] - losses[0])]);
    assert_eq!((report.loss, report.evaluations), (losses[0] + 0.5 * (losses[1] - losses[0]), 2));
    for (id, param) in Space::params(&world).iter() {
        let zeros = vec![0.0; param.elements()];
        let [first, second] = probes.each_ref().map(|probe| materialize::displaced(&zeros, id, param, probe));
        for (at, found) in world.values()[id.index()].iter().enumerate() {
            let expected = -0.5 * (losses[0] - losses[1]) * (f64::from(first[at]) - f64::from(second[at]));
            // Directions, below 8, are rounded by less than 2⁻²¹, and each weighs half of a difference below 16. Of the
            // update three coefficients and three sums, below 128 with their directions, are rounded by 2⁻¹⁸.
            let bound = 2.0 * 8.0 * 2_f64.powi(-21) + 6.0 * 2_f64.powi(-18);
            assert!((losses[0] - losses[1]).abs() < 16.0 && (f64::from(*found) - expected).abs() <= bound, "{found}");
        }
    }
}

#[test]
fn a_constant_that_is_added_to_all_losses_changes_nothing() {
    // Whole slopes and ε = 1: losses are multiples of the last bit of a direction, which f64 holds beside 64.
    let run_with = |shift: f64| {
        let loss = move |values: &[Vec<Dual>], _| {
            let terms = values[0].iter().enumerate().map(|(i, x)| *x * Dual::from(i as f64 - 5.0));
            terms.chain([Dual::from(shift)]).collect()
        };
        let facts = Facts { smoothness: 1.0, convexity: 0.0 };
        let mut world = World::new(&[("x", &[3, 4], vec![0.0; 12], vec![0.0; 12])], &[], facts, Box::new(loss));
        let mut optimizer = loren("lr = 1\nepsilon = 1\nqueries = 4\ncov_scale = \"1\"");
        run(&mut optimizer, &mut world, 3, 0..1);
        (world.values()[0].clone(), optimizer.axes)
    };
    assert_eq!(run_with(0.0), run_with(64.0));
}

#[test]
fn without_an_axis_directions_are_isotropic_and_none_is_found() {
    let Linear { mut world, .. } = linear(&[&[3, 4], &[5]]);
    let mut optimizer = loren("lr = 0.5\nepsilon = 1\nmomentum = 0\nqueries = 3\ncov_scale = \"1\"");
    remember(&mut optimizer, &world, &[0.0]);
    let report = run(&mut optimizer, &mut world, 3, 0..1).remove(0);
    let u = spsa::directions(&world, Clock { seed: 3, step: 0, steps: 1 }, Law::Gaussian, 3);
    let weights: Vec<f64> = report.projected_grads.iter().map(|slope| slope / 2.0).collect();
    for (id, param) in Space::params(&world).iter() {
        let expected = materialize::displaced(&vec![0.0; param.elements()], id, param, &sum(&u, &weights, -0.5));
        assert_same_bits(&world.values()[id.index()], &expected, "leave-one-out differences along u");
    }
    assert!(optimizer.axes.values().all(|row| row.iter().all(|a| *a == 0.0)));
}

#[test]
fn the_update_goes_along_the_directions_that_were_measured_and_the_axes_move_after_it() {
    // −⟨G, change⟩ = lr Σ w_k ⟨G, x_k⟩, and as the weights sum to 0 that is lr Σ c_k² / (K − 1). Weights stay below 4: the
    // bound, for weights of up to 8, leaves room for the term of the axis.
    let options = "lr = 1e-2\nepsilon = 1\nmomentum = 0\nqueries = 3\ncov_scale = \"1\"\nlr_cov = 0.5\ndamping = 1";
    assert_applies_what_it_measured("loren", options, 5, 1e-2 * 3.0 / 2.0);
}

#[test]
fn a_step_that_is_not_finite_leaves_no_trace() {
    for options in ["lr = 1e-2\nqueries = 2\ncov_scale = \"1\"", "lr = 1e-2\nmomentum = 0\ncov_scale = \"1\""] {
        fails_without_a_trace("loren", options, 1);
    }
}

#[test]
fn momentum_is_that_of_matrices_and_counts_once_a_step() {
    let shapes: &[&[usize]] = &[&[3, 4], &[5]];
    let run_with = |momentum: &str| {
        let Linear { mut world, .. } = linear(shapes);
        let mut optimizer = loren(&format!("lr = 1\nepsilon = 1\nqueries = 3\n{momentum}"));
        let mut step = |step| {
            run(&mut optimizer, &mut world, 3, step..step + 1);
            world.values().iter().map(|values| wide(values)).collect::<Vec<_>>()
        };
        [step(0), step(1)]
    };
    let ([first, without], [_, with]) = (run_with("momentum = 0"), run_with("momentum = 0.5"));
    for (tensor, ((first, without), with)) in first.iter().zip(&without).zip(&with).enumerate() {
        let carried = if tensor == 0 { 0.5 } else { 0.0 };
        for ((first, without), with) in first.iter().zip(without).zip(with) {
            // A linear loss: the second estimate is the same up to the rounding of 17 probed values below 64, by 2⁻¹⁹
            // each, times a direction below 8 for each of three queries; what rounds the place is less.
            let bound = 3.0 * 8.0 * 17.0 * 2_f64.powi(-19);
            assert!(without.abs() < 32.0, "{without}");
            assert!((with - (without + carried * first)).abs() <= bound, "tensor {tensor}: {with} {without} {first}");
        }
    }
}

#[test]
fn an_axis_goes_down_the_expected_loss_on_average() {
    const ROWS: usize = 2;
    const AXIS: [f32; 3] = [1.0, -0.5, 0.75];
    const DAMPING: f64 = 0.5;
    let h = [3.0, 1.0, 2.0, 5.0, 0.5, 1.0];
    let sample = |seed| {
        let loss = move |values: &[Vec<Dual>], _| {
            let terms = values[0].iter().zip(h).map(|(x, h)| Dual::from(0.5 * h) * *x * *x);
            terms.collect()
        };
        let facts = Facts { smoothness: 5.0, convexity: 0.5 };
        let mut world = World::new(&[("x", &[ROWS, 3], vec![0.0; 6], vec![0.0; 6])], &[], facts, Box::new(loss));
        let options = "lr = 0\nepsilon = 1\nqueries = 16\nlr_cov = 1\ncov_scale = \"1\"\nmomentum = 0\ndamping = 0.5";
        let mut optimizer = loren(options);
        remember(&mut optimizer, &world, &AXIS);
        run(&mut optimizer, &mut world, seed, 0..1);
        optimizer.axes["x"].iter().zip(AXIS).map(|(after, before)| f64::from(before) - f64::from(*after)).collect()
    };
    let found = moments(&(0..4000).map(sample).collect::<Vec<Vec<f64>>>(), &[0.0; 3]);
    // E L = ½ tr(h Cov x) = ½ Σ h − ½ Σ_j h_j a_j² / (ρ + q), with h_j the sum of a column and q = m ‖a‖².
    let (a, h) = (wide(&AXIS), sum_of(&h, 3));
    let total = DAMPING + ROWS as f64 * dot(&a, &a);
    let curved: f64 = a.iter().zip(&h).map(|(a, h)| h * a * a).sum();
    let derivative = |(a, h): (&f64, &f64)| -(h * a / total - ROWS as f64 * a * curved / (total * total));
    let expected: Vec<f64> = a.iter().zip(&h).map(derivative).map(|slope| DAMPING.sqrt() * slope).collect();
    found.assert_mean(&expected);
    assert!(expected.iter().zip(&found.errors).any(|(slope, error)| slope.abs() > 10.0 * error), "nothing to tell");
}

#[test]
fn as_released_no_bit_of_an_axis_changes_and_with_a_scale_of_one_it_does() {
    let after = |options: &str| {
        let Linear { mut world, .. } = linear(&[&[6, 5], &[4]]);
        let mut optimizer = loren(options);
        run(&mut optimizer, &mut world, 3, 0..1);
        let early = optimizer.axes.clone();
        run(&mut optimizer, &mut world, 3, 1..20);
        (early, optimizer.axes)
    };
    let (early, late) = after("");
    assert_eq!(early, late);
    let (early, late) = after("cov_scale = \"1\"");
    assert!(early.iter().zip(&late).all(|(early, late)| early.1 != late.1));
}

#[test]
fn axes_decay_by_their_own_rate() {
    // A flat loss: only decay moves.
    let mut world = flat(&[2, 3]);
    let mut optimizer = loren("lr = 0.5\nlr_cov = 0.25\nweight_decay = 0.5");
    remember(&mut optimizer, &world, &[1.0, -2.0, 4.0]);
    run(&mut optimizer, &mut world, 3, 0..1);
    assert_eq!((&*optimizer.axes["a"], &world.values()[0][..]), (&[0.875, -1.75, 3.5][..], &[0.375; 6][..]));
}

#[test]
fn the_sum_of_rows_is_that_of_every_row_in_an_order_that_no_thread_changes() {
    let Linear { world, .. } = linear(&[&[150, 3]]);
    let (id, param) = first(&world);
    let u = spsa::directions(&world, Clock { seed: 1, step: 0, steps: 1 }, Law::Gaussian, 1).remove(0);
    let found = sum_of_rows(&world, (id, param), &u);
    let values = wide(&materialize::direction(u.get(id).expect("it moves"), param, &world.values()[0]));
    for (found, expected) in found.iter().zip(sum_of(&values, 3)) {
        // 150 values below 8, summed in two orders.
        assert!((found - expected).abs() <= 2.0 * 150.0 * 150.0 * 8.0 * f64::EPSILON, "{found} {expected}");
    }
    for threads in [1, 3] {
        assert_eq!(on_threads(threads, || sum_of_rows(&world, (id, param), &u)), found, "{threads} threads");
    }
}

#[test]
fn a_single_direction_has_no_others_to_be_compared_with() {
    let refused = ENTRY.build(&"queries = 1".parse().expect("TOML")).map(drop).expect_err("one direction").to_string();
    let expected =
        "option queries of loren is 1, expected an integer from 2 to 10000: each is compared with the others";
    assert_eq!(refused, expected);
}

#[test]
fn equal_losses_move_nothing() {
    let mut world = flat(&[2, 3]);
    run(&mut *build("loren", "lr = 1"), &mut world, 3, 0..3);
    assert_eq!(world.values()[0], [0.5; 6]);
}
