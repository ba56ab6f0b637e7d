//! What a pass forward and back computes, operation by operation, in floating-point operations.
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
//! *What it is not.* Times, which differ from machine to machine and would make a run that decides by them do so too;
//! nor what is computed twice where memory is short ([`super::Kept`]), for the same reason.
//!
//! *What must stay true.* For any parameters asked for, what stands above the deepest of them, passed through, and
//! their own gradients are what the tape unwinds. Adapters of layers that stand side by side may cost less: each waits
//! for all.

use crate::{
    direction::ParamId,
    model::{
        ArchSpec, Batch, BlockParts, HeadParts, LinearPart, Model, ModelError, NormPart, NormPlacement, Positions,
        ProjectionParts, TrainPart,
    },
    weights::{Bottleneck, Place},
};

/// An operation of a pass, or the gradient of a parameter, in floating-point operations: a multiplication and an
/// addition count as two.
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

/// A value that is multiplied and added to: what operations between products count, of which exponentials and roots are
/// a fraction. In a block of D features they are of the order of 10/D of its products.
const ELEMENTWISE: usize = 2;

/// For a query, a key and a feature: scores, and the sum of values that they weigh.
const ATTEND: usize = 4;

/// The same on the way back: scores once more, then the gradients by what they weigh, and by values, queries and keys.
const ATTEND_BACK: usize = 10;

impl Model {
    /// What the losses of `rows` rows of a batch over `entries` entries of the vocabulary, or classes, and the
    /// gradients of all parameters cost. A table that is also the head's matrix stands at its lower end, where its
    /// gradient is complete.
    ///
    /// # Errors
    /// [`ModelError::NoHead`].
    pub fn work(&self, batch: &Batch, rows: usize, entries: usize) -> Result<Vec<Work>, ModelError> {
        let head = self.head()?;
        let mut descent = Descent { model: self, rows: batch.tokens(), work: Vec::new() };
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

/// A product of sizes: those of a model that exists, so that only an absurd batch reaches the end.
fn flops<const N: usize>(factors: [usize; N]) -> u64 {
    factors.into_iter().fold(1, |product, factor| product.saturating_mul(factor as u64))
}

/// The way down through a model.
struct Descent<'m> {
    model: &'m Model,
    /// Rows of the batch.
    rows: usize,
    work: Vec<Work>,
}

impl Descent<'_> {
    fn gradient(&mut self, id: ParamId, into: u64) {
        self.work.push(Work { parameter: Some(id), into, ..Work::default() });
    }

    fn passage(&mut self, forward: u64, through: u64) {
        self.work.push(Work { forward, through, ..Work::default() });
    }

    /// An operation between products on so many values, and its way back.
    fn elementwise(&mut self, values: usize) {
        let flops = flops([ELEMENTWISE, values]);
        self.passage(flops, flops);
    }

    fn elements(&self, id: ParamId) -> usize {
        self.model.store.params()[id].elements()
    }

    /// A product with a matrix, forward, by its input or by the matrix: they count the same.
    fn product(&self, weight: ParamId, rows: usize) -> u64 {
        flops([2, rows, self.elements(weight)])
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
        let product = flops([2, rows, part.inputs, part.outputs]);
        part.cores.into_iter().for_each(|core| self.gradient(core, product));
        let bias = flops([rows, part.outputs]);
        if let Some(id) = part.bias {
            self.gradient(id, bias);
        }
        self.passage(product + part.bias.map_or(0, |_| bias), product);
    }

    /// Linear layers that read the same rows.
    fn linears(&mut self, parts: &[LinearPart], rows: usize) {
        self.bottlenecks(parts, Place::After, rows);
        for part in parts {
            self.gradient(part.weight, self.product(part.weight, rows));
            if let Some(bias) = part.bias {
                self.gradient(bias, flops([rows, part.outputs]));
            }
        }
        let adapters: Vec<[LinearPart; 2]> = parts.iter().filter_map(|part| part.low_rank()).collect();
        if !adapters.is_empty() {
            self.elementwise(rows * adapters.iter().map(|[_, up]| up.outputs).sum::<usize>());
            adapters.iter().for_each(|[_, up]| self.gradient(up.weight, self.product(up.weight, rows)));
            let ups: u64 = adapters.iter().map(|[_, up]| self.product(up.weight, rows)).sum();
            self.passage(ups, ups);
            adapters.iter().for_each(|[down, _]| self.gradient(down.weight, self.product(down.weight, rows)));
        }
        let read = parts.iter().chain(adapters.iter().map(|[down, _]| down));
        let products = read.map(|part| self.product(part.weight, rows)).sum();
        let biases: u64 = parts.iter().filter(|part| part.bias.is_some()).map(|part| flops([rows, part.outputs])).sum();
        self.passage(products + biases, products);
        self.bottlenecks(parts, Place::Before, rows);
    }

    fn bottlenecks(&mut self, parts: &[LinearPart], place: Place, rows: usize) {
        let adapters = parts.iter().filter_map(|part| part.bottleneck()).filter(|adapter| adapter.place == place);
        adapters.for_each(|adapter| self.bottleneck(adapter, rows));
    }

    fn norm(&mut self, part: NormPart, rows: usize) {
        let values = rows * self.elements(part.weight);
        self.gradient(part.weight, flops([ELEMENTWISE, values]));
        if let Some(bias) = part.bias {
            self.gradient(bias, flops([values]));
        }
        self.elementwise(values);
    }

    /// The head down to the rows that it reads; answers what its matrix costs where that is also the table of tokens.
    fn head(&mut self, head: HeadParts, rows: usize, entries: usize) -> u64 {
        let HeadParts { dense, norm, last } = head;
        let width = self.elements(last.weight) / last.outputs;
        let product = flops([2, rows, entries, width]);
        let is_tied = last.weight == self.model.parts.tokens;
        if !is_tied {
            self.gradient(last.weight, product);
        }
        let bias = flops([rows, entries]);
        if let Some(id) = last.bias {
            self.gradient(id, bias);
        }
        self.passage(product + last.bias.map_or(0, |_| bias), product);
        if let Some(part) = norm {
            self.norm(part, rows);
        }
        if let Some(part) = dense {
            self.elementwise(rows * part.outputs);
            self.linears(&[part], rows);
        }
        if is_tied { product } else { 0 }
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
            let [forward, through] = [ATTEND, ATTEND_BACK].map(|each| flops([each, pairs, spec.query_width()]));
            descent.passage(forward, through);
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
        let values = self.rows * self.model.spec.hidden_size;
        for table in [parts.positions, parts.types].into_iter().flatten() {
            self.gradient(table, flops([values]));
        }
        if let Some(part) = parts.project_in {
            self.linears(&[part], self.rows);
        }
        self.gradient(parts.tokens, flops([self.rows, self.model.spec.embedding.width]).saturating_add(tied));
    }
}

#[cfg(test)]
mod tests;
