//! The parameters of a pass as its lanes see them, applied to rows.

use std::borrow::Cow;

use super::{LinearPart, Model, NormKind, NormPart};
use crate::{
    direction::{Displacement, Moves, ParamId},
    kernels::{
        Context, elementwise,
        norm::{self, Norm},
    },
    tensor::{MatMut, MatRef},
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
