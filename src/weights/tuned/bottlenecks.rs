//! Bottlenecks of tensor trains as a directory: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The authors of `AdaZeta` publish no format: their code fixes the modes of one hidden size. Ours names each core by the
//! module that its adapter stands at, `MODULE.adapter_down.cores.0` to `.5` and `MODULE.adapter_up.…`, gives it its own
//! three dimensions `[l, n, r]`, and says on which side of the module the adapter stands. PEFT refuses it by its type.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{bytes, digest, plan};
use crate::{
    direction::ParamId,
    weights::{Bottleneck, Bottlenecks, Export, Place, Store, TensorPlan, TrainLayer, WeightsError, core_shapes},
};

/// Writes `bottlenecks` as they are now to the directory `target`, which is new or empty, as ones of the model in `base`,
/// which `store` was opened from. Answers their [`digest`].
///
/// # Errors
/// [`WeightsError`] naming the file: a target that may not be written, a full disk, a base that changed underneath.
pub fn export_bottlenecks(
    store: &Store,
    bottlenecks: &Bottlenecks,
    base: &Path,
    target: &Path,
) -> Result<[u8; 32], WeightsError> {
    let mut export = Export::create(target, base)?;
    let layers = bottlenecks.adapters.iter().flat_map(|adapter| [adapter.down(), adapter.up()]);
    let (params, plans): (Vec<ParamId>, Vec<TensorPlan>) = layers.flat_map(|layer| planned(store, layer)).unzip();
    export.safetensors_file("adapter_model.safetensors", &plans, |index, sink| {
        bytes(store, params[index], |block| sink.put(block))
    })?;
    export.write_json("adapter_config.json", &config(store, bottlenecks, base))?;
    // What they were trained beside is the base that is named.
    store.check_unchanged()?;
    export.finish()?;
    Ok(digest(store, &params))
}

/// The parameters of a layer with what is written of them: cores have three dimensions.
fn planned(store: &Store, layer: TrainLayer) -> Vec<(ParamId, TensorPlan)> {
    let shapes = core_shapes(layer.inputs, layer.outputs, layer.rank);
    let cores = layer.cores.into_iter().zip(shapes);
    let cores = cores.map(|(id, shape)| (id, TensorPlan { shape: shape.to_vec(), ..plan(store, id) }));
    cores.chain([(layer.bias, plan(store, layer.bias))]).collect()
}

/// What is needed to compute with them.
fn config(store: &Store, bottlenecks: &Bottlenecks, base: &Path) -> Value {
    let place = |adapter: &Bottleneck| {
        let first = store.params()[adapter.first].name();
        let module = first.split(".adapter_down.").next().unwrap_or(first).to_owned();
        let place = match adapter.place {
            Place::Before => "before",
            Place::After => "after",
        };
        (module, Value::from(place))
    };
    json!({
        "activation": "relu",
        "base_model_name_or_path": base.to_string_lossy(),
        "modules": bottlenecks.adapters.iter().map(place).collect::<Map<_, _>>(),
        "peft_type": "ZOFO_TENSOR_TRAIN",
        "rank": bottlenecks.rank,
        "width": bottlenecks.width,
    })
}
