//! `model.safetensors.index.json`: which shard holds which tensor.
//!
//! *What must stay true.* What is accepted names files beside the index and nothing else: other engines
//! have been led to `../` and `/etc` by this file (transformers 47176, `huggingface_hub` 4935).

use std::{
    fmt,
    path::{Component, Path},
};

use serde::{Deserialize, de};

use super::{IndexProblem, header::MAX_TENSORS};

/// Longest index that is read: 64 K tensors of some 100 bytes each.
pub(super) const MAX_BYTES: u64 = 8 << 20;

/// Reads `weight_map`: (tensor, shard) in bytewise order of tensors. Every shard is the bare name of a
/// safetensors file, no tensor stands twice.
///
/// # Errors
/// [`IndexProblem`].
pub fn read(text: &[u8]) -> Result<Vec<(String, String)>, IndexProblem> {
    let Index { weight_map: WeightMap(mut pairs) } = serde_json::from_slice(text)?;
    if pairs.len() > MAX_TENSORS {
        return Err(IndexProblem::TooMany { limit: MAX_TENSORS });
    }
    if let Some((name, shard)) = pairs.iter().find(|(_, shard)| !is_shard_name(shard)) {
        return Err(IndexProblem::ShardName { name: name.clone(), shard: shard.clone() });
    }
    pairs.sort();
    if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(IndexProblem::Duplicate { name: pair[0].0.clone() });
    }
    Ok(pairs)
}

/// The bare name of a safetensors file: nothing that could lead elsewhere, on any system.
fn is_shard_name(shard: &str) -> bool {
    let mut components = Path::new(shard).components();
    let one = matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == shard);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    one && shard.len() <= 255 && shard.ends_with(".safetensors") && shard.bytes().all(plain)
}

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Pairs as they stand: a map would hide names that stand twice.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> de::Visitor<'de> for Pairs {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from tensor names to file names")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(WeightMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
