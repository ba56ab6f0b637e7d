//! The layers of one lane, noted on a tape.
//!
//! *What it is not.* Arithmetic of its own: values are those of [`super::Pass`], bit for bit. *What must stay true*: what
//! nothing asked for lies at or below is not noted, so that its rows are free as soon as the layers have read them.

use std::{mem, ops::Range};

use super::{
    Kept,
    tape::{Step, Tape},
};
use crate::{
    direction::ParamId,
    kernels::{
        Context,
        activation::{self, Activation},
        rope::RopeTable,
    },
    model::{
        LinearPart, Model, NormPart, TrainPart,
        layers::{self, Columns, Mode, Rows},
        pass::Pass,
        stream::{Grouped, Stream},
    },
    tensor::MatMut,
};

/// A pass of one lane and its tape.
pub(super) struct Recorder<'m, 'w> {
    pass: Pass<'m, 'w>,
    wrt: &'m [ParamId],
    kept: Kept,
    tape: &'m mut Tape<'w>,
}

impl<'m, 'w> Recorder<'m, 'w> {
    pub(super) fn new(pass: Pass<'m, 'w>, wrt: &'m [ParamId], kept: Kept, tape: &'m mut Tape<'w>) -> Self {
        Recorder { pass, wrt, kept, tape }
    }

    /// Counts a use of `params` that is no step of the tape.
    pub(super) fn expect(&mut self, params: impl Iterator<Item = ParamId>) {
        let wanted = self.wanted(params);
        self.tape.expect(&wanted);
    }

    /// Those that are asked for.
    fn wanted(&self, params: impl Iterator<Item = ParamId>) -> Vec<ParamId> {
        params.filter(|id| self.wrt.binary_search(id).is_ok()).collect()
    }
}

impl<'w> Mode<'w> for Recorder<'_, 'w> {
    fn cx(&self) -> &'w Context {
        self.pass.cx()
    }
    fn model(&self) -> &Model {
        self.pass.model()
    }
    fn groups(&self, params: impl Iterator<Item = ParamId>) -> usize {
        self.pass.groups(params)
    }
    fn widen(&self, stream: Stream<'w>, groups: usize) -> Stream<'w> {
        self.pass.widen(stream, groups)
    }
    fn linear(&self, part: LinearPart, x: Grouped<'_>, y: MatMut<'_>) {
        self.pass.linear(part, x, y);
    }

    fn gather(&mut self, table: ParamId, ids: &[u32], groups: usize, width: usize) -> Stream<'w> {
        let mut rows = self.pass.gather(table, ids, groups, width);
        let params = self.wanted([table].into_iter());
        if !params.is_empty() {
            self.tape.note(&mut rows, params, Step::Gather { table, ids: ids.to_vec() });
        }
        rows
    }

    fn layer(&mut self, part: LinearPart, x: &Stream<'w>, y: &mut Stream<'w>, columns: Range<usize>) {
        self.pass.layer(part, x, y, columns.clone());
        let params = self.wanted([Some(part.weight), part.bias].into_iter().flatten());
        if x.node.is_some() || !params.is_empty() {
            let kept = params.contains(&part.weight).then(|| x.share());
            self.tape.note(y, params, Step::Linear { part, from: x.node, x: kept, columns });
        }
    }

    fn tensor_train(&mut self, part: TrainPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = self.pass.tensor_train(part, x);
        let params = self.wanted(part.params());
        if x.node.is_some() || !params.is_empty() {
            let kept = part.cores.iter().any(|id| params.contains(id)).then(|| x.share());
            self.tape.note(&mut y, params, Step::TensorTrain { part, from: x.node, x: kept });
        }
        y
    }

    fn norm(&mut self, part: NormPart, x: &Stream<'w>) -> Stream<'w> {
        let mut y = self.pass.norm(part, x);
        let params = self.wanted(part.params());
        if x.node.is_some() || !params.is_empty() {
            self.tape.note(&mut y, params, Step::Norm { part, x: x.share() });
        }
        y
    }

    fn activate(&mut self, activation: Activation, x: &mut Stream<'w>) {
        if x.node.is_none() {
            return self.pass.activate(activation, x);
        }
        let mut y = x.beside(self.cx(), x.width());
        activation::forward(self.cx(), activation, x.values(), y.values_mut());
        let before = mem::replace(x, y);
        self.tape.note(x, Vec::new(), Step::Activate { activation, x: before });
    }

    fn gate(&mut self, activation: Activation, gate: Stream<'w>, up: Stream<'w>) -> Stream<'w> {
        if gate.node.is_none() && up.node.is_none() {
            return self.pass.gate(activation, gate, up);
        }
        let mut out = gate.beside(self.cx(), gate.width());
        activation::gated_forward(self.cx(), activation, gate.values(), up.values(), out.values_mut());
        self.tape.note(&mut out, Vec::new(), Step::Gate { activation, gate, up });
        out
    }

    fn attend(&mut self, index: usize, rows: &Rows<'_>, x: &Stream<'w>, columns: &Columns) -> Stream<'w> {
        let mut out = self.pass.attend(index, rows, x, columns);
        if x.node.is_some() {
            self.tape.note(&mut out, Vec::new(), Step::Attend { x: x.share(), columns: columns.clone() });
        }
        out
    }

    fn add(&mut self, x: &mut Stream<'w>, delta: &Stream<'w>) {
        self.pass.add(x, delta);
        let from = [x.node.take(), delta.node];
        if from.iter().any(Option::is_some) {
            self.tape.note(x, Vec::new(), Step::Add { from });
        }
    }

    fn add_scaled(&mut self, scale: f32, delta: &Stream<'w>, y: &mut Stream<'w>, columns: Range<usize>) {
        self.pass.add_scaled(scale, delta, y, columns.clone());
        if let Some(from) = delta.node {
            self.tape.note(y, Vec::new(), Step::AddScaled { scale, from, columns });
        }
    }

    fn turn(&mut self, rows: &Rows<'_>, table: &RopeTable, x: &mut Stream<'w>, columns: Range<usize>) {
        self.pass.turn(rows, table, x, columns.clone());
        if x.node.is_some() {
            self.tape.note(x, Vec::new(), Step::Turn { columns });
        }
    }

    fn select(&mut self, x: &Stream<'w>, rows: &[usize]) -> Stream<'w> {
        let mut selected = self.pass.select(x, rows);
        if let Some(from) = x.node {
            self.tape.note(&mut selected, Vec::new(), Step::Select { from, rows: rows.to_vec() });
        }
        selected
    }

    fn block(&mut self, index: usize, rows: &Rows<'_>, stream: Stream<'w>) -> Stream<'w> {
        if self.kept == Kept::All {
            return layers::block(self, index, rows, stream);
        }
        let wants_own = !self.wanted(self.model().parts.blocks[index].params()).is_empty();
        let kept = (stream.node.is_some() || wants_own).then(|| stream.share());
        let mut out = layers::block(&mut self.pass, index, rows, stream);
        out.node = None;
        if let Some(x) = kept {
            self.tape.note(&mut out, Vec::new(), Step::Block { index, x });
        }
        out
    }
}
