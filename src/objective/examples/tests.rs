use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    direction::{Direction, DirectionSet},
    kernels::Isa,
    objective::{Generator, Sampler},
    task::{Draws, Input, f1},
    testing::{
        examples::{checkpoints, examples, judge},
        reference::{self, golden},
    },
};

const OBJECTIVES: [Objective; 4] =
    [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier];

fn opened(name: &str, objective: Objective) -> (Model, Examples) {
    let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
    let examples = Examples::new(model.spec(), objective, None, &examples(objective)).expect("examples");
    (model, examples)
}

/// A direction far enough to change what a model chooses and writes.
fn moved(model: &Model) -> Arc<DirectionSet> {
    let along = |(id, param): (_, &crate::direction::Param)| {
        let values: Arc<[f32]> = (0..param.elements()).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.02).collect();
        (id, Direction::Explicit(values))
    };
    Arc::new(DirectionSet::new(model.store().params().iter().map(along)))
}

/// The loss of an example in f64, how many cross-entropies of the vocabulary are in it, and its weight.
fn reference_loss(weights: &golden::Weights, objective: Objective, encoded: &Encoded) -> (f64, f64, usize) {
    let source = |slot, layer, role| weights.values(slot, layer, role);
    let logits = |ids: &[u32]| reference::forward(&weights.spec, &source, ids).logits.expect("a head");
    let tokens = |sequence: &Sequence| {
        let logits = logits(&sequence.ids);
        let loss = |at: usize| reference::loss::cross_entropy(&logits[at - 1], sequence.ids[at] as usize);
        sequence.scored.clone().map(loss).sum::<f64>()
    };
    let whole = |sequence: &Sequence| (tokens(sequence), sequence.scored.len() as f64, sequence.scored.len());
    match encoded {
        Encoded::Candidates { sequences, gold, .. } if objective == Objective::Options => {
            let scores: Vec<f64> =
                sequences.iter().map(|sequence| -tokens(sequence) / sequence.scored.len() as f64).collect();
            (reference::loss::cross_entropy(&scores, gold[0]), 2.0, 1)
        }
        Encoded::Candidates { sequences, gold, .. } => whole(&sequences[gold[0]]),
        Encoded::Answer { sequence, .. } | Encoded::Text(sequence) => whole(sequence),
        Encoded::Mask { ids, position, words, gold, .. } => {
            let row: Vec<f64> = words.iter().map(|&word| logits(ids)[*position][word as usize]).collect();
            // Two logits, each within the golden files' 1e-4.
            (reference::loss::cross_entropy(&row, *gold), 20.0, 1)
        }
        Encoded::Class { ids, gold, .. } => (reference::loss::cross_entropy(&logits(ids)[0], *gold), 20.0, 1),
    }
}

#[test]
fn losses_and_weights_are_those_of_the_reference_for_every_objective() {
    for objective in OBJECTIVES {
        for name in checkpoints(objective) {
            let (model, scored) = opened(name, objective);
            let weights = golden::Weights::open(&golden::directory(name));
            let (cx, lanes) = (Context::new(Isa::fastest()), [Displacement::default()]);
            let numbers: Vec<usize> = (0..scored.len()).rev().collect();
            let found = scored.score(&model, &cx, &numbers, &lanes).expect("scores").remove(0);
            let minimised = scored.clone().minimising(Criterion::Loss).expect("any examples have a loss");
            let losses = minimised.losses(&model, &cx, (0, &numbers), &lanes).expect("losses").remove(0);
            assert_eq!(losses, found.losses, "{name}, {objective:?}");
            for (loss, number) in found.losses.iter().zip(numbers) {
                let (expected, terms, weight) = reference_loss(&weights, objective, &examples(objective)[number].1);
                // The golden files' bound for losses of an f32 engine, for each that enters.
                assert!((loss - expected).abs() <= 1e-5 * terms, "{name}, {objective:?} {number}: {loss}, {expected}");
                assert_eq!(scored.weight(number), weight, "{objective:?} {number}");
            }
        }
    }
}

#[test]
fn rows_are_counted_as_a_pass_has_them_and_fewer_without_wrong_continuations() {
    // Prompts of 3, 4, … tokens. One-token candidates share all of them; the others are a text of four tokens, an answer
    // of two and candidates of three and two that part after one, each without the last token.
    let (_, options) = opened("llama", Objective::Options);
    let (_, tokens) = opened("llama", Objective::LanguageModel);
    assert_eq!([0, 1, 2].map(|number| options.tokens(number)), [3, 4, 5]);
    let learnt = tokens.clone().minimising(Criterion::Loss).expect("any examples have a loss");
    for (number, all, right) in [(0, 3 + 3, 3 + 3), (1, 4 + 1, 4 + 1), (2, 5 + 2, 5 + 2), (5, 8 + 2, 8 + 1)] {
        assert_eq!((tokens.tokens(number), learnt.tokens(number)), (all, right), "{number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn passes_change_no_bit_and_cut_no_example(
        which in 0_usize..4, rows in 1_usize..60, numbers in prop::collection::vec(0_usize..6, 1..9),
    ) {
        let objective = OBJECTIVES[which];
        let (model, scored) = opened(checkpoints(objective)[0], objective);
        let set = moved(&model);
        let lanes = [0.0, 0.5, -0.5].map(|scale| Displacement::along(&set, scale));
        let cx = Context::new(Isa::fastest());
        let whole = scored.score(&model, &cx, &numbers, &lanes).expect("scores");
        let mut all = Evaluation::new(&scored);
        scored.evaluate(&model, &cx, &numbers, &mut all).expect("an evaluation");
        let mut evaluation = Evaluation::new(&scored);
        let mut parts = vec![Scores::default(); lanes.len()];
        let mut seen = Vec::new();
        for pass in scored.passes(&numbers, rows) {
            let size: usize = pass.iter().map(|&number| scored.tokens(number)).sum();
            prop_assert!(!pass.is_empty() && (size <= rows || pass.len() == 1));
            seen.extend_from_slice(pass);
            scored.evaluate(&model, &cx, pass, &mut evaluation).expect("an evaluation");
            for (all, part) in parts.iter_mut().zip(scored.score(&model, &cx, pass, &lanes).expect("scores")) {
                all.scores.extend(part.scores);
                all.losses.extend(part.losses);
                all.correct.extend(part.correct);
            }
        }
        let seen_count = seen.len() as u64;
        prop_assert_eq!(seen, numbers);
        prop_assert_eq!(parts, whole);
        prop_assert_eq!(
            (evaluation.loss(), evaluation.tally.value(), evaluation.tally.count()),
            (all.loss(), all.tally.value(), seen_count)
        );
    }
}

#[test]
fn examples_that_a_model_cannot_score_are_named_with_their_place() {
    let spec = |name| golden::Weights::open(&golden::directory(name)).spec;
    let error = |name, objective, examples: &[(Example, Encoded)]| {
        Examples::new(&spec(name), objective, None, examples).expect_err("no examples").to_string()
    };
    assert_eq!(
        error("bert-cls", Objective::Options, &[]),
        "the objective needs a model with a next-token head; this bert model's is class"
    );
    let (_, choices) = opened("llama", Objective::Options);
    let (_, texts) = opened("llama", Objective::LanguageModel);
    assert_eq!((choices.metric(), texts.metric()), (Metric::Accuracy, Metric::Accuracy));
    assert_eq!(
        choices.minimising(Criterion::F1).expect_err("nothing is written").to_string(),
        "a step cannot minimise 1 - f1 on a task that is scored by its accuracy; expected the objective \"loss\" or \
         \"accuracy\""
    );
    let mut tokens = examples(Objective::LanguageModel);
    let Encoded::Text(sequence) = &mut tokens[3].1 else { panic!("a text") };
    sequence.ids[7] = 96;
    assert_eq!(
        error("llama", Objective::LanguageModel, &tokens),
        "data.jsonl:4: label 96 of scored token 1: the model has 96 of them"
    );
    let mut classes = examples(Objective::Classifier);
    let Encoded::Class { classes: count, .. } = &mut classes[1].1 else { panic!("a class") };
    *count = 4;
    assert_eq!(
        error("roberta-cls", Objective::Classifier, &classes),
        "data.jsonl:2: label 3 of label word 3: the model has 3 of them"
    );
}

/// Questions whose right answers are what `model` writes in `lane`, and the judge of `squad`.
fn questions(model: &Model, cx: &Context, lane: &Displacement) -> (Judge, Vec<(Example, Encoded)>) {
    let (judge, tokenizer) = judge();
    let sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
    let question = |number: u32| {
        let prompt = vec![5 + number, 42, 7];
        let generator = Generator { model, cx, lane, max_tokens: judge.max_tokens(), ends: judge.ends(), sampler };
        let tokens = generator.write(&prompt, &mut |_| true).expect("tokens");
        let text = tokenizer.decode(&tokens, true).expect("a text");
        let answer = text.split('\n').next().unwrap_or_default().trim().to_owned();
        let (ids, scored) = ([&prompt[..], &[9, 8]].concat(), 3..5);
        let encoded = Encoded::Answer { sequence: Sequence { ids, scored, dropped: 0 }, prompt };
        let input = Input::Answer { prompt: String::new(), answer: String::new(), golds: vec![answer], max_tokens: 50 };
        (Example { place: Place { path: Path::new("data.jsonl").into(), line: 1 }, input }, encoded)
    };
    let questions = (0..4).map(question).collect();
    (judge, questions)
}

fn golds(examples: &[(Example, Encoded)]) -> Vec<String> {
    let gold = |(example, _): &(Example, Encoded)| match &example.input {
        Input::Answer { golds, .. } => golds[0].clone(),
        other => panic!("{other:?}"),
    };
    examples.iter().map(gold).collect()
}

#[test]
fn one_minus_f1_is_minimised_over_what_each_lane_writes() {
    let model = Model::open(&golden::directory("llama")).expect("a golden checkpoint");
    let (cx, set) = (Context::new(Isa::fastest()), moved(&model));
    let lanes = [0.0, 1.0].map(|scale| Displacement::along(&set, scale));
    let [still, other] = lanes.each_ref().map(|lane| questions(&model, &cx, lane).1);
    let (judge, _) = questions(&model, &cx, &lanes[0]);
    let examples = Examples::new(model.spec(), Objective::LanguageModel, Some(judge), &still).expect("examples");
    assert_eq!(examples.metric(), Metric::F1);
    let mut evaluation = Evaluation::new(&examples);
    examples.evaluate(&model, &cx, &[0, 1, 2, 3], &mut evaluation).expect("an evaluation");
    let minimised = examples.minimising(Criterion::F1).expect("answers are written");
    assert!(!minimised.has_slopes() && minimised.weight(0) == 1 && minimised.tokens(0) == 3 + 50);
    let found = minimised.losses(&model, &cx, (0, &[0, 1, 2, 3]), &lanes).expect("losses");
    let expected = |lane: &[(Example, Encoded)]| {
        let pairs = golds(lane).into_iter().zip(golds(&still));
        pairs.map(|(written, gold)| 1.0 - f1(&written, &[gold])).collect::<Vec<_>>()
    };
    assert_eq!(found, [expected(&still), expected(&other)]);
    assert_ne!(found[0], found[1], "the lane is too near to show");
    assert_eq!(evaluation.tally.value(), 1.0 - found[0].iter().sum::<f64>() / 4.0);
}
