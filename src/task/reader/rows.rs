//! Rows of named fields: an object a line of `.jsonl`, or the columns of `.csv` and `.parquet`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{MAX_FILE, ReadError, for_each_line, read_whole, utf8, without_mark};

/// Where a row stands; shown as `file:line`, for a Parquet file as `file:row`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// The line the row starts on, or the row of a Parquet file, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// What a field should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldKind {
    /// Anything but `null`.
    Value,
    /// A text.
    Text,
    /// A text, or a list of at least one.
    Texts,
    /// A list of messages, each with the texts `role` and `content`.
    Messages,
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldKind::Value => "a value",
            FieldKind::Text => "a text",
            FieldKind::Texts => "a text or a list of texts",
            FieldKind::Messages => "a list of {\"role\": …, \"content\": …}, both texts",
        })
    }
}

/// One row of a data file. Fields of a CSV file are texts.
#[derive(Clone, Debug)]
pub struct Row {
    place: Place,
    fields: Map<String, Value>,
}

impl Row {
    #[cfg(feature = "parquet")]
    pub(super) fn new(place: Place, fields: Map<String, Value>) -> Row {
        Row { place, fields }
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The field, unless absent or `null`; dots lead into objects, as in `answers.text`.
    pub fn get(&self, field: &str) -> Option<&Value> {
        let mut parts = field.split('.');
        let first = self.fields.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part)).filter(|value| !value.is_null())
    }

    /// The names of its fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The field's text.
    ///
    /// # Errors
    /// [`ReadError::Field`].
    pub fn text(&self, field: &str) -> Result<&str, ReadError> {
        self.get(field).and_then(Value::as_str).ok_or_else(|| self.unexpected(field, FieldKind::Text))
    }

    /// The field's texts: of a list, or a single one.
    ///
    /// # Errors
    /// [`ReadError::Field`].
    pub fn texts(&self, field: &str) -> Result<Vec<&str>, ReadError> {
        let texts: Option<Vec<&str>> = match self.get(field) {
            Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
            other => other.and_then(Value::as_str).map(|text| vec![text]),
        };
        texts.filter(|texts| !texts.is_empty()).ok_or_else(|| self.unexpected(field, FieldKind::Texts))
    }

    /// The error that says so.
    pub(in crate::task) fn unexpected(&self, field: &str, expected: FieldKind) -> ReadError {
        let found = match self.get(field) {
            Some(value) => format!("{field:?} is {}", shown(value)),
            None if self.fields.get(field).is_some() => format!("{field:?} is null"),
            None => format!("the fields are {:?}", self.fields.keys().take(16).collect::<Vec<_>>()),
        };
        let (path, line) = (PathBuf::from(&*self.place.path), self.place.line);
        ReadError::Field { path, line, field: field.to_owned(), found, expected }
    }
}

/// A value in an error: what it is, and what it says if that is short.
pub(in crate::task) fn shown(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("the text {:?}", text.chars().take(64).collect::<String>()),
        other => other.to_string(),
    }
}

/// The first `limit` rows of a `.jsonl`, `.csv` or, with the feature `parquet`, `.parquet` file; blank lines are skipped.
///
/// # Errors
/// [`ReadError`], also for a file without a row.
pub fn read_rows(path: &Path, limit: usize) -> Result<Vec<Row>, ReadError> {
    let rows = match extension(path) {
        Some("jsonl") => json_lines(path, limit)?,
        Some("csv") => comma_separated(path, limit)?,
        #[cfg(feature = "parquet")]
        Some("parquet") => super::parquet::rows(path, limit)?,
        #[cfg(not(feature = "parquet"))]
        Some("parquet") => return Err(ReadError::NoParquet { path: path.to_owned() }),
        _ => return Err(ReadError::Format { path: path.to_owned() }),
    };
    if rows.is_empty() { Err(ReadError::Empty { path: path.to_owned() }) } else { Ok(rows) }
}

/// Whether [`read_rows`] reads such a file.
pub(super) fn is_rows(path: &Path) -> bool {
    matches!(extension(path), Some("jsonl" | "csv" | "parquet"))
}

fn extension(path: &Path) -> Option<&str> {
    path.extension()?.to_str()
}

fn json_lines(path: &Path, limit: usize) -> Result<Vec<Row>, ReadError> {
    let shared: Arc<Path> = path.into();
    let mut rows = Vec::new();
    if limit == 0 {
        return Ok(rows);
    }
    for_each_line(path, |line, text| {
        let fields = serde_json::from_str(text).map_err(|error| {
            let problem = error.to_string();
            let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
            ReadError::Json { path: path.to_owned(), line, column: error.column(), problem }
        })?;
        rows.push(Row { place: Place { path: shared.clone(), line }, fields });
        Ok(rows.len() < limit)
    })?;
    Ok(rows)
}

fn comma_separated(path: &Path, limit: usize) -> Result<Vec<Row>, ReadError> {
    let shared: Arc<Path> = path.into();
    let bytes = read_whole(path, MAX_FILE, || ReadError::FileTooLong { path: path.to_owned() })?;
    // As a whole first: an error then names the byte of the line, not of the field.
    let text = utf8(path, 1, without_mark(&bytes))?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let failed = |error: csv::Error| ReadError::Read { path: path.to_owned(), source: error.into() };
    let (mut names, mut rows) = (Vec::new(), Vec::new());
    let (mut line, mut counted) = (1, 0);
    for record in reader.records() {
        let record = record.map_err(failed)?;
        // A record's position is the end of the one before: line breaks and blank lines are still to be skipped.
        let end = record.position().map_or(counted, |position| position.byte() as usize);
        let start = end + text.as_bytes()[end..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        line += text.as_bytes()[counted..start].iter().filter(|&&byte| byte == b'\n').count();
        counted = start;
        if names.is_empty() {
            for (column, name) in (1..).zip(&record) {
                if name.trim().is_empty() || names.iter().any(|other| other == name) {
                    return Err(ReadError::Header { path: path.to_owned(), column, found: name.to_owned() });
                }
                names.push(name.to_owned());
            }
            continue;
        }
        if rows.len() == limit {
            break;
        }
        if record.len() != names.len() {
            let (found, expected) = (record.len(), names.len());
            return Err(ReadError::Columns { path: path.to_owned(), line, found, expected });
        }
        let fields = names.iter().cloned().zip(record.iter().map(Value::from)).collect();
        rows.push(Row { place: Place { path: shared.clone(), line }, fields });
    }
    Ok(rows)
}

#[cfg(test)]
impl Row {
    /// A row of a file that is not there.
    pub(in crate::task) fn from_json(fields: Value) -> Row {
        let Value::Object(fields) = fields else { panic!("a row is an object: {fields}") };
        Row { place: Place { path: Path::new("data.jsonl").into(), line: 7 }, fields }
    }
}
