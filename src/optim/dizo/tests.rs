//! What a projection does to displacements, what its slopes are on average, and that it is evaluated where it leads.

use proptest::prelude::*;

use super::*;
use crate::{
    optim::{
        OptionReader, Space,
        fixture::{build, dot, fails_without_a_trace, moments, run, wide},
    },
    testing::{
        assert_same_bits,
        worlds::{self, Dual, Facts, Tensor, World, uniform},
    },
};

/// `½ Σ λ_l ‖W_l − W*_l‖²` with λ = 1, 2, 3, 4, over a block's queries, keys, values and the bias of queries, at a distance
/// of about 1 from where they began.
fn block() -> World {
    const NAMES: [&str; 4] = ["q_proj.weight", "k_proj.weight", "v_proj.weight", "q_proj.bias"];
    let targets: Vec<Vec<f32>> = (0..4).map(|at| uniform(12, 10 + at)).collect();
    let wanted = targets.clone();
    let loss = move |values: &[Vec<Dual>], _| {
        let example = |at: usize| {
            let pairs = values[at].iter().zip(&wanted[at]).map(|(x, t)| *x - Dual::from(f64::from(*t)));
            Dual::from(0.5 * (at + 1) as f64) * pairs.fold(Dual::from(0.0), |sum, error| sum + error * error)
        };
        (0..4).map(example).collect()
    };
    let shapes: [&[usize]; 4] = [&[3, 4], &[4, 3], &[2, 6], &[12]];
    let tensors: Vec<Tensor<'_>> =
        (0..4).map(|at| (NAMES[at], shapes[at], uniform(12, 20 + at as u64), targets[at].clone())).collect();
    let mut world = World::new(&tensors, &[], Facts { smoothness: 4.0, convexity: 1.0 }, Box::new(loss));
    let way = |(at, id): (usize, &ParamId)| (*id, Direction::Explicit(uniform(12, 30 + at as u64).into()));
    let way = Arc::new(DirectionSet::new(Space::trainable(&world).to_vec().iter().enumerate().map(way)));
    world.commit(&Displacement::along(&way, 0.5)).expect("a toy");
    world
}

/// How far each parameter of a world is from where it began.
fn displacements(world: &World) -> Vec<Vec<f64>> {
    let displacement = |(id, param): (ParamId, &Param)| {
        let (anchor, cols) = (Space::anchor(world, id), param.cols());
        let began = |at: usize| f64::from(anchor.weight().at(at / cols, at % cols));
        let values = wide(&world.values()[id.index()]);
        values.iter().enumerate().map(|(at, value)| value - began(at)).collect()
    };
    Space::params(world).iter().map(displacement).collect()
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

fn options(text: &str) -> Options {
    let table: toml::Table = text.parse().expect("TOML");
    let reader = OptionReader::new("dizo", &table, Options::SPECS.iter()).expect("options");
    Options::read(&reader).expect("options")
}

fn clock(seed: u64) -> Clock {
    Clock { seed, step: 1, steps: 2 }
}

#[test]
fn where_scalars_do_not_move_it_is_mezo() {
    for world in [worlds::quadratic, worlds::rosenbrock, worlds::mixed_ranks] {
        for stay in [
            "interval = 100",
            "interval = 1\nstep_size_projection = 0",
            "interval = 1\nclip_range = 0",
            "interval = 1\nclip_range = 0\nscalar = \"ratio\"",
        ] {
            let end = |name: &str, options: &str| {
                let mut world = world();
                run(&mut *build(name, &format!("lr = 1e-4\nweight_decay = 0.5\n{options}")), &mut world, 3, 0..6);
                world.values().to_vec()
            };
            for (found, expected) in end("dizo", stay).iter().zip(&end("mezo", "")) {
                assert_same_bits(found, expected, stay);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_projection_keeps_the_way_and_bounds_the_length(
        seed in 0_u64..1000,
        range in 0.0..0.9_f64,
        step_size in 0.0..10.0_f64,
        scalar in prop::sample::select(vec!["norm", "ratio"]),
        (projected, whose) in prop::sample::select(vec![
            ("query-value", [true, false, true, false]),
            ("key-value", [false, true, true, false]),
            ("all", [true; 4]),
        ]),
    ) {
        let (mut world, start) = (block(), block());
        let before = displacements(&world);
        let options = format!(
            "lr = 0\ninterval = 1\nclip_range = {range:?}\nstep_size_projection = {step_size:?}\nscalar = {scalar:?}\n\
             projected = {projected:?}\nprojection_steps = 3"
        );
        run(&mut *build("dizo", &options), &mut world, seed, 1..2);
        for (at, after) in displacements(&world).into_iter().enumerate() {
            if !whose[at] {
                assert_same_bits(&world.values()[at], &start.values()[at], projected);
                continue;
            }
            let ratio = dot(&after, &before[at]) / dot(&before[at], &before[at]);
            // Weights are below 2 and their displacements below 1: the difference, the coefficient and the sum are
            // rounded to 2⁻²⁵, 2⁻²⁵ and 2⁻²⁴ each at most.
            let bound = 2_f64.powi(-23);
            prop_assert!((ratio - 1.0).abs() <= range + bound * 12_f64.sqrt() / norm(&before[at]), "{ratio}");
            for (after, before) in after.iter().zip(&before[at]) {
                prop_assert!((after - ratio * before).abs() <= 4.0 * bound, "{after} {before} {ratio}");
            }
        }
    }

    #[test]
    fn probes_stay_within_the_range_however_short_the_way(
        seed in 0_u64..1000,
        length in -9..3_i32,
        range in 0.0..0.5_f64,
        scalar in prop::sample::select(vec!["norm", "ratio"]),
    ) {
        let mut world = block();
        let away = displacements(&world);
        let shrunk = |(id, away): (&ParamId, Vec<f64>)| {
            let more: Vec<f32> = away.iter().map(|x| (x * (10_f64.powi(length) - 1.0)) as f32).collect();
            (*id, Direction::Explicit(more.into()))
        };
        let ids = Space::trainable(&world).to_vec();
        let set = Arc::new(DirectionSet::new(ids.iter().zip(away).map(shrunk)));
        world.commit(&Displacement::along(&set, 1.0)).expect("a toy");

        let options = options(&format!("clip_range = {range:?}\nscalar = {scalar:?}"));
        let projection = Projection::of(&world, &options);
        let z = projection.noise(NoiseKey::new(seed, 1, Role::Tau, 0), range / 0.1);
        for (scaled, z) in projection.scaled.iter().zip(z) {
            prop_assert!((0.1 * z / scaled.unit).abs() <= range * (1.0 + 4.0 * f64::EPSILON), "{z} {scaled:?}");
        }
    }
}

#[test]
fn on_average_a_slope_times_its_direction_is_the_derivative_by_the_scalar() {
    let mut world = block();
    let (ids, away) = (Space::trainable(&world).to_vec(), displacements(&world));
    for scalar in ["norm", "ratio"] {
        // Far from any bound: z would have to be beyond ten times its deviation.
        let options = options(&format!(
            "projected = \"all\"\nprojection_steps = 1\nclip_range = 1\nstep_size_projection = 1e-6\nscalar = {scalar:?}"
        ));
        let derivative = |(id, away): (&ParamId, &Vec<f64>)| {
            let by_ratio = dot(&world.gradient(*id, 0), away);
            if scalar == "norm" { by_ratio / norm(away) } else { by_ratio }
        };
        let expected: Vec<f64> = ids.iter().zip(&away).map(derivative).collect();
        let mut sample = |seed: u64| {
            let mut projection = Projection::of(&world, &options);
            projection.search(&mut world, clock(seed), &options).expect("a toy");
            // The product of slope and z to 2⁻⁵³ over the step size: 1e-10.
            projection.scaled.iter().map(|scaled| (1.0 - scaled.ratio) / 1e-6).collect::<Vec<_>>()
        };
        let samples: Vec<_> = (0..4000).map(&mut sample).collect();
        moments(&samples, &expected).assert_mean(&expected);
    }
}

#[test]
fn small_steps_of_the_scalars_lower_a_convex_loss() {
    // A step s along −g z changes a quadratic by −s g² + s² g² zᵀHz / 2, and zᵀHz ≤ 4 Σ z² (N / unit)²: over four scalars
    // with |z| < 6 and N < 2 less than 4 · 4 · 36 · 4 = 2304, so s = 5e-4 is below 2 / 2304.
    for scalar in ["norm", "ratio"] {
        for seed in 0..200 {
            let mut world = block();
            assert!(displacements(&world).iter().all(|away| norm(away) < 2.0));
            let before = world.loss(0);
            let options = format!(
                "lr = 0\ninterval = 1\nprojected = \"all\"\nscalar = {scalar:?}\nstep_size_projection = 5e-4\n\
                 projection_steps = 5"
            );
            run(&mut *build("dizo", &options), &mut world, seed, 1..2);
            assert!(world.loss(0) < before, "{scalar}, seed {seed}: from {before} to {}", world.loss(0));
        }
    }
}

#[test]
fn a_step_of_mezo_begins_where_the_projection_leads() {
    for seed in 0..20 {
        let (mut both, mut apart) = (block(), block());
        let projection = "interval = 1\nprojection_steps = 2";
        let report = run(&mut *build("dizo", &format!("{projection}\nlr = 1e-3")), &mut both, seed, 1..2).remove(0);
        run(&mut *build("dizo", &format!("{projection}\nlr = 0")), &mut apart, seed, 1..2);
        let there = run(&mut *build("mezo", "lr = 1e-3"), &mut apart, seed, 1..2).remove(0);
        assert_eq!(report.projected_grads, there.projected_grads);
        for (both, apart) in both.values().iter().zip(apart.values()) {
            assert_same_bits(both, apart, "in one update and in two");
        }
    }
}

#[test]
fn what_has_not_moved_keeps_every_bit_and_costs_as_much() {
    let mut world = worlds::mixed_ranks();
    let start = world.values().to_vec();
    let reports = run(&mut *build("dizo", "lr = 0\ninterval = 1\nprojection_steps = 3"), &mut world, 3, 0..3);
    assert_eq!(reports.iter().map(|report| report.evaluations).collect::<Vec<_>>(), [2, 8, 8]);
    for (found, start) in world.values().iter().zip(&start) {
        assert_same_bits(found, start, "no displacement has a length");
    }
}

#[test]
fn a_projection_evaluates_two_losses_a_step_of_its_scalars() {
    let mut world = worlds::quadratic();
    let reports = run(&mut *build("dizo", "lr = 1e-3\ninterval = 3\nprojection_steps = 4"), &mut world, 3, 0..7);
    let evaluations: Vec<_> = reports.iter().map(|report| report.evaluations).collect();
    assert_eq!(evaluations, [2, 2, 2, 10, 2, 2, 10]);
    assert!(reports.iter().all(|report| report.projected_grads.len() == 1));
}

#[test]
fn a_search_that_meets_no_number_moves_nothing_and_leaves_no_trace() {
    // Step 2 draws its first batch as number 2, and a second one as number 3.
    for draw in [2, 3] {
        let mut world = worlds::quadratic().failing([draw], f64::INFINITY);
        let mut optimizer = build("dizo", "lr = 1e-3\ninterval = 2\nprojection_steps = 2");
        run(&mut *optimizer, &mut world, 3, 0..2);
        let before = world.values().to_vec();
        let report = run(&mut *optimizer, &mut world, 3, 2..3).remove(0);
        assert!(report.nonfinite && report.evaluations == 2 * (draw as usize - 1), "{report:?}");
        assert_eq!(world.values(), before);
    }
    fails_without_a_trace("dizo", "lr = 1e-3\ninterval = 2\nprojection_steps = 2", 2);
}

#[test]
fn matrices_are_projected_by_their_names_and_all_that_is_trained_where_there_is_no_such_name() {
    let shapes: [(&str, &[usize]); 12] = [
        ("model.layers.0.self_attn.q_proj.weight", &[2, 2]),
        ("model.layers.0.self_attn.q_proj.bias", &[2]),
        ("model.layers.0.self_attn.k_proj.weight", &[2, 2]),
        ("model.layers.0.self_attn.v_proj.weight", &[2, 2]),
        ("model.layers.0.self_attn.o_proj.weight", &[2, 2]),
        ("h.0.attn.c_attn.weight", &[2, 2]),
        ("bert.encoder.layer.0.attention.self.query.weight", &[2, 2]),
        ("bert.encoder.layer.0.attention.self.key.weight", &[2, 2]),
        ("bert.encoder.layer.0.attention.self.value.weight", &[2, 2]),
        ("model.layers.0.mlp.up_proj.lora_A.weight", &[2, 2]),
        ("model.layers.0.mlp.up_proj.lora_B.weight", &[2, 2]),
        ("model.norm.weight", &[2]),
    ];
    let projected = |projected: Projected, frozen: &[&str]| -> Vec<usize> {
        let tensors: Vec<Tensor<'_>> = shapes
            .iter()
            .map(|(name, shape)| (*name, *shape, vec![0.0; shape.iter().product()], vec![0.0; shape.iter().product()]))
            .collect();
        let facts = Facts { smoothness: 1.0, convexity: 0.0 };
        let world = World::new(&tensors, frozen, facts, Box::new(|_, _| vec![Dual::from(0.0)]));
        projected.among(&world).iter().map(|id| id.index()).collect()
    };
    assert_eq!(projected(Projected::QueryValue, &[]), [0, 3, 5, 6, 8, 9, 10]);
    assert_eq!(projected(Projected::KeyValue, &[]), [2, 3, 5, 7, 8, 9, 10]);
    assert_eq!(projected(Projected::All, &[]), (0..12).collect::<Vec<_>>());
    let others: Vec<&str> = [0, 3, 5, 6, 8, 9, 10].map(|at: usize| shapes[at].0).to_vec();
    assert_eq!(projected(Projected::QueryValue, &others), [1, 2, 4, 7, 11]);
}

#[test]
fn both_scalars_are_one_where_a_displacement_has_the_length_of_one() {
    // Of N = 1 the units are the same, 1; of a quarter they are not.
    let end = |scalar: &str, length: f32| {
        let loss = |values: &[Vec<Dual>], _| vec![values[0].iter().fold(Dual::from(0.0), |sum, x| sum + *x * *x)];
        let start: Tensor<'_> = ("v_proj.weight", &[2, 2], vec![0.0; 4], vec![0.0; 4]);
        let mut world = World::new(&[start], &[], Facts { smoothness: 2.0, convexity: 0.0 }, Box::new(loss));
        let away = Direction::Explicit(vec![length / 2.0; 4].into());
        let set = DirectionSet::new([(Space::trainable(&world)[0], away)]);
        world.commit(&Displacement::along(&Arc::new(set), 1.0)).expect("a toy");
        let options = format!("lr = 0\ninterval = 1\nscalar = {scalar:?}\nstep_size_projection = 1e-3");
        run(&mut *build("dizo", &options), &mut world, 3, 1..2);
        world.values()[0].clone()
    };
    assert_same_bits(&end("norm", 1.0), &end("ratio", 1.0), "N = 1");
    assert_ne!(end("norm", 0.25), end("ratio", 0.25));
}
