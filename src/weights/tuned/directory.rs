//! The base with its tuned tensors, or with adapters folded in, as a directory that Hugging Face's libraries load.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde_json::{Map, Value};

use super::{bytes, digest, merge::merged_rows, plan};
use crate::{
    direction::ParamId,
    weights::{Adapter, Checkpoint, Export, Lora, Precision, Store, StoredType, Tensor, TensorPlan, WeightsError},
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
    let origin = |base: &Checkpoint, tensor: Tensor<'_>| {
        let id = match store.params().find(tensor.name()) {
            Some(id) => Some(id).filter(|id| tuned.contains(id)),
            None => tuned.iter().copied().find(|&id| is_second_name(store, id, base, tensor)),
        };
        id.map_or(Origin::Base, Origin::Tuned)
    };
    let wanted: Vec<_> = tuned.iter().map(|&id| (id, Origin::Tuned(id))).collect();
    write(store, (source, target), &wanted, origin, store.precision() != Precision::Native)?;
    Ok(digest(store, tuned))
}

/// Writes the model in `source`, which `store` was opened from, with the adapters of `lora` folded into their matrices, to
/// the directory `target`, which is new or empty. Those matrices are F32; all else is as in [`export()`]. Answers the
/// [`digest`] of the adapters.
///
/// # Errors
/// As [`export()`].
///
/// # Panics
/// If `store` has no checkpoint.
pub fn export_merged(store: &Store, lora: &Lora, source: &Path, target: &Path) -> Result<[u8; 32], WeightsError> {
    let wanted: Vec<_> = lora.adapters.iter().map(|it| (it.weight, Origin::Merged(*it, lora.scale()))).collect();
    let origin = |_: &Checkpoint, tensor: Tensor<'_>| {
        let id = store.params().find(tensor.name());
        wanted.iter().find(|(weight, _)| Some(*weight) == id).map_or(Origin::Base, |(_, origin)| *origin)
    };
    write(store, (source, target), &wanted, origin, true)?;
    Ok(digest(store, &lora.params().collect::<Vec<_>>()))
}

/// Where the values of an exported tensor come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    /// The base, as they are there.
    Base,
    /// A tuned parameter.
    Tuned(ParamId),
    /// A matrix of the base, and its adapter with its scale.
    Merged(Adapter, f32),
}

/// Writes the tensors of the base, each from where `origin` says, and what stands beside them. What is `wanted` must be
/// among those origins.
fn write(
    store: &Store,
    (source, target): (&Path, &Path),
    wanted: &[(ParamId, Origin)],
    origin: impl Fn(&Checkpoint, Tensor<'_>) -> Origin,
    as_f32: bool,
) -> Result<(), WeightsError> {
    let checkpoint = store.checkpoint().expect("what is exported was opened from a directory");
    let mut export = Export::create(target, source)?;
    let planned = |tensor: Tensor<'_>| {
        let (name, origin) = (tensor.name().to_owned(), origin(checkpoint, tensor));
        let plan = match origin {
            Origin::Base => TensorPlan { name, dtype: tensor.dtype(), shape: tensor.shape().to_vec() },
            Origin::Tuned(id) => TensorPlan { name, ..plan(store, id) },
            Origin::Merged(..) => TensorPlan { name, dtype: StoredType::F32, shape: tensor.shape().to_vec() },
        };
        (plan, origin)
    };
    let (plans, origins): (Vec<_>, Vec<_>) = checkpoint.tensors().map(planned).unzip();
    for (id, origin) in wanted {
        assert!(origins.contains(origin), "no tensor {:?} in the checkpoint", store.params()[*id].name());
    }
    export.safetensors(&plans, |index, sink| match origins[index] {
        Origin::Base => sink.put(checkpoint.tensor(&plans[index].name)?.bytes()),
        Origin::Tuned(id) => bytes(store, id, |block| sink.put(block)),
        Origin::Merged(adapter, scale) => {
            merged_rows(store, &adapter, scale, |row| sink.put(bytemuck::cast_slice(row)))
        }
    })?;
    if as_f32 {
        export.write_json("config.json", &in_f32(&source.join("config.json"))?)?;
    } else {
        export.copy_file(source, "config.json")?;
    }
    export.copy_companions(source)?;
    // What was copied was the base that was opened.
    checkpoint.check_unchanged()?;
    export.finish()?;
    Ok(())
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
