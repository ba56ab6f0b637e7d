//! What a model computes, as data.
//!
//! *What must stay true.* Everything that changes a result stands here; a family has no code of its own in the
//! forward pass, and a reference implementation needs nothing else.

use super::Kept;
use crate::{
    direction::Stored,
    kernels::{
        Mask,
        activation::Activation,
        norm::Norm,
        rope::{RopeScaling, RopeTable},
    },
};

/// The architecture of a transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchSpec {
    /// `model_type` of the configuration.
    pub family: &'static str,
    /// `V`, entries of the vocabulary.
    pub vocab_size: usize,
    /// `D`, features of the residual stream.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// The longest sequence, in tokens.
    pub max_positions: usize,
    /// From tokens to the residual stream.
    pub embedding: EmbeddingSpec,
    /// All normalisations of the blocks.
    pub norm: NormSpec,
    /// The attention layer of every block.
    pub attention: AttentionSpec,
    /// The feed-forward layer of every block.
    pub ffn: FfnSpec,
    /// From the residual stream to logits.
    pub head: Head,
    /// How the weights of the blocks' linear layers are stored.
    pub stored: Stored,
}

/// From tokens to the residual stream: token, type and position vectors added in this order, then normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// Features of a token's vector: `hidden_size`, or fewer and then projected up (OPT-350M).
    pub width: usize,
    /// How positions enter.
    pub positions: Positions,
    /// Rows of the token-type table, of which row 0 is added to every token; 0: there is none.
    pub token_types: usize,
    /// Whether a normalisation follows.
    pub norm: bool,
}

/// How a token's place in its sequence enters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Queries and keys are turned (Su et al., 2021, arXiv:2104.09864).
    Rope {
        /// `rope_theta`.
        theta: f64,
        /// How frequencies are stretched.
        scaling: RopeScaling,
    },
    /// Row `offset + position` of a table is added to the token's vector.
    Learned {
        /// 2 for OPT, `pad_token_id + 1` for `RoBERTa`, else 0.
        offset: usize,
        /// Rows of the table.
        rows: usize,
    },
}

/// The normalisations of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// The formula.
    pub kind: NormKind,
    /// Added to the variance (or mean square).
    pub eps: f32,
    /// Before each layer or after its residual addition.
    pub placement: NormPlacement,
    /// Whether another one follows the last block.
    pub last: bool,
}

impl NormSpec {
    /// One of them, with its parameters.
    pub(super) fn over<'a>(&self, weight: &'a [f32], bias: Option<&'a [f32]>) -> Norm<'a> {
        match self.kind {
            NormKind::Layer => Norm::layer(weight, bias, self.eps),
            NormKind::Rms => Norm::rms(weight, self.eps),
        }
    }
}

/// The formula of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and variance, weight and bias (Ba et al., 2016, arXiv:1607.06450).
    Layer,
    /// Mean square and weight (Zhang and Sennrich, 2019, arXiv:1910.07467).
    Rms,
}

/// Where a block normalises (Xiong et al., 2020, arXiv:2002.04745).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// `h += layer(norm(h))`.
    Before,
    /// `h = norm(h + layer(h))`.
    After,
}

/// The attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of one head.
    pub head_dim: usize,
    /// Which keys a query sees.
    pub mask: Mask,
    /// How query, key and value weights are stored.
    pub projections: Projections,
    /// Whether query, key and value have a bias.
    pub bias: bool,
    /// Whether the output projection has a bias.
    pub out_bias: bool,
}

/// How query, key and value weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projections {
    /// Three tensors.
    Split,
    /// One tensor: the output features of queries, then keys, then values.
    Fused,
}

/// The feed-forward layer.
#[derive(Clone, Debug, PartialEq)]
pub struct FfnSpec {
    /// Features between its two products.
    pub width: usize,
    /// What is applied between them.
    pub activation: Activation,
    /// Whether the activation of a third product gates the first: `act(gate) · up` (Shazeer, 2020, arXiv:2002.05202).
    pub gated: bool,
    /// Whether the products have a bias.
    pub bias: bool,
}

/// From the residual stream to logits.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// None: a bare encoder or decoder.
    None,
    /// A product with the (tied) token embedding, or an own matrix, for every row: next tokens.
    CausalLm {
        /// Whether the matrix is the token embedding.
        tied: bool,
    },
    /// A dense layer, its activation, a normalisation, then the product with a bias: masked tokens.
    MaskedLm {
        /// Whether the matrix is the token embedding.
        tied: bool,
        /// Between the dense layer and the normalisation.
        activation: Activation,
    },
    /// A dense layer and tanh on a sequence's first row, then a product with a bias: classes.
    Classifier {
        /// `C`, the classes.
        labels: usize,
    },
}

impl Head {
    /// What its logits are of.
    pub fn about(&self) -> &'static str {
        match self {
            Head::None => "none",
            Head::CausalLm { .. } => "next-token",
            Head::MaskedLm { .. } => "masked-token",
            Head::Classifier { .. } => "class",
        }
    }
}

impl ArchSpec {
    /// Columns of the logits: entries of the vocabulary, or classes.
    pub fn outputs(&self) -> usize {
        match self.head {
            Head::Classifier { labels } => labels,
            _ => self.vocab_size,
        }
    }

    /// What attention scores are multiplied by.
    pub fn attention_scale(&self) -> f32 {
        1.0 / (self.attention.head_dim as f32).sqrt()
    }

    /// Features of all query heads.
    pub fn query_width(&self) -> usize {
        self.attention.heads * self.attention.head_dim
    }

    /// Features of all key heads, and of all value heads.
    pub fn key_width(&self) -> usize {
        self.attention.kv_heads * self.attention.head_dim
    }

    /// Bytes that a block holds at once for each row of a pass: its residual stream, normalised and as the layer's output,
    /// beside what the wider of its layers makes of it, in f32.
    pub fn row_bytes(&self) -> usize {
        let attention = 2 * (self.query_width() + self.key_width());
        let ffn = if self.ffn.gated { 2 * self.ffn.width } else { self.ffn.width };
        size_of::<f32>() * (3 * self.hidden_size + attention.max(ffn))
    }

    /// Bytes of each row of a pass that goes back: what a tape keeps of every block, and twice what a pass holds at once, the
    /// values and their gradient.
    pub fn tape_bytes(&self, kept: Kept) -> usize {
        let attention = 2 * (self.query_width() + self.key_width());
        let ffn = if self.ffn.gated { 3 * self.ffn.width } else { 2 * self.ffn.width };
        let block = size_of::<f32>() * (4 * self.hidden_size + attention + ffn);
        let blocks = match kept {
            Kept::All => self.layers * block,
            Kept::BlockInputs => size_of::<f32>() * self.layers * self.hidden_size + block,
        };
        blocks + 2 * self.row_bytes()
    }

    /// The angles of positions below `positions`, if positions are turned.
    pub fn rope_table(&self, positions: usize) -> Option<RopeTable> {
        match self.embedding.positions {
            Positions::Rope { theta, scaling } => {
                Some(RopeTable::new(self.attention.head_dim, theta, scaling, positions))
            }
            Positions::Learned { .. } => None,
        }
    }

    /// Whether its logits are those of the next token.
    pub fn predicts_next(&self) -> bool {
        matches!(self.head, Head::CausalLm { .. })
    }

    /// Whether a token sees only those before it.
    pub fn is_causal(&self) -> bool {
        self.attention.mask != Mask::Bidirectional
    }
}
