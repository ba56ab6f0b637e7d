//! The head's last product and the loss, where the way back begins.

use super::{
    reverse::Reverse,
    tape::{self, Bars, Tape},
};
use crate::{
    kernels::{
        cross_entropy::{Sums, Targets},
        elementwise,
        head::{self, Gradients, Scale},
        matmul,
    },
    model::{
        HeadParts, LinearPart,
        layers::Mode,
        stream::{Grouped, Stream},
    },
    tensor::{Block, MatMut, MatRef},
};

impl<'w> Reverse<'_, 'w> {
    /// From the losses of the rows `x`, each counted `scale` times, to all gradients.
    pub(super) fn losses(mut self, tape: Tape<'w>, x: &Stream<'w>, targets: &Targets<'_>, scale: Scale<'_>) -> Sums {
        let last = self.last();
        let [mut weight_bar, mut bias_bar] = self.take_chains(last);
        let mut x_bar = x.node.map(|_| x.beside(self.cx, x.width()));
        let (pass, moves) = (self.pass(), self.moves(last.weight));
        let weight = pass.model.store.weight(last.weight);
        let gradients = Gradients {
            x: x_bar.as_mut().map(Stream::all_mut),
            weight: weight_bar.as_mut().map(|sum| MatMut::new(sum, weight.rows(), weight.cols())),
            bias: bias_bar.as_deref_mut(),
        };
        let product = |_: &[usize], x: MatRef<'_>, logits: MatMut<'_>| pass.linear(last, Grouped::new(x, 1), logits);
        let adjoint = |bar: MatRef<'_>, x: MatMut<'_>| moves.linear_backward(self.cx, bar, (weight, last.stored), x);
        let sums = head::backward_by(self.cx, x.all().rows, targets, scale, product, adjoint, gradients);
        self.put_chains(last, [weight_bar, bias_bar]);
        if sums.total.is_finite() {
            self.descend(tape, x, x_bar);
        }
        sums
    }

    /// From some entries of the logits of the rows `x`, and the derivative by each, to all gradients.
    pub(super) fn logits(
        mut self,
        tape: Tape<'w>,
        x: &Stream<'w>,
        ids: &[u32],
        derivative: impl FnOnce(MatRef<'_>) -> Vec<f32>,
    ) {
        let (cx, last) = (self.cx, self.last());
        let mut pass = self.pass();
        let bars = derivative(pass.entries(last, x.share(), ids).group(0));
        let logits_bar = MatRef::new(&bars, x.rows(), ids.len());
        if !bars.iter().all(|bar| bar.is_finite()) {
            return;
        }
        let x_bar = x.node.map(|_| {
            let mut x_bar = x.beside(cx, x.width());
            let entries = pass.gather(last.weight, ids, 1, x.width());
            matmul::backward::input(cx, logits_bar, &entries.group(0), false, x_bar.all_mut());
            x_bar
        });
        let [mut weight_bar, mut bias_bar] = self.take_chains(last);
        if let Some(sums) = &mut weight_bar {
            with_rows(sums, x.width(), ids, |sums| {
                let sums = MatMut::new(sums, ids.len(), x.width());
                matmul::backward::weight(cx, logits_bar, x.all().rows, self.examples, sums);
            });
        }
        if let Some(sums) = &mut bias_bar {
            with_rows(sums, 1, ids, |sums| elementwise::add_bias_backward(cx, logits_bar, sums));
        }
        self.put_chains(last, [weight_bar, bias_bar]);
        self.descend(tape, x, x_bar);
    }

    fn last(&self) -> LinearPart {
        let HeadParts { last, .. } = self.of.model().parts.head.expect("its logits were computed");
        last
    }

    /// All that lies below the head.
    fn descend(mut self, mut tape: Tape<'w>, x: &Stream<'w>, x_bar: Option<Stream<'w>>) {
        let params: Vec<_> = self.last().params().filter(|&id| self.sums.wants(id)).collect();
        tape::settle(&mut tape.pending, &params).into_iter().for_each(|id| self.complete(id));
        let mut bars = Bars::of(&tape);
        if let Some(x_bar) = x_bar {
            bars.add(self.cx, x.node, x_bar);
        }
        self.unwind(tape, &mut bars);
        let handed_over = self.sums.handed_over;
        assert!(
            !self.is_last || handed_over == self.sums.wrt.len(),
            "layers use every parameter: {handed_over} of them"
        );
    }

    /// The chains of the last product's weight and bias, as far as they are wanted.
    fn take_chains(&mut self, last: LinearPart) -> [Option<Block<f32>>; 2] {
        [Some(last.weight), last.bias].map(|id| {
            let id = id.filter(|&id| self.sums.wants(id))?;
            let elements = self.of.model().store.params()[id].elements();
            Some(self.sums.chains.remove(&id).unwrap_or_else(|| self.cx.workspace.zeros(elements)))
        })
    }

    fn put_chains(&mut self, last: LinearPart, chains: [Option<Block<f32>>; 2]) {
        for (id, chain) in [Some(last.weight), last.bias].into_iter().zip(chains) {
            if let (Some(id), Some(chain)) = (id, chain) {
                self.sums.chains.insert(id, chain);
            }
        }
    }
}

/// Has `change` write over rows `ids` of a matrix of `width` columns, taken out and put back.
fn with_rows(matrix: &mut [f32], width: usize, ids: &[u32], change: impl FnOnce(&mut [f32])) {
    let place = |id: u32| id as usize * width..(id as usize + 1) * width;
    let mut rows: Vec<f32> = ids.iter().flat_map(|&id| matrix[place(id)].to_vec()).collect();
    change(&mut rows);
    ids.iter().zip(rows.chunks_exact(width)).for_each(|(&id, row)| matrix[place(id)].copy_from_slice(row));
}
