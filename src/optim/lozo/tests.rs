//! The moments of the estimate, where updates lie, and that what is applied was measured.

use super::*;
use crate::optim::{
    Clock,
    fixture::{
        assert_applies_what_it_measured, build, dot, estimate, first, linear, moments, product, rank, run, transposed,
        updates, wide,
    },
};

/// `V` of an epoch.
fn v(epoch: u64, rank: u32) -> Vec<f64> {
    let world = linear(&[&[6, 5]]).world;
    wide(right(&mut Lazy::default(), &world, (3, epoch), Rank::new(rank))[&first(&world).0].values())
}

#[test]
fn what_is_applied_was_measured_on_steps_that_refresh_and_on_others() {
    for options in ["", "\nqueries = 3", "\nestimator = \"one-sided\"", "\nestimator = \"slope\"\nqueries = 2"] {
        let options = format!("lr = 0.0625\nepsilon = 1\nrefresh_interval = 2\n{options}");
        let steps = if options.contains("queries") { 1 } else { 7 };
        for scale in ["1", "1/rank"] {
            let rate = if scale == "1" { 0.0625 } else { 0.03125 };
            assert_applies_what_it_measured("lozo", &format!("{options}\nscale = {scale:?}"), steps, rate);
        }
    }
}

#[test]
fn an_update_has_the_rank_of_the_option_and_its_rows_lie_in_the_span_of_v() {
    for (r, queries) in [(1, 1), (2, 1), (2, 3)] {
        let mut world = linear(&[&[6, 5]]).world;
        let options = format!("lr = 1\nrank = {r}\nqueries = {queries}");
        run(&mut *build("lozo", &options), &mut world, 3, 0..1);
        // More queries are other U before the same V.
        assert_eq!(rank(&world.values()[0], 6), r as usize);
        let (update, v) = (wide(&world.values()[0]), v(0, r));
        // W (V (VᵀV)⁻¹ Vᵀ) = W; of one or two columns the inverse is written out.
        let gram = product(&transposed(&v, r as usize), &v, 5);
        let inverse = match gram[..] {
            [a] => vec![1.0 / a],
            [a, b, c, d] => [d, -b, -c, a].map(|x| x / (a * d - b * c)).to_vec(),
            _ => unreachable!("one or two columns"),
        };
        let onto = product(&product(&v, &inverse, r as usize), &transposed(&v, r as usize), r as usize);
        let projected = product(&update, &onto, 5);
        let norm = dot(&update, &update).sqrt();
        for (found, expected) in projected.iter().zip(&update) {
            // As in `rank`: a few 2⁻²⁴ of factors that are not much longer than their product.
            assert!((found - expected).abs() <= norm / f64::from(1 << 20), "{found} {expected}");
        }
    }
}

#[test]
fn all_updates_of_a_window_share_a_row_space_and_the_next_window_has_another() {
    for (steps, expected) in [(4, 2), (5, 4)] {
        let mut world = linear(&[&[6, 5]]).world;
        run(&mut *build("lozo", "lr = 1\nrefresh_interval = 4"), &mut world, 3, 0..steps);
        assert_eq!(rank(&world.values()[0], 6), expected, "after {steps} steps");
    }
}

#[test]
fn over_fresh_factors_the_estimate_is_the_gradient_with_the_variance_of_theory() {
    let (m, n, r) = (3.0, 4.0, 2.0);
    let samples: Vec<_> =
        (0..6000).map(|seed| estimate("lozo", "lr = 1\nestimator = \"slope\"", &[&[3, 4]], seed)).collect();
    let g = &linear(&[&[3, 4]]).gradient[0];
    let found = moments(&samples, g);
    found.assert_mean(g);
    found.assert_square((m * n + 1.0 + 2.0 * (m + n + 1.0) / r) * dot(g, g));
}

#[test]
fn while_v_stays_the_estimate_is_the_gradient_times_v_vt_over_r() {
    const STEPS: u64 = 6000;
    let mut linear = linear(&[&[6, 5]]);
    let options = format!("lr = 1\nestimator = \"slope\"\nrefresh_interval = {STEPS}");
    let samples = updates("lozo", &options, &mut linear, STEPS);
    let v = v(0, 2);
    let expected: Vec<_> = product(&product(&linear.gradient[0], &v, 5), &transposed(&v, 2), 2);
    let expected: Vec<_> = expected.iter().map(|x| x / 2.0).collect();
    moments(&samples, &expected).assert_mean(&expected);
}

#[test]
fn the_rate_of_the_released_code_is_that_of_the_paper_over_the_rank() {
    let end = |options: &str| {
        let mut world = linear(&[&[6, 5]]).world;
        run(&mut *build("lozo", options), &mut world, 3, 0..9);
        world.values().to_vec()
    };
    assert_eq!(end("lr = 0.5\nrank = 4"), end("lr = 0.125\nrank = 4\nscale = \"1\""));
}

#[test]
fn vectors_move_as_under_mezo_and_are_never_scaled_by_the_rank() {
    let end = |name: &str, options: &str| {
        let mut world = linear(&[&[9]]).world;
        run(&mut *build(name, options), &mut world, 3, 0..1)
    };
    let [lozo, code] = ["", "scale = \"1\""].map(|options| end("lozo", &format!("lr = 1\n{options}")));
    assert_eq!(lozo, code);
}

#[test]
fn a_rank_beyond_the_sides_of_a_matrix_is_as_good_as_any() {
    let mut world = linear(&[&[3, 4], &[2]]).world;
    let reports = run(&mut *build("lozo", "lr = 1e-3\nrank = 9"), &mut world, 3, 0..3);
    assert!(reports.iter().all(|report| !report.nonfinite && report.update_rms > 0.0));
    let clock = Clock { seed: 3, step: 0, steps: 1 };
    let v = right(&mut Lazy::default(), &world, (3, 0), Rank::new(9)).clone();
    let probes = probes(&world, clock, 2, &v, Rank::new(9));
    assert_eq!(probes[0].coordinates(&world, first(&world).0).len(), 27);
}
