//! What the partial orthogonalisation promises, and what a new space keeps.

use super::*;
use crate::{
    linalg::orthogonalize::polar,
    optim::fixture::{build, dot, first, flat, linear, product, rank, run, scaled, transposed, updates, wide},
    tensor::MatMut,
    testing::worlds::uniform,
};

const RELEASED: &str = "momentum = 0\nprojection = \"random\"\nreset_v_on_p_refresh = true";

fn options(text: &str) -> Options {
    let table = text.parse().expect("TOML");
    let reader = crate::optim::OptionReader::new("zo_mopi", &table, Options::SPECS.iter()).expect("options");
    Options::read(&reader).expect("options")
}

/// A frame on [6, 5] whose momentum is this `M` `[3, 5]`.
fn frame(space: &dyn Space, m: &[f32], options: &Options) -> Frame {
    let mut frame = Frame::default();
    frame.enter(space, (3, 0), options);
    let param = &space.params()[space.trainable()[0]];
    frame.momentum.set(param, Factor::new(m, 5).transposed().into_values());
    frame
}

fn assert_orthonormal(q: &Factor) {
    let values = wide(q.values());
    let gram = product(&transposed(&values, q.rank()), &values, q.rows());
    for (at, x) in gram.iter().enumerate() {
        let expected = if at % (q.rank() + 1) == 0 { 1.0 } else { 0.0 };
        assert!((x - expected).abs() <= 2.0 * 2_f64.powi(-24), "{x}");
    }
}

#[test]
fn an_update_has_the_length_of_k_unit_directions_and_lies_in_the_column_space() {
    for released in ["", RELEASED] {
        for k in [1, 2, 3] {
            let mut world = linear(&[&[6, 5]]).world;
            run(&mut *build("zo_mopi", &format!("lr = 0.5\nrank = 3\nk = {k}\n{released}")), &mut world, 3, 0..1);
            let update = wide(&world.values()[0]);
            // Columns of U of length one before orthonormal rows and behind orthonormal columns.
            assert!((dot(&update, &update) - 0.25 * f64::from(k)).abs() < 1e-5, "{}", dot(&update, &update));
            assert!(rank(&world.values()[0], 6) <= k as usize);
            let p = wide(projection(&world, key(3, 0), Rank::new(3))[&first(&world).0].values());
            let onto = product(&product(&p, &transposed(&p, 3), 3), &update, 6);
            for (found, expected) in onto.iter().zip(&update) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }
}

#[test]
fn of_one_direction_it_is_zo_muon_with_the_exact_polar_factor() {
    // M is a row: V = Mᵀ / ‖M‖ and U = 1, whatever V was.
    let end = |name: &str, options: &str| {
        let mut linear = linear(&[&[6, 5], &[4]]);
        let options = format!("lr = 0.5\none_d_lr = 0.5\nrank = 1\nqueries = 2\nestimator = \"slope\"\n{options}");
        updates(name, &format!("{options}\nrefresh_interval = 3"), &mut linear, 7);
        linear.world.values().to_vec()
    };
    let (muon, mopi) = (end("zo_muon", "orthogonalize = \"polar\""), end("zo_mopi", &format!("k = 1\n{RELEASED}")));
    for (muon, mopi) in muon.iter().flatten().zip(mopi.iter().flatten()) {
        // Both round P O and weights below 16 a few times in each of seven steps.
        assert!((muon - mopi).abs() <= 7.0 * 8.0 * 2_f32.powi(-21), "{muon} {mopi}");
    }
}

#[test]
fn sweeps_over_one_matrix_converge_to_its_polar_factor_and_always_go_along_it() {
    let world = linear(&[&[1, 1]]).world;
    // Singular values with gaps: rows scaled by powers of four.
    let m: Vec<f32> = uniform(15, 7).iter().enumerate().map(|(at, x)| x * 0.25_f32.powi(at as i32 / 5)).collect();
    let mut exact = vec![0.0; 15];
    polar(crate::tensor::MatRef::new(&m, 3, 5), MatMut::new(&mut exact, 3, 5));
    let m = Factor::new(m, 5);
    let mut v = Factor::new(uniform(15, 8), 3);
    let mut distance = f64::INFINITY;
    for _ in 0..12 {
        let (u, next) = partial(&world, &m, &v);
        assert_orthonormal(&next);
        let o = product(&wide(u.values()), &transposed(&wide(next.values()), 3), 3);
        assert!(dot(&o, &wide(m.values())) >= 0.0);
        assert!((dot(&o, &o) - 3.0).abs() < 1e-5);
        distance = o.iter().zip(&exact).map(|(o, e)| (o - f64::from(*e)).powi(2)).sum();
        v = next;
    }
    // Gaps of four or so: (1/4)² a sweep twelve times over is far below rounding.
    assert!(distance.sqrt() < 1e-4, "{distance}");
}

#[test]
fn a_new_space_is_orthonormal_and_keeps_the_dominant_directions_of_momentum() {
    let world = linear(&[&[6, 5]]).world;
    let (_, param) = first(&world);
    let m = uniform(15, 9);
    for (k, name) in [(2, "anchored"), (1, "anchored"), (2, "random")] {
        let options = options(&format!("rank = 3\nk = {k}\nprojection = {name:?}"));
        let mut frame = frame(&world, &m, &options);
        let whole = |frame: &Frame| {
            let (p, m) = (frame.projection.factor(param, 3), frame.momentum.factor(param, 3));
            assert_orthonormal(&p);
            product(&wide(p.values()), &transposed(&wide(m.values()), 3), 3)
        };
        let before = whole(&frame);
        frame.enter(&world, (3, 1), &options);
        let after = whole(&frame);
        let singular = crate::linalg::orthogonalize::singular_values(crate::tensor::MatRef::new(&m, 3, 5));
        let kept: f64 = singular[..k].iter().map(|s| s * s).sum();
        if name == "anchored" {
            assert!(dot(&after, &after) >= kept * (1.0 - 1e-5), "{} {kept}", dot(&after, &after));
        }
        // What is kept is a projection of what was there: ⟨after, before − after⟩ = 0.
        assert!(
            (dot(&after, &before) - dot(&after, &after)).abs() < 1e-5 && dot(&after, &after) < dot(&before, &before)
        );
    }
}

#[test]
fn power_iteration_goes_on_in_a_new_space_unless_it_is_to_begin_anew() {
    let world = linear(&[&[6, 5]]).world;
    for reset in [false, true] {
        let options = options(&format!("rank = 3\nreset_v_on_p_refresh = {reset}"));
        let mut frame = frame(&world, &uniform(15, 9), &options);
        frame.basis.set(first(&world).1, uniform(15, 10).into());
        frame.enter(&world, (3, 1), &options);
        assert_eq!(frame.basis.is_empty(), reset);
    }
}

#[test]
fn the_scale_of_the_loss_cancels() {
    // A power of two scales every slope and sum exactly.
    let end = |scale: f64, options: &str| {
        let mut world = scaled(&[&[6, 5]], scale).world;
        let options = format!("lr = 0.5\nrank = 3\nk = 2\nestimator = \"slope\"\nrefresh_interval = 3\n{options}");
        run(&mut *build("zo_mopi", &options), &mut world, 3, 0..8);
        world.values().to_vec()
    };
    for options in ["", RELEASED] {
        assert_eq!(end(1.0, options), end(1024.0, options));
    }
}

#[test]
fn without_any_slope_nothing_moves_and_the_next_slope_finds_a_sound_basis() {
    for options in ["", RELEASED] {
        let options = format!("lr = 1\nrefresh_interval = 2\n{options}");
        let mut world = flat(&[6, 5]);
        let mut optimizer = build("zo_mopi", &options);
        let reports = run(&mut *optimizer, &mut world, 3, 0..5);
        assert!(reports.iter().all(|report| !report.nonfinite && report.update_rms == 0.0));
        assert!(world.values()[0].iter().all(|x| *x == 0.5));
        let mut steep = linear(&[&[6, 5]]).world;
        let report = run(&mut *optimizer, &mut steep, 3, 5..6).remove(0);
        assert!(!report.nonfinite && report.update_rms > 0.0);
    }
}

#[test]
fn a_step_costs_a_forward_a_query_and_one_for_all() {
    let mut world = linear(&[&[6, 5]]).world;
    assert_eq!(run(&mut *build("zo_mopi", ""), &mut world, 3, 0..1)[0].evaluations, 9);
}

#[test]
fn a_loss_that_is_not_finite_leaves_space_momentum_and_basis_as_they_were() {
    // Step 4 opens a window and fails; step 5 must still come from the old one.
    let values = |fails: bool| {
        let world = linear(&[&[6, 5]]).world;
        let mut world = if fails { world.failing([4], f64::NAN) } else { world };
        let mut optimizer = build("zo_mopi", "lr = 1\nrefresh_interval = 4\nrank = 3\nk = 2");
        run(&mut *optimizer, &mut world, 3, 0..4);
        if fails {
            assert!(run(&mut *optimizer, &mut world, 3, 4..5)[0].nonfinite);
        }
        run(&mut *optimizer, &mut world, 3, 5..7);
        world.values().to_vec()
    };
    assert_eq!(values(true), values(false));
}
