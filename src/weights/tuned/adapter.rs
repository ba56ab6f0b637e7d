//! Adapters as a directory that PEFT loads: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! *What must stay true.* A parameter is named in PEFT's file by [`PREFIX`] and its own name, which is therefore that of
//! its layer's module in the class of `transformers`, however the checkpoint spells it.

use std::path::Path;

use serde_json::{Value, json};

use super::{bytes, digest, plan};
use crate::{
    direction::{ParamId, Stored},
    weights::{Export, Lora, Store, TensorPlan, WeightsError},
};

/// What PEFT puts before the names of the modules that it wraps.
const PREFIX: &str = "base_model.model.";

/// Writes the adapters of `lora` as they are now to the directory `target`, which is new or empty, as ones of the model in
/// `base`, which `store` was opened from. Answers their [`digest`].
///
/// # Errors
/// [`WeightsError`] naming the file: a target that may not be written, a full disk, a base that changed underneath.
pub fn export_adapter(store: &Store, lora: &Lora, base: &Path, target: &Path) -> Result<[u8; 32], WeightsError> {
    let mut export = Export::create(target, base)?;
    let params: Vec<ParamId> = lora.params().chain(lora.kept_beside.iter().copied()).collect();
    let planned = |&id: &ParamId| {
        let plan = plan(store, id);
        TensorPlan { name: format!("{PREFIX}{}", plan.name), ..plan }
    };
    let plans: Vec<TensorPlan> = params.iter().map(planned).collect();
    export.safetensors_file("adapter_model.safetensors", &plans, |index, sink| {
        bytes(store, params[index], |block| sink.put(block))
    })?;
    export.write_json("adapter_config.json", &config(lora, base))?;
    // What they were trained beside is the base that is named.
    store.check_unchanged()?;
    export.finish()?;
    Ok(digest(store, &lora.params().collect::<Vec<_>>()))
}

/// The fields of PEFT's `LoraConfig`, those that are its defaults included where they decide what is computed.
fn config(lora: &Lora, base: &Path) -> Value {
    let alpha = match lora.alpha {
        // A float holds every whole number below 2⁵³; PEFT declares an integer.
        alpha if alpha.fract() == 0.0 && alpha < 9e15 => json!(alpha as u64),
        alpha => json!(alpha),
    };
    json!({
        "base_model_name_or_path": base.to_string_lossy(),
        "bias": "none",
        "fan_in_fan_out": lora.adapters.iter().any(|adapter| adapter.stored == Stored::InOut),
        "inference_mode": true,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": lora.modules,
        "task_type": lora.task,
        "use_dora": false,
        "use_rslora": false,
    })
}
