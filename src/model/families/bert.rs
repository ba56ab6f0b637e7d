//! BERT (Devlin et al., 2018, arXiv:1810.04805): an encoder with masked-LM or classification head.

use super::{
    ArchSpec, Config, Family, ModelError, Names, Positions, Slot, activation, encoder_head, layers, shared_head_dim,
};
use crate::{
    direction::Stored,
    kernels::Mask,
    model::{AttentionSpec, EmbeddingSpec, FfnSpec, NormKind, NormPlacement, NormSpec, Projections},
};

pub(super) const FAMILY: Family = Family {
    name: "bert",
    about: "BERT, MiniLM: bidirectional, LayerNorm after each layer, masked tokens or classes",
    architectures: &["BertForMaskedLM", "BertForSequenceClassification", "BertModel"],
    spec,
    names: NAMES,
    bottlenecks: &[Slot::AttentionOut, Slot::Down],
};

const NAMES: Names = &[
    (Slot::TokenEmbedding, "bert.embeddings.word_embeddings"),
    (Slot::PositionEmbedding, "bert.embeddings.position_embeddings"),
    (Slot::TokenTypeEmbedding, "bert.embeddings.token_type_embeddings"),
    (Slot::EmbeddingNorm, "bert.embeddings.LayerNorm"),
    (Slot::Query, "bert.encoder.layer.{}.attention.self.query"),
    (Slot::Key, "bert.encoder.layer.{}.attention.self.key"),
    (Slot::Value, "bert.encoder.layer.{}.attention.self.value"),
    (Slot::AttentionOut, "bert.encoder.layer.{}.attention.output.dense"),
    (Slot::AttentionNorm, "bert.encoder.layer.{}.attention.output.LayerNorm"),
    (Slot::Up, "bert.encoder.layer.{}.intermediate.dense"),
    (Slot::Down, "bert.encoder.layer.{}.output.dense"),
    (Slot::FfnNorm, "bert.encoder.layer.{}.output.LayerNorm"),
    (Slot::MaskedDense, "cls.predictions.transform.dense"),
    (Slot::MaskedNorm, "cls.predictions.transform.LayerNorm"),
    (Slot::Head, "cls.predictions.decoder"),
    (Slot::HeadBias, "cls.predictions"),
    (Slot::ClassDense, "bert.pooler.dense"),
    (Slot::Classes, "classifier"),
];

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    encoder(config, &FAMILY, 0)
}

/// The architecture that BERT and `RoBERTa` share; `offset` rows of the position table come before position 0.
pub(super) fn encoder(config: &Config, family: &Family, offset: usize) -> Result<ArchSpec, ModelError> {
    config.only_flag("is_decoder", false)?;
    config.only_flag("add_cross_attention", false)?;
    if let Some(kind) = config.text("position_embedding_type")?.filter(|kind| *kind != "absolute") {
        return Err(config.unsupported("position_embedding_type", kind, ["absolute"]));
    }
    let (hidden_size, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let rows = config.size_or("max_position_embeddings", 512)?;
    if rows <= offset {
        let expected = format!("more than the {offset} rows before position 0");
        return Err(config.value_error("max_position_embeddings", &serde_json::json!(rows), &expected));
    }
    let activation = activation(config, "hidden_act", "gelu")?;
    Ok(ArchSpec {
        family: family.name,
        vocab_size: config.size("vocab_size")?,
        hidden_size,
        layers: layers(config, "num_hidden_layers")?,
        max_positions: rows - offset,
        embedding: EmbeddingSpec {
            width: hidden_size,
            positions: Positions::Learned { offset, rows },
            token_types: config.size_or("type_vocab_size", 2)?,
            norm: true,
        },
        norm: NormSpec {
            kind: NormKind::Layer,
            eps: config.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            placement: NormPlacement::After,
            last: false,
        },
        attention: AttentionSpec {
            heads,
            kv_heads: heads,
            head_dim: shared_head_dim(config, hidden_size, heads)?,
            mask: Mask::Bidirectional,
            projections: Projections::Split,
            bias: true,
            out_bias: true,
        },
        ffn: FfnSpec { width: config.size("intermediate_size")?, activation, gated: false, bias: true },
        head: encoder_head(config, family, activation)?,
        stored: Stored::OutIn,
    })
}
