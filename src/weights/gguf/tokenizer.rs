//! The tokenizer of a GGUF file, rebuilt as the files that Hugging Face's libraries load.
//!
//! Two kinds: byte-level BPE (`gpt2`), whose merges stand in the file, and `SentencePiece` BPE with byte fallback
//! (`llama`), whose merges follow from the scores of its pieces.
//!
//! *What must stay true.* The file decides ids; nothing is renumbered, and what the `tokenizers` library would
//! refuse to load is refused here, with the token or merge that is at fault.

use std::{collections::HashMap, io::Write};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{GgufProblem, metadata::required, pieces, pre_tokenizer, pre_tokenizer::PreTokenizer, reader::Gguf};
use crate::weights::{Export, WeightsError};

/// Most tokens; the largest public vocabularies have 260,000.
const MAX_TOKENS: usize = 1 << 20;

/// llama.cpp's kinds of tokens.
const NORMAL: usize = 1;
const UNKNOWN: usize = 2;
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// A pair of tokens that becomes one.
pub(super) type Merge<'a> = (&'a str, &'a str);

/// A tokenizer as a GGUF file describes it.
#[derive(Debug)]
pub(super) struct Tokenizer<'a> {
    tokens: Vec<&'a str>,
    /// One of llama.cpp's kinds for every token.
    kinds: Vec<usize>,
    merges: Vec<Merge<'a>>,
    algorithm: Algorithm,
    specials: Specials,
    chat_template: Option<&'a str>,
}

#[derive(Debug)]
enum Algorithm {
    ByteLevel(&'static PreTokenizer),
    SentencePiece { space_prefix: bool },
}

/// Tokens with a role.
#[derive(Debug)]
struct Specials {
    begin: Option<usize>,
    end: Option<usize>,
    unknown: Option<usize>,
    padding: Option<usize>,
    /// Ends a turn of a chat, where that is not the end of the text.
    end_of_turn: Option<usize>,
    add_begin: bool,
    add_end: bool,
}

impl<'a> Tokenizer<'a> {
    /// Reads the tokenizer for an embedding of `vocabulary` rows; `None` if the file has none.
    pub(super) fn read(gguf: &Gguf<'a>, vocabulary: usize) -> Result<Option<Self>, GgufProblem> {
        let metadata = &gguf.metadata;
        let byte_level = match metadata.text("tokenizer.ggml.model")? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("gpt2") => true,
            Some("llama") => false,
            Some(other) => return Err(GgufProblem::TokenizerModel { found: other.chars().take(80).collect() }),
        };
        let tokens = required(TOKENS, metadata.texts(TOKENS)?)?;
        let limit = vocabulary.min(MAX_TOKENS);
        if tokens.len() > limit {
            let (what, found) = ("tokens", tokens.len() as u64);
            return Err(GgufProblem::Limit { what, found, limit: limit as u64 });
        }
        let ids = ids(&tokens)?;
        let kinds = per_token(KINDS, metadata.sizes(KINDS)?, tokens.len())?;
        let kinds = kinds.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        let (algorithm, merges, begins) = if byte_level {
            let architecture = metadata.text("general.architecture")?.unwrap_or_default();
            let pre = pre_tokenizer::find(metadata.text("tokenizer.ggml.pre")?, architecture)?;
            let merges = listed_merges(&required(MERGES, metadata.texts(MERGES)?)?, &ids)?;
            (Algorithm::ByteLevel(pre), merges, pre.begin)
        } else {
            let scores = required(SCORES, per_token(SCORES, metadata.numbers(SCORES)?, tokens.len())?)?;
            let space_prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            let merges = pieces::merges(&tokens, &scores, |id| kinds[id] == NORMAL, &ids)?;
            (Algorithm::SentencePiece { space_prefix }, merges, true)
        };
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.size(&key)? {
                Some(id) if id >= tokens.len() => {
                    let expected = "the id of a token";
                    Err(GgufProblem::Value { key, found: id.to_string(), expected })
                }
                id => Ok(id),
            }
        };
        let specials = Specials {
            begin: id("bos")?,
            end: id("eos")?,
            unknown: id("unknown")?.or_else(|| kinds.iter().position(|&kind| kind == UNKNOWN)),
            padding: id("padding")?,
            end_of_turn: id("eot")?,
            add_begin: metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins),
            add_end: metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        };
        let chat_template = metadata.text("tokenizer.chat_template")?;
        Ok(Some(Tokenizer { tokens, kinds, merges, algorithm, specials, chat_template }))
    }

    /// What kind it is, for people.
    pub(super) fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::ByteLevel(_) => "byte-level BPE",
            Algorithm::SentencePiece { .. } => "SentencePiece BPE",
        }
    }

    /// Writes the files of a tokenizer for texts of up to `context` tokens.
    pub(super) fn write(&self, export: &mut Export, context: usize) -> Result<(), WeightsError> {
        export.write_json("tokenizer.json", &self.json())?;
        if let Algorithm::ByteLevel(_) = self.algorithm {
            export.write_json("vocab.json", &Vocabulary(&self.tokens))?;
            export.write("merges.txt", |file| {
                writeln!(file, "#version: 0.2")?;
                self.merges.iter().try_for_each(|(left, right)| writeln!(file, "{left} {right}"))
            })?;
        }
        let roles = self.roles();
        export.write_json("special_tokens_map.json", &roles)?;
        let mut config = roles;
        let mut set = |key: &str, value| config.insert(key.to_owned(), value);
        // The class that takes tokenizer.json as it is; those named after models build their own pre-tokenizer.
        set("tokenizer_class", json!("PreTrainedTokenizerFast"));
        set("clean_up_tokenization_spaces", json!(false));
        set("model_max_length", json!(context));
        if let Some(template) = self.chat_template {
            set("chat_template", json!(template));
        }
        export.write_json("tokenizer_config.json", &config)?;
        let Specials { begin, end, padding, end_of_turn, .. } = self.specials;
        let ends = match (end, end_of_turn) {
            (Some(end), Some(turn)) if end != turn => json!([end, turn]),
            (end, turn) => json!(end.or(turn)),
        };
        export.write_json(
            "generation_config.json",
            &json!({ "bos_token_id": begin, "eos_token_id": ends, "pad_token_id": padding }),
        )
    }

    /// `bos_token` and its like.
    fn roles(&self) -> Map<String, Value> {
        let Specials { begin, end, unknown, padding, .. } = self.specials;
        [("bos_token", begin), ("eos_token", end), ("unk_token", unknown), ("pad_token", padding)]
            .into_iter()
            .filter_map(|(role, id)| Some((role.to_owned(), json!(self.tokens[id?]))))
            .collect()
    }

    fn json(&self) -> TokenizerJson<'_> {
        let sentence_piece = matches!(self.algorithm, Algorithm::SentencePiece { .. });
        let special = |kind| kind == CONTROL || kind == UNKNOWN;
        let added = self.tokens.iter().zip(&self.kinds).enumerate();
        let added =
            added.filter(|&(_, (_, &kind))| special(kind) || kind == USER_DEFINED).map(|(id, (content, &kind))| {
                json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special(kind)
                })
            });
        let unknown = self.specials.unknown.filter(|_| sentence_piece).map(|id| self.tokens[id]);
        let ignore_merges = matches!(self.algorithm, Algorithm::ByteLevel(pre) if pre.ignore_merges);
        TokenizerJson {
            version: "1.0",
            truncation: None,
            padding: None,
            added_tokens: added.collect(),
            normalizer: self.normalizer(),
            pre_tokenizer: match self.algorithm {
                Algorithm::ByteLevel(pre) => pre.json(),
                Algorithm::SentencePiece { .. } => Value::Null,
            },
            post_processor: self.post_processor(),
            decoder: self.decoder(),
            model: Bpe {
                kind: "BPE",
                dropout: None,
                unk_token: unknown,
                continuing_subword_prefix: None,
                end_of_word_suffix: None,
                fuse_unk: sentence_piece,
                byte_fallback: sentence_piece,
                ignore_merges,
                vocab: Vocabulary(&self.tokens),
                merges: &self.merges,
            },
        }
    }

    fn normalizer(&self) -> Value {
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        match self.algorithm {
            Algorithm::ByteLevel(pre) if pre.nfc => json!({ "type": "NFC" }),
            Algorithm::ByteLevel(_) => Value::Null,
            Algorithm::SentencePiece { space_prefix: false } => spaces,
            Algorithm::SentencePiece { space_prefix: true } => {
                json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": "▁" }, spaces] })
            }
        }
    }

    fn decoder(&self) -> Value {
        let Algorithm::SentencePiece { space_prefix } = self.algorithm else {
            return json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
        };
        let mut steps = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if space_prefix {
            steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        json!({ "type": "Sequence", "decoders": steps })
    }

    /// Begin and end tokens around a text, where the file asks for them.
    fn post_processor(&self) -> Value {
        let Specials { begin, end, add_begin, add_end, .. } = self.specials;
        let (begin, end) = (begin.filter(|_| add_begin), end.filter(|_| add_end));
        if begin.is_none() && end.is_none() {
            return Value::Null;
        }
        let template = |texts: &[&str]| {
            let part = |(place, text): (usize, &&str)| {
                let special = |id: usize| json!({ "SpecialToken": { "id": self.tokens[id], "type_id": place } });
                let text = json!({ "Sequence": { "id": text, "type_id": place } });
                [begin.map(special), Some(text), end.map(special)]
            };
            texts.iter().enumerate().flat_map(part).flatten().collect::<Vec<_>>()
        };
        let used = begin.into_iter().chain(end).map(|id| {
            let token = self.tokens[id];
            (token.to_owned(), json!({ "id": token, "ids": [id], "tokens": [token] }))
        });
        json!({
            "type": "TemplateProcessing",
            "single": template(&["A"]),
            "pair": template(&["A", "B"]),
            "special_tokens": used.collect::<Map<_, _>>(),
        })
    }
}

/// The id of every token.
fn ids<'a>(tokens: &[&'a str]) -> Result<HashMap<&'a str, usize>, GgufProblem> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, &token) in tokens.iter().enumerate() {
        if ids.insert(token, id).is_some() {
            let token = token.chars().take(80).collect();
            return Err(GgufProblem::Token { id, token, reason: "stands twice in the vocabulary" });
        }
    }
    Ok(ids)
}

/// `values`, of which there must be one for each token.
fn per_token<T>(key: &str, values: Option<Vec<T>>, tokens: usize) -> Result<Option<Vec<T>>, GgufProblem> {
    match values {
        Some(values) if values.len() != tokens => {
            let found = format!("an array of {} values", values.len());
            Err(GgufProblem::Value { key: key.to_owned(), found, expected: "one value for each token" })
        }
        values => Ok(values),
    }
}

/// The merges as they stand in the file: parts and result must be tokens, or the `tokenizers` library fails.
fn listed_merges<'a>(texts: &[&'a str], ids: &HashMap<&str, usize>) -> Result<Vec<Merge<'a>>, GgufProblem> {
    let mut joined = String::new();
    let mut split = |text: &'a str| {
        let (left, right) = text.split_once(' ')?;
        joined.clear();
        joined.extend([left, right]);
        [left, right, &joined].iter().all(|token| ids.contains_key(token)).then_some((left, right))
    };
    let wrong = |(index, text): (usize, &str)| GgufProblem::Merge { index, merge: text.chars().take(80).collect() };
    texts.iter().enumerate().map(|(index, &text)| split(text).ok_or_else(|| wrong((index, text)))).collect()
}

/// `tokenizer.json`, in the order in which the library writes it.
#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct Bpe<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: Option<f32>,
    unk_token: Option<&'a str>,
    continuing_subword_prefix: Option<&'a str>,
    end_of_word_suffix: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocabulary<'a>,
    merges: &'a [Merge<'a>],
}

/// Tokens with their ids, in the order of ids.
struct Vocabulary<'a>(&'a [&'a str]);

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().enumerate().map(|(id, token)| (token, id)))
    }
}
