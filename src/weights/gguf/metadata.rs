//! The metadata of a GGUF file: typed values by key.
//!
//! *What must stay true.* Arrays stay where they lie in the file and are read again by whoever needs them, so
//! a declared count never allocates. An array of arrays is refused, so reading never recurses.

use std::collections::BTreeMap;

use super::{GgufProblem, reader::Cursor};

/// Longest key that is read (the format's own limit).
const MAX_KEY: u64 = 65_535;

/// A value of the metadata.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Any of GGUF's unsigned integers.
    Unsigned(u64),
    /// Any of GGUF's signed integers.
    Signed(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// True or false.
    Flag(bool),
    /// UTF-8.
    Text(&'a str),
    /// Plain values of one type.
    Array(Array<'a>),
}

/// An array as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    element: Element,
    count: usize,
    bytes: &'a [u8],
    /// Where `bytes` starts in the file.
    at: usize,
}

/// The type of a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Flag,
    Text,
    U64,
    I64,
    F64,
}

/// GGUF's number of the array type; the plain types have the others up to 12.
const ARRAY: u32 = 9;

impl Element {
    fn new(number: u32) -> Option<Element> {
        Some(match number {
            0 => Element::U8,
            1 => Element::I8,
            2 => Element::U16,
            3 => Element::I16,
            4 => Element::U32,
            5 => Element::I32,
            6 => Element::F32,
            7 => Element::Flag,
            8 => Element::Text,
            10 => Element::U64,
            11 => Element::I64,
            12 => Element::F64,
            _ => return None,
        })
    }

    /// The bytes of a value; of a text, at least.
    fn size(self) -> usize {
        match self {
            Element::U8 | Element::I8 | Element::Flag => 1,
            Element::U16 | Element::I16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 | Element::I64 | Element::F64 | Element::Text => 8,
        }
    }

    fn read<'a>(self, cursor: &mut Cursor<'a>) -> Result<Value<'a>, GgufProblem> {
        const WHAT: &str = "a metadata value";
        Ok(match self {
            Element::U8 => Value::Unsigned(u8::from_le_bytes(cursor.array(WHAT)?).into()),
            Element::I8 => Value::Signed(i8::from_le_bytes(cursor.array(WHAT)?).into()),
            Element::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array(WHAT)?).into()),
            Element::I16 => Value::Signed(i16::from_le_bytes(cursor.array(WHAT)?).into()),
            Element::U32 => Value::Unsigned(cursor.u32(WHAT)?.into()),
            Element::I32 => Value::Signed(i32::from_le_bytes(cursor.array(WHAT)?).into()),
            Element::F32 => Value::F32(f32::from_le_bytes(cursor.array(WHAT)?)),
            // The format asks for 0 or 1; like every other reader, ours takes anything but 0 for true.
            Element::Flag => Value::Flag(cursor.array::<1>(WHAT)? != [0]),
            Element::Text => Value::Text(cursor.text("a metadata text", u64::MAX)?),
            Element::U64 => Value::Unsigned(cursor.u64(WHAT)?),
            Element::I64 => Value::Signed(i64::from_le_bytes(cursor.array(WHAT)?)),
            Element::F64 => Value::F64(f64::from_le_bytes(cursor.array(WHAT)?)),
        })
    }

    /// Passes over a value.
    fn skip(self, cursor: &mut Cursor<'_>) -> Result<(), GgufProblem> {
        let bytes = if self == Element::Text { cursor.u64("the length of a text")? } else { self.size() as u64 };
        cursor.take(bytes, "an array").map(|_| ())
    }
}

impl<'a> Value<'a> {
    fn read(key: &str, cursor: &mut Cursor<'a>) -> Result<Value<'a>, GgufProblem> {
        let number = cursor.u32("the type of a metadata value")?;
        if number != ARRAY {
            let unknown = || GgufProblem::ValueType { key: key.to_owned(), found: number };
            return Element::new(number).ok_or_else(unknown)?.read(cursor);
        }
        let number = cursor.u32("the element type of an array")?;
        if number == ARRAY {
            return Err(GgufProblem::NestedArray { key: key.to_owned() });
        }
        let unknown = || GgufProblem::ValueType { key: key.to_owned(), found: number };
        let element = Element::new(number).ok_or_else(unknown)?;
        let count = cursor.count("array elements", usize::MAX, element.size())?;
        let at = cursor.at();
        let rest = cursor.rest();
        if element == Element::Text {
            for _ in 0..count {
                element.skip(cursor)?;
            }
        } else {
            // No overflow: `count` found that this many elements fit the rest of the file.
            cursor.take((count * element.size()) as u64, "an array")?;
        }
        Ok(Value::Array(Array { element, count, bytes: &rest[..cursor.at() - at], at }))
    }

    /// The value for an error message.
    fn describe(&self) -> String {
        match self {
            Value::Unsigned(x) => x.to_string(),
            Value::Signed(x) => x.to_string(),
            Value::F32(x) => x.to_string(),
            Value::F64(x) => x.to_string(),
            Value::Flag(x) => x.to_string(),
            Value::Text(x) => format!("the text {:?}", x.chars().take(80).collect::<String>()),
            Value::Array(x) => format!("an array of {} values", x.count),
        }
    }
}

impl<'a> Array<'a> {
    /// How many values it has; the file holds at least as many bytes.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn values(self) -> impl Iterator<Item = Result<Value<'a>, GgufProblem>> {
        let mut cursor = Cursor::new(self.bytes, self.at);
        (0..self.count).map(move |_| self.element.read(&mut cursor))
    }
}

/// All metadata of a file, by key.
#[derive(Debug, Default)]
pub struct Metadata<'a> {
    values: BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    /// Reads `count` pairs of key and value.
    pub(super) fn read(cursor: &mut Cursor<'a>, count: usize) -> Result<Metadata<'a>, GgufProblem> {
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let key = cursor.text("a metadata key", MAX_KEY)?;
            if values.insert(key, Value::read(key, cursor)?).is_some() {
                return Err(GgufProblem::Duplicate { what: "metadata key", name: key.to_owned() });
            }
        }
        Ok(Metadata { values })
    }

    /// All keys, in bytewise order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.values.keys().copied()
    }

    /// The value of `key`, as `convert` understands it.
    fn get<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufProblem> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong = || GgufProblem::Value { key: key.to_owned(), found: value.describe(), expected };
        convert(*value).ok_or_else(wrong).map(Some)
    }

    /// The text of `key`.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, GgufProblem> {
        self.get(key, "a text", |value| if let Value::Text(text) = value { Some(text) } else { None })
    }

    /// The truth of `key`.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufProblem> {
        self.get(key, "true or false", |value| if let Value::Flag(flag) = value { Some(flag) } else { None })
    }

    /// The count or index of `key`.
    pub fn size(&self, key: &str) -> Result<Option<usize>, GgufProblem> {
        self.get(key, "a number from 0 up", size)
    }

    /// The finite number of `key`: of an f32 its shortest decimal, which is what its author wrote.
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufProblem> {
        self.get(key, "a finite number", |value| match value {
            Value::F32(x) if x.is_finite() => x.to_string().parse().ok(),
            Value::F64(x) if x.is_finite() => Some(x),
            Value::Unsigned(x) => Some(x as f64),
            Value::Signed(x) => Some(x as f64),
            _ => None,
        })
    }

    /// The texts of the array `key`.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, GgufProblem> {
        self.array(key, "an array of texts", |value| if let Value::Text(text) = value { Some(text) } else { None })
    }

    /// The finite numbers of the array `key`.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, GgufProblem> {
        self.array(key, "an array of finite f32", |value| match value {
            Value::F32(x) if x.is_finite() => Some(x),
            _ => None,
        })
    }

    /// The counts or indices of the array `key`.
    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>, GgufProblem> {
        self.array(key, "an array of numbers from 0 up", size)
    }

    fn array<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, GgufProblem> {
        let array =
            self.get(key, expected, |value| if let Value::Array(array) = value { Some(array) } else { None })?;
        let Some(array) = array else { return Ok(None) };
        // No more elements than the file has bytes: nothing is allocated by a declared count alone.
        let mut values = Vec::with_capacity(array.len());
        for value in array.values() {
            let value = value?;
            let wrong = || {
                let found = format!("an array with the element {}", value.describe());
                GgufProblem::Value { key: key.to_owned(), found, expected }
            };
            values.push(convert(value).ok_or_else(wrong)?);
        }
        Ok(Some(values))
    }
}

fn size(value: Value<'_>) -> Option<usize> {
    match value {
        Value::Unsigned(x) => usize::try_from(x).ok(),
        Value::Signed(x) => usize::try_from(x).ok(),
        _ => None,
    }
}

/// `value`, or the error that `key` is missing.
pub(super) fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufProblem> {
    value.ok_or_else(|| GgufProblem::MissingKey { key: key.to_owned() })
}
