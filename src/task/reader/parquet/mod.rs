//! Rows of a `.parquet` file, as those of JSON lines: structures are objects, lists are lists.
//!
//! *What must stay true.* Files are untrusted: a panic of the library is an error, and what a few bytes can stand for is
//! bounded before it is read: the bytes that describe the file, how deep its columns are nested, how many values it says
//! it has, and the contents of all rows. One thing the library takes on trust is a page's own count of its values, below
//! 2³¹ by the format. Its recursion over nested columns runs on a thread whose stack holds what the description may have.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    thread,
};

use parquet::{
    basic::Compression,
    errors::ParquetError,
    file::{
        metadata::RowGroupMetaData,
        reader::{FileReader, SerializedFileReader},
    },
    record::Field,
    schema::types::Type,
};
use serde_json::{Map, Value};

use super::{MAX_FILE, Place, ReadError, Row};

/// Bytes that describe a file: a thousand blocks of rows with five columns have 1 MB.
const MAX_FOOTER: u32 = 4 << 20;
/// How deep columns are nested, as JSON is at most where it is read.
const MAX_NESTING: usize = 128;
/// Values of all columns.
const MAX_VALUES: u64 = 1 << 28;
/// What a value counts besides its text, of the [`MAX_FILE`] bytes that rows may hold.
const VALUE_BYTES: u64 = 32;
/// Stack of the reading thread, of which the system provides what is touched: a column nested as deep as `MAX_FOOTER`
/// allows has 600,000 levels, of which each took less than 1 KB.
const STACK_BYTES: usize = 1 << 30;

/// What ends a Parquet file, behind the length of its description.
const MAGIC: &[u8; 4] = b"PAR1";

/// The first `limit` rows.
pub(super) fn rows(path: &Path, limit: usize) -> Result<Vec<Row>, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    thread::scope(|scope| {
        let reading = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || read(path, limit));
        reading.map_err(failed)?.join().unwrap_or_else(|_| Err(damaged(path, "its blocks contradict each other")))
    })
}

fn damaged(path: &Path, problem: impl Into<String>) -> ReadError {
    ReadError::Parquet { path: path.to_owned(), problem: problem.into() }
}

fn read(path: &Path, limit: usize) -> Result<Vec<Row>, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    check_footer(path, &mut file)?;
    let wrong = |error: ParquetError| damaged(path, error.to_string());
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    check_columns(path, &reader)?;

    let shared: Arc<Path> = path.into();
    let (mut rows, mut budget) = (Vec::new(), MAX_FILE);
    for (line, row) in (1..).zip(reader.get_row_iter(None).map_err(wrong)?).take(limit) {
        let mut fields = Map::new();
        for (name, field) in row.map_err(wrong)?.into_columns() {
            let value = value(&field, &mut budget).map_err(|problem| match problem {
                Problem::NotText => ReadError::Column {
                    path: path.to_owned(),
                    row: line,
                    column: name.clone(),
                    found: "bytes that are no text",
                },
                Problem::Keys => ReadError::Column {
                    path: path.to_owned(),
                    row: line,
                    column: name.clone(),
                    found: "a map without names",
                },
                Problem::TooMuch => ReadError::TooMuch { path: path.to_owned(), row: line },
            })?;
            fields.insert(name, value);
        }
        rows.push(Row::new(Place { path: shared.clone(), line }, fields));
    }
    Ok(rows)
}

/// Checks that the file ends as it must and describes itself in no more than [`MAX_FOOTER`] bytes.
fn check_footer(path: &Path, file: &mut File) -> Result<(), ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let size = file.metadata().map_err(failed)?.len();
    let mut end = [0; 8];
    if size < end.len() as u64 {
        return Err(damaged(path, format!("{size} bytes are too few for one")));
    }
    file.seek(SeekFrom::End(-(end.len() as i64))).map_err(failed)?;
    file.read_exact(&mut end).map_err(failed)?;
    let [a, b, c, d, magic @ ..] = end;
    let length = u32::from_le_bytes([a, b, c, d]);
    if magic != *MAGIC {
        return Err(damaged(path, format!("it ends with \"{}\", expected \"PAR1\"", magic.escape_ascii())));
    }
    if length > MAX_FOOTER {
        return Err(damaged(
            path,
            format!("{length} bytes describe it, expected at most {MAX_FOOTER}; write larger row groups"),
        ));
    }
    Ok(())
}

/// Checks what the description says: names, nesting, sizes and compressions.
fn check_columns(path: &Path, reader: &SerializedFileReader<File>) -> Result<(), ReadError> {
    let metadata = reader.metadata();
    let columns = metadata.file_metadata().schema().get_fields();
    for (column, field) in (1..).zip(columns) {
        if columns[..column - 1].iter().any(|other| other.name() == field.name()) {
            return Err(damaged(path, format!("two columns are named {:?}", field.name())));
        }
        let mut open: Vec<(&Type, usize)> = vec![(field, 1)];
        while let Some((field, depth)) = open.pop() {
            if depth > MAX_NESTING {
                return Err(damaged(path, format!("column {column} is nested deeper than {MAX_NESTING}")));
            }
            if field.is_group() {
                open.extend(field.get_fields().iter().map(|inner| (&**inner, depth + 1)));
            }
        }
    }
    let chunks = || metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let values = chunks().try_fold(0_u64, |sum, chunk| sum.checked_add(u64::try_from(chunk.num_values()).ok()?));
    if values.is_none_or(|values| values > MAX_VALUES) {
        return Err(damaged(path, format!("it has more than {MAX_VALUES} values; split it")));
    }
    for chunk in chunks() {
        let found = match chunk.compression() {
            Compression::ZSTD(_) => "zstd",
            Compression::LZO => "lzo",
            _ => continue,
        };
        let column = chunk.column_path().string();
        return Err(ReadError::Compression { path: path.to_owned(), column, found });
    }
    Ok(())
}

/// Why a field has no value here.
enum Problem {
    NotText,
    Keys,
    TooMuch,
}

/// A field as JSON; `budget` is what rows may still hold. Columns are nested as deep as [`check_columns`] lets them.
fn value(field: &Field, budget: &mut u64) -> Result<Value, Problem> {
    let mut text = |text: &str| {
        *budget = budget.checked_sub(text.len() as u64).ok_or(Problem::TooMuch)?;
        Ok(Value::from(text))
    };
    let value = match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float16(value) => Value::from(f32::from(*value)),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(value) => text(value)?,
        // Old writers do not say that their texts are some.
        Field::Bytes(bytes) => text(std::str::from_utf8(bytes.data()).map_err(|_| Problem::NotText)?)?,
        Field::Group(row) => {
            let mut object = Map::new();
            for (name, field) in row.get_column_iter() {
                object.insert(name.clone(), value(field, budget)?);
            }
            Value::Object(object)
        }
        Field::ListInternal(list) => {
            let mut array = Vec::with_capacity(list.elements().len());
            for field in list.elements() {
                array.push(value(field, budget)?);
            }
            Value::Array(array)
        }
        Field::MapInternal(map) => {
            let mut object = Map::new();
            for (key, field) in map.entries() {
                let Value::String(key) = value(key, budget)? else { return Err(Problem::Keys) };
                object.insert(key, value(field, budget)?);
            }
            Value::Object(object)
        }
        other => text(&other.to_string())?,
    };
    *budget = budget.checked_sub(VALUE_BYTES).ok_or(Problem::TooMuch)?;
    Ok(value)
}
