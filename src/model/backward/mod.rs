//! Reverse mode: the gradients of any of a model's parameters, from one pass forward and one back.
//!
//! *What it is.* The layers of [`super::layers`] run over a third mode, [`recorder`], which computes what a pass of one
//! lane computes and notes on a [`tape`] what the way back needs; [`reverse`] unwinds the tape. An operation is noted only
//! if something that is asked for lies at it or below it, and keeps its input only if its own gradient needs it: below the
//! deepest tensor asked for, and beside frozen ones, the pass is the plain forward. [`Gradients`] sums over batches and
//! displacements, [`Differentiated`] takes each parameter's gradient as soon as it is complete.
//!
//! *What it is not.* No losses but those over the head's rows, no optimizer.
//!
//! *What must stay true* (contract C1). An element of a gradient is one chain over labelled rows or tokens in batch order,
//! which continues from batch to batch: however a batch is cut, the bits are the same. Where a table is also the head's
//! matrix, each of its two uses has chains of its own, and the gradient is their sum, one rounding.

mod cost;
mod head;
mod operation;
mod recorder;
mod reverse;
mod tape;

use std::collections::BTreeMap;

use super::{
    Batch, Model, ModelError,
    layers::{self, Rows},
    pass::Pass,
    stream::Stream,
};
use crate::{
    direction::{Displacement, ParamId},
    kernels::{
        Context,
        cross_entropy::{Sums, Targets},
        elementwise, embedding,
        head::Scale,
    },
    tensor::{Block, MatMut, MatRef, Sequences},
};
pub use cost::Work;
pub use operation::Unit;
use recorder::Recorder;
use reverse::Reverse;
use tape::Tape;

/// A model that is differentiated, and what becomes of its gradients.
///
/// A pass asks for the model anew for each operation, so that a gradient may be applied to its parameter at once.
pub trait Differentiated {
    /// The model.
    fn model(&self) -> &Model;

    /// Takes the gradient of a parameter: complete, of its stored shape, row-major. Nothing of the pass reads this
    /// parameter's values any more; no other may change.
    fn take(&mut self, id: ParamId, gradient: Block<f32>);
}

/// A model that stays as it is, and a function that takes its gradients.
impl<F: FnMut(ParamId, Block<f32>)> Differentiated for (&Model, F) {
    fn model(&self) -> &Model {
        self.0
    }
    fn take(&mut self, id: ParamId, gradient: Block<f32>) {
        (self.1)(id, gradient);
    }
}

/// What a pass keeps of the values between layers for its way back. The choice changes no bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// All that gradients need.
    #[default]
    All,
    /// The input of each block, which is computed once more on the way back.
    BlockInputs,
}

/// How a batch is added to gradients.
#[derive(Clone, Copy, Debug)]
pub struct Summand<'a> {
    /// What to compute with.
    pub cx: &'a Context,
    /// Where the model is differentiated.
    pub at: &'a Displacement,
    /// Whether nothing is added after it: gradients are handed over as they become complete.
    pub is_last: bool,
}

/// Gradients with respect to some parameters, summed over batches.
#[derive(Debug)]
pub struct Gradients {
    wrt: Vec<ParamId>,
    kept: Kept,
    /// Of parameters of layers.
    chains: BTreeMap<ParamId, Block<f32>>,
    /// Of tables.
    lookups: BTreeMap<ParamId, Lookups>,
    handed_over: usize,
}

impl Gradients {
    /// Nothing yet, of the gradients with respect to `wrt`, in any order.
    pub fn new(wrt: &[ParamId], kept: Kept) -> Gradients {
        let mut wrt = wrt.to_vec();
        wrt.sort_unstable();
        wrt.dedup();
        Gradients { wrt, kept, chains: BTreeMap::new(), lookups: BTreeMap::new(), handed_over: 0 }
    }

    /// Adds the gradient of `Σ scale[r] · loss[r]` over `rows` of a batch against `targets`, which has one label per row,
    /// and answers the losses. Nothing is handed over if they are not finite.
    ///
    /// # Errors
    /// [`ModelError::NoHead`], [`ModelError::Token`], [`ModelError::TooLong`]: then nothing was added.
    ///
    /// # Panics
    /// If there are not such rows or as many scales, or if a label has no column.
    pub fn add_losses(
        &mut self,
        of: &mut dyn Differentiated,
        summand: Summand<'_>,
        batch: &Batch,
        rows: &[usize],
        targets: &Targets<'_>,
        scale: Scale<'_>,
    ) -> Result<Sums, ModelError> {
        assert_eq!(rows.len(), targets.labels.len(), "{} labels for {} rows", targets.labels.len(), rows.len());
        let batch = Rows::new(of.model(), batch, vec![0; batch.sequences().len()])?;
        let (tape, x) = self.record(of.model(), summand, &batch, rows)?;
        Ok(Reverse::new(self, of, summand, &batch, targets.examples).losses(tape, &x, targets, scale))
    }

    /// Adds the gradient of a function of the logits of `rows` of a batch at the entries `ids` of the vocabulary:
    /// `derivative` makes of them, `[rows, ids]`, the function's derivative by each. Nothing is handed over if one of these
    /// is not finite.
    ///
    /// # Errors
    /// As [`Gradients::add_losses`].
    ///
    /// # Panics
    /// If there are not such rows or entries, if an entry stands twice, or if there are not as many derivatives.
    pub fn add_logits(
        &mut self,
        of: &mut dyn Differentiated,
        summand: Summand<'_>,
        batch: &Batch,
        rows: &[usize],
        ids: &[u32],
        derivative: impl FnOnce(MatRef<'_>) -> Vec<f32>,
    ) -> Result<(), ModelError> {
        let batch = Rows::new(of.model(), batch, vec![0; batch.sequences().len()])?;
        let (tape, x) = self.record(of.model(), summand, &batch, rows)?;
        let examples = Sequences::from_lengths(rows.iter().map(|_| 1));
        Reverse::new(self, of, summand, &batch, &examples).logits(tape, &x, ids, derivative);
        Ok(())
    }

    /// What the head's last product reads of `rows`, and the tape of all before it.
    fn record<'w>(
        &self,
        model: &Model,
        summand: Summand<'w>,
        batch: &Rows<'_>,
        rows: &[usize],
    ) -> Result<(Tape<'w>, Stream<'w>), ModelError> {
        let head = model.head()?;
        let mut tape = Tape::default();
        let pass = Pass { cx: summand.cx, model, lanes: std::slice::from_ref(summand.at), cache: None, examples: &[] };
        let mut recorder = Recorder::new(pass, &self.wrt, self.kept, &mut tape);
        let hidden = layers::hidden(&mut recorder, batch, None);
        let x = layers::head_input(&mut recorder, head, &hidden, rows);
        recorder.expect(head.last.params());
        Ok((tape, x))
    }

    fn wants(&self, id: ParamId) -> bool {
        self.wrt.binary_search(&id).is_ok()
    }

    /// The chains of a parameter of a layer, which has so many values.
    fn chain(&mut self, cx: &Context, id: ParamId, elements: usize) -> &mut Block<f32> {
        self.chains.entry(id).or_insert_with(|| cx.workspace.zeros(elements))
    }

    /// Hands the gradient of a parameter over: the sum over its uses.
    fn hand_over(&mut self, cx: &Context, of: &mut dyn Differentiated, id: ParamId) {
        let param = &of.model().store.params()[id];
        let (elements, width) = (param.elements(), param.cols());
        // Rows that were not looked up, and what reaches no loss.
        let mut gradient = self.chains.remove(&id).unwrap_or_else(|| cx.workspace.zeros(elements));
        if let Some(lookups) = self.lookups.remove(&id) {
            lookups.add_to(cx, width, &mut gradient);
        }
        self.handed_over += 1;
        of.take(id, gradient);
    }
}

/// The chains of those rows of a table that were looked up: of 49,152 rows of a vocabulary a batch of 1024 tokens reads few.
#[derive(Debug, Default)]
struct Lookups {
    /// Where each row's chains are.
    places: BTreeMap<u32, u32>,
    chains: Vec<f32>,
}

impl Lookups {
    /// Continues the chains of rows `ids`, given the gradient of what was looked up.
    fn continue_by(&mut self, cx: &Context, ids: &[u32], bar: MatRef<'_>) {
        let mut place = |&id: &u32| {
            let next = self.places.len() as u32;
            *self.places.entry(id).or_insert(next)
        };
        let places: Vec<u32> = ids.iter().map(&mut place).collect();
        let rows = self.places.len();
        self.chains.resize(rows * bar.cols(), 0.0);
        embedding::backward(cx, bar, &places, 1.0, MatMut::new(&mut self.chains, rows, bar.cols()));
    }

    /// Adds each row's chains to the row of a matrix of so many columns.
    fn add_to(self, cx: &Context, width: usize, matrix: &mut [f32]) {
        for (row, place) in self.places {
            let [row, place] = [row, place].map(|at| at as usize * width..(at as usize + 1) * width);
            elementwise::add_assign(cx, &self.chains[place], &mut matrix[row]);
        }
    }
}
