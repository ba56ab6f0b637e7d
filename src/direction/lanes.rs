//! What several displacements, evaluated in one pass, make of one parameter.
//!
//! A *lane* is one displacement of a pass. The rows of all lanes are stacked, those of lane 0 first, and a matrix is
//! packed once for all of them: terms that lanes share (a ± pair shares its direction) are generated once.
//!
//! Where examples have directions of their own, a lane is as many points as there are examples: [`Moves::over`] says whose
//! rows are where.
//!
//! *What must stay true* (contract C1). A lane's result has the bits it has alone, and an example's rows those they have
//! alone: sharing changes who generates a value, never an operation. Dense terms have the bits of the displaced parameter
//! everywhere; low-rank terms, and those of examples, in gathered rows, lent vectors and updates, but not in a product, where
//! they are no part of the weight.

use std::{borrow::Cow, sync::Arc};

use rayon::prelude::*;

use super::{
    Direction, Displacement, ExampleRows, Param, ParamId,
    apart::{self, Apart},
    examples::{ByExample, owners, spans},
    fuse,
    rows::{Made, PartRows},
    thin::{self, Part},
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
    directions: Vec<ByExample<Part<'a>>>,
    /// One per direction, each with a value per lane.
    coefficients: Vec<Vec<f32>>,
    /// The rows of a lane by their examples.
    examples: &'a [ExampleRows],
}

impl<'a> Moves<'a> {
    /// What `lanes` add to parameter `id`.
    ///
    /// # Panics
    /// If what a direction holds has not the parameter's shape; if one is scaled, masked or flipped twice, or low-rank and
    /// scaled or masked.
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
        let directions = merged.iter().map(|(_, direction, _)| ByExample::parts(direction, param)).collect();
        let coefficients = merged.into_iter().map(|(_, _, coefficients)| coefficients).collect();
        Moves { lanes: lanes.len(), cols: param.cols(), directions, coefficients, examples: &[] }
    }

    /// The same for lanes whose rows are those of `examples`.
    #[must_use]
    pub fn over(self, examples: &'a [ExampleRows]) -> Self {
        Moves { examples, ..self }
    }

    /// Whether no lane moves the parameter.
    pub fn is_empty(&self) -> bool {
        self.directions.is_empty()
    }

    /// Whether examples have directions of their own.
    fn is_per_example(&self) -> bool {
        self.directions.iter().any(ByExample::is_each)
    }

    /// `y = x Wᵀ (+ bias)` in every lane: `x` `[lanes · m, k]`, `y` `[lanes · m, n]`. Where nothing moves the weight
    /// any number of rows will do.
    ///
    /// Low-rank terms leave the weight as it is: lanes that add nothing else to it share one product on what is stored. So
    /// do those of examples, whose products follow, term by term.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn linear(
        &self,
        cx: &Context,
        x: MatRef<'_>,
        (weight, stored): (WeightRef<'_>, Stored),
        bias: Option<&[f32]>,
        mut y: MatMut<'_>,
    ) {
        let (mut dense, mut thin, mut own) = (Vec::new(), vec![thin::Terms::new(); self.lanes], Vec::new());
        for (part, coefficients) in self.directions.iter().zip(&self.coefficients) {
            match part {
                ByExample::Shared(Part::Dense(direction)) => {
                    dense.push(fuse::Term { direction: *direction, coefficients });
                }
                ByExample::Shared(Part::Thin(factors)) => {
                    for (terms, &coefficient) in thin.iter_mut().zip(coefficients) {
                        if coefficient != 0.0 {
                            terms.push((coefficient, *factors));
                        }
                    }
                }
                ByExample::Each(parts) => own.push((&parts[..], coefficients)),
            }
        }
        // The stored weight itself where no term is dense, else one branch a lane.
        let operand = fuse::Perturbed::new(weight, &dense, if dense.is_empty() { 1 } else { self.lanes });
        let inputs = |lane: usize| x.row_range(lane * x.rows() / self.lanes..(lane + 1) * x.rows() / self.lanes);
        let (now, last) = if own.is_empty() { (bias, None) } else { (None, bias) };
        thin::linear(cx, x, (&operand, stored), &thin, inputs, now, y.reborrow());
        for (parts, coefficients) in own {
            apart::accumulate(cx, x, (weight, stored), self.apart(parts, coefficients, x.rows()), y.reborrow());
        }
        if let Some(bias) = last {
            elementwise::add_bias(cx, bias, y);
        }
    }

    /// A term of examples' own directions over `rows` rows in all lanes.
    fn apart(&self, parts: &[Part<'a>], coefficients: &[f32], rows: usize) -> Vec<Apart<'a>> {
        assert_eq!(rows % self.lanes, 0, "{rows} rows in {} lanes", self.lanes);
        let m = rows / self.lanes;
        let spans = spans(self.examples, m, true);
        let lanes = coefficients.iter().enumerate().filter(|(_, coefficient)| **coefficient != 0.0);
        let of_lane = |(lane, &coefficient): (usize, &f32)| {
            let of_span = move |ExampleRows { example, rows }: &ExampleRows| {
                let rows = lane * m + rows.start..lane * m + rows.end;
                Apart { from: rows.clone(), to: rows, coefficient, part: parts[*example] }
            };
            spans.iter().map(of_span).collect::<Vec<_>>()
        };
        lanes.flat_map(of_lane).collect()
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
            let owners = owners(self.examples, ids.len(), self.is_per_example());
            let (parts, out): (_, Vec<_>) = (self.rows(), y.into_rows().enumerate().collect());
            out.into_par_iter().for_each(|(at, out)| {
                let (lane, at) = (at / ids.len(), at % ids.len());
                self.displace_rows(cx, &parts, (lane, owners[at]), ids[at] as usize, out);
            });
        }
    }

    /// A parameter's values in each lane, or once if nothing moves it: for vectors. In a lane they are the same for all rows,
    /// or, where examples have directions of their own, each example's, in the order of [`Moves::over`].
    pub fn values<'v>(&self, cx: &Context, values: &'v [f32]) -> Vec<Vec<Cow<'v, [f32]>>> {
        if self.is_empty() {
            return vec![vec![Cow::Borrowed(values)]];
        }
        let parts = self.rows();
        let each = self.is_per_example();
        let moved = |lane, example| {
            let mut moved = values.to_vec();
            self.displace_rows(cx, &parts, (lane, example), 0, &mut moved);
            Cow::Owned(moved)
        };
        let of_lane = |lane| match each {
            false => vec![moved(lane, 0)],
            true => self.examples.iter().map(|rows| moved(lane, rows.example)).collect(),
        };
        (0..self.lanes).map(of_lane).collect()
    }

    /// Writes what a single lane makes of whole rows over their values, those from the row of a number on: an update
    /// applied for good. Some rows at a time share the scratch memory for their directions; what all rows have in common,
    /// for example the columns of a right factor, is made once.
    ///
    /// # Panics
    /// If there is more than one lane, or examples have directions of their own.
    pub fn update<'m>(&'m self, cx: &'m Context) -> impl Fn(usize, &mut [f32]) + Sync + 'm {
        assert_eq!(self.lanes, 1, "an update is one displacement");
        assert!(!self.is_per_example(), "an update moves all examples alike");
        let parts = self.rows();
        move |first, values| self.displace_rows(cx, &parts, (0, 0), first, values)
    }

    fn rows(&self) -> Vec<ByExample<PartRows<'a>>> {
        let mut before: Option<PartRows<'a>> = None;
        let mut rows = |part: &Part<'a>| {
            let rows = PartRows::of(*part, before.as_ref());
            before = Some(rows.clone());
            rows
        };
        self.directions.iter().map(|part| part.map(&mut rows)).collect()
    }

    /// `out = fma(c, z[rows], out)` for every term of `lane` where its mask lets it, in the rows of an example; `out` comes as
    /// the stored rows from `first` on, and `parts` are the rows of the directions. Terms one after the other whose
    /// directions differ in their signs alone share the making of their values.
    fn displace_rows(
        &self,
        cx: &Context,
        parts: &[ByExample<PartRows<'_>>],
        (lane, example): (usize, usize),
        first: usize,
        out: &mut [f32],
    ) {
        let rows = first..first + out.len() / self.cols;
        let parts: Vec<&PartRows<'_>> = parts.iter().map(|part| part.of(example)).collect();
        let mut made = Made::new(cx, out.len());
        let stored = if parts.iter().any(|part| part.reads_stored()) { out.to_vec() } else { Vec::new() };
        for (part, coefficients) in parts.into_iter().zip(&self.coefficients) {
            let c = coefficients[lane];
            if c != 0.0 {
                let kept = part.mask().map(|mask| (mask, out.to_vec()));
                elementwise::axpy(cx, c, made.block(part, rows.clone(), &stored), out);
                if let Some((mask, before)) = kept {
                    for (row, at) in rows.clone().zip((0..).step_by(self.cols)) {
                        mask.outside(row).for_each(|col| out[at + col] = before[at + col]);
                    }
                }
            }
        }
    }
}
