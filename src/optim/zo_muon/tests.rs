//! Singular values of updates, what cancels, and what is left without orthogonalisation.

use super::*;
use crate::{
    linalg::orthogonalize::singular_values,
    optim::fixture::{Linear, build, dot, first, flat, linear, product, rank, run, scaled, transposed, updates, wide},
    tensor::MatRef,
};

/// `P` and the first `Ψ` of a step for [6, 5].
fn step(step: u64, interval: u64, columns: u32) -> (Vec<f64>, Vec<f64>) {
    let world = linear(&[&[6, 5]]).world;
    let id = first(&world).0;
    let p = projection(&world, key(3, step / interval), Rank::new(columns));
    let clock = Clock { seed: 3, step, steps: step + 1 };
    let probe = probes(&world, clock, 1, &p, Rank::new(columns)).remove(0);
    (wide(p[&id].values()), transposed(&wide(&probe.coordinates(&world, id)), columns as usize))
}

fn updated(options: &str) -> Vec<f32> {
    let mut world = linear(&[&[6, 5]]).world;
    run(&mut *build("zo_muon", options), &mut world, 3, 0..1);
    world.values()[0].clone()
}

#[test]
fn all_singular_values_of_an_exact_step_are_the_rate_and_of_newton_schulz_in_its_band() {
    for columns in [1, 3, 5, 6] {
        for (name, low, high) in [("polar", 1.0 - 1e-6, 1.0 + 1e-6), ("newton-schulz", 0.68, 1.2025)] {
            let options = format!("lr = 0.5\nrank = {columns}\nqueries = 6\northogonalize = {name:?}");
            let singular = singular_values(MatRef::new(&updated(&options), 6, 5));
            let rank = usize::min(columns, 5);
            for (at, value) in singular.iter().map(|value| value / 0.5).enumerate() {
                // P, O and their product are rounded to 2⁻²⁴ a few times; Newton-Schulz needs singular values above
                // 0.01 of the norm, which six Gaussian probes of these sizes have.
                let within = if at < rank { (low..=high).contains(&value) } else { value < 1e-5 };
                assert!(within, "{name} {columns}: {singular:?}");
            }
        }
    }
}

#[test]
fn an_update_lies_in_the_column_space_and_has_its_dimension() {
    for orthogonalize in ["newton-schulz", "polar", "none"] {
        let update = updated(&format!("lr = 1\nrank = 2\northogonalize = {orthogonalize:?}"));
        assert_eq!(rank(&update, 6), 2);
        let (update, p) = (wide(&update), step(0, 1, 2).0);
        let onto = product(&product(&p, &transposed(&p, 2), 2), &update, 6);
        let norm = dot(&update, &update).sqrt();
        for (found, expected) in onto.iter().zip(&update) {
            // P is orthonormal to 2·2⁻²⁴, and four directions round a few times.
            assert!((found - expected).abs() <= norm * 48.0 * 2_f64.powi(-24), "{found} {expected}");
        }
    }
}

#[test]
fn what_is_applied_was_measured_on_steps_that_refresh_and_on_others() {
    // Of one row the orthogonal factor is sign(c) Ψ / ‖Ψ‖: the loss falls by η |c| / ‖Ψ‖ if Ψ and P are those that gave
    // c.
    let mut linear = linear(&[&[6, 5]]);
    let options =
        "lr = 0.5\nrank = 1\nqueries = 1\nestimator = \"slope\"\northogonalize = \"polar\"\nrefresh_interval = 2";
    let slopes: Vec<f64> = (0..6)
        .map(|at| {
            let (p, psi) = step(at, 2, 1);
            dot(&product(&p, &psi, 1), &linear.gradient[0]) / dot(&psi, &psi).sqrt()
        })
        .collect();
    for (update, slope) in updates("zo_muon", options, &mut linear, 6).iter().zip(slopes) {
        let fall = dot(update, &linear.gradient[0]);
        // Thirty weights below 4 are rounded to 2⁻²³, and weigh 1 or less; factors to 2⁻²⁴.
        assert!((fall - 0.5 * slope.abs()).abs() <= 60.0 * 2_f64.powi(-23), "{fall} {slope}");
        assert!(slope.abs() > 1e-2, "too small to tell");
    }
}

#[test]
fn the_scale_of_the_loss_cancels() {
    // A power of two scales every slope and sum exactly.
    let end = |scale: f64| {
        let mut world = scaled(&[&[6, 5]], scale).world;
        run(&mut *build("zo_muon", "lr = 0.5\nepsilon = 0.5\nrank = 2\nestimator = \"slope\""), &mut world, 3, 0..5);
        world.values().to_vec()
    };
    assert_eq!(end(1.0), end(1024.0));
}

#[test]
fn a_step_along_the_exact_sketch_goes_down() {
    for seed in 0..20_u32 {
        let Linear { world, gradient } = scaled(&[&[6, 5]], 1.0 + f64::from(seed));
        let (id, param) = first(&world);
        let p = projection(&world, key(u64::from(seed), 0), Rank::new(3));
        let sketch = product(&transposed(&wide(p[&id].values()), 3), &gradient[0], 6);
        let sketch: Vec<f32> = transposed(&sketch, 5).iter().map(|x| *x as f32).collect();
        let coordinates = Coordinates::from([(id, sketch)]);
        for orthogonalize in [Orthogonalize::NewtonSchulz, Orthogonalize::Polar] {
            let set = lift(&world, &p, &coordinates, |_, estimate| orthogonalize.apply(&world, estimate));
            let direction = set.get(id).expect("trainable");
            let along = crate::direction::materialize::direction(direction, param, &[0.0; 30]);
            assert!(dot(&wide(&along), &gradient[0]) > 0.0);
        }
    }
}

#[test]
fn with_one_two_sided_query_and_no_orthogonalisation_it_is_subspace_mezo() {
    let end = |name: &str, options: &str| {
        let mut world = linear(&[&[6, 5], &[4]]).world;
        let options = format!("lr = 0.25\nrank = 2\nrefresh_interval = 3\n{options}");
        run(&mut *build(name, &options), &mut world, 3, 0..7);
        world.values().to_vec()
    };
    let plain = "queries = 1\nestimator = \"two-sided\"\northogonalize = \"none\"";
    assert_eq!(end("zo_muon", plain), end("subspace_mezo", ""));
}

#[test]
fn a_step_costs_a_forward_a_query_and_one_for_all() {
    let mut world = linear(&[&[6, 5]]).world;
    let report = run(&mut *build("zo_muon", ""), &mut world, 3, 0..1).remove(0);
    assert_eq!((report.evaluations, report.projected_grads.len()), (5, 4));
}

#[test]
fn without_any_slope_nothing_moves() {
    for orthogonalize in ["newton-schulz", "polar", "none"] {
        let mut world = flat(&[6, 5]);
        let options = format!("lr = 1\northogonalize = {orthogonalize:?}");
        let report = run(&mut *build("zo_muon", &options), &mut world, 3, 0..1).remove(0);
        assert!(!report.nonfinite && world.values()[0].iter().all(|x| *x == 0.5));
    }
}
