//! The base with its tuned tensors as a directory that Hugging Face's libraries load.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde_json::{Map, Value};

use super::{bytes, digest, plan};
use crate::{
    direction::ParamId,
    weights::{Checkpoint, Export, Precision, Store, Tensor, TensorPlan, WeightsError},
};

/// Bytes of the largest configuration that is read, as for a model that is opened.
const MAX_CONFIG: u64 = 1 << 22;

/// Writes the model in `source`, which `store` was opened from, with the tuned tensors as they are now, to the directory
/// `target`, which is new or empty. All other tensors are as in the base, bit for bit; so are the files of tokenizer and
/// generation. Answers the [`digest`].
///
/// Where tensors are written as F32 the configuration says so: `transformers` from version 5 on loads a model in
/// the type that its configuration names, and would round what was tuned to the base's bf16.
///
/// # Errors
/// [`WeightsError`] naming the file: a target that may not be written, a full disk, a base that changed underneath.
///
/// # Panics
/// If `store` has no checkpoint, or none of the tuned parameters.
pub fn export(store: &Store, tuned: &[ParamId], source: &Path, target: &Path) -> Result<[u8; 32], WeightsError> {
    let checkpoint = store.checkpoint().expect("what is exported was opened from a directory");
    let mut export = Export::create(target, source)?;
    let (plans, origins): (Vec<_>, Vec<_>) =
        checkpoint.tensors().map(|tensor| planned(store, tuned, checkpoint, tensor)).unzip();
    for &id in tuned {
        assert!(origins.contains(&Some(id)), "no tensor {:?} in the checkpoint", store.params()[id].name());
    }
    export.safetensors(&plans, |index, sink| match origins[index] {
        Some(id) => bytes(store, id, |block| sink.put(block)),
        None => sink.put(checkpoint.tensor(&plans[index].name)?.bytes()),
    })?;
    match store.precision() {
        Precision::Native => drop(export.copy_file(source, "config.json")?),
        Precision::F32 | Precision::Split => {
            export.write_json("config.json", &in_f32(&source.join("config.json"))?)?;
        }
    }
    export.copy_companions(source)?;
    let digest = digest(store, tuned);
    // What was copied was the base that was opened.
    checkpoint.check_unchanged()?;
    export.finish()?;
    Ok(digest)
}

/// How a tensor of the base is written, and the tuned parameter whose values it gets.
fn planned(store: &Store, tuned: &[ParamId], base: &Checkpoint, tensor: Tensor<'_>) -> (TensorPlan, Option<ParamId>) {
    let origin = match store.params().find(tensor.name()) {
        Some(id) => Some(id).filter(|id| tuned.contains(id)),
        None => tuned.iter().copied().find(|&id| is_second_name(store, id, base, tensor)),
    };
    let name = tensor.name().to_owned();
    let plan = match origin {
        Some(id) => TensorPlan { name, ..plan(store, id) },
        None => TensorPlan { name, dtype: tensor.dtype(), shape: tensor.shape().to_vec() },
    };
    (plan, origin)
}

/// Whether a tensor that is no parameter is the tuned parameter under a second name, as old checkpoints store a tied
/// head: whoever loads both must find them equal. A constant tensor shows nothing: biases begin as zeros.
fn is_second_name(store: &Store, id: ParamId, base: &Checkpoint, tensor: Tensor<'_>) -> bool {
    let Some(first) = base.find(store.params()[id].name()) else { return false };
    let step = tensor.dtype().bits().div_ceil(8);
    (first.shape(), first.dtype()) == (tensor.shape(), tensor.dtype())
        && first.bytes() == tensor.bytes()
        && tensor.bytes()[step..] != tensor.bytes()[..tensor.bytes().len() - step]
}

/// The configuration at `path`, saying that weights are to be loaded as f32: under the name it has there, old or new,
/// else under the old one, which every version reads.
fn in_f32(path: &Path) -> Result<Map<String, Value>, WeightsError> {
    let failed = |source| WeightsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let parsed = serde_json::from_slice(&bytes);
    let mut config: Map<String, Value> =
        parsed.map_err(|source| WeightsError::Config { path: path.to_owned(), source })?;
    let names = ["torch_dtype", "dtype"];
    let said = names.map(|name| config.contains_key(name));
    for (name, said) in names.into_iter().zip([said[0] || !said[1], said[1]]) {
        if said {
            config.insert(name.to_owned(), "float32".into());
        }
    }
    Ok(config)
}
