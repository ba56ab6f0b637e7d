//! What every optimizer owes: each entry of the registry, with each branch of its options, in each toy world.
//!
//! Where a world's loss is quadratic with eigenvalues in [μ, L] and all batches B share the minimum θ*, an estimate ĝ
//! with E ĝ = g and E‖ĝ‖² ≤ (n + 2)‖g‖² (Gaussian z: E (gᵀz)²‖z‖² = (n + 2)‖g‖²) shrinks D = ‖θ − θ*‖²:
//!
//! ```text
//! E D' = D − 2 lr gᵀ(θ − θ*) + lr² E‖ĝ‖²
//!      ≤ D − 4 lr L_B + 2 lr² (n + 2) L L_B          gᵀ(θ − θ*) = 2 L_B and ‖g‖² ≤ 2 L L_B
//!      = D − 2 lr L_B ≤ (1 − lr μ) D                 with lr = 1 / (L (n + 2))
//! ```

mod gradients;
mod low_rank;

use std::collections::BTreeSet;

use super::*;
use crate::direction::{ParamId, ParamTable};
use crate::testing::{
    assert_same_bits,
    record::{Answer, Recording, Replaying},
    worlds::{self, Call, World},
};

/// How the size of a step depends on the slopes.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    /// Proportional to them.
    Slopes,
    /// Proportional to a running mean of them that keeps this much.
    Mean(f64),
    /// Proportional to a running average of them, along directions with thin factors.
    Thin(Thin),
    /// It does not; the learning rate falls to zero, or the walk would never settle.
    Normalised,
    /// That of matrices does not, and has so many singular values of about the learning rate; that of vectors is
    /// proportional. Both rates fall to zero.
    Spectral(u32),
}

/// What the shape of directions costs an estimate that is unbiased over a new draw of all factors.
#[derive(Clone, Copy, PartialEq)]
struct Thin {
    /// `E‖ĝ‖²` is at most so many times `(n + 2)‖g‖²`.
    noise: f64,
    /// For how many steps factors are kept, or a layer waits for its turn.
    window: f64,
    /// How much of the average a step keeps; an estimate weighs 1 less that.
    kept: f64,
}

struct Case {
    optimizer: &'static str,
    options: &'static str,
    scale: Scale,
    /// Calls that evaluate in one step, where all steps and worlds have as many.
    evaluations: Option<usize>,
}

/// Of each of the two layers that a world has at most every second step.
const TURNS: Scale = Scale::Thin(Thin { noise: 1.0, window: 2.0, kept: 0.0 });

const CASES: &[Case] = &[
    Case { optimizer: "adazeta", options: "", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "adazeta",
        options: "queries = 3\nshrink_factor = 1\ninc_rate = 1",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case { optimizer: "block_zo", options: "", scale: TURNS, evaluations: Some(1) },
    Case {
        optimizer: "block_zo",
        options: "queries = 2\nestimator = \"slope\"\norder = \"descending\"",
        scale: TURNS,
        evaluations: Some(1),
    },
    Case { optimizer: "fzoo", options: "epsilon = 1e-3", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "fzoo", options: "epsilon = 1e-3\nqueries = 3", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "mezo", options: "", scale: Scale::Slopes, evaluations: Some(1) },
    Case { optimizer: "mezo", options: "queries = 3", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "mezo",
        options: "queries = 3\nqueries_schedule = \"linear\"\nestimator = \"one-sided\"",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case { optimizer: "mezo", options: "estimator = \"slope\"", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "mezo",
        options: "queries = 2\naggregate = \"least-squares\"",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case { optimizer: "mezo", options: "rule = \"momentum\"", scale: Scale::Mean(0.9), evaluations: Some(1) },
    Case {
        optimizer: "mezo",
        options: "rule = \"momentum\"\nmomentum = 0.5\nqueries = 2",
        scale: Scale::Mean(0.5),
        evaluations: Some(1),
    },
    Case { optimizer: "mezo", options: "rule = \"adam\"", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "mezo", options: "rule = \"sign\"", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "mezo", options: "rule = \"conservative\"", scale: Scale::Slopes, evaluations: Some(2) },
];

/// Every branch of every optimizer.
fn cases() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(low_rank::CASES).chain(gradients::CASES)
}

type Start = fn() -> World;

const WORLDS: &[(&str, Start)] = &[
    ("quadratic", worlds::quadratic),
    ("rosenbrock", worlds::rosenbrock),
    ("matrix regression", worlds::matrix_regression),
    ("mixed ranks", worlds::mixed_ranks),
];

impl Case {
    fn optimizer(&self, world: &World) -> Box<dyn Optimizer> {
        self.with(&self.rates(world))
    }

    /// The learning rates of a run that descends.
    fn rates(&self, world: &World) -> String {
        let lr = self.lr(world);
        match self.scale {
            Scale::Spectral(_) => format!("lr = {lr:e}\none_d_lr = {:e}", slopes_rate(world)),
            _ if self.has("one_d_lr") => format!("lr = {lr:e}\none_d_lr = {lr:e}"),
            _ => format!("lr = {lr:e}"),
        }
    }

    /// The learning rates of a run that stays where it is.
    fn no_rates(&self) -> &'static str {
        if self.has("one_d_lr") { "lr = 0\none_d_lr = 0" } else { "lr = 0" }
    }

    /// The numbers of the first draws of steps.
    fn draws(&self, steps: impl IntoIterator<Item = u64>) -> impl Iterator<Item = u64> {
        let of_one = if self.optimizer == "addax" { 2 } else { 1 };
        steps.into_iter().map(move |step| step * of_one)
    }

    /// How many updates a step commits: one, or in place one a tensor.
    fn commits(&self, world: &World) -> usize {
        if !self.options.contains("in_place = true") {
            return 1;
        }
        Space::trainable(world).len() + usize::from(self.optimizer == "addax")
    }

    /// Whether the optimizer has an option of that name.
    fn has(&self, option: &str) -> bool {
        find(self.optimizer).expect("registered").options().any(|spec| spec.name == option)
    }

    fn with(&self, more: &str) -> Box<dyn Optimizer> {
        let falls = matches!(self.scale, Scale::Normalised | Scale::Spectral(_));
        let schedule = if falls { "lr_schedule = \"linear\"" } else { "" };
        let table = format!("{}\n{schedule}\n{more}", self.options).parse().expect("TOML");
        find(self.optimizer).and_then(|entry| entry.build(&table)).expect("options of the case")
    }

    /// Proportional steps take the rate of the head of this file, and those of a mean (1 − β) of it, which makes the
    /// same way in the end. Adam goes lr·gᵢ/‖g‖ along each −gᵢ on average, and as far at random as `sign`: its
    /// estimates p·zᵢ have the mean gᵢ and the mean square ‖g‖² or a little more. `conservative` only replaces such a
    /// step by one of a lower loss.
    ///
    /// A normalised step has the squared length n·lr² and goes √(2/π)·lr along −g on average (E sign(gᵀz) z), or
    /// further; g is within an angle of cosine 0.8 of θ − θ* where L/μ ≤ 4 (Kantorovich). So
    /// `E D' ≤ D − 1.28 lr √D + n lr²`: √D is driven down while it exceeds n·lr / 1.28, which this rate puts at a
    /// quarter of the start, and then lower, as the rate falls. In Rosenbrock's valley, whose walls have a curvature
    /// of 1000 where it is met, a step of 0.02 costs 0.2.
    ///
    /// A step of s singular values of about lr has the squared length s·lr², which the rate of `Spectral` makes that of
    /// a normalised one, n·(0.32 √D₀ / n)²; a random direction of the space that it is drawn from goes as far along −g
    /// as a normalised one if s = 1, and 1/√s of that at worst, where g has one singular value.
    fn lr(&self, world: &World) -> f64 {
        let n = world.dimension() as f64;
        match (self.scale, world.facts.convexity) {
            (Scale::Slopes, _) => slopes_rate(world),
            (Scale::Mean(kept), _) => (1.0 - kept) / (world.facts.smoothness * (n + 2.0)),
            (Scale::Thin(Thin { noise, .. }), _) => 1.0 / (world.facts.smoothness * noise * (n + 2.0)),
            (Scale::Spectral(values), convexity) if convexity > 0.0 => {
                0.32 * (world.squared_distance() / (n * f64::from(values))).sqrt()
            }
            (Scale::Spectral(_), _) => 0.02,
            (Scale::Normalised, 0.0) => 0.02,
            (Scale::Normalised, _) => 0.32 * world.squared_distance().sqrt() / n,
        }
    }

    /// Proportional: so many that E D falls to 1/400, hence D to 1/4 with probability 0.99 (Markov). Normalised, with
    /// lr = 0.32 s √D₀ / n and s falling from 1 to 0: while D > D₀ / 4 it falls by (0.205 s − 0.102 s²) D₀ / n a step,
    /// 0.068 D₀ / n on average, which uses up 3/4 of D₀ in 11·n steps; twice that.
    ///
    /// With thin factors: given those that stay, E ĝ = A g with A ≥ 0, so the loss falls on average at every step, and
    /// at the first of a window, where E A = I, as it does without them. The others of a window are not counted, nor,
    /// with momentum, what the average carries beyond its first 1 / (1 − β) steps.
    ///
    /// A layer that moves in its turn only is counted like that too: steps of the others, on losses that are sums over
    /// layers, leave its distance as it is.
    ///
    /// Of a mean: with λ = β/(1 − β) and θ′ the point before θ, z = θ + λ(θ − θ′) goes by −η ĝ(θ), η = 1/(L(n + 2)),
    /// and gᵀ(z − θ*) ≥ 2f(θ) + λ(f(θ) − f(θ′)). Summed over K steps as at the head of this file that is
    /// `2η Σf ≤ D₀ + 2ηλf₀`, and with μD/2 ≤ f ≤ LD/2 the mean of D is at most L(n + 2 + λ)D₀/(μK): a hundredth, so
    /// that D is above a quarter in at most one step of 25, of which the last is not one.
    fn steps(&self, world: &World) -> u64 {
        let (n, facts) = (world.dimension() as f64, world.facts);
        match (self.scale, facts.convexity) {
            (_, 0.0) => 3000,
            (Scale::Mean(kept), convexity) => {
                (100.0 * facts.smoothness / convexity * (n + 2.0 + kept / (1.0 - kept))).ceil() as u64
            }
            (Scale::Slopes, convexity) => (400_f64.ln() * facts.smoothness * (n + 2.0) / convexity).ceil() as u64,
            (Scale::Thin(Thin { noise, window, kept }), convexity) => {
                let moment = noise * (n + 2.0);
                (400_f64.ln() * facts.smoothness / convexity * window / (1.0 - kept) * moment).ceil() as u64
            }
            (Scale::Normalised, _) => 22 * n as u64,
            // √s times as many as those; for vectors a rate that falls to zero is half of one that stays.
            (Scale::Spectral(values), convexity) => {
                let vectors = 2.0 * 400_f64.ln() * facts.smoothness / convexity * (n + 2.0);
                vectors.max(22.0 * n * f64::from(values).sqrt()).ceil() as u64
            }
        }
    }
}

/// The rate of steps that are proportional to slopes.
fn slopes_rate(world: &World) -> f64 {
    1.0 / (world.facts.smoothness * (world.dimension() as f64 + 2.0))
}

/// Runs steps `range` of a run of `steps`.
fn run(
    optimizer: &mut dyn Optimizer,
    oracle: &mut dyn Oracle,
    seed: u64,
    range: std::ops::Range<u64>,
    steps: u64,
) -> Result<Vec<StepReport>, OptimError> {
    range.map(|step| optimizer.step(oracle, Clock { seed, step, steps })).collect()
}

fn assert_same_values(found: &World, expected: &World, what: &str) {
    for (found, expected) in found.values().iter().zip(expected.values()) {
        assert_same_bits(found, expected, what);
    }
}

/// Calls `check` with every case and world, and a label for messages.
fn everywhere(check: impl Fn(&Case, &dyn Fn() -> World, &str)) {
    for case in cases() {
        for (name, world) in WORLDS {
            check(case, world, &format!("{} [{}] in {name}", case.optimizer, case.options.replace('\n', ", ")));
        }
    }
}

#[test]
fn every_optimizer_descends_in_every_world() {
    everywhere(|case, world, label| {
        let mut world = world();
        let (distance, loss, steps) = (world.squared_distance(), world.loss(0), case.steps(&world));
        run(&mut *case.optimizer(&world), &mut world, 7, 0..steps, steps).expect("finite losses");
        if world.facts.convexity == 0.0 {
            // The floor of the valley is met at a loss of 4; the first step alone falls by lr‖g‖²/2 = 0.2 or more.
            assert!(world.loss(0) < loss / 4.0, "{label}: from {loss} to {}", world.loss(0));
        } else {
            let ratio = world.squared_distance() / distance;
            assert!(ratio < 0.25, "{label}: ‖θ − θ*‖² fell to {ratio} of {distance} in {steps} steps");
        }
    });
}

#[test]
fn a_step_draws_then_evaluates_then_commits_once() {
    everywhere(|case, world, label| {
        let mut world = world();
        let reports = run(&mut *case.optimizer(&world), &mut world, 1, 0..5, 5).expect("finite losses");
        let steps: Vec<_> = world.calls().chunk_by(|call, next| (*call, *next) != (Call::Commit, Call::Draw)).collect();
        assert_eq!(steps.len(), 5, "{label}");
        for (calls, report) in steps.iter().zip(reports) {
            let evaluations =
                calls.iter().filter_map(|call| if let Call::Evaluate(n) = call { Some(*n) } else { None });
            let commits = case.commits(&world);
            let (evaluated, committed) = calls.split_at(calls.len() - commits);
            assert!(calls[0] == Call::Draw && !evaluated.contains(&Call::Commit), "{label}: {calls:?}");
            assert_eq!(committed, vec![Call::Commit; commits], "{label}: {calls:?}");
            assert_eq!(evaluations.clone().sum::<usize>(), report.evaluations, "{label}");
            if let Some(expected) = case.evaluations {
                assert_eq!((evaluated.len(), evaluations.count()), (1 + expected, expected), "{label}: {calls:?}");
            }
            assert!(report.loss.is_finite() && report.update_rms > 0.0 && !report.nonfinite, "{label}: {report:?}");
        }
    });
}

#[test]
fn without_a_learning_rate_every_bit_stays() {
    everywhere(|case, world, label| {
        let (start, mut moved) = (world(), world());
        let reports = run(&mut *case.with(case.no_rates()), &mut moved, 1, 0..3, 3).expect("finite losses");
        assert_same_values(&moved, &start, label);
        assert!(reports.iter().all(|report| report.update_rms == 0.0 && report.evaluations > 0), "{label}");
    });
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    everywhere(|case, world, label| {
        let end = |seed| {
            let mut world = world();
            let reports = run(&mut *case.optimizer(&world), &mut world, seed, 0..20, 20).expect("finite losses");
            (world, reports)
        };
        let (third, fourth) = (end(3), end(4));
        assert_same_values(&third.0, &end(3).0, label);
        // Without directions nothing is drawn but batches, and a toy world has one order of these.
        let draws_directions = third.1.iter().any(|report| !report.projected_grads.is_empty());
        assert_eq!(third.0.values() != fourth.0.values(), draws_directions, "{label}: two seeds");
    });
}

#[test]
fn recorded_answers_and_the_same_code_make_the_same_updates_bit_for_bit() {
    everywhere(|case, world, label| {
        if case.optimizer(&world()).needs_gradients() {
            // No record holds gradients: such a run is made again.
            return;
        }
        let broken = || world().failing([4, 9, 10], f64::NAN);
        let mut live = Recording::new(broken());
        let reports = run(&mut *case.optimizer(&live.inner), &mut live, 5, 0..30, 30).expect("finite losses");

        // A journal keeps totals.
        let answers = live.answers.iter().map(Answer::without_examples);
        let mut replay = Recording::new(Replaying::new(broken(), answers));
        let optimizer = &mut *case.optimizer(&world());
        let mut replayed = run(optimizer, &mut replay, 5, 0..17, 30).expect("recorded losses");
        replayed.extend(run(optimizer, &mut replay, 5, 17..30, 30).expect("recorded losses"));
        assert_same_values(replay.inner.world(), &live.inner, label);
        // `Debug` writes every bit of a float but those of a NaN.
        assert_eq!(format!("{:?}", replay.updates), format!("{:?}", live.updates), "{label}");
        assert_eq!(format!("{replayed:?}"), format!("{reports:?}"), "{label}");
        let error = run(optimizer, &mut replay, 5, 30..31, 30).expect_err("the record has ended").to_string();
        assert!(error.starts_with("the record holds None"), "{label}: {error}");
    });
}

/// Keeps an optimizer's state, and puts it into another one.
#[derive(Default)]
struct Kept {
    params: ParamTable,
    trainable: Vec<ParamId>,
    counts: BTreeMap<String, u64>,
    tensors: BTreeMap<String, BTreeMap<String, Arc<[f32]>>>,
    restores: bool,
}

impl StateVisitor for Kept {
    fn count(&mut self, name: &str, value: &mut u64) {
        if self.restores {
            *value = self.counts[name];
        } else {
            assert!(self.counts.insert(name.to_owned(), *value).is_none(), "two numbers {name}");
        }
    }
    fn tensors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>) {
        self.keep(name, values, &Param::elements);
    }
    fn factors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>, len: &dyn Fn(&Param) -> usize) {
        let of_trainable = self.trainable.iter().map(|&id| &self.params[id]);
        let missing = of_trainable.filter(|param| len(param) > 0).find(|param| !values.contains_key(param.name()));
        assert!(values.is_empty() || missing.is_none(), "{name} without {missing:?}: no snapshot would be read");
        self.keep(name, values, len);
    }
}

impl Kept {
    fn keep(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>, len: &dyn Fn(&Param) -> usize) {
        for (param, values) in &*values {
            let param = &self.params[self.params.find(param).expect("a parameter")];
            assert_eq!(values.len(), len(param), "{name} of {}", param.name());
        }
        if self.restores {
            values.clone_from(&self.tensors[name]);
        } else {
            assert!(self.tensors.insert(name.to_owned(), values.clone()).is_none(), "two groups of tensors {name}");
        }
    }
}

#[test]
fn the_state_that_is_shown_is_all_that_a_step_remembers() {
    everywhere(|case, world, label| {
        let mut unbroken = world().failing([9], f64::NAN);
        run(&mut *case.optimizer(&unbroken), &mut unbroken, 5, 0..20, 20).expect("finite losses");

        let mut broken = world().failing([9], f64::NAN);
        let (mut first, mut second) = (case.optimizer(&broken), case.optimizer(&broken));
        run(&mut *first, &mut broken, 5, 0..10, 20).expect("finite losses");
        let (params, trainable) = (Space::params(&broken).clone(), Space::trainable(&broken).to_vec());
        let mut kept = Kept { params, trainable, ..Kept::default() };
        first.visit_state(&mut kept);
        kept.restores = true;
        second.visit_state(&mut kept);
        run(&mut *second, &mut broken, 5, 10..20, 20).expect("finite losses");
        assert_same_values(&broken, &unbroken, label);
    });
}

#[test]
fn frozen_parameters_keep_every_bit() {
    for case in cases() {
        let (start, mut world) = (worlds::mixed_ranks(), worlds::mixed_ranks());
        let decayed = format!("{}\nweight_decay = 0.5", case.rates(&start));
        run(&mut *case.with(&decayed), &mut world, 1, 0..10, 10).expect("finite losses");
        for (id, param) in Space::params(&start).iter() {
            let (found, before) = (&world.values()[id.index()], &start.values()[id.index()]);
            if Space::trainable(&start).contains(&id) {
                assert!(found.iter().zip(before).all(|(a, b)| a != b), "{}: {}", case.options, param.name());
            } else {
                assert_same_bits(found, before, param.name());
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_changes_no_weight_and_the_next_step_goes_on() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        everywhere(|case, world, label| {
            let mut world = world().failing(case.draws(1..5), value);
            let mut optimizer = case.optimizer(&world);
            for step in 0..6 {
                let before = world.values().to_vec();
                let report = run(&mut *optimizer, &mut world, 2, step..step + 1, 6).expect("four in a row").remove(0);
                assert_eq!(report.nonfinite, (1..5).contains(&step), "{label}: step {step}");
                assert_eq!(world.values() == before, report.nonfinite, "{label}: step {step}");
            }
        });
    }
}

#[test]
fn losses_that_are_not_finite_end_a_run_at_the_fifth_in_a_row_or_at_the_number_of_the_option() {
    everywhere(|case, world, label| {
        for (option, count) in [("", 5), ("max_nonfinite = 2", 2)] {
            // The steps 0 and 1 .. 2 of four do not count: step 3 is sound.
            let mut world = world().failing(case.draws((0..1).chain(4..20)), f64::NAN);
            let mut optimizer = case.with(&format!("{}\n{option}", case.rates(&world)));
            let error = run(&mut *optimizer, &mut world, 2, 0..20, 20).expect_err(label);
            let OptimError::NonFinite { count: found, step } = error else { panic!("{label}: {error}") };
            assert_eq!((found, step), (count, 4 + count), "{label}");
        }
    });
}

#[test]
fn the_registry_is_sorted_and_its_entries_build_from_their_defaults() {
    assert!(REGISTRY.is_sorted_by(|a, b| a.name < b.name));
    for entry in REGISTRY {
        let names: BTreeSet<_> = entry.options().map(|spec| spec.name).collect();
        assert_eq!(names.len(), entry.options().count(), "{}: an option stands twice", entry.name);
        let defaults: String = entry.options().map(|spec| format!("{} = {}\n", spec.name, (spec.default)())).collect();
        entry.build(&defaults.parse().expect("defaults are TOML")).expect(entry.name);
        assert!(cases().any(|case| case.optimizer == entry.name), "{} has no case", entry.name);
        assert!(std::ptr::eq(find(entry.name).expect("registered"), *entry));
    }
}

#[test]
fn an_unknown_optimizer_or_option_is_refused_with_the_nearest_name() {
    let message = |error: OptimError| error.to_string();
    assert_eq!(
        find("mexo").map_err(message).expect_err("no such optimizer"),
        "there is no optimizer \"mexo\"; the nearest name is \"mezo\", and `zofo list optimizers` shows all"
    );
    let entry = find("mezo").expect("registered");
    let refused = entry.build(&"eps = 1e-3".parse().expect("TOML")).map(drop).map_err(message).expect_err("unknown");
    assert!(refused.starts_with("optimizer mezo has no option \"eps\"; the nearest name is "), "{refused}");
}
