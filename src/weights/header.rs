//! The header of a safetensors file, read more strictly than the format asks.
//!
//! The `safetensors` crate checks that offsets are in order, without holes or overlap, agree with shapes
//! and cover the file. On top of that no name may stand twice (readers differ in which they take), no
//! tensor may be empty, and sizes are limited before anything is parsed: a header of 100 MB, which the
//! format allows, costs seconds and hundreds of megabytes.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    ops::Range,
};

use safetensors::{Dtype, SafeTensors};
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::HeaderProblem;
use crate::tensor::DType;

/// Longest header that is read. The largest public models have some 100 KB a shard.
const MAX_HEADER: usize = 8 << 20;
/// Most tensors of a file or an index.
pub(super) const MAX_TENSORS: usize = 1 << 16;

/// How a tensor's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// A type that zofo does not compute with, such as the I64 positions of old BERT checkpoints.
    Other(Dtype),
}

impl StoredType {
    /// Bits of a value.
    pub fn bits(self) -> usize {
        match self {
            StoredType::F32 => 32,
            StoredType::Bf16 | StoredType::F16 => 16,
            StoredType::Other(other) => other.bitsize(),
        }
    }

    /// The type, if it is one that is computed with.
    pub fn computed(self) -> Option<DType> {
        match self {
            StoredType::F32 => Some(DType::F32),
            StoredType::Bf16 => Some(DType::BF16),
            StoredType::F16 => Some(DType::F16),
            StoredType::Other(_) => None,
        }
    }
}

impl From<DType> for StoredType {
    fn from(dtype: DType) -> StoredType {
        match dtype {
            DType::F32 => StoredType::F32,
            DType::BF16 => StoredType::Bf16,
            DType::F16 => StoredType::F16,
        }
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredType::F32 => f.write_str("F32"),
            StoredType::Bf16 => f.write_str("BF16"),
            StoredType::F16 => f.write_str("F16"),
            StoredType::Other(other) => other.fmt(f),
        }
    }
}

/// One tensor of a file: its type, its shape and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How values are stored.
    pub dtype: StoredType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Bytes of the file.
    pub bytes: Range<usize>,
}

/// Reads the tensor table of a whole file. The bytes of every tensor lie within the file.
///
/// # Errors
/// [`HeaderProblem`].
pub fn read(file: &[u8]) -> Result<Vec<(String, Entry)>, HeaderProblem> {
    read_with_metadata(file).map(|(entries, _)| entries)
}

/// What [`read_with_metadata`] answers: the tensors, and what `__metadata__` says.
pub(super) type Described = (Vec<(String, Entry)>, BTreeMap<String, String>);

/// As [`read`], together with the file's metadata.
pub(super) fn read_with_metadata(file: &[u8]) -> Result<Described, HeaderProblem> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(HeaderProblem::TooShort { bytes: file.len() });
    };
    let declared = u64::from_le_bytes(*length);
    let header = usize::try_from(declared).ok().filter(|&length| length <= MAX_HEADER).and_then(|n| rest.get(..n));
    let Some(header) = header else {
        return Err(HeaderProblem::Length { declared, bytes: file.len(), limit: MAX_HEADER });
    };
    distinct_keys(header)?;
    let (_, table) = SafeTensors::read_metadata(file)?;
    let data = 8 + header.len();
    let metadata = table.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let entries = table
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            if info.shape.contains(&0) {
                return Err(HeaderProblem::Empty { name, shape: info.shape.clone() });
            }
            let dtype = match info.dtype {
                Dtype::F32 => StoredType::F32,
                Dtype::BF16 => StoredType::Bf16,
                Dtype::F16 => StoredType::F16,
                other => StoredType::Other(other),
            };
            // Within the file: `read_metadata` compared the last offset with the file's size.
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            Ok((name, Entry { dtype, shape: info.shape.clone(), bytes }))
        })
        .collect::<Result<_, _>>()?;
    Ok((entries, metadata))
}

/// Walks the header once without keeping it: names must be distinct and few.
fn distinct_keys(header: &[u8]) -> Result<(), HeaderProblem> {
    let mut outcome = Ok(());
    let mut json = serde_json::Deserializer::from_slice(header);
    let walked = DistinctKeys { outcome: &mut outcome }.deserialize(&mut json);
    outcome?;
    walked?;
    Ok(())
}

struct DistinctKeys<'a> {
    outcome: &'a mut Result<(), HeaderProblem>,
}

impl<'de> DeserializeSeed<'de> for DistinctKeys<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DistinctKeys<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.len() == MAX_TENSORS {
                *self.outcome = Err(HeaderProblem::TooMany { limit: MAX_TENSORS });
                return Err(de::Error::custom("too many tensors"));
            }
            if names.contains(&name) {
                *self.outcome = Err(HeaderProblem::Duplicate { name });
                return Err(de::Error::custom("a name stands twice"));
            }
            names.insert(name);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
