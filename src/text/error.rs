//! What can be wrong with a tokenizer, a chat template, or a text: with the file, what was found and what was expected.

use std::{error::Error, io, path::PathBuf};

use super::{MAX_STEPS, MAX_TEXT_BYTES, MAX_VOCABULARY};

/// Why text cannot be turned into ids, or back, or a conversation into text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Not a regular file: a directory, a device, or a link that leads out of the model's directory.
    #[error("{} is {found}, expected a file of the model's directory; copy the file there", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// More bytes than any such file has.
    #[error("{} has more than {limit} bytes, the most that is read of such a file", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// Our limit.
        limit: u64,
    },
    /// Not text.
    #[error("{} is not UTF-8: {source}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where.
        source: std::str::Utf8Error,
    },
    /// Not a JSON object.
    #[error("{} is not a JSON object: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field of another type than it should have.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value, or what kind of value it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The directory holds no tokenizer.
    #[error(
        "{} has no tokenizer: looked for tokenizer.json, for vocab.json with merges.txt, and for vocab.txt{}",
        dir.display(),
        instead.as_ref().map(|name| format!("; {name} is not read, convert it to tokenizer.json")).unwrap_or_default()
    )]
    NoTokenizer {
        /// The directory.
        dir: PathBuf,
        /// A tokenizer of another format that it does hold, for example `tokenizer.model`.
        instead: Option<String>,
    },
    /// A tokenizer's file breaks the format or our stricter limits.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: TokenizerProblem,
    },
    /// A text is longer than is encoded in one piece.
    #[error("a text of {bytes} bytes; at most {MAX_TEXT_BYTES} are encoded in one piece, split it")]
    TextTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The tokenizer cannot encode a text.
    #[error("{} cannot encode a text of {bytes} bytes: {fault}", path.display())]
    Encode {
        /// The tokenizer.
        path: PathBuf,
        /// The length of the text.
        bytes: usize,
        /// What happened.
        fault: Fault,
    },
    /// The tokenizer cannot decode ids.
    #[error("{} cannot decode {ids} ids: {fault}", path.display())]
    Decode {
        /// The tokenizer.
        path: PathBuf,
        /// How many ids.
        ids: usize,
        /// What happened.
        fault: Fault,
    },
    /// The model has no chat template.
    #[error(
        "{} has no chat template, which --chat needs: looked for chat_template.jinja, for chat_template in \
         tokenizer_config.json, and for chat_template.json; without --chat the prompt is used as it stands",
        dir.display()
    )]
    NoTemplate {
        /// The directory.
        dir: PathBuf,
    },
    /// A chat template is not a template, or refuses the conversation.
    #[error("the chat template of {}: {problem}", path.display())]
    Template {
        /// The file that holds it.
        path: PathBuf,
        /// What is wrong.
        problem: TemplateProblem,
    },
}

/// What is wrong with the files of a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerProblem {
    /// Not the description of a tokenizer.
    #[error("no usable tokenizer: {0}")]
    Unusable(#[from] Fault),
    /// More tokens, or a larger id, than any model has.
    #[error("{tokens} tokens with ids up to {largest}; both must stay below {MAX_VOCABULARY}")]
    Vocabulary {
        /// How many tokens.
        tokens: usize,
        /// The largest id.
        largest: u32,
    },
    /// An added token would get another id than the file says, and every later one with it.
    #[error(
        "added token {token:?} has id {declared} in the file and gets {assigned:?}; ids go on where the vocabulary ends"
    )]
    AddedToken {
        /// The token.
        token: String,
        /// The id in the file.
        declared: u32,
        /// The id that the library gives it.
        assigned: Option<u32>,
    },
    /// A line of `merges.txt` that is not two tokens.
    #[error("line {line} is {found:?}, expected two tokens and a space between them")]
    Merge {
        /// The line, from 1.
        line: usize,
        /// What it says.
        found: String,
    },
    /// A token that every encoded text needs is not in the vocabulary.
    #[error("the vocabulary lacks {token:?}, the {role} that tokenizer_config.json or its default names")]
    MissingToken {
        /// What it is for, as Hugging Face spells it.
        role: &'static str,
        /// The token.
        token: String,
    },
    /// A tokenizer that cannot be built from these files.
    #[error("a {found:?} tokenizer is read from tokenizer.json only; save it in that format")]
    Family {
        /// `tokenizer_class`, or `model_type` where that is absent.
        found: String,
    },
}

/// What is wrong with a chat template, or what it says about a conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateProblem {
    /// Not a template.
    #[error("{source}")]
    Syntax {
        /// Where and why.
        source: minijinja::Error,
    },
    /// A list of templates without one that is called `default`.
    #[error("none of its templates is named \"default\"")]
    NoDefault,
    /// The template itself refuses the conversation, with `raise_exception`.
    #[error("it refuses the conversation: {message}")]
    Raised {
        /// The template's words.
        message: String,
    },
    /// An operation that cannot be done.
    #[error("{source}")]
    Failed {
        /// Where and why.
        source: minijinja::Error,
    },
    /// More steps than any conversation needs.
    #[error("it was stopped after {MAX_STEPS} steps")]
    OutOfSteps,
    /// More text than is encoded in one piece.
    #[error("it writes more than {MAX_TEXT_BYTES} bytes")]
    OutputTooLong,
    /// The library panicked.
    #[error("the template library panicked: {message}")]
    Panic {
        /// Its message.
        message: String,
    },
    /// No thread to render on.
    #[error("cannot start the thread that renders it")]
    Thread {
        /// What the system answered.
        source: io::Error,
    },
}

/// How a call of the tokenizer library ended badly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// With an error of its own.
    #[error("{source}")]
    Error {
        /// The library's error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// With a panic.
    #[error("the tokenizer library panicked: {message}")]
    Panic {
        /// Its message.
        message: String,
    },
}
