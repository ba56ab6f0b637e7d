//! The parameters of a model in the order of its forward pass; those of adapters, which are added to it, come after all
//! others, in that order too.

use super::{ArchSpec, Head, NormKind, Positions, Projections, Slot, slot::Tensors};
use crate::{
    direction::{ParamId, ParamTable, Stored},
    weights::{Bottleneck, Place, TrainLayer},
};

/// A linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearPart {
    /// The matrix.
    pub weight: ParamId,
    /// How it is stored.
    pub stored: Stored,
    /// The bias, if there is one.
    pub bias: Option<ParamId>,
    /// Output features.
    pub outputs: usize,
    /// Its adapter, if it has one.
    pub adapter: Option<AdapterPart>,
}

/// An adapter of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterPart {
    /// Two linear layers, one after the other, whose scaled product is added.
    LowRank(LowRankPart),
    /// Two layers before or after this one, whose result is added to what they read.
    Bottleneck(Bottleneck),
}

/// A low-rank adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowRankPart {
    /// `[rank, in]`.
    pub a: ParamId,
    /// `[out, rank]`.
    pub b: ParamId,
    /// Features between them.
    pub rank: usize,
}

/// A product with a matrix `[outputs, inputs]` that is a train of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainPart {
    /// The cores, first to last.
    pub cores: [ParamId; 3],
    /// The bias, if there is one.
    pub bias: Option<ParamId>,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
}

/// A normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormPart {
    /// The weight.
    pub weight: ParamId,
    /// The bias of a `LayerNorm`.
    pub bias: Option<ParamId>,
}

impl LinearPart {
    /// Its parameters.
    pub fn params(self) -> impl Iterator<Item = ParamId> {
        let low_rank = self.low_rank().into_iter().flatten().map(|layer| layer.weight);
        let bottleneck = self.bottleneck().into_iter().flat_map(Bottleneck::params);
        [Some(self.weight), self.bias].into_iter().flatten().chain(low_rank).chain(bottleneck)
    }

    /// The two layers of its low-rank adapter.
    pub fn low_rank(self) -> Option<[LinearPart; 2]> {
        let layer = |weight, outputs| LinearPart { weight, stored: Stored::OutIn, bias: None, outputs, adapter: None };
        match self.adapter? {
            AdapterPart::LowRank(LowRankPart { a, b, rank }) => Some([layer(a, rank), layer(b, self.outputs)]),
            AdapterPart::Bottleneck(_) => None,
        }
    }

    /// Its bottleneck.
    pub fn bottleneck(self) -> Option<Bottleneck> {
        match self.adapter? {
            AdapterPart::Bottleneck(bottleneck) => Some(bottleneck),
            AdapterPart::LowRank(_) => None,
        }
    }
}

impl TrainPart {
    /// The two products of a layer of trains, in the order of the forward pass.
    pub fn of(layer: TrainLayer) -> [TrainPart; 2] {
        let TrainLayer { inputs, outputs, rank, cores: [a, b, c, d, e, f], bias } = layer;
        [
            TrainPart { cores: [d, e, f], bias: None, inputs, outputs: rank },
            TrainPart { cores: [a, b, c], bias: Some(bias), inputs: rank, outputs },
        ]
    }

    /// Its parameters.
    pub fn params(self) -> impl Iterator<Item = ParamId> {
        self.cores.into_iter().chain(self.bias)
    }
}

impl NormPart {
    /// Its parameters.
    pub fn params(self) -> impl Iterator<Item = ParamId> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }
}

/// Queries, keys and values of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectionParts {
    /// Three layers.
    Split([LinearPart; 3]),
    /// One layer, its outputs side by side.
    Fused(LinearPart),
}

/// The feed-forward layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FfnParts {
    /// The gate, if there is one.
    pub gate: Option<LinearPart>,
    /// The first product.
    pub up: LinearPart,
    /// The last product.
    pub down: LinearPart,
}

/// One block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockParts {
    /// The normalisation of the attention layer.
    pub attention_norm: NormPart,
    /// Queries, keys and values.
    pub projections: ProjectionParts,
    /// The output projection.
    pub out: LinearPart,
    /// The normalisation of the feed-forward layer.
    pub ffn_norm: NormPart,
    /// The feed-forward layer.
    pub ffn: FfnParts,
}

impl BlockParts {
    /// Its parameters.
    pub fn params(&self) -> impl Iterator<Item = ParamId> {
        let norms = [self.attention_norm, self.ffn_norm].into_iter().flat_map(NormPart::params);
        norms.chain(self.linears().flat_map(LinearPart::params))
    }

    /// Its linear layers, in the order of the forward pass.
    pub fn linears(&self) -> impl Iterator<Item = LinearPart> {
        let projections = match self.projections {
            ProjectionParts::Split(parts) => parts.map(Some),
            ProjectionParts::Fused(part) => [Some(part), None, None],
        };
        let FfnParts { gate, up, down } = self.ffn;
        projections.into_iter().chain([Some(self.out), gate, Some(up), Some(down)]).flatten()
    }

    /// The same, to be given adapters.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearPart> {
        let projections = match &mut self.projections {
            ProjectionParts::Split(parts) => parts.iter_mut(),
            ProjectionParts::Fused(part) => std::slice::from_mut(part).iter_mut(),
        };
        let FfnParts { gate, up, down } = &mut self.ffn;
        projections.chain([&mut self.out]).chain(gate).chain([up, down])
    }

    /// The layers that may have bottlenecks, in the order of the forward pass: those that write to the residual stream,
    /// and those by which the feed-forward layer reads it.
    pub(super) fn bottlenecked(&self) -> impl Iterator<Item = (Slot, Place, LinearPart)> {
        let FfnParts { gate, up, down } = self.ffn;
        let gate = gate.map(|part| (Slot::Gate, Place::Before, part));
        let others = [(Slot::Up, Place::Before, up), (Slot::Down, Place::After, down)];
        [(Slot::AttentionOut, Place::After, self.out)].into_iter().chain(gate).chain(others)
    }
}

/// The head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadParts {
    /// A dense layer before the last product.
    pub dense: Option<LinearPart>,
    /// A normalisation before the last product.
    pub norm: Option<NormPart>,
    /// The last product.
    pub last: LinearPart,
}

/// All parameters of a model, grouped by what they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Token vectors.
    pub tokens: ParamId,
    /// Token-type vectors.
    pub types: Option<ParamId>,
    /// Position vectors.
    pub positions: Option<ParamId>,
    /// The normalisation of the embedding.
    pub embedding_norm: Option<NormPart>,
    /// From token vectors to the residual stream.
    pub project_in: Option<LinearPart>,
    /// The blocks, first to last.
    pub blocks: Vec<BlockParts>,
    /// The normalisation after the last block.
    pub last_norm: Option<NormPart>,
    /// From the residual stream to token vectors.
    pub project_out: Option<LinearPart>,
    /// The head, if there is one.
    pub head: Option<HeadParts>,
}

impl Parts {
    /// The parts of `spec` and the table of their parameters, named as `tensors` spells them.
    pub fn of(spec: &ArchSpec, tensors: &Tensors<impl Fn(&str) -> bool>) -> (Parts, ParamTable) {
        let mut builder = Builder { spec, tensors, layer: 0, params: ParamTable::new() };
        let parts = builder.parts();
        (parts, builder.params)
    }
}

struct Builder<'a, F> {
    spec: &'a ArchSpec,
    tensors: &'a Tensors<F>,
    layer: usize,
    params: ParamTable,
}

impl<F: Fn(&str) -> bool> Builder<'_, F> {
    fn table(&mut self, slot: Slot, rows: usize, cols: usize) -> ParamId {
        self.params.add(&self.tensors.weight(slot, self.layer), &[rows, cols])
    }

    fn linear(&mut self, slot: Slot, outputs: usize, inputs: usize, bias: bool, stored: Stored) -> LinearPart {
        let (rows, cols) = match stored {
            Stored::OutIn => (outputs, inputs),
            Stored::InOut => (inputs, outputs),
        };
        let weight = self.table(slot, rows, cols);
        let bias = bias.then(|| self.params.add(&self.tensors.bias(slot, self.layer), &[outputs]));
        LinearPart { weight, stored, bias, outputs, adapter: None }
    }

    fn norm(&mut self, slot: Slot) -> NormPart {
        let shape = [self.spec.hidden_size];
        let weight = self.params.add(&self.tensors.weight(slot, self.layer), &shape);
        let bias = self.spec.norm.kind == NormKind::Layer;
        NormPart { weight, bias: bias.then(|| self.params.add(&self.tensors.bias(slot, self.layer), &shape)) }
    }

    fn parts(&mut self) -> Parts {
        let ArchSpec { vocab_size, hidden_size, ref embedding, ref norm, .. } = *self.spec;
        let projected = embedding.width != hidden_size;
        Parts {
            tokens: self.table(Slot::TokenEmbedding, vocab_size, embedding.width),
            types: (embedding.token_types > 0)
                .then(|| self.table(Slot::TokenTypeEmbedding, embedding.token_types, hidden_size)),
            positions: match embedding.positions {
                Positions::Learned { rows, .. } => Some(self.table(Slot::PositionEmbedding, rows, hidden_size)),
                Positions::Rope { .. } => None,
            },
            embedding_norm: embedding.norm.then(|| self.norm(Slot::EmbeddingNorm)),
            project_in: projected
                .then(|| self.linear(Slot::ProjectIn, hidden_size, embedding.width, false, Stored::OutIn)),
            blocks: (0..self.spec.layers).map(|layer| self.block(layer)).collect(),
            last_norm: norm.last.then(|| self.norm(Slot::LastNorm)),
            project_out: projected
                .then(|| self.linear(Slot::ProjectOut, embedding.width, hidden_size, false, Stored::OutIn)),
            head: self.head(),
        }
    }

    fn block(&mut self, layer: usize) -> BlockParts {
        self.layer = layer;
        let ArchSpec { hidden_size, ref attention, ref ffn, stored, .. } = *self.spec;
        let (queries, keys) = (self.spec.query_width(), self.spec.key_width());
        let before = self.norm(Slot::AttentionNorm);
        let bias = attention.bias;
        let projections = match attention.projections {
            Projections::Split => ProjectionParts::Split([
                self.linear(Slot::Query, queries, hidden_size, bias, stored),
                self.linear(Slot::Key, keys, hidden_size, bias, stored),
                self.linear(Slot::Value, keys, hidden_size, bias, stored),
            ]),
            Projections::Fused => {
                ProjectionParts::Fused(self.linear(Slot::QueryKeyValue, queries + 2 * keys, hidden_size, bias, stored))
            }
        };
        BlockParts {
            attention_norm: before,
            projections,
            out: self.linear(Slot::AttentionOut, hidden_size, queries, attention.out_bias, stored),
            ffn_norm: self.norm(Slot::FfnNorm),
            ffn: FfnParts {
                gate: ffn.gated.then(|| self.linear(Slot::Gate, ffn.width, hidden_size, ffn.bias, stored)),
                up: self.linear(Slot::Up, ffn.width, hidden_size, ffn.bias, stored),
                down: self.linear(Slot::Down, hidden_size, ffn.width, ffn.bias, stored),
            },
        }
    }

    fn head(&mut self) -> Option<HeadParts> {
        let ArchSpec { vocab_size, hidden_size, ref embedding, .. } = *self.spec;
        let dense = |builder: &mut Self, slot| builder.linear(slot, hidden_size, hidden_size, true, Stored::OutIn);
        let matrix = |builder: &mut Self, tied: bool, width: usize| {
            let slot = if tied { Slot::TokenEmbedding } else { Slot::Head };
            builder.linear(slot, vocab_size, width, false, Stored::OutIn)
        };
        match self.spec.head {
            Head::None => None,
            Head::CausalLm { tied } => {
                Some(HeadParts { dense: None, norm: None, last: matrix(self, tied, embedding.width) })
            }
            Head::MaskedLm { tied, .. } => {
                let (dense, norm) = (dense(self, Slot::MaskedDense), self.norm(Slot::MaskedNorm));
                let mut last = matrix(self, tied, hidden_size);
                last.bias = Some(self.params.add(&self.tensors.bias(Slot::HeadBias, 0), &[vocab_size]));
                Some(HeadParts { dense: Some(dense), norm: Some(norm), last })
            }
            Head::Classifier { labels } => Some(HeadParts {
                dense: Some(dense(self, Slot::ClassDense)),
                norm: None,
                last: self.linear(Slot::Classes, labels, hidden_size, true, Stored::OutIn),
            }),
        }
    }
}
