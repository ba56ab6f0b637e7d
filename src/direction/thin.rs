//! Directions as they meet a parameter, and low-rank ones at a matmul: `z = left · rightᵀ`, multiplied by without being
//! formed.
//!
//! *What must stay true.* An element of `z` is one chain of fused multiply-adds over the rank from +0, wherever it is
//! formed (rows of a table, vectors, updates). A matmul forms none: it computes `(x R) Lᵀ`, which differs by roundings
//! that [`super::materialize`] bounds. Every row of it has the same bits in any company.

use std::ops::Range;

use super::{
    Direction, Param, Stored,
    dense::{Dense, Mask, Source},
};
use crate::{
    kernels::{
        Context, elementwise,
        matmul::{self, PanelSource, low_rank, product},
    },
    tensor::{MatMut, MatRef},
};

/// A direction as it meets a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// One value per element, added while a matmul packs.
    Dense(Dense<'a>),
    /// Two thin factors: the weights stay as they are.
    Thin(Thin<'a>),
}

impl<'a> Part<'a> {
    /// A parameter's direction.
    ///
    /// # Panics
    /// If what the direction holds has not the parameter's shape; if it is scaled or masked twice, or low-rank and scaled
    /// or masked.
    pub(super) fn of(direction: &'a Direction, param: &Param) -> Self {
        let (rows, cols) = (param.rows(), param.cols());
        let (mut of, mut scale, mut mask) = (direction, None, None);
        let source = loop {
            match of {
                Direction::Masked { of: inner, mask: words } => {
                    let outer = mask.replace(Mask::new(words, rows, cols));
                    assert!(outer.is_none(), "the direction of {:?} is masked twice", param.name());
                    of = inner;
                }
                Direction::Scaled { of: inner, scale: values } => {
                    let outer = scale.replace(MatRef::new(values, rows, cols));
                    assert!(outer.is_none(), "the direction of {:?} is scaled twice", param.name());
                    of = inner;
                }
                Direction::LowRank { left, right, rank } => {
                    let plain = scale.is_none() && mask.is_none();
                    assert!(plain, "the low-rank direction of {:?} is scaled or masked", param.name());
                    let (left, right) = (MatRef::new(left, rows, *rank), MatRef::new(right, cols, *rank));
                    return Part::Thin(Thin { left, right });
                }
                Direction::Dense { key, law } => break Source::Noise(key.tensor(param.noise_name()), *law),
                Direction::Explicit(values) => break Source::Explicit(MatRef::new(values, rows, cols)),
                Direction::Weights => break Source::Weights,
                Direction::Drift(anchor) => {
                    let anchor = anchor.weight();
                    let (found, name) = ((anchor.rows(), anchor.cols()), param.name());
                    assert_eq!(found, (rows, cols), "the anchor of {name:?} has not its rows and columns");
                    break Source::Drift(anchor);
                }
                Direction::Rows(rule) => break Source::Rows(&**rule),
            }
        };
        Part::Dense(Dense { source, scale, mask })
    }

    /// Its rows, some at a time.
    pub(super) fn rows(self) -> PartRows<'a> {
        match self {
            Part::Dense(dense) => PartRows::Dense(dense),
            Part::Thin(Thin { left, right }) => {
                let column = |r: usize| (0..right.rows()).map(|row| right.row(row)[r]).collect();
                PartRows::Thin { left, columns: (0..left.cols()).map(column).collect() }
            }
        }
    }
}

/// The rows of a direction.
#[derive(Clone, Debug)]
pub(super) enum PartRows<'a> {
    Dense(Dense<'a>),
    /// The left factor, and the columns of the right one.
    Thin {
        left: MatRef<'a>,
        columns: Vec<Vec<f32>>,
    },
}

impl<'a> PartRows<'a> {
    /// Whether its values are made of those of the weight.
    pub(super) fn reads_stored(&self) -> bool {
        matches!(self, PartRows::Dense(dense) if dense.reads_stored())
    }

    /// Rows `rows`, one after the other: made in `z`, unless they lie somewhere. `stored` are those of the weight, for
    /// directions that read them.
    pub(super) fn block<'z>(&self, cx: &Context, rows: Range<usize>, stored: &'z [f32], z: &'z mut [f32]) -> &'z [f32]
    where
        'a: 'z,
    {
        match self {
            PartRows::Dense(dense) => dense.rows(cx, rows, stored, z),
            PartRows::Thin { left, columns } => {
                z.fill(0.0);
                let cols = z.len() / rows.len();
                for (row, z) in rows.zip(z.chunks_exact_mut(cols)) {
                    for (&factor, column) in left.row(row).iter().zip(columns) {
                        elementwise::axpy(cx, factor, column, z);
                    }
                }
                z
            }
        }
    }

    /// Row `row` alone.
    pub(super) fn row(&self, cx: &Context, row: usize, stored: &[f32]) -> Vec<f32> {
        let mut z = cx.workspace.take(stored.len());
        self.block(cx, row..row + 1, stored, &mut z).to_vec()
    }

    /// Which elements take part; `None` if all do.
    pub(super) fn mask(&self) -> Option<Mask<'a>> {
        match self {
            PartRows::Dense(dense) => dense.mask,
            PartRows::Thin { .. } => None,
        }
    }
}

/// A low-rank direction of a parameter `[rows, cols]` as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thin<'a> {
    /// `[rows, r]`.
    pub(super) left: MatRef<'a>,
    /// `[cols, r]`.
    pub(super) right: MatRef<'a>,
}

impl<'a> Thin<'a> {
    fn rank(self) -> usize {
        self.left.cols()
    }

    /// The factors at the inputs and at the outputs of a layer.
    fn factors(self, stored: Stored) -> (MatRef<'a>, MatRef<'a>) {
        match stored {
            Stored::OutIn => (self.right, self.left),
            Stored::InOut => (self.left, self.right),
        }
    }
}

/// The low-rank terms of one group of rows, each with its coefficient.
pub(super) type Terms<'a> = Vec<(f32, Thin<'a>)>;

/// `y = x Wᵀ (+ bias)` for all groups of rows, plus `c · (inputs R) Lᵀ` for each term of a group, at the end of the same
/// chains; `inputs` are the rows that a group's terms read.
///
/// # Panics
/// If the shapes do not fit.
pub(super) fn linear<'x, W: PanelSource>(
    cx: &Context,
    x: MatRef<'_>,
    (weight, stored): (&W, Stored),
    groups: &[Terms<'_>],
    inputs: impl Fn(usize) -> MatRef<'x>,
    bias: Option<&[f32]>,
    y: MatMut<'_>,
) {
    let rank_of = |terms: &Terms<'_>| terms.iter().map(|(_, thin)| thin.rank()).sum::<usize>();
    let rank = groups.iter().map(rank_of).max().unwrap_or(0);
    if rank == 0 {
        return match stored {
            Stored::OutIn => matmul::forward(cx, x, weight, bias, y),
            Stored::InOut => matmul::forward_transposed(cx, x, weight, bias, y),
        };
    }
    assert_eq!(x.rows() % groups.len(), 0, "x [{}, {}] has rows for {} groups", x.rows(), x.cols(), groups.len());
    let (m, n) = (x.rows() / groups.len(), y.cols());
    let mut side = cx.workspace.take::<f32>(groups.len() * m * rank);
    // Columns that a group does not have: −0 times +0 changes no chain.
    side.fill(-0.0);
    let mut built = Vec::new();
    for (group, terms) in groups.iter().enumerate() {
        let mut column = 0;
        for &(coefficient, thin) in terms {
            let (input, _) = thin.factors(stored);
            let columns = column..column + thin.rank();
            let mut part = MatMut::new(&mut side[group * m * rank..(group + 1) * m * rank], m, rank);
            let mut part = part.column_range_mut(columns.clone());
            product::nn(cx, inputs(group), input, false, part.reborrow());
            part.into_rows().flatten().for_each(|t| *t *= coefficient);
            column = columns.end;
        }
        // Only a group of one term of the full rank has its factor as it is.
        let whole = matches!(terms[..], [(_, thin)] if thin.rank() == rank);
        built.push((!whole).then(|| output_factors(terms, stored, n, rank)));
    }
    let left: Vec<MatRef<'_>> = groups
        .iter()
        .zip(&built)
        .map(|(terms, built)| match built {
            Some(built) => MatRef::new(built, n, rank),
            None => terms[0].1.factors(stored).1,
        })
        .collect();
    let side = low_rank::Side { x: MatRef::new(&side, groups.len() * m, rank), left: &left };
    match stored {
        Stored::OutIn => low_rank::with_side(cx, x, weight, side, bias, y),
        Stored::InOut => low_rank::with_side_transposed(cx, x, weight, side, bias, y),
    }
}

/// The factors at the outputs of all terms side by side, `[n, rank]`, +0 after the last.
fn output_factors(terms: &Terms<'_>, stored: Stored, n: usize, rank: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * rank];
    if !terms.is_empty() {
        for (row, out) in out.chunks_exact_mut(rank).enumerate() {
            let values = terms.iter().flat_map(|(_, thin)| thin.factors(stored).1.row(row));
            out.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
        }
    }
    out
}

#[cfg(test)]
mod tests;
