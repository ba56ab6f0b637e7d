//! The layers under displacements: rows are those of lanes, parameters are as each lane sees them.

use std::borrow::Cow;

use super::{
    KvCache, LinearPart, Model, NormPart, TrainPart,
    layers::{self, Columns, Mode, Rows},
    stream::{Grouped, Stream},
};
use crate::{
    direction::{Displacement, Moves, ParamId},
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
}

impl<'a> Pass<'a, '_> {
    /// What the lanes make of a parameter.
    pub(super) fn moves(&self, id: ParamId) -> Moves<'a> {
        Moves::of(self.lanes, id, &self.model.store.params()[id])
    }

    /// A vector in every lane, or once if nothing moves it.
    pub(super) fn vectors(&self, id: ParamId) -> Vec<Cow<'a, [f32]>> {
        self.moves(id).values(self.cx, self.model.store.vector(id))
    }

    /// The weight and the bias of a normalisation in the first lane.
    pub(super) fn norm_values(&self, part: NormPart) -> (Cow<'a, [f32]>, Option<Cow<'a, [f32]>>) {
        let first = |id| self.vectors(id).swap_remove(0);
        (first(part.weight), part.bias.map(first))
    }
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
        if bias.len() <= 1 {
            return moves.linear(self.cx, x.rows, weight, bias.first().map(|bias| &**bias), y);
        }
        moves.linear(self.cx, x.rows, weight, None, y.reborrow());
        for (lane, bias) in bias.iter().enumerate() {
            elementwise::add_bias(self.cx, bias, y.row_range_mut(x.range(lane)));
        }
    }

    fn tensor_train(&mut self, part: TrainPart, x: &Stream<'w>) -> Stream<'w> {
        let (mut y, rows) = (x.beside(self.cx, part.outputs), x.all().rows);
        let groups = self.groups(part.cores.into_iter());
        let cores = self.cores(part, groups);
        let x = Grouped::new(rows, groups);
        for group in 0..groups {
            let matrix = tensor_train::forward(self.cx, &layers::cores_of(&cores, group));
            let matrix = MatRef::new(&matrix, part.outputs, part.inputs);
            product::nt(self.cx, x.group(group), matrix, false, y.all_mut().row_range_mut(x.range(group)));
        }
        let bias = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        let x = Grouped::new(rows, bias.len().max(1));
        for (lane, bias) in bias.iter().enumerate() {
            elementwise::add_bias(self.cx, bias, y.all_mut().row_range_mut(x.range(lane)));
        }
        y
    }

    fn norm(&mut self, part: NormPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = x.beside(self.cx, x.width());
        let weights = self.vectors(part.weight);
        let biases = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        let x = Grouped::new(x.all().rows, weights.len().max(biases.len()));
        for group in 0..x.groups {
            let weight = &weights[group % weights.len()];
            let bias = biases.get(group % biases.len().max(1)).map(|bias| &**bias);
            let norm = self.model.spec.norm.over(weight, bias);
            norm::forward(self.cx, norm, x.group(group), y.all_mut().row_range_mut(x.range(group)));
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
                for (sequence, range) in rows.batch.sequences().iter().enumerate() {
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
