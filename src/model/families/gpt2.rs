//! GPT-2 (Radford et al., 2019): its linear layers are stored inputs by outputs (`Conv1D`), queries, keys and values
//! in one.

use super::{
    ArchSpec, Config, Family, ModelError, Names, Positions, Slot, activation, decoder_head, layers, shared_head_dim,
};
use crate::{
    direction::Stored,
    kernels::Mask,
    model::{AttentionSpec, EmbeddingSpec, FfnSpec, NormKind, NormPlacement, NormSpec, Projections},
};

pub(super) const FAMILY: Family = Family {
    name: "gpt2",
    about: "GPT-2, DistilGPT2: LayerNorm before each layer, learned positions, tanh GELU, Conv1D weights",
    architectures: &["GPT2LMHeadModel", "GPT2Model"],
    spec,
    names: NAMES,
    bottlenecks: &[Slot::AttentionOut, Slot::Down],
};

const NAMES: Names = &[
    (Slot::TokenEmbedding, "transformer.wte"),
    (Slot::PositionEmbedding, "transformer.wpe"),
    (Slot::AttentionNorm, "transformer.h.{}.ln_1"),
    (Slot::QueryKeyValue, "transformer.h.{}.attn.c_attn"),
    (Slot::AttentionOut, "transformer.h.{}.attn.c_proj"),
    (Slot::FfnNorm, "transformer.h.{}.ln_2"),
    (Slot::Up, "transformer.h.{}.mlp.c_fc"),
    (Slot::Down, "transformer.h.{}.mlp.c_proj"),
    (Slot::LastNorm, "transformer.ln_f"),
    (Slot::Head, "lm_head"),
];

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    config.only_flag("scale_attn_weights", true)?;
    config.only_flag("scale_attn_by_inverse_layer_idx", false)?;
    config.only_flag("add_cross_attention", false)?;
    let (hidden_size, heads) = (config.size("n_embd")?, config.size("n_head")?);
    let max_positions = config.size_or("n_positions", 1024)?;
    Ok(ArchSpec {
        family: FAMILY.name,
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        layers: layers(config, "n_layer")?,
        max_positions,
        embedding: EmbeddingSpec {
            width: hidden_size,
            positions: Positions::Learned { offset: 0, rows: max_positions },
            token_types: 0,
            norm: false,
        },
        norm: NormSpec {
            kind: NormKind::Layer,
            eps: config.number("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
            placement: NormPlacement::Before,
            last: true,
        },
        attention: AttentionSpec {
            heads,
            kv_heads: heads,
            head_dim: shared_head_dim(config, hidden_size, heads)?,
            mask: Mask::Causal,
            projections: Projections::Fused,
            bias: true,
            out_bias: true,
        },
        ffn: FfnSpec {
            width: config.size_or("n_inner", 4 * hidden_size)?,
            activation: activation(config, "activation_function", "gelu_new")?,
            gated: false,
            bias: true,
        },
        head: decoder_head(config, &FAMILY, true)?,
        stored: Stored::InOut,
    })
}
