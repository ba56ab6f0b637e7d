//! `config.json`, read field by field with its limits.
//!
//! *What must stay true.* The file is untrusted: sizes are capped here, so that sizes computed from a configuration
//! cannot overflow, and nothing is allocated from them before the checkpoint has been found to agree.

use std::{
    fs::File,
    io::Read,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{ConfigProblem, ModelError};

/// Bytes of the largest configuration that is read; those of published models are below 10 KB, most of it labels.
const MAX_BYTES: u64 = 1 << 22;

/// The largest dimension: products of three stay below 2⁶³, and no model is wider.
const MAX_SIZE: usize = 1 << 21;

/// A parsed `config.json`.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ModelError`] naming the file.
    pub fn read(path: &Path) -> Result<Config, ModelError> {
        let failed = |source| ModelError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut bytes = Vec::new();
        // What is no regular file tells no size, and need not end.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            let problem = ConfigProblem::Length { bytes: size.max(bytes.len() as u64), limit: MAX_BYTES };
            return Err(ModelError::Config { path: path.to_owned(), problem });
        }
        Config::parse(path, &bytes)
    }

    /// Reads the file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`ModelError::Config`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Config, ModelError> {
        let problem = match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => return Ok(Config { path: path.to_owned(), fields }),
            Ok(other) => ConfigProblem::Value {
                field: "the configuration".to_owned(),
                found: shortened(&other.to_string()),
                expected: "an object".to_owned(),
            },
            Err(source) => source.into(),
        };
        Err(ModelError::Config { path: path.to_owned(), problem })
    }

    /// The error that `problem` is for this file.
    pub(super) fn error(&self, problem: ConfigProblem) -> ModelError {
        ModelError::Config { path: self.path.clone(), problem }
    }

    /// The value of a field; `null` counts as absent, as in `transformers`.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// Whether a field is there, be it `null`.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// The fields of an object.
    pub(super) fn section(&self, field: &str) -> Result<Option<Config>, ModelError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Config { path: self.path.clone(), fields: fields.clone() })),
            Some(found) => Err(self.value_error(field, found, "an object")),
        }
    }

    /// The first field that is an object.
    pub(super) fn first_section(&self) -> Option<(&str, &Value)> {
        self.fields.iter().find(|(_, value)| value.is_object()).map(|(name, value)| (name.as_str(), value))
    }

    /// A size within `range`, if it is there.
    pub(super) fn size_in(&self, field: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| range.contains(size));
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        size.map(Some).ok_or_else(|| self.value_error(field, value, &expected()))
    }

    /// A positive size, or `default`.
    pub(super) fn size_or(&self, field: &str, default: usize) -> Result<usize, ModelError> {
        Ok(self.size_in(field, 1..=MAX_SIZE)?.unwrap_or(default))
    }

    /// A positive size.
    pub(super) fn size(&self, field: &str) -> Result<usize, ModelError> {
        self.size_in(field, 1..=MAX_SIZE)?.ok_or_else(|| {
            self.error(ConfigProblem::Missing {
                field: field.to_owned(),
                expected: "a positive whole number".to_owned(),
            })
        })
    }

    /// A positive number that f32, in which it is computed with, holds to full precision, if it is there.
    pub(super) fn number(&self, field: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = value.as_f64().filter(|&number| number > 0.0 && (number as f32).is_normal());
        number.map(Some).ok_or_else(|| self.value_error(field, value, "a positive number"))
    }

    /// A positive number.
    pub(super) fn needed_number(&self, field: &str) -> Result<f64, ModelError> {
        self.number(field)?.ok_or_else(|| {
            self.error(ConfigProblem::Missing { field: field.to_owned(), expected: "a positive number".to_owned() })
        })
    }

    /// `true` or `false`, or `default`.
    pub(super) fn flag_or(&self, field: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.value_error(field, value, "true or false"))
    }

    /// A text, if it is there.
    pub(super) fn text(&self, field: &str) -> Result<Option<&str>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.value_error(field, value, "a text"))
    }

    /// Refuses a field whose value is not the one that is computed.
    pub(super) fn only_flag(&self, field: &str, supported: bool) -> Result<(), ModelError> {
        if self.flag_or(field, supported)? == supported {
            return Ok(());
        }
        Err(self.unsupported(field, &(!supported).to_string(), [supported.to_string()]))
    }

    /// The error that a field asks for something unknown.
    pub(super) fn unsupported<T: Into<String>>(
        &self,
        field: &str,
        found: &str,
        supported: impl IntoIterator<Item = T>,
    ) -> ModelError {
        let supported = supported.into_iter().map(Into::into).collect();
        self.error(ConfigProblem::Unsupported { field: field.to_owned(), found: shortened(found), supported })
    }

    /// The error that a field has not the value it should have.
    pub(super) fn value_error(&self, field: &str, found: &Value, expected: &str) -> ModelError {
        let (field, found) = (field.to_owned(), shortened(&found.to_string()));
        self.error(ConfigProblem::Value { field, found, expected: expected.to_owned() })
    }
}

/// The first characters of a value, for a message; none of them reaches a terminal as a command.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut short: String = text.chars().take(LONGEST).map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}
