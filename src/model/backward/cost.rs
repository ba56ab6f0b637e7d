//! What a pass forward and back costs, operation by operation.
//!
//! *What it is.* [`Model::work`] goes through the layers as a tape is unwound, from the loss down. An operation that is
//! passed through and the gradient of a parameter stand apart, the second above the first: the way back ends at the
//! deepest parameter asked for and passes through nothing below it.
//!
//! Corrections to the table of `GreenTrainer` (Huang et al., 2023, arXiv:2309.13192): operations stand in the order of
//! execution, not of registration; the deepest parameter's own operation is not passed through, nor are those beside it
//! that read the same rows; attention is an operation of its own, not part of the values' bias, and counts the pairs
//! that a mask admits; of the head only rows and entries that the loss reads count; a tied table is passed through at
//! the head and paid for where its gradient is complete.
//!
//! *What it is not.* What an operation by itself costs ([`operation`](super::operation)), nor what is computed twice where memory is
//! short ([`super::Kept`]): a choice that changes no bit must not change what is selected.
//!
//! *What must stay true.* For any parameters asked for, what stands above the deepest of them, passed through, and
//! their own gradients are what the tape unwinds. Adapters of layers that stand side by side may cost less: each waits
//! for all.

use super::operation::{Operation, Price, Stopwatch, Unit};
use crate::{
    direction::ParamId,
    model::{
        ArchSpec, Batch, BlockParts, HeadParts, LinearPart, Model, ModelError, NormPart, NormPlacement, Positions,
        ProjectionParts, TrainPart,
    },
    weights::{Bottleneck, Place},
};

/// An operation of a pass, or the gradient of a parameter, in a [`Unit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Work {
    /// The parameter, if it is a gradient.
    pub parameter: Option<ParamId>,
    /// Of the operation itself.
    pub forward: u64,
    /// Of the gradient by what it reads.
    pub through: u64,
    /// Of the parameter's gradient.
    pub into: u64,
}

impl Model {
    /// What the losses of `rows` rows of a batch over `entries` entries of the vocabulary, or classes, and the
    /// gradients of all parameters cost. A table that is also the head's matrix stands at its lower end, where its
    /// gradient is complete.
    ///
    /// # Errors
    /// [`ModelError::NoHead`].
    pub fn work(&self, batch: &Batch, rows: usize, entries: usize, unit: Unit<'_>) -> Result<Vec<Work>, ModelError> {
        let head = self.head()?;
        let mut stopwatch = match unit {
            Unit::Flops => None,
            Unit::Nanoseconds(cx) => Some(Stopwatch::new(cx, self, batch.sequences())),
        };
        let mut price = |operation: Operation| match &mut stopwatch {
            None => operation.flops(),
            Some(stopwatch) => stopwatch.price(operation),
        };
        let mut descent = Descent { model: self, rows: batch.tokens(), price: &mut price, work: Vec::new() };
        let tied = descent.head(head, rows, entries);
        descent.leave();
        let pairs = pairs(&self.spec, batch);
        for block in self.parts.blocks.iter().rev() {
            descent.block(block, pairs);
        }
        descent.embed(tied);
        Ok(descent.work)
    }
}

/// Pairs of a query and a key that it sees.
fn pairs(spec: &ArchSpec, batch: &Batch) -> usize {
    let visible =
        |tokens: usize| -> usize { (0..tokens).map(|at| spec.attention.mask.visible(at, tokens).len()).sum() };
    batch.sequences().iter().map(|sequence| visible(sequence.len())).sum()
}

/// The way down through a model.
struct Descent<'m> {
    model: &'m Model,
    /// Rows of the batch.
    rows: usize,
    price: &'m mut dyn FnMut(Operation) -> Price,
    work: Vec<Work>,
}

impl Descent<'_> {
    fn gradient(&mut self, id: ParamId, into: u64) {
        self.work.push(Work { parameter: Some(id), into, ..Work::default() });
    }

    fn passage(&mut self, forward: u64, through: u64) {
        self.work.push(Work { forward, through, ..Work::default() });
    }

    fn price(&mut self, operation: Operation) -> Price {
        (self.price)(operation)
    }

    /// An operation between products on so many values, and its way back.
    fn elementwise(&mut self, values: usize) {
        let Price { forward, through, .. } = self.price(Operation::Elementwise { values });
        self.passage(forward, through);
    }

    fn elements(&self, id: ParamId) -> usize {
        self.model.store.params()[id].elements()
    }

    /// A product with a layer's matrix.
    fn product(&mut self, part: LinearPart, rows: usize) -> Price {
        let inputs = self.elements(part.weight) / part.outputs.max(1);
        self.price(Operation::Product { rows, inputs, outputs: part.outputs })
    }

    /// A bottleneck; that its result is added to what it read is not counted.
    fn bottleneck(&mut self, adapter: Bottleneck, rows: usize) {
        let [down, up] = [adapter.down(), adapter.up()].map(TrainPart::of);
        up.into_iter().rev().for_each(|part| self.train(part, rows));
        self.elementwise(rows * adapter.width);
        down.into_iter().rev().for_each(|part| self.train(part, rows));
    }

    /// A product with a train. Its cores are made one matrix once a pass, whatever its rows: that is not counted. Each core
    /// pays for the gradient of that matrix, which they share.
    fn train(&mut self, part: TrainPart, rows: usize) {
        let product = self.price(Operation::Product { rows, inputs: part.inputs, outputs: part.outputs });
        part.cores.into_iter().for_each(|core| self.gradient(core, product.into));
        let bias = self.bias(part.bias, rows, part.outputs);
        self.passage(product.forward + bias, product.through);
    }

    /// The gradient of a bias, if there is one; answers what it costs forward.
    fn bias(&mut self, bias: Option<ParamId>, rows: usize, width: usize) -> u64 {
        bias.map_or(0, |id| {
            let Price { forward, into, .. } = self.price(Operation::Bias { rows, width });
            self.gradient(id, into);
            forward
        })
    }

    /// Linear layers that read the same rows.
    fn linears(&mut self, parts: &[LinearPart], rows: usize) {
        self.bottlenecks(parts, Place::After, rows);
        let mut biases = 0;
        for &part in parts {
            let Price { into, .. } = self.product(part, rows);
            self.gradient(part.weight, into);
            biases += self.bias(part.bias, rows, part.outputs);
        }
        let adapters: Vec<[LinearPart; 2]> = parts.iter().filter_map(|part| part.low_rank()).collect();
        if !adapters.is_empty() {
            self.elementwise(rows * adapters.iter().map(|[_, up]| up.outputs).sum::<usize>());
            let [forward, through] = self.gradients(adapters.iter().map(|[_, up]| *up), rows);
            self.passage(forward, through);
        }
        let [forward, through] = self.gradients(adapters.iter().map(|[down, _]| *down), rows);
        let products: Vec<Price> = parts.iter().map(|part| self.product(*part, rows)).collect();
        let of_parts = |of: fn(&Price) -> u64| products.iter().map(of).sum::<u64>();
        self.passage(forward + of_parts(|it| it.forward) + biases, through + of_parts(|it| it.through));
        self.bottlenecks(parts, Place::Before, rows);
    }

    /// The gradients of layers' matrices; answers what it costs to pass through all of them, forward and back.
    fn gradients(&mut self, parts: impl Iterator<Item = LinearPart>, rows: usize) -> [u64; 2] {
        parts.fold([0; 2], |[forward, through], part| {
            let price = self.product(part, rows);
            self.gradient(part.weight, price.into);
            [forward + price.forward, through + price.through]
        })
    }

    fn bottlenecks(&mut self, parts: &[LinearPart], place: Place, rows: usize) {
        let adapters = parts.iter().filter_map(|part| part.bottleneck()).filter(|adapter| adapter.place == place);
        adapters.for_each(|adapter| self.bottleneck(adapter, rows));
    }

    fn norm(&mut self, part: NormPart, rows: usize) {
        let width = self.elements(part.weight);
        let Price { forward, through, into } = self.price(Operation::Norm { rows, width });
        self.gradient(part.weight, into);
        // Its forward pass adds the bias where it is.
        self.bias(part.bias, rows, width);
        self.passage(forward, through);
    }

    /// The head down to the rows that it reads; answers what its matrix costs where that is also the table of tokens.
    fn head(&mut self, head: HeadParts, rows: usize, entries: usize) -> u64 {
        let HeadParts { dense, norm, last } = head;
        let width = self.elements(last.weight) / last.outputs;
        let product = self.price(Operation::Product { rows, inputs: width, outputs: entries });
        let is_tied = last.weight == self.model.parts.tokens;
        if !is_tied {
            self.gradient(last.weight, product.into);
        }
        let bias = self.bias(last.bias, rows, entries);
        self.passage(product.forward + bias, product.through);
        if let Some(part) = norm {
            self.norm(part, rows);
        }
        if let Some(part) = dense {
            self.elementwise(rows * part.outputs);
            self.linears(&[part], rows);
        }
        if is_tied { product.into } else { 0 }
    }

    /// Between the last block and the head.
    fn leave(&mut self) {
        let (norm, project) = (self.model.parts.last_norm, self.model.parts.project_out);
        if let Some(part) = project {
            self.linears(&[part], self.rows);
        }
        if let Some(part) = norm {
            self.norm(part, self.rows);
        }
    }

    fn block(&mut self, block: &BlockParts, pairs: usize) {
        let (rows, spec) = (self.rows, &self.model.spec);
        self.residual(block.ffn_norm, |descent| {
            descent.linears(&[block.ffn.down], rows);
            let inner: Vec<_> = block.ffn.gate.into_iter().chain([block.ffn.up]).collect();
            descent.elementwise(rows * spec.ffn.width * inner.len());
            descent.linears(&inner, rows);
        });
        self.residual(block.attention_norm, |descent| {
            descent.linears(&[block.out], rows);
            let attention = descent.price(Operation::Attention { pairs, width: spec.query_width() });
            descent.passage(attention.forward, attention.through);
            if let Positions::Rope { .. } = spec.embedding.positions {
                descent.elementwise(rows * (spec.query_width() + spec.key_width()));
            }
            match &block.projections {
                ProjectionParts::Split(parts) => descent.linears(parts, rows),
                ProjectionParts::Fused(part) => descent.linears(&[*part], rows),
            }
        });
    }

    /// A layer and its normalisation; that the layer's result is added to what it read is not counted.
    fn residual(&mut self, norm: NormPart, layer: impl FnOnce(&mut Self)) {
        let is_before = self.model.spec.norm.placement == NormPlacement::Before;
        if !is_before {
            self.norm(norm, self.rows);
        }
        layer(self);
        if is_before {
            self.norm(norm, self.rows);
        }
    }

    /// The tables; `tied` is what that of tokens costs as the head's matrix.
    fn embed(&mut self, tied: u64) {
        let parts = &self.model.parts;
        if let Some(part) = parts.embedding_norm {
            self.norm(part, self.rows);
        }
        let lookup = |width: usize| Operation::Lookup { rows: self.rows, width };
        let [of_positions, of_tokens] = [lookup(self.model.spec.hidden_size), lookup(self.model.spec.embedding.width)];
        for table in [parts.positions, parts.types].into_iter().flatten() {
            let Price { into, .. } = self.price(of_positions);
            self.gradient(table, into);
        }
        if let Some(part) = parts.project_in {
            self.linears(&[part], self.rows);
        }
        let Price { into, .. } = self.price(of_tokens);
        self.gradient(parts.tokens, into.saturating_add(tied));
    }
}

#[cfg(test)]
mod tests;
