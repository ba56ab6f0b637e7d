//! What several displacements, evaluated in one pass, make of one parameter.
//!
//! A *lane* is one displacement of a pass. The rows of all lanes are stacked, those of lane 0 first, and a matrix is
//! packed once for all of them: terms that lanes share (a ± pair shares its direction) are generated once.
//!
//! *What must stay true* (contract C1). A lane's result has the bits it has alone: sharing changes who generates a
//! value, never an operation. Dense terms have the bits of the displaced parameter everywhere; low-rank terms in gathered
//! rows, lent vectors and updates, but not in a product, where they are no part of the weight.

use std::{borrow::Cow, sync::Arc};

use rayon::prelude::*;

use super::{
    Direction, Displacement, Param, ParamId, fuse,
    thin::{self, Part, PartRows},
};
use crate::{
    kernels::{
        Context,
        elementwise::{self, Store},
        embedding,
    },
    tensor::{MatMut, MatRef, WeightRef},
};

/// How a linear layer's weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// `[out, in]`, as `PyTorch`'s `Linear`.
    OutIn,
    /// `[in, out]`, as GPT-2's `Conv1D`.
    InOut,
}

impl Stored {
    /// How the layer is stored that goes from outputs to inputs.
    fn reversed(self) -> Stored {
        match self {
            Stored::OutIn => Stored::InOut,
            Stored::InOut => Stored::OutIn,
        }
    }
}

/// One parameter as every lane sees it: the directions that any lane adds to it, each with its coefficient in each
/// lane.
#[derive(Clone, Debug)]
pub struct Moves<'a> {
    lanes: usize,
    cols: usize,
    directions: Vec<Part<'a>>,
    /// One per direction, each with a value per lane.
    coefficients: Vec<Vec<f32>>,
}

impl<'a> Moves<'a> {
    /// What `lanes` add to parameter `id`.
    ///
    /// # Panics
    /// If what a direction holds has not the parameter's shape; if one is scaled or masked twice, or low-rank and scaled
    /// or masked.
    pub fn of(lanes: &'a [Displacement], id: ParamId, param: &Param) -> Self {
        let mut merged: Vec<(&Arc<super::DirectionSet>, &Direction, Vec<f32>)> = Vec::new();
        for (lane, displacement) in lanes.iter().enumerate() {
            // A shared term keeps its place only if that does not overtake an earlier term of this lane.
            let mut from = 0;
            for term in &displacement.terms {
                let Some((direction, coefficient)) = term.get(id) else { continue };
                let shared = (from..merged.len()).find(|&at| Arc::ptr_eq(merged[at].0, &term.set));
                let at = shared.unwrap_or_else(|| {
                    merged.push((&term.set, direction, vec![0.0; lanes.len()]));
                    merged.len() - 1
                });
                merged[at].2[lane] = coefficient;
                from = at + 1;
            }
        }
        let directions = merged.iter().map(|(_, direction, _)| Part::of(direction, param)).collect();
        let coefficients = merged.into_iter().map(|(_, _, coefficients)| coefficients).collect();
        Moves { lanes: lanes.len(), cols: param.cols(), directions, coefficients }
    }

    /// Whether no lane moves the parameter.
    pub fn is_empty(&self) -> bool {
        self.directions.is_empty()
    }

    /// `y = x Wᵀ (+ bias)` in every lane: `x` `[lanes · m, k]`, `y` `[lanes · m, n]`. Where nothing moves the weight
    /// any number of rows will do.
    ///
    /// Low-rank terms leave the weight as it is: lanes that add nothing else to it share one product on what is stored.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn linear(
        &self,
        cx: &Context,
        x: MatRef<'_>,
        (weight, stored): (WeightRef<'_>, Stored),
        bias: Option<&[f32]>,
        y: MatMut<'_>,
    ) {
        let (mut dense, mut thin) = (Vec::new(), vec![thin::Terms::new(); self.lanes]);
        for (part, coefficients) in self.directions.iter().zip(&self.coefficients) {
            match *part {
                Part::Dense(direction) => dense.push(fuse::Term { direction, coefficients }),
                Part::Thin(factors) => {
                    for (terms, &coefficient) in thin.iter_mut().zip(coefficients) {
                        if coefficient != 0.0 {
                            terms.push((coefficient, factors));
                        }
                    }
                }
            }
        }
        // The stored weight itself where no term is dense, else one branch a lane.
        let operand = fuse::Perturbed::new(weight, &dense, if dense.is_empty() { 1 } else { self.lanes });
        let own = |lane: usize| x.row_range(lane * x.rows() / self.lanes..(lane + 1) * x.rows() / self.lanes);
        thin::linear(cx, x, (&operand, stored), &thin, own, bias, y);
    }

    /// `dx = dy W` in every lane: from the gradient of what [`Moves::linear`] makes to that of what it reads. It is the layer
    /// that is stored the other way round, low-rank terms included.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn linear_backward(
        &self,
        cx: &Context,
        dy: MatRef<'_>,
        (weight, stored): (WeightRef<'_>, Stored),
        dx: MatMut<'_>,
    ) {
        self.linear(cx, dy, (weight, stored.reversed()), None, dx);
    }

    /// Rows `ids` of the table in every lane: `y` `[lanes · ids.len(), D]`, or `[ids.len(), D]` where nothing moves it.
    ///
    /// # Panics
    /// If an id is not below the table's rows or `y` has another shape.
    pub fn gather(&self, cx: &Context, table: WeightRef<'_>, ids: &[u32], mut y: MatMut<'_>) {
        let lanes = if self.is_empty() { 1 } else { self.lanes };
        let (rows, cols) = (table.rows(), table.cols());
        assert!(
            y.rows() == lanes * ids.len() && y.cols() == cols,
            "rows of a table [{rows}, {cols}] for {} ids in {lanes} lanes into y [{}, {}]",
            ids.len(),
            y.rows(),
            y.cols()
        );
        for lane in 0..lanes {
            let own = y.row_range_mut(lane * ids.len()..(lane + 1) * ids.len());
            embedding::forward(cx, table, ids, 1.0, Store::Write, own);
        }
        if !self.is_empty() {
            let (parts, out): (_, Vec<_>) = (self.rows(), y.into_rows().enumerate().collect());
            out.into_par_iter().for_each(|(at, out)| {
                self.displace_rows(cx, &parts, at / ids.len(), ids[at % ids.len()] as usize, out);
            });
        }
    }

    /// A parameter's values in each lane, or once if nothing moves it: for vectors.
    pub fn values<'v>(&self, cx: &Context, values: &'v [f32]) -> Vec<Cow<'v, [f32]>> {
        if self.is_empty() {
            return vec![Cow::Borrowed(values)];
        }
        let parts = self.rows();
        let moved = |lane| {
            let mut moved = values.to_vec();
            self.displace_rows(cx, &parts, lane, 0, &mut moved);
            Cow::Owned(moved)
        };
        (0..self.lanes).map(moved).collect()
    }

    /// Writes what a single lane makes of whole rows over their values, those from the row of a number on: an update
    /// applied for good. Some rows at a time share the scratch memory for their directions; what all rows have in common,
    /// for example the columns of a right factor, is made once.
    ///
    /// # Panics
    /// If there is more than one lane.
    pub fn update<'m>(&'m self, cx: &'m Context) -> impl Fn(usize, &mut [f32]) + Sync + 'm {
        assert_eq!(self.lanes, 1, "an update is one displacement");
        let parts = self.rows();
        move |first, values| self.displace_rows(cx, &parts, 0, first, values)
    }

    fn rows(&self) -> Vec<PartRows<'a>> {
        self.directions.iter().map(|part| part.rows()).collect()
    }

    /// `out = fma(c, z[rows], out)` for every term of `lane` where its mask lets it; `out` comes as the stored rows from
    /// `first` on, and `parts` are the rows of the directions.
    fn displace_rows(&self, cx: &Context, parts: &[PartRows<'_>], lane: usize, first: usize, out: &mut [f32]) {
        let rows = first..first + out.len() / self.cols;
        let mut z = cx.workspace.take(out.len());
        let stored = if parts.iter().any(PartRows::reads_stored) { out.to_vec() } else { Vec::new() };
        for (part, coefficients) in parts.iter().zip(&self.coefficients) {
            let c = coefficients[lane];
            if c != 0.0 {
                let kept = part.mask().map(|mask| (mask, out.to_vec()));
                elementwise::axpy(cx, c, part.block(cx, rows.clone(), &stored, &mut z), out);
                if let Some((mask, before)) = kept {
                    for (row, at) in rows.clone().zip((0..).step_by(self.cols)) {
                        mask.outside(row).for_each(|col| out[at + col] = before[at + col]);
                    }
                }
            }
        }
    }
}
