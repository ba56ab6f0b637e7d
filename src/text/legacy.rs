//! Tokenizers of before `tokenizer.json`: `vocab.json` with `merges.txt`, or `vocab.txt`.
//!
//! *What it is.* It writes the `tokenizer.json` that `transformers` would convert these files to, for the families
//! whose files say all there is: GPT-2 and OPT, `RoBERTa` and BART, BERT. So there is one way to load a tokenizer.
//!
//! *What it is not.* Other families (Qwen2, Whisper, …) have files of the same names and other rules: refused.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{
    TextError, TokenizerProblem,
    directory::{Directory, Document},
    special::Names,
};

/// Longest vocabulary or list of merges.
const MAX_BYTES: u64 = 64 << 20;
/// The line that many `merges.txt` begin with.
const MERGES_VERSION: &str = "#version";

#[derive(Clone, Copy, PartialEq)]
enum Family {
    /// Byte-level BPE; a begin-of-text token where `add_bos_token` says so.
    Gpt2 { bos: bool },
    /// Byte-level BPE between `<s>` and `</s>`.
    Roberta,
    /// Word pieces between `[CLS]` and `[SEP]`.
    Bert,
}

/// The vocabulary's file and the `tokenizer.json` it amounts to; `None` if there is no such file. Roles that the
/// directory leaves open get the family's default in `names`.
pub(super) fn build(dir: &Directory, names: &mut Names) -> Result<Option<(PathBuf, Value)>, TextError> {
    let bpe = dir.has("vocab.json") && dir.has("merges.txt");
    if !bpe && !dir.has("vocab.txt") {
        return Ok(None);
    }
    let file = dir.path().join(if bpe { "vocab.json" } else { "vocab.txt" });
    let config = dir.document("tokenizer_config.json")?;
    let family = family(dir, &config, bpe)?;
    let vocabulary = if bpe { bpe_vocabulary(dir)? } else { wordpiece_vocabulary(dir)? };
    let added = dir.document("added_tokens.json")?.into_fields();
    name_defaults(family, names);
    let known = Known { file: &file, vocabulary: &vocabulary, added: &added, names };

    let add_prefix_space = config.flag("add_prefix_space")?.unwrap_or(false);
    let byte_level = |trim_offsets: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": trim_offsets,
            "use_regex": true,
        })
    };
    let mut json = json!({"version": "1.0", "added_tokens": known.added_tokens(family)});
    let (normalizer, pre_tokenizer, post_processor, decoder) = match family {
        Family::Gpt2 { bos: false } => (Value::Null, byte_level(true), byte_level(false), byte_level(true)),
        Family::Gpt2 { bos: true } => {
            (Value::Null, byte_level(true), known.template(&["bos_token"], &[])?, byte_level(true))
        }
        Family::Roberta => {
            let around = json!({
                "type": "RobertaProcessing", "sep": known.pair("sep_token")?, "cls": known.pair("cls_token")?,
                "trim_offsets": true, "add_prefix_space": add_prefix_space,
            });
            (Value::Null, byte_level(true), around, byte_level(true))
        }
        Family::Bert => (
            json!({
                "type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": config.flag("tokenize_chinese_chars")?.unwrap_or(true),
                "strip_accents": config.flag("strip_accents")?,
                "lowercase": config.flag("do_lower_case")?.unwrap_or(true),
            }),
            json!({"type": "BertPreTokenizer"}),
            known.template(&["cls_token"], &["sep_token"])?,
            json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        ),
    };
    json["normalizer"] = normalizer;
    json["pre_tokenizer"] = pre_tokenizer;
    json["post_processor"] = post_processor;
    json["decoder"] = decoder;
    json["model"] = if bpe {
        json!({"type": "BPE", "merges": merges(dir)?})
    } else {
        json!({
            "type": "WordPiece", "unk_token": names.get("unk_token"), "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        })
    };
    json["model"]["vocab"] = Value::Object(vocabulary);
    Ok(Some((file, json)))
}

/// The family, by `tokenizer_class`, else by `model_type`, else by the files.
fn family(dir: &Directory, config: &Document, bpe: bool) -> Result<Family, TextError> {
    let model = dir.document("config.json")?;
    let model_type = model.text("model_type")?;
    let class = config.text("tokenizer_class")?.map(|class| class.trim_end_matches("Fast"));
    let bos = config.flag("add_bos_token")?.unwrap_or(model_type == Some("opt"));
    let unnamed = if bpe { "gpt2" } else { "bert" };
    match (class.or(model_type).unwrap_or(unnamed), bpe) {
        ("GPT2Tokenizer" | "gpt2" | "opt" | "gpt_neo" | "gptj", true) => Ok(Family::Gpt2 { bos }),
        ("RobertaTokenizer" | "BartTokenizer" | "roberta" | "bart", true) => Ok(Family::Roberta),
        ("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer", false) => Ok(Family::Bert),
        ("bert" | "distilbert" | "electra", false) => Ok(Family::Bert),
        (found, _) => {
            let path = if class.is_some() { config.path() } else { model.path() };
            let problem = TokenizerProblem::Family { found: found.to_owned() };
            Err(TextError::Tokenizer { path: path.to_owned(), problem })
        }
    }
}

/// The tokens that `transformers` takes where the directory names none.
fn name_defaults(family: Family, names: &mut Names) {
    let defaults: &[(&str, &str)] = match family {
        Family::Gpt2 { .. } => {
            &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")]
        }
        Family::Roberta => &[
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("pad_token", "<pad>"),
            ("unk_token", "<unk>"),
            ("mask_token", "<mask>"),
            ("sep_token", "</s>"),
            ("cls_token", "<s>"),
        ],
        Family::Bert => &[
            ("pad_token", "[PAD]"),
            ("unk_token", "[UNK]"),
            ("mask_token", "[MASK]"),
            ("sep_token", "[SEP]"),
            ("cls_token", "[CLS]"),
        ],
    };
    for (role, name) in defaults {
        names.set_default(role, name);
    }
}

/// What the files say about tokens.
struct Known<'a> {
    file: &'a PathBuf,
    vocabulary: &'a Map<String, Value>,
    added: &'a Map<String, Value>,
    names: &'a Names,
}

impl Known<'_> {
    fn id(&self, token: &str) -> Option<&Value> {
        self.vocabulary.get(token).or_else(|| self.added.get(token))
    }

    /// Token and id of a role that every encoded text needs.
    fn pair(&self, role: &'static str) -> Result<(&str, &Value), TextError> {
        let token = self.names.get(role).unwrap_or_default();
        let missing = || TokenizerProblem::MissingToken { role, token: token.to_owned() };
        let id = self.id(token).ok_or_else(|| TextError::Tokenizer { path: self.file.clone(), problem: missing() })?;
        Ok((token, id))
    }

    /// The post-processor that puts tokens of these roles around a text.
    fn template(&self, before: &[&'static str], after: &[&'static str]) -> Result<Value, TextError> {
        let mut tokens = Map::new();
        let mut piece = |role| {
            let (token, id) = self.pair(role)?;
            tokens.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
            Ok(json!({"SpecialToken": {"id": token, "type_id": 0}}))
        };
        let mut single = before.iter().map(|role| piece(role)).collect::<Result<Vec<_>, TextError>>()?;
        single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
        for role in after {
            single.push(piece(role)?);
        }
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
        Ok(json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}))
    }

    /// Tokens that are found in a text before anything else happens to it, by ascending id.
    fn added_tokens(&self, family: Family) -> Vec<Value> {
        let mask = (family == Family::Roberta).then(|| self.names.get("mask_token")).flatten();
        let describe = |token: &str, id: &Value, special: bool| {
            // RoBERTa's mask takes the space before it, as a word does.
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": Some(token) == mask, "rstrip": false,
                "normalized": !special, "special": special,
            })
        };
        let named = |token: &str| self.names.iter().any(|(_, name)| name == token);
        let roles = self.names.iter().filter_map(|(_, token)| Some(describe(token, self.id(token)?, true)));
        let others = self.added.iter().filter(|(token, _)| !named(token)).map(|(token, id)| describe(token, id, false));
        let mut tokens: Vec<Value> = roles.chain(others).collect();
        tokens.sort_by_key(|token| token["id"].as_u64());
        tokens.dedup_by(|a, b| a["content"] == b["content"]);
        tokens
    }
}

fn bpe_vocabulary(dir: &Directory) -> Result<Map<String, Value>, TextError> {
    let bytes = dir.read("vocab.json", MAX_BYTES)?.unwrap_or_default();
    serde_json::from_slice(&bytes).map_err(|source| TextError::Json { path: dir.path().join("vocab.json"), source })
}

/// Pairs of tokens, first merge first.
fn merges(dir: &Directory) -> Result<Vec<(String, String)>, TextError> {
    let text = dir.text("merges.txt", MAX_BYTES)?.unwrap_or_default();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with(MERGES_VERSION) && !line.is_empty());
    lines
        .map(|(at, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => {
                let problem = TokenizerProblem::Merge { line: at + 1, found: line.chars().take(64).collect() };
                Err(TextError::Tokenizer { path: dir.path().join("merges.txt"), problem })
            }
        })
        .collect()
}

/// One token a line, its id the line's number from 0.
fn wordpiece_vocabulary(dir: &Directory) -> Result<Map<String, Value>, TextError> {
    let text = dir.text("vocab.txt", MAX_BYTES)?.unwrap_or_default();
    Ok(text.lines().enumerate().map(|(id, token)| (token.to_owned(), Value::from(id))).collect())
}
