//! The layers under displacements: rows are those of lanes, parameters are as each lane sees them.

use std::{borrow::Cow, ops::Range};

use super::{
    KvCache, LinearPart, Model, NormPart, TrainPart,
    layers::{self, Columns, Mode, Rows},
    stream::{Grouped, Stream},
};
use crate::{
    direction::{Displacement, ExampleRows, Moves, ParamId},
    kernels::{
        Context,
        activation::{self, Activation},
        attention::{self, Inputs},
        elementwise,
        matmul::product,
        norm, tensor_train,
    },
    tensor::{MatMut, MatRef, Sequences},
};

/// One evaluation of a model: all lanes, over one batch.
pub(super) struct Pass<'a, 'w> {
    pub(super) cx: &'w Context,
    pub(super) model: &'a Model,
    pub(super) lanes: &'a [Displacement],
    pub(super) cache: Option<&'a mut KvCache>,
    /// The rows of a lane by their examples.
    pub(super) examples: &'a [ExampleRows],
}

/// A vector in every lane, or once if nothing moves it; in a lane once, or for each example.
pub(super) type Vectors<'a> = Vec<Vec<Cow<'a, [f32]>>>;

impl<'a, 'w> Pass<'a, 'w> {
    /// What the lanes make of a parameter.
    pub(super) fn moves(&self, id: ParamId) -> Moves<'a> {
        Moves::of(self.lanes, id, &self.model.store.params()[id]).over(self.examples)
    }

    /// A vector as every lane sees it.
    pub(super) fn vectors(&self, id: ParamId) -> Vectors<'a> {
        self.moves(id).values(self.cx, self.model.store.vector(id))
    }

    /// Adds a vector to the rows of every lane.
    fn add_bias(&self, bias: &Vectors<'_>, mut y: MatMut<'_>) {
        let rows = y.rows() / bias.len().max(1);
        for (lane, bias) in bias.iter().enumerate() {
            let mut own = y.row_range_mut(lane * rows..(lane + 1) * rows);
            for (bias, rows) in bias.iter().zip(spans(self.examples, rows, bias.len())) {
                elementwise::add_bias(self.cx, bias, own.row_range_mut(rows));
            }
        }
    }

    /// `y = x Wᵀ` of `rows` of each lane, `W` a train of cores.
    fn train(&mut self, part: TrainPart, x: &Stream<'w>, rows: Range<usize>, y: &mut Stream<'w>) {
        let moved = self.groups(part.cores.into_iter());
        let cores = self.cores(part, moved);
        let matrices: Vec<_> =
            (0..moved).map(|group| tensor_train::forward(self.cx, &layers::cores_of(&cores, group))).collect();
        for group in 0..x.groups() {
            let matrix = MatRef::new(&matrices[group % moved], part.outputs, part.inputs);
            let mut y = y.group_mut(group);
            product::nt(self.cx, x.group(group).row_range(rows.clone()), matrix, false, y.row_range_mut(rows.clone()));
        }
    }

    /// The weight and the bias of a normalisation in the first lane, which is that of no example.
    pub(super) fn norm_values(&self, part: NormPart) -> (Cow<'a, [f32]>, Option<Cow<'a, [f32]>>) {
        let first = |id| self.vectors(id).swap_remove(0).swap_remove(0);
        (first(part.weight), part.bias.map(first))
    }
}

/// The rows, of `rows` in one group, that each of `count` vectors is for: one for all of them, or one for each example's.
pub(super) fn spans(examples: &[ExampleRows], rows: usize, count: usize) -> Vec<Range<usize>> {
    if count <= 1 { std::iter::once(0..rows).collect() } else { examples.iter().map(|run| run.rows.clone()).collect() }
}

impl<'w> Mode<'w> for Pass<'_, 'w> {
    fn cx(&self) -> &'w Context {
        self.cx
    }
    fn model(&self) -> &Model {
        self.model
    }

    fn groups(&self, mut params: impl Iterator<Item = ParamId>) -> usize {
        let moved = params.any(|id| self.lanes.iter().any(|lane| lane.moves(id)));
        if moved { self.lanes.len() } else { 1 }
    }

    fn widen(&self, stream: Stream<'w>, groups: usize) -> Stream<'w> {
        stream.fork(self.cx, groups)
    }

    fn gather(&mut self, table: ParamId, ids: &[u32], groups: usize, width: usize) -> Stream<'w> {
        let moves = self.moves(table);
        let mut rows = Stream::new(self.cx, if moves.is_empty() { 1 } else { groups }, ids.len(), width);
        moves.gather(self.cx, self.model.store.weight(table), ids, rows.all_mut());
        rows.fork(self.cx, groups)
    }

    fn linear(&self, part: LinearPart, x: Grouped<'_>, mut y: MatMut<'_>) {
        let weight = (self.model.store.weight(part.weight), part.stored);
        let bias = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        let moves = self.moves(part.weight);
        if let [] | [_] = &bias[..] {
            return moves.linear(self.cx, x.rows, weight, bias.first().map(|bias| &*bias[0]), y);
        }
        moves.linear(self.cx, x.rows, weight, None, y.reborrow());
        self.add_bias(&bias, y);
    }

    fn tensor_train(&mut self, part: TrainPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = x.beside(self.cx, part.outputs);
        if self.lanes.iter().any(Displacement::is_per_example) {
            for run in self.examples {
                let lanes: Vec<_> = self.lanes.iter().map(|lane| lane.of_example(run.example)).collect();
                let mut alone = Pass { cx: self.cx, model: self.model, lanes: &lanes, cache: None, examples: &[] };
                alone.train(part, x, run.rows.clone(), &mut y);
            }
        } else {
            self.train(part, x, 0..x.rows(), &mut y);
        }
        let bias = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        self.add_bias(&bias, y.all_mut());
        y
    }

    fn norm(&mut self, part: NormPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = x.beside(self.cx, x.width());
        let weights = self.vectors(part.weight);
        let biases = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        let x = Grouped::new(x.all().rows, weights.len().max(biases.len()));
        for group in 0..x.groups {
            let weights = &weights[group % weights.len()];
            let biases = biases.get(group % biases.len().max(1)).map_or(&[][..], |biases| biases);
            let (x, range) = (x.group(group), x.range(group));
            let spans = spans(self.examples, range.len(), weights.len().max(biases.len()));
            for (span, rows) in spans.into_iter().enumerate() {
                let bias = biases.get(span % biases.len().max(1)).map(|bias| &**bias);
                let norm = self.model.spec.norm.over(&weights[span % weights.len()], bias);
                let own = range.start + rows.start..range.start + rows.end;
                norm::forward(self.cx, norm, x.row_range(rows), y.all_mut().row_range_mut(own));
            }
        }
        y
    }

    fn activate(&mut self, activation: Activation, x: &mut Stream<'w>) {
        activation::forward_in_place(self.cx, activation, x.values_mut());
    }

    fn gate(&mut self, activation: Activation, mut gate: Stream<'w>, up: Stream<'w>) -> Stream<'w> {
        activation::gated_forward_in_place(self.cx, activation, gate.values_mut(), up.values());
        gate
    }

    fn attend(&mut self, index: usize, rows: &Rows<'_>, x: &Stream<'w>, columns: &Columns) -> Stream<'w> {
        let mut out = x.beside(self.cx, self.model.spec.query_width());
        let inputs = layers::inputs(x.all().rows, columns);
        match &mut self.cache {
            None => {
                let sequences = rows.batch.sequences().repeat(x.groups());
                let layer = layers::attention(self.model, &sequences, &sequences);
                attention::forward(self.cx, &layer, inputs, out.all_mut());
            }
            Some(cache) => {
                let Inputs { q, k, v } = inputs;
                // Keys before those of the batch are the cache's, sequence by sequence.
                let going_on = rows.batch.sequences().iter().enumerate().filter(|(_, range)| !range.is_empty());
                for (sequence, range) in going_on {
                    let [k, v] = cache.extend(index, sequence, [k, v], range.clone());
                    let queries = Sequences::from_lengths([range.len()]);
                    let keys = Sequences::from_lengths([rows.starts[sequence] + range.len()]);
                    let inputs = Inputs { q: q.row_range(range.clone()), k, v };
                    let layer = layers::attention(self.model, &queries, &keys);
                    attention::forward(self.cx, &layer, inputs, out.all_mut().row_range_mut(range));
                }
            }
        }
        out
    }
}
