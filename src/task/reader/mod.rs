//! Data files: texts, rows of named fields, and directories with `train`, `valid` and `test`.

mod error;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;
mod splits;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

pub use error::ReadError;
pub(in crate::task) use rows::shown;
pub use rows::{FieldKind, Place, Row, read_rows};
pub use splits::DataDirectory;

/// Bytes of the longest line that is read: a book is 1 MB.
const MAX_LINE: u64 = 1 << 28;
/// Bytes of the longest CSV file, which is held in memory as a whole, and of the rows of a Parquet file: 25,000 film
/// reviews have 35 MB.
const MAX_FILE: u64 = 1 << 30;

/// One text of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The line it starts on, or its row in a Parquet file, from 1.
    pub line: usize,
    /// The text.
    pub text: String,
}

/// The first `limit` texts of a file: the `text` fields of a `.jsonl`, `.csv` or `.parquet` file, else the whole file as one text.
///
/// # Errors
/// [`ReadError`].
pub fn read_texts(path: &Path, limit: usize) -> Result<Vec<Text>, ReadError> {
    if rows::is_rows(path) {
        let rows = read_rows(path, limit)?;
        return rows
            .iter()
            .map(|row| Ok(Text { line: row.place().line, text: row.text("text")?.to_owned() }))
            .collect();
    }
    let bytes = read_whole(path, MAX_LINE, || ReadError::TooLong { path: path.to_owned(), line: 1 })?;
    let text = utf8(path, 1, without_mark(&bytes))?.to_owned();
    if text.is_empty() || limit == 0 {
        return Err(ReadError::Empty { path: path.to_owned() });
    }
    Ok(vec![Text { line: 1, text }])
}

/// Calls `each` with the number and the text of every line that is not blank, until it answers `false`.
fn for_each_line(path: &Path, mut each: impl FnMut(usize, &str) -> Result<bool, ReadError>) -> Result<(), ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        if bytes.len() as u64 > MAX_LINE {
            return Err(ReadError::TooLong { path: path.to_owned(), line });
        }
        let text = if line == 1 { without_mark(&bytes) } else { &bytes };
        let row = utf8(path, line, text)?.trim();
        if !row.is_empty() && !each(line, row)? {
            break;
        }
    }
    Ok(())
}

/// The bytes of a file of at most `limit` bytes.
fn read_whole(path: &Path, limit: u64, too_long: impl FnOnce() -> ReadError) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(bytes) }
}

/// Without the byte order mark that spreadsheets write.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// `bytes`, which start on line `first`, as text.
fn utf8<'b>(path: &Path, first: usize, bytes: &'b [u8]) -> Result<&'b str, ReadError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = first + valid.iter().filter(|&&byte| byte == b'\n').count();
        let start = valid.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        ReadError::Encoding { path: path.to_owned(), line, column: valid.len() - start + 1 }
    })
}
