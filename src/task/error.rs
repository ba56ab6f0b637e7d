//! What can be wrong with a task, and with an example of it: with the file, what was found and what was expected.

use std::{io, path::PathBuf};

use super::{Format, MAX_DEFINITION, Place, ReadError, Style};
use crate::text::TextError;

/// Why there is no task, or no example.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A data file cannot be read, or a row lacks a field.
    #[error(transparent)]
    Data(#[from] ReadError),
    /// No such task for this kind of model.
    #[error(
        "there is no task {name:?} for {style} models{}; `zofo list tasks` names all",
        nearest.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The kind of model.
        style: Style,
        /// The name that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The file of a custom task cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file of a custom task does not describe one.
    #[error("{}{problem}", path.display())]
    Definition {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: DefinitionProblem,
    },
    /// A row that is no example of the task.
    #[error("{place}: {problem}")]
    Row {
        /// Where it stands.
        place: Place,
        /// What is wrong.
        problem: RowProblem,
    },
    /// An example that this model cannot read.
    #[error("{place}: {problem}")]
    Encode {
        /// Where its row stands.
        place: Place,
        /// What is wrong.
        problem: EncodeProblem,
    },
    /// A model wrote tokens that its tokenizer cannot turn into text.
    #[error("{place}: the answer that the model wrote is no text: {source}")]
    Decode {
        /// Where the question's row stands.
        place: Place,
        /// What the tokenizer says.
        source: Box<TextError>,
    },
}

/// What is wrong with the description of a task. Messages go on after the file's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DefinitionProblem {
    /// More than any such file has.
    #[error(" has more than {MAX_DEFINITION} bytes, the most that is read of a task")]
    TooLong,
    /// Not text.
    #[error(" is not UTF-8: {source}")]
    NotUtf8 {
        /// Where.
        source: std::str::Utf8Error,
    },
    /// Not TOML, a key that does not exist, or a value of another type.
    #[error(
        ":{line}:{column}: {problem}{}",
        nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
    )]
    Toml {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser says.
        problem: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// A template that does not parse.
    #[error(": {key}: {source}")]
    Template {
        /// Where it stands.
        key: String,
        /// What the template library says.
        source: minijinja::Error,
    },
    /// No way to answer, or several.
    #[error(
        ": {found} of the tables [candidates], [choices], [generation] and [mask], expected one; for a classifier head none, \
         but [label] with names"
    )]
    Answers {
        /// How many there are.
        found: usize,
    },
    /// Candidates, label words or classes without a field that says which is right.
    #[error(": no table [label], which must name the `field` with the right answer")]
    NoLabel,
    /// `[label]` beside answers that bring their own.
    #[error(": the table [label] has no meaning beside [{table}], whose `gold` names the field with the right answer")]
    NeedlessLabel {
        /// `choices` or `generation`.
        table: &'static str,
    },
    /// A list that does not fit the number of answers.
    #[error(": {key} has {found} entries, expected {expected}, one for each answer")]
    Length {
        /// The list.
        key: String,
        /// Its length.
        found: usize,
        /// The number of answers.
        expected: usize,
    },
    /// Fewer than two answers to choose from.
    #[error(": {key} has {found} entries, expected two or more to choose from")]
    TooFew {
        /// The list.
        key: &'static str,
        /// Its length.
        found: usize,
    },
    /// A number that stands for no answer.
    #[error(": label.recode.{field} holds {found}, but the answers are numbered 0 to {last}")]
    Recode {
        /// The field.
        field: String,
        /// The number.
        found: usize,
        /// The last answer.
        last: usize,
    },
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// A label that is none of the task's.
    #[error("{field:?} is {found}, expected {expected}{}", if found == "-1" {
        "; -1 marks rows without a label: remove them"
    } else {
        ""
    })]
    Label {
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// The labels.
        expected: String,
    },
    /// A right answer that is not among the candidates.
    #[error("{field:?} has {found:?}, which is not among the {candidates} entries of {list:?}")]
    Gold {
        /// The field with the right answers.
        field: String,
        /// The answer.
        found: String,
        /// The field with the candidates.
        list: String,
        /// How many there are.
        candidates: usize,
    },
    /// The template cannot make a text of it.
    #[error("the template fails: {source}")]
    Template {
        /// What the template library says.
        source: minijinja::Error,
    },
    /// A row without the fields of its format, or of any.
    #[error("the fields are {found:?}, expected {}", quoted(expected))]
    Format {
        /// The fields of the format.
        expected: &'static [&'static str],
        /// What there is.
        found: Vec<String>,
    },
    /// A row of another format than the task's.
    #[error(
        "a row for the task {:?} has {}; this one is for the task {:?}",
        expected.name(),
        quoted(expected.fields()),
        found.name()
    )]
    OtherFormat {
        /// The task's.
        expected: Format,
        /// The row's.
        found: Format,
    },
    /// A conversation with nothing to learn.
    #[error("\"messages\" must end with an assistant's turn, found {found}")]
    LastTurn {
        /// The last turn's role, or that there is none.
        found: String,
    },
}

/// What is wrong with an example's tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeProblem {
    /// The tokenizer or the chat template refuses it.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A conversation for a model that knows none.
    #[error("\"messages\" need a model with a chat template; use \"prompt\" and \"completion\"")]
    NoChatTemplate,
    /// No token of its own to score.
    #[error("{what} {text:?} has no token of its own to score, expected a text that the tokenizer does not drop")]
    NothingScored {
        /// A candidate, an answer or a text.
        what: &'static str,
        /// Its beginning.
        text: String,
    },
    /// A label word of several tokens, or none.
    #[error("the label word {word:?} is {tokens} tokens of this model, expected one; choose another word")]
    LabelWord {
        /// The word.
        word: String,
        /// How many tokens it is.
        tokens: usize,
    },
    /// Two label words that are one token.
    #[error("the label words {first:?} and {second:?} are the same token of this model; choose other words")]
    SameWord {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A tokenizer without a token that masked examples need.
    #[error("the tokenizer has no {role}, which tasks for masked models need; use a model such as RoBERTa or BERT")]
    NoRole {
        /// The token's role, as Hugging Face spells it.
        role: &'static str,
    },
}

/// `"a" and "b"`.
fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" and ")
}
