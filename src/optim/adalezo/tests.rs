//! Draws and their weights by enumeration, the moments of the estimate, and what stays where it is.

use proptest::prelude::*;

use super::*;
use crate::{
    direction::Param,
    optim::{
        OptionReader, REGISTRY, find,
        fixture::{build, dot, fails_without_a_trace, flat, linear, moments, run, wide},
    },
    testing::{
        assert_same_bits,
        worlds::{self, World},
    },
};

fn options(text: &str) -> Options {
    let table: toml::Table = text.parse().expect("TOML");
    let reader = OptionReader::new("adalezo", &table, Options::SPECS.iter()).expect("options");
    Options::read(&reader).expect("options")
}

/// A world of three layers with a linear loss, and its gradient.
fn layered() -> (World, Vec<f64>) {
    let linear = linear(&[&[2, 3], &[5], &[1, 4]]);
    (linear.world, linear.gradient.concat())
}

/// All values of a world that began at zero, over `-lr`.
fn estimate(world: &World, lr: f64) -> Vec<f64> {
    world.values().iter().flat_map(|values| wide(values)).map(|value| value / -lr).collect()
}

/// Puts these rewards into an optimizer.
struct Rewards([f32; 3]);

impl StateVisitor for Rewards {
    fn count(&mut self, _: &str, _: &mut u64) {}
    fn tensors(&mut self, _: &str, _: &mut BTreeMap<String, Arc<[f32]>>) {}
    fn factors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>, _: &dyn Fn(&Param) -> usize) {
        if name == "reward" {
            values.extend(["a", "b", "c"].iter().zip(self.0).map(|(name, q)| ((*name).to_owned(), Arc::from([q]))));
        }
    }
}

/// Reads them.
#[derive(Default)]
struct Read(Vec<f32>);

impl StateVisitor for Read {
    fn count(&mut self, _: &str, _: &mut u64) {}
    fn tensors(&mut self, _: &str, _: &mut BTreeMap<String, Arc<[f32]>>) {}
    fn factors(&mut self, name: &str, values: &mut BTreeMap<String, Arc<[f32]>>, _: &dyn Fn(&Param) -> usize) {
        if name == "reward" {
            self.0 = values.values().map(|q| q[0]).collect();
        }
    }
}

proptest! {
    #[test]
    fn probabilities_sum_to_one_and_none_is_below_its_share_of_gamma(
        rewards in prop::collection::vec(prop_oneof![0.0..1e-6_f64, 0.0..1.0, 0.0..1e30], 1..40),
        tau in 0.01..100.0_f64,
        gamma in 0.0..=1.0_f64,
        score in prop::sample::select(vec!["relative", "absolute"]),
    ) {
        let options = options(&format!("tau = {tau:?}\ngamma = {gamma:?}\nscore = {score:?}"));
        let (p, count) = (options.probabilities(&rewards), rewards.len() as f64);
        // Each is rounded four times, and so is every partial sum.
        prop_assert!((p.iter().sum::<f64>() - 1.0).abs() <= (count + 4.0) * f64::EPSILON, "{p:?}");
        prop_assert!(p.iter().all(|p| *p >= gamma / count), "{p:?}");
        for (p, q) in p.iter().zip(&rewards) {
            let lower = rewards.iter().zip(options.probabilities(&rewards)).filter(|(other, _)| *other < q);
            // Up to the last bits of the exponential.
            prop_assert!(lower.map(|(_, p)| p).all(|other| other <= *p * (1.0 + 1e-12)), "{p} of {q}");
        }
    }

    #[test]
    fn equal_rewards_are_drawn_alike(reward in 0.0..1e30_f64, count in 1..40_usize) {
        for score in ["relative", "absolute"] {
            let p = options(&format!("score = {score:?}")).probabilities(&vec![reward; count]);
            prop_assert!(p.iter().all(|p| (p * count as f64 - 1.0).abs() <= 4.0 * f64::EPSILON), "{p:?}");
        }
    }
}

#[test]
fn relative_scores_do_not_see_the_scale_of_the_loss_and_absolute_ones_do() {
    let (rewards, doubled) = ([0.5, 1.0, 0.25], [1.0, 2.0, 0.5]);
    let [relative, absolute] = ["relative", "absolute"].map(|score| options(&format!("score = {score:?}")));
    assert_eq!(relative.probabilities(&rewards), relative.probabilities(&doubled));
    assert_eq!(relative.probabilities(&rewards), absolute.probabilities(&rewards), "the largest is 1");
    assert_ne!(absolute.probabilities(&rewards), absolute.probabilities(&doubled));
    // The ratio of the best and the worst of released scores is at most e^(1/τ); a dozen rounded operations.
    let p = relative.probabilities(&[0.0, 1.0]);
    let (uniform, share) = (0.05, [p[0] - 0.05, p[1] - 0.05]);
    assert!(p[0] > uniform && (share[1] / share[0] - (1.0_f64 / 0.6).exp()).abs() < 1e-12, "{p:?}");
}

/// The mean and the mean square of `w n` for each of four layers over every outcome of two draws.
fn enumerated(p: &[f64; 4], clip: f64) -> [(f64, f64); 4] {
    let mut moments = [(0.0, 0.0); 4];
    for (first, second) in (0..4).flat_map(|first| (0..4).map(move |second| (first, second))) {
        for (at, (mean, square)) in moments.iter_mut().enumerate() {
            let n = usize::from(first == at) + usize::from(second == at);
            let factor = n as f64 * weight(p[at], 2, Positive::new(clip));
            *mean += p[first] * p[second] * factor;
            *square += p[first] * p[second] * factor * factor;
        }
    }
    moments
}

#[test]
fn over_all_outcomes_weights_have_the_mean_one_and_a_bound_takes_from_rare_layers() {
    let p = [0.4, 0.3, 0.2, 0.1];
    // Sixteen products of values up to 10, some rounded bits each.
    let rounding = 1e-13;
    for (p, (mean, _)) in p.iter().zip(enumerated(&p, 1e18)) {
        assert!((mean - 1.0).abs() < rounding, "{p}: {mean}");
    }
    for clip in [1.0, 1.5, 4.0] {
        for (p, (mean, square)) in p.iter().zip(enumerated(&p, clip)) {
            assert!((mean - (clip * 2.0 * p).min(1.0)).abs() < rounding, "{p}: {mean}");
            assert!(square <= clip + 1.0, "{p}: {square}");
        }
    }
}

#[test]
fn layers_are_drawn_as_often_as_their_probabilities_say() {
    let p = [0.4, 0.3, 0.2, 0.1];
    let draws: Vec<Vec<u32>> = (0..4000).map(|step| drawn(&p, 3, Clock { seed: 5, step, steps: 4000 })).collect();
    assert!(draws.iter().all(|n| n.iter().sum::<u32>() == 3));
    for (at, p) in p.iter().enumerate() {
        // 12,000 draws: five standard errors of a binomial share.
        let share = draws.iter().map(|n| f64::from(n[at])).sum::<f64>() / 12_000.0;
        assert!((share - p).abs() < 5.0 * (p * (1.0 - p) / 12_000.0).sqrt(), "{at}: {share}");
    }
    assert_eq!(drawn(&[1.0], 4, Clock { seed: 0, step: 0, steps: 1 }), [4]);
}

#[test]
fn on_average_the_update_is_that_of_all_layers_but_for_the_bound() {
    let rewards = [1.0, 0.0, 0.25];
    for clip in [1e18, 1.25] {
        let text = format!("lr = 1\nk_ratio = 0.7\nipw_clip = {clip:?}\n[inner]\nestimator = \"slope\"");
        let sample = |seed: u64| {
            let (mut world, mut optimizer) = (layered().0, build("adalezo", &text));
            optimizer.visit_state(&mut Rewards(rewards));
            run(&mut *optimizer, &mut world, seed, 0..1);
            estimate(&world, 1.0)
        };
        let samples: Vec<_> = (0..6000).map(sample).collect();
        let gradient = layered().1;
        let p = options("").probabilities(&rewards.map(f64::from));
        let layer = |at: usize| p[usize::from(at >= 6) + usize::from(at >= 11)];
        let expected: Vec<f64> =
            gradient.iter().enumerate().map(|(at, g)| g * (clip * 2.0 * layer(at)).min(1.0)).collect();
        moments(&samples, &expected).assert_mean(&expected);
        // 15 values: MeZO's own second moment is 17 ‖g‖².
        let (square, error) = moments(&samples, &[0.0; 15]).square;
        let bound = (clip.min(1.0 / (2.0 * p[1])) + 1.0) * 17.0 * dot(&gradient, &gradient);
        assert!(square + 5.0 * error <= bound, "{square} ± {error} is above {bound}");
    }
}

#[test]
fn layers_that_are_not_drawn_keep_every_bit_and_their_rewards() {
    let mut optimizer = build("adalezo", "lr = 1e-2\nk_ratio = 0.7\nema_alpha = 0.5\ninner.weight_decay = 0.5");
    let (mut world, mut reward) = (layered().0, vec![0.0_f32; 3]);
    let mut seen = [0; 3];
    for step in 0..40 {
        let before = world.values().to_vec();
        let report = run(&mut *optimizer, &mut world, 7, step..step + 1).remove(0);
        let mut found = Read::default();
        optimizer.visit_state(&mut found);
        let moved: Vec<bool> = world.values().iter().zip(&before).map(|(after, before)| after != before).collect();
        assert!(moved.iter().filter(|moved| **moved).count() <= 2, "two draws");
        for (at, moved) in moved.into_iter().enumerate() {
            if moved {
                reward[at] = (0.5 * f64::from(reward[at]) + 0.5 * report.projected_grads[0].abs()) as f32;
                seen[at] += 1;
            } else {
                assert_same_bits(&world.values()[at], &before[at], "a layer that was not drawn");
            }
        }
        assert_same_bits(&found.0, &reward, "rewards");
    }
    assert!(seen.iter().all(|steps| (1..40).contains(steps)), "{seen:?}");
}

#[test]
fn of_all_layers_with_the_weight_one_it_is_the_inner_method() {
    for (name, options) in [("mezo", "queries = 2\nweight_decay = 0.5"), ("lozo", "rank = 3"), ("fzoo", "")] {
        let options = format!("lr = 1e-4\n{options}");
        let layered = format!("k_ratio = 1\n[inner]\nname = {name:?}\n{options}");
        let check = |world: fn() -> World, seed: u64, steps: u64| {
            let (mut found, mut expected) = (world(), world());
            run(&mut *build("adalezo", &layered), &mut found, seed, 0..steps);
            run(&mut *build(name, &options), &mut expected, seed, 0..steps);
            for (found, expected) in found.values().iter().zip(expected.values()) {
                assert_same_bits(found, expected, name);
            }
        };
        // A single layer is drawn in every step, with certainty.
        for world in [worlds::quadratic, worlds::rosenbrock, worlds::matrix_regression] {
            check(world, 3, 5);
        }
        // Two equal ones may be drawn once each.
        let once_each = |seed: &u64| drawn(&[0.5, 0.5], 2, Clock { seed: *seed, step: 0, steps: 1 }) == [1, 1];
        let seeds: Vec<u64> = (0..20).filter(once_each).collect();
        assert!(seeds.len() > 3, "{seeds:?}");
        seeds.into_iter().for_each(|seed| check(worlds::mixed_ranks, seed, 1));
    }
}

#[test]
fn every_method_without_gradients_can_be_wrapped() {
    for entry in REGISTRY {
        let takes_gradients = entry.build(&toml::Table::new()).expect("defaults").needs_gradients();
        let table = format!("inner = {:?}", entry.name).parse().expect("TOML");
        let built = find("adalezo").expect("registered").build(&table);
        assert_eq!(built.is_err(), takes_gradients, "{}", entry.name);
        let Ok(mut optimizer) = built else { continue };
        let mut world = layered().0;
        let mut moved = [false; 3];
        for step in 0..60 {
            let before = world.values().to_vec();
            let report = run(&mut *optimizer, &mut world, 7, step..step + 1).remove(0);
            assert!(!report.nonfinite, "{}: {report:?}", entry.name);
            let now: Vec<bool> = world.values().iter().zip(&before).map(|(after, before)| after != before).collect();
            assert!(now.iter().filter(|now| **now).count() <= 1, "{}: one draw", entry.name);
            moved.iter_mut().zip(now).for_each(|(moved, now)| *moved |= now);
        }
        assert_eq!(moved, [true; 3], "{}", entry.name);
    }
}

#[test]
fn decay_is_not_weighed_by_the_odds() {
    // Nothing changes the loss, so decay alone moves the matrix, by the factor 1 - 0.5 * 0.5.
    let mut world = flat(&[2, 3]);
    run(&mut *build("adalezo", "lr = 0.5\nk_ratio = 1\ninner.weight_decay = 0.5"), &mut world, 3, 0..1);
    assert_eq!(world.values()[0], [0.375; 6]);
    // One of two layers is drawn: its estimate counts twice, its decay once.
    for seed in 0..8 {
        let end = |decay: &str| {
            let mut world = worlds::mixed_ranks();
            run(&mut *build("adalezo", &format!("lr = 0.25\n{decay}")), &mut world, seed, 0..1);
            wide(&world.values()[0])
        };
        let start = wide(&worlds::mixed_ranks().values()[0]);
        for ((found, plain), start) in end("inner.weight_decay = 0.5").iter().zip(end("")).zip(start) {
            let decayed = if plain == start { 0.0 } else { 0.125 * start };
            // Three roundings of values below 32.
            assert!((plain - found - decayed).abs() <= 3.0 * 2_f64.powi(-20), "{found} {plain} {start}");
        }
    }
}

#[test]
fn the_rate_and_the_patience_of_the_table_reach_the_inner_method() {
    let end = |options: &str| {
        let mut world = worlds::mixed_ranks();
        run(&mut *build("adalezo", options), &mut world, 3, 0..5);
        world.values().to_vec()
    };
    assert_eq!(end("lr = 1e-3\ninner.lr = 1e-2"), end("inner.lr = 1e-3"));
    assert_ne!(end("lr = 1e-3"), end(""));
    let gives_up = |options: &str| {
        let (mut world, mut optimizer) = (worlds::mixed_ranks().failing(0..20, f64::NAN), build("adalezo", options));
        (0..20).position(|step| optimizer.step(&mut world, Clock { seed: 3, step, steps: 20 }).is_err())
    };
    let found = ["", "max_nonfinite = 9", "inner.max_nonfinite = 2"].map(gives_up);
    assert_eq!(found, [Some(4), Some(8), Some(1)]);
}

#[test]
fn a_step_that_fails_leaves_no_trace() {
    for options in ["lr = 1e-2\nk_ratio = 1", "lr = 1e-2\ninner = \"lozo_m\"", "lr = 1e-2\ninner = \"zo_mopi\""] {
        fails_without_a_trace("adalezo", options, 2);
    }
}
