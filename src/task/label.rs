//! Which answer is right: a number, `true` or `false`, or a name in a field of the row.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    DefinitionProblem, Row, RowProblem, TaskError,
    reader::{FieldKind, shown},
};

/// The table `[label]` of a task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    /// The field with the number or name of the right answer.
    field: String,
    /// What the answers may be called besides their numbers.
    #[serde(default)]
    names: Vec<String>,
    /// Fields of other copies of the data set that number the answers differently: entry `i` is the answer of number `i`.
    #[serde(default)]
    recode: BTreeMap<String, Vec<usize>>,
}

impl Label {
    /// How many answers have names.
    pub(super) fn names(&self) -> usize {
        self.names.len()
    }

    /// Whether names and other numbers fit `answers` answers.
    pub(super) fn check(&self, answers: usize) -> Result<(), DefinitionProblem> {
        let length = |key: String, found: usize| DefinitionProblem::Length { key, found, expected: answers };
        if ![0, answers].contains(&self.names.len()) {
            return Err(length("label.names".to_owned(), self.names.len()));
        }
        for (field, order) in &self.recode {
            if order.len() != answers {
                return Err(length(format!("label.recode.{field}"), order.len()));
            }
            if let Some(&found) = order.iter().find(|&&answer| answer >= answers) {
                return Err(DefinitionProblem::Recode { field: field.clone(), found, last: answers - 1 });
            }
        }
        Ok(())
    }

    /// The right one of `answers` answers.
    pub(super) fn read(&self, row: &Row, answers: usize) -> Result<usize, TaskError> {
        let other = || self.recode.iter().find_map(|(field, order)| Some((field, order.as_slice(), row.get(field)?)));
        let own = row.get(&self.field).map(|value| (&self.field, [].as_slice(), value));
        let (field, order, value) = own.or_else(other).ok_or_else(|| row.unexpected(&self.field, FieldKind::Value))?;
        let answer = self.named(value).or_else(|| {
            let number = number(value)?;
            order.get(number).copied().or((number < answers).then_some(number))
        });
        answer.ok_or_else(|| self.unknown(row, field, value, answers))
    }

    /// The answer of that name: a name means the same in every field.
    fn named(&self, value: &Value) -> Option<usize> {
        let text = value.as_str()?.trim();
        let position = |same: fn(&str, &str) -> bool| self.names.iter().position(|name| same(name, text));
        position(|a, b| a == b).or_else(|| position(str::eq_ignore_ascii_case))
    }

    fn unknown(&self, row: &Row, field: &str, value: &Value, answers: usize) -> TaskError {
        let names = if self.names.is_empty() { String::new() } else { format!(", or one of {:?}", self.names) };
        let expected = format!("a number from 0 to {}{names}", answers - 1);
        let found = match value {
            Value::String(text) if text.trim() == "-1" => "-1".to_owned(),
            other => shown(other),
        };
        TaskError::Row {
            place: row.place().clone(),
            problem: RowProblem::Label { field: field.to_owned(), found, expected },
        }
    }
}

/// A whole number; `false` and `true` are 0 and 1.
fn number(value: &Value) -> Option<usize> {
    match value {
        Value::Bool(yes) => Some(usize::from(*yes)),
        // Tables that had gaps once hold whole numbers as 1.0.
        Value::Number(number) => {
            let whole = number.as_f64().filter(|x| x.fract() == 0.0 && (0.0..1e9).contains(x));
            whole.map(|x| x as usize)
        }
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "false" => Some(0),
            "true" => Some(1),
            digits => digits.parse().ok(),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn label() -> Label {
        let text = "field = 'label'\nnames = ['No', 'yes']\nrecode = { answer = [1, 0] }";
        toml::from_str(text).expect("a table")
    }

    fn read(row: Value) -> Result<usize, String> {
        label().read(&Row::from_json(row), 2).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_truths_and_names_are_labels() {
        for (value, expected) in [
            (json!(1), 1),
            (json!(0.0), 0),
            (json!(true), 1),
            (json!("1"), 1),
            (json!(" False"), 0),
            (json!("YES"), 1),
            (json!("No"), 0),
        ] {
            assert_eq!(read(json!({ "label": value })), Ok(expected), "{value}");
        }
        assert_eq!(read(json!({"answer": true})), Ok(0));
        assert_eq!(read(json!({"label": null, "answer": 0})), Ok(1));
        assert_eq!(read(json!({"answer": "no"})), Ok(0), "a name has no other numbers");
    }

    #[test]
    fn other_values_are_errors_that_name_the_labels() {
        let error = |row| read(row).expect_err("no label");
        assert_eq!(
            error(json!({"label": 2})),
            "data.jsonl:7: \"label\" is 2, expected a number from 0 to 1, or one of [\"No\", \"yes\"]"
        );
        let hint = "; -1 marks rows without a label: remove them";
        assert!(error(json!({"label": -1})).ends_with(hint) && error(json!({"label": "-1"})).ends_with(hint));
        for value in [json!("maybe"), json!(0.5), json!([1]), json!(1e300), json!("")] {
            assert!(error(json!({ "label": value })).contains("expected a number from 0 to 1"), "{value}");
        }
        assert_eq!(
            error(json!({"text": "a"})),
            "data.jsonl:7: the fields are [\"text\"]; expected the field \"label\" with a value"
        );
    }

    #[test]
    fn names_and_numbers_must_fit_the_answers() {
        assert!(label().check(2).is_ok());
        assert!(matches!(label().check(3), Err(DefinitionProblem::Length { found: 2, expected: 3, .. })));
        let mut short = label();
        short.recode.insert("answer".to_owned(), vec![0]);
        assert!(matches!(short.check(2), Err(DefinitionProblem::Length { found: 1, expected: 2, .. })));
        short.recode.insert("answer".to_owned(), vec![0, 2]);
        assert!(matches!(short.check(2), Err(DefinitionProblem::Recode { found: 2, last: 1, .. })));
    }
}
