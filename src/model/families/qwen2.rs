//! Qwen2 and Qwen2.5 (Yang et al., 2024, arXiv:2407.10671): Llama with a bias on queries, keys and values.

use super::{ArchSpec, Config, Family, ModelError, llama};
use crate::kernels::Mask;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    about: "Qwen2, Qwen2.5: Llama with a bias on queries, keys and values",
    architectures: &["Qwen2ForCausalLM", "Qwen2Model"],
    spec,
    names: llama::NAMES,
    bottlenecks: llama::FAMILY.bottlenecks,
};

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    // A window in some of the layers only is not computed.
    config.only_flag("use_sliding_window", false)?;
    if let Some(types) = config.get("layer_types") {
        let types = types.as_array().ok_or_else(|| config.value_error("layer_types", types, "a list"))?;
        if let Some(kind) = types.iter().find(|kind| *kind != "full_attention") {
            return Err(config.unsupported("layer_types", &kind.to_string(), ["full_attention"]));
        }
    }
    let mut spec = llama::gated_decoder(config, &FAMILY, Mask::Causal, 10_000.0)?;
    spec.attention.bias = true;
    spec.attention.out_bias = false;
    Ok(spec)
}
