//! Tokenizers against the reference implementation's ids (`tests/golden/text`, made by the Python package), and
//! files that are broken in every way we know.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Encoding, Fault, MAX_TEXT_BYTES, MAX_VOCABULARY, TextError, Tokenizer, TokenizerProblem};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text").join(name)
}

fn golden_bytes(name: &str) -> Vec<u8> {
    fs::read(golden(name)).expect("a golden file")
}

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("a file in it");
    }
    dir
}

fn open(files: &[(&str, &[u8])]) -> Result<Tokenizer, TextError> {
    Tokenizer::open(directory(files).path())
}

/// The tokenizer of a golden `tokenizer.json`.
fn tiny(name: &str) -> Tokenizer {
    open(&[("tokenizer.json", &golden_bytes(&format!("{name}.json")))]).expect("a golden tokenizer")
}

/// For the tests that need them many times.
static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| tiny("byte_level"));
static SPLIT: LazyLock<Tokenizer> = LazyLock::new(|| tiny("split"));
static BYTE_FALLBACK: LazyLock<Tokenizer> = LazyLock::new(|| tiny("byte_fallback"));

/// Byte-level BPE in the layout of GPT-2, with this `tokenizer_config.json`.
fn from_merges(config: &Value) -> Result<Tokenizer, TextError> {
    let (vocabulary, merges) = (golden_bytes("vocab.json"), golden_bytes("merges.txt"));
    let config = config.to_string();
    open(&[("vocab.json", &vocabulary), ("merges.txt", &merges), ("tokenizer_config.json", config.as_bytes())])
}

fn from_vocabulary(config: &Value) -> Result<Tokenizer, TextError> {
    open(&[("vocab.txt", &golden_bytes("vocab.txt")), ("tokenizer_config.json", config.to_string().as_bytes())])
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

/// Everything that the reference implementation said about the golden texts.
fn assert_golden(tokenizer: &Tokenizer, name: &str) {
    let encodings: Value = serde_json::from_slice(&golden_bytes("encodings.json")).expect("JSON");
    let cases = encodings[name].as_array().expect("a list of cases");
    assert!(cases.len() > 20, "{name}");
    for case in cases {
        let text = case["text"].as_str().expect("a text");
        let with_special = ids(&case["special_ids"]);
        assert_eq!(tokenizer.encode(text, false).expect("ids"), ids(&case["ids"]), "{name}: {text:?}");
        assert_eq!(tokenizer.encode(text, true).expect("ids"), with_special, "{name}: {text:?}");
        let Encoding { ids, offsets } = tokenizer.encode_with_offsets(text, true).expect("ids");
        let offsets: Vec<_> = offsets.iter().map(|range| [range.start, range.end]).collect();
        assert_eq!((&ids, json!(offsets)), (&with_special, case["offsets"].clone()), "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&ids, false).expect("text"), case["decoded"], "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&ids, true).expect("text"), case["skipped"], "{name}: {text:?}");
        assert_streams_to(tokenizer, &ids, case["decoded"].as_str().expect("text"));
    }
}

fn assert_streams_to(tokenizer: &Tokenizer, ids: &[u32], expected: &str) {
    let mut stream = tokenizer.stream(false);
    let mut text: String = ids.iter().map(|&id| stream.push(id).expect("a piece")).collect();
    text += &stream.finish().expect("the rest");
    assert_eq!(text, expected, "streamed {ids:?}");
}

fn problem(json: &Value) -> TokenizerProblem {
    match open(&[("tokenizer.json", json.to_string().as_bytes())]).expect_err("a broken tokenizer") {
        TextError::Tokenizer { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

/// A golden tokenizer with one of its parts replaced.
fn altered(name: &str, pointer: &str, part: Value) -> Value {
    let mut json: Value = serde_json::from_slice(&golden_bytes(&format!("{name}.json"))).expect("JSON");
    *json.pointer_mut(pointer).expect("a part of it") = part;
    json
}

fn load(json: &Value) -> Result<Tokenizer, TextError> {
    open(&[("tokenizer.json", json.to_string().as_bytes())])
}

// --- the ids of the reference ----------------------------------------------------------------------

#[test]
fn every_kind_of_tokenizer_gives_the_reference_ids_offsets_and_texts() {
    // `byte_level` stores padding to 40 tokens and truncation to 4, which must have no effect.
    for name in ["byte_level", "split", "byte_fallback", "unigram", "wordpiece"] {
        assert_golden(&tiny(name), name);
    }
}

#[test]
fn the_older_layouts_give_the_ids_of_their_family() {
    let opt = json!({
        "tokenizer_class": "GPT2Tokenizer", "add_bos_token": true, "bos_token": "</s>", "eos_token": "</s>",
        "unk_token": {"content": "</s>", "lstrip": false}, "pad_token": "<pad>", "mask_token": "<mask>",
        "sep_token": "<s>", "cls_token": "<unk>",
    });
    let tokenizer = from_merges(&opt).expect("an OPT tokenizer");
    assert_golden(&tokenizer, "opt");
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.pad, special.unk), (Some(2), Some(2), Some(1), Some(2)));
    assert_golden(
        &from_merges(&json!({"tokenizer_class": "RobertaTokenizer"})).expect("a RoBERTa tokenizer"),
        "roberta",
    );
    let bert = from_vocabulary(&json!({"tokenizer_class": "BertTokenizerFast"})).expect("a BERT tokenizer");
    assert_golden(&bert, "wordpiece");
    assert_eq!((bert.special().cls, bert.special().sep, bert.special().mask), (Some(2), Some(3), Some(4)));
    assert_golden(&from_vocabulary(&json!({"do_lower_case": false})).expect("a cased one"), "wordpiece_cased");
}

#[test]
fn gpt2_files_add_nothing_and_opt_is_known_by_its_configuration() {
    let gpt2 = from_merges(&json!({})).expect("a GPT-2 tokenizer");
    let bare = gpt2.encode("The cat", true).expect("ids");
    assert_eq!(bare, tiny("byte_level").encode("The cat", true).expect("ids"));
    let files = [("vocab.json", golden_bytes("vocab.json")), ("merges.txt", golden_bytes("merges.txt"))];
    let mut files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    files.push(("config.json", br#"{"model_type": "opt", "eos_token_id": 2}"#));
    files.push(("special_tokens_map.json", br#"{"bos_token": "</s>"}"#));
    let opt = open(&files).expect("an OPT tokenizer");
    assert_eq!(opt.encode("The cat", true).expect("ids"), [vec![2], bare].concat());
    assert_eq!(opt.special().eos, Some(2));
    files[2].1 = br#"{"model_type": "qwen2"}"#;
    let message = open(&files).expect_err("another family").to_string();
    assert!(message.contains("qwen2") && message.contains("tokenizer.json"), "{message}");
}

#[test]
fn added_tokens_of_the_older_layouts_keep_their_ids() {
    let (vocabulary, merges) = (golden_bytes("vocab.json"), golden_bytes("merges.txt"));
    let next = tiny("byte_level").vocab_len() as u32;
    let added = json!({"<new>": next, "<newer>": next + 1}).to_string();
    let files: [(&str, &[u8]); 3] =
        [("vocab.json", &vocabulary), ("merges.txt", &merges), ("added_tokens.json", added.as_bytes())];
    let tokenizer = open(&files).expect("a tokenizer");
    assert_eq!(tokenizer.id("<newer>"), Some(next + 1));
    assert_eq!(tokenizer.vocab_len(), next as usize + 2);
    assert_eq!(tokenizer.encode("<newer><new>", false).expect("ids"), [next + 1, next]);
    let gap = json!({"<new>": next + 7}).to_string();
    let error = open(&[files[0], files[1], ("added_tokens.json", gap.as_bytes())]).expect_err("a gap");
    assert!(
        matches!(&error, TextError::Tokenizer { problem: TokenizerProblem::AddedToken { declared, assigned, .. }, .. }
            if *declared == next + 7 && *assigned == Some(next)),
        "{error}"
    );
}

#[test]
fn special_roles_come_from_the_tokenizer_and_stops_from_the_generation_config() {
    let json = golden_bytes("byte_fallback.json");
    let config: &[u8] = br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null}"#;
    let model: &[u8] = br#"{"eos_token_id": 7, "pad_token_id": -1, "bos_token_id": 9, "sep_token_id": 5}"#;
    let generation: &[u8] = br#"{"eos_token_id": [2, 9]}"#;
    let files = [("tokenizer.json", &*json), ("tokenizer_config.json", config), ("config.json", model)];
    let special = open(&files).expect("a tokenizer").special().clone();
    assert_eq!((special.bos, special.eos, special.pad, special.sep), (Some(1), Some(2), None, Some(5)));
    assert_eq!(special.stop, [7]);
    let files = [files[0], files[1], files[2], ("generation_config.json", generation)];
    assert_eq!(open(&files).expect("a tokenizer").special().stop, [2, 9]);
    assert_eq!(open(&files[..2]).expect("a tokenizer").special().stop, [2]);
    let error = open(&[files[0], ("config.json", br#"{"eos_token_id": "</s>"}"#)]).expect_err("text for an id");
    assert!(error.to_string().contains("config.json: eos_token_id is \"</s>\""), "{error}");
}

#[test]
fn tokens_and_ids_are_found_both_ways() {
    let tokenizer = tiny("wordpiece");
    assert_eq!(tokenizer.id("[MASK]"), Some(4));
    assert_eq!(tokenizer.token(4).as_deref(), Some("[MASK]"));
    assert_eq!((tokenizer.id("no such token"), tokenizer.token(u32::MAX)), (None, None));
    assert_eq!(
        tokenizer.decode(&[2, u32::MAX, 3], false).expect("text"),
        "[CLS] [SEP]",
        "an id that is no token is no text"
    );
}

proptest! {
    #[test]
    fn byte_level_tokenizers_give_back_any_text(text in any::<String>()) {
        for (tokenizer, unchanged) in [(&*BYTE_LEVEL, true), (&*SPLIT, false)] {
            let encoding = tokenizer.encode_with_offsets(&text, false).unwrap();
            prop_assert_eq!(&encoding.ids, &tokenizer.encode(&text, false).unwrap());
            let decoded = tokenizer.decode(&encoding.ids, false).unwrap();
            assert_streams_to(tokenizer, &encoding.ids, &decoded);
            if unchanged {
                prop_assert_eq!(&decoded, &text);
            }
            // The ranges ascend, lie on characters, and leave nothing out.
            let mut covered = 0;
            for range in &encoding.offsets {
                prop_assert!(text.get(range.clone()).is_some(), "{:?} of {:?}", range, text);
                prop_assert!(range.start <= covered && range.end >= covered, "{:?}", encoding.offsets);
                covered = range.end;
            }
            prop_assert_eq!(covered, text.len());
        }
    }

    #[test]
    fn streams_of_any_ids_join_to_whole_characters(ids in prop::collection::vec(0_u32..430, 0..200)) {
        // `split` decodes bytes of any order; `byte_fallback` may take back what an incomplete character spoils.
        assert_streams_to(&SPLIT, &ids, &SPLIT.decode(&ids, false).unwrap());
        let mut stream = BYTE_FALLBACK.stream(false);
        for &id in &ids {
            let incomplete = stream.push(id).unwrap().ends_with('\u{fffd}');
            prop_assert!(!incomplete);
        }
        stream.finish().unwrap();
    }
}

#[test]
fn a_stream_gives_a_character_when_its_last_byte_is_there() {
    let tokenizer = tiny("byte_fallback");
    let ids = tokenizer.encode("a🙂b", false).expect("ids");
    let mut stream = tokenizer.stream(false);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).expect("a piece")).collect();
    assert_eq!(pieces.concat(), "a🙂b");
    assert_eq!(pieces.iter().filter(|piece| piece.contains('🙂')).count(), 1);
    assert!(pieces.iter().filter(|piece| piece.is_empty()).count() >= 3, "{pieces:?}");
    assert_eq!(stream.finish().expect("the rest"), "");
    let mut stream = tokenizer.stream(false);
    let byte = tokenizer.id("<0xF0>").expect("a byte");
    assert_eq!(stream.push(byte).expect("a piece"), "");
    assert_eq!(stream.finish().expect("the rest"), "\u{fffd}");
}

// --- what a file can do wrong -----------------------------------------------------------------------

#[test]
fn a_directory_without_a_tokenizer_says_what_was_looked_for() {
    let error = open(&[]).expect_err("an empty directory").to_string();
    assert!(["tokenizer.json", "merges.txt", "vocab.txt"].iter().all(|name| error.contains(name)), "{error}");
    let error = open(&[("tokenizer.model", b"")]).expect_err("sentencepiece").to_string();
    assert!(error.contains("tokenizer.model is not read"), "{error}");
    let missing = Path::new("no such directory");
    assert!(matches!(Tokenizer::open(missing), Err(TextError::Read { path, .. }) if path == missing));
}

#[test]
fn files_that_are_no_tokenizer_are_refused_with_the_reason() {
    for bytes in
        [&b""[..], b"[]", b"{}", b"{\"version\":\"1.0\",\"model\":null}", &[0xff; 9], "[".repeat(1 << 20).as_bytes()]
    {
        let error = open(&[("tokenizer.json", bytes)]).expect_err("no tokenizer");
        let unusable =
            matches!(&error, TextError::Tokenizer { problem: TokenizerProblem::Unusable(Fault::Error { .. }), .. });
        assert!(unusable && error.to_string().contains("tokenizer.json"), "{error}");
    }
    let error = open(&[("vocab.txt", b"[PAD]\n[UNK]\n[SEP]\n")]).expect_err("no [CLS]").to_string();
    assert!(error.contains("vocab.txt") && error.contains("\"[CLS]\", the cls_token"), "{error}");
    let error =
        open(&[("vocab.json", b"{}"), ("merges.txt", b"#version: 0.2\na b\na b c\n")]).expect_err("a merge of three");
    assert!(error.to_string().contains("merges.txt: line 3 is \"a b c\""), "{error}");
    let error = open(&[("vocab.txt", &[0xff])]).expect_err("bytes");
    assert!(matches!(error, TextError::NotUtf8 { .. }), "{error}");
}

#[test]
fn a_vocabulary_beyond_any_model_is_refused() {
    let mut json = altered("byte_level", "/model/vocab", json!({"a": MAX_VOCABULARY}));
    (json["model"]["merges"], json["added_tokens"]) = (json!([]), json!([]));
    let found = problem(&json);
    assert!(matches!(found, TokenizerProblem::Vocabulary { tokens: 1, largest: 2_097_152 }), "{found}");
}

#[test]
fn an_added_token_with_another_id_than_declared_is_refused() {
    let json = altered("byte_level", "/added_tokens/1/id", json!(77));
    let found = problem(&json);
    assert!(
        matches!(&found, TokenizerProblem::AddedToken { token, declared: 77, assigned: Some(1) } if token == "<pad>"),
        "{found}"
    );
}

#[test]
fn a_panic_of_the_library_is_a_typed_error() {
    // The library ends with `expect("Precompiled")` where this map is not base64.
    let found =
        problem(&altered("unigram", "/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "?"})));
    assert!(
        matches!(&found, TokenizerProblem::Unusable(Fault::Panic { message }) if message.contains("Precompiled")),
        "{found}"
    );
    // And `chunks(0)` panics when a text is encoded.
    let json = altered("byte_level", "/pre_tokenizer", json!({"type": "FixedLength", "length": 0}));
    let error = load(&json).expect("a tokenizer").encode("text", false).expect_err("no chunks");
    assert!(matches!(&error, TextError::Encode { bytes: 4, fault: Fault::Panic { .. }, .. }), "{error}");
}

#[test]
fn an_expression_that_backtracks_without_end_is_an_error_not_other_ids() {
    let catastrophe = json!({"Regex": "(?=(a+)+$)b|(a|a)+(?!a)c"});
    let text = format!("{}!", "a".repeat(64));
    let split = json!({"type": "Split", "pattern": catastrophe, "behavior": "Isolated", "invert": false});
    let replace = json!({"type": "Replace", "pattern": catastrophe, "content": "x"});
    for (pointer, part) in [
        ("/pre_tokenizer", split.clone()),
        ("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [split]})),
        ("/normalizer", replace.clone()),
        ("/normalizer", json!({"type": "Sequence", "normalizers": [replace]})),
    ] {
        let tokenizer = load(&altered("byte_level", pointer, part.clone())).expect("a tokenizer");
        assert!(tokenizer.encode("aab", false).is_ok(), "{part}");
        let error = tokenizer.encode(&text, false).expect_err("no end").to_string();
        assert!(error.contains("backtrack"), "{part}: {error}");
    }
}

#[test]
fn a_very_long_run_of_spaces_is_the_right_ids_or_an_error() {
    let tokenizer = tiny("byte_level");
    let text = format!("{}The cat", " ".repeat(300_000));
    let encoded = tokenizer.encode(&text, false).expect("ids");
    assert_eq!(tokenizer.decode(&encoded, false).expect("text"), text);
    assert!(encoded.ends_with(&tokenizer.encode(" The cat", false).expect("ids")));
    // The stack of the expression holds a million steps; there the library goes on without splitting, and says nothing.
    let text = format!("{}The cat", " ".repeat(1_100_000));
    let error = tokenizer.encode(&text, false).expect_err("a full stack").to_string();
    assert!(error.contains("stack size exceeded"), "{error}");
}

#[test]
fn replacements_cannot_blow_a_text_up() {
    let double = |n: usize| json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(n)});
    let found = problem(&altered("byte_level", "/normalizer", double(33))).to_string();
    assert!(found.contains("33 bytes"), "{found}");
    let json = altered("byte_level", "/normalizer", json!({"type": "Sequence", "normalizers": vec![double(32); 40]}));
    let error = load(&json).expect("a tokenizer").encode(&"a".repeat(100), false).expect_err("32^40").to_string();
    assert!(error.contains("its normalizer makes 102400 bytes of 100"), "{error}");
    let json = altered("byte_level", "/decoder", json!({"type": "Sequence", "decoders": vec![double(32); 40]}));
    let tokenizer = load(&json).expect("a tokenizer");
    let a = tokenizer.id("a").expect("a letter");
    let error = tokenizer.decode(&vec![a; 300], false).expect_err("32^40").to_string();
    assert!(error.contains("its decoder makes"), "{error}");
}

#[test]
fn dropout_of_the_training_does_not_reach_the_ids() {
    let tokenizer = load(&altered("byte_level", "/model/dropout", json!(0.5))).expect("a tokenizer");
    assert_golden(&tokenizer, "byte_level");
}

#[test]
fn a_text_beyond_the_limit_is_refused_before_it_is_copied() {
    let text = " ".repeat(MAX_TEXT_BYTES + 1);
    let error = tiny("byte_level").encode(&text, false).expect_err("too long");
    assert!(matches!(error, TextError::TextTooLong { bytes } if bytes == text.len()), "{error}");
}

#[cfg(unix)]
#[test]
fn links_out_of_the_directory_and_files_that_are_none_are_refused() {
    use std::os::unix::fs::symlink;
    let dir = directory(&[("real.json", &golden_bytes("byte_level.json"))]);
    let link = dir.path().join("tokenizer.json");
    symlink("real.json", &link).expect("a link");
    Tokenizer::open(dir.path()).expect("a link inside the directory");
    for (target, expected) in
        [(golden("byte_level.json"), "a link out"), ("/dev/zero".into(), "a link out"), (".".into(), "")]
    {
        fs::remove_file(&link).expect("removed");
        symlink(target, &link).expect("a link");
        let error = Tokenizer::open(dir.path()).expect_err("not a file of it");
        assert!(matches!(&error, TextError::NotAFile { found, .. } if found.contains(expected)), "{error}");
    }
    fs::remove_file(&link).expect("removed");
    fs::create_dir(&link).expect("a directory");
    let error = Tokenizer::open(dir.path()).expect_err("a directory");
    assert!(matches!(&error, TextError::NotAFile { found: "a directory", .. }), "{error}");
}

/// Prints the ids of each line of a text, as the Python package of the same tokenizers has them.
const IDS_BY_PYTHON: &str = "import sys, tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
for line in open(sys.argv[2], encoding='utf-8', newline='\\n').read().split('\\n'):
    print(*tokenizer.encode(line).ids)";

#[test]
#[ignore = "needs a real model, a text and a Python with tokenizers: ZOFO_SMOLLM2=DIR ZOFO_TEXT=FILE ZOFO_PYTHON=python3 cargo \
            test --release --lib -- --ignored a_real_tokenizer"]
fn a_real_tokenizer_gives_back_every_line_by_the_ids_that_python_has() {
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).expect(name));
    let (model, text) = (variable("ZOFO_SMOLLM2"), variable("ZOFO_TEXT"));
    let tokenizer = Tokenizer::open(&model).expect("a tokenizer");
    assert_eq!((tokenizer.vocab_len(), tokenizer.special().eos), (49_152, Some(2)));
    let arguments = [model.join("tokenizer.json"), text.clone()];
    let mut python = std::process::Command::new(variable("ZOFO_PYTHON"));
    let python = python.args(["-c", IDS_BY_PYTHON]).args(arguments).output().expect("a Python");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let expected = String::from_utf8(python.stdout).expect("ids");
    let text = fs::read_to_string(text).expect("a text");
    assert_eq!(text.split('\n').count(), expected.lines().count());
    for (line, expected) in text.split('\n').zip(expected.lines()) {
        let ids = tokenizer.encode(line, true).expect("ids");
        assert_eq!(ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "), expected, "{line}");
        assert_eq!(tokenizer.decode(&ids, false).expect("text"), line);
    }
}
