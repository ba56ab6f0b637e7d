//! Llama (Touvron et al., 2023, arXiv:2302.13971) and what shares its layout.

use super::{
    ArchSpec, Config, Family, ModelError, Names, Slot, activation, decoder_head, layers, rope, shared_head_dim,
};
use crate::{
    direction::Stored,
    kernels::Mask,
    model::{AttentionSpec, EmbeddingSpec, FfnSpec, NormKind, NormPlacement, NormSpec, Projections},
};

pub(super) const FAMILY: Family = Family {
    name: "llama",
    about: "Llama 1 to 3, SmolLM2, TinyLlama: RMSNorm, rotary positions, gated feed-forward, grouped heads",
    architectures: &["LlamaForCausalLM", "LlamaModel"],
    spec,
    names: NAMES,
    bottlenecks: &[Slot::Gate, Slot::Up, Slot::Down],
};

/// The tensors of Llama, Mistral and Qwen2.
pub(super) const NAMES: Names = &[
    (Slot::TokenEmbedding, "model.embed_tokens"),
    (Slot::AttentionNorm, "model.layers.{}.input_layernorm"),
    (Slot::Query, "model.layers.{}.self_attn.q_proj"),
    (Slot::Key, "model.layers.{}.self_attn.k_proj"),
    (Slot::Value, "model.layers.{}.self_attn.v_proj"),
    (Slot::AttentionOut, "model.layers.{}.self_attn.o_proj"),
    (Slot::FfnNorm, "model.layers.{}.post_attention_layernorm"),
    (Slot::Gate, "model.layers.{}.mlp.gate_proj"),
    (Slot::Up, "model.layers.{}.mlp.up_proj"),
    (Slot::Down, "model.layers.{}.mlp.down_proj"),
    (Slot::LastNorm, "model.norm"),
    (Slot::Head, "lm_head"),
];

/// The longest context that is read: positions cost nothing until a sequence needs them.
const MAX_POSITIONS: usize = 1 << 32;

/// Features of one head: `head_dim`, or the hidden size shared out.
fn head_dim(config: &Config, hidden_size: usize, heads: usize) -> Result<usize, ModelError> {
    if config.get("head_dim").is_some() { config.size("head_dim") } else { shared_head_dim(config, hidden_size, heads) }
}

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    gated_decoder(config, &FAMILY, Mask::Causal, 10_000.0)
}

/// The architecture that Llama, Mistral and Qwen2 share.
pub(super) fn gated_decoder(
    config: &Config,
    family: &Family,
    mask: Mask,
    default_theta: f64,
) -> Result<ArchSpec, ModelError> {
    let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let attention_bias = config.flag_or("attention_bias", false)?;
    Ok(ArchSpec {
        family: family.name,
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        layers: layers(config, "num_hidden_layers")?,
        max_positions: config.size_in("max_position_embeddings", 1..=MAX_POSITIONS)?.unwrap_or(2048),
        embedding: EmbeddingSpec {
            width: hidden_size,
            positions: rope(config, default_theta)?,
            token_types: 0,
            norm: false,
        },
        norm: NormSpec {
            kind: NormKind::Rms,
            eps: config.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            placement: NormPlacement::Before,
            last: true,
        },
        attention: AttentionSpec {
            heads,
            kv_heads: config.size_or("num_key_value_heads", heads)?,
            head_dim: head_dim(config, hidden_size, heads)?,
            mask,
            projections: Projections::Split,
            bias: attention_bias,
            out_bias: attention_bias,
        },
        ffn: FfnSpec {
            width: config.size("intermediate_size")?,
            activation: activation(config, "hidden_act", "silu")?,
            gated: true,
            bias: config.flag_or("mlp_bias", false)?,
        },
        head: decoder_head(config, family, false)?,
        stored: Stored::OutIn,
    })
}
