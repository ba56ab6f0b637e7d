//! Texts from a file: JSON lines with a `text` field, or plain text.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// Bytes of the longest line that is read: a book is 1 MB.
const MAX_LINE: u64 = 1 << 28;

/// One text of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The line it starts on, from 1.
    pub line: usize,
    /// The text.
    pub text: String,
}

/// Why a data file cannot be read: always with the line.
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
    /// An object without the field that is needed.
    #[error("{}:{line}: {found}; expected the field {field:?} with a text", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What is there instead.
        found: String,
    },
    /// Nothing to evaluate.
    #[error("{} has no text", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The first `limit` texts of a file: the `text` fields of a `.jsonl` file (empty lines are skipped), else the whole
/// file as one text.
///
/// # Errors
/// [`ReadError`].
pub fn read_texts(path: &Path, limit: usize) -> Result<Vec<Text>, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut texts = Vec::new();
    if path.extension().is_some_and(|extension| extension == "jsonl") {
        let mut line = 0;
        while texts.len() < limit {
            line += 1;
            let mut bytes = Vec::new();
            if reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
                break;
            }
            if bytes.len() as u64 > MAX_LINE {
                return Err(ReadError::TooLong { path: path.to_owned(), line });
            }
            let row = utf8(path, line, &bytes)?.trim();
            if !row.is_empty() {
                texts.push(Text { line, text: text_field(path, line, row)? });
            }
        }
    } else if limit > 0 {
        let mut bytes = Vec::new();
        reader.take(MAX_LINE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_LINE {
            return Err(ReadError::TooLong { path: path.to_owned(), line: 1 });
        }
        let text = utf8(path, 1, &bytes)?.to_owned();
        texts.extend((!text.is_empty()).then_some(Text { line: 1, text }));
    }
    if texts.is_empty() { Err(ReadError::Empty { path: path.to_owned() }) } else { Ok(texts) }
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

fn text_field(path: &Path, line: usize, row: &str) -> Result<String, ReadError> {
    const FIELD: &str = "text";
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(row).map_err(|error| {
        let problem = error.to_string();
        let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
        ReadError::Json { path: path.to_owned(), line, column: error.column(), problem }
    })?;
    let found = match object.get(FIELD) {
        Some(serde_json::Value::String(text)) => return Ok(text.clone()),
        Some(_) => format!("{FIELD:?} is no text"),
        None => format!("the fields are {:?}", object.keys().take(8).collect::<Vec<_>>()),
    };
    Err(ReadError::Field { path: path.to_owned(), line, field: FIELD, found })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Vec<Text>, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file");
        let within = |error: ReadError| error.to_string().replace(&format!("{}/", dir.path().display()), "");
        read_texts(&path, 2).map_err(within)
    }

    #[test]
    fn lines_are_texts_up_to_the_limit_and_plain_files_are_one() {
        let jsonl = b"{\"text\": \"a\\nb\", \"label\": 1}\n\n{\"text\": \"c\"}\r\n{broken";
        let texts = read("data.jsonl", jsonl).expect("two texts");
        assert_eq!(texts, [Text { line: 1, text: "a\nb".to_owned() }, Text { line: 3, text: "c".to_owned() }]);
        assert_eq!(read("data.txt", b"a\nb").expect("a text"), [Text { line: 1, text: "a\nb".to_owned() }]);
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let error = |name, bytes| read(name, bytes).expect_err("an error");
        assert_eq!(
            error("d.jsonl", b"{\"text\": \"a\"}\n{\"text\" 1}"),
            "d.jsonl:2:9: not a JSON object: expected `:`"
        );
        assert_eq!(
            error("d.jsonl", b"\n{\"sentence\": \"a\"}"),
            "d.jsonl:2: the fields are [\"sentence\"]; expected the field \"text\" with a text"
        );
        assert_eq!(
            error("d.jsonl", b"{\"text\": 3}"),
            "d.jsonl:1: \"text\" is no text; expected the field \"text\" with a text"
        );
        assert_eq!(error("d.txt", b"ab\nc\xff"), "d.txt:2: byte 2 of the line is not UTF-8");
        assert_eq!(error("d.jsonl", b"\n \n"), "d.jsonl has no text");
        assert!(matches!(read_texts(Path::new("/none"), 1), Err(ReadError::Read { .. })));
    }
}
