//! The forward pass against transformers' numbers, and against itself: lanes, batches, caches, instruction sets.

use std::sync::Arc;

use zofo::{
    direction::{Direction, DirectionSet, Displacement, materialize},
    kernels::{Context, cross_entropy::Vocabulary},
    model::{Batch, Head, KvCache, Model},
    noise::{Law, NoiseKey, Role},
    objective::{Labelled, losses},
    simd::Isa,
    tensor::MatRef,
    testing::{
        THREAD_COUNTS, assert_same_bits, on_threads,
        reference::golden::{Golden, Sequence, directory},
    },
};

/// Checkpoints and the folders of their recorded outputs.
const CHECKPOINTS: [(&str, &str); 13] = [
    ("bert-cls", "bert-cls"),
    ("bert-mlm", "bert-mlm"),
    ("gpt2", "gpt2"),
    ("llama", "llama"),
    ("llama-bf16", "llama-bf16"),
    ("llama-sharded", "llama"),
    ("llama3-rope-tied", "llama3-rope-tied"),
    ("mistral", "mistral"),
    ("opt", "opt"),
    ("opt-postln-proj", "opt-postln-proj"),
    ("qwen2", "qwen2"),
    ("roberta-cls", "roberta-cls"),
    ("roberta-mlm", "roberta-mlm"),
];

fn open(name: &str) -> Model {
    Model::open(&directory(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn recorded(name: &str) -> Golden {
    Golden::open(&directory(name).join("golden.safetensors"))
}

fn context() -> Context {
    Context::new(Isa::fastest())
}

fn batch(sequences: &[Sequence]) -> Batch {
    Batch::new(sequences.iter().map(|sequence| &sequence.tokens))
}

/// Labels as the objective wants them: one per token, or per sequence for a classifier.
fn labels(sequences: &[Sequence]) -> Vec<Option<u32>> {
    sequences.iter().flat_map(|sequence| &sequence.labels).map(|&raw| u32::try_from(raw).ok()).collect()
}

fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
    found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).abs()).fold(0.0, f64::max)
}

/// The bounds for an f32 engine: 1e-4 for logits and hidden states, 1e-5 for losses.
const LOGITS: f64 = 1e-4;
const LOSS: f64 = 1e-5;

#[test]
fn hidden_states_are_those_of_transformers_layer_by_layer() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden) = (open(name), recorded(folder));
        let sequences = golden.sequences("right.");
        let mut compared = 0;
        let mut check = |layer: usize, rows: MatRef<'_>| {
            let array = format!("right.hidden.{layer}");
            if !golden.has(&array) {
                return;
            }
            compared += 1;
            let expected = sequences.iter().flat_map(|sequence| golden.rows(&array, sequence));
            for (row, expected) in expected.enumerate() {
                assert_eq!(rows.cols(), expected.len(), "{name}: width after {layer}");
                let difference = largest_difference(rows.row(row), expected);
                assert!(difference <= LOGITS, "{name}: after {layer}, row {row}: {difference}");
            }
        };
        let lanes = [Displacement::default()];
        model.forward(&context(), &batch(&sequences), &lanes, None, Some(&mut check)).expect("a forward pass");
        assert!(compared == 3 || name == "llama-bf16", "{name}: {compared} layers were recorded");
    }
}

#[test]
fn logits_and_losses_are_those_of_transformers_whichever_side_was_padded() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        for side in ["right.", "left."] {
            let array = format!("{side}logits");
            if !golden.has(&array) {
                continue;
            }
            let sequences = golden.sequences(side);
            let (batch, lanes) = (batch(&sequences), [Displacement::default()]);
            let hidden = model.forward(&cx, &batch, &lanes, None, None).expect("a forward pass");
            let logits = model.logits(&cx, &hidden, &lanes, &rows(&model, &batch), full(&model)).expect("a head");
            let expected = sequences.iter().flat_map(|sequence| golden.rows(&array, sequence));
            for (row, expected) in expected.enumerate() {
                let difference = largest_difference(logits.lane(0).row(row), expected);
                assert!(difference <= LOGITS, "{name} {side}: logits of row {row}: {difference}");
            }
            let labelled = Labelled::of(model.spec(), &batch, &labels(&sequences)).expect("labels");
            let sums = losses(&model, &cx, &batch, &labelled, &lanes).expect("losses");
            let (loss, expected) = (sums[0].total / labelled.count() as f64, golden.value(&format!("{side}loss")));
            assert!((loss - expected).abs() <= LOSS, "{name} {side}: loss {loss}, recorded {expected}");
        }
    }
}

/// All rows that have logits: every token's, or a classifier's first of every sequence.
fn rows(model: &Model, batch: &Batch) -> Vec<usize> {
    match model.spec().head {
        Head::Classifier { .. } => batch.sequences().iter().map(|rows| rows.start).collect(),
        _ => (0..batch.tokens()).collect(),
    }
}

/// All columns of the logits.
fn full(model: &Model) -> Vocabulary<'static> {
    Vocabulary::Full(model.parts().head.expect("a head").last.outputs)
}

/// Everything that a model answers for a batch: the logits of all rows (of classes) in every lane, and the losses.
fn answers(
    model: &Model,
    cx: &Context,
    batch: &Batch,
    labels: &[Option<u32>],
    lanes: &[Displacement],
) -> Vec<Vec<f32>> {
    let hidden = model.forward(cx, batch, lanes, None, None).expect("a forward pass");
    let rows = rows(model, batch);
    let logits = model.logits(cx, &hidden, lanes, &rows, full(model)).expect("a head");
    let labelled = Labelled::of(model.spec(), batch, labels).expect("labels");
    let sums = losses(model, cx, batch, &labelled, lanes).expect("losses");
    let halves = |loss: f64| [(loss.to_bits() >> 32) as u32, loss.to_bits() as u32].map(f32::from_bits);
    (0..lanes.len())
        .map(|lane| {
            let rows = (0..rows.len()).flat_map(|row| logits.lane(lane).row(row).to_vec());
            rows.chain(sums[lane].per_example.iter().copied().chain([sums[lane].total]).flat_map(halves)).collect()
        })
        .collect()
}

/// A displacement of every parameter by noise, and one of each single parameter in turn.
fn displacements(model: &Model) -> Vec<Displacement> {
    let noise = |probe| Direction::Dense { key: NoiseKey::new(7, 1, Role::Dense, probe), law: Law::Gaussian };
    let all = Arc::new(DirectionSet::new(model.store().params().iter().map(|(id, _)| (id, noise(0)))));
    let mut lanes = vec![Displacement::along(&all, 1e-2), Displacement::along(&all, -1e-2)];
    for (id, param) in model.store().params().iter() {
        let values: Arc<[f32]> = (0..param.elements()).map(|i| (i % 7) as f32 * 0.25 - 0.75).collect();
        let one = Arc::new(DirectionSet::new([(id, Direction::Explicit(values))]));
        let mut both = Displacement::along(&one, 0.125);
        both.terms.extend(Displacement::along(&all, 3e-3).terms);
        lanes.push(if id.index() % 2 == 0 { Displacement::along(&one, 0.5) } else { both });
    }
    lanes
}

/// The model with a displacement written into its weights: the slow truth.
fn displaced(name: &str, displacement: &Displacement) -> Model {
    let mut model = open(name);
    let ids: Vec<_> = model.store().params().iter().map(|(id, param)| (id, param.clone())).collect();
    for (id, param) in ids {
        let weight = model.store().weight(id);
        let values: Vec<f32> =
            (0..param.elements()).map(|at| weight.at(at / param.cols(), at % param.cols())).collect();
        let moved = materialize::displaced(&values, id, &param, displacement);
        let displace = |first: usize, rows: &mut [f32]| {
            rows.copy_from_slice(&moved[first * param.cols()..][..rows.len()]);
        };
        let rounding = NoiseKey::new(0, 0, Role::Rounding, 0);
        model.store_mut().update_rows(id, Isa::fastest(), rounding, displace).expect("a private copy");
    }
    model
}

#[test]
fn displaced_lanes_of_one_pass_have_the_bits_of_displaced_weights() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        let sequences = golden.sequences("right.");
        let (batch, labels) = (batch(&sequences), labels(&sequences));
        let mut lanes = displacements(&model);
        lanes.push(Displacement::default());
        let together = answers(&model, &cx, &batch, &labels, &lanes);
        for (lane, found) in lanes.iter().zip(&together) {
            let alone = displaced(name, lane);
            let expected = answers(&alone, &cx, &batch, &labels, &[Displacement::default()]);
            assert_same_bits(found, &expected[0], format_args!("{name}: {lane:?}"));
        }
    }
}

/// Displacements along thin factors: the weights are not touched, and lanes have different numbers of terms and ranks.
fn low_rank_displacements(model: &Model) -> Vec<Displacement> {
    let set = |rank: usize, seed: usize| {
        let factor = |rows: usize| (0..rows * rank).map(|i| ((i * 7 + seed) % 13) as f32 * 0.125 - 0.75).collect();
        let z = |rows, cols| Direction::LowRank { left: factor(rows), right: factor(cols), rank };
        let params = model.store().params().iter();
        Arc::new(DirectionSet::new(params.map(|(id, param)| (id, z(param.rows(), param.cols())))))
    };
    let (thin, thick) = (set(1, 5), set(4, 3));
    let mut both = Displacement::along(&thin, 1e-2);
    both.terms.extend(Displacement::along(&thick, -5e-3).terms);
    vec![Displacement::along(&thick, 1e-2), Displacement::default(), Displacement::along(&thick, -1e-2), both]
}

#[test]
fn low_rank_lanes_are_within_rounding_of_displaced_weights_and_the_same_in_any_company() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        let sequences = golden.sequences("right.");
        let (batch, labels) = (batch(&sequences), labels(&sequences));
        let lanes = low_rank_displacements(&model);
        let together = answers(&model, &cx, &batch, &labels, &lanes);
        let logits = rows(&model, &batch).len() * model.spec().outputs();
        for (lane, found) in lanes.iter().zip(&together) {
            let alone = answers(&model, &cx, &batch, &labels, std::slice::from_ref(lane));
            assert_same_bits(found, &alone[0], format_args!("{name}: {lane:?}"));
            let expected = answers(&displaced(name, lane), &cx, &batch, &labels, &[Displacement::default()]);
            // Each of the two is within 32 roundings of the largest logit (`testing/reference/tests.rs`).
            let largest = expected[0][..logits].iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let bound = 64.0 / (1 << 24) as f32 * largest;
            for (found, expected) in found[..logits].iter().zip(&expected[0]) {
                assert!((found - expected).abs() <= bound, "{name}: {found} for {expected} ± {bound}");
            }
        }
        let plain = answers(&model, &cx, &batch, &labels, &lanes[1..2]);
        assert!(together[0] != plain[0] && together[0] != together[2] && together[0] != together[3], "{name}");
    }
}

#[test]
fn instruction_sets_and_threads_change_no_bit() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden) = (open(name), recorded(folder));
        let sequences = golden.sequences("right.");
        let (batch, labels) = (batch(&sequences), labels(&sequences));
        let lanes = &[&displacements(&model)[..3], &low_rank_displacements(&model)].concat();
        let expected = answers(&model, &Context::new(Isa::fastest()), &batch, &labels, lanes);
        for isa in Isa::available() {
            for threads in THREAD_COUNTS {
                let found = on_threads(threads, || answers(&model, &Context::new(isa), &batch, &labels, lanes));
                for (found, expected) in found.iter().zip(&expected) {
                    assert_same_bits(found, expected, format_args!("{name} on {isa}, {threads} threads"));
                }
            }
        }
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone_and_in_any_company() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        let sequences = golden.sequences("right.");
        let lanes = [Displacement::default()];
        let logits = |batch: &Batch, rows: &[usize]| -> Vec<f32> {
            let hidden = model.forward(&cx, batch, &lanes, None, None).expect("a forward pass");
            let logits = model.logits(&cx, &hidden, &lanes, rows, full(&model)).expect("a head");
            (0..rows.len()).flat_map(|row| logits.lane(0).row(row).to_vec()).collect()
        };
        let together = batch(&sequences);
        for (sequence, rows) in sequences.iter().zip(together.sequences().iter()) {
            let (first, all) = (rows.start, rows.clone().collect::<Vec<_>>());
            let alone = logits(&Batch::new([&sequence.tokens]), &(0..all.len()).collect::<Vec<_>>());
            assert_same_bits(&logits(&together, &all), &alone, format_args!("{name}: rows from {first}"));
        }
    }
}

#[test]
fn some_entries_of_the_vocabulary_have_the_bits_they_have_among_all() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        if matches!(model.spec().head, Head::Classifier { .. }) {
            continue;
        }
        let batch = batch(&golden.sequences("right."));
        let lanes = &displacements(&model)[..3];
        let hidden = model.forward(&cx, &batch, lanes, None, None).expect("a forward pass");
        let (rows, ids) = ([3, 0, 9], [95, 2, 17, 2]);
        let all = model.logits(&cx, &hidden, lanes, &rows, full(&model)).expect("a head");
        let some = model.logits(&cx, &hidden, lanes, &rows, Vocabulary::Only(&ids)).expect("a head");
        for lane in 0..lanes.len() {
            for row in 0..rows.len() {
                let expected = ids.map(|id| all.lane(lane).row(row)[id as usize]);
                assert_same_bits(some.lane(lane).row(row), &expected, format_args!("{name} lane {lane} row {row}"));
            }
        }
    }
}

#[test]
fn a_cache_changes_no_bit_however_the_tokens_are_cut() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        if !model.spec().is_causal() {
            continue;
        }
        let sequences = golden.sequences("right.");
        let (lanes, whole) = ([Displacement::default()], batch(&sequences));
        let expected = model.forward(&cx, &whole, &lanes, None, None).expect("a forward pass");
        for cut in [1, 2, 3] {
            let mut cache = KvCache::new(model.spec(), sequences.len());
            for from in (0..10).step_by(cut) {
                let pieces: Vec<&[u32]> = sequences
                    .iter()
                    .map(|s| &s.tokens[from.min(s.tokens.len())..(from + cut).min(s.tokens.len())])
                    .collect();
                let piece = Batch::new(&pieces);
                let found = model.forward(&cx, &piece, &lanes, Some(&mut cache), None).expect("a forward pass");
                for (rows, whole) in piece.sequences().iter().zip(whole.sequences().iter()) {
                    for (i, row) in rows.enumerate() {
                        let expected = expected.lane(0).row(whole.start + from + i);
                        assert_same_bits(found.lane(0).row(row), expected, format_args!("{name} by {cut}: row {row}"));
                    }
                }
            }
            assert_eq!(cache.lengths(), sequences.iter().map(|s| s.tokens.len()).collect::<Vec<_>>(), "{name}");
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for (name, folder) in CHECKPOINTS {
        let (model, golden, cx) = (open(name), recorded(folder), context());
        if !golden.has("left.greedy") {
            continue;
        }
        let (expected, sequences) = (golden.array("left.greedy"), golden.sequences("left."));
        let steps = expected.shape[1];
        let lanes = [Displacement::default()];
        let mut cache = KvCache::new(model.spec(), sequences.len());
        let mut next: Vec<Vec<u32>> = sequences.into_iter().map(|sequence| sequence.tokens).collect();
        for step in 0..steps {
            let batch = Batch::new(&next);
            let hidden = model.forward(&cx, &batch, &lanes, Some(&mut cache), None).expect("a forward pass");
            let rows: Vec<usize> = batch.sequences().iter().map(|rows| rows.end - 1).collect();
            let logits = model.logits(&cx, &hidden, &lanes, &rows, full(&model)).expect("a head");
            for (b, next) in next.iter_mut().enumerate() {
                let row = logits.lane(0).row(b);
                let best = (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("a vocabulary");
                assert_eq!(best as f64, expected.values[b * steps + step], "{name}: sequence {b}, token {step}");
                *next = vec![best as u32];
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_errors_that_name_the_place() {
    let (model, cx, lanes) = (open("llama"), context(), [Displacement::default()]);
    let error = |batch: Batch| model.forward(&cx, &batch, &lanes, None, None).err().expect("an error").to_string();
    assert_eq!(
        error(Batch::new([&[1_u32, 2][..], &[3, 96]])),
        "token 96 at position 1 of sequence 1: the vocabulary ends at 96"
    );
    assert_eq!(error(Batch::new([vec![1; 65]])), "sequence 0 has 65 tokens, the model has positions for 64");
    let empty = model.forward(&cx, &Batch::new([[0_u32; 0]]), &lanes, None, None).expect("an empty pass");
    assert_eq!(empty.lane(0).rows(), 0);
}
