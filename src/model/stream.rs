//! The parameters of a pass as its lanes see them, applied to rows.

use std::borrow::Cow;

use super::{LinearPart, Model, NormKind, NormPart};
use crate::{
    direction::{Displacement, Moves, ParamId},
    kernels::{
        Context, elementwise,
        norm::{self, Norm},
    },
    tensor::{MatMut, MatRef, Scratch},
};

/// One evaluation of a model: all lanes, over one batch.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a, 'w> {
    pub(super) cx: &'w Context,
    pub(super) model: &'a Model,
    pub(super) lanes: &'a [Displacement],
}

impl<'a> Pass<'a, '_> {
    /// What the lanes make of a parameter.
    pub(super) fn moves(&self, id: ParamId) -> Moves<'a> {
        Moves::of(self.lanes, id, &self.model.store.params()[id])
    }

    /// Whether some lane moves one of these parameters.
    pub(super) fn moved(&self, ids: impl IntoIterator<Item = ParamId>) -> bool {
        ids.into_iter().any(|id| self.lanes.iter().any(|lane| lane.moves(id)))
    }

    /// A vector in every lane, or once if nothing moves it.
    pub(super) fn vectors(&self, id: ParamId) -> Vec<Cow<'a, [f32]>> {
        self.moves(id).values(self.cx, self.model.store.vector(id))
    }

    /// `y = x Wᵀ (+ bias)`; rows are those of all lanes, or of one while nothing is moved.
    pub(super) fn linear(&self, part: LinearPart, x: MatRef<'_>, mut y: MatMut<'_>) {
        let weight = (self.model.store.weight(part.weight), part.stored);
        let bias = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        let moves = self.moves(part.weight);
        if bias.len() <= 1 {
            return moves.linear(self.cx, x, weight, bias.first().map(|bias| &**bias), y);
        }
        moves.linear(self.cx, x, weight, None, y.reborrow());
        let rows = y.rows() / bias.len();
        for (lane, bias) in bias.iter().enumerate() {
            elementwise::add_bias(self.cx, bias, y.row_range_mut(lane * rows..(lane + 1) * rows));
        }
    }

    /// `y = norm(x)`; rows as in [`Pass::linear`].
    pub(super) fn norm(&self, part: NormPart, x: MatRef<'_>, mut y: MatMut<'_>) {
        let weights = self.vectors(part.weight);
        let biases = part.bias.map(|id| self.vectors(id)).unwrap_or_default();
        let spec = &self.model.spec.norm;
        let groups = weights.len().max(biases.len());
        let rows = x.rows() / groups;
        for group in 0..groups {
            let weight = &weights[group % weights.len()];
            let norm = match spec.kind {
                NormKind::Layer => Norm::layer(weight, biases.get(group % biases.len().max(1)).map(|b| &**b), spec.eps),
                NormKind::Rms => Norm::rms(weight, spec.eps),
            };
            let range = group * rows..(group + 1) * rows;
            norm::forward(self.cx, norm, x.row_range(range.clone()), y.row_range_mut(range));
        }
    }
}

/// Rows `[lanes · T, width]` between the layers of a model: `lanes` is 1 until a layer is displaced.
pub(super) struct Stream<'w> {
    values: Scratch<'w, f32>,
    lanes: usize,
    rows: usize,
    width: usize,
}

impl<'w> Stream<'w> {
    /// `rows` rows in each of `lanes` lanes, not yet written.
    pub(super) fn new(cx: &'w Context, lanes: usize, rows: usize, width: usize) -> Self {
        Stream { values: cx.workspace.take(lanes * rows * width), lanes, rows, width }
    }

    /// As many rows and lanes of another width, not yet written.
    pub(super) fn beside(&self, cx: &'w Context, width: usize) -> Self {
        Stream::new(cx, self.lanes, self.rows, width)
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }
    pub(super) fn rows(&self) -> usize {
        self.rows
    }
    pub(super) fn width(&self) -> usize {
        self.width
    }
    pub(super) fn values(&mut self) -> &mut [f32] {
        &mut self.values
    }
    pub(super) fn all(&self) -> MatRef<'_> {
        MatRef::new(&self.values, self.lanes * self.rows, self.width)
    }
    pub(super) fn all_mut(&mut self) -> MatMut<'_> {
        MatMut::new(&mut self.values, self.lanes * self.rows, self.width)
    }
    /// The rows of one lane; those of the only one while lanes agree.
    pub(super) fn lane(&self, lane: usize) -> MatRef<'_> {
        let first = lane.min(self.lanes - 1) * self.rows;
        self.all().row_range(first..first + self.rows)
    }

    /// The same rows in each of `lanes` lanes.
    pub(super) fn fork(self, cx: &'w Context, lanes: usize) -> Self {
        if self.lanes == lanes {
            return self;
        }
        let mut forked = Stream::new(cx, lanes, self.rows, self.width);
        for lane in forked.values.chunks_exact_mut((self.rows * self.width).max(1)) {
            lane.copy_from_slice(&self.values);
        }
        forked
    }

    /// Adds `delta` to the rows.
    pub(super) fn add(&mut self, cx: &Context, delta: &Stream<'_>) {
        elementwise::add_assign(cx, &delta.values, &mut self.values);
    }
}
