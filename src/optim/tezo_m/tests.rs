//! r numbers carry the whole mean.

use super::*;
use crate::optim::fixture::{
    build, dot, fails_without_a_trace, first, linear, product, run, transposed, updates, wide,
};

#[test]
fn a_few_numbers_carry_the_mean_of_whole_estimates() {
    for interval in [0, 4] {
        let mut linear = linear(&[&[6, 5], &[4]]);
        let options =
            format!("lr = 1\nrank = 3\nestimator = \"slope\"\nmomentum = 0.75\nrefresh_interval = {interval}");
        let mut optimizer = build("tezo_m", &options);
        let reports = run(&mut *optimizer, &mut linear.world, 3, 0..9);
        let (id, mut span) = (first(&linear.world).0, Span::default());
        let (mut mean, mut place, mut size) = (vec![0.0; 30], vec![0.0; 30], 0.0_f64);
        for (step, report) in (0..).zip(reports) {
            let clock = Clock { seed: 3, step, steps: 9 };
            let factors = span.factors(&linear.world, (3, epoch(clock, interval)), Rank::new(3));
            let tau = wide(&factors.probes(&linear.world, clock, Queries::new(1))[0].coordinates(&linear.world, id));
            let [u, v] = [factors.left, factors.right].map(|factor| wide(factor[&id].values()));
            let scaled: Vec<_> = u.iter().enumerate().map(|(at, u)| u * tau[at % 3]).collect();
            let z = product(&scaled, &transposed(&v, 3), 3);
            if interval > 0 && step % interval == 0 {
                mean.fill(0.0);
            }
            let slope = report.projected_grads[0];
            for ((mean, place), z) in mean.iter_mut().zip(&mut place).zip(&z) {
                *mean = 0.75 * *mean + 0.25 * slope * z;
                *place -= *mean / 3.0;
            }
            size = size.max(slope.abs() * (dot(&scaled, &scaled) * dot(&v, &v)).sqrt());
        }
        for (found, expected) in linear.world.values()[0].iter().zip(&place) {
            // As LOZO-M's: 64 roundings a step, each 2⁻²⁴ of the largest estimate, are more than all.
            let bound = 9.0 * 64.0 * 2_f64.powi(-24) * size;
            assert!((f64::from(*found) - expected).abs() <= bound, "{found} {expected} ± {bound}");
            assert!(size > 1.0, "nothing moved");
        }
    }
}

#[test]
fn without_momentum_it_is_tezo_up_to_the_rounding_of_its_coordinates() {
    let end = |name: &str, options: &str| {
        let mut linear = linear(&[&[6, 5], &[4]]);
        updates(name, &format!("lr = 0.125\nrank = 3\n{options}"), &mut linear, 7);
        linear.world.values().to_vec()
    };
    let (plain, zero) = (end("tezo", ""), end("tezo_m", "momentum = 0"));
    let largest = plain.iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (plain, zero) in plain.iter().flatten().zip(zero.iter().flatten()) {
        // κ τ is rounded before it meets U and V: seven steps of estimates at most eight times as large as where they
        // lead.
        assert!((plain - zero).abs() <= 7.0 * 8.0 * 16.0 * 2_f32.powi(-24) * largest, "{plain} {zero}");
    }
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_mean_and_its_window_as_they_were() {
    fails_without_a_trace("tezo_m", "lr = 1\nrefresh_interval = 4\nmomentum = 0.5\nrank = 2", 4);
}
