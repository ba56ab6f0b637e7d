//! What a step costs, operator by operator: floating-point operations of the forward pass, of the way back through an operator
//! and into its parameter.
//!
//! *What it is.* The table of `GreenTrainer` (Huang et al., 2023, arXiv:2309.13192), with these corrections: operators stand in
//! the order in which the way back meets them, not in that of registration; a multiplication and its addition count as two;
//! attention between queries, keys and values is an operator of its own, not part of the values' bias; only pairs that a mask
//! admits count, and only logits that the loss reads; the product with a tied embedding is passed through at the head, while the
//! gradient of the table is complete, and paid for, at the embedding.
//!
//! *What it is not.* Milliseconds, or exact: rotations, activations, residual additions and softmaxes, a percent of a model's
//! arithmetic, are left out.

use super::{ArchSpec, BlockParts, FfnParts, LinearPart, Model, NormPart, NormPlacement, ProjectionParts};
use crate::{
    direction::{ParamId, ParamTable},
    kernels::Mask,
};

/// What a step computes: sizes that its costs follow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Tokens of each sequence.
    pub sequences: Vec<usize>,
    /// Logits that the loss reads.
    pub logits: usize,
    /// Rows that enter the head.
    pub head_rows: usize,
}

/// An operator, and its floating-point operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it is an operator of; none where it has no values of its own, or where those are paid for elsewhere.
    pub parameter: Option<ParamId>,
    /// Of the forward pass.
    pub forward: u64,
    /// Of the gradient by what it reads.
    pub through: u64,
    /// Of the gradient by its parameter.
    pub into: u64,
}

impl Model {
    /// What each operator costs, from the loss down; a parameter stands once.
    pub fn costs(&self, work: &Work) -> Vec<Operation> {
        let rows: usize = work.sequences.iter().sum();
        let mut costs = Costs { params: self.store().params(), rows: rows as u64, operations: Vec::new() };
        self.head_costs(work, &mut costs);
        let parts = self.parts();
        parts.project_out.into_iter().for_each(|part| costs.linear(part));
        parts.last_norm.into_iter().for_each(|part| costs.norm(part));
        let attention = attention(self.spec(), &work.sequences);
        parts.blocks.iter().rev().for_each(|block| costs.block(block, self.spec().norm.placement, attention));
        parts.embedding_norm.into_iter().for_each(|part| costs.norm(part));
        [parts.positions, parts.types].into_iter().flatten().for_each(|table| costs.table(table, 0));
        parts.project_in.into_iter().for_each(|part| costs.linear(part));
        costs.table(parts.tokens, if self.has_tied_head() { self.last_product(work) } else { 0 });
        costs.operations
    }

    /// Whether the last product is with the token vectors.
    fn has_tied_head(&self) -> bool {
        self.parts().head.is_some_and(|head| head.last.weight == self.parts().tokens)
    }

    /// Operations of the last product, and of each of its two gradients.
    fn last_product(&self, work: &Work) -> u64 {
        let params = self.store().params();
        self.parts().head.map_or(0, |head| {
            let width = params[head.last.weight].elements() / head.last.outputs;
            2 * work.logits as u64 * width as u64
        })
    }

    fn head_costs(&self, work: &Work, costs: &mut Costs<'_>) {
        let Some(head) = self.parts().head else { return };
        let product = self.last_product(work);
        if let Some(bias) = head.last.bias {
            costs.add(Some(bias), work.logits as u64, 0, work.logits as u64);
        }
        if self.has_tied_head() {
            costs.add(None, product, product, 0);
        } else {
            costs.add(Some(head.last.weight), product, product, product);
        }
        let rows = std::mem::replace(&mut costs.rows, work.head_rows as u64);
        head.norm.into_iter().for_each(|part| costs.norm(part));
        head.dense.into_iter().for_each(|part| costs.linear(part));
        costs.rows = rows;
    }
}

/// Forward operations of one block's attention: products of queries and keys, and of weights and values.
fn attention(spec: &ArchSpec, sequences: &[usize]) -> u64 {
    let pairs: u64 = sequences.iter().map(|&tokens| pairs(spec.attention.mask, tokens as u64)).sum();
    4 * pairs * spec.query_width() as u64
}

/// Pairs of a query and a key that it sees in a sequence.
fn pairs(mask: Mask, tokens: u64) -> u64 {
    match mask {
        Mask::Bidirectional => tokens * tokens,
        Mask::Causal => tokens * (tokens + 1) / 2,
        Mask::Window(window) => {
            let seen = tokens.min(window as u64);
            seen * (seen + 1) / 2 + (tokens - seen) * seen
        }
    }
}

/// Operations as they are met.
struct Costs<'p> {
    params: &'p ParamTable,
    /// Rows that go through.
    rows: u64,
    operations: Vec<Operation>,
}

impl Costs<'_> {
    fn add(&mut self, parameter: Option<ParamId>, forward: u64, through: u64, into: u64) {
        self.operations.push(Operation { parameter, forward, through, into });
    }

    /// A product with each row, there and twice back, with a bias that is added and summed, and the same of an adapter.
    fn linear(&mut self, part: LinearPart) {
        if let Some(bias) = part.bias {
            let sums = self.rows * part.outputs as u64;
            self.add(Some(bias), sums, 0, sums);
        }
        let adapter = part.adapter.map(|adapter| [adapter.b, adapter.a]);
        for weight in adapter.into_iter().flatten().chain([part.weight]) {
            let product = 2 * self.rows * self.params[weight].elements() as u64;
            self.add(Some(weight), product, product, product);
        }
    }

    /// Two sums over a row and its scaling; back through both, and one product each into the weight.
    fn norm(&mut self, part: NormPart) {
        let values = self.rows * self.params[part.weight].elements() as u64;
        if let Some(bias) = part.bias {
            self.add(Some(bias), values, 0, values);
        }
        self.add(Some(part.weight), 4 * values, 8 * values, 2 * values);
    }

    /// Rows of a table, and `more` operations into it.
    fn table(&mut self, table: ParamId, more: u64) {
        let values = self.rows * self.params[table].cols() as u64;
        self.add(Some(table), values, 0, values + more);
    }

    fn block(&mut self, block: &BlockParts, placement: NormPlacement, attention: u64) {
        let FfnParts { gate, up, down } = block.ffn;
        self.residual(block.ffn_norm, placement, |costs| {
            costs.linear(down);
            gate.into_iter().chain([up]).for_each(|part| costs.linear(part));
        });
        self.residual(block.attention_norm, placement, |costs| {
            costs.linear(block.out);
            // Back by weights and values, then by queries and keys.
            costs.add(None, attention, 2 * attention, 0);
            match block.projections {
                ProjectionParts::Split(parts) => parts.into_iter().rev().for_each(|part| costs.linear(part)),
                ProjectionParts::Fused(part) => costs.linear(part),
            }
        });
    }

    /// A layer and its norm, which the way back meets first if it follows the layer.
    fn residual(&mut self, norm: NormPart, placement: NormPlacement, layer: impl FnOnce(&mut Self)) {
        if placement == NormPlacement::After {
            self.norm(norm);
        }
        layer(self);
        if placement == NormPlacement::Before {
            self.norm(norm);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::reference::golden;

    const WORK: Work = Work { sequences: Vec::new(), logits: 0, head_rows: 0 };

    #[test]
    fn every_parameter_stands_once_and_linear_layers_cost_what_their_shapes_say() {
        for name in golden::NAMES {
            let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
            let work = Work { sequences: vec![7, 5], logits: 3 * model.spec().outputs(), head_rows: 3 };
            let costs = model.costs(&work);
            let mut of = BTreeMap::new();
            for cost in &costs {
                if let Some(id) = cost.parameter {
                    assert!(
                        of.insert(id, *cost).is_none(),
                        "{name}: {} stands twice",
                        model.store().params()[id].name()
                    );
                }
            }
            let missing = model.store().params().iter().find(|(id, _)| !of.contains_key(id));
            assert_eq!(missing.map(|(_, param)| param.name()), None, "{name}");
            for part in model.parts().blocks.iter().flat_map(BlockParts::linears) {
                let product = 2 * 12 * model.store().params()[part.weight].elements() as u64;
                let Operation { forward, through, into, .. } = of[&part.weight];
                assert_eq!([forward, through, into], [product; 3], "{name}");
            }
            // The first block's norm is deeper than anything of the last one.
            let at = |id| costs.iter().position(|cost| cost.parameter == Some(id)).expect("it stands there");
            let blocks = &model.parts().blocks;
            let last = blocks[blocks.len() - 1].params().map(at).max().expect("parameters");
            assert!(blocks[0].params().map(at).min().expect("parameters") > last || blocks.len() == 1, "{name}");
            assert!(at(model.parts().tokens) == costs.len() - 1, "{name}: all ways end at the tokens");
        }
    }

    #[test]
    fn pairs_are_those_that_a_mask_admits() {
        let count = |mask: Mask, tokens: u64| {
            let sees = |query: u64, key: u64| match mask {
                Mask::Bidirectional => true,
                Mask::Causal => key <= query,
                Mask::Window(window) => key <= query && query - key < window as u64,
            };
            (0..tokens).flat_map(|query| (0..tokens).map(move |key| (query, key))).filter(|&(q, k)| sees(q, k)).count()
        };
        for mask in [Mask::Bidirectional, Mask::Causal, Mask::Window(1), Mask::Window(3)] {
            for tokens in 0..9 {
                assert_eq!(pairs(mask, tokens), count(mask, tokens) as u64, "{mask:?}, {tokens} tokens");
            }
        }
    }

    #[test]
    fn nothing_costs_nothing() {
        let model = Model::open(&golden::directory("llama")).expect("a golden checkpoint");
        assert!(model.costs(&WORK).iter().all(|cost| (cost.forward, cost.through, cost.into) == (0, 0, 0)));
    }
}
