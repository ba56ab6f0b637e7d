//! Exact slopes against differences of the reference in f64, and against themselves: sums, company, instruction sets.

use std::{collections::BTreeMap, sync::Arc};

use zofo::{
    direction::{Direction, DirectionSet, Displacement, materialize},
    kernels::{Context, cross_entropy::Sums},
    model::{ArchSpec, Batch, Head, Model, Slopes},
    objective::{Labelled, Learnt, OptionBatch, Options, WordBatch, Words, losses, slopes},
    simd::Isa,
    testing::{
        THREAD_COUNTS, directional_derivative, on_threads,
        reference::{
            self, Output,
            golden::{Golden, NAMES, Sequence, Weights, directory},
            loss,
        },
        sequences::{labelled, noise},
    },
};

/// A model, what was recorded of it, and the same weights for the reference.
struct Case {
    name: &'static str,
    model: Model,
    weights: Weights,
    sequences: Vec<Sequence>,
}

impl Case {
    fn open(name: &'static str) -> Case {
        let dir = directory(name);
        let model = Model::open(&dir).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sequences = Golden::open(&dir.join("golden.safetensors")).sequences("right.");
        Case { name, model, weights: Weights::open(&dir), sequences }
    }

    fn all() -> impl Iterator<Item = Case> {
        NAMES.into_iter().map(Case::open)
    }

    fn spec(&self) -> &ArchSpec {
        self.model.spec()
    }

    fn batch(&self) -> Batch {
        labelled(self.spec(), &self.sequences).0
    }

    fn labelled(&self) -> Labelled {
        labelled(self.spec(), &self.sequences).1
    }

    fn slopes(&self, cx: &Context, along: &[Arc<DirectionSet>]) -> Slopes<Sums> {
        slopes(&self.model, cx, &self.batch(), &self.labelled(), along).expect("slopes")
    }

    /// A direction of every parameter by noise.
    fn noise(&self, probe: u32) -> Arc<DirectionSet> {
        noise(self.model.store().params().iter().map(|(id, _)| id), probe)
    }

    /// A direction of every parameter by thin factors.
    fn low_rank(&self) -> Arc<DirectionSet> {
        let factor = |rows: usize| (0..rows * 3).map(|i| (i * 7 % 13) as f32 * 0.125 - 0.75).collect();
        let params = self.model.store().params().iter();
        let z = |rows, cols| Direction::LowRank { left: factor(rows), right: factor(cols), rank: 3 };
        Arc::new(DirectionSet::new(params.map(|(id, param)| (id, z(param.rows(), param.cols())))))
    }

    /// One direction of a single parameter for each of them.
    fn singles(&self) -> Vec<Arc<DirectionSet>> {
        let single = |(id, param): (_, &zofo::direction::Param)| {
            let values = (0..param.elements()).map(|i| (i % 7) as f32 * 0.25 - 0.75).collect();
            Arc::new(DirectionSet::new([(id, Direction::Explicit(values))]))
        };
        self.model.store().params().iter().map(single).collect()
    }

    /// A direction of every parameter by the sums of both values, which are exact for multiples of 1/4 below 2²¹.
    fn quarters(&self, factor: usize) -> Vec<f32> {
        (0..1 << 14).map(|i| ((i * factor) % 13) as f32 * 0.25 - 1.5).collect()
    }

    fn explicit(&self, values: &[f32]) -> Arc<DirectionSet> {
        let params = self.model.store().params().iter();
        let of = |elements: usize| values.iter().cycle().take(elements).copied().collect();
        Arc::new(DirectionSet::new(params.map(|(id, param)| (id, Direction::Explicit(of(param.elements()))))))
    }

    /// The direction by whose changes of logits rounding errors are measured: its own, but for a bias of keys that of
    /// values. All scores of a query grow by as much, which changes nothing but is nothing only after rounding.
    fn uncancelled(&self, direction: &Arc<DirectionSet>) -> Arc<DirectionSet> {
        let params = self.model.store().params();
        let mut moved = direction.params();
        let (Some(id), None) = (moved.next(), moved.next()) else { return Arc::clone(direction) };
        let name = params[id].name();
        if !name.ends_with("k_proj.bias") && !name.ends_with("key.bias") {
            return Arc::clone(direction);
        }
        let values =
            params.find(&name.replace("k_proj", "v_proj").replace("key", "value")).expect("values have a bias");
        let direction = direction.get(id).expect("it moves").clone();
        Arc::new(DirectionSet::new([(values, direction)]))
    }

    /// What the reference makes of `tokens` at `θ + t·z`.
    fn reference(&self, along: &DirectionSet, t: f64, tokens: &[u32]) -> Output {
        let params = self.model.store().params();
        let source = |slot, layer, role| {
            let mut values = self.weights.values(slot, layer, role);
            let id = params.find(&self.weights.name(slot, layer, role)).expect("a parameter of the model");
            if let Some(direction) = along.get(id) {
                let stored: Vec<f32> = values.iter().map(|&value| value as f32).collect();
                let z = materialize::direction(direction, &params[id], &stored);
                values.iter_mut().zip(z).for_each(|(value, z)| *value += t * f64::from(z));
            }
            values
        };
        reference::forward(self.spec(), &source, tokens)
    }

    /// The losses of a sequence that the reference computed.
    fn losses_of(&self, sequence: &Sequence, output: &Output) -> f64 {
        let logits = output.logits.as_ref().expect("a head");
        loss::of_head(&self.spec().head, logits, &sequence.labels).iter().sum()
    }
}

/// Reach of the differences: `θ ± 2⁻⁸·REACH·z` leaves the neighbourhood of hardly any kink of a `ReLU`, and a loss of
/// magnitude 5 that is rounded to 2⁻⁵⁰ still gives differences to 1e-14 / (2⁻⁸·REACH) = 1e-8.
const REACH: f64 = 1.0 / 4096.0;

/// How far a slope of one labelled row may be, in units of (1 + largest logit) · (largest change of a logit).
///
/// Some 25 operations lie between tokens and logits, and a recorded logit errs by up to 32 roundings of the largest
/// (`testing/reference/tests.rs`, where 13 were found). A change passes the same operations, each with two terms (of
/// the value's change and of the operand's own), and inherits the relative error of the values: 3 · 32 roundings of the
/// largest change. In `Σ pᵢ·żᵢ − ż[label]` both terms err by as much; and p errs by the error of its logit, 32
/// roundings of the largest one, which meets |ż| twice: 2 · 96 · (1 + largest logit) roundings in all.
const ROW: f64 = 192.0 / (1 << 24) as f64;

/// (1 + largest logit) · (largest change of a logit along `z`).
fn scale(case: &Case, along: &DirectionSet, tokens: &[u32]) -> f64 {
    let flat = |t: f64| case.reference(along, t, tokens).logits.expect("a head").concat();
    let largest = |values: &[f64]| values.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let (ahead, behind) = (flat(REACH), flat(-REACH));
    let changes: Vec<f64> = ahead.iter().zip(&behind).map(|(a, b)| (a - b) / (2.0 * REACH)).collect();
    (1.0 + largest(&ahead)) * largest(&changes)
}

#[test]
fn slopes_are_the_derivatives_of_the_reference_in_every_family() {
    for case in Case::all() {
        let mut along = vec![case.noise(0), case.explicit(&case.quarters(5)), case.low_rank()];
        let whole = along.len();
        along.extend(case.singles());
        let found = case.slopes(&Context::new(Isa::fastest()), &along);
        for (at, (direction, found)) in along.iter().zip(&found.slopes).enumerate() {
            // Two sequences for each single parameter, all for the whole directions.
            for (i, sequence) in case.sequences.iter().enumerate().take(if at < whole { usize::MAX } else { 2 }) {
                let curve =
                    |t: f64| vec![case.losses_of(sequence, &case.reference(direction, t * REACH, &sequence.tokens))];
                let estimate = directional_derivative(1e-14, curve)[0];
                let (expected, error) = (estimate.value / REACH, estimate.error / REACH);
                let rows = sequence.labels.len() as f64;
                let bound = error + rows * ROW * scale(&case, &case.uncancelled(direction), &sequence.tokens);
                let difference = (found.per_example[i] - expected).abs();
                let name = case.name;
                assert!(
                    difference <= bound,
                    "{name}, direction {at}, sequence {i}: {} for {expected} ± {bound}",
                    found.per_example[i]
                );
                assert!(at > 0 || bound < expected.abs(), "{name}: a bound of {bound} on {expected} says nothing");
            }
        }
    }
}

#[test]
fn the_slope_along_a_sum_of_directions_is_the_sum_of_their_slopes() {
    for case in Case::all() {
        let (a, b) = (case.quarters(5), case.quarters(8));
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let along = [&a, &b, &sum].map(|values| case.explicit(values));
        let found = case.slopes(&Context::new(Isa::fastest()), &along);
        for (i, sequence) in case.sequences.iter().enumerate() {
            let [a, b, sum] = [0, 1, 2].map(|at| found.slopes[at].per_example[i]);
            let scale: f64 = along.iter().map(|set| scale(&case, set, &sequence.tokens)).sum();
            let bound = sequence.labels.len() as f64 * ROW * scale;
            assert!((a + b - sum).abs() <= bound, "{}, sequence {i}: {a} + {b} and {sum} ± {bound}", case.name);
        }
    }
}

/// Bits of everything that was answered.
fn bits(sums: &Sums) -> Vec<u64> {
    sums.per_example.iter().chain([&sums.total]).map(|value| value.to_bits()).collect()
}

#[test]
fn instruction_sets_threads_and_company_change_no_bit_and_the_loss_is_that_of_a_forward_pass() {
    for case in Case::all() {
        let (cx, name) = (Context::new(Isa::fastest()), case.name);
        // The last directions begin with later layers than the first, so that groups of rows join on the way.
        let mut along = case.singles();
        along.extend([case.noise(0), case.low_rank()]);
        let half = along.len() / 2;
        along.rotate_left(half);
        let expected = case.slopes(&cx, &along);
        let lanes = [Displacement::default()];
        let plain = losses(&case.model, &cx, &case.batch(), &case.labelled(), &lanes).expect("losses");
        assert_eq!(bits(&expected.value), bits(&plain[0]), "{name}: the loss");
        for (at, direction) in along.iter().enumerate() {
            let alone = case.slopes(&cx, std::slice::from_ref(direction));
            assert_eq!(bits(&alone.slopes[0]), bits(&expected.slopes[at]), "{name}: direction {at} alone");
        }
        for isa in Isa::available() {
            for threads in THREAD_COUNTS {
                let found = on_threads(threads, || case.slopes(&Context::new(isa), &along));
                for (at, (found, expected)) in found.slopes.iter().zip(&expected.slopes).enumerate() {
                    assert_eq!(bits(found), bits(expected), "{name}: direction {at}, {isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn a_direction_that_moves_nothing_has_a_slope_of_zero() {
    for case in Case::all() {
        let along = [Arc::default(), case.explicit(&[0.0; 3]), case.noise(2), Arc::default()];
        let found = case.slopes(&Context::new(Isa::fastest()), &along);
        for still in [0, 1, 3] {
            assert!(bits(&found.slopes[still]).iter().all(|&bits| bits == 0), "{}: {still}", case.name);
        }
        assert!(bits(&found.slopes[2]).iter().any(|&bits| bits != 0), "{}", case.name);
    }
}

fn options(case: &Case) -> Vec<Options> {
    let option = |prompt: &[u32], words: &[u32]| ([prompt, words].concat(), prompt.len()..prompt.len() + words.len());
    let of = |(i, sequence): (usize, &Sequence)| {
        let prompt = &sequence.tokens[..3 + i % 2];
        Options {
            sequences: vec![option(prompt, &[7, 9, 11]), option(prompt, &[8]), option(prompt, &[9, 7])],
            gold: vec![i % 3],
        }
    };
    case.sequences.iter().enumerate().map(of).collect()
}

/// The loss of a softmax over scores.
fn choice(scores: &[f64], gold: usize) -> f64 {
    loss::cross_entropy(scores, gold)
}

#[test]
fn slopes_of_chosen_continuations_are_those_of_the_reference_and_the_same_alone() {
    for name in ["llama", "gpt2", "opt"] {
        let (case, cx) = (Case::open(name), Context::new(Isa::fastest()));
        let (examples, along) = (options(&case), [case.noise(0), case.low_rank(), Arc::default()]);
        let slopes = |examples: &[Options]| {
            OptionBatch::new(case.spec(), examples, Learnt::Choice)
                .expect("a batch")
                .slopes(&case.model, &cx, &along)
                .expect("slopes")
        };
        let lanes = [Displacement::default()];
        let plain = OptionBatch::new(case.spec(), &examples, Learnt::Choice).expect("a batch");
        let (scores, found) = slopes(&examples);
        assert_eq!(scores, plain.score(&case.model, &cx, &lanes).expect("scores")[0], "{name}");
        for (i, example) in examples.iter().enumerate() {
            let alone = slopes(std::slice::from_ref(example)).1;
            for (at, direction) in along.iter().enumerate() {
                assert_eq!(found[at][i].to_bits(), alone[at][0].to_bits(), "{name}, example {i}, direction {at}");
                let curve = |t: f64| {
                    let score = |(tokens, span): &(Vec<u32>, std::ops::Range<usize>)| {
                        let logits = case.reference(direction, t * REACH, tokens).logits.expect("a head");
                        let of = |at: usize| loss::cross_entropy(&logits[at - 1], tokens[at] as usize);
                        -span.clone().map(of).sum::<f64>() / span.len() as f64
                    };
                    vec![choice(&example.sequences.iter().map(score).collect::<Vec<_>>(), example.gold[0])]
                };
                let estimate = directional_derivative(1e-14, curve)[0];
                // A mean over tokens errs no more than one of them; the choice weighs two scores, and its own weights
                // err by those of the scores, which meet the changes of both: four times a row's bound.
                let scale =
                    example.sequences.iter().map(|(tokens, _)| scale(&case, direction, tokens)).fold(0.0, f64::max);
                let bound = estimate.error / REACH + 4.0 * ROW * scale;
                let expected = estimate.value / REACH;
                let found = found[at][i];
                assert!((found - expected).abs() <= bound, "{name}, example {i}: {found} for {expected} ± {bound}");
            }
        }
        assert!(found[2].iter().all(|slope| slope.to_bits() == 0), "{name}: {:?}", found[2]);
    }
}

#[test]
fn slopes_of_label_words_are_those_of_the_reference_and_the_same_alone() {
    for name in ["roberta-mlm", "bert-mlm", "bert-cls", "roberta-cls"] {
        let (case, cx) = (Case::open(name), Context::new(Isa::fastest()));
        let classes = matches!(case.spec().head, Head::Classifier { .. });
        let example = |(i, sequence): (usize, &Sequence)| {
            let (position, words) = if classes { (0, vec![0, 1]) } else { (1 + i % 3, vec![5, 17, 40]) };
            Words { ids: sequence.tokens.clone(), position, words, gold: i % 2 }
        };
        let examples: Vec<Words> = case.sequences.iter().enumerate().map(example).collect();
        let along = [case.noise(0), case.low_rank(), Arc::default()];
        let slopes = |examples: &[Words]| {
            WordBatch::new(case.spec(), examples).expect("a batch").slopes(&case.model, &cx, &along).expect("slopes")
        };
        let plain = WordBatch::new(case.spec(), &examples).expect("a batch");
        let (scores, found) = slopes(&examples);
        assert_eq!(scores, plain.score(&case.model, &cx, &[Displacement::default()]).expect("scores")[0], "{name}");
        for (i, example) in examples.iter().enumerate() {
            let alone = slopes(std::slice::from_ref(example)).1;
            for (at, direction) in along.iter().enumerate() {
                assert_eq!(found[at][i].to_bits(), alone[at][0].to_bits(), "{name}, example {i}, direction {at}");
                let curve = |t: f64| {
                    let logits = case.reference(direction, t * REACH, &example.ids).logits.expect("a head");
                    let row = &logits[if classes { 0 } else { example.position }];
                    let scores: Vec<f64> = example.words.iter().map(|&word| row[word as usize]).collect();
                    vec![choice(&scores, example.gold)]
                };
                let estimate = directional_derivative(1e-14, curve)[0];
                let bound = estimate.error / REACH + ROW * scale(&case, direction, &example.ids);
                let (found, expected) = (found[at][i], estimate.value / REACH);
                assert!((found - expected).abs() <= bound, "{name}, example {i}: {found} for {expected} ± {bound}");
            }
        }
        assert!(found[2].iter().all(|slope| slope.to_bits() == 0), "{name}: {:?}", found[2]);
    }
}

#[test]
fn slopes_keep_the_order_in_which_directions_were_given() {
    let case = Case::open("llama");
    let mut along = case.singles();
    let cx = Context::new(Isa::fastest());
    let forwards: BTreeMap<usize, Vec<u64>> = case.slopes(&cx, &along).slopes.iter().map(bits).enumerate().collect();
    along.reverse();
    let backwards = case.slopes(&cx, &along).slopes;
    for (at, found) in backwards.iter().rev().enumerate() {
        assert_eq!(bits(found), forwards[&at], "direction {at}");
    }
}
