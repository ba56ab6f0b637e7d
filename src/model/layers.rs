//! The layers of every model, written once, over the operations of a mode.
//!
//! *What it is.* The order in which the parts of a model meet the rows of a ragged batch. A [`Mode`] says what a row is
//! and what an operation does to it: [`super::pass`] carries the rows of displaced lanes, [`super::tangent`] rows and
//! their changes along directions. *What it is not.* Arithmetic. *What must stay true*: what families differ in is data.
//!
//! Shapes: `T` rows (tokens), `D` hidden size; the rows of all groups of a [`Stream`] are stacked.

use std::{ops::Range, sync::Arc};

use super::{
    Batch, BlockParts, Head, HeadParts, LinearPart, Model, NormPart, NormPlacement, Positions, ProjectionParts,
    forward::Observer,
    stream::{Grouped, Stream},
};
use crate::{
    direction::ParamId,
    kernels::{
        Context,
        activation::Activation,
        attention::{Attention, Inputs},
        elementwise,
        rope::{self, RopeTable},
    },
    tensor::{MatMut, MatRef, Sequences},
};

/// What the rows of a pass have in common.
pub(super) struct Rows<'a> {
    pub(super) batch: &'a Batch,
    /// Tokens of each sequence before its first row.
    pub(super) starts: Vec<usize>,
    positions: Vec<u32>,
    rope: Option<Arc<RopeTable>>,
}

impl<'a> Rows<'a> {
    /// The rows of `batch`, checked, sequence `b` going on after `starts[b]` tokens.
    pub(super) fn new(model: &Model, batch: &'a Batch, starts: Vec<usize>) -> Result<Self, super::ModelError> {
        batch.check(&model.spec, &starts)?;
        let positions = batch.positions(&starts);
        let reach = positions.iter().max().map_or(0, |&last| last as usize + 1);
        Ok(Rows { batch, starts, rope: model.rope(reach), positions })
    }
}

/// The operations that layers are made of.
pub(super) trait Mode<'w> {
    fn cx(&self) -> &'w Context;
    fn model(&self) -> &Model;

    /// How many groups of rows a stage with these parameters needs.
    fn groups(&self, params: impl Iterator<Item = ParamId>) -> usize;

    /// `stream` with as many groups.
    fn widen(&self, stream: Stream<'w>, groups: usize) -> Stream<'w>;

    /// Rows `ids` of a table, of `width` columns, in each of `groups` groups.
    fn gather(&self, table: ParamId, ids: &[u32], groups: usize, width: usize) -> Stream<'w>;

    /// `y = x Wᵀ (+ bias)`, without an adapter.
    fn linear(&self, part: LinearPart, x: Grouped<'_>, y: MatMut<'_>);

    /// `norm(x)`.
    fn norm(&self, part: NormPart, x: &Stream<'w>) -> Stream<'w>;

    /// `x = activation(x)`.
    fn activate(&self, activation: Activation, x: &mut Stream<'w>);

    /// `activation(gate) · up`.
    fn gate(&self, activation: Activation, gate: Stream<'w>, up: Stream<'w>) -> Stream<'w>;

    /// Attention of block `index` over queries, keys and values, the columns of `x`.
    fn attend(&mut self, index: usize, rows: &Rows<'_>, x: &Stream<'w>, columns: [Range<usize>; 3]) -> Stream<'w>;

    /// `stream` as a stage with these parameters needs it.
    fn enter(&self, stream: Stream<'w>, params: impl Iterator<Item = ParamId>) -> Stream<'w> {
        let groups = self.groups(params).max(stream.groups());
        self.widen(stream, groups)
    }

    /// [`Mode::linear`], and what the layer's adapter adds: `scale · (x Aᵀ) Bᵀ`.
    fn adapted(&self, part: LinearPart, x: Grouped<'_>, mut y: MatMut<'_>) {
        self.linear(part, x, y.reborrow());
        if let (Some([down, up]), Some(lora)) = (part.adapter_layers(), &self.model().lora) {
            let mut inner = Stream::like(self.cx(), x, down.outputs);
            self.linear(down, x, inner.all_mut());
            let mut change = inner.beside(self.cx(), up.outputs);
            self.linear(up, inner.all(), change.all_mut());
            elementwise::axpy_rows(self.cx(), lora.scale(), change.all().rows, y);
        }
    }

    /// A linear layer into rows of its own.
    fn product(&self, part: LinearPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = x.beside(self.cx(), part.outputs);
        self.adapted(part, x.all(), y.all_mut());
        y
    }
}

/// What enters the head: `[T, width]`. `observer` is shown what [`Observer`] says.
pub(super) fn hidden<'w, M: Mode<'w>>(
    mode: &mut M,
    rows: &Rows<'_>,
    mut observer: Option<&mut Observer<'_>>,
) -> Stream<'w> {
    let mut stream = embed(mode, rows);
    let blocks = mode.model().parts.blocks.len();
    for index in 0..blocks {
        if let Some(observer) = &mut observer {
            observer(index, stream.all().rows);
        }
        let block = mode.model().parts.blocks[index];
        stream = mode.enter(stream, block.params());
        stream = attention_layer(mode, index, &block, rows, stream);
        stream = feed_forward(mode, &block, stream);
    }
    let stream = leave(mode, stream);
    if let Some(observer) = &mut observer {
        observer(blocks, stream.all().rows);
    }
    stream
}

/// From tokens to the residual stream.
fn embed<'w, M: Mode<'w>>(mode: &M, rows: &Rows<'_>) -> Stream<'w> {
    let (parts, spec) = (&mode.model().parts, &mode.model().spec);
    let norm = parts.embedding_norm.map(NormPart::params).into_iter().flatten();
    let project = parts.project_in.map(|part| part.weight);
    let entries = [Some(parts.tokens), parts.types, parts.positions, project].into_iter().flatten();
    let groups = mode.groups(entries.chain(norm));

    let mut stream = mode.gather(parts.tokens, rows.batch.ids(), groups, spec.embedding.width);
    if let Some(part) = parts.project_in {
        stream = mode.product(part, &stream);
    }
    if let Some(types) = parts.types {
        let ids = vec![0; rows.batch.tokens()];
        stream.add(mode.cx(), &mode.gather(types, &ids, groups, spec.hidden_size));
    }
    if let (Some(table), Positions::Learned { offset, .. }) = (parts.positions, &spec.embedding.positions) {
        let ids: Vec<u32> = rows.positions.iter().map(|position| position + *offset as u32).collect();
        stream.add(mode.cx(), &mode.gather(table, &ids, groups, spec.hidden_size));
    }
    match parts.embedding_norm {
        Some(part) => mode.norm(part, &stream),
        None => stream,
    }
}

/// One residual layer: `norm(stream)` enters `layer`, or `stream + layer(stream)` is normalised.
fn residual<'w, M: Mode<'w>>(
    mode: &mut M,
    norm: NormPart,
    mut stream: Stream<'w>,
    layer: impl FnOnce(&mut M, &Stream<'w>) -> Stream<'w>,
) -> Stream<'w> {
    let before = mode.model().spec.norm.placement == NormPlacement::Before;
    let delta = if before {
        let x = mode.norm(norm, &stream);
        layer(mode, &x)
    } else {
        layer(mode, &stream)
    };
    stream.add(mode.cx(), &delta);
    if before { stream } else { mode.norm(norm, &stream) }
}

fn attention_layer<'w, M: Mode<'w>>(
    mode: &mut M,
    index: usize,
    block: &BlockParts,
    rows: &Rows<'_>,
    stream: Stream<'w>,
) -> Stream<'w> {
    residual(mode, block.attention_norm, stream, |mode, x| {
        let (queries, keys) = (mode.model().spec.query_width(), mode.model().spec.key_width());
        let mut projected = x.beside(mode.cx(), queries + 2 * keys);
        let columns = [0..queries, queries..queries + keys, queries + keys..queries + 2 * keys];
        match block.projections {
            ProjectionParts::Split(parts) => {
                for (part, columns) in parts.into_iter().zip(columns.clone()) {
                    mode.adapted(part, x.all(), projected.all_mut().column_range_mut(columns));
                }
            }
            ProjectionParts::Fused(part) => mode.adapted(part, x.all(), projected.all_mut()),
        }
        if let Some(table) = &rows.rope {
            // A rotation is linear: the change of what is turned is turned with it.
            let positions = rows.positions.repeat(x.groups());
            for columns in &columns[..2] {
                rope::forward(mode.cx(), table, &positions, projected.all_mut().column_range_mut(columns.clone()));
            }
        }
        let mixed = mode.attend(index, rows, &projected, columns);
        mode.product(block.out, &mixed)
    })
}

fn feed_forward<'w, M: Mode<'w>>(mode: &mut M, block: &BlockParts, stream: Stream<'w>) -> Stream<'w> {
    residual(mode, block.ffn_norm, stream, |mode, x| {
        let (parts, activation) = (block.ffn, mode.model().spec.ffn.activation);
        let mut inner = mode.product(parts.up, x);
        match parts.gate {
            Some(part) => inner = mode.gate(activation, mode.product(part, x), inner),
            None => mode.activate(activation, &mut inner),
        }
        mode.product(parts.down, &inner)
    })
}

/// From the residual stream to what the head reads.
fn leave<'w, M: Mode<'w>>(mode: &M, mut stream: Stream<'w>) -> Stream<'w> {
    let (norm, project) = (mode.model().parts.last_norm, mode.model().parts.project_out);
    if let Some(part) = norm {
        stream = mode.enter(stream, part.params());
        stream = mode.norm(part, &stream);
    }
    if let Some(part) = project {
        stream = mode.enter(stream, part.params());
        stream = mode.product(part, &stream);
    }
    stream
}

/// What the last product of the head reads of `rows` of what entered the head.
pub(super) fn head_input<'w, M: Mode<'w>>(
    mode: &M,
    head: &HeadParts,
    hidden: &Stream<'w>,
    rows: &[usize],
) -> Stream<'w> {
    let mut x = Stream::new(mode.cx(), hidden.groups(), rows.len(), hidden.width());
    let mut out = x.all_mut();
    for group in 0..hidden.groups() {
        for (at, &row) in rows.iter().enumerate() {
            out.row_mut(group * rows.len() + at).copy_from_slice(hidden.group(group).row(row));
        }
    }
    let dense = head.dense.map(LinearPart::params).into_iter().flatten();
    x = mode.enter(x, dense.chain(head.norm.map(NormPart::params).into_iter().flatten()));
    if let Some(part) = head.dense {
        x = mode.product(part, &x);
        let activation = match mode.model().spec.head {
            Head::MaskedLm { activation, .. } => activation,
            _ => Activation::Tanh,
        };
        mode.activate(activation, &mut x);
    }
    match head.norm {
        Some(part) => mode.norm(part, &x),
        None => x,
    }
}

/// The attention layers of a model over these sequences.
pub(super) fn attention<'s>(model: &Model, queries: &'s Sequences, keys: &'s Sequences) -> Attention<'s> {
    let spec = &model.spec.attention;
    Attention {
        queries,
        keys,
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        mask: spec.mask,
        scale: model.spec.attention_scale(),
    }
}

/// Queries, keys and values that lie side by side.
pub(super) fn inputs<'x>(x: MatRef<'x>, columns: &[Range<usize>; 3]) -> Inputs<'x> {
    let [q, k, v] = columns.clone().map(|columns| x.column_range(columns));
    Inputs { q, k, v }
}
