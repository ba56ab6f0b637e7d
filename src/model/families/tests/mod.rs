//! What the fields of a configuration mean.

mod refusals;

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{FAMILIES, read};
use crate::{
    direction::Stored,
    kernels::{Mask, activation::Activation, rope::RopeScaling},
    model::{
        ArchSpec, AttentionSpec, Config, EmbeddingSpec, FfnSpec, Head, ModelError, NormKind, NormPlacement, NormSpec,
        Positions, Projections,
    },
    testing::reference::golden::{NAMES, directory},
};

/// Every golden checkpoint.
fn golden_names() -> Vec<&'static str> {
    NAMES.into_iter().chain(["llama-sharded"]).collect()
}

/// The configuration of a golden checkpoint.
fn golden(name: &str) -> Value {
    serde_json::from_slice(&fs::read(directory(name).join("config.json")).expect("a golden checkpoint")).expect("JSON")
}

/// A golden configuration with some fields set.
fn with(name: &str, changes: &[(&str, Value)]) -> Value {
    let mut config = golden(name);
    for (field, value) in changes {
        config[field] = value.clone();
    }
    config
}

/// A golden configuration without some fields.
fn without(name: &str, fields: &[&str]) -> Value {
    let mut config = golden(name);
    let map = config.as_object_mut().expect("an object");
    fields.iter().for_each(|field| drop(map.remove(*field).expect("a field that is there")));
    config
}

fn parse(config: &Value) -> Result<ArchSpec, ModelError> {
    let config = Config::parse(Path::new("config.json"), config.to_string().as_bytes())?;
    read(&config).map(|(spec, _)| spec)
}

fn parsed(config: &Value) -> ArchSpec {
    parse(config).unwrap_or_else(|error| panic!("{error}"))
}

fn rope(scaling: RopeScaling) -> Positions {
    Positions::Rope { theta: 10_000.0, scaling }
}

/// The golden Llama; the others below are told by how they differ.
fn llama() -> ArchSpec {
    ArchSpec {
        family: "llama",
        vocab_size: 96,
        hidden_size: 32,
        layers: 2,
        max_positions: 64,
        embedding: EmbeddingSpec { width: 32, positions: rope(RopeScaling::Default), token_types: 0, norm: false },
        norm: NormSpec { kind: NormKind::Rms, eps: 1e-5, placement: NormPlacement::Before, last: true },
        attention: AttentionSpec {
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            mask: Mask::Causal,
            projections: Projections::Split,
            bias: false,
            out_bias: false,
        },
        ffn: FfnSpec { width: 56, activation: Activation::Silu, gated: true, bias: false },
        head: Head::CausalLm { tied: false },
        stored: Stored::OutIn,
    }
}

fn opt() -> ArchSpec {
    ArchSpec {
        family: "opt",
        embedding: EmbeddingSpec { positions: Positions::Learned { offset: 2, rows: 66 }, ..llama().embedding },
        norm: NormSpec { kind: NormKind::Layer, ..llama().norm },
        attention: AttentionSpec { kv_heads: 4, bias: true, out_bias: true, ..llama().attention },
        ffn: FfnSpec { width: 64, activation: Activation::Relu, gated: false, bias: true },
        head: Head::CausalLm { tied: true },
        ..llama()
    }
}

fn bert() -> ArchSpec {
    ArchSpec {
        family: "bert",
        embedding: EmbeddingSpec {
            width: 32,
            positions: Positions::Learned { offset: 0, rows: 64 },
            token_types: 2,
            norm: true,
        },
        norm: NormSpec { kind: NormKind::Layer, eps: 1e-12, placement: NormPlacement::After, last: false },
        attention: AttentionSpec { mask: Mask::Bidirectional, ..opt().attention },
        ffn: FfnSpec { activation: Activation::Gelu, ..opt().ffn },
        head: Head::MaskedLm { tied: true, activation: Activation::Gelu },
        ..opt()
    }
}

fn roberta() -> ArchSpec {
    ArchSpec {
        family: "roberta",
        embedding: EmbeddingSpec {
            positions: Positions::Learned { offset: 2, rows: 66 },
            token_types: 1,
            ..bert().embedding
        },
        norm: NormSpec { eps: 1e-5, ..bert().norm },
        ..bert()
    }
}

/// What the configuration of a golden checkpoint means.
fn expected(name: &str) -> ArchSpec {
    let classifier = Head::Classifier { labels: 3 };
    match name {
        "llama" | "llama-bf16" | "llama-sharded" => llama(),
        "llama3-rope-tied" => {
            let (factor, low_freq_factor, high_freq_factor, original_context) = (8.0, 1.0, 4.0, 32.0);
            let scaling = RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context };
            let positions = Positions::Rope { theta: 500_000.0, scaling };
            let embedding = EmbeddingSpec { positions, ..llama().embedding };
            ArchSpec { embedding, head: Head::CausalLm { tied: true }, ..llama() }
        }
        "mistral" => {
            let attention = AttentionSpec { head_dim: 12, mask: Mask::Window(4), ..llama().attention };
            ArchSpec { family: "mistral", attention, ..llama() }
        }
        "qwen2" => {
            let attention = AttentionSpec { bias: true, ..llama().attention };
            ArchSpec { family: "qwen2", attention, head: Head::CausalLm { tied: true }, ..llama() }
        }
        "opt" => opt(),
        "opt-postln-proj" => ArchSpec {
            embedding: EmbeddingSpec { width: 16, ..opt().embedding },
            norm: NormSpec { placement: NormPlacement::After, last: false, ..opt().norm },
            ..opt()
        },
        "gpt2" => ArchSpec {
            family: "gpt2",
            embedding: EmbeddingSpec { positions: Positions::Learned { offset: 0, rows: 64 }, ..opt().embedding },
            attention: AttentionSpec { projections: Projections::Fused, ..opt().attention },
            ffn: FfnSpec { activation: Activation::GeluTanh, ..opt().ffn },
            stored: Stored::InOut,
            ..opt()
        },
        "bert-mlm" => bert(),
        "bert-cls" => ArchSpec { head: classifier, ..bert() },
        "roberta-mlm" => roberta(),
        "roberta-cls" => ArchSpec { head: classifier, ..roberta() },
        other => panic!("no golden checkpoint {other}"),
    }
}

#[test]
fn every_golden_configuration_means_what_it_says() {
    for name in golden_names() {
        assert_eq!(parsed(&golden(name)), expected(name), "{name}");
    }
    let mut seen: Vec<&str> = golden_names().into_iter().map(|name| expected(name).family).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>(), "a golden checkpoint a family");
}

#[test]
fn rotary_positions_are_the_same_under_their_old_and_new_names() {
    let old = golden("llama3-rope-tied");
    let mut parameters = old["rope_scaling"].clone();
    parameters["rope_theta"] = old["rope_theta"].clone();
    let mut new = without("llama3-rope-tied", &["rope_scaling", "rope_theta"]);
    new["rope_parameters"] = parameters;
    assert_eq!(parsed(&new), parsed(&old));
    let linear = ArchSpec {
        embedding: EmbeddingSpec { positions: rope(RopeScaling::Linear { factor: 2.0 }), ..llama().embedding },
        ..llama()
    };
    for kind in ["type", "rope_type"] {
        let config = with("llama-sharded", &[("rope_scaling", json!({kind: "linear", "factor": 2}))]);
        assert_eq!(parsed(&config), linear, "{kind}");
    }
    assert_eq!(parsed(&without("llama-sharded", &["rope_theta", "rope_scaling"])), llama(), "the defaults");
}

#[test]
fn absent_fields_have_the_defaults_of_transformers() {
    let heads = |kv_heads| AttentionSpec { kv_heads, ..llama().attention };
    let config = without(
        "llama",
        &["num_key_value_heads", "head_dim", "hidden_act", "attention_bias", "mlp_bias", "tie_word_embeddings"],
    );
    assert_eq!(parsed(&config), ArchSpec { attention: heads(4), ..llama() });
    assert_eq!(parsed(&with("llama", &[("num_key_value_heads", Value::Null)])).attention, heads(4), "null is absent");
    assert_eq!(parsed(&without("mistral", &["sliding_window"])).attention.mask, Mask::Window(4096));
    assert_eq!(parsed(&with("mistral", &[("sliding_window", Value::Null)])).attention.mask, Mask::Causal);
    assert_eq!(parsed(&with("gpt2", &[("n_inner", Value::Null)])).ffn.width, 128);
    assert_eq!(parsed(&without("opt", &["word_embed_proj_dim", "enable_bias", "do_layer_norm_before"])), opt());
    assert_eq!(parsed(&without("roberta-mlm", &["pad_token_id"])), roberta());
    assert_eq!(parsed(&without("bert-mlm", &["hidden_act", "layer_norm_eps", "type_vocab_size"])), bert());
    assert_eq!(parsed(&without("bert-cls", &["id2label"])).head, Head::Classifier { labels: 2 });
}

#[test]
fn fields_that_change_the_architecture_are_read() {
    let biased = parsed(&with("llama", &[("attention_bias", json!(true)), ("mlp_bias", json!(true))]));
    assert!(biased.attention.bias && biased.attention.out_bias && biased.ffn.bias);
    let unbiased = parsed(&with("opt", &[("enable_bias", json!(false))]));
    assert!(!unbiased.attention.bias && !unbiased.attention.out_bias && !unbiased.ffn.bias);
    assert!(!parsed(&with("opt", &[("_remove_final_layer_norm", json!(true))])).norm.last);
    let shifted = parsed(&with("roberta-mlm", &[("pad_token_id", json!(0))]));
    assert_eq!((shifted.embedding.positions, shifted.max_positions), (Positions::Learned { offset: 1, rows: 66 }, 65));
    assert_eq!(parsed(&with("roberta-mlm", &[("hidden_act", json!("relu"))])).head, roberta().head, "GELU always");
    assert_eq!(
        parsed(&with("bert-mlm", &[("hidden_act", json!("relu"))])).head,
        Head::MaskedLm { tied: true, activation: Activation::Relu }
    );
    for (name, bare) in [("bert-mlm", "BertModel"), ("opt", "OPTModel"), ("llama", "LlamaModel")] {
        assert_eq!(parsed(&with(name, &[("architectures", json!([bare]))])).head, Head::None, "{bare}");
    }
}
