//! The column space, and the moments of the estimate.

use super::*;
use crate::optim::fixture::{
    assert_applies_what_it_measured, build, dot, estimate, first, linear, moments, product, rank, run, transposed,
    updates, wide,
};

/// `P` of the first epoch for [6, 5].
fn p(rank: u32) -> Vec<f64> {
    let world = linear(&[&[6, 5]]).world;
    wide(projection(&world, key(3, 0), Rank::new(rank))[&first(&world).0].values())
}

#[test]
fn what_is_applied_was_measured_on_steps_that_refresh_and_on_others() {
    for options in ["", "\nestimator = \"one-sided\"", "\nestimator = \"slope\""] {
        let options = format!("lr = 0.03125\nrank = 2\nepsilon = 1\nrefresh_interval = 2{options}");
        assert_applies_what_it_measured("subspace_mezo", &options, 6, 0.03125);
    }
}

#[test]
fn an_update_lies_in_the_column_space_and_has_at_most_its_dimension() {
    let mut world = linear(&[&[6, 5]]).world;
    run(&mut *build("subspace_mezo", "lr = 1\nrank = 2\nqueries = 3"), &mut world, 3, 0..1);
    assert_eq!(rank(&world.values()[0], 6), 2);
    let (p, update) = (p(2), wide(&world.values()[0]));
    let onto = product(&product(&p, &transposed(&p, 2), 2), &update, 6);
    let norm = dot(&update, &update).sqrt();
    for (found, expected) in onto.iter().zip(&update) {
        // P is orthonormal to 2·2⁻²⁴, and three directions round a few times.
        assert!((found - expected).abs() <= norm * 32.0 * 2_f64.powi(-24), "{found} {expected}");
    }
}

#[test]
fn over_fresh_spaces_the_estimate_is_a_share_of_the_gradient_with_the_variance_of_theory() {
    // (m / r) c P Ψ: G on average, with the variance (m / r) (r n + 2) − 1, which for r = m is that of MeZO.
    for r in [2.0, 4.0] {
        let options = format!("lr = 1\nrank = {r}\nestimator = \"slope\"");
        let estimate = |seed| estimate("subspace_mezo", &options, &[&[4, 3]], seed);
        let samples: Vec<Vec<f64>> =
            (0..6000).map(|seed| estimate(seed).iter().map(|x| x * 4.0 / r).collect()).collect();
        let g = &linear(&[&[4, 3]]).gradient[0];
        let found = moments(&samples, g);
        found.assert_mean(g);
        found.assert_square((4.0 / r * (3.0 * r + 2.0) - 1.0) * dot(g, g));
    }
}

#[test]
fn while_the_space_stays_the_estimate_is_the_gradient_within_it() {
    const STEPS: u64 = 6000;
    let mut linear = linear(&[&[6, 5]]);
    let options = format!("lr = 1\nrank = 2\nestimator = \"slope\"\nrefresh_interval = {STEPS}");
    let samples = updates("subspace_mezo", &options, &mut linear, STEPS);
    let (p, g) = (p(2), &linear.gradient[0]);
    let sketch = product(&transposed(&p, 2), g, 6);
    let expected = product(&p, &sketch, 2);
    let found = moments(&samples, &expected);
    found.assert_mean(&expected);
    found.assert_square((2.0 * 5.0 + 1.0) * dot(&sketch, &sketch));
}

#[test]
fn vectors_have_a_rate_of_their_own() {
    let mut world = linear(&[&[6, 5], &[4]]).world;
    run(&mut *build("subspace_mezo", "lr = 1\none_d_lr = 0"), &mut world, 3, 0..1);
    assert!(world.values()[0].iter().all(|x| *x != 0.0) && world.values()[1] == [0.0; 4]);
    let mut world = linear(&[&[6, 5], &[4]]).world;
    run(&mut *build("subspace_mezo", "lr = 0\none_d_lr = 1"), &mut world, 3, 0..1);
    assert!(world.values()[0] == [0.0; 30] && world.values()[1].iter().all(|x| *x != 0.0));
}
