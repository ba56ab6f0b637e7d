//! The small files of a model's directory, read with limits.
//!
//! *What must stay true.* What is read is a regular file of the directory itself and no longer than its limit;
//! a field that has another type than Hugging Face gives it is an error, an absent one or `null` is absent.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::TextError;

/// Longest configuration file: `added_tokens_decoder` of a large vocabulary takes about a megabyte.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// A model's directory, without links.
pub(super) struct Directory {
    path: PathBuf,
}

/// A JSON object of the directory.
pub(super) struct Document {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl Directory {
    pub(super) fn open(dir: &Path) -> Result<Directory, TextError> {
        // The real directory: a link to a model is fine, a link out of it is not.
        let path = dir.canonicalize().map_err(|source| TextError::Read { path: dir.to_owned(), source })?;
        Ok(Directory { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is anything of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// The bytes of a file, `None` if there is nothing of that name.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, TextError> {
        let path = self.path.join(name);
        let failed = |source| TextError::Read { path: path.clone(), source };
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let real = path.canonicalize().map_err(failed)?;
        if real.parent() != Some(&self.path) {
            return Err(TextError::NotAFile { path, found: "a link out of the directory" });
        }
        // Before it is opened: opening a pipe waits for its other end.
        let metadata = fs::metadata(&real).map_err(failed)?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a directory" } else { "a device or pipe" };
            return Err(TextError::NotAFile { path, found });
        }
        let mut bytes = Vec::new();
        // One more than allowed: the file may have grown since, and its length is not trusted.
        File::open(&real).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > limit {
            return Err(TextError::FileTooLong { path, limit });
        }
        Ok(Some(bytes))
    }

    /// The text of a file, `None` if there is nothing of that name.
    pub(super) fn text(&self, name: &str, limit: u64) -> Result<Option<String>, TextError> {
        let Some(bytes) = self.read(name, limit)? else { return Ok(None) };
        let text = String::from_utf8(bytes)
            .map_err(|error| TextError::NotUtf8 { path: self.path.join(name), source: error.utf8_error() })?;
        Ok(Some(text))
    }

    /// A JSON object; one without fields if there is nothing of that name.
    pub(super) fn document(&self, name: &str) -> Result<Document, TextError> {
        let path = self.path.join(name);
        let fields = match self.read(name, MAX_DOCUMENT_BYTES)? {
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| TextError::Json { path: path.clone(), source })?
            }
            None => Map::new(),
        };
        Ok(Document { path, fields })
    }
}

impl Document {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The field, unless absent or `null`.
    pub(super) fn field(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&str>, TextError> {
        let Some(value) = self.field(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.unexpected(field, value, "a string"))
    }

    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>, TextError> {
        let Some(value) = self.field(field) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.unexpected(field, value, "true or false"))
    }

    /// A token: its text, or an object with its text as `content`.
    pub(super) fn token(&self, field: &str) -> Result<Option<&str>, TextError> {
        let Some(value) = self.field(field) else { return Ok(None) };
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        text.map(Some).ok_or_else(|| self.unexpected(field, value, "a token, or an object with its content"))
    }

    /// Ids: one, a list, or none. Negative ones stand for none (`pad_token_id` of the first Llama).
    pub(super) fn ids(&self, field: &str) -> Result<Vec<u32>, TextError> {
        let Some(value) = self.field(field) else { return Ok(Vec::new()) };
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let present = values.iter().filter(|value| value.as_i64().is_none_or(|id| id >= 0));
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.unexpected(field, value, "a token id or a list of them"))
        };
        present.map(id).collect()
    }

    /// The error that says so.
    pub(super) fn unexpected(&self, field: &str, value: &Value, expected: &'static str) -> TextError {
        let found = match value {
            Value::Array(list) => format!("a list of {}", list.len()),
            Value::Object(_) => "an object".to_owned(),
            Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
            other => other.to_string(),
        };
        TextError::Field { path: self.path.clone(), field: field.to_owned(), found, expected }
    }

    /// All fields, in the order of the file's names.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        self.fields
    }
}
