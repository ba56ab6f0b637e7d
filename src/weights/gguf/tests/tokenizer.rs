//! Tokenizers: what `tokenizer.json` says, and what cannot be one.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{GgufProblem, problem};
use crate::{
    tensor::DType,
    testing::gguf::GgufBuilder,
    weights::{COMPANIONS, gguf::import},
};

/// A file of the directory that an import makes.
fn written(file: &GgufBuilder, name: &str) -> Option<String> {
    let scratch = TempDir::new().expect("a temporary directory");
    let source = scratch.path().join("model.gguf");
    std::fs::write(&source, file.build()).expect("a file in it");
    let dir = scratch.path().join("model");
    import(&source, &dir, DType::F32, &mut |_| ()).expect("a sound model");
    std::fs::read_to_string(dir.join(name)).ok()
}

fn json_of(file: &GgufBuilder, name: &str) -> Value {
    serde_json::from_str(&written(file, name).expect("the file")).expect("JSON")
}

/// The tiny model without its tokenizer, whose embedding has five rows.
fn bare() -> GgufBuilder {
    GgufBuilder::tiny("llama").without("tokenizer.")
}

fn byte_level(pre: Option<&str>) -> GgufBuilder {
    let file = bare()
        .text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", &["<s>", "a", "b", "ab", "<tool>"])
        .i32s("tokenizer.ggml.token_type", &[3, 1, 1, 1, 4])
        .texts("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 0)
        .u32("tokenizer.ggml.eot_token_id", 4)
        .text("tokenizer.chat_template", "{{ messages }}");
    match pre {
        Some(pre) => file.text("tokenizer.ggml.pre", pre),
        None => file,
    }
}

fn pieces() -> GgufBuilder {
    bare()
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &["<unk>", "a", "b", "ab", "aba"])
        .i32s("tokenizer.ggml.token_type", &[2, 1, 1, 1, 1])
        .f32s("tokenizer.ggml.scores", &[0.0, -3.0, -4.0, -2.0, -1.0])
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
}

#[test]
fn a_byte_level_tokenizer_keeps_ids_merges_and_roles() {
    let file = byte_level(Some("gpt-2"));
    let tokenizer = json_of(&file, "tokenizer.json");
    let model = &tokenizer["model"];
    assert_eq!(model["vocab"], json!({ "<s>": 0, "a": 1, "b": 2, "ab": 3, "<tool>": 4 }));
    assert_eq!(model["merges"], json!([["a", "b"]]));
    let facts = |at: usize| {
        let added = &tokenizer["added_tokens"][at];
        (added["id"].clone(), added["content"].clone(), added["special"].clone())
    };
    assert_eq!(facts(0), (0.into(), "<s>".into(), true.into()));
    assert_eq!(facts(1), (4.into(), "<tool>".into(), false.into()));
    assert_eq!(tokenizer["post_processor"], Value::Null, "no begin token unless asked for");
    assert_eq!(json_of(&file, "vocab.json"), model["vocab"]);
    assert_eq!(written(&file, "merges.txt").expect("merges"), "#version: 0.2\na b\n");
    let config = json_of(&file, "tokenizer_config.json");
    assert_eq!(config["chat_template"], Value::from("{{ messages }}"));
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&"<s>".into(), &"<s>".into()));
    assert_eq!(config.get("pad_token"), None);
    assert_eq!(json_of(&file, "generation_config.json")["eos_token_id"], json!([0, 4]));
}

#[test]
fn the_name_of_a_pre_tokenizer_decides_how_text_is_split() {
    let kinds = |pre: &str| {
        let tokenizer = json_of(&byte_level(Some(pre)), "tokenizer.json");
        let steps = &tokenizer["pre_tokenizer"];
        let kinds: Vec<String> = match steps["pretokenizers"].as_array() {
            Some(steps) => steps.iter().map(|step| step["type"].to_string()).collect(),
            None => vec![steps["type"].to_string()],
        };
        (kinds.join(" "), tokenizer["model"]["ignore_merges"] == true, tokenizer["normalizer"]["type"].clone())
    };
    assert_eq!(kinds("gpt-2"), (r#""ByteLevel""#.to_owned(), false, Value::Null));
    assert_eq!(kinds("smollm"), (r#""Digits" "ByteLevel""#.to_owned(), false, Value::Null));
    assert_eq!(kinds("llama-bpe"), (r#""Split" "ByteLevel""#.to_owned(), true, Value::Null));
    assert_eq!(kinds("qwen2"), (r#""Split" "ByteLevel""#.to_owned(), false, "NFC".into()));
    let unknown = |pre| problem(&byte_level(pre).build());
    assert!(matches!(unknown(None), GgufProblem::PreTokenizer { found: None }));
    let message = unknown(Some("tekken")).to_string();
    assert!(message.contains("\"tekken\"") && message.contains("smollm"), "{message}");
}

#[test]
fn a_begin_token_is_added_where_the_file_or_its_kind_asks_for_it() {
    let asked = json_of(&byte_level(Some("gpt-2")).flag("tokenizer.ggml.add_bos_token", true), "tokenizer.json");
    let processor = &asked["post_processor"];
    let begin = json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } });
    assert_eq!(processor["single"], json!([begin, { "Sequence": { "id": "A", "type_id": 0 } }]));
    assert_eq!(processor["special_tokens"]["<s>"]["ids"], json!([0]));
    assert_eq!(processor["pair"].as_array().map(Vec::len), Some(4));
    assert_ne!(json_of(&byte_level(Some("llama-bpe")), "tokenizer.json")["post_processor"], Value::Null);
    assert_ne!(json_of(&pieces(), "tokenizer.json")["post_processor"], Value::Null);
    let never = pieces().flag("tokenizer.ggml.add_bos_token", false);
    assert_eq!(json_of(&never, "tokenizer.json")["post_processor"], Value::Null);
}

#[test]
fn pieces_merge_by_falling_score_and_longer_left_part() {
    let tokenizer = json_of(&pieces(), "tokenizer.json");
    // Of `aba` only ab + a: `ba` is no piece. It scores best, so it comes first.
    assert_eq!(tokenizer["model"]["merges"], json!([["ab", "a"], ["a", "b"]]));
    assert_eq!(tokenizer["model"]["byte_fallback"], true);
    assert_eq!(tokenizer["model"]["unk_token"], "<unk>");
    assert_eq!(tokenizer["normalizer"]["normalizers"][0]["prepend"], "▁");
    let bare = json_of(&pieces().flag("tokenizer.ggml.add_space_prefix", false), "tokenizer.json");
    assert_eq!(bare["normalizer"]["type"], "Replace");
    assert_eq!(written(&pieces(), "merges.txt"), None);
    let both = bare_pieces(&["aa", "a", "aaa", "aaaa", "<unk>"], &[1, 1, 1, 1, 2]);
    let merges = json!([["aaa", "a"], ["aa", "aa"], ["a", "aaa"], ["aa", "a"], ["a", "aa"], ["a", "a"]]);
    assert_eq!(json_of(&both, "tokenizer.json")["model"]["merges"], merges);
    let control = bare_pieces(&["aa", "a", "aaa", "aaaa", "<unk>"], &[3, 1, 1, 4, 2]);
    assert_eq!(json_of(&control, "tokenizer.json")["model"]["merges"], json!([]), "only normal pieces merge");
}

/// Pieces that score as long as they are.
fn bare_pieces(tokens: &[&str], kinds: &[i32]) -> GgufBuilder {
    let scores: Vec<f32> = tokens.iter().map(|token| token.len() as f32).collect();
    bare()
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", kinds)
        .f32s("tokenizer.ggml.scores", &scores)
}

#[test]
fn a_vocabulary_that_cannot_be_one_is_refused() {
    let tokens = |tokens: &[&str]| bare().text("tokenizer.ggml.model", "gpt2").texts("tokenizer.ggml.tokens", tokens);
    let twice = tokens(&["a", "b", "a"]);
    assert!(matches!(problem(&twice.build()), GgufProblem::Token { id: 2, .. }));
    let many = tokens(&["a", "b", "c", "d", "e", "f"]);
    assert!(matches!(problem(&many.build()), GgufProblem::Limit { found: 6, limit: 5, .. }));
    for merges in [&["a c"][..], &["b a"], &["ab"], &["a b", "a  b"], &[" "]] {
        let file = tokens(&["a", "b", "ab"]).text("tokenizer.ggml.pre", "gpt-2").texts("tokenizer.ggml.merges", merges);
        assert!(matches!(problem(&file.build()), GgufProblem::Merge { .. }), "{merges:?}");
    }
    let few = tokens(&["a", "b"]).i32s("tokenizer.ggml.token_type", &[1]);
    assert!(matches!(problem(&few.build()), GgufProblem::Value { .. }));
    let outside = byte_level(Some("gpt-2")).u32("tokenizer.ggml.padding_token_id", 5);
    assert!(matches!(problem(&outside.build()), GgufProblem::Value { .. }));
    let long = bare_pieces(&[&"a".repeat(257), "<unk>"], &[1, 2]);
    assert!(matches!(problem(&long.build()), GgufProblem::Token { id: 0, .. }));
    let nan = bare().text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", &["a"]);
    let nan = nan.f32s("tokenizer.ggml.scores", &[f32::NAN]);
    assert!(matches!(problem(&nan.build()), GgufProblem::Value { .. }));
    let other = bare().text("tokenizer.ggml.model", "bert");
    assert!(matches!(problem(&other.build()), GgufProblem::TokenizerModel { .. }));
}

#[test]
fn a_file_without_a_tokenizer_becomes_a_model_without_one() {
    for name in COMPANIONS {
        assert_eq!(written(&bare(), name), None, "{name}");
    }
    assert!(written(&bare(), "config.json").is_some());
}
