//! Momentum in the coordinates of `V` is momentum.

use super::*;
use crate::optim::fixture::{build, dot, fails_without_a_trace, first, linear, product, rank, run, transposed, wide};

/// `U` of a step and `V` of an epoch, of rank 2 for [6, 5].
fn factors(step: u64, epoch: u64) -> (Vec<f64>, Vec<f64>) {
    let world = linear(&[&[6, 5]]).world;
    let mut lazy = Lazy::default();
    let v = right(&mut lazy, &world, (3, epoch), Rank::new(2));
    let id = first(&world).0;
    let probe = probes(&world, Clock { seed: 3, step, steps: 9 }, 1, v, Rank::new(2)).remove(0);
    (wide(&probe.coordinates(&world, id)), wide(v[&id].values()))
}

/// Where nine steps of rate 1 lead, windows of `interval`, and where momentum of whole estimates leads, which each
/// window brings over by `carry`. A slope of a linear loss is its direction's.
fn run_beside(options: &str, interval: u64, carry: impl Fn(&[f64], u64) -> Vec<f64>) {
    let mut linear = linear(&[&[6, 5]]);
    let options = format!("lr = 1\nestimator = \"slope\"\nrefresh_interval = {interval}\n{options}");
    run(&mut *build("lozo_m", &options), &mut linear.world, 3, 0..9);
    let (mut mean, mut place, mut size) = (vec![0.0; 30], vec![0.0; 30], 0.0_f64);
    for step in 0..9 {
        if step > 0 && step % interval == 0 {
            mean = carry(&mean, step / interval);
        }
        let (u, v) = factors(step, step / interval);
        let z = product(&u, &transposed(&v, 2), 2);
        let slope = dot(&z, &linear.gradient[0]);
        for ((mean, place), z) in mean.iter_mut().zip(&mut place).zip(&z) {
            *mean = 0.75 * *mean + 0.25 * slope * z;
            *place -= *mean / 2.0;
        }
        let lengths = dot(&u, &u).sqrt() * dot(&v, &v).sqrt();
        size = size.max(slope.abs() * lengths);
    }
    for (found, expected) in linear.world.values()[0].iter().zip(&place) {
        // A step rounds the slope, N, N Vᵀ and W a few times, each by 2⁻²⁴ of the largest estimate at most, and W at
        // its own size, at most nine such; a projection rounds as often again: 64 roundings a step are more than all.
        let bound = 9.0 * 64.0 * 2_f64.powi(-24) * size;
        assert!((f64::from(*found) - expected).abs() <= bound, "{found} {expected} ± {bound}");
        assert!(size > 1.0, "nothing moved");
    }
}

#[test]
fn within_a_window_the_factor_carries_the_mean_of_whole_estimates() {
    run_beside("momentum = 0.75", 9, |_, _| unreachable!("one window"));
}

#[test]
fn a_new_v_gets_the_projection_of_what_the_old_one_carried() {
    run_beside("momentum = 0.75", 4, |mean, epoch| {
        // N V_oldᵀ V / n · Vᵀ
        let v = factors(0, epoch).1;
        product(&product(mean, &v, 5), &transposed(&v, 2), 2).iter().map(|x| x / 5.0).collect()
    });
    run_beside("momentum = 0.75\non_refresh = \"zero\"", 4, |mean, _| vec![0.0; mean.len()]);
}

#[test]
fn without_momentum_it_is_lozo_up_to_the_rounding_of_its_factor() {
    let end = |name: &str, options: &str| {
        let mut world = linear(&[&[6, 5], &[4]]).world;
        run(&mut *build(name, &format!("lr = 0.125\nrefresh_interval = 3\n{options}")), &mut world, 3, 0..7);
        world.values().to_vec()
    };
    let (plain, zero) = (end("lozo", ""), end("lozo_m", "momentum = 0"));
    let largest = plain.iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (plain, zero) in plain.iter().flatten().zip(zero.iter().flatten()) {
        // c·U is rounded before it meets Vᵀ, and not after: a few 2⁻²⁴ of an estimate a step, seven steps, and what a
        // slope changes by for it; estimates are at most eight times as large as where they lead.
        assert!((plain - zero).abs() <= 7.0 * 8.0 * 16.0 * 2_f32.powi(-24) * largest, "{plain} {zero}");
    }
}

#[test]
fn an_update_keeps_the_rank_of_the_option() {
    let mut world = linear(&[&[6, 5]]).world;
    let mut optimizer = build("lozo_m", "lr = 1\nrefresh_interval = 4");
    for step in 0..6 {
        let before = world.values()[0].clone();
        run(&mut *optimizer, &mut world, 3, step..step + 1);
        // The first update starts at zero, later ones are differences of rounded weights.
        if step == 0 {
            assert_eq!(rank(&world.values()[0], 6), 2);
        }
        assert!(world.values()[0] != before);
    }
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_mean_and_its_window_as_they_were() {
    // Step 4 opens a window and fails; step 5 must still bring the mean over from the old one.
    fails_without_a_trace("lozo_m", "lr = 1\nrefresh_interval = 4\nmomentum = 0.5", 4);
}

#[test]
fn a_run_whose_first_window_fails_begins_in_the_second() {
    let mut world = linear(&[&[6, 5]]).world.failing(0..3, f64::NAN);
    let mut optimizer = build("lozo_m", "lr = 1\nrefresh_interval = 2");
    let reports = run(&mut *optimizer, &mut world, 3, 0..6);
    assert_eq!(reports.iter().filter(|report| report.nonfinite).count(), 3);
    assert!(reports[5].update_rms > 0.0);
}
