//! OPT (Zhang et al., 2022, arXiv:2205.01068), the 350M layout with projections and late norms included.

use super::{
    ArchSpec, Config, Family, ModelError, Names, Positions, Slot, activation, decoder_head, layers, shared_head_dim,
};
use crate::{
    direction::Stored,
    kernels::Mask,
    model::{AttentionSpec, EmbeddingSpec, FfnSpec, NormKind, NormPlacement, NormSpec, Projections},
};

pub(super) const FAMILY: Family = Family {
    name: "opt",
    about: "OPT: LayerNorm before (350M: after) each layer, learned positions, ReLU",
    architectures: &["OPTForCausalLM", "OPTModel"],
    spec,
    names: NAMES,
    bottlenecks: &[Slot::Up, Slot::Down],
};

const NAMES: Names = &[
    (Slot::TokenEmbedding, "model.decoder.embed_tokens"),
    (Slot::PositionEmbedding, "model.decoder.embed_positions"),
    (Slot::ProjectIn, "model.decoder.project_in"),
    (Slot::ProjectOut, "model.decoder.project_out"),
    (Slot::AttentionNorm, "model.decoder.layers.{}.self_attn_layer_norm"),
    (Slot::Query, "model.decoder.layers.{}.self_attn.q_proj"),
    (Slot::Key, "model.decoder.layers.{}.self_attn.k_proj"),
    (Slot::Value, "model.decoder.layers.{}.self_attn.v_proj"),
    (Slot::AttentionOut, "model.decoder.layers.{}.self_attn.out_proj"),
    (Slot::FfnNorm, "model.decoder.layers.{}.final_layer_norm"),
    (Slot::Up, "model.decoder.layers.{}.fc1"),
    (Slot::Down, "model.decoder.layers.{}.fc2"),
    (Slot::LastNorm, "model.decoder.final_layer_norm"),
    (Slot::Head, "lm_head"),
];

/// Rows of the position table before that of position 0.
const OFFSET: usize = 2;

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    config.only_flag("layer_norm_elementwise_affine", true)?;
    let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let max_positions = config.size_or("max_position_embeddings", 2048)?;
    let bias = config.flag_or("enable_bias", true)?;
    let before = config.flag_or("do_layer_norm_before", true)?;
    Ok(ArchSpec {
        family: FAMILY.name,
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        layers: layers(config, "num_hidden_layers")?,
        max_positions,
        embedding: EmbeddingSpec {
            width: config.size_or("word_embed_proj_dim", hidden_size)?,
            positions: Positions::Learned { offset: OFFSET, rows: max_positions + OFFSET },
            token_types: 0,
            norm: false,
        },
        norm: NormSpec {
            kind: NormKind::Layer,
            eps: 1e-5,
            placement: if before { NormPlacement::Before } else { NormPlacement::After },
            last: before && !config.flag_or("_remove_final_layer_norm", false)?,
        },
        attention: AttentionSpec {
            heads,
            kv_heads: heads,
            head_dim: shared_head_dim(config, hidden_size, heads)?,
            mask: Mask::Causal,
            projections: Projections::Split,
            bias,
            out_bias: bias,
        },
        ffn: FfnSpec {
            width: config.size("ffn_dim")?,
            activation: activation(config, "activation_function", "relu")?,
            gated: false,
            bias,
        },
        head: decoder_head(config, &FAMILY, true)?,
        stored: Stored::OutIn,
    })
}
