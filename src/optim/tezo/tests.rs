//! The moments of the estimate, and the span that no update leaves.

use super::*;
use crate::{
    optim::{
        fixture::{
            assert_applies_what_it_measured, dot, estimate, first, linear, moments, product, rank, transposed, updates,
            wide,
        },
        lozo,
    },
    testing::assert_same_bits,
};

/// `U` and `V` for [6, 5].
fn factors(rank: u32) -> (Vec<f64>, Vec<f64>) {
    let world = linear(&[&[6, 5]]).world;
    let (id, mut span) = (first(&world).0, Span::default());
    let factors = span.factors(&world, (3, 0), Rank::new(rank));
    (wide(factors.left[&id].values()), wide(factors.right[&id].values()))
}

#[test]
fn what_is_applied_was_measured_on_steps_that_refresh_and_on_others() {
    for options in ["", "\nrefresh_interval = 2", "\nestimator = \"one-sided\"", "\nestimator = \"slope\""] {
        let options = format!("lr = 0.015625\nepsilon = 1\nrank = 4\n{options}");
        assert_applies_what_it_measured("tezo", &format!("{options}\nscale = \"1\""), 4, 0.015_625);
        assert_applies_what_it_measured("tezo", &options, 4, 0.003_906_25);
    }
}

#[test]
fn over_fresh_factors_the_estimate_is_the_gradient_with_the_variance_of_theory() {
    let (m, n, r) = (3.0, 4.0, 8.0);
    let options = "lr = 1\nrank = 8\nestimator = \"slope\"";
    let samples: Vec<_> = (0..6000).map(|seed| estimate("tezo", options, &[&[3, 4]], seed)).collect();
    let g = &linear(&[&[3, 4]]).gradient[0];
    let found = moments(&samples, g);
    found.assert_mean(g);
    found.assert_square((1.0 + m * n + (2.0 * m * n + 6.0 * (m + n) + 10.0) / r) * dot(g, g));
}

#[test]
fn while_the_factors_stay_the_estimate_is_the_gradient_on_each_rank_one_matrix() {
    let mut linear = linear(&[&[6, 5]]);
    let samples = updates("tezo", "lr = 1\nrank = 3\nestimator = \"slope\"\nscale = \"1\"", &mut linear, 6000);
    let (u, v) = factors(3);
    // E κ Z = Σ (u_sᵀ G v_s) u_s v_sᵀ = U diag(Uᵀ G V) Vᵀ
    let sketch = product(&product(&transposed(&u, 3), &linear.gradient[0], 6), &v, 5);
    let diagonal: Vec<_> = (0..9).map(|at| if at % 4 == 0 { sketch[at] } else { 0.0 }).collect();
    let expected = product(&product(&u, &diagonal, 3), &transposed(&v, 3), 3);
    moments(&samples, &expected).assert_mean(&expected);
}

#[test]
fn all_updates_of_a_run_lie_in_the_span_of_as_many_matrices_as_the_rank() {
    for (options, expected) in [("", 3), ("refresh_interval = 4", 6)] {
        let mut linear = linear(&[&[6, 5]]);
        let updates =
            updates("tezo", &format!("lr = 1\nrank = 3\nlr_schedule = \"linear\"\n{options}"), &mut linear, 8);
        // Differences of weights that grow: rounded at their size, unlike the first.
        let stacked: Vec<f32> = updates.iter().flatten().map(|x| *x as f32).collect();
        let singular = crate::linalg::orthogonalize::singular_values(crate::tensor::MatRef::new(&stacked, 8, 30));
        let largest = linear.world.values()[0].iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        // 240 differences, each of two weights and a product of three terms, rounded by 2⁻²⁴ of a few of the largest.
        let noise = 240_f64.sqrt() * 16.0 * 2_f64.powi(-24) * f64::from(largest);
        assert_eq!(singular.iter().filter(|s| **s > noise).count(), expected, "{singular:?} {noise}");
    }
    let mut world = linear(&[&[6, 5]]);
    updates("tezo", "lr = 1\nrank = 3", &mut world, 1);
    assert_eq!(rank(&world.world.values()[0], 6), 3);
}

#[test]
fn with_new_factors_each_step_and_a_core_of_ones_it_is_lozo() {
    let world = linear(&[&[6, 5]]).world;
    let (id, param) = first(&world);
    let clock = Clock { seed: 3, step: 4, steps: 9 };
    let mut span = Span::default();
    let ones = span.factors(&world, (3, epoch(clock, 1)), Rank::new(2)).direction(id, &[1.0, 1.0]);
    let mut lazy = Lazy::default();
    let v = lozo::right(&mut lazy, &world, (3, 4), Rank::new(2));
    let probe = lozo::probes(&world, clock, 1, v, Rank::new(2)).remove(0);
    let values = |direction: &Direction| crate::direction::materialize::direction(direction, param, &[0.0; 30]);
    assert_same_bits(&values(&ones), &values(probe.z.get(id).expect("trainable")), "U Vᵀ");
}

#[test]
fn an_interval_of_zero_is_the_whole_run() {
    let epochs = |interval| [0, 1, 5, 1000].map(|step| epoch(Clock { seed: 0, step, steps: 1001 }, interval));
    assert_eq!((epochs(0), epochs(5)), ([0; 4], [0, 0, 1, 200]));
}
