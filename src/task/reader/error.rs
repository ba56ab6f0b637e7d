//! What can be wrong with a data file: always with the file, and the line where there is one.

use std::{io, path::PathBuf};

use super::{MAX_FILE, MAX_LINE, rows::FieldKind};

/// Why a data file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A line that is longer than any text.
    #[error("{}:{line}: more than {MAX_LINE} bytes without a line break", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A CSV file that is longer than any we hold in memory.
    #[error("{} has more than {MAX_FILE} bytes, the most that is read of a CSV file; convert it to .jsonl", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that are not UTF-8.
    #[error("{}:{line}: byte {column} of the line is not UTF-8", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The byte, from 1.
        column: usize,
    },
    /// A line that is no JSON object.
    #[error("{}:{line}:{column}: not a JSON object: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// A CSV file whose first line names no column, or one twice.
    #[error("{}:1: column {column} is named {found:?}; the first line must name every column, each by its own name", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The column, from 1.
        column: usize,
        /// Its name.
        found: String,
    },
    /// A CSV row with more or fewer fields than the header.
    #[error(
        "{}:{line}: {found} fields, expected {expected} as in the first line; put quotes around a field with a comma \
         or a line break, and double the quotes inside",
        path.display()
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// The line the row starts on, from 1.
        line: usize,
        /// Its fields.
        found: usize,
        /// The header's fields.
        expected: usize,
    },
    /// An object without the field that is needed.
    #[error("{}:{line}: {found}; expected the field {field:?} with {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What is there instead.
        found: String,
        /// What it should hold.
        expected: FieldKind,
    },
    /// Rows are read from JSON lines and CSV only.
    #[error("{} is neither .jsonl nor .csv; expected a file of JSON lines, or of comma-separated values", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A directory without one of its files.
    #[error("{} has neither {split}.jsonl nor {split}.csv", dir.display())]
    NoSplit {
        /// The directory.
        dir: PathBuf,
        /// `train`, `valid` or `test`.
        split: &'static str,
    },
    /// A directory with two files for the same examples.
    #[error("{} has both {split}.jsonl and {split}.csv; remove one", dir.display())]
    TwoSplits {
        /// The directory.
        dir: PathBuf,
        /// `train`, `valid` or `test`.
        split: &'static str,
    },
    /// Nothing in it.
    #[error("{} has no text and no row", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}
