//! Factors are functions of their names, and stay as long as they should.

use super::*;
use crate::{
    optim::fixture::{build, first, linear, run},
    testing::{assert_same_bits, on_threads},
};

const KEY: NoiseKey = NoiseKey { seed: 1, epoch: 2, role: Role::U, probe: 3, extension: 0 };

fn shape(param: &Param) -> (usize, usize) {
    (param.rows(), 3)
}

#[test]
fn a_factor_is_the_noise_of_its_key_and_matrix_whatever_else_is_drawn() {
    let (alone, beside) = (linear(&[&[7, 5]]).world, linear(&[&[7, 5], &[4], &[9, 2]]).world);
    let (id, param) = first(&alone);
    let noise = KEY.tensor(param.noise_name());
    let expected: Vec<f32> = (0..21).map(|at| noise.at(Law::Gaussian, at / 3, at as usize % 3)).collect();
    for world in [&alone, &beside] {
        assert_same_bits(gaussian(world, KEY, shape)[&id].values(), &expected, "a factor");
    }
    assert_eq!(gaussian(&beside, KEY, shape).len(), 2, "vectors have no factors");
    let other = on_threads(3, || gaussian(&beside, KEY, shape));
    assert_same_bits(other[&id].values(), &expected, "on three threads");
}

#[test]
fn orthonormal_factors_are_orthonormal_up_to_their_rounding() {
    let world = linear(&[&[40, 5]]).world;
    let (id, _) = first(&world);
    let q = &orthonormal(&world, KEY, shape)[&id];
    let gram = q.transposed_product(&Context::new(world.context().isa), q);
    for (at, x) in gram.values().iter().enumerate() {
        // |QᵀQ − I| ≤ 2·2⁻²⁴, and a chain of 40 products of columns of length one.
        let expected = if at % 4 == 0 { 1.0 } else { 0.0 };
        assert!((x - expected).abs() <= (2.0 + 40.0) * 2_f32.powi(-24), "{x}");
    }
}

#[test]
fn lazy_factors_are_drawn_once_for_each_key() {
    let world = linear(&[&[7, 5]]).world;
    let (mut lazy, mut draws) = (Lazy::default(), 0);
    for epoch in [0, 0, 0, 1, 1, 0] {
        let key = NoiseKey { epoch, ..KEY };
        let drawn = lazy.at(key, |key| {
            draws += 1;
            gaussian(&world, key, shape)
        });
        let (id, _) = first(&world);
        assert_same_bits(drawn[&id].values(), gaussian(&world, key, shape)[&id].values(), "kept and drawn");
    }
    assert_eq!(draws, 3);
}

#[test]
fn an_epoch_begins_where_the_interval_divides_the_step() {
    let interval = NonZeroU32::new(3).expect("not zero");
    let epochs = (0..7).map(|step| epoch(Clock { seed: 0, step, steps: 9 }, interval));
    assert_eq!(epochs.collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 2]);
}

#[test]
fn products_of_factors_are_those_of_matrices() {
    let cx = Context::new(linear(&[&[1, 1]]).world.context().isa);
    let (a, b) =
        (Factor::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), Factor::new(vec![1.0, 0.0, 1.0, 2.0, 1.0, 0.0], 3));
    assert_eq!(a.product(&cx, &b).values(), [5.0, 2.0, 1.0, 11.0, 4.0, 3.0, 17.0, 6.0, 5.0]);
    assert_eq!(a.transposed_product(&cx, &a).values(), [35.0, 44.0, 44.0, 56.0]);
    assert_eq!((a.transposed().values(), a.transposed().rank()), (&[1.0, 3.0, 5.0, 2.0, 4.0, 6.0][..], 3));
    assert_eq!(a.scaled_columns(&[2.0, -1.0]).values(), [2.0, -2.0, 6.0, -4.0, 10.0, -6.0]);
}

#[test]
#[should_panic(expected = "5 values in rows of 2")]
fn a_factor_has_whole_rows() {
    let _ = Factor::new(vec![0.0; 5], 2);
}

#[test]
fn forwards_are_two_a_query_or_one_a_query_and_one_for_all() {
    for name in ["lozo", "lozo_m", "subspace_mezo", "subzero", "tezo", "tezo_adam", "tezo_m", "zo_mopi", "zo_muon"] {
        for (options, expected) in [
            ("queries = 1\nestimator = \"two-sided\"", 2),
            ("queries = 3\nestimator = \"two-sided\"", 6),
            ("queries = 3\nestimator = \"one-sided\"", 4),
            ("queries = 3\nestimator = \"slope\"", 4),
        ] {
            let report = run(&mut *build(name, options), &mut linear(&[&[6, 5], &[4]]).world, 3, 0..1).remove(0);
            assert_eq!(report.evaluations, expected, "{name} [{options}]");
        }
    }
}
