//! The quotient is that of dense Adam where it can be, and sound where it cannot.

use proptest::prelude::*;

use super::*;
use crate::{
    kernels::Isa,
    optim::fixture::{build, dot, first, flat, linear, product, run, transposed, wide},
    testing::assert_same_bits,
};

#[test]
fn of_rank_one_the_means_are_those_of_whole_estimates() {
    // M / √(S + δ) with M, S the running means of κZ and (κZ)², which for r = 1 are products of two vectors.
    let mut linear = linear(&[&[6, 5]]);
    let options = "lr = 1\nrank = 1\nestimator = \"slope\"\nmomentum = 0.5\nbeta2 = 0.75\nadam_epsilon = 1e-18";
    let reports = run(&mut *build("tezo_adam", options), &mut linear.world, 3, 0..6);
    let (id, mut span) = (first(&linear.world).0, Span::default());
    let (mut mean, mut square, mut place) = (vec![0.0; 30], vec![0.0; 30], vec![0.0; 30]);
    for (step, report) in (0..).zip(reports) {
        let factors = span.factors(&linear.world, (3, 0), Rank::new(1));
        let clock = Clock { seed: 3, step, steps: 6 };
        let tau = wide(&factors.probes(&linear.world, clock, Queries::new(1))[0].coordinates(&linear.world, id))[0];
        let [u, v] = [factors.left, factors.right].map(|factor| wide(factor[&id].values()));
        let estimate = product(&u, &transposed(&v, 1), 1);
        for ((z, mean), (square, place)) in estimate.iter().zip(&mut mean).zip(square.iter_mut().zip(&mut place)) {
            let g = report.projected_grads[0] * tau * z;
            *mean = 0.5 * *mean + 0.5 * g;
            *square = 0.75 * *square + 0.25 * g * g;
            *place -= *mean / square.sqrt();
        }
    }
    for (found, expected) in linear.world.values()[0].iter().zip(&place) {
        // μ, ν and their products round a dozen times; where terms of μ cancel it is rounded at the size of √ν, of
        // which it is at most 2, and so is the place, at most six such steps.
        assert!((f64::from(*found) - expected).abs() <= 6.0 * 2.0 * 32.0 * 2_f64.powi(-24), "{found} {expected}");
    }
}

#[test]
fn without_memory_a_step_of_rank_one_is_the_sign_of_the_estimate() {
    let mut linear = linear(&[&[6, 5], &[4]]);
    let options = "lr = 1\nrank = 1\nmomentum = 0\nbeta2 = 0\nadam_epsilon = 1e-18";
    let report = run(&mut *build("tezo_adam", options), &mut linear.world, 3, 0..1).remove(0);
    let mut fall = 0.0;
    for (values, gradient) in linear.world.values().iter().zip(&linear.gradient) {
        for value in values {
            // A root of a square and a quotient, of products that are rounded five times.
            assert!((value.abs() - 1.0).abs() <= 16.0 * 2_f32.powi(-24), "{value}");
        }
        fall -= dot(&wide(values), gradient);
    }
    assert!(report.projected_grads[0] != 0.0 && fall != 0.0);
}

#[test]
fn the_first_step_of_the_defaults_is_no_larger_than_any_other() {
    let mut linear = linear(&[&[4]]);
    run(&mut *build("tezo_adam", "lr = 1"), &mut linear.world, 3, 0..1);
    for value in &linear.world.values()[0] {
        // (1 − β₁) g / √((1 − β₂) g² + δ) = ±1, less δ / 2ν = 5e-7 / g² with slopes above 0.01, rounded.
        assert!((value.abs() - 1.0).abs() < 6e-3, "{value}");
    }
}

proptest! {
    #[test]
    fn rows_are_the_quotient_of_two_products_whichever_columns_are_asked_for(
        seed in any::<u64>(), rank in 1_u32..6, cut in 0_usize..=5,
    ) {
        let world = linear(&[&[6, 5]]).world;
        let (id, mut span) = (first(&world).0, Span::default());
        let factors = span.factors(&world, (seed, 0), Rank::new(rank));
        let clock = Clock { seed, step: 0, steps: 1 };
        let tau = factors.probes(&world, clock, Queries::new(1))[0].coordinates(&world, id);
        let square: Vec<f32> = tau.iter().map(|tau| tau * tau).collect();
        let rows = |isa| {
            let cx = Context::new(isa);
            let rule = Quotient::new(cx, (&factors.left[&id], &factors.right[&id]), (&tau, &square), 1e-8);
            let mut out = vec![f32::NAN; 30];
            for (row, out) in out.chunks_exact_mut(5).enumerate() {
                let (head, tail) = out.split_at_mut(cut);
                rule.row(row, 0..cut, head);
                rule.row(row, cut..5, tail);
            }
            out
        };
        let found = rows(Isa::fastest());
        Isa::available().into_iter().for_each(|isa| assert_same_bits(&rows(isa), &found, "another instruction set"));
        let r = rank as usize;
        let [u, v] = [factors.left, factors.right].map(|factor| wide(factor[&id].values()));
        for (at, found) in found.iter().enumerate() {
            let tau = || tau.iter().copied().map(f64::from);
            let pairs = || u[at / 5 * r..][..r].iter().zip(&v[at % 5 * r..][..r]).zip(tau());
            let mean: f64 = pairs().map(|((u, v), tau)| u * tau * v).sum();
            let square: f64 = pairs().map(|((u, v), tau)| (u * tau * v).powi(2)).sum();
            // |M| ≤ √r √S: both are rounded at the size of their terms, which √S bounds.
            let expected = mean / (square + f64::from(1e-8_f32)).sqrt();
            prop_assert!((f64::from(*found) - expected).abs() <= 64.0 * 2_f64.powi(-24), "{} {}", found, expected);
            prop_assert!(found.abs() <= (r as f32).sqrt() * (1.0 + 1e-5));
        }
    }
}

#[test]
fn without_any_slope_nothing_moves() {
    let mut world = flat(&[6, 5]);
    let report = run(&mut *build("tezo_adam", "lr = 1"), &mut world, 3, 0..1).remove(0);
    assert!(!report.nonfinite && world.values()[0].iter().all(|x| *x == 0.5));
}
