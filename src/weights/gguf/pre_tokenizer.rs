//! How byte-level BPE tokenizers split text before they merge: GGUF has only a name for it.

use serde_json::{Value, json};

use super::GgufProblem;

/// A way of splitting.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// As in `tokenizer.ggml.pre`; several models share a way.
    names: &'static [&'static str],
    split: Split,
    /// Whether text is brought to Unicode's form NFC first.
    pub(super) nfc: bool,
    /// Whether a word that is a token is taken whole, whatever the merges make of it.
    pub(super) ignore_merges: bool,
    /// Whether llama.cpp begins texts with the begin token where the file does not say.
    pub(super) begin: bool,
}

#[derive(Debug)]
enum Split {
    /// GPT-2's expression, built into `ByteLevel`.
    Gpt2,
    /// Digits one by one, then GPT-2's expression.
    DigitsThenGpt2,
    /// An expression, then only the mapping of bytes.
    Expression(&'static str),
}

/// Of the `tokenizer.json` of Llama 3: numbers are cut into threes.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Of the `tokenizer.json` of Qwen 2: digits stand alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KNOWN: &[PreTokenizer] = &[
    PreTokenizer { names: &["gpt-2", "default"], split: Split::Gpt2, nfc: false, ignore_merges: false, begin: false },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact"],
        split: Split::DigitsThenGpt2,
        nfc: false,
        ignore_merges: false,
        begin: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        split: Split::Expression(LLAMA3),
        nfc: false,
        ignore_merges: true,
        begin: true,
    },
    PreTokenizer { names: &["qwen2"], split: Split::Expression(QWEN2), nfc: true, ignore_merges: false, begin: false },
];

/// All names, for a message.
pub(super) fn names() -> String {
    KNOWN.iter().flat_map(|known| known.names).copied().collect::<Vec<_>>().join(", ")
}

/// The way of that name. Files from before the name existed lack it; of a GPT-2 it is known all the same.
pub(super) fn find(name: Option<&str>, architecture: &str) -> Result<&'static PreTokenizer, GgufProblem> {
    let meant = name.or((architecture == "gpt2").then_some("gpt-2"));
    let known = meant.and_then(|name| KNOWN.iter().find(|known| known.names.contains(&name)));
    known.ok_or_else(|| GgufProblem::PreTokenizer { found: name.map(|name| name.chars().take(80).collect()) })
}

impl PreTokenizer {
    /// `pre_tokenizer` of `tokenizer.json`.
    pub(super) fn json(&self) -> Value {
        let bytes = |use_regex| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
        let sequence = |first| json!({ "type": "Sequence", "pretokenizers": [first, bytes(false)] });
        match self.split {
            Split::Gpt2 => bytes(true),
            Split::DigitsThenGpt2 => {
                let digits = json!({ "type": "Digits", "individual_digits": true });
                json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] })
            }
            Split::Expression(regex) => {
                let pattern = json!({ "Regex": regex });
                sequence(json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false }))
            }
        }
    }
}
