//! Examples: the texts that a row of a data file becomes.

use minijinja::Value;

use super::{
    Place, Row, RowProblem, Task, TaskError,
    definition::{Answers, Content, ENTRY, Question},
    reader::FieldKind,
    template::Template,
};
use crate::text::Message;

/// One example, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Where its row stands.
    pub place: Place,
    /// What the model is given, and what is right.
    pub input: Input,
}

/// What a model is given, and what is right.
///
/// A prompt never ends with a space: it would be a token of its own, where models have learnt words with a space in front.
/// The space begins the candidate or the answer instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// One of several continuations is right.
    Candidates {
        /// What all of them continue.
        prompt: String,
        /// The continuations.
        candidates: Vec<String>,
        /// The right ones: at least one; the first is learnt.
        gold: Vec<usize>,
    },
    /// A continuation that the model writes.
    Answer {
        /// What it continues.
        prompt: String,
        /// What is learnt.
        answer: String,
        /// The answers that are as good.
        golds: Vec<String>,
        /// New tokens that the prompt must leave room for.
        max_tokens: usize,
    },
    /// One of several words stands between two texts.
    Mask {
        /// The text before the mask token.
        before: String,
        /// The text after it.
        after: String,
        /// The words.
        words: Vec<String>,
        /// The right one.
        gold: usize,
    },
    /// A text belongs to a class.
    Class {
        /// The text.
        text: String,
        /// How many classes there are.
        classes: usize,
        /// The class.
        gold: usize,
    },
    /// A text of which every token is learnt.
    Text {
        /// The text.
        text: String,
    },
    /// A prompt with its completion; only the latter is learnt.
    Completion {
        /// What is given.
        prompt: String,
        /// What is learnt.
        completion: String,
    },
    /// A conversation that ends with an assistant's turn; only that is learnt.
    Conversation {
        /// The turns.
        messages: Vec<Message>,
    },
}

impl Task {
    /// The example of a row.
    ///
    /// # Errors
    /// [`TaskError::Data`] without a field, [`TaskError::Row`] with one that is no example.
    pub fn example(&self, row: &Row) -> Result<Example, TaskError> {
        let input = match &self.content {
            Content::Question(question) => self.question(question, row)?,
            Content::Format(format) => format.input(row)?,
        };
        Ok(Example { place: row.place().clone(), input })
    }

    fn question(&self, Question { prompt, answers }: &Question, row: &Row) -> Result<Input, TaskError> {
        let prompt = self.render(prompt, row, None)?;
        Ok(match answers {
            Answers::Candidates { label, texts, .. } => {
                let gold = vec![label.read(row, texts.len())?];
                let candidates = texts.iter().map(|text| self.render(text, row, None)).collect::<Result<_, _>>()?;
                candidates_after(&prompt, candidates, gold)
            }
            Answers::Choices { each, text, gold, .. } => {
                let entries = self.texts(row, each)?;
                let candidates = entries.iter().map(|&entry| self.render(text, row, Some(entry)));
                let candidates = candidates.collect::<Result<_, _>>()?;
                let mut right = Vec::new();
                for answer in self.texts(row, gold)? {
                    let found = entries.iter().position(|&entry| entry == answer);
                    right.push(found.ok_or_else(|| self.not_among(row, gold, answer, each, entries.len()))?);
                }
                candidates_after(&prompt, candidates, right)
            }
            Answers::Generation { gold, answer, how, .. } => {
                let golds = self.texts(row, gold)?;
                let (prompt, spaces) = without_spaces(&prompt);
                let answer = spaces.to_owned() + &self.render(answer, row, Some(golds[0]))?;
                let golds = golds.into_iter().map(str::to_owned).collect();
                Input::Answer { prompt: prompt.to_owned(), answer, golds, max_tokens: how.max_tokens }
            }
            Answers::Mask { label, words, after } => Input::Mask {
                before: prompt,
                after: self.render(after, row, None)?,
                gold: label.read(row, words.len())?,
                words: words.clone(),
            },
            Answers::Classes { label } => {
                let classes = label.names();
                Input::Class { text: prompt, classes, gold: label.read(row, classes)? }
            }
        })
    }

    /// The name by which the row knows a field.
    fn field<'a>(&'a self, row: &Row, field: &'a str) -> &'a str {
        match self.aliases.get(field) {
            Some(alias) if row.get(field).is_none() && row.get(alias).is_some() => alias,
            _ => field,
        }
    }

    fn texts<'r>(&self, row: &'r Row, field: &str) -> Result<Vec<&'r str>, TaskError> {
        Ok(row.texts(self.field(row, field))?)
    }

    fn render(&self, template: &Template, row: &Row, entry: Option<&str>) -> Result<String, TaskError> {
        let mut variables = Vec::with_capacity(template.fields().len() + 1);
        for field in template.fields() {
            let value = row.get(self.field(row, field)).ok_or_else(|| row.unexpected(field, FieldKind::Value))?;
            variables.push((field.as_str(), jinja(value)));
        }
        variables.extend(entry.map(|entry| (ENTRY, Value::from(entry))));
        template
            .render(&variables)
            .map_err(|source| TaskError::Row { place: row.place().clone(), problem: RowProblem::Template { source } })
    }

    fn not_among(&self, row: &Row, field: &str, found: &str, list: &str, candidates: usize) -> TaskError {
        let (field, list) = (self.field(row, field).to_owned(), self.field(row, list).to_owned());
        let problem = RowProblem::Gold { field, found: found.to_owned(), list, candidates };
        TaskError::Row { place: row.place().clone(), problem }
    }
}

/// A value of a row, as the template library has it; rows are nested at most as deep as their parser allows (128).
fn jinja(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(list) => list.iter().map(jinja).collect(),
        serde_json::Value::Object(fields) => fields.iter().map(|(name, value)| (name.as_str(), jinja(value))).collect(),
    }
}

/// Candidates that continue `prompt`, whose spaces at the end become theirs.
fn candidates_after(prompt: &str, candidates: Vec<String>, gold: Vec<usize>) -> Input {
    let (prompt, spaces) = without_spaces(prompt);
    let candidates = candidates.into_iter().map(|text| spaces.to_owned() + text.trim_end_matches(' ')).collect();
    Input::Candidates { prompt: prompt.to_owned(), candidates, gold }
}

/// A prompt without white space in front, and the spaces at its end.
fn without_spaces(prompt: &str) -> (&str, &str) {
    let prompt = prompt.trim_start();
    prompt.split_at(prompt.trim_end_matches(' ').len())
}
