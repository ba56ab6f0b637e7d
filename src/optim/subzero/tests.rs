//! Spaces, the length of directions, and the moments of the estimate.

use super::*;
use crate::optim::fixture::{
    assert_applies_what_it_measured, build, dot, estimate, first, linear, moments, product, rank, run, transposed,
    updates, wide,
};

/// `U`, `V` and the first direction of the first step on [6, 5].
fn first_step(options: &str, seed: u64) -> (Vec<f64>, Vec<f64>, Probe) {
    let world = linear(&[&[6, 5]]).world;
    let table = options.parse().expect("TOML");
    let reader = crate::optim::OptionReader::new("subzero", &table, Options::SPECS.iter()).expect("options");
    let options = Options::read(&reader).expect("options");
    let schedule = Schedule { lr_schedule: crate::optim::schedule::Decay::Constant, warmup: 0 };
    let mut subzero = SubZero { options, schedule, left: Lazy::default(), right: Lazy::default() };
    let probe = subzero.probes(&world, Clock { seed, step: 0, steps: 1 }, 1).remove(0);
    let id = first(&world).0;
    let [u, v] = [(&mut subzero.left, Role::U), (&mut subzero.right, Role::V)].map(|(lazy, role)| {
        let kept = lazy.at(NoiseKey::new(seed, 0, role, 0), |_| unreachable!("drawn above"));
        wide(kept[&id].values())
    });
    (u, v, probe)
}

#[test]
fn what_is_applied_was_measured_on_steps_that_refresh_and_on_others() {
    for options in ["", "\nscale = \"1\"", "\nreshape = \"square\"", "\nestimator = \"slope\""] {
        let options = format!("lr = 0.0078125\nrank = 2\nepsilon = 1\nrefresh_interval = 2{options}");
        assert_applies_what_it_measured("subzero", &options, 6, 0.007_812_5);
    }
}

#[test]
fn an_update_lies_between_the_two_spaces_and_has_their_dimension() {
    let mut world = linear(&[&[6, 5]]).world;
    run(&mut *build("subzero", "lr = 1\nrank = 2\nqueries = 3"), &mut world, 3, 0..1);
    assert_eq!(rank(&world.values()[0], 6), 2);
    let (u, v, _) = first_step("rank = 2", 3);
    let update = wide(&world.values()[0]);
    let [rows, cols] = [&u, &v].map(|q| product(q, &transposed(q, 2), 2));
    let between = product(&product(&rows, &update, 6), &cols, 5);
    let norm = dot(&update, &update).sqrt();
    for (found, expected) in between.iter().zip(&update) {
        // U and V are orthonormal to 2·2⁻²⁴, and the update rounds three directions a few times.
        assert!((found - expected).abs() <= norm * 32.0 * 2_f64.powi(-24), "{found} {expected}");
    }
}

#[test]
fn a_direction_is_as_long_as_its_core_times_the_norm_factor() {
    for seed in 0..10 {
        let (_, _, probe) = first_step("rank = 3", seed);
        let world = linear(&[&[6, 5]]).world;
        let (id, param) = first(&world);
        let direction = probe.z.get(id).expect("trainable");
        let z = wide(&crate::direction::materialize::direction(direction, param, &[0.0; 30]));
        let core = wide(&probe.coordinates(&world, id));
        // ‖s U Z Vᵀ‖² = mn / r² ‖Z‖²; products of orthonormal factors, rounded a few times.
        let ratio = dot(&z, &z) / (30.0 / 9.0 * dot(&core, &core));
        assert!((ratio - 1.0).abs() < 64.0 * 2_f64.powi(-24), "{ratio}");
    }
}

#[test]
fn over_fresh_spaces_the_estimate_is_the_gradient_with_the_variance_of_theory() {
    let options = "lr = 1\nrank = 2\nestimator = \"slope\"";
    let samples: Vec<_> = (0..6000).map(|seed| estimate("subzero", options, &[&[3, 4]], seed)).collect();
    let g = &linear(&[&[3, 4]]).gradient[0];
    let found = moments(&samples, g);
    found.assert_mean(g);
    found.assert_square((12.0 * (1.0 + 2.0 / 4.0) - 1.0) * dot(g, g));
}

#[test]
fn while_the_spaces_stay_the_estimate_is_the_projection_of_the_gradient() {
    const STEPS: u64 = 6000;
    let mut linear = linear(&[&[6, 5]]);
    let options = format!("lr = 1\nrank = 2\nestimator = \"slope\"\nrefresh_interval = {STEPS}");
    let samples = updates("subzero", &options, &mut linear, STEPS);
    let (u, v, _) = first_step("rank = 2", 3);
    let g = &linear.gradient[0];
    let [rows, cols] = [&u, &v].map(|q| product(q, &transposed(q, 2), 2));
    // s² = mn / r²
    let expected: Vec<_> = product(&product(&rows, g, 6), &cols, 5).iter().map(|x| x * 30.0 / 4.0).collect();
    let found = moments(&samples, &expected);
    found.assert_mean(&expected);
    let sketch = product(&product(&transposed(&u, 2), g, 6), &v, 5);
    found.assert_square((30.0_f64 / 4.0).powi(2) * (4.0 + 1.0) * dot(&sketch, &sketch));
}

#[test]
fn a_square_matrix_of_full_rank_is_probed_as_by_mezo_with_no_scale() {
    // s = √(n n) / n = 1, and an orthogonal Z between orthogonal factors keeps its law: E ‖c Z‖² = (n² + 2) ‖G‖².
    let options = "lr = 1\nrank = 3\nestimator = \"slope\"";
    let samples: Vec<_> = (0..6000).map(|seed| estimate("subzero", options, &[&[3, 3]], seed)).collect();
    let g = &linear(&[&[3, 3]]).gradient[0];
    let found = moments(&samples, g);
    found.assert_mean(g);
    found.assert_square((9.0 + 1.0) * dot(g, g));
}

#[test]
fn a_count_is_cut_as_nearly_square_as_it_can_be() {
    for (count, expected) in [(12, (3, 4)), (7, (1, 7)), (4096, (64, 64)), (2048 * 8, (128, 128)), (1, (1, 1))] {
        assert_eq!(most_square(count), expected);
    }
}

#[test]
fn a_reshaped_direction_is_the_same_values_in_other_rows() {
    let (left, right) = (Factor::new(vec![1.0, 2.0, 3.0], 1), Factor::new(vec![1.0, 10.0, 100.0, 1000.0], 1));
    let whole = product(&wide(left.values()), &wide(right.values()), 1);
    for cols in [1, 2, 3, 4, 6, 12] {
        let reshaped = Reshaped { left: left.clone(), right: right.clone(), cols };
        let mut found = vec![0.0; 12];
        for (row, out) in found.chunks_exact_mut(cols).enumerate() {
            // Asked for in two pieces, as a matmul may.
            let (head, tail) = out.split_at_mut(cols / 2);
            reshaped.row(row, 0..cols / 2, head);
            reshaped.row(row, cols / 2..cols, tail);
        }
        assert_eq!(wide(&found), whole, "{cols}");
    }
}

#[test]
fn reshaping_gives_a_thin_matrix_a_rank_beyond_its_short_side() {
    // [2, 8] is seen as [4, 4]: an update of rank 3 there.
    let mut world = linear(&[&[2, 8]]).world;
    run(&mut *build("subzero", "lr = 1\nrank = 3\nreshape = \"square\""), &mut world, 3, 0..1);
    assert_eq!(rank(&world.values()[0], 4), 3);
}

#[test]
fn a_rank_beyond_the_shorter_side_is_lowered_to_it() {
    let end = |rank: u32| {
        let mut world = linear(&[&[3, 4], &[2], &[1, 5]]).world;
        run(&mut *build("subzero", &format!("lr = 1e-3\nrank = {rank}")), &mut world, 3, 0..3);
        world.values().to_vec()
    };
    assert_eq!(end(3), end(700));
}
