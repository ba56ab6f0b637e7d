//! The layers of every model, written once, over the operations of a mode.
//!
//! *What it is.* The order in which the parts of a model meet the rows of a ragged batch. A [`Mode`] says what a row is
//! and what an operation does to it: [`super::pass`] carries the rows of displaced lanes, [`super::tangent`] rows and
//! their changes along directions, [`super::backward`] notes what the way back needs. *What it is not.* Arithmetic. *What
//! must stay true*: what families differ in is data, and rows change in operations of the mode only.
//!
//! Shapes: `T` rows (tokens), `D` hidden size; the rows of all groups of a [`Stream`] are stacked.

use std::{ops::Range, sync::Arc};

use super::{
    Batch, BlockParts, Head, HeadParts, LinearPart, Model, NormPart, NormPlacement, Positions, ProjectionParts,
    TrainPart,
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
        tensor_train::Core,
    },
    tensor::{MatMut, MatRef, Sequences},
    weights::{Bottleneck, Lora, Place},
};

/// What the rows of a pass have in common.
pub(super) struct Rows<'a> {
    pub(super) batch: &'a Batch,
    /// Tokens of each sequence before its first row.
    pub(super) starts: Vec<usize>,
    pub(super) positions: Vec<u32>,
    pub(super) rope: Option<Arc<RopeTable>>,
}

/// Where queries, keys and values lie side by side.
pub(super) type Columns = [Range<usize>; 3];

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
    fn gather(&mut self, table: ParamId, ids: &[u32], groups: usize, width: usize) -> Stream<'w>;

    /// The arithmetic of a linear layer, `y = x Wᵀ (+ bias)`, without its adapter.
    fn linear(&self, part: LinearPart, x: Grouped<'_>, y: MatMut<'_>);

    /// `y = x Wᵀ (+ bias)`, `W` a train of cores: in f32 whatever the profile.
    fn tensor_train(&mut self, part: TrainPart, x: &Stream<'w>) -> Stream<'w>;

    /// `norm(x)`.
    fn norm(&mut self, part: NormPart, x: &Stream<'w>) -> Stream<'w>;

    /// `x = activation(x)`.
    fn activate(&mut self, activation: Activation, x: &mut Stream<'w>);

    /// `activation(gate) · up`.
    fn gate(&mut self, activation: Activation, gate: Stream<'w>, up: Stream<'w>) -> Stream<'w>;

    /// Attention of block `index` over queries, keys and values, the columns of `x`.
    fn attend(&mut self, index: usize, rows: &Rows<'_>, x: &Stream<'w>, columns: &Columns) -> Stream<'w>;

    /// [`Mode::linear`] from rows to columns of rows.
    fn layer(&mut self, part: LinearPart, x: &Stream<'w>, y: &mut Stream<'w>, columns: Range<usize>) {
        self.linear(part, x.all(), y.all_mut().column_range_mut(columns));
    }

    /// `x += delta`.
    fn add(&mut self, x: &mut Stream<'w>, delta: &Stream<'w>) {
        x.add(self.cx(), delta);
    }

    /// `scale · delta` added to columns of `y`.
    fn add_scaled(&mut self, scale: f32, delta: &Stream<'w>, y: &mut Stream<'w>, columns: Range<usize>) {
        elementwise::axpy_rows(self.cx(), scale, delta.all().rows, y.all_mut().column_range_mut(columns));
    }

    /// Turns columns of `x` by the positions of the rows. A rotation is linear: the change of what is turned is turned
    /// with it.
    fn turn(&mut self, rows: &Rows<'_>, table: &RopeTable, x: &mut Stream<'w>, columns: Range<usize>) {
        let positions = rows.positions.repeat(x.groups());
        rope::forward(self.cx(), table, &positions, x.all_mut().column_range_mut(columns));
    }

    /// These rows of every group, in this order.
    fn select(&mut self, x: &Stream<'w>, rows: &[usize]) -> Stream<'w> {
        let mut selected = Stream::new(self.cx(), x.groups(), rows.len(), x.width());
        let mut out = selected.all_mut();
        for group in 0..x.groups() {
            for (at, &row) in rows.iter().enumerate() {
                out.row_mut(group * rows.len() + at).copy_from_slice(x.group(group).row(row));
            }
        }
        selected
    }

    /// A whole block.
    fn block(&mut self, index: usize, rows: &Rows<'_>, stream: Stream<'w>) -> Stream<'w>
    where
        Self: Sized,
    {
        block(self, index, rows, stream)
    }

    /// `stream` as a stage with these parameters needs it.
    fn enter(&self, stream: Stream<'w>, params: impl Iterator<Item = ParamId>) -> Stream<'w> {
        let groups = self.groups(params).max(stream.groups());
        self.widen(stream, groups)
    }

    /// The cores of a train in each of `groups` groups.
    fn cores(&mut self, part: TrainPart, groups: usize) -> [Stream<'w>; 3] {
        part.cores.map(|id| {
            let param = &self.model().store.params()[id];
            let (rows, cols) = (param.rows() as u32, param.cols());
            self.gather(id, &(0..rows).collect::<Vec<_>>(), groups, cols)
        })
    }

    /// `x + up(relu(down(x)))`.
    fn bottleneck(&mut self, adapter: Bottleneck, mut x: Stream<'w>) -> Stream<'w> {
        let [narrow, inner] = TrainPart::of(adapter.down());
        let narrowed = self.tensor_train(narrow, &x);
        let mut inner = self.tensor_train(inner, &narrowed);
        self.activate(Activation::Relu, &mut inner);
        let [narrow, wide] = TrainPart::of(adapter.up());
        let narrowed = self.tensor_train(narrow, &inner);
        let delta = self.tensor_train(wide, &narrowed);
        self.add(&mut x, &delta);
        x
    }

    /// [`Mode::layer`], and what the layer's low-rank adapter adds: `scale · (x Aᵀ) Bᵀ`.
    fn adapted(&mut self, part: LinearPart, x: &Stream<'w>, y: &mut Stream<'w>, columns: Range<usize>) {
        self.layer(part, x, y, columns.clone());
        let scale = self.model().lora().map(Lora::scale);
        if let (Some([down, up]), Some(scale)) = (part.low_rank(), scale) {
            let mut inner = x.beside(self.cx(), down.outputs);
            self.layer(down, x, &mut inner, 0..down.outputs);
            let mut change = x.beside(self.cx(), up.outputs);
            self.layer(up, &inner, &mut change, 0..up.outputs);
            self.add_scaled(scale, &change, y, columns);
        }
    }

    /// A linear layer with its adapter, into rows of its own.
    fn product(&mut self, part: LinearPart, x: &Stream<'w>) -> Stream<'w> {
        let bottleneck = |place| part.bottleneck().filter(|it| it.place == place);
        let x = match bottleneck(Place::Before) {
            Some(adapter) => self.bottleneck(adapter, x.share()),
            None => x.share(),
        };
        let mut y = x.beside(self.cx(), part.outputs);
        self.adapted(part, &x, &mut y, 0..part.outputs);
        match bottleneck(Place::After) {
            Some(adapter) => self.bottleneck(adapter, y),
            None => y,
        }
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
        stream = mode.block(index, rows, stream);
    }
    let stream = leave(mode, stream);
    if let Some(observer) = &mut observer {
        observer(blocks, stream.all().rows);
    }
    stream
}

/// Block `index`, over the operations of `mode`.
pub(super) fn block<'w, M: Mode<'w>>(mode: &mut M, index: usize, rows: &Rows<'_>, stream: Stream<'w>) -> Stream<'w> {
    let block = mode.model().parts.blocks[index];
    let stream = mode.enter(stream, block.params());
    let stream = attention_layer(mode, index, &block, rows, stream);
    feed_forward(mode, &block, stream)
}

/// From tokens to the residual stream.
fn embed<'w, M: Mode<'w>>(mode: &mut M, rows: &Rows<'_>) -> Stream<'w> {
    let parts = &mode.model().parts;
    let (tokens, types, table) = (parts.tokens, parts.types, parts.positions);
    let (norm, project) = (parts.embedding_norm, parts.project_in);
    let spec = &mode.model().spec;
    let (embedded, hidden, positions) = (spec.embedding.width, spec.hidden_size, spec.embedding.positions);
    let entries = [Some(tokens), types, table, project.map(|part| part.weight)].into_iter().flatten();
    let groups = mode.groups(entries.chain(norm.map(NormPart::params).into_iter().flatten()));

    let mut stream = mode.gather(tokens, rows.batch.ids(), groups, embedded);
    if let Some(part) = project {
        stream = mode.product(part, &stream);
    }
    if let Some(types) = types {
        let delta = mode.gather(types, &vec![0; rows.batch.tokens()], groups, hidden);
        mode.add(&mut stream, &delta);
    }
    if let (Some(table), Positions::Learned { offset, .. }) = (table, positions) {
        let ids: Vec<u32> = rows.positions.iter().map(|position| position + offset as u32).collect();
        let delta = mode.gather(table, &ids, groups, hidden);
        mode.add(&mut stream, &delta);
    }
    match norm {
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
    mode.add(&mut stream, &delta);
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
                    mode.adapted(part, x, &mut projected, columns);
                }
            }
            ProjectionParts::Fused(part) => mode.adapted(part, x, &mut projected, 0..part.outputs),
        }
        if let Some(table) = &rows.rope {
            for columns in &columns[..2] {
                mode.turn(rows, table, &mut projected, columns.clone());
            }
        }
        let mixed = mode.attend(index, rows, &projected, &columns);
        mode.product(block.out, &mixed)
    })
}

fn feed_forward<'w, M: Mode<'w>>(mode: &mut M, block: &BlockParts, stream: Stream<'w>) -> Stream<'w> {
    residual(mode, block.ffn_norm, stream, |mode, x| {
        let (parts, activation) = (block.ffn, mode.model().spec.ffn.activation);
        let mut inner = mode.product(parts.up, x);
        match parts.gate {
            Some(part) => {
                let gate = mode.product(part, x);
                inner = mode.gate(activation, gate, inner);
            }
            None => mode.activate(activation, &mut inner),
        }
        mode.product(parts.down, &inner)
    })
}

/// From the residual stream to what the head reads.
fn leave<'w, M: Mode<'w>>(mode: &mut M, mut stream: Stream<'w>) -> Stream<'w> {
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
    mode: &mut M,
    head: HeadParts,
    hidden: &Stream<'w>,
    rows: &[usize],
) -> Stream<'w> {
    let mut x = mode.select(hidden, rows);
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

/// The cores of a train in one group, as they lie.
pub(super) fn cores_of<'s>(cores: &'s [Stream<'_>; 3], group: usize) -> [Core<'s>; 3] {
    cores.each_ref().map(|core| {
        let values = core.rows() * core.width();
        Core::new(&core.values()[group * values..][..values], core.width())
    })
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
pub(super) fn inputs<'x>(x: MatRef<'x>, columns: &Columns) -> Inputs<'x> {
    let [q, k, v] = columns.clone().map(|columns| x.column_range(columns));
    Inputs { q, k, v }
}
