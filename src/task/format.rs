//! Data without a task, in the formats of mlx-lm: texts, prompts with completions, conversations.

use serde_json::Value;

use super::{Example, Input, Row, RowProblem, TaskError, reader::FieldKind};
use crate::text::Message;

/// A format of rows, known by their fields; others are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `messages`: turns with `role` and `content`, an assistant's last; only that one is learnt.
    Chat,
    /// `prompt` and `completion`; only the latter is learnt.
    Completions,
    /// `text`, all of which is learnt.
    Text,
}

impl Format {
    /// The format of a row.
    ///
    /// # Errors
    /// [`TaskError::Row`] if it has none of the fields.
    pub fn detect(row: &Row) -> Result<Format, TaskError> {
        let has = |field| row.get(field).is_some();
        if has("messages") {
            Ok(Format::Chat)
        } else if has("prompt") && has("completion") {
            Ok(Format::Completions)
        } else if has("text") {
            Ok(Format::Text)
        } else {
            let found = row.names().take(16).map(str::to_owned).collect();
            Err(TaskError::Row { place: row.place().clone(), problem: RowProblem::Format { found } })
        }
    }

    /// The example of a row of this format.
    ///
    /// # Errors
    /// [`TaskError::Data`] without a field of the format, [`TaskError::Row`] where nothing is to be learnt.
    pub fn example(self, row: &Row) -> Result<Example, TaskError> {
        let text = |field| row.text(field).map(str::to_owned);
        let input = match self {
            Format::Chat => Input::Conversation { messages: conversation(row)? },
            Format::Completions => Input::Completion { prompt: text("prompt")?, completion: text("completion")? },
            Format::Text => Input::Text { text: text("text")? },
        };
        Ok(Example { place: row.place().clone(), input })
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

    fn example(row: Value) -> Result<Input, String> {
        let row = Row::from_json(row);
        let example = Format::detect(&row).and_then(|format| format.example(&row));
        example.map(|example| example.input).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_tell_the_format_and_others_are_ignored() {
        let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        assert_eq!(
            example(
                json!({"text": "x", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]})
            ),
            Ok(Input::Conversation { messages: vec![turn("user", "Hi"), turn("assistant", "Yes")] })
        );
        assert_eq!(
            example(json!({"prompt": "2 + 2 =", "completion": " 4", "text": "x", "id": 3})),
            Ok(Input::Completion { prompt: "2 + 2 =".to_owned(), completion: " 4".to_owned() })
        );
        assert_eq!(example(json!({"prompt": "x", "text": "A day."})), Ok(Input::Text { text: "A day.".to_owned() }));
    }

    #[test]
    fn rows_that_teach_nothing_are_errors() {
        let error = |row| example(row).expect_err("no example");
        assert_eq!(
            error(json!({"sentence": "a", "label": 1})),
            "data.jsonl:7: the fields are [\"label\", \"sentence\"], expected \"messages\", \"prompt\" and \
             \"completion\", or \"text\""
        );
        assert_eq!(
            error(json!({"messages": [{"role": "user", "content": "Hi"}]})),
            "data.jsonl:7: \"messages\" must end with an assistant's turn, found one of \"user\""
        );
        assert!(error(json!({"messages": []})).ends_with("found none"));
        assert!(
            error(json!({"messages": [{"role": "assistant", "content": [1]}]})).contains("\"messages\" is a list of 1")
        );
        assert!(error(json!({"text": 3})).contains("\"text\" is 3"));
    }
}
