//! The tokenizer of a model directory.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokenizers::ModelWrapper;

use super::{
    SpecialTokens, TextError, TextStream, TokenizerProblem,
    contain::{Failure, contain},
    directory::Directory,
    legacy,
    pipeline::Pipeline,
    special::Names,
};

/// Longest `tokenizer.json` that is read; the longest in use (Gemma 3) has 33 MB.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// Tokens, and ids, stay below this; the largest vocabularies in use have 262,144 entries.
pub const MAX_VOCABULARY: usize = 1 << 21;
/// Longest text that is encoded in one piece: the library needs some hundred bytes for each.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// A tokenizer: text to ids and back.
pub struct Tokenizer {
    path: PathBuf,
    pipeline: Pipeline,
    vocab_len: usize,
    special: SpecialTokens,
}

/// A text as ids, each with the bytes of the text it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id its bytes in the text: empty for a token that the post-processor added, the whole character where
    /// several tokens share one. Spaces in front of a word belong to it unless the post-processor trims them.
    pub offsets: Vec<Range<usize>>,
}

impl Tokenizer {
    /// Opens the tokenizer of a Hugging Face directory: `tokenizer.json`, else `vocab.json` with `merges.txt`
    /// (GPT-2, OPT, `RoBERTa`), else `vocab.txt` (BERT).
    ///
    /// # Errors
    /// [`TextError`] naming the file: nothing to read, a file that is not what its name says, or a tokenizer beyond
    /// our limits.
    pub fn open(dir: &Path) -> Result<Tokenizer, TextError> {
        let dir = Directory::open(dir)?;
        let mut names = Names::read(&dir)?;
        let mut tokenizer = if let Some(json) = dir.read("tokenizer.json", MAX_JSON_BYTES)? {
            Tokenizer::from_json(&dir.path().join("tokenizer.json"), &json)?
        } else if let Some((path, json)) = legacy::build(&dir, &mut names)? {
            Tokenizer::from_json(&path, json.to_string().as_bytes())?
        } else {
            let others = ["tokenizer.model", "spiece.model", "tekken.json", "sentencepiece.bpe.model"];
            let instead = others.into_iter().find(|name| dir.has(name)).map(str::to_owned);
            return Err(TextError::NoTokenizer { dir: dir.path().to_owned(), instead });
        };
        tokenizer.special = SpecialTokens::read(&dir, &names, |token| tokenizer.id(token))?;
        Ok(tokenizer)
    }

    /// Reads the bytes of a `tokenizer.json`; `path` is what errors name. It knows no special roles.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Tokenizer, TextError> {
        let wrong = |problem| TextError::Tokenizer { path: path.to_owned(), problem };
        let read = || {
            let mut pipeline: Pipeline = serde_json::from_slice(json)?;
            // Stored by whoever trained the tokenizer; they would change ids silently.
            pipeline.with_padding(None);
            pipeline.with_truncation(None)?;
            if let ModelWrapper::BPE(bpe) = pipeline.get_model()
                && bpe.dropout.is_some()
            {
                let mut bpe = bpe.clone();
                bpe.dropout = None;
                pipeline.with_model(bpe);
            }
            Ok((pipeline, serde_json::from_slice::<Declared>(json)?))
        };
        let (pipeline, declared) = contain(read).map_err(|fault| wrong(fault.into()))?;
        let vocabulary = pipeline.get_vocab(true);
        let (tokens, largest) = (vocabulary.len(), vocabulary.values().copied().max().unwrap_or(0));
        if tokens == 0 || tokens > MAX_VOCABULARY || largest as usize >= MAX_VOCABULARY {
            return Err(wrong(TokenizerProblem::Vocabulary { tokens, largest }));
        }
        for AddedToken { content, id } in declared.added_tokens {
            let assigned = pipeline.token_to_id(&content);
            if assigned != Some(id) {
                return Err(wrong(TokenizerProblem::AddedToken { token: content, declared: id, assigned }));
            }
        }
        let special = SpecialTokens::default();
        Ok(Tokenizer { path: path.to_owned(), pipeline, vocab_len: largest as usize + 1, special })
    }

    /// The ids of `text`; with `special`, those that the post-processor puts around it as well. Special tokens that
    /// are spelled out in the text become their ids either way.
    ///
    /// # Errors
    /// [`TextError::TextTooLong`], [`TextError::Encode`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self.run(text, || self.pipeline.encode_fast(text, special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], with the place of each id in the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str, special: bool) -> Result<Encoding, TextError> {
        let encoding = self.run(text, || self.pipeline.encode(text, special))?;
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok(Encoding { ids: encoding.get_ids().to_vec(), offsets })
    }

    /// The text of `ids`, without special tokens if `skip_special`. Ids that are no token (a model's output layer is
    /// often padded) are no text.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        contain(|| self.pipeline.decode(ids, skip_special)).map_err(|fault| TextError::Decode {
            path: self.path.clone(),
            ids: ids.len(),
            fault,
        })
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// One more than the largest id: how many rows an embedding must have at least.
    pub fn vocab_len(&self) -> usize {
        self.vocab_len
    }

    /// The id of a token, spelled as in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.pipeline.token_to_id(token)
    }

    /// The token of an id, spelled as in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.pipeline.id_to_token(id)
    }

    /// The tokens with a role.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    fn run<T>(&self, text: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, TextError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TextError::TextTooLong { bytes: text.len() });
        }
        contain(work).map_err(|fault| TextError::Encode { path: self.path.clone(), bytes: text.len(), fault })
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_len", &self.vocab_len)
            .finish_non_exhaustive()
    }
}

/// The added tokens with the ids that the file gives them, which the library only compares.
#[derive(Deserialize)]
struct Declared {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}
