//! What normalising by the spread of the losses promises.

use super::*;
use crate::{
    direction::Coefficients,
    optim::Space,
    testing::{
        record::Recording,
        worlds::{Dual, Facts, World, uniform},
    },
};

const FACTS: Facts = Facts { smoothness: 1.0, convexity: 0.0 };

/// `scale · Σ (i + 1)·xᵢ² + shift` from a fixed start.
fn bowl(scale: f64, shift: f64) -> World {
    let loss = move |values: &[Vec<Dual>], _| {
        let squares = values[0].iter().enumerate().map(|(i, x)| Dual::from(scale * (i + 1) as f64) * *x * *x);
        squares.chain([Dual::from(shift)]).collect()
    };
    World::new(&[("x", &[10], uniform(10, 1), vec![0.0; 10])], &[], FACTS, Box::new(loss))
}

fn coefficients(world: World, options: &str) -> Vec<f32> {
    let mut oracle = Recording::new(world);
    let mut fzoo = ENTRY.build(&options.parse().expect("TOML")).expect("options of the test");
    fzoo.step(&mut oracle, Clock { seed: 3, step: 0, steps: 1 }).expect("a finite loss");
    let one = |coefficients: &Coefficients| match coefficients {
        Coefficients::One(coefficient) => *coefficient,
        Coefficients::PerParam(_) => panic!("one scale for all parameters"),
    };
    oracle.updates[0].terms.iter().map(|term| one(&term.coefficients)).collect()
}

#[test]
fn a_step_does_not_see_the_scale_of_the_loss() {
    // A power of two scales every sum, square and root exactly.
    assert_eq!(coefficients(bowl(1.0, 0.0), "lr = 1"), coefficients(bowl(64.0, 0.0), "lr = 1"));
}

#[test]
fn a_step_does_not_see_the_offset_of_the_loss() {
    let (plain, raised) = (coefficients(bowl(1.0, 0.0), "lr = 1"), coefficients(bowl(1.0, 100.0), "lr = 1"));
    // Losses near 100 are rounded to 2⁻⁴⁷; over ε = 1e-4 and slopes whose spread exceeds 1, with room for the two
    // losses of a slope and its share of the spread, 1e-9. A coefficient is then an f32 of at most 1.
    plain.iter().zip(&raised).for_each(|(a, b)| assert!((a - b).abs() < 1e-9 + f32::EPSILON, "{a} {b}"));
}

#[test]
fn the_squares_of_the_coefficients_sum_to_at_least_the_rate_squared_over_the_queries() {
    // Σ p² ≥ N·var p, so Σ (p / (N std))² ≥ 1/N: the step is never shorter than its bound says.
    let sum: f64 = coefficients(bowl(1.0, 0.0), "lr = 1").iter().map(|c| f64::from(*c).powi(2)).sum();
    assert!(sum >= (1.0 - 1e-6) / 8.0, "{sum}");
}

#[test]
fn every_weight_moves_by_the_coefficients_up_to_sign() {
    let mut oracle = Recording::new(bowl(1.0, 0.0));
    let mut fzoo = ENTRY.build(&"lr = 1\nqueries = 2".parse().expect("TOML")).expect("options of the test");
    fzoo.step(&mut oracle, Clock { seed: 3, step: 0, steps: 1 }).expect("a finite loss");
    let id = oracle.inner.trainable()[0];
    let [a, b] = [0, 1].map(|term: usize| oracle.updates[0].terms[term].coefficients.of(id).abs());
    for (after, before) in oracle.inner.values()[0].iter().zip(bowl(1.0, 0.0).values()[0].iter()) {
        let moved = (after - before).abs();
        // Two fused multiply-adds and this difference round values below 4: three errors of at most 2⁻²³.
        let error = (moved - (a + b)).abs().min((moved - (a - b).abs()).abs());
        assert!(error <= 3.0 * 2_f32.powi(-23), "{moved} is neither {a} + {b} nor their difference");
    }
}

#[test]
fn nothing_moves_where_all_losses_are_equal() {
    assert_eq!(coefficients(bowl(0.0, 7.0), "lr = 1"), [0.0; 8]);
    assert_eq!(coefficients(bowl(1.0, 0.0), "lr = 1\nqueries = 1"), [0.0], "one loss has no spread");
}
