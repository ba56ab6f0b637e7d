use proptest::prelude::*;

use super::*;
use crate::{
    direction::{Direction, DirectionSet},
    kernels::Isa,
    testing::{
        examples::{checkpoints, examples},
        reference::{self, golden},
    },
};

const OBJECTIVES: [Objective; 4] =
    [Objective::Options, Objective::LanguageModel, Objective::LabelWords, Objective::Classifier];

fn opened(name: &str, objective: Objective) -> (Model, Examples) {
    let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
    let examples = Examples::new(model.spec(), objective, &examples(objective)).expect("examples");
    (model, examples)
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
            let learnt = scored.clone().only_learnt().score(&model, &cx, &numbers, &lanes).expect("scores").remove(0);
            assert_eq!(learnt.losses, found.losses, "{name}, {objective:?}");
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
    let rows = |examples: &Examples| (0..3).map(|number| examples.tokens(number)).collect::<Vec<_>>();
    assert_eq!(rows(&options), [3, 4, 5]);
    assert_eq!(rows(&tokens), [3 + 3, 4 + 1, 5 + 2]);
    let learnt = tokens.clone().only_learnt();
    assert_eq!(rows(&learnt), [3 + 3, 4 + 1, 5 + 2]);
    // The fifth learns the shorter of the two.
    assert_eq!((tokens.tokens(5), learnt.tokens(5)), (8 + 2, 8 + 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn passes_change_no_bit_and_cut_no_example(
        which in 0_usize..4, rows in 1_usize..60, numbers in prop::collection::vec(0_usize..6, 1..9),
    ) {
        let objective = OBJECTIVES[which];
        let (model, scored) = opened(checkpoints(objective)[0], objective);
        let id = model.store().params().iter().next().expect("a parameter").0;
        let noise: Arc<[f32]> = vec![0.01; model.store().params()[id].elements()].into();
        let set = Arc::new(DirectionSet::new([(id, Direction::Explicit(noise))]));
        let lanes = [Displacement::default(), Displacement::along(&set, 0.5), Displacement::along(&set, -0.5)];
        let cx = Context::new(Isa::fastest());
        let whole = scored.score(&model, &cx, &numbers, &lanes).expect("scores");
        let mut parts = vec![Scores::default(); lanes.len()];
        let mut seen = Vec::new();
        for pass in scored.passes(&numbers, rows) {
            let size: usize = pass.iter().map(|&number| scored.tokens(number)).sum();
            prop_assert!(!pass.is_empty() && (size <= rows || pass.len() == 1));
            seen.extend_from_slice(pass);
            for (all, part) in parts.iter_mut().zip(scored.score(&model, &cx, pass, &lanes).expect("scores")) {
                all.scores.extend(part.scores);
                all.losses.extend(part.losses);
                all.correct.extend(part.correct);
            }
        }
        prop_assert_eq!(seen, numbers);
        prop_assert_eq!(parts, whole);
    }
}

#[test]
fn examples_that_a_model_cannot_score_are_named_with_their_place() {
    let spec = |name| golden::Weights::open(&golden::directory(name)).spec;
    let error = |name, objective, examples: &[(Example, Encoded)]| {
        Examples::new(&spec(name), objective, examples).expect_err("no examples").to_string()
    };
    assert_eq!(
        error("bert-cls", Objective::Options, &[]),
        "the objective needs a model with a next-token head; this bert model's is class"
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
