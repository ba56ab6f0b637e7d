//! Examples that are probed along directions of their own.

use super::*;
use crate::testing::adapters::bottlenecked;

/// An oracle whose passes take as many rows as fit into `activations` bytes.
fn oracle(name: &str, objective: Objective, isa: Isa, activations: u64) -> LiveOracle {
    let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
    oracle_of(model, objective, isa, activations)
}

fn oracle_of(model: Model, objective: Objective, isa: Isa, activations: u64) -> LiveOracle {
    let trainable = model.store().params().iter().map(|(id, _)| id).collect();
    let examples = Examples::new(model.spec(), objective, None, &examples(objective)).expect("examples");
    let examples = examples.minimising(Criterion::Loss).expect("a criterion");
    LiveOracle::new(Tuned::new(model, Context::new(isa), trainable), examples, (4, 9), activations)
}

/// Directions of four examples: thin factors of each example's own, and its own noise in vectors.
fn thin(oracle: &LiveOracle) -> Arc<DirectionSet> {
    let of_example = |example: u64| {
        let noise = |role| NoiseKey::new(5, 2, role, 0).extended(example);
        let along = |&id: &ParamId| {
            let param = &oracle.tuned.params()[id];
            let factor = |role, rows: usize| -> Arc<[f32]> {
                let noise = noise(role).tensor(param.noise_name());
                (0..2 * rows).map(|at| noise.at(Law::Uniform, (at / 2) as u64, at % 2)).collect()
            };
            let direction = match param.shape() {
                [rows, cols] => {
                    Direction::LowRank { left: factor(Role::U, *rows), right: factor(Role::V, *cols), rank: 2 }
                }
                _ => Direction::Dense { key: noise(Role::Z1d), law: Law::Uniform },
            };
            (id, direction)
        };
        Arc::new(DirectionSet::new(oracle.tuned.trainable().iter().map(along)))
    };
    Arc::new(DirectionSet::per_example(&[0, 1, 2, 3].map(of_example)))
}

/// One noise under signs of each example's own.
fn flipped(oracle: &LiveOracle) -> Arc<DirectionSet> {
    let clock = Clock { seed: 3, step: 1, steps: 2 };
    let shared = spsa::directions(oracle, clock, Law::Gaussian, 1);
    Arc::new(DirectionSet::per_example(&per_example::flipped(shared, clock, per_example::Owners::Each(4))))
}

fn both_sides(set: &Arc<DirectionSet>) -> [Displacement; 3] {
    [Displacement::along(set, 1e-2), Displacement::default(), Displacement::along(set, -1e-2)]
}

#[test]
fn an_example_along_thin_factors_of_its_own_has_the_bits_of_a_batch_that_all_goes_there() {
    for (objective, name) in OBJECTIVES.into_iter().flat_map(|of| checkpoints(of).iter().map(move |name| (of, name))) {
        each_has_the_bits_of_all(oracle(name, objective, Isa::fastest(), 1 << 20), &format!("{name}, {objective:?}"));
    }
}

#[test]
fn an_example_along_cores_of_its_own_has_the_bits_of_a_batch_that_all_goes_there() {
    for (objective, name) in OBJECTIVES.into_iter().flat_map(|of| checkpoints(of).iter().map(move |name| (of, name))) {
        let model = bottlenecked(&golden::directory(name), (6, 2), None, 5);
        each_has_the_bits_of_all(
            oracle_of(model, objective, Isa::fastest(), 1 << 20),
            &format!("{name}, {objective:?}"),
        );
    }
}

/// Of the losses and slopes of examples along directions of their own.
fn each_has_the_bits_of_all(mut whole: LiveOracle, what: &str) {
    let set = thin(&whole);
    let probes = both_sides(&set);
    let batch = whole.draw(Pool::Train, None).expect("a batch");
    assert_eq!(whole.batch_size(batch).expect("a size"), 4);
    let found = whole.losses_by_example(batch, &probes).expect("losses");
    let slopes = whole.slopes_by_example(batch, &[Arc::clone(&set)]).expect("slopes").1;
    for example in 0..4 {
        let all = probes.each_ref().map(|probe| probe.of_example(example));
        let expected = whole.losses(batch, &all).expect("losses");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.per_example[example], expected.per_example[example], "{what} {example}");
        }
        let along = Arc::new(set.of_example(example));
        let expected = &whole.slopes(batch, &[along]).expect("slopes").1[0];
        assert_eq!(slopes[0].per_example[example], expected.per_example[example], "{what} {example}");
    }
    assert!(found[0] != found[1] && found[2] != found[1], "{what}: a probe is too near to show");
}

#[test]
fn how_a_batch_is_cut_and_what_computes_it_changes_no_bit_of_what_examples_contribute() {
    for (objective, name) in OBJECTIVES.into_iter().map(|of| (of, checkpoints(of)[1])) {
        let run = |isa, activations, directions: fn(&LiveOracle) -> Arc<DirectionSet>| {
            let mut oracle = oracle(name, objective, isa, activations);
            let set = directions(&oracle);
            let batch = oracle.draw(Pool::Train, None).expect("a batch");
            let losses = oracle.losses_by_example(batch, &both_sides(&set)).expect("losses");
            (losses, oracle.slopes_by_example(batch, &[set]).expect("slopes"))
        };
        for directions in [thin, flipped] {
            let expected = run(Isa::fastest(), 1 << 20, directions);
            let others = Isa::available().into_iter().map(|isa| (isa, 3, 1 << 15));
            for (isa, threads, activations) in others.chain([(Isa::fastest(), 1, 1), (Isa::fastest(), 3, 1 << 20)]) {
                let found = on_threads(threads, || run(isa, activations, directions));
                assert_eq!(found, expected, "{name}, {objective:?}, {isa}, {threads} threads, {activations} bytes");
            }
        }
    }
}

#[test]
fn an_example_under_signs_of_its_own_has_the_loss_of_a_batch_that_all_goes_there() {
    for (objective, name) in OBJECTIVES.into_iter().flat_map(|of| checkpoints(of).iter().map(move |name| (of, name))) {
        let mut oracle = oracle(name, objective, Isa::fastest(), 1 << 20);
        let set = flipped(&oracle);
        let probes = both_sides(&set);
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let found = oracle.losses_by_example(batch, &probes).expect("losses");
        let mut furthest = 0.0_f64;
        for example in 0..4 {
            let all = probes.each_ref().map(|probe| probe.of_example(example));
            let expected = oracle.losses(batch, &all).expect("losses");
            for (found, expected) in found.iter().zip(&expected) {
                let [found, expected] = [found, expected].map(|losses| losses.per_example[example]);
                // The golden files' bound for losses of an f32 engine, of which both are; a contribution is a loss, or a
                // sum of token losses over more tokens.
                assert!((found - expected).abs() <= 2e-5, "{name}, {objective:?} {example}: {found}, not {expected}");
            }
            furthest = furthest.max((found[0].per_example[example] - found[1].per_example[example]).abs());
        }
        assert!(furthest > 1e-3, "{name}, {objective:?}: a probe is too near to show: {furthest}");
    }
}
