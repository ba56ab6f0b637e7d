//! The steps of the `tokenizers` library, without those that fail silently.
//!
//! The library drops a normalizer's error, and where a regular expression exceeds its backtracking limit it
//! takes the rest of the text for unmatched: ids that differ, and no word about it. Steps with an expression
//! that can backtrack (`Split`, `Replace`, the GPT-2 expression of `ByteLevel`) are therefore our own, around
//! the library's; everything else is the library's.
//!
//! *What must stay true.* A tokenizer of the wild gives the ids the library gives. Nested steps recurse no deeper
//! than `serde_json` reads, 128.

use fancy_regex::Regex;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizedString, PreTokenizerWrapper, SplitDelimiterBehavior, TokenizerImpl,
    pattern::{Invert, Pattern},
    pre_tokenizers::byte_level::ByteLevel,
};

use super::contain::{Failure, carry};

/// A tokenizer of the library with our steps.
pub(super) type Pipeline = TokenizerImpl<ModelWrapper, Normalizer, PreTokenizer, PostProcessorWrapper, Decoder>;

/// Longest text that one match is replaced with; the longest in use is "▁", three bytes.
const MAX_REPLACEMENT: usize = 32;
/// Normalized text is at most this many times its original: compatibility decomposition makes 11 of U+FDFA.
const MAX_GROWTH: usize = 16;
/// What very short texts may grow by regardless.
const GROWTH_ALLOWANCE: usize = 4096;
/// GPT-2's expression, the one in the library's `ByteLevel`.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub(super) enum Normalizer {
    Sequence(Vec<Normalizer>),
    Replace(Replace),
    Library(NormalizerWrapper),
}

pub(super) enum PreTokenizer {
    Sequence(Vec<PreTokenizer>),
    Split(Split),
    /// `ByteLevel` with its expression, which comes between its prefix space and its bytes.
    Gpt2 {
        add_prefix_space: bool,
        split: Split,
        bytes: ByteLevel,
    },
    Library(PreTokenizerWrapper),
}

pub(super) enum Decoder {
    Sequence(Vec<Decoder>),
    Replace(Replace),
    Library(DecoderWrapper),
}

pub(super) struct Split {
    regex: Regex,
    behavior: SplitDelimiterBehavior,
    invert: bool,
}

pub(super) struct Replace {
    regex: Regex,
    content: String,
}

/// A pattern as the file spells it.
#[derive(Deserialize)]
enum Spelling {
    String(String),
    Regex(String),
}

impl Spelling {
    fn compile(&self) -> Result<Regex, Failure> {
        Ok(match self {
            Spelling::String(text) => Regex::new(&fancy_regex::escape(text))?,
            Spelling::Regex(text) => Regex::new(text)?,
        })
    }
}

/// The steps of a sequence, built with `build`.
fn steps<T>(value: &mut Value, list: &str, build: fn(Value) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    match value.get_mut(list).map(Value::take) {
        Some(Value::Array(steps)) => steps.into_iter().map(build).collect(),
        _ => Err(format!("a Sequence without its list of {list}").into()),
    }
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}

impl Normalizer {
    fn build(mut value: Value) -> Result<Normalizer, Failure> {
        Ok(match kind(&value) {
            "Sequence" => Normalizer::Sequence(steps(&mut value, "normalizers", Normalizer::build)?),
            "Replace" => Normalizer::Replace(Replace::build(value)?),
            _ => Normalizer::Library(serde_json::from_value(value)?),
        })
    }

    fn apply(&self, text: &mut NormalizedString) -> Result<(), Failure> {
        match self {
            Normalizer::Sequence(steps) => steps.iter().try_for_each(|step| step.apply(text))?,
            Normalizer::Replace(replace) => text.replace(&replace.regex, &replace.content)?,
            Normalizer::Library(step) => step.normalize(text)?,
        }
        let limit = MAX_GROWTH * text.len_original() + GROWTH_ALLOWANCE;
        if text.len() > limit {
            return Err(format!("its normalizer makes {} bytes of {}", text.len(), text.len_original()).into());
        }
        Ok(())
    }
}

impl tokenizers::Normalizer for Normalizer {
    fn normalize(&self, text: &mut NormalizedString) -> Result<(), Failure> {
        // Carried, not returned: `AddedVocabulary::extract_and_normalize` drops what is returned.
        self.apply(text).or_else(|failure| carry(failure))
    }
}

impl PreTokenizer {
    fn build(mut value: Value) -> Result<PreTokenizer, Failure> {
        Ok(match kind(&value) {
            "Sequence" => PreTokenizer::Sequence(steps(&mut value, "pretokenizers", PreTokenizer::build)?),
            "Split" => PreTokenizer::Split(Split::build(value)?),
            "ByteLevel" => {
                let ByteLevel { add_prefix_space, trim_offsets, use_regex, .. } = serde_json::from_value(value)?;
                if use_regex {
                    let regex = Regex::new(GPT2).expect("a valid expression");
                    let split = Split { regex, behavior: SplitDelimiterBehavior::Isolated, invert: false };
                    PreTokenizer::Gpt2 { add_prefix_space, split, bytes: ByteLevel::new(false, trim_offsets, false) }
                } else {
                    PreTokenizer::Library(ByteLevel::new(add_prefix_space, trim_offsets, false).into())
                }
            }
            _ => PreTokenizer::Library(serde_json::from_value(value)?),
        })
    }
}

impl tokenizers::PreTokenizer for PreTokenizer {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<(), Failure> {
        match self {
            PreTokenizer::Sequence(steps) => steps.iter().try_for_each(|step| step.pre_tokenize(text)),
            PreTokenizer::Split(split) => text.split(|_, piece| split.apply(&piece)),
            PreTokenizer::Gpt2 { add_prefix_space, split, bytes } => {
                text.split(|_, mut piece| {
                    if *add_prefix_space && !piece.get().starts_with(' ') {
                        piece.prepend(" ");
                    }
                    split.apply(&piece)
                })?;
                bytes.pre_tokenize(text)
            }
            PreTokenizer::Library(step) => step.pre_tokenize(text),
        }
    }
}

impl Decoder {
    fn build(mut value: Value) -> Result<Decoder, Failure> {
        Ok(match kind(&value) {
            "Sequence" => Decoder::Sequence(steps(&mut value, "decoders", Decoder::build)?),
            "Replace" => Decoder::Replace(Replace::build(value)?),
            _ => Decoder::Library(serde_json::from_value(value)?),
        })
    }
}

impl tokenizers::Decoder for Decoder {
    fn decode_chain(&self, tokens: Vec<String>) -> Result<Vec<String>, Failure> {
        let before: usize = tokens.iter().map(String::len).sum();
        let tokens = match self {
            Decoder::Sequence(steps) => steps.iter().try_fold(tokens, |tokens, step| step.decode_chain(tokens))?,
            Decoder::Replace(replace) => tokens.iter().map(|token| replace.apply(token)).collect::<Result<_, _>>()?,
            Decoder::Library(step) => step.decode_chain(tokens)?,
        };
        let after: usize = tokens.iter().map(String::len).sum();
        if after > MAX_GROWTH * before + GROWTH_ALLOWANCE {
            return Err(format!("its decoder makes {after} bytes of {before}").into());
        }
        Ok(tokens)
    }
}

impl Split {
    fn build(value: Value) -> Result<Split, Failure> {
        #[derive(Deserialize)]
        struct Fields {
            pattern: Spelling,
            behavior: SplitDelimiterBehavior,
            invert: bool,
        }
        let Fields { pattern, behavior, invert } = serde_json::from_value(value)?;
        Ok(Split { regex: pattern.compile()?, behavior, invert })
    }

    fn apply(&self, text: &NormalizedString) -> Result<Vec<NormalizedString>, Failure> {
        if self.invert {
            text.split(Invert(&self.regex), self.behavior)
        } else {
            text.split(&self.regex, self.behavior)
        }
    }
}

impl Replace {
    fn build(value: Value) -> Result<Replace, Failure> {
        #[derive(Deserialize)]
        struct Fields {
            pattern: Spelling,
            content: String,
        }
        let Fields { pattern, content } = serde_json::from_value(value)?;
        if content.len() > MAX_REPLACEMENT {
            return Err(
                format!("Replace puts {} bytes for a match, at most {MAX_REPLACEMENT} are", content.len()).into()
            );
        }
        Ok(Replace { regex: pattern.compile()?, content })
    }

    fn apply(&self, token: &str) -> Result<String, Failure> {
        let pieces = (&self.regex).find_matches(token)?;
        let text = |((start, end), matched): &((usize, usize), bool)| {
            if *matched { self.content.as_str() } else { &token[*start..*end] }
        };
        Ok(pieces.iter().map(text).collect())
    }
}

impl<'de> Deserialize<'de> for Normalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Normalizer::build(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for PreTokenizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PreTokenizer::build(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Decoder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Decoder::build(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
