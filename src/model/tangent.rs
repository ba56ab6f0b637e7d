//! The tangent pass: the loss at θ and its exact derivative along several directions, from one pass over the weights.
//!
//! *What it is.* The layers of [`super::layers`] over rows and their changes. Group 0 of a stream is the forward pass,
//! each other group its derivative along one direction (forward mode, Wengert, 1964): for a linear layer
//! `ẏ = ẋ Wᵀ + x żᵀ`, where the first product packs the weight once for all groups.
//!
//! *What it is not.* No differences: there is no ε and nothing cancels. No displaced lanes: slopes are those at θ.
//!
//! *What must stay true* (contract C1). The values, and the loss, have the bits of [`Model::forward`] at θ. A direction's
//! slope has the same bits in any company. Changes are carried from the first stage on whose parameters the direction
//! moves; before it they are zero and do not exist, so a direction that moves nothing has a slope of +0.

use std::{ops::Range, sync::Arc};

use super::{
    Batch, LinearPart, Model, ModelError, NormPart, TrainPart,
    layers::{self, Columns, Mode, Rows},
    pass::spans,
    stream::{Grouped, Stream},
};
use crate::{
    direction::{DirectionSet, ExampleRows, ParamId, Tangents},
    kernels::{
        Context,
        activation::{self, Activation},
        attention, cross_entropy,
        cross_entropy::{Sums, Targets, Vocabulary},
        elementwise, head,
        matmul::{self, product},
        norm::{self, NormTangent},
        tensor_train,
    },
    tensor::{MatMut, MatRef},
};

/// The hidden states of a batch at θ and their derivatives along directions.
pub struct Tangent<'a, 'w> {
    pass: Pass<'a, 'w>,
    stream: Stream<'w>,
}

/// Something at θ, and its derivative along each direction in the order they were given.
#[derive(Clone, Debug, PartialEq)]
pub struct Slopes<T> {
    /// The value.
    pub value: T,
    /// The derivatives.
    pub slopes: Vec<T>,
}

impl<T> Slopes<T> {
    /// The value and its derivatives, each through `function`.
    pub fn map<U>(self, mut function: impl FnMut(T) -> U) -> Slopes<U> {
        Slopes { value: function(self.value), slopes: self.slopes.into_iter().map(function).collect() }
    }
}

impl Model {
    /// The hidden states of `batch` at θ and their derivatives along each of `along`.
    ///
    /// # Errors
    /// [`ModelError::Token`], [`ModelError::TooLong`].
    pub fn tangent<'a, 'w>(
        &'a self,
        cx: &'w Context,
        batch: &Batch,
        along: &'a [Arc<DirectionSet>],
    ) -> Result<Tangent<'a, 'w>, ModelError> {
        let rows = Rows::new(self, batch, vec![0; batch.sequences().len()])?;
        let mut pass = Pass::new(cx, self, along, batch.example_rows());
        let stream = layers::hidden(&mut pass, &rows, None);
        Ok(Tangent { pass, stream })
    }
}

impl<'a, 'w> Tangent<'a, 'w> {
    /// The loss of `rows` of the batch against `targets`, which has one label per row, and its slopes.
    ///
    /// # Errors
    /// [`ModelError::NoHead`].
    ///
    /// # Panics
    /// If there are not such rows, or a label has no column.
    pub fn losses(&mut self, rows: &[usize], targets: &Targets<'_>) -> Result<Slopes<Sums>, ModelError> {
        assert_eq!(rows.len(), targets.labels.len(), "{} labels for {} rows", targets.labels.len(), rows.len());
        if let Vocabulary::Only(_) = targets.vocabulary {
            let Slopes { value, slopes } = self.logits(rows, targets.vocabulary)?;
            let (cx, shape) = (self.pass.cx, (rows.len(), targets.vocabulary.len()));
            let logits = MatRef::new(&value, shape.0, shape.1);
            let slope =
                |dot: &Vec<f32>| cross_entropy::tangent(cx, targets, logits, MatRef::new(dot, shape.0, shape.1));
            let slopes = slopes.iter().map(slope).collect();
            return Ok(Slopes { value: cross_entropy::forward(cx, targets, logits), slopes });
        }
        let last = self.pass.model.head()?.last;
        let (pass, x) = self.head_input(rows)?;
        let groups = x.groups();
        let product = |rows: &[usize], x: MatRef<'_>, logits: MatMut<'_>| {
            pass.at(rows).linear(last, Grouped::new(x, groups), logits);
        };
        let (value, slopes) = head::tangent_by(pass.cx, x.all().rows, groups, targets, product);
        let still = Sums { per_example: vec![0.0; value.per_example.len()], total: 0.0, ..value.clone() };
        Ok(Slopes { value, slopes: pass.in_order(&slopes, &still) })
    }

    /// The logits `[rows, vocabulary]` of `rows` of the batch and their slopes.
    ///
    /// # Errors
    /// [`ModelError::NoHead`].
    ///
    /// # Panics
    /// If there are not such rows or entries of the vocabulary.
    pub fn logits(&mut self, rows: &[usize], vocabulary: Vocabulary<'_>) -> Result<Slopes<Vec<f32>>, ModelError> {
        let last = self.pass.model.head()?.last;
        let (mut pass, x) = self.head_input(rows)?;
        let logits = match vocabulary {
            Vocabulary::Full(_) => pass.product(last, &x),
            Vocabulary::Only(ids) => pass.entries(last, &x, ids),
        };
        let values = |group| (0..rows.len()).flat_map(|row| logits.group(group).row(row).to_vec()).collect();
        let value: Vec<f32> = values(0);
        let slopes: Vec<Vec<f32>> = (1..logits.groups()).map(values).collect();
        let still = vec![0.0; value.len()];
        Ok(Slopes { value, slopes: pass.in_order(&slopes, &still) })
    }

    /// What the last product of the head reads, and the pass of these rows.
    fn head_input(&self, rows: &[usize]) -> Result<(Pass<'a, 'w>, Stream<'w>), ModelError> {
        let head = self.pass.model.head()?;
        let mut pass = self.pass.at(rows);
        let x = layers::head_input(&mut pass, head, &self.stream, rows);
        let x = pass.enter(x, head.last.params());
        Ok((pass, x))
    }
}

/// One evaluation of a model at θ and along directions, over one batch.
#[derive(Clone)]
struct Pass<'a, 'w> {
    cx: &'w Context,
    model: &'a Model,
    /// The directions by the first parameter that they move: those that have a group of rows are always the first ones.
    along: Vec<(ParamId, &'a DirectionSet)>,
    /// Where each direction that was given is among them; `None` if it moves nothing.
    places: Vec<Option<usize>>,
    /// The rows of a group by their examples.
    examples: Vec<ExampleRows>,
}

impl<'a, 'w> Pass<'a, 'w> {
    fn new(cx: &'w Context, model: &'a Model, given: &'a [Arc<DirectionSet>], examples: Vec<ExampleRows>) -> Self {
        let first = |set: &DirectionSet| set.params().min();
        let mut order: Vec<usize> = (0..given.len()).filter(|&at| first(&given[at]).is_some()).collect();
        order.sort_by_key(|&at| first(&given[at]));
        let along = order.iter().filter_map(|&at| Some((first(&given[at])?, &*given[at]))).collect();
        let places = (0..given.len()).map(|at| order.iter().position(|&other| other == at)).collect();
        Pass { cx, model, along, places, examples }
    }

    /// The same over `rows` of each group alone.
    fn at(&self, rows: &[usize]) -> Self {
        Pass { examples: ExampleRows::select(&self.examples, rows), ..self.clone() }
    }

    /// Slopes in the order in which directions were given; `still` for those that have none.
    fn in_order<T: Clone>(&self, slopes: &[T], still: &T) -> Vec<T> {
        let slope = |place: &Option<usize>| place.and_then(|at| slopes.get(at)).unwrap_or(still).clone();
        self.places.iter().map(slope).collect()
    }

    /// What the directions of `groups` groups make of a parameter.
    fn tangents(&self, id: ParamId, groups: usize) -> Tangents<'_> {
        let sets = self.along[..groups - 1].iter().map(|(_, set)| *set);
        Tangents::of(sets, id, &self.model.store.params()[id]).over(&self.examples)
    }

    /// Adds a bias to the values, and its change along each direction to theirs.
    fn add_bias(&self, id: ParamId, groups: Grouped<'_>, y: &mut MatMut<'_>) {
        let bias = self.model.store.vector(id);
        elementwise::add_bias(self.cx, bias, y.row_range_mut(groups.range(0)));
        for (at, changes) in self.tangents(id, groups.groups).values(self.cx, bias).iter().enumerate() {
            let mut own = y.row_range_mut(groups.range(at + 1));
            for (change, rows) in changes.iter().zip(spans(&self.examples, groups.range(0).len(), changes.len())) {
                elementwise::add_bias(self.cx, change, own.row_range_mut(rows));
            }
        }
    }

    /// Calls `f` with a pass whose directions are those of all of some rows, and these: this one and all of `rows`, or
    /// each example's own.
    fn each_alone(&mut self, rows: usize, mut f: impl FnMut(&mut Pass<'_, 'w>, Range<usize>)) {
        if !self.along.iter().any(|(_, set)| set.is_per_example()) {
            return f(self, 0..rows);
        }
        let &mut Pass { cx, model, ref along, ref examples, .. } = self;
        for run in examples {
            let sets: Vec<_> = along.iter().map(|(_, set)| set.of_example(run.example)).collect();
            let along = along.iter().zip(&sets).map(|((first, _), set)| (*first, set)).collect();
            f(&mut Pass { cx, model, along, places: Vec::new(), examples: Vec::new() }, run.rows.clone());
        }
    }

    /// The logits of some entries of the vocabulary, each example's along its own directions if it has some.
    fn entries(&mut self, last: LinearPart, x: &Stream<'w>, ids: &[u32]) -> Stream<'w> {
        let mut logits = x.beside(self.cx, ids.len());
        self.each_alone(x.rows(), |pass, rows| pass.entries_of(last, x, rows, ids, &mut logits));
        logits
    }

    /// The same for `rows` of each group: the entries' rows of the matrix, and the changes of these, are taken out.
    fn entries_of(
        &mut self,
        last: LinearPart,
        x: &Stream<'w>,
        rows: Range<usize>,
        ids: &[u32],
        logits: &mut Stream<'w>,
    ) {
        let model = self.model;
        let entries = self.gather(last.weight, ids, x.groups(), x.width());
        let moved = self.tangents(last.weight, x.groups());
        let select = |values: &[f32]| ids.iter().map(|&id| values[id as usize]).collect::<Vec<f32>>();
        let bias = last.bias.map(|id| model.store.vector(id));
        let bias_changes: Vec<_> = last.bias.zip(bias).map_or_else(Vec::new, |(id, bias)| {
            let changes = self.tangents(id, x.groups()).values(self.cx, bias);
            changes.iter().map(|z| z.first().map(|z| select(z))).collect()
        });
        let bias = bias.map(select);
        let own = |group: usize| x.group(group).row_range(rows.clone());
        for group in 0..x.groups() {
            let (weight, mut y) = (entries.group(0), logits.group_mut(group));
            let y = y.row_range_mut(rows.clone());
            if group == 0 {
                matmul::forward(self.cx, own(0), &weight, bias.as_deref(), y);
                continue;
            }
            let change = moved.moves(group - 1).then(|| entries.group(group));
            let bias = bias_changes.get(group - 1).and_then(Option::as_deref);
            let (x, w) = ((own(0), Some(own(group))), (&weight, change.as_ref()));
            matmul::backward::tangent(self.cx, x, w, bias, y);
        }
    }

    /// `y = x Wᵀ` of `rows` of each group, `W` a train of cores.
    fn train(&mut self, part: TrainPart, x: &Stream<'w>, rows: Range<usize>, y: &mut Stream<'w>) {
        let groups = x.groups();
        let cores = self.cores(part, groups);
        let values = layers::cores_of(&cores, 0);
        let matrix = tensor_train::forward(self.cx, &values);
        let matrix = MatRef::new(&matrix, part.outputs, part.inputs);
        let tangents = part.cores.map(|id| self.tangents(id, groups));
        for group in 0..groups {
            let mut y = y.group_mut(group);
            let mut y = y.row_range_mut(rows.clone());
            product::nt(self.cx, x.group(group).row_range(rows.clone()), matrix, false, y.reborrow());
            let Some(direction) = group.checked_sub(1) else { continue };
            let changes = layers::cores_of(&cores, group);
            let changes = std::array::from_fn::<_, 3, _>(|at| tangents[at].moves(direction).then_some(changes[at]));
            if let Some(change) = tensor_train::tangent(self.cx, &values, &changes) {
                let change = MatRef::new(&change, part.outputs, part.inputs);
                product::nt(self.cx, x.group(0).row_range(rows.clone()), change, true, y);
            }
        }
    }
}

impl<'w> Mode<'w> for Pass<'_, 'w> {
    fn cx(&self) -> &'w Context {
        self.cx
    }
    fn model(&self) -> &Model {
        self.model
    }

    /// A direction whose first parameter is beyond all of these has not begun. Parameters are numbered in the order of the
    /// pass, those of adapters after all others: a direction of both kinds may be carried, as zeros, before it begins.
    fn groups(&self, params: impl Iterator<Item = ParamId>) -> usize {
        let reached = params.max();
        1 + self.along.partition_point(|(first, _)| Some(*first) <= reached)
    }

    fn widen(&self, stream: Stream<'w>, groups: usize) -> Stream<'w> {
        stream.extend(self.cx, groups)
    }

    fn gather(&mut self, table: ParamId, ids: &[u32], groups: usize, width: usize) -> Stream<'w> {
        let mut rows = Stream::new(self.cx, groups, ids.len(), width);
        self.tangents(table, groups).gather(self.cx, self.model.store.weight(table), ids, rows.all_mut());
        rows
    }

    fn linear(&self, part: LinearPart, x: Grouped<'_>, mut y: MatMut<'_>) {
        let weight = (self.model.store.weight(part.weight), part.stored);
        self.tangents(part.weight, x.groups).linear(self.cx, x.rows, weight, y.reborrow());
        if let Some(id) = part.bias {
            self.add_bias(id, x, &mut y);
        }
    }

    fn tensor_train(&mut self, part: TrainPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = x.beside(self.cx, part.outputs);
        self.each_alone(x.rows(), |pass, rows| pass.train(part, x, rows, &mut y));
        if let Some(id) = part.bias {
            self.add_bias(id, x.all(), &mut y.all_mut());
        }
        y
    }

    fn norm(&mut self, part: NormPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = x.beside(self.cx, x.width());
        let (store, spec) = (&self.model.store, &self.model.spec.norm);
        let changes = |id: ParamId| self.tangents(id, x.groups()).values(self.cx, store.vector(id));
        let weight = store.vector(part.weight);
        let norm = spec.over(weight, part.bias.map(|id| store.vector(id)));
        norm::forward(self.cx, norm, x.group(0), y.group_mut(0));
        let (weights, biases) = (changes(part.weight), part.bias.map(changes).unwrap_or_default());
        let still = vec![0.0; weight.len()];
        for (at, weights) in weights.iter().enumerate() {
            let (group, biases) = (at + 1, biases.get(at).map_or(&[][..], |biases| biases));
            let spans = spans(&self.examples, x.rows(), weights.len().max(biases.len()));
            for (span, rows) in spans.into_iter().enumerate() {
                let [weight, bias] = [weights, biases].map(|of| of.get(span % of.len().max(1)).map(|z| &**z));
                let moved = (weight.is_some() || bias.is_some())
                    .then(|| NormTangent { weight: weight.unwrap_or(&still), bias });
                let [value, change] = [0, group].map(|group| x.group(group).row_range(rows.clone()));
                norm::tangent(self.cx, norm, value, change, moved, y.group_mut(group).row_range_mut(rows));
            }
        }
        y
    }

    fn activate(&mut self, activation: Activation, x: &mut Stream<'w>) {
        let mut groups = x.each();
        let Some(value) = groups.next() else { return };
        groups.for_each(|change| activation::backward_in_place(self.cx, activation, value, change));
        activation::forward_in_place(self.cx, activation, value);
    }

    fn gate(&mut self, activation: Activation, mut gate: Stream<'w>, mut up: Stream<'w>) -> Stream<'w> {
        let mut out = gate.beside(self.cx, gate.width());
        let groups = gate.each().zip(up.each()).zip(out.each());
        let mut values: [&[f32]; 2] = [&[], &[]];
        for (group, ((gate, up), out)) in groups.enumerate() {
            if group == 0 {
                activation::gated_forward(self.cx, activation, gate, up, out);
                values = [gate, up];
            } else {
                activation::gated_tangent(self.cx, activation, values, [gate, up], out);
            }
        }
        out
    }

    fn attend(&mut self, _: usize, rows: &Rows<'_>, x: &Stream<'w>, columns: &Columns) -> Stream<'w> {
        let mut out = x.beside(self.cx, self.model.spec.query_width());
        let sequences = rows.batch.sequences();
        let layer = layers::attention(self.model, sequences, sequences);
        let inputs = |group| layers::inputs(x.group(group), columns);
        attention::forward(self.cx, &layer, inputs(0), out.group_mut(0));
        for group in 1..x.groups() {
            attention::tangent(self.cx, &layer, inputs(0), inputs(group), out.group_mut(group));
        }
        out
    }
}
