//! Mistral 7B and its relatives (Jiang et al., 2023, arXiv:2310.06825): Llama with a sliding window.

use super::{ArchSpec, Config, Family, ModelError, llama};
use crate::kernels::Mask;

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    about: "Mistral: Llama with a sliding attention window and free head size",
    architectures: &["MistralForCausalLM", "MistralModel"],
    spec,
    names: llama::NAMES,
    bottlenecks: llama::FAMILY.bottlenecks,
};

/// The window of a configuration without the field, as `transformers` has it.
const DEFAULT_WINDOW: usize = 4096;

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    let mask = match (config.has("sliding_window"), config.size_in("sliding_window", 1..=usize::MAX)?) {
        (_, Some(window)) => Mask::Window(window),
        // `null` says: no window.
        (true, None) => Mask::Causal,
        (false, None) => Mask::Window(DEFAULT_WINDOW),
    };
    llama::gated_decoder(config, &FAMILY, mask, 10_000.0)
}
