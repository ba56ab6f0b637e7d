//! Products with directions that belong to some of the rows only: those of examples that have their own.
//!
//! `y += c·x zᵀ` for the rows of each [`Apart`]. Directions that differ in their signs alone share one product, in which the
//! values of `z` are made once for all rows: `x (s z t)ᵀ = ((x t) zᵀ) s`.
//!
//! *What must stay true* (contract C1). A row's chains go on from what `y` holds, over the inputs (or the rank) of its own
//! direction: they have the same bits whichever rows share the product.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Stored,
    flips::{Flips, flip},
    fuse::Change,
    thin::Part,
};
use crate::{
    kernels::{
        Context,
        matmul::{self, product},
    },
    tensor::{MatMut, MatRef, WeightRef},
};

/// Rows of a product that move along a direction of their own.
#[derive(Clone, Debug)]
pub(super) struct Apart<'a> {
    /// The rows that the direction multiplies.
    pub(super) from: Range<usize>,
    /// The rows that it adds to: as many.
    pub(super) to: Range<usize>,
    /// Its scale.
    pub(super) coefficient: f32,
    /// The direction.
    pub(super) part: Part<'a>,
}

/// Adds `c·x[from] zᵀ` to `y[to]` for each of `aparts`, no two of which add to one row.
///
/// # Panics
/// If the shapes do not fit.
pub(super) fn accumulate(
    cx: &Context,
    x: MatRef<'_>,
    layer: (WeightRef<'_>, Stored),
    mut aparts: Vec<Apart<'_>>,
    mut y: MatMut<'_>,
) {
    while let Some(part) = aparts.first().map(|apart| apart.part) {
        let (now, later): (Vec<_>, Vec<_>) = aparts.into_iter().partition(|apart| part.shares(&apart.part));
        together(cx, x, layer, &now, part.unflipped(), y.reborrow());
        aparts = later;
    }
}

/// The same where `z` is `part` under signs, for all of them.
fn together(
    cx: &Context,
    x: MatRef<'_>,
    (weight, stored): (WeightRef<'_>, Stored),
    aparts: &[Apart<'_>],
    part: Part<'_>,
    y: MatMut<'_>,
) {
    let (k, n) = (x.cols(), y.cols());
    let rows: Vec<Row> = aparts.iter().enumerate().flat_map(|(at, apart)| Row::of(at, apart)).collect();
    let signs: Vec<Signs> = aparts.iter().map(|apart| Signs::new(cx, apart.part.flips(), stored, (k, n))).collect();
    let mut all: Vec<Option<&mut [f32]>> = y.into_rows().map(Some).collect();
    let mut outputs: Vec<_> = rows.iter().map(|row| all[row.to].take().expect("a row is added to once")).collect();
    let (mut inputs, mut sums) = (cx.workspace.take::<f32>(rows.len() * k), cx.workspace.take::<f32>(rows.len() * n));
    let coefficient = |row: &Row| aparts[row.apart].coefficient;
    // Factors are multiplied by as they are, and what they make of a row is scaled.
    let scale_of_input = |row: &Row| if let Part::Dense(_) = part { coefficient(row) } else { 1.0 };
    inputs.par_chunks_exact_mut(k.max(1)).zip(&rows).for_each(|(input, row)| {
        input.copy_from_slice(x.row(row.from));
        flip(scale_of_input(row), signs[row.apart].inputs.as_deref(), input);
    });
    sums.par_chunks_exact_mut(n.max(1)).zip(&outputs).zip(&rows).for_each(|((sum, output), row)| {
        sum.copy_from_slice(output);
        flip(1.0, signs[row.apart].outputs.as_deref(), sum);
    });
    let out = MatMut::new(&mut sums, rows.len(), n);
    match part {
        Part::Dense(direction) => {
            let (inputs, change) = (MatRef::new(&inputs, rows.len(), k), Change { weight, direction });
            match stored {
                Stored::OutIn => matmul::accumulate(cx, inputs, &change, out),
                Stored::InOut => matmul::accumulate_transposed(cx, inputs, &change, out),
            }
        }
        Part::Thin(thin) => {
            let (rank, (input, output)) = (thin.rank(), thin.factors(stored));
            let mut side = cx.workspace.take::<f32>(rows.len() * rank);
            let inputs = MatRef::new(&inputs, rows.len(), k);
            product::nn(cx, inputs, input, false, MatMut::new(&mut side, rows.len(), rank));
            for (side, row) in side.chunks_exact_mut(rank.max(1)).zip(&rows) {
                flip(coefficient(row), None, side);
            }
            matmul::accumulate(cx, MatRef::new(&side, rows.len(), rank), &output, out);
        }
    }
    outputs.par_iter_mut().zip(sums.par_chunks_exact(n.max(1))).zip(&rows).for_each(|((output, sum), row)| {
        output.copy_from_slice(sum);
        flip(1.0, signs[row.apart].outputs.as_deref(), output);
    });
}

/// A row of a shared product.
struct Row {
    apart: usize,
    from: usize,
    to: usize,
}

impl Row {
    fn of(at: usize, apart: &Apart<'_>) -> impl Iterator<Item = Row> {
        assert_eq!(apart.from.len(), apart.to.len(), "rows that are multiplied and rows that are added to");
        apart.from.clone().zip(apart.to.clone()).map(move |(from, to)| Row { apart: at, from, to })
    }
}

/// The signs of a layer's inputs and outputs.
struct Signs {
    inputs: Option<Vec<f32>>,
    outputs: Option<Vec<f32>>,
}

impl Signs {
    fn new(cx: &Context, flips: Flips, stored: Stored, (k, n): (usize, usize)) -> Signs {
        match stored {
            Stored::OutIn => Signs { inputs: flips.of_cols(cx.isa, 0..k), outputs: flips.of_rows(cx.isa, 0..n) },
            Stored::InOut => Signs { inputs: flips.of_rows(cx.isa, 0..k), outputs: flips.of_cols(cx.isa, 0..n) },
        }
    }
}

#[cfg(test)]
mod tests;
