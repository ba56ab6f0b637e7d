//! Whole imports: every value in its place, or no model at all.

use std::path::PathBuf;

use half::{bf16, f16};
use serde_json::Value;
use tempfile::TempDir;

use super::{Gguf, GgufProblem, problem};
use crate::{
    tensor::DType,
    testing::gguf::GgufBuilder,
    weights::{
        Checkpoint, StoredType, WeightsError,
        gguf::{ImportSummary, Progress, import},
    },
};

/// An imported file, and the directory it stands in.
struct Imported {
    _scratch: TempDir,
    dir: PathBuf,
    summary: ImportSummary,
    config: Value,
    checkpoint: Checkpoint,
}

fn imported_as(file: &[u8], dtype: DType) -> Result<Imported, WeightsError> {
    let scratch = TempDir::new().expect("a temporary directory");
    let (source, dir) = (scratch.path().join("model.gguf"), scratch.path().join("model"));
    std::fs::write(&source, file).expect("a file in it");
    let mut last = None;
    let outcome = import(&source, &dir, dtype, &mut |progress| last = Some(progress));
    let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("readable").collect();
    assert_eq!(left.len(), 1 + usize::from(outcome.is_ok()), "nothing but the file and a whole model: {left:?}");
    let summary = outcome?;
    let checkpoint = Checkpoint::open(&dir).expect("a sound checkpoint");
    let bytes = checkpoint.tensors().map(|tensor| tensor.bytes().len() as u64).sum();
    assert_eq!(last, Some(Progress { tensors: summary.tensors, of: summary.tensors, bytes }));
    let config = std::fs::read(dir.join("config.json")).expect("a config");
    let config = serde_json::from_slice(&config).expect("JSON");
    Ok(Imported { _scratch: scratch, dir, summary, config, checkpoint })
}

fn imported(file: &GgufBuilder) -> Imported {
    imported_as(&file.build(), DType::F32).expect("a sound model")
}

impl Imported {
    fn values(&self, name: &str) -> Vec<f32> {
        let tensor = self.checkpoint.tensor(name).expect("the tensor");
        tensor.values(tensor.shape()).expect("F32")
    }
}

/// The values of a tensor as the file stores them.
fn stored(file: &GgufBuilder, name: &str) -> Vec<f32> {
    let file = file.build();
    let gguf = Gguf::read(&file).expect("a sound file");
    let tensor = &gguf.tensors[name];
    let mut values = vec![0.0; tensor.shape.iter().product()];
    tensor.blocks.decode(tensor.data, &mut values);
    values
}

fn rows(values: &[f32], width: usize, order: &[usize]) -> Vec<f32> {
    order.iter().flat_map(|row| &values[row * width..][..width]).copied().collect()
}

#[test]
fn a_llama_gets_its_names_its_config_and_its_rotary_rows_back() {
    let file = GgufBuilder::tiny("llama");
    let model = imported(&file);
    assert_eq!((model.summary.family, model.summary.tokenizer), ("llama", Some("byte-level BPE")));
    assert_eq!((model.summary.tensors, model.summary.parameters), (11, 64 + 32 + 32 + 64 + 3 * 48 + 40 + 24));
    for (to, from) in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight"),
        ("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"),
        ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
    ] {
        assert_eq!(model.values(to), stored(&file, from), "{to}");
    }
    // Two heads of queries and one of keys, four rows each: even rows, then odd ones.
    let query = rows(&stored(&file, "blk.0.attn_q.weight"), 8, &[0, 2, 1, 3, 4, 6, 5, 7]);
    assert_eq!(model.values("model.layers.0.self_attn.q_proj.weight"), query);
    let key = rows(&stored(&file, "blk.0.attn_k.weight"), 8, &[0, 2, 1, 3]);
    assert_eq!(model.values("model.layers.0.self_attn.k_proj.weight"), key);
    for (key, value) in [
        ("model_type", Value::from("llama")),
        ("head_dim", 4.into()),
        ("num_key_value_heads", 1.into()),
        ("rms_norm_eps", 1e-5.into()),
        ("rope_theta", 500.0.into()),
        ("rope_scaling", Value::Null),
        ("tie_word_embeddings", true.into()),
        ("vocab_size", 5.into()),
        ("torch_dtype", "float32".into()),
        ("eos_token_id", 0.into()),
    ] {
        assert_eq!(model.config[key], value, "{key}");
    }
}

#[test]
fn longer_heads_interleave_over_their_whole_width() {
    // Heads of 8 rows, a value each: what llama.cpp stores of rows 0 to 7 is 0, 4, 1, 5, 2, 6, 3, 7.
    let file = GgufBuilder::tiny("llama").build();
    let gguf = Gguf::read(&file).expect("a sound file");
    let mut stored = gguf.tensors["blk.0.attn_norm.weight"].clone();
    let values: Vec<u8> = [0.0_f32, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    stored.data = &values;
    for shape in [vec![8], vec![8, 1]] {
        stored.shape = shape;
        let mut bytes = Vec::new();
        let layout = crate::weights::gguf::families::Layout::Rotary { heads: 1 };
        let moved = crate::weights::gguf::convert::convert(&stored, layout, DType::F32, |piece| {
            bytes.extend_from_slice(piece);
            Ok::<_, ()>(())
        });
        assert!(moved.is_ok());
        let back: Vec<f32> = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        assert_eq!(back, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
}

#[test]
fn a_window_makes_it_a_mistral_and_a_head_of_its_own_unties_it() {
    let head: Vec<f32> = (0..40).map(|at| at as f32).collect();
    let file = GgufBuilder::tiny("llama").u32("llama.attention.sliding_window", 7);
    let model = imported(&file.f32_tensor("output.weight", &[5, 8], &head));
    assert_eq!((&model.config["model_type"], &model.config["sliding_window"]), (&"mistral".into(), &7.into()));
    assert_eq!(model.config["tie_word_embeddings"], Value::from(false));
    assert_eq!(model.values("lm_head.weight"), head);
}

#[test]
fn a_qwen2_keeps_its_rows_and_brings_its_biases() {
    let file = GgufBuilder::tiny("qwen2");
    let model = imported(&file);
    assert_eq!(model.config["model_type"], Value::from("qwen2"));
    for part in ["q", "k", "v"] {
        for leaf in ["weight", "bias"] {
            let to = model.values(&format!("model.layers.0.self_attn.{part}_proj.{leaf}"));
            assert_eq!(to, stored(&file, &format!("blk.0.attn_{part}.{leaf}")));
        }
    }
}

/// A GPT-2 of width 288, more than a group of columns, with linear layers in `Q8_0`.
fn gpt2(head: Option<u8>) -> GgufBuilder {
    let mut file = GgufBuilder::default()
        .text("general.architecture", "gpt2")
        .u32("gpt2.context_length", 3)
        .u32("gpt2.embedding_length", 288)
        .u32("gpt2.feed_forward_length", 32)
        .u32("gpt2.block_count", 1)
        .u32("gpt2.attention.head_count", 2)
        .f32("gpt2.attention.layer_norm_epsilon", 1e-5);
    let blocks = |rows: usize, cols: usize, seed: u8| -> Vec<u8> {
        let block = |at: usize| {
            let values = (0..32).map(move |i| (at * 37 + i * 11) as u8 ^ seed);
            f16::from_f32(0.5 + at as f32 / 512.0).to_le_bytes().into_iter().chain(values)
        };
        (0..rows * cols / 32).flat_map(block).collect()
    };
    for (name, rows, cols) in
        [("attn_qkv", 864, 288), ("attn_output", 288, 288), ("ffn_up", 32, 288), ("ffn_down", 288, 32)]
    {
        file = file.tensor(&format!("blk.0.{name}.weight"), &[rows, cols], 8, &blocks(rows, cols, 0));
        file = file.f32_tensor(&format!("blk.0.{name}.bias"), &[rows], &vec![0.5; rows]);
    }
    for name in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"] {
        for part in ["weight", "bias"] {
            file = file.f32_tensor(&format!("{name}.{part}"), &[288], &[1.0; 288]);
        }
    }
    if let Some(seed) = head {
        file = file.tensor("output.weight", &[2, 288], 8, &blocks(2, 288, seed));
    }
    file.tensor("token_embd.weight", &[2, 288], 8, &blocks(2, 288, 0)).f32_tensor(
        "position_embd.weight",
        &[3, 288],
        &vec![0.25; 864],
    )
}

#[test]
fn a_gpt2_is_transposed_and_tied_unless_its_head_differs() {
    let file = gpt2(None);
    let model = imported(&file);
    assert_eq!(model.summary.tokenizer, None);
    for (to, from, rows, cols) in [
        ("attn.c_attn", "attn_qkv", 864, 288),
        ("attn.c_proj", "attn_output", 288, 288),
        ("mlp.c_fc", "ffn_up", 32, 288),
        ("mlp.c_proj", "ffn_down", 288, 32),
    ] {
        let name = format!("transformer.h.0.{to}.weight");
        assert_eq!(model.checkpoint.tensor(&name).expect("the tensor").shape(), [cols, rows]);
        let (stored, turned) = (stored(&file, &format!("blk.0.{from}.weight")), model.values(&name));
        let differs = (0..rows * cols).find(|&at| turned[at % cols * rows + at / cols] != stored[at]);
        assert_eq!(differs, None, "{name}");
    }
    assert_eq!(imported(&gpt2(Some(0))).config["tie_word_embeddings"], Value::from(true));
    let untied = imported(&gpt2(Some(1)));
    assert_eq!(untied.config["tie_word_embeddings"], Value::from(false));
    assert_eq!(untied.values("lm_head.weight"), stored(&gpt2(Some(1)), "output.weight"));
}

#[test]
fn values_are_rounded_to_the_nearest_even_and_never_to_infinity() {
    // Two values halfway between bf16 numbers, and one beyond the halves.
    let values = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -1.0e5, 3.0, 0.0, -0.0, 1.0e-40, 65_519.0];
    let set = |values: &[f32; 8]| {
        let mut file = GgufBuilder::tiny("llama").build();
        let at = file.len() - 32;
        for (place, value) in file[at..].as_chunks_mut().0.iter_mut().zip(values) {
            *place = value.to_le_bytes();
        }
        file
    };
    let model = imported_as(&set(&values), DType::BF16).expect("a sound model");
    let norm = model.checkpoint.tensor("model.norm.weight").expect("the tensor");
    assert_eq!(norm.dtype(), StoredType::Bf16);
    assert_eq!(model.config["torch_dtype"], Value::from("bfloat16"));
    let expected: Vec<u8> = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
    assert_eq!(norm.bytes(), expected);
    assert_eq!(model.values("model.norm.weight")[..2], [1.0, 1.015_625], "ties go to even");

    let error = imported_as(&set(&values), DType::F16).err().expect("a value out of range");
    let out_of_range = |problem: &GgufProblem| matches!(problem, GgufProblem::Range { dtype: DType::F16, .. });
    assert!(matches!(&error, WeightsError::Gguf { problem, .. } if out_of_range(problem)), "{error}");
    imported_as(&set(&[65_519.0; 8]), DType::F16).expect("rounds down to the largest half");
    imported_as(&set(&[f32::INFINITY; 8]), DType::F16).expect("was infinite before");
}

#[test]
fn a_file_that_is_not_exactly_the_model_is_refused() {
    let tiny = || GgufBuilder::tiny("llama");
    let extra = tiny().f32_tensor("blk.0.attn_q_norm.weight", &[4], &[1.0; 4]);
    assert!(matches!(problem(&extra.build()), GgufProblem::UnexpectedTensor { .. }));
    let more = tiny().f32_tensor("blk.1.attn_norm.weight", &[8], &[1.0; 8]);
    assert!(matches!(problem(&more.build()), GgufProblem::UnexpectedTensor { .. }), "a layer too many");
    let biased = tiny().f32_tensor("blk.0.attn_q.bias", &[8], &[1.0; 8]);
    assert!(matches!(problem(&biased.build()), GgufProblem::MissingTensor { name } if name == "blk.0.attn_k.bias"));
    assert!(matches!(problem(&tiny().f32("llama.logit_scale", 2.0).build()), GgufProblem::UnknownKey { .. }));
    assert!(matches!(problem(&tiny().u32("llama.expert_count", 8).build()), GgufProblem::Value { .. }));
    assert!(matches!(problem(&tiny().u32("llama.rope.dimension_count", 2).build()), GgufProblem::Value { .. }));
    assert!(matches!(problem(&tiny().u32("llama.attention.key_length", 8).build()), GgufProblem::Shape { .. }));
    let huge = tiny().u32("llama.attention.key_length", u32::MAX - 1).build();
    assert!(matches!(problem(&huge), GgufProblem::Shape { .. } | GgufProblem::Value { .. }));
    let head = tiny().f32_tensor("output.weight", &[8, 5], &[0.0; 40]);
    assert!(matches!(problem(&head.build()), GgufProblem::Shape { found, .. } if found == [8, 5]));
}

#[test]
fn llama_3s_stretched_positions_are_recognised_and_others_refused() {
    let with = |factors: [f32; 2]| GgufBuilder::tiny("llama").f32_tensor("rope_freqs.weight", &[2], &factors);
    // Heads of 4, theta 500: waves of 2π, which stay, and 2π·500 = 3141.6 tokens. Against Llama 3's 8192,
    // smooth = (8192 / 3141.6 − 1) / 3 = 0.5359; with factor 8 the divisor is 1 / ((1 − s) / 8 + s) = 1.6841.
    let wave = std::f64::consts::TAU * 500.0;
    let smooth = (8192.0 / wave - 1.0) / 3.0;
    let stretched = (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32;
    // The last factor of so short a head is not the largest that the rule gives, so the rule is not recovered.
    assert!(matches!(problem(&with([1.0, stretched]).build()), GgufProblem::RopeFactors { entry: 1, .. }));
    let long = with([1.0, 8.0]).f32("llama.rope.scaling.factor", 8.0);
    assert!(matches!(problem(&long.build()), GgufProblem::RopeFactors { entry: 1, .. }));

    // Theta 5,000,000: the second wave, of 14,050 tokens, is beyond 8192 and stretched by the whole factor.
    let rebased = |factors: [f32; 2]| with(factors).without("llama.rope.freq_base").f32("llama.rope.freq_base", 5e6);
    let model = imported(&rebased([1.0, 8.0]));
    let expected = serde_json::json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    assert_eq!(model.config["rope_scaling"], expected);
    assert!(model.checkpoint.find("rope_freqs.weight").is_none());
    for other in [[1.5, 8.0], [1.0, f32::NAN], [1.0, 0.5], [1.0, -8.0]] {
        assert!(matches!(problem(&rebased(other).build()), GgufProblem::RopeFactors { .. }), "{other:?}");
    }
}

#[test]
fn linear_and_yarn_scalings_are_carried_over_and_others_refused() {
    let with = |kind: &str| {
        GgufBuilder::tiny("llama").text("llama.rope.scaling.type", kind).f32("llama.rope.scaling.factor", 4.0)
    };
    let scaling = |file: &GgufBuilder| imported(file).config["rope_scaling"].clone();
    assert_eq!(scaling(&with("linear")), serde_json::json!({ "rope_type": "linear", "factor": 4.0 }));
    assert_eq!(scaling(&with("none")), Value::Null);
    assert!(matches!(problem(&with("yarn").build()), GgufProblem::MissingKey { .. }));
    let yarn = with("yarn").u32("llama.rope.scaling.original_context_length", 8);
    assert_eq!(scaling(&yarn)["original_max_position_embeddings"], Value::from(8));
    assert!(matches!(problem(&with("longrope").build()), GgufProblem::Value { .. }));
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let weights = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        let model = pool.install(|| imported_as(&gpt2(None).build(), DType::BF16).expect("a sound model"));
        std::fs::read(model.dir.join("model.safetensors")).expect("the weights")
    };
    assert!(weights(1) == weights(3));
}
