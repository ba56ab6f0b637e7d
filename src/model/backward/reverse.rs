//! The way back along a tape.
//!
//! *What must stay true.* A step reads its parameter's values, if at all, before it adds to its gradient, and a gradient is
//! handed over after the last step that adds to it: from then on nothing reads the parameter.

use super::{
    Differentiated, Gradients, Kept, Summand,
    recorder::Recorder,
    tape::{Bars, Noted, Step, Tape},
};
use crate::{
    direction::{Displacement, Moves, ParamId, Stored},
    kernels::{
        Context, activation,
        attention::{self, Gradients as AttentionGradients},
        elementwise::{self, Store},
        matmul::{self, product},
        norm::{self, NormGradient},
        rope, tensor_train,
    },
    model::{
        LinearPart, NormPart, TrainPart,
        layers::{self, Columns, Mode, Rows},
        pass::Pass,
        stream::Stream,
    },
    tensor::{MatMut, MatRef, Sequences},
};

/// A pass on its way back.
pub(super) struct Reverse<'p, 'w> {
    pub(super) cx: &'w Context,
    pub(super) sums: &'p mut Gradients,
    pub(super) of: &'p mut dyn Differentiated,
    lane: &'p [Displacement],
    pub(super) is_last: bool,
    rows: &'p Rows<'p>,
    /// The examples of the rows that steps are met with: the head's, then the sequences of the batch.
    pub(super) examples: &'p Sequences,
}

impl<'p, 'w> Reverse<'p, 'w> {
    pub(super) fn new(
        sums: &'p mut Gradients,
        of: &'p mut dyn Differentiated,
        summand: Summand<'w>,
        rows: &'p Rows<'p>,
        examples: &'p Sequences,
    ) -> Self
    where
        'w: 'p,
    {
        let lane = std::slice::from_ref(summand.at);
        Reverse { cx: summand.cx, sums, of, lane, is_last: summand.is_last, rows, examples }
    }

    /// The operations of the pass, with the parameters as they are now.
    pub(super) fn pass(&self) -> Pass<'_, 'w> {
        Pass { cx: self.cx, model: self.of.model(), lanes: self.lane, cache: None, examples: &[] }
    }

    /// Undoes every step, last to first.
    pub(super) fn unwind(&mut self, tape: Tape<'w>, bars: &mut Bars<'w>) {
        let Tape { mut steps, mut pending, .. } = tape;
        while let Some(Noted { step, to, before, params }) = steps.pop() {
            if let Some(bar) = bars.share(to) {
                self.undo(step, to, bar, bars);
            }
            for id in super::tape::settle(&mut pending, &params) {
                self.complete(id);
            }
            bars.truncate(before);
        }
    }

    /// Hands over what no step adds to any more.
    pub(super) fn complete(&mut self, id: ParamId) {
        if self.is_last {
            self.sums.hand_over(self.cx, self.of, id);
        }
    }

    /// Adds to the gradients of what a step read, given that of its result.
    fn undo(&mut self, step: Step<'w>, to: usize, bar: Stream<'w>, bars: &mut Bars<'w>) {
        let cx = self.cx;
        match step {
            Step::Gather { table, ids } => {
                self.sums.lookups.entry(table).or_default().continue_by(cx, &ids, bar.all().rows);
            }
            Step::Linear { part, from, x, columns } => {
                let y_bar = bar.all().rows.column_range(columns);
                if from.is_some() {
                    bars.add(cx, from, self.linear_input(part, y_bar));
                }
                self.linear_parameters(part, x.as_ref().map(|x| x.all().rows), y_bar);
            }
            Step::TensorTrain { part, from, x } => {
                let x_bar = self.train(part, (from.is_some(), x.as_ref()), &bar);
                x_bar.into_iter().for_each(|x_bar| bars.add(cx, from, x_bar));
            }
            Step::Norm { part, x } => {
                if x.node.is_some() {
                    let mut x_bar = x.beside(cx, x.width());
                    let pass = self.pass();
                    let (weight, bias) = pass.norm_values(part);
                    let norm = pass.model.spec.norm.over(&weight, bias.as_deref());
                    norm::backward(cx, norm, x.all().rows, bar.all().rows, Store::Write, x_bar.all_mut());
                    bars.add(cx, x.node, x_bar);
                }
                self.norm_parameters(part, &x, &bar);
            }
            Step::Activate { activation, x } => {
                let mut x_bar = x.beside(cx, x.width());
                activation::backward(cx, activation, x.values(), bar.values(), x_bar.values_mut());
                bars.add(cx, x.node, x_bar);
            }
            Step::Gate { activation, gate, up } => {
                let mut own = [&gate, &up].map(|x| x.beside(cx, x.width()));
                let [gate_bar, up_bar] = own.each_mut().map(Stream::values_mut);
                let operands = [gate.values(), up.values()];
                activation::gated_backward(cx, activation, operands, bar.values(), [gate_bar, up_bar]);
                let [gate_bar, up_bar] = own;
                bars.add(cx, gate.node, gate_bar);
                bars.add(cx, up.node, up_bar);
            }
            Step::Attend { x, columns } => bars.add(cx, x.node, self.attention(&x, &columns, &bar)),
            Step::Turn { columns } => {
                drop(bars.take(to));
                let mut turned = bar.owned(cx);
                let table = self.rows.rope.as_ref().expect("rows were turned by it");
                rope::backward(cx, table, &self.rows.positions, turned.all_mut().column_range_mut(columns));
                bars.add(cx, Some(to), turned);
            }
            Step::Add { from: [x, delta] } => {
                bars.add(cx, x, bar.share());
                bars.add(cx, delta, bar);
            }
            Step::AddScaled { scale, from, columns } => {
                let mut delta_bar = Stream::new(cx, 1, bar.rows(), columns.len());
                delta_bar.values_mut().fill(0.0);
                elementwise::axpy_rows(cx, scale, bar.all().rows.column_range(columns), delta_bar.all_mut());
                bars.add(cx, Some(from), delta_bar);
            }
            Step::Select { from, rows } => {
                self.examples = self.rows.batch.sequences();
                let mut x_bar = Stream::new(cx, 1, self.rows.batch.tokens(), bar.width());
                x_bar.values_mut().fill(0.0);
                let mut out = x_bar.all_mut();
                for (at, &row) in rows.iter().enumerate() {
                    out.row_mut(row).iter_mut().zip(bar.group(0).row(at)).for_each(|(sum, term)| *sum += term);
                }
                bars.add(cx, Some(from), x_bar);
            }
            Step::Block { index, x } => self.block(index, x, bar, bars),
        }
    }

    /// A block whose input alone was kept: computed once more, noted this time, and undone.
    fn block(&mut self, index: usize, mut x: Stream<'w>, bar: Stream<'w>, bars: &mut Bars<'w>) {
        let (cx, outer) = (self.cx, x.node.take());
        let mut tape = Tape::default();
        let input = outer.map(|_| tape.number(&mut x));
        let mut recorder = Recorder::new(self.pass(), &self.sums.wrt, Kept::All, &mut tape);
        let out = layers::block(&mut recorder, index, self.rows, x);
        let mut own = Bars::of(&tape);
        own.add(cx, out.node, bar);
        drop(out);
        self.unwind(tape, &mut own);
        if let Some(x_bar) = input.and_then(|input| own.take(input)) {
            bars.add(cx, outer, x_bar);
        }
    }

    /// What a parameter's displacement makes of it.
    pub(super) fn moves(&self, id: ParamId) -> Moves<'p> {
        Moves::of(self.lane, id, &self.of.model().store.params()[id])
    }

    /// The gradient of a linear layer's input.
    fn linear_input(&self, part: LinearPart, y_bar: MatRef<'_>) -> Stream<'w> {
        let weight = self.of.model().store.weight(part.weight);
        let inputs = match part.stored {
            Stored::OutIn => weight.cols(),
            Stored::InOut => weight.rows(),
        };
        let mut x_bar = Stream::new(self.cx, 1, y_bar.rows(), inputs);
        self.moves(part.weight).linear_backward(self.cx, y_bar, (weight, part.stored), x_bar.all_mut());
        x_bar
    }

    /// Adds to the gradients of a linear layer's weight, whose input is there if it is wanted, and bias.
    fn linear_parameters(&mut self, part: LinearPart, x: Option<MatRef<'_>>, y_bar: MatRef<'_>) {
        let (cx, examples) = (self.cx, self.examples);
        if let Some(x) = x {
            self.add_to(part.weight, |sum| match part.stored {
                Stored::OutIn => matmul::backward::weight(cx, y_bar, x, examples, sum),
                Stored::InOut => matmul::backward::weight(cx, x, y_bar, examples, sum),
            });
        }
        self.bias_parameters(part.bias, y_bar);
    }

    /// The gradient of a train's input, if it is asked for. Adds to those of its cores, if the input is there, and bias.
    ///
    /// That of the train's matrix is summed over the rows of a sequence, those of the cores over sequences: so that
    /// wherever a batch is cut the chains are the same.
    fn train(
        &mut self,
        part: TrainPart,
        (below, x): (bool, Option<&Stream<'w>>),
        bar: &Stream<'w>,
    ) -> Option<Stream<'w>> {
        let (cx, y_bar) = (self.cx, bar.all().rows);
        let cores = self.pass().cores(part, 1);
        let cores = layers::cores_of(&cores, 0);
        let x_bar = below.then(|| {
            let mut x_bar = bar.beside(cx, part.inputs);
            let matrix = tensor_train::forward(cx, &cores);
            product::nn(cx, y_bar, MatRef::new(&matrix, part.outputs, part.inputs), false, x_bar.all_mut());
            x_bar
        });
        if let Some(x) = x {
            let examples = self.examples;
            for rows in examples.iter() {
                let (x, y_bar) = (x.all().rows.row_range(rows.clone()), y_bar.row_range(rows));
                let mut matrix_bar = vec![0.0; part.outputs * part.inputs];
                let out = MatMut::new(&mut matrix_bar, part.outputs, part.inputs);
                product::tn(cx, y_bar, x, false, out);
                for (id, gradient) in part.cores.into_iter().zip(tensor_train::backward(cx, &cores, matrix_bar)) {
                    if self.sums.wants(id) {
                        self.add_to(id, |sum| elementwise::add_assign(cx, &gradient, sum.into_data()));
                    }
                }
            }
        }
        self.bias_parameters(part.bias, y_bar);
        x_bar
    }

    /// Adds to the gradient of a bias, if it is wanted.
    fn bias_parameters(&mut self, bias: Option<ParamId>, y_bar: MatRef<'_>) {
        let cx = self.cx;
        if let Some(bias) = bias.filter(|&id| self.sums.wants(id)) {
            self.add_to(bias, |sum| elementwise::add_bias_backward(cx, y_bar, sum.into_data()));
        }
    }

    fn norm_parameters(&mut self, part: NormPart, x: &Stream<'w>, y_bar: &Stream<'w>) {
        let (cx, y_bar) = (self.cx, y_bar.all().rows);
        if self.sums.wants(part.weight) {
            // The derivative of x̂ · weight by the weight does not read it: any values of its length will do.
            let weight = vec![0.0; x.width()];
            let norm = self.of.model().spec.norm.over(&weight, None);
            self.add_to(part.weight, |sum| {
                let gradient = NormGradient { weight: sum.into_data(), bias: None };
                norm::backward_parameters(cx, norm, x.all().rows, y_bar, gradient);
            });
        }
        self.bias_parameters(part.bias, y_bar);
    }

    /// The gradient of queries, keys and values that lie side by side.
    fn attention(&self, x: &Stream<'w>, columns: &Columns, out_bar: &Stream<'w>) -> Stream<'w> {
        let sequences = self.rows.batch.sequences();
        let layer = layers::attention(self.of.model(), sequences, sequences);
        let mut parts = columns.clone().map(|columns| Stream::new(self.cx, 1, x.rows(), columns.len()));
        let [q, k, v] = parts.each_mut().map(Stream::all_mut);
        let inputs = layers::inputs(x.all().rows, columns);
        attention::backward(self.cx, &layer, inputs, out_bar.all().rows, AttentionGradients { q, k, v });
        let mut x_bar = x.beside(self.cx, x.width());
        for (part, columns) in parts.iter().zip(columns) {
            let mut out = x_bar.all_mut();
            let out = out.column_range_mut(columns.clone());
            out.into_rows().enumerate().for_each(|(row, out)| out.copy_from_slice(part.group(0).row(row)));
        }
        x_bar
    }

    /// Adds to the chains of a parameter of a layer.
    fn add_to(&mut self, id: ParamId, add: impl FnOnce(MatMut<'_>)) {
        let param = &self.of.model().store.params()[id];
        let (rows, cols) = (param.rows(), param.cols());
        add(MatMut::new(self.sums.chain(self.cx, id, rows * cols), rows, cols));
    }
}
