//! `RoBERTa` (Liu et al., 2019, arXiv:1907.11692): BERT with positions counted from the padding token's id + 1.

use super::{ArchSpec, Config, Family, ModelError, Names, Slot, bert};
use crate::kernels::activation::Activation;
use crate::model::Head;

pub(super) const FAMILY: Family = Family {
    name: "roberta",
    about: "RoBERTa, DistilRoBERTa: BERT with shifted positions, masked tokens or classes",
    architectures: &["RobertaForMaskedLM", "RobertaForSequenceClassification", "RobertaModel"],
    spec,
    names: NAMES,
    bottlenecks: bert::FAMILY.bottlenecks,
};

const NAMES: Names = &[
    (Slot::TokenEmbedding, "roberta.embeddings.word_embeddings"),
    (Slot::PositionEmbedding, "roberta.embeddings.position_embeddings"),
    (Slot::TokenTypeEmbedding, "roberta.embeddings.token_type_embeddings"),
    (Slot::EmbeddingNorm, "roberta.embeddings.LayerNorm"),
    (Slot::Query, "roberta.encoder.layer.{}.attention.self.query"),
    (Slot::Key, "roberta.encoder.layer.{}.attention.self.key"),
    (Slot::Value, "roberta.encoder.layer.{}.attention.self.value"),
    (Slot::AttentionOut, "roberta.encoder.layer.{}.attention.output.dense"),
    (Slot::AttentionNorm, "roberta.encoder.layer.{}.attention.output.LayerNorm"),
    (Slot::Up, "roberta.encoder.layer.{}.intermediate.dense"),
    (Slot::Down, "roberta.encoder.layer.{}.output.dense"),
    (Slot::FfnNorm, "roberta.encoder.layer.{}.output.LayerNorm"),
    (Slot::MaskedDense, "lm_head.dense"),
    (Slot::MaskedNorm, "lm_head.layer_norm"),
    (Slot::Head, "lm_head.decoder"),
    (Slot::HeadBias, "lm_head"),
    (Slot::ClassDense, "classifier.dense"),
    (Slot::Classes, "classifier.out_proj"),
];

/// The padding token of every published `RoBERTa`.
const DEFAULT_PAD: usize = 1;

fn spec(config: &Config) -> Result<ArchSpec, ModelError> {
    let pad = config.size_in("pad_token_id", 0..=u32::MAX as usize)?.unwrap_or(DEFAULT_PAD);
    let mut spec = bert::encoder(config, &FAMILY, pad + 1)?;
    if let Head::MaskedLm { activation, .. } = &mut spec.head {
        // Its masked-LM head is fixed to GELU, whatever the blocks use.
        *activation = Activation::Gelu;
    }
    Ok(spec)
}
