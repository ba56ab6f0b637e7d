//! A live oracle on the golden checkpoints: losses, slopes, gradients, updates.

use super::*;
use crate::{
    direction::Direction,
    journal::{Record, Recorder},
    kernels::{Context, Isa},
    model::Model,
    noise::{Law, NoiseKey, Role},
    objective::{Criterion, Examples},
    optim::{
        self, Clock,
        parts::{per_example, spsa},
    },
    task::Objective,
    tensor::Block,
    testing::{
        assert_same_bits,
        examples::{checkpoints, examples},
        on_threads,
        reference::golden,
    },
};

mod by_example;

fn oracle(name: &str, objective: Objective, criterion: Criterion, isa: Isa) -> LiveOracle {
    let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
    let trainable = model.store().params().iter().map(|(id, _)| id).collect();
    let examples = Examples::new(model.spec(), objective, None, &examples(objective)).expect("examples");
    let examples = examples.minimising(criterion).expect("a criterion");
    LiveOracle::new(Tuned::new(model, Context::new(isa), trainable), examples, (4, 9), 1 << 20)
}

/// Trains by `MeZO` and answers the loss of every step and all weights.
fn train(name: &str, objective: Objective, isa: Isa, steps: u64, lr: f64) -> (Vec<f64>, Vec<f32>) {
    train_by("two-sided", name, objective, isa, steps, lr)
}

fn train_by(estimator: &str, name: &str, objective: Objective, isa: Isa, steps: u64, lr: f64) -> (Vec<f64>, Vec<f32>) {
    let options = format!("lr = {lr:e}\nqueries = 4\nestimator = {estimator:?}");
    descend(("mezo", &options), (name, objective), steps, isa)
}

/// Trains a golden model by an optimizer with these options, and answers the loss of every step and all weights.
fn descend(
    (optimizer, options): (&str, &str),
    (name, objective): (&str, Objective),
    steps: u64,
    isa: Isa,
) -> (Vec<f64>, Vec<f32>) {
    let options = options.parse().expect("TOML");
    let mut optimizer = optim::find(optimizer).and_then(|entry| entry.build(&options)).expect("an optimizer");
    let mut oracle = oracle(name, objective, Criterion::Loss, isa);
    let step = |step| optimizer.step(&mut oracle, Clock { seed: 3, step, steps }).expect("a step").loss;
    let losses = (0..steps).map(step).collect();
    let store = oracle.tuned().model().store();
    let values = store.params().iter().flat_map(|(id, param)| {
        let weight = store.weight(id);
        (0..param.elements()).map(move |at| weight.at(at / param.cols(), at % param.cols()))
    });
    (losses, values.collect())
}

/// What the golden models of label words have.
fn label_words() -> (&'static str, Objective) {
    (checkpoints(Objective::LabelWords)[0], Objective::LabelWords)
}

#[test]
fn mezo_lowers_every_loss_of_a_model() {
    let objectives = [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier];
    for (objective, estimator) in objectives.into_iter().flat_map(|of| [(of, "two-sided"), (of, "slope")]) {
        // Both runs see the same batches and directions; a wrong sign climbs, a wrong batch or a lost update stands.
        let last = |lr| {
            let losses = train_by(estimator, checkpoints(objective)[0], objective, Isa::fastest(), 60, lr).0;
            losses[50..].iter().sum::<f64>()
        };
        let (trained, untrained) = (last(2e-3), last(0.0));
        assert!(trained < untrained, "{objective:?}, {estimator}: {trained} after training, {untrained} without");
    }
}

#[test]
fn gradients_lower_the_loss_of_a_model_alone_and_beside_differences() {
    for (name, options) in [
        ("sgd", "lr = 0.1\nmomentum = 0.5\nclip = 1.0"),
        ("adamw", "lr = 1e-3\nin_place = true"),
        ("muon", "lr = 1e-2"),
        ("green_trainer", "lr = 1e-3"),
        ("hi_zfo", "lr = 1e-3"),
        ("elastic_zo", "lr = 0.1\nzo_lr_ratio = 1e-2\nfirst_order_layers = 2"),
        ("addax", "lr = 0.1"),
    ] {
        let (losses, weights) = descend((name, options), label_words(), 20, Isa::fastest());
        let end = |losses: &[f64]| losses[16..].iter().sum::<f64>();
        let (stays, start) = descend(("sgd", "lr = 0"), label_words(), 20, Isa::fastest());
        // Addax draws two batches a step, its losses are those of others; they have the same examples every few steps.
        assert!(end(&losses) < end(&stays), "{name}: {losses:?}, without steps {stays:?}");
        let moved = weights.iter().zip(&start).filter(|(found, start)| found != start).count();
        let all = !matches!(name, "green_trainer");
        assert!(moved > 0 && (moved < start.len() || all), "{name}: {moved} of {} values move", start.len());
    }
}

#[test]
fn addax_takes_gradients_of_short_examples_and_differences_of_long_ones() {
    let (name, objective) = label_words();
    let step = |options: &str| {
        let options = format!("lr = 1e-3\n{options}").parse().expect("TOML");
        let mut optimizer = optim::find("addax").and_then(|entry| entry.build(&options)).expect("an optimizer");
        let mut oracle = oracle(name, objective, Criterion::Loss, Isa::fastest());
        let report = optimizer.step(&mut oracle, Clock { seed: 3, step: 0, steps: 1 }).expect("a step");
        let lengths: Vec<usize> = oracle.batch.iter().map(|&number| oracle.examples.tokens(number)).collect();
        (lengths, report.loss)
    };
    let mut lengths = step("alpha = 0\nfo_batch = 40").0;
    lengths.sort_unstable();
    let longest = lengths[lengths.len() / 2];
    assert!(longest < *lengths.last().expect("forty"), "examples of more than one length");
    let drawn = |alpha: u8| step(&format!("alpha = {alpha}\nlongest = {longest}")).0;
    assert!(drawn(0).iter().all(|&length| length <= longest), "gradients");
    assert!(drawn(1).iter().all(|&length| length > longest), "differences");
    let everything = lengths.last().expect("forty");
    for out_of_reach in [0, lengths[0] - 1, *everything] {
        assert_eq!(step(&format!("longest = {out_of_reach}")), step(""), "no length divides them: as without one");
    }
}

#[test]
fn what_is_selected_drawn_or_projected_and_what_comes_of_it_is_the_same_on_every_machine() {
    for optimizer in [
        ("hi_zfo", "lr = 1e-3\nreselect_every = 2"),
        ("dizo", "lr = 1e-3\ninterval = 1\nprojection_steps = 2"),
        ("adalezo", "lr = 1e-3\ninner = \"lozo\""),
    ] {
        let run = |isa| descend(optimizer, label_words(), 3, isa);
        let (losses, weights) = run(Isa::fastest());
        for isa in Isa::available() {
            for threads in [1, 3] {
                let label = format!("{optimizer:?}, {isa}, {threads} threads");
                let (found, values) = on_threads(threads, || run(isa));
                assert_eq!(found, losses, "{label}");
                assert_same_bits(&values, &weights, label);
            }
        }
    }
}

#[test]
fn slopes_come_with_the_losses_of_a_probe_of_nothing_and_an_example_has_its_own_in_any_pass() {
    for objective in [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier] {
        let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Loss, Isa::fastest());
        let (key, law) = (NoiseKey::new(1, 2, Role::Dense, 3), Law::Gaussian);
        let noise = oracle.tuned.trainable().iter().map(|&id| (id, Direction::Dense { key, law }));
        let along = [Arc::new(DirectionSet::new(noise)), Arc::default()];
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let (losses, slopes) = oracle.slopes(batch, &along).expect("slopes");
        assert_eq!(losses, oracle.losses(batch, &[Displacement::default()]).expect("losses")[0], "{objective:?}");
        assert_eq!(slopes[1], Losses::summed(vec![0.0; 4]), "{objective:?}");
        let weight: usize = oracle.batch.iter().map(|&number| oracle.examples.weight(number)).sum();
        for (&number, found) in oracle.batch.iter().zip(&slopes[0].per_example) {
            let alone = oracle.examples.slopes(oracle.tuned.model(), oracle.tuned.context(), (0, &[number]), &along);
            assert_eq!(alone.expect("slopes").1[0][0] / weight as f64, *found, "{objective:?}, example {number}");
        }
        assert_eq!(slopes[0], Losses::summed(slopes[0].per_example.clone()), "{objective:?}");
    }
}

/// Keeps gradients, and moves their parameters against them if there is a rate.
struct Descent {
    rate: f32,
    taken: Vec<(ParamId, Vec<f32>)>,
}

impl GradientSink for Descent {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        let z = Direction::Explicit(gradient[..].into());
        self.taken.push((id, gradient.to_vec()));
        (self.rate > 0.0).then(|| Displacement::along(&Arc::new(DirectionSet::new([(id, z)])), -self.rate))
    }
}

const OBJECTIVES: [Objective; 4] =
    [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier];

#[test]
fn gradients_come_with_the_losses_of_probes_and_agree_with_slopes() {
    for objective in OBJECTIVES {
        let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Loss, Isa::fastest());
        let (key, law) = (NoiseKey::new(1, 2, Role::Dense, 3), Law::Gaussian);
        let ids = oracle.tuned.trainable().to_vec();
        let noise = Arc::new(DirectionSet::new(ids.iter().map(|&id| (id, Direction::Dense { key, law }))));
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let mut sink = Descent { rate: 0.0, taken: Vec::new() };
        let at = [(1.0, Displacement::default())];
        let losses = oracle.gradients(batch, &at, &ids, &mut sink).expect("gradients");
        assert_eq!(losses, oracle.losses(batch, &[Displacement::default()]).expect("losses"), "{objective:?}");
        let slope = oracle.slopes(batch, &[noise]).expect("slopes").1[0].total;
        let (mut product, mut magnitude) = (0.0, 0.0);
        for (id, gradient) in &sink.taken {
            let (param, noise) = (&oracle.tuned.params()[*id], key.tensor(oracle.tuned.params()[*id].noise_name()));
            for (at, &g) in gradient.iter().enumerate() {
                let z = noise.at(law, (at / param.cols()) as u64, at % param.cols());
                product += f64::from(g) * f64::from(z);
                magnitude += (f64::from(g) * f64::from(z)).abs();
            }
        }
        // The bound; both sides were computed in f32.
        assert!((product - slope).abs() <= 1e-5 * magnitude, "{objective:?}: {product} for a slope of {slope}");
        // Two points at once: a sum of both gradients.
        let both = [(0.25, Displacement::default()), (0.75, Displacement::default())];
        let mut sum = Descent { rate: 0.0, taken: Vec::new() };
        let answers = oracle.gradients(batch, &both, &ids, &mut sum).expect("gradients");
        assert_eq!(answers, [&losses[..], &losses].concat(), "{objective:?}");
        let largest = |values: &[f32]| values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let of_model = sink.taken.iter().map(|(_, gradient)| largest(gradient)).fold(0.0, f32::max);
        for ((id, once), (other, sum)) in sink.taken.iter().zip(&sum.taken) {
            let error = once.iter().zip(sum).fold(0.0_f32, |error, (x, y)| error.max((x - y).abs()));
            // The bounds of the golden files; some true gradients are zero.
            let bound = 1e-4 * largest(once) + 1e-6 * of_model;
            assert!(id == other && error <= bound, "{objective:?}, {id:?}: {error}, at most {bound}");
        }
    }
}

#[test]
fn parameters_that_move_while_gradients_are_handed_over_get_the_values_of_moving_afterwards() {
    for name in ["llama", "qwen2", "gpt2"] {
        let values = |oracle: &LiveOracle| -> Vec<f32> {
            let store = oracle.tuned.model().store();
            let of = |(id, param): (_, &crate::direction::Param)| {
                let weight = store.weight(id);
                (0..param.elements()).map(move |at| weight.at(at / param.cols(), at % param.cols())).collect()
            };
            store.params().iter().flat_map(|param| -> Vec<f32> { of(param) }).collect()
        };
        // So little memory that a pass holds one example, and blocks are computed once more.
        for activations in [1 << 20, 1] {
            let run = |in_place: bool| {
                let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
                let ids: Vec<_> = model.store().params().iter().map(|(id, _)| id).collect();
                let examples = examples(Objective::Options);
                let examples = Examples::new(model.spec(), Objective::Options, None, &examples).expect("examples");
                let examples = examples.minimising(Criterion::Loss).expect("a criterion");
                let tuned = Tuned::new(model, Context::new(Isa::fastest()), ids.clone());
                let mut oracle = LiveOracle::new(tuned, examples, (4, 9), activations);
                for _ in 0..3 {
                    let batch = oracle.draw(Pool::Train, None).expect("a batch");
                    let mut sink = Descent { rate: if in_place { 0.25 } else { 0.0 }, taken: Vec::new() };
                    let at = [(1.0, Displacement::default())];
                    oracle.gradients(batch, &at, &ids, &mut sink).expect("gradients");
                    if !in_place {
                        let z = sink.taken.into_iter().map(|(id, z)| (id, Direction::Explicit(z.into())));
                        let update = Displacement::along(&Arc::new(DirectionSet::new(z)), -0.25);
                        oracle.commit(&update).expect("an update");
                    }
                }
                values(&oracle)
            };
            let expected = run(false);
            assert_same_bits(&run(true), &expected, format_args!("{name}, {activations} bytes"));
        }
    }
}

#[test]
fn how_a_batch_is_cut_changes_no_bit_of_its_gradients() {
    for objective in OBJECTIVES {
        let run = |activations: u64| {
            let model = Model::open(&golden::directory(checkpoints(objective)[0])).expect("a golden checkpoint");
            let ids: Vec<_> = model.store().params().iter().map(|(id, _)| id).collect();
            let examples = Examples::new(model.spec(), objective, None, &examples(objective)).expect("examples");
            let examples = examples.minimising(Criterion::Loss).expect("a criterion");
            let tuned = Tuned::new(model, Context::new(Isa::fastest()), ids.clone());
            let noise = Direction::Dense { key: NoiseKey::new(1, 2, Role::Dense, 3), law: Law::Gaussian };
            let noise = Arc::new(DirectionSet::new(ids.iter().map(|&id| (id, noise.clone()))));
            let mut oracle = LiveOracle::new(tuned, examples, (4, 9), activations);
            let batch = oracle.draw(Pool::Train, None).expect("a batch");
            let mut sink = Descent { rate: 0.0, taken: Vec::new() };
            let at = [(0.5, Displacement::default()), (0.5, Displacement::along(&noise, 1e-2))];
            let losses = oracle.gradients(batch, &at, &ids, &mut sink).expect("gradients");
            (losses, sink.taken)
        };
        let (losses, whole) = run(1 << 30);
        let row = Model::open(&golden::directory(checkpoints(objective)[0]))
            .expect("a model")
            .spec()
            .tape_bytes(Kept::BlockInputs);
        for activations in [1, 12 * row as u64, 24 * row as u64] {
            let (found, cut) = run(activations);
            assert_eq!(found, losses, "{objective:?}");
            assert_eq!(cut.len(), whole.len(), "{objective:?}");
            for ((id, x), (other, y)) in cut.iter().zip(&whole) {
                assert_eq!(id, other, "{objective:?}: the order of parameters");
                assert_same_bits(x, y, format_args!("{objective:?}, {id:?}, {activations} bytes"));
            }
        }
    }
}

/// The parameters that one step by an optimizer with these options moves.
fn moved_at_once(optimizer: &str, options: &str, objective: Objective) -> Vec<ParamId> {
    let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Loss, Isa::fastest());
    let table = options.parse().expect("TOML");
    let mut optimizer = optim::find(optimizer).and_then(|entry| entry.build(&table)).expect("an optimizer");
    let values = |oracle: &LiveOracle, id| -> Vec<f32> {
        let (weight, param) = (oracle.tuned.model().store().weight(id), &oracle.tuned.params()[id]);
        (0..param.elements()).map(|at| weight.at(at / param.cols(), at % param.cols())).collect()
    };
    let ids = oracle.tuned.trainable().to_vec();
    let before: Vec<_> = ids.iter().map(|&id| values(&oracle, id)).collect();
    optimizer.step(&mut oracle, Clock { seed: 3, step: 0, steps: 1 }).expect("a step");
    ids.into_iter().zip(before).filter(|(id, before)| values(&oracle, *id) != *before).map(|(id, _)| id).collect()
}

#[test]
fn a_step_that_decided_by_times_is_taken_again_with_those_that_it_was_told() {
    let (name, objective) = label_words();
    let step = |recorded: Option<&Record>| {
        let options = "lr = 1e-3\ncost_unit = \"time\"".parse().expect("TOML");
        let mut optimizer = optim::find("green_trainer").and_then(|entry| entry.build(&options)).expect("an optimizer");
        let mut oracle = oracle(name, objective, Criterion::Loss, Isa::fastest());
        let mut recorder = match recorded {
            Some(record) => Recorder::again(&mut oracle, record),
            None => Recorder::new(&mut oracle),
        };
        let report = optimizer.step(&mut recorder, Clock { seed: 3, step: 0, steps: 1 }).expect("a step");
        (recorder.record(1, &report), optimizer.partition().expect("a selection"))
    };
    let (first, selected) = step(None);
    assert_eq!(step(Some(&first)), (first.clone(), selected.clone()));
    // All but a few numbers are times, three of each operator. Where those above half of the model take a year, what is
    // selected lies above them.
    let mut slow = first.clone();
    let operators = slow.values.len() / 3;
    (0..operators / 2).for_each(|operator| slow.values[3 * operator + 1] = 3.2e16);
    assert_ne!(step(Some(&slow)).1, selected);
    let cut = Record { values: first.values[..operators].to_vec(), ..first };
    assert!(std::panic::catch_unwind(|| step(Some(&cut))).is_err(), "a record without the times");
}

#[test]
fn what_moves_by_gradients_of_a_model_is_within_the_budget() {
    for (objective, share) in OBJECTIVES.into_iter().flat_map(|objective| [0.1, 0.4, 0.8].map(|of| (objective, of))) {
        let moved = moved_at_once("green_trainer", &format!("lr = 1e-3\nbackward_budget = {share}"), objective);
        let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Loss, Isa::fastest());
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let costs = oracle.backward_costs(batch, CostUnit::Flops).expect("costs");
        let has_moved = |operator: &OperatorCost| operator.parameter.is_some_and(|id| moved.contains(&id));
        let deepest = costs.iter().rposition(has_moved).expect("something moves");
        let spent = costs[..=deepest].iter().map(|operator| operator.cost.through).sum::<u64>()
            + costs.iter().filter(|operator| has_moved(operator)).map(|operator| operator.cost.into).sum::<u64>();
        let total: u64 = costs.iter().map(|operator| operator.cost.through + operator.cost.into).sum();
        // A unit is a 100 000th of the total, and each cost is rounded up to a unit, in the sum that is shared too.
        let unit = total.div_ceil(100_000) as f64;
        let bound = share * (total as f64 + unit * 2.0 * costs.len() as f64);
        assert!(spent as f64 <= bound, "{objective:?}, {share}: {spent} of {total}");
        assert!(moved.len() < oracle.tuned.trainable().len(), "{objective:?}, {share}: everything");
    }
}

#[test]
fn instruction_sets_and_threads_change_no_bit_of_a_run() {
    let (losses, weights) = train("gpt2", Objective::Options, Isa::fastest(), 3, 2e-3);
    for isa in Isa::available() {
        for threads in [1, 3] {
            let (found, values) = on_threads(threads, || train("gpt2", Objective::Options, isa, 3, 2e-3));
            assert_eq!(found, losses, "{isa}, {threads} threads");
            assert_same_bits(&values, &weights, format_args!("{isa}, {threads} threads"));
        }
    }
}

#[test]
fn probing_writes_nothing_and_a_commit_moves_what_it_names() {
    let mut oracle = oracle("qwen2", Objective::Options, Criterion::Loss, Isa::fastest());
    let ids = oracle.tuned.trainable()[..1].to_vec();
    let values: Arc<[f32]> = vec![1.0; oracle.tuned.params()[ids[0]].elements()].into();
    let set = Arc::new(DirectionSet::new([(ids[0], Direction::Explicit(values))]));
    let before = oracle.tuned.inspect(ids[0]).at(3, 2);
    let batch = oracle.draw(Pool::Train, None).expect("a batch");
    let probes = [Displacement::default(), Displacement::along(&set, 0.5)];
    let losses = oracle.losses(batch, &probes).expect("losses");
    assert_ne!(losses[0].total, losses[1].total);
    assert_eq!(oracle.tuned.inspect(ids[0]).at(3, 2), before);
    let report = oracle.commit(&probes[1]).expect("an update");
    assert_eq!(oracle.tuned.inspect(ids[0]).at(3, 2), before + 0.5);
    assert!(report.update_rms > 0.0);
    assert_eq!(oracle.losses(batch, &probes[..1]).expect("losses")[0], losses[1]);
}

#[test]
fn an_accuracy_is_counted_in_examples_and_has_no_slopes() {
    for objective in [Objective::Options, Objective::LabelWords, Objective::Classifier] {
        let mut oracle = oracle(checkpoints(objective)[0], objective, Criterion::Accuracy, Isa::fastest());
        let ids = oracle.tuned.trainable().to_vec();
        let along = |id| {
            let elements = oracle.tuned.params()[id].elements();
            let values: Arc<[f32]> = (0..elements).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.05).collect();
            (id, Direction::Explicit(values))
        };
        let set = Arc::new(DirectionSet::new(ids.into_iter().map(along)));
        let batch = oracle.draw(Pool::Train, None).expect("a batch");
        let probes = [0.0, 1.0, -1.0, 3.0].map(|scale| Displacement::along(&set, scale));
        let losses = oracle.losses(batch, &probes).expect("losses");
        for losses in &losses {
            // Quarters, and their sums, are exact.
            assert!(losses.per_example.iter().all(|loss| [0.0, 0.25].contains(loss)), "{losses:?}");
            assert_eq!(losses.total, losses.per_example.iter().sum::<f64>());
        }
        assert!(losses.iter().any(|lane| lane.total != losses[0].total), "{objective:?}: {losses:?}");
        assert!(matches!(oracle.slopes(batch, &[set]), Err(OracleError::NoSlopes)));
        let mut sink = Descent { rate: 1.0, taken: Vec::new() };
        let ids = oracle.tuned.trainable().to_vec();
        let answer = oracle.gradients(batch, &[(1.0, Displacement::default())], &ids, &mut sink);
        assert!(matches!(answer, Err(OracleError::NoGradients)) && sink.taken.is_empty());
        assert!(matches!(oracle.backward_costs(batch, CostUnit::Flops), Err(OracleError::NoGradients)));
    }
}

#[test]
fn a_model_that_is_not_finite_is_neither_right_nor_wrong() {
    let mut oracle = oracle("llama", Objective::Options, Criterion::Accuracy, Isa::fastest());
    let id = oracle.tuned.trainable()[0];
    let values: Arc<[f32]> = vec![f32::MAX; oracle.tuned.params()[id].elements()].into();
    let set = Arc::new(DirectionSet::new([(id, Direction::Explicit(values))]));
    let batch = oracle.draw(Pool::Train, None).expect("a batch");
    let losses = oracle.losses(batch, &[Displacement::along(&set, f32::MAX)]).expect("losses");
    assert!(losses[0].total.is_nan(), "{losses:?}");
}

#[test]
fn gradients_of_a_loss_that_is_not_finite_are_not_handed_over() {
    let mut oracle = oracle("llama", Objective::Options, Criterion::Loss, Isa::fastest());
    let ids = oracle.tuned.trainable().to_vec();
    let values: Arc<[f32]> = vec![f32::MAX; oracle.tuned.params()[ids[0]].elements()].into();
    let far = Displacement::along(&Arc::new(DirectionSet::new([(ids[0], Direction::Explicit(values))])), f32::MAX);
    let batch = oracle.draw(Pool::Train, None).expect("a batch");
    for at in [vec![far.clone(), Displacement::default()], vec![Displacement::default(), far]] {
        let mut sink = Descent { rate: 1.0, taken: Vec::new() };
        let at: Vec<_> = at.into_iter().map(|at| (0.5, at)).collect();
        let losses = oracle.gradients(batch, &at, &ids, &mut sink).expect("losses");
        assert!(losses.iter().any(|lane| lane.total.is_nan()) && sink.taken.is_empty(), "{losses:?}");
    }
}
