use std::sync::Arc;

use crate::{
    direction::{Direction, DirectionSet, Displacement, ParamId},
    noise::Law,
    optim::{
        BatchId, Clock, Optimizer, Oracle, Space, StepReport,
        fixture::{build, run},
        parts::spsa,
    },
    testing::{
        assert_same_bits,
        worlds::{self, Dual, Facts, World},
    },
};

/// Where eight steps end.
fn end(name: &str, options: &str, world: fn() -> World) -> Vec<Vec<f32>> {
    let mut world = world();
    run(&mut *build(name, options), &mut world, 3, 0..8);
    world.values().to_vec()
}

fn assert_same(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    found.iter().zip(expected).for_each(|(found, expected)| assert_same_bits(found, expected, what));
}

const WORLDS: [fn() -> World; 4] =
    [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression, worlds::mixed_ranks];

#[test]
fn with_gradients_of_all_and_no_perturbed_loss_it_is_adamw() {
    for world in WORLDS {
        let found = end("hi_zfo", "budget = 1\nalpha = 0\nlr = 1e-3\nweight_decay = 0.5", world);
        assert_same(&found, &end("adamw", "lr = 1e-3\nweight_decay = 0.5", world), "all parameters are selected");
        let found = end("hi_zfo", "budget = 1\nalpha = 0\nlr = 1e-4\nfo_rule = \"sgd\"", world);
        assert_same(&found, &end("sgd", "lr = 1e-4", world), "all parameters are selected");
    }
}

#[test]
fn without_a_budget_it_is_one_sided_mezo() {
    for world in WORLDS {
        for (ours, mezo) in [("", ""), ("zo_rule = \"adamw\"", "rule = \"adam\"")] {
            let found = end("hi_zfo", &format!("backward_budget = 0\nlr = 1e-4\nzo_lr_ratio = 1\n{ours}"), world);
            let expected = end("mezo", &format!("estimator = \"one-sided\"\nlr = 1e-4\n{mezo}"), world);
            assert_same(&found, &expected, "nothing is selected");
        }
    }
}

/// Pays for the gradient of `b` of [`worlds::mixed_ranks`], 15 of 68, and not for that of `a`.
const ONE_OF_TWO: &str = "backward_budget = 0.3\nlr = 1e-2\n";

#[test]
fn without_a_rate_of_their_own_the_others_stay_and_it_is_green_trainer() {
    let start = worlds::mixed_ranks().values().to_vec();
    let found = end("hi_zfo", &format!("{ONE_OF_TWO}zo_lr_ratio = 0\nalpha = 0"), worlds::mixed_ranks);
    assert_same_bits(&found[0], &start[0], "the zeroth-order side");
    assert!(found[2].iter().zip(&start[2]).all(|(found, start)| found != start));
    assert_same(&found, &end("green_trainer", ONE_OF_TWO, worlds::mixed_ranks), "GreenTrainer");
    // With the perturbed loss gradients differ, and the others stay all the same.
    let coupled = end("hi_zfo", &format!("{ONE_OF_TWO}zo_lr_ratio = 0\nalpha = 0.5"), worlds::mixed_ranks);
    assert_same_bits(&coupled[0], &start[0], "the zeroth-order side");
}

#[test]
fn both_sides_move_and_switches_do_what_they_say() {
    let found = |options: &str| end("hi_zfo", &format!("{ONE_OF_TWO}{options}"), worlds::mixed_ranks);
    let start = worlds::mixed_ranks().values().to_vec();
    let both = found("");
    assert!([0, 2].iter().all(|&at| both[at].iter().zip(&start[at]).all(|(found, start)| found != start)));
    assert_same(&found("fo_coupling = false"), &found("alpha = 0"), "no coupling");
    assert_same(
        &found("zo_scaled_by_alpha = true\nalpha = 0.25\nzo_lr_ratio = 0.5"),
        &found("alpha = 0.25\nzo_lr_ratio = 0.125"),
        "powers of two",
    );
    let green = end("green_trainer", ONE_OF_TWO, worlds::mixed_ranks);
    assert_same(&found("zo_off_when_alpha_zero = true\nalpha = 0"), &green, "off");
    assert_same(&found("zo_without = [\"a\"]\nalpha = 0"), &green, "nothing is left to perturb");
}

/// `Σ (a_i s − c_i)²` with `s = b_1 + b_2`: the gradient by b depends on a. A quadratic in b.
fn coupled() -> World {
    let loss = |values: &[Vec<Dual>], _| {
        let s = values[1][0] + values[1][1];
        let error = |(a, c): (&Dual, f64)| *a * s - Dual::from(c);
        values[0].iter().zip([1.0, -2.0, 0.5]).map(error).map(|error| error * error).collect()
    };
    let tensors =
        [("a", &[3][..], vec![0.5, 1.0, -1.0], vec![0.0; 3]), ("b", &[2][..], vec![1.0, -0.25], vec![0.0; 2])];
    World::new(&tensors, &[], Facts { smoothness: 1.0, convexity: 0.0 }, Box::new(loss))
}

/// The gradient by b that the first step takes, from its update.
fn gradient(options: &str) -> Vec<f64> {
    let mut world = coupled();
    let before = world.values()[1].clone();
    let fixed = "backward_budget = 0.5\nlr = 0.015625\nfo_rule = \"sgd\"";
    run(&mut *build("hi_zfo", &format!("{fixed}\n{options}")), &mut world, 3, 0..1);
    before.iter().zip(&world.values()[1]).map(|(x, y)| (f64::from(*x) - f64::from(*y)) * 64.0).collect()
}

#[test]
fn gradients_are_those_of_the_clean_and_the_perturbed_loss_at_a_fixed_direction() {
    let mut world = coupled();
    let [a, b] = ["a", "b"].map(|name| Space::params(&world).find(name).expect("there"));
    let u = spsa::direction(&[a], Clock { seed: 3, step: 0, steps: 1 }, Law::Gaussian, 0);
    let total = |world: &mut World, at: usize, h: f32| {
        let unit: Arc<[f32]> = (0..2).map(|i| if i == at { h } else { 0.0 }).collect();
        let moved = Displacement::along(&Arc::new(DirectionSet::new([(b, Direction::Explicit(unit))])), 1.0);
        let mut probe = Displacement::along(&u, 0.25);
        probe.terms.extend(moved.terms.iter().cloned());
        let losses = spsa::totals(world, BatchId(0), &[moved, probe]).expect("a toy");
        losses[0] + 0.5 * losses[1]
    };
    for (at, found) in gradient("epsilon = 0.25\nalpha = 0.5").into_iter().enumerate() {
        // h and b are multiples of 2⁻⁸: differences of a quadratic are exact but for the last bits of f64.
        let h = 2_f32.powi(-8);
        let expected = (total(&mut world, at, h) - total(&mut world, at, -h)) / (2.0 * f64::from(h));
        // b is rounded to 2⁻²⁴ by its step of lr = 2⁻⁶, the gradient to f32.
        let tolerance = 2_f64.powi(-18) + expected.abs() * 2_f64.powi(-23);
        assert!((found - expected).abs() <= tolerance, "{found} {expected}");
    }
}

#[test]
fn as_the_perturbation_shrinks_the_perturbed_loss_becomes_a_factor() {
    let clean = gradient("alpha = 0");
    let deviation = |epsilon: &str| {
        let coupled = gradient(&format!("alpha = 0.5\nepsilon = {epsilon}"));
        coupled.iter().zip(&clean).map(|(coupled, clean)| (coupled - 1.5 * clean).abs()).fold(0.0, f64::max)
    };
    let (far, near) = (deviation("1e-2"), deviation("1e-4"));
    // Proportional to ε but for its square, 1e-2 of it, and the rounding of b, 2⁻¹⁸ of the clean and 1.5 of that.
    assert!(far > 1e-3 && near <= 0.011 * far + 2.5 * 2_f64.powi(-18), "{far} {near}");
}

#[test]
fn parameters_are_selected_once_or_every_so_many_steps() {
    let evaluations = |options: &str| {
        let mut world = worlds::mixed_ranks();
        let reports = run(&mut *build("hi_zfo", options), &mut world, 3, 0..7);
        reports.iter().map(|report: &StepReport| report.evaluations).collect::<Vec<_>>()
    };
    assert_eq!(evaluations(ONE_OF_TWO), [4, 2, 2, 2, 2, 2, 2]);
    assert_eq!(evaluations(&format!("{ONE_OF_TWO}reselect_every = 3")), [4, 2, 2, 4, 2, 2, 4]);
    assert_eq!(evaluations("backward_budget = 1e-9")[0], 2, "what nothing pays for is not probed");
}

#[test]
fn a_loss_that_is_not_finite_selects_nothing_and_the_next_step_does() {
    let mut world = worlds::mixed_ranks().failing([0], f64::NAN);
    let before = world.values().to_vec();
    let mut optimizer = build("hi_zfo", ONE_OF_TWO);
    let step = |optimizer: &mut dyn Optimizer, world: &mut dyn Oracle, step| {
        optimizer.step(world, Clock { seed: 3, step, steps: 2 }).expect("one of five")
    };
    assert!(step(&mut *optimizer, &mut world, 0).nonfinite);
    assert_eq!(world.values(), before);
    assert_eq!(step(&mut *optimizer, &mut world, 1).evaluations, 4);
    let moved = |id: &ParamId| world.values()[id.index()] != before[id.index()];
    assert!(Space::trainable(&world).iter().all(moved));
}
