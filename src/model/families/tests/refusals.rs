//! What no configuration may say, and what it is told.

use std::{fs, path::Path, time::Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{golden, golden_names, parse, parsed, with, without};
use crate::{
    kernels::Mask,
    model::{AttentionSpec, Config, families::read},
};

fn refusal(config: &Value) -> String {
    parse(config).expect_err("a refusal").to_string()
}

#[test]
fn what_is_not_computed_is_refused_with_what_is() {
    let families = "supported: bert, gpt2, llama, mistral, opt, qwen2, roberta";
    let activations = "supported: relu, gelu, gelu_new, gelu_pytorch_tanh, silu, swish, tanh";
    for (name, field, value, supported) in [
        ("llama", "model_type", json!("bloom"), families),
        ("llama", "model_type", json!("Llama"), families),
        ("llama", "hidden_act", json!("gelu_fast"), activations),
        ("gpt2", "activation_function", json!("quick_gelu"), activations),
        ("llama", "rope_parameters", json!({"rope_type": "yarn"}), "supported: default, linear, llama3"),
        ("llama-sharded", "rope_scaling", json!({"type": "dynamic"}), "supported: default, linear, llama3"),
        ("llama", "rope_parameters", json!({"partial_rotary_factor": 0.5}), "supported: 1"),
        ("llama", "partial_rotary_factor", json!(0.5), "supported: 1"),
        ("llama", "architectures", json!(["LlamaForTokenClassification"]), "supported: LlamaForCausalLM, LlamaModel"),
        ("opt", "architectures", json!(["OPTForSequenceClassification"]), "supported: OPTForCausalLM, OPTModel"),
        ("llama", "quantization_config", json!({"quant_method": "gptq"}), "supported: none"),
        ("llama", "quantization_config", json!({}), "supported: none"),
        ("bert-mlm", "is_decoder", json!(true), "supported: false"),
        ("roberta-mlm", "add_cross_attention", json!(true), "supported: false"),
        ("gpt2", "add_cross_attention", json!(true), "supported: false"),
        ("bert-mlm", "position_embedding_type", json!("relative_key"), "supported: absolute"),
        ("bert-cls", "problem_type", json!("regression"), "supported: single_label_classification"),
        ("gpt2", "scale_attn_weights", json!(false), "supported: true"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), "supported: false"),
        ("opt", "layer_norm_elementwise_affine", json!(false), "supported: true"),
        ("qwen2", "use_sliding_window", json!(true), "supported: false"),
        ("qwen2", "layer_types", json!(["full_attention", "sliding_attention"]), "supported: full_attention"),
    ] {
        let message = refusal(&with(name, &[(field, value.clone())]));
        let inner = value.as_object().and_then(|map| map.keys().next()).filter(|_| field.starts_with("rope_"));
        let field = inner.map_or(field, |inner| if inner == "type" { "rope_type" } else { inner });
        assert!(message.starts_with(&format!("config.json: {field} is ")), "{message}");
        assert!(message.ends_with(supported), "{message}");
    }
    let message = refusal(&with("llama", &[("model_type", json!("bloom"))]));
    assert_eq!(message, format!("config.json: model_type is bloom, which is not supported; {families}"));
}

#[test]
fn a_missing_field_is_named() {
    for (name, fields) in [
        ("llama", &["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"][..]),
        ("opt", &["hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim", "vocab_size"]),
        ("gpt2", &["n_embd", "n_layer", "n_head", "vocab_size"]),
        ("bert-mlm", &["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]),
        ("qwen2", &["model_type"]),
    ] {
        for field in fields {
            let message = refusal(&without(name, &[field]));
            assert!(message.starts_with(&format!("config.json: {field} is missing; expected ")), "{message}");
            assert_eq!(refusal(&with(name, &[(field, Value::Null)])), message, "null is absent");
        }
    }
    for field in ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"] {
        let mut config = golden("llama3-rope-tied");
        config["rope_scaling"].as_object_mut().expect("an object").remove(field).expect("a field");
        assert!(refusal(&config).starts_with(&format!("config.json: {field} is missing; expected ")));
    }
}

#[test]
fn what_is_no_size_is_refused_in_every_field_of_sizes() {
    let not_sizes = [
        json!(0),
        json!(-1),
        json!(1_u64 << 63),
        json!(u64::MAX),
        json!(32.0),
        json!(1e300),
        json!("32"),
        json!(true),
        json!([32]),
        json!({}),
    ];
    for (name, fields) in [
        ("llama", &["hidden_size", "head_dim", "num_key_value_heads", "max_position_embeddings"][..]),
        ("llama", &["num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]),
        ("mistral", &["sliding_window"]),
        ("opt", &["hidden_size", "ffn_dim", "word_embed_proj_dim", "max_position_embeddings"]),
        ("gpt2", &["n_embd", "n_layer", "n_head", "n_inner", "n_positions", "vocab_size"]),
        ("bert-mlm", &["hidden_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"]),
    ] {
        for field in fields {
            for value in
                not_sizes.iter().filter(|value| **field != *"sliding_window" || !value.is_u64() || **value == 0)
            {
                let message = refusal(&with(name, &[(field, value.clone())]));
                let (start, end) = (format!("config.json: {field} is {value}; "), "expected a whole number from 1 to ");
                assert!(message.starts_with(&(start + end)), "{name}: {message}");
            }
        }
    }
    assert_eq!(
        parsed(&with("mistral", &[("sliding_window", json!(u64::MAX))])).attention.mask,
        Mask::Window(usize::MAX)
    );
}

#[test]
fn a_value_of_another_kind_is_refused_with_what_should_be_there() {
    for (name, field, values, expected) in [
        ("llama", "rms_norm_eps", json!([0, -1e-5, "1e-5", 1e-300, 1e300, false]), "a positive number"),
        ("llama-sharded", "rope_theta", json!([0, -1, "1e4", 1e39, [1e4]]), "a positive number"),
        ("llama", "tie_word_embeddings", json!([0, 1, "true", []]), "true or false"),
        ("opt", "do_layer_norm_before", json!([0, "false"]), "true or false"),
        ("llama", "hidden_act", json!([1, true, ["silu"], {}]), "a text"),
        ("llama", "model_type", json!([1, ["llama"]]), "a text"),
        ("llama", "rope_parameters", json!([1, "default", []]), "an object"),
        ("llama", "quantization_config", json!([true, "gptq", []]), "an object"),
        ("llama", "architectures", json!([[], "LlamaForCausalLM", [1], {}]), "a list of class names"),
        ("bert-cls", "id2label", json!([{}, [], 3, "x"]), "an object of label names"),
        ("qwen2", "layer_types", json!(["full_attention", {}]), "a list"),
    ] {
        for value in values.as_array().expect("a list") {
            let message = refusal(&with(name, &[(field, value.clone())]));
            assert_eq!(message, format!("config.json: {field} is {value}; expected {expected}"));
        }
    }
}

#[test]
fn sizes_that_do_not_go_together_are_refused() {
    for (name, changes, expected) in [
        ("llama", &[("num_key_value_heads", json!(3))][..], "num_key_value_heads is 3; expected a divisor of the 4 "),
        ("llama", &[("head_dim", json!(7))], "head_dim is 7; expected an even number"),
        (
            "opt",
            &[("num_attention_heads", json!(5))],
            "num_attention_heads is 5; expected a divisor of the hidden size",
        ),
        (
            "roberta-mlm",
            &[("pad_token_id", json!(65))],
            "max_position_embeddings is 66; expected more than the 66 rows",
        ),
        (
            "bert-cls",
            &[("id2label", json!({ "0": "score" }))],
            "num_labels is 1, a regression, which is not supported; supported: 2 classes",
        ),
        (
            "llama",
            &[("rope_parameters", json!({ "full_attention": { "rope_theta": 1e4 } }))],
            "rope_parameters is {\"full_attention\":{\"rope_theta\":10000.0}}; expected one set of parameters",
        ),
        (
            "llama",
            &[("rope_parameters", json!({ "\u{1b}[31m": {} }))],
            "rope_parameters is {\"\\u001b[31m\":{}}; expected one set of parameters",
        ),
        ("roberta-mlm", &[("pad_token_id", json!(-1))], "pad_token_id is -1; expected a whole number from 0 to"),
    ] {
        let message = refusal(&with(name, changes));
        assert!(message.starts_with(&format!("config.json: {expected}")), "{message}");
    }
    let mut config = golden("llama3-rope-tied");
    config["rope_scaling"]["high_freq_factor"] = json!(1.0);
    assert_eq!(refusal(&config), "config.json: high_freq_factor is 1.0; expected more than 1");
}

#[test]
fn what_is_no_configuration_is_refused_quickly() {
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    for text in ["", "{", r#"{"a":1e999}"#, "{}x", "\u{feff}{}", &deep] {
        let start = Instant::now();
        let error = Config::parse(Path::new("config.json"), text.as_bytes()).expect_err("a refusal").to_string();
        assert!(error.starts_with("config.json: not the JSON of a configuration: "), "{error}");
        assert!(start.elapsed().as_secs_f64() < 1.0, "{error}: refused only after {:?}", start.elapsed());
    }
    assert!(Config::parse(Path::new("config.json"), b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
    for (other, found) in [(json!([]), "[]"), (Value::Null, "null"), (json!("\u{9b}".repeat(99)), "\"\u{fffd}\u{fffd}")]
    {
        let message = refusal(&other);
        assert!(message.starts_with(&format!("config.json: the configuration is {found}")), "{message}");
        assert!(message.ends_with("; expected an object") && message.chars().count() < 150, "{message}");
    }
}

#[test]
fn a_file_that_is_too_long_or_absent_is_refused_by_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.json");
    let message = Config::read(&path).expect_err("no file").to_string();
    assert_eq!(message, format!("cannot read {}", path.display()));
    let mut config = golden("llama");
    fs::write(&path, config.to_string()).expect("a file");
    assert_eq!(parsed(&config), Config::read(&path).and_then(|config| read(&config)).expect("a configuration").0);
    config["padding"] = json!(" ".repeat(5 << 20));
    fs::write(&path, config.to_string()).expect("a file");
    let message = Config::read(&path).expect_err("5 MB").to_string();
    let bytes = config.to_string().len();
    assert_eq!(message, format!("{}: a configuration of {bytes} bytes; at most 4194304 are read", path.display()));
    #[cfg(unix)]
    {
        let endless = Config::read(Path::new("/dev/zero")).expect_err("a file without end").to_string();
        assert_eq!(endless, "/dev/zero: a configuration of 4194305 bytes; at most 4194304 are read");
    }
}

/// Any JSON, often a number at an edge or a word that means something here.
fn any_json() -> impl Strategy<Value = Value> {
    let words = ["llama", "default", "linear", "llama3", "relu", "full_attention", "factor", "rope_type", "\u{1b}[31m"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..200).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(&[1 << 20, 1 << 21, (1 << 21) + 1, 1_u64 << 32, 1 << 63][..]).prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let key = prop_oneof![prop::sample::select(words.to_vec()).prop_map(str::to_owned), any::<String>()];
        let object = prop::collection::vec((key, inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

/// Every field of every golden configuration, and those that none of them has.
fn fields() -> Vec<String> {
    let mut fields: Vec<String> = ["quantization_config", "partial_rotary_factor", "num_labels", "problem_type"]
        .map(str::to_owned)
        .into_iter()
        .chain(
            golden_names()
                .into_iter()
                .flat_map(|name| golden(name).as_object().expect("an object").clone())
                .map(|(key, _)| key),
        )
        .collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_values_in_any_fields_are_refused_in_a_line_or_make_a_consistent_model(
        name in prop::sample::select(golden_names()),
        changes in prop::collection::vec((prop::sample::select(fields()), any_json()), 1..4),
    ) {
        let mut config = golden(name);
        changes.into_iter().for_each(|(field, value)| config[field] = value);
        match parse(&config) {
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.starts_with("config.json: ") && message.chars().count() < 400, "{}", message);
                prop_assert!(!message.contains(char::is_control), "{:?}", message);
            }
            Ok(spec) => {
                let AttentionSpec { heads, kv_heads, .. } = spec.attention;
                prop_assert!(heads.is_multiple_of(kv_heads) && spec.layers > 0 && spec.max_positions > 0);
                // Neither panics: products of sizes stay within their type, heads can be turned.
                prop_assert!(spec.query_width() >= spec.key_width() && spec.attention_scale() > 0.0);
                prop_assert!(spec.rope_table(1).is_none_or(|table| table.head_dim() == spec.attention.head_dim));
            }
        }
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(config) = Config::parse(Path::new("config.json"), &bytes) {
            // No family is named by chance: the claim is that nothing panics.
            prop_assert!(read(&config).is_err());
        }
    }
}
