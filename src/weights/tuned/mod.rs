//! What training made of a model: its digest, snapshots to resume from, and directories that other programs load.
//!
//! *What it is.* [`digest`] names a state of the tuned tensors; [`write()`] and [`read`] keep one, with whatever an
//! optimizer carries, in a file; [`export()`] makes a Hugging Face directory of the base and the tuned tensors,
//! [`export_merged`] one of the base and adapters folded in, [`export_adapter`] one of adapters alone, [`export_bottlenecks`]
//! one of bottlenecks.
//!
//! *What it is not.* It does not know which tensors are tuned, nor why: callers name them. An export is read by other
//! programs, a snapshot only by the run that wrote it.
//!
//! *What must stay true.* Tuned tensors are written in the type in which training keeps them
//! ([`Store::tuned_type`]), so that nothing is rounded; the digest depends on names, types, shapes and values, not on
//! whether a tensor has been written to yet. A snapshot is read whole and as it was written, or not at all.

mod adapter;
mod bottlenecks;
mod directory;
mod merge;
mod snapshot;
#[cfg(test)]
mod tests;

pub use adapter::export_adapter;
pub use bottlenecks::export_bottlenecks;
pub use directory::{export, export_merged};
pub use snapshot::{Snapshot, StateTensor, StateValues, facts, read, write};

use std::convert::Infallible;

use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};
use sha2::{Digest, Sha256};

use super::{Store, StoredType, TensorPlan};
use crate::{
    direction::ParamId,
    tensor::{DType, WeightRef},
};

/// Values that are widened at a time.
const BLOCK: usize = 1 << 14;

/// The `weights_sha256` of the tuned tensors: SHA-256 over them in bytewise order of names, each as
/// the length of its name, its name, the length of its type, its type as a safetensors header spells it, the number of
/// dimensions, the dimensions (all lengths, numbers and dimensions as 64 bits, little-endian) and its values, row by
/// row, little-endian.
pub fn digest(store: &Store, tuned: &[ParamId]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for id in by_name(store, tuned) {
        let plan = plan(store, id);
        announce(&mut hash, &plan.name, plan.dtype, &plan.shape);
        let Ok(()) = bytes(store, id, |block| {
            hash.update(block);
            Ok::<(), Infallible>(())
        });
    }
    hash.finalize().into()
}

/// The parameters in bytewise order of names.
fn by_name(store: &Store, tuned: &[ParamId]) -> Vec<ParamId> {
    let mut ids = tuned.to_vec();
    ids.sort_by_key(|&id| store.params()[id].name());
    ids
}

/// How a tuned tensor is written.
fn plan(store: &Store, id: ParamId) -> TensorPlan {
    let param = &store.params()[id];
    TensorPlan { name: param.name().to_owned(), dtype: store.tuned_type(id).into(), shape: param.shape().to_vec() }
}

/// Takes up what precedes a tensor's values in a digest.
fn announce(hash: &mut Sha256, name: &str, dtype: StoredType, shape: &[usize]) {
    text(hash, name);
    text(hash, &dtype.to_string());
    hash.update((shape.len() as u64).to_le_bytes());
    shape.iter().for_each(|&dimension| hash.update((dimension as u64).to_le_bytes()));
}

/// Takes up a text after its length.
fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

/// The digits of a digest.
pub fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hands on the bytes that a tuned tensor has in a file, row by row, little-endian, in blocks.
fn bytes<E>(store: &Store, id: ParamId, mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    match (store.weight(id), store.tuned_type(id)) {
        (WeightRef::F32(values, ..), DType::F32) => put(bytemuck::cast_slice(values)),
        (WeightRef::Bf16(values, ..), DType::BF16) => put(bytemuck::cast_slice(values)),
        (WeightRef::F16(values, ..), DType::F16) => put(bytemuck::cast_slice(values)),
        (WeightRef::Bf16(values, ..), _) => widened(values, put),
        (WeightRef::F16(values, ..), _) => widened(values, put),
        // A vector: every value has the narrow type.
        (WeightRef::F32(values, ..), DType::BF16) => put(bytemuck::cast_slice(&Vec::<bf16>::from_f32_slice(values))),
        (WeightRef::F32(values, ..), DType::F16) => put(bytemuck::cast_slice(&Vec::<f16>::from_f32_slice(values))),
    }
}

/// Hands on halves as f32.
fn widened<T, E>(values: &[T], mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E>
where
    [T]: HalfFloatSliceExt,
{
    let mut buffer = vec![0.0_f32; BLOCK];
    values.chunks(BLOCK).try_for_each(|block| {
        let wide = &mut buffer[..block.len()];
        block.convert_to_f32_slice(wide);
        put(bytemuck::cast_slice(wide))
    })
}
