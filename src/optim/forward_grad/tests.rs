//! Slopes against their definition, and what several tangents make of them.

use std::sync::Arc;

use super::*;
use crate::{
    direction::{DirectionSet, materialize},
    optim::{
        Positive, Space,
        fixture::{build, dot, estimate, linear, moments, run},
        parts::spsa::Estimator,
    },
    testing::{
        assert_same_bits,
        worlds::{self, Dual, Facts, World},
    },
};

/// The tangents of the first step.
fn tangents(world: &World, law: Law, count: u32) -> Vec<Arc<DirectionSet>> {
    spsa::directions(world, Clock { seed: 3, step: 0, steps: 1 }, law, count)
}

/// `Σ xᵢ³` from 1.5.
fn cubic() -> World {
    let loss = |values: &[Vec<Dual>], _| values[0].iter().map(|x| *x * *x * *x).collect();
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    World::new(&[("x", &[20], vec![1.5; 20], vec![0.0; 20])], &[], facts, Box::new(loss))
}

#[test]
fn a_slope_is_the_limit_of_central_differences_whose_error_falls_with_the_square_of_epsilon() {
    let mut world = cubic();
    let v = tangents(&world, Law::Rademacher, 3);
    let batch = world.draw(Pool::Train, None).expect("a toy");
    let exact = spsa::slopes(&mut world, batch, &v, Owners::All).expect("a toy").projected_grads;
    for exponent in 1..=8 {
        let epsilon = 0.5_f64.powi(exponent);
        let differences = spsa::estimate(&mut world, batch, &v, (Estimator::TwoSided, Positive::new(epsilon)));
        let differences = differences.expect("a toy").projected_grads;
        for (set, (exact, difference)) in v.iter().zip(exact.iter().zip(differences)) {
            // (x + εv)³ − (x − εv)³ over 2ε is 3x²v + ε²v³, and v³ = v. Values of ten bits have cubes of thirty: all of it
            // is exact.
            let (id, param) = Space::params(&world).iter().next().expect("one");
            let v = materialize::direction(set.get(id).expect("drawn for it"), param, &[0.0; 20]);
            let sum: f64 = v.into_iter().map(f64::from).sum();
            assert_eq!(difference - exact, epsilon * epsilon * sum, "ε = {epsilon}");
        }
    }
}

#[test]
fn a_slope_is_the_product_of_the_tangent_with_the_gradient_that_goes_the_other_way() {
    for world in [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression, worlds::mixed_ranks] {
        for (law, name) in [(Law::Gaussian, "gaussian"), (Law::Rademacher, "rademacher")] {
            let (start, mut world) = (world(), world());
            let options = format!("lr = 1e-3\nqueries = 3\ntangents = {name:?}");
            let report = run(&mut *build("forward_grad", &options), &mut world, 3, 0..1).remove(0);
            for (set, slope) in tangents(&start, law, 3).iter().zip(&report.projected_grads) {
                let (mut expected, mut magnitude) = (0.0, 0.0);
                for &id in Space::trainable(&start) {
                    let param = &Space::params(&start)[id];
                    let v = materialize::direction(set.get(id).expect("trainable"), param, &start.values()[id.index()]);
                    for (v, g) in v.iter().zip(start.gradient(id, 0)) {
                        expected += f64::from(*v) * g;
                        magnitude += (f64::from(*v) * g).abs();
                    }
                }
                // Some dozens of f64 operations, each rounded to 2⁻⁵³ of terms that are a few times the gradient's.
                assert!((slope - expected).abs() <= 1e-12 * magnitude, "{name}: {slope} {expected}");
            }
        }
    }
}

#[test]
fn with_the_tangents_of_mezo_it_is_mezo_by_exact_slopes() {
    for world in [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression, worlds::mixed_ranks] {
        for options in ["queries = 1", "queries = 3\nweight_decay = 0.5", "queries = 2\naggregate = \"least-squares\""]
        {
            let end = |name, more| {
                let mut world = world();
                run(&mut *build(name, &format!("lr = 1e-4\n{options}\n{more}")), &mut world, 3, 0..6);
                world.values().concat()
            };
            assert_same_bits(&end("forward_grad", ""), &end("mezo", "estimator = \"slope\""), options);
        }
    }
}

#[test]
fn the_estimate_is_the_gradient_with_the_variance_of_its_law_and_aggregate() {
    let (shape, n): (&[usize], _) = (&[8], 8.0);
    for queries in [1.0, 3.0] {
        for (options, variance) in [
            ("tangents = \"gaussian\"", (n + 1.0) / queries),
            ("tangents = \"rademacher\"", (n - 1.0) / queries),
            // n/q times the projection on a random space of q dimensions, of which E ‖Pg‖² = q/n ‖g‖².
            ("aggregate = \"least-squares\"", n / queries - 1.0),
        ] {
            let options = format!("lr = 1\nqueries = {queries}\n{options}");
            let samples: Vec<_> = (0..6000).map(|seed| estimate("forward_grad", &options, &[shape], seed)).collect();
            let g = &linear(&[shape]).gradient[0];
            let found = moments(&samples, g);
            found.assert_mean(g);
            found.assert_square(variance * dot(g, g));
        }
    }
}

#[test]
fn the_reported_loss_is_that_of_theta_and_slopes_are_counted_with_it() {
    let mut world = worlds::quadratic();
    let before = world.loss(0);
    let report = run(&mut *build("forward_grad", ""), &mut world, 3, 0..1).remove(0);
    assert_eq!((report.loss, report.projected_grads.len(), report.evaluations), (before, 4, 5));
}
