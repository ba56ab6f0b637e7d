//! Data without questions, in the formats of mlx-lm: texts, prompts with completions, conversations.
//!
//! Each is a built-in task by its name. What is learnt is what mlx-lm learns with `--mask-prompt`: of a conversation its
//! last turn, of a prompt with its completion the latter, of a text all tokens, each with the end of text behind it.

use std::path::Path;

use serde_json::Value;

use super::{Input, Row, RowProblem, Task, TaskError, definition::Content, reader::FieldKind};
use crate::text::{ChatTemplate, Message, TextError};

/// A format of rows, known by their fields; others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `messages`: turns with `role` and `content`, an assistant's last; only that one is learnt.
    Chat,
    /// `prompt` and `completion`; only the latter is learnt. With a chat template, a conversation of two turns.
    Completions,
    /// `text`, all of which is learnt.
    Text,
}

impl Format {
    /// All formats, in the order in which a row's is looked for: that of mlx-lm.
    pub(super) const ALL: [Format; 3] = [Format::Completions, Format::Chat, Format::Text];

    /// The name of its task.
    pub fn name(self) -> &'static str {
        match self {
            Format::Chat => "chat",
            Format::Completions => "completions",
            Format::Text => "text",
        }
    }

    /// The fields that a row must have.
    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Format::Chat => &["messages"],
            Format::Completions => &["prompt", "completion"],
            Format::Text => &["text"],
        }
    }

    fn is_of(self, row: &Row) -> bool {
        self.fields().iter().all(|field| row.get(field).is_some())
    }

    /// The task that learns rows of this format.
    pub(super) fn task(self) -> Task {
        let about = match self {
            Format::Chat => "Learn the last turn of conversations",
            Format::Completions => "Learn the completions of prompts",
            Format::Text => "Learn texts",
        };
        let (name, source) = (self.name().to_owned(), "files in the formats of mlx-lm".to_owned());
        let aliases = std::collections::BTreeMap::new();
        Task { name, about: about.to_owned(), source, aliases, content: Content::Format(self) }
    }

    /// What a row of this format holds.
    pub(super) fn input(self, row: &Row) -> Result<Input, TaskError> {
        if !self.is_of(row) {
            let problem = match Format::ALL.into_iter().find(|format| format.is_of(row)) {
                Some(found) => RowProblem::OtherFormat { expected: self, found },
                None => {
                    let found = row.names().take(16).map(str::to_owned).collect();
                    RowProblem::Format { expected: self.fields(), found }
                }
            };
            return Err(TaskError::Row { place: row.place().clone(), problem });
        }
        let text = |field| row.text(field).map(str::to_owned);
        Ok(match self {
            Format::Chat => Input::Conversation { messages: conversation(row)? },
            Format::Completions => Input::Completion { prompt: text("prompt")?, completion: text("completion")? },
            Format::Text => Input::Text { text: text("text")? },
        })
    }
}

impl Task {
    /// The chat template of a model's directory, if the task's rows are written by one and the model has one.
    ///
    /// # Errors
    /// [`TextError`] for a template that cannot be read.
    pub fn chat_template(&self, model: &Path) -> Result<Option<ChatTemplate>, TextError> {
        match self.format() {
            Some(Format::Chat | Format::Completions) => match ChatTemplate::open(model) {
                Err(TextError::NoTemplate { .. }) => Ok(None),
                result => result.map(Some),
            },
            Some(Format::Text) | None => Ok(None),
        }
    }
}

fn conversation(row: &Row) -> Result<Vec<Message>, TaskError> {
    let message = |value: &Value| {
        let text = |field| value.get(field)?.as_str().map(str::to_owned);
        Some(Message { role: text("role")?, content: text("content")? })
    };
    let list = row.get("messages").and_then(Value::as_array);
    let messages: Option<Vec<Message>> = list.and_then(|list| list.iter().map(message).collect());
    let messages = messages.ok_or_else(|| row.unexpected("messages", FieldKind::Messages))?;
    match messages.last() {
        Some(last) if last.role == "assistant" => Ok(messages),
        last => {
            let found = last.map_or_else(|| "none".to_owned(), |last| format!("one of {:?}", last.role));
            Err(TaskError::Row { place: row.place().clone(), problem: RowProblem::LastTurn { found } })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(format: Format, row: Value) -> Result<Input, String> {
        format.task().example(&Row::from_json(row)).map(|example| example.input).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_are_read_by_the_fields_of_the_format_and_others_are_ignored() {
        let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        let row = json!({
            "text": "A day.",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}],
            "prompt": "2 + 2 =",
            "completion": " 4",
            "id": 3,
        });
        let messages = vec![turn("user", "Hi"), turn("assistant", "Yes")];
        assert_eq!(input(Format::Chat, row.clone()), Ok(Input::Conversation { messages }));
        let completion = Input::Completion { prompt: "2 + 2 =".to_owned(), completion: " 4".to_owned() };
        assert_eq!(input(Format::Completions, row.clone()), Ok(completion));
        assert_eq!(input(Format::Text, row), Ok(Input::Text { text: "A day.".to_owned() }));
    }

    #[test]
    fn rows_of_another_format_name_its_task() {
        let row = json!({"text": "x", "messages": [{"role": "assistant", "content": "Yes"}]});
        assert_eq!(
            input(Format::Completions, row).expect_err("no prompt"),
            "data.jsonl:7: a row for the task \"completions\" has \"prompt\" and \"completion\"; this one is for the task \
             \"chat\""
        );
        assert_eq!(
            input(Format::Chat, json!({"sentence": "a", "label": 1})).expect_err("no messages"),
            "data.jsonl:7: the fields are [\"label\", \"sentence\"], expected \"messages\""
        );
    }

    #[test]
    fn rows_that_teach_nothing_are_errors() {
        let chat = |row| input(Format::Chat, row).expect_err("no example");
        assert_eq!(
            chat(json!({"messages": [{"role": "user", "content": "Hi"}]})),
            "data.jsonl:7: \"messages\" must end with an assistant's turn, found one of \"user\""
        );
        assert!(chat(json!({"messages": []})).ends_with("found none"));
        assert!(
            chat(json!({"messages": [{"role": "assistant", "content": [1]}]})).contains("\"messages\" is a list of 1")
        );
        assert!(input(Format::Text, json!({"text": 3})).expect_err("no text").contains("\"text\" is 3"));
    }
}
