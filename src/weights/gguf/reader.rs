//! The container: header, metadata and tensor table of a GGUF file, every size checked before it is used.
//!
//! ```text
//! "GGUF"  u32 version  u64 tensors  u64 pairs
//! pairs:    text key, u32 type, value            text: u64 length, bytes
//! tensors:  text name, u32 rank, rank × u64 dimension (innermost first), u32 type, u64 offset
//! data, from the next multiple of general.alignment (else 32)
//! ```
//!
//! *What must stay true.* What is read lies in the file: tensors have whole blocks, do not overlap and end before
//! the file does. No allocation exceeds a small multiple of the file.

use std::{collections::BTreeMap, ops::Range};

use super::{GgufProblem, blocks::BlockType, metadata::Metadata};
use crate::weights::header::MAX_TENSORS;

/// Most metadata pairs; files have some dozens.
const MAX_PAIRS: usize = 1 << 16;
/// Longest tensor name; llama.cpp's own limit is 64.
const MAX_NAME: u64 = 255;
/// GGML's most dimensions.
const MAX_RANK: usize = 4;
const DEFAULT_ALIGNMENT: usize = 32;
/// A page: more than any writer asks for.
const MAX_ALIGNMENT: usize = 4096;

/// A GGUF file, read up to its data.
#[derive(Debug)]
pub struct Gguf<'a> {
    /// What the file says about the model.
    pub metadata: Metadata<'a>,
    /// By name.
    pub tensors: BTreeMap<&'a str, Stored<'a>>,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Its name.
    pub name: &'a str,
    /// How its values are stored.
    pub blocks: BlockType,
    /// Outermost dimension first, as everywhere else in zofo.
    pub shape: Vec<usize>,
    /// Its bytes: rows of whole blocks.
    pub data: &'a [u8],
}

impl<'a> Gguf<'a> {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`GgufProblem`] for what breaks the format or our stricter limits.
    pub fn read(file: &'a [u8]) -> Result<Gguf<'a>, GgufProblem> {
        let mut cursor = Cursor::new(file, 0);
        let magic = cursor.rest().get(..4).unwrap_or(cursor.rest());
        if magic != b"GGUF" {
            return Err(GgufProblem::Magic { found: magic.to_vec() });
        }
        cursor.take(4, "the header")?;
        match cursor.u32("the header")? {
            2 | 3 => {}
            version if (1..=3).contains(&version.swap_bytes()) => return Err(GgufProblem::BigEndian),
            found => return Err(GgufProblem::Version { found }),
        }
        // A tensor takes 24 bytes and its name at least, a pair 13.
        let tensors = cursor.count("tensors", MAX_TENSORS, 24)?;
        let pairs = cursor.count("metadata pairs", MAX_PAIRS, 13)?;
        let metadata = Metadata::read(&mut cursor, pairs)?;
        let alignment = alignment(&metadata)?;
        let declared: Vec<Declared<'_>> =
            (0..tensors).map(|_| Declared::read(&mut cursor)).collect::<Result<_, _>>()?;
        let padded = cursor.at().next_multiple_of(alignment).min(file.len());
        let tensors = place(&file[padded..], alignment, declared)?;
        Ok(Gguf { metadata, tensors })
    }
}

/// The alignment of the data.
fn alignment(metadata: &Metadata<'_>) -> Result<usize, GgufProblem> {
    const KEY: &str = "general.alignment";
    let Some(found) = metadata.size(KEY)? else { return Ok(DEFAULT_ALIGNMENT) };
    if found.is_power_of_two() && found <= MAX_ALIGNMENT {
        return Ok(found);
    }
    let expected = "a power of two up to 4096";
    Err(GgufProblem::Value { key: KEY.to_owned(), found: found.to_string(), expected })
}

/// A line of the tensor table.
struct Declared<'a> {
    name: &'a str,
    blocks: BlockType,
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

impl<'a> Declared<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Declared<'a>, GgufProblem> {
        const WHAT: &str = "the tensor table";
        let name = cursor.text("a tensor's name", MAX_NAME)?;
        let rank = cursor.u32(WHAT)? as usize;
        if rank > MAX_RANK {
            return Err(GgufProblem::Limit { what: "dimensions", found: rank as u64, limit: MAX_RANK as u64 });
        }
        let dims: Vec<u64> = (0..rank).map(|_| cursor.u64(WHAT)).collect::<Result<_, _>>()?;
        let number = cursor.u32(WHAT)?;
        let offset = cursor.u64(WHAT)?;
        let unknown = || GgufProblem::BlockType { name: name.to_owned(), found: number };
        let blocks = BlockType::new(number).ok_or_else(unknown)?;
        let wrong = |reason| GgufProblem::Dimensions { name: name.to_owned(), dims: dims.clone(), reason };
        if dims.contains(&0) || dims.is_empty() {
            return Err(wrong("has no elements"));
        }
        let sizes = || dims.iter().rev().map(|&dim| usize::try_from(dim).ok());
        let too_large = || wrong("has more elements than memory has addresses");
        let shape = sizes().collect::<Option<Vec<usize>>>().ok_or_else(too_large)?;
        let elements =
            shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim)).ok_or_else(too_large)?;
        if !shape[rank - 1].is_multiple_of(blocks.elements()) {
            return Err(wrong("has rows that are not whole blocks"));
        }
        let bytes = (elements / blocks.elements()).checked_mul(blocks.bytes()).ok_or_else(too_large)?;
        Ok(Declared { name, blocks, shape, offset, bytes })
    }
}

/// The declared tensors with their bytes of `data`.
fn place<'a>(
    data: &'a [u8],
    alignment: usize,
    declared: Vec<Declared<'a>>,
) -> Result<BTreeMap<&'a str, Stored<'a>>, GgufProblem> {
    let mut ranges: Vec<(Range<usize>, &str)> = Vec::with_capacity(declared.len());
    let mut tensors = BTreeMap::new();
    for Declared { name, blocks, shape, offset, bytes } in declared {
        let wrong = |reason| GgufProblem::Offset { name: name.to_owned(), offset, reason };
        if !offset.is_multiple_of(alignment as u64) {
            return Err(wrong("does not start at a multiple of the alignment"));
        }
        let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(bytes)?));
        let past = || wrong("reaches past the end of the file: the file is cut short, or damaged");
        let range = range.ok_or_else(past)?;
        let data = data.get(range.clone()).ok_or_else(past)?;
        ranges.push((range, name));
        if tensors.insert(name, Stored { name, blocks, shape, data }).is_some() {
            return Err(GgufProblem::Duplicate { what: "tensor", name: name.to_owned() });
        }
    }
    ranges.sort_by_key(|(range, _)| range.start);
    match ranges.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        Some(pair) => Err(GgufProblem::Overlap { first: pair[0].1.to_owned(), second: pair[1].1.to_owned() }),
        None => Ok(tensors),
    }
}

/// A place in the file that only moves forward, and never past the end.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`, which lie `at` bytes into the file.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Cursor { rest: bytes, at }
    }

    /// The bytes of the file before this place.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The bytes from this place on.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `bytes` bytes of `what`.
    pub(super) fn take(&mut self, bytes: u64, what: &'static str) -> Result<&'a [u8], GgufProblem> {
        let split = usize::try_from(bytes).ok().and_then(|bytes| self.rest.split_at_checked(bytes));
        let Some((taken, rest)) = split else { return Err(GgufProblem::Truncated { what, at: self.at }) };
        self.rest = rest;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufProblem> {
        let Some((&taken, rest)) = self.rest.split_first_chunk() else {
            return Err(GgufProblem::Truncated { what, at: self.at });
        };
        self.rest = rest;
        self.at += N;
        Ok(taken)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufProblem> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufProblem> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things of at least `size` bytes each that follow: no more than `limit`, or than can follow.
    pub(super) fn count(&mut self, what: &'static str, limit: usize, size: usize) -> Result<usize, GgufProblem> {
        let found = self.u64("a count")?;
        let limit = limit.min(self.rest.len() / size);
        let within = usize::try_from(found).ok().filter(|&count| count <= limit);
        within.ok_or(GgufProblem::Limit { what, found, limit: limit as u64 })
    }

    /// A text of at most `limit` bytes.
    pub(super) fn text(&mut self, what: &'static str, limit: u64) -> Result<&'a str, GgufProblem> {
        let found = self.u64(what)?;
        let at = self.at;
        if found > limit {
            return Err(GgufProblem::Limit { what: "bytes of a name", found, limit });
        }
        std::str::from_utf8(self.take(found, what)?).map_err(|_| GgufProblem::Utf8 { what, at })
    }
}
