//! Reductions to `MeZO`, the bound on a step, and what is remembered.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::super::fixture::{build, fails_without_a_trace, flat, moments, run, scaled};
use super::*;
use crate::{
    direction::Coefficients,
    optim::Space,
    testing::{
        assert_same_bits,
        record::Recording,
        worlds::{self, Call, Dual, Facts, World},
    },
};

const WORLDS: [fn() -> World; 4] =
    [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression, worlds::mixed_ranks];

/// The values after six steps.
fn end(name: &str, options: &str, world: fn() -> World) -> Vec<f32> {
    let mut world = world();
    run(&mut *build(name, options), &mut world, 3, 0..6);
    world.values().concat()
}

#[test]
fn one_reading_without_noise_is_one_sided_mezo() {
    for world in WORLDS {
        let mezo = end("mezo", "lr = 1e-4\nepsilon = 1e-4\nestimator = \"one-sided\"\nweight_decay = 0.5", world);
        // A noise of 1e-36 beside a prior variance of 1.
        let exact = "lr = 1e-4\nweight_decay = 0.5\nk = 1\nm = 1\nadaptive_noise = false\nsigma_0 = 1e-18";
        assert_same_bits(&end("bszo", exact, world), &mezo, "one reading");
    }
}

#[test]
fn readings_as_noisy_as_the_prior_count_by_half() {
    // Halves are exact.
    for world in WORLDS {
        for estimator in ["one-sided", "two-sided", "slope"] {
            let options = |more: &str| format!("epsilon = 1e-3\nestimator = \"{estimator}\"\n{more}");
            let noisy = "adaptive_noise = false\nextra = \"none\"";
            let one = end("bszo", &options(&format!("lr = 1e-4\nk = 1\n{noisy}")), world);
            assert_same_bits(&one, &end("mezo", &options("lr = 5e-5"), world), "half a slope");
            let two = end("bszo", &options(&format!("lr = 1e-4\n{noisy}")), world);
            assert_same_bits(&two, &end("mezo", &options("lr = 1e-4\nqueries = 2"), world), "the mean of two");
        }
    }
}

#[test]
fn a_reading_that_is_made_again_is_the_one_that_was_kept() {
    for world in WORLDS {
        for options in ["", "m = 6", "k = 3\nestimator = \"two-sided\"", "estimator = \"slope\"\nm = 4"] {
            let of = |extra: &str| end("bszo", &format!("lr = 1e-3\nextra = \"{extra}\"\n{options}"), world);
            assert_same_bits(&of("remeasure"), &of("cached"), options);
            assert_ne!(of("none"), of("cached"), "{options}");
        }
    }
}

#[test]
fn all_readings_are_made_in_one_pass_but_those_that_are_made_again() {
    for (options, passes) in [
        ("", &[3][..]),
        ("extra = \"none\"", &[3]),
        ("k = 4", &[5]),
        ("k = 4\nm = 2", &[3]),
        ("k = 4\nm = 7", &[5]),
        ("estimator = \"two-sided\"", &[4]),
        ("estimator = \"slope\"", &[3]),
        ("extra = \"remeasure\"", &[3, 1]),
        ("extra = \"remeasure\"\nm = 5", &[3, 1, 1, 1]),
        ("extra = \"remeasure\"\nm = 2", &[3]),
        ("extra = \"remeasure\"\nestimator = \"two-sided\"", &[4, 2]),
        ("extra = \"remeasure\"\nestimator = \"slope\"", &[3, 2]),
    ] {
        let mut world = worlds::quadratic();
        let report = run(&mut *build("bszo", options), &mut world, 1, 0..1).remove(0);
        let evaluations = |call: &Call| if let Call::Evaluate(count) = call { Some(*count) } else { None };
        assert_eq!(world.calls().iter().filter_map(evaluations).collect::<Vec<_>>(), passes, "{options}");
        assert_eq!(report.evaluations, passes.iter().sum::<usize>(), "{options}");
    }
}

#[test]
fn the_mean_update_is_the_gradient_times_the_sum_of_the_gains() {
    const SAMPLES: u64 = 2000;
    let start = worlds::quadratic();
    let gradient = start.gradient(Space::trainable(&start)[0], 0);
    // Of equal variances the first is taken for the widest.
    for (options, gains) in [("extra = \"none\"", 1.5), ("", 1.0 + 2.0 / 3.0)] {
        let options = format!("lr = 0.0078125\nepsilon = 0.01\nk = 3\nadaptive_noise = false\n{options}");
        let sample = |seed: u64| {
            let mut world = worlds::quadratic();
            run(&mut *build("bszo", &options), &mut world, seed, 0..1);
            let pairs = world.values()[0].iter().zip(&start.values()[0]);
            pairs.map(|(after, before)| f64::from(before - after) / 0.0078125).collect()
        };
        let expected: Vec<f64> = gradient.iter().map(|g| gains * g).collect();
        // One-sided slopes are off by ½ε zᵀHz, of which the product with z has the mean 0.
        moments(&(0..SAMPLES).map(sample).collect::<Vec<_>>(), &expected).assert_mean(&expected);
    }
}

/// A filter of one axis with prior variance 1.
fn filter(initial: f64, noise: f64, alpha: f64) -> Filter {
    Filter { posterior: Posterior::prior(1, 1.0), prior: 1.0, initial, noise, alpha }
}

proptest! {
    #[test]
    fn no_first_reading_moves_an_axis_far_and_opposite_readings_move_it_alike(
        exponent in -6.0..30.0, initial in 1e-3..1e3, noise in 0.0..1e6, alpha in 1e-2..1.0,
    ) {
        let moved = |slope: f64| {
            let mut filter = filter(initial, noise, alpha);
            filter.absorb(0, slope);
            filter.posterior.mean()[0]
        };
        let slope = 10_f64.powf(exponent);
        // y / (1 + s) with s ≥ α y² is at most 1 / 2√α; some ten operations round it.
        prop_assert!(moved(slope) > 0.0 && moved(slope) <= (1.0 + 1e-14) / (2.0 * alpha.sqrt()), "{}", moved(slope));
        prop_assert_eq!(moved(-slope), -moved(slope));
    }
}

#[test]
fn the_bound_is_met_by_a_reading_of_one_over_the_root_of_alpha_after_silence() {
    let mut filter = filter(1.0, 0.0, 0.25);
    filter.absorb(0, 2.0);
    assert_eq!((filter.posterior.mean(), filter.gain()), (&[1.0][..], 0.5));
}

#[test]
fn the_gain_that_is_reported_is_what_slopes_were_multiplied_by() {
    for options in ["", "m = 1", "m = 5", "adaptive_noise = false", "sigma_p = 30\nsigma_0 = 3\nalpha = 0.5"] {
        let mut oracle = Recording::new(worlds::quadratic());
        let reports = run(&mut *build("bszo", &format!("lr = 1\nk = 1\n{options}")), &mut oracle, 5, 0..3);
        for (report, update) in reports.iter().zip(&oracle.updates) {
            let Coefficients::One(coefficient) = update.terms[0].coefficients else { panic!("one direction") };
            let (gain, expected) = (report.scalars["gain"], f64::from(-coefficient) / report.projected_grads[0]);
            // A coefficient is rounded to 2⁻²⁴ of itself; f64 counts for less while gains exceed 1e-6.
            assert!(gain > 1e-6 && (gain / expected - 1.0).abs() < 2_f64.powi(-23), "{options}: {gain} {expected}");
        }
    }
}

#[test]
fn without_surprises_the_noise_falls_to_a_tenth() {
    let mut world = flat(&[2]);
    let reports = run(&mut *build("bszo", "sigma_0 = 4\nsigma_p = 2"), &mut world, 1, 0..50);
    let noise = |step: usize| reports[step].scalars["noise"];
    // s falls by a tenth at each of three readings, until 0.9^(3·15) < 0.01; a few roundings.
    assert!((noise(0) - 4.0 * 0.9_f64.powi(3).sqrt()).abs() < 1e-14, "{}", noise(0));
    assert!((noise(14) - 0.4).abs() < 1e-14 && noise(13) > 0.4 && noise(49) == noise(14), "{}", noise(14));
    // Two gains of 4 / (4 + 0.16), one of them taken in twice: 8 / (8 + 0.16).
    let gain = (4.0 / 4.16 + 8.0 / 8.16) / 2.0;
    assert!((reports[49].scalars["gain"] - gain).abs() < 1e-14, "{:?}", reports[49]);
}

#[test]
fn the_automatic_prior_grows_with_the_weights_beyond_a_million() {
    for (dimension, expected) in [(1, 1.0), (1_000_000, 1.0), (4_000_000, 2.0), (100_000_000, 10.0)] {
        assert_eq!(automatic(dimension).get(), expected);
    }
    let of = |options: &str| end("bszo", &format!("lr = 1e-3\n{options}"), worlds::quadratic);
    assert_same_bits(&of(""), &of("sigma_p = 1\nsigma_0 = 1"), "24 weights");
    assert_ne!(of(""), of("sigma_p = 2"));
    assert_ne!(of(""), of("sigma_0 = 2"));
}

#[test]
fn a_step_whose_loss_is_not_finite_leaves_nothing_behind() {
    for options in ["lr = 1", "lr = 1\nestimator = \"slope\"", "lr = 1\nextra = \"remeasure\""] {
        fails_without_a_trace("bszo", options, 2);
    }
}

/// `Σ (i + 1) xᵢ`, but that its evaluation of number `failing` is not a number.
fn failing_at(failing: usize) -> World {
    let count = AtomicUsize::new(0);
    let loss = move |values: &[Vec<Dual>], _| {
        let fails = count.fetch_add(1, Ordering::Relaxed) == failing;
        let sum = (1..).zip(&values[0]).fold(Dual::from(0.0), |sum, (i, x)| sum + Dual::from(f64::from(i)) * *x);
        vec![if fails { Dual::from(f64::NAN) } else { sum }]
    };
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    World::new(&[("x", &[5], vec![0.0; 5], vec![0.0; 5])], &[], facts, Box::new(loss))
}

#[test]
fn nor_does_one_of_which_only_the_further_reading_is_not_finite() {
    for options in ["", "adaptive_noise = false"] {
        let values = |failing: Option<usize>| {
            let mut world = failing_at(failing.unwrap_or(usize::MAX));
            let mut optimizer = build("bszo", &format!("lr = 1\nextra = \"remeasure\"\n{options}"));
            run(&mut *optimizer, &mut world, 3, 0..1);
            if failing.is_some() {
                let report = run(&mut *optimizer, &mut world, 3, 1..2).remove(0);
                assert_eq!((report.nonfinite, report.evaluations, report.scalars.len()), (true, 4, 0));
            }
            run(&mut *optimizer, &mut world, 3, 2..4);
            world.values().to_vec()
        };
        // Two passes a step, of three probes and of one, before each of which examples are counted: the last of the second.
        assert_eq!(values(Some(11)), values(None), "{options}");
    }
}

#[test]
fn nor_does_one_whose_slopes_have_no_finite_square() {
    let values = |steep: bool| {
        let mut optimizer = build("bszo", "lr = 1");
        if steep {
            let mut world = scaled(&[&[3]], 1e200).world;
            let report = run(&mut *optimizer, &mut world, 3, 0..1).remove(0);
            assert!(report.nonfinite && report.projected_grads.iter().all(|slope| slope.is_finite()), "{report:?}");
            assert_eq!(world.values()[0], [0.0; 3]);
        }
        let mut world = worlds::quadratic();
        run(&mut *optimizer, &mut world, 3, 1..3);
        world.values().to_vec()
    };
    assert_eq!(values(true), values(false));
}
