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
    /// A Parquet file, which this program was built without reading.
    #[error(
        "{} is a Parquet file, which this build does not read; build with `--features parquet`, or convert it to .jsonl",
        path.display()
    )]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// A file that is not what its name says, or beyond our limits.
    #[error("{}: not a Parquet file that can be read: {problem}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, as the library says it where it found it.
        problem: String,
    },
    /// A column of a Parquet file in a compression that takes a library in C.
    #[error(
        "{}: the column {column:?} is compressed by {found}; expected snappy, gzip, brotli, lz4 or none: write the file \
         again with one of them",
        path.display()
    )]
    Compression {
        /// The file.
        path: PathBuf,
        /// The column, with dots into structures.
        column: String,
        /// The compression.
        found: &'static str,
    },
    /// A value of a Parquet file that no JSON value stands for.
    #[error(
        "{}:{row}: the column {column:?} holds {found}; expected texts, numbers, and lists and structures of them: leave \
         the column out",
        path.display()
    )]
    Column {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The column.
        column: String,
        /// What it holds.
        found: &'static str,
    },
    /// A Parquet file whose rows hold more than we do in memory.
    #[error("{}:{row}: the rows until here hold more than {MAX_FILE} bytes; split the file", path.display())]
    TooMuch {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
    },
    /// Rows are read from JSON lines, CSV and Parquet only.
    #[error("{} is neither .jsonl nor .csv nor .parquet; expected a file of one of these formats", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A directory without one of its files.
    #[error("{} has no {split}.jsonl, {split}.csv or {split}.parquet", dir.display())]
    NoSplit {
        /// The directory.
        dir: PathBuf,
        /// `train`, `valid` or `test`.
        split: &'static str,
    },
    /// A directory with two files for the same examples.
    #[error("{} has both {split}.{} and {split}.{}; remove one", dir.display(), found[0], found[1])]
    TwoSplits {
        /// The directory.
        dir: PathBuf,
        /// `train`, `valid` or `test`.
        split: &'static str,
        /// The extensions of two of its files.
        found: [&'static str; 2],
    },
    /// Nothing in it.
    #[error("{} has no text and no row", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}
