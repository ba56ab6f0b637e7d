//! Directions as they meet a parameter, and low-rank ones at a matmul: `z = left · rightᵀ`, multiplied by without being
//! formed.
//!
//! *What must stay true.* An element of `z` is one chain of fused multiply-adds over the rank from +0, wherever it is
//! formed (rows of a table, vectors, updates). A matmul forms none: it computes `(x R) Lᵀ`, which differs by roundings
//! that [`super::materialize`] bounds. Every row of it has the same bits in any company.

use super::{
    Direction, Param, Stored,
    dense::{Dense, Mask, Source},
    flips::Flips,
};
use crate::{
    kernels::{
        Context,
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
    /// If what the direction holds has not the parameter's shape; if it is scaled, masked or flipped twice, or low-rank and
    /// scaled, masked or flipped; if there is not one direction, but one of each example.
    pub(super) fn of(direction: &'a Direction, param: &Param) -> Self {
        let (rows, cols) = (param.rows(), param.cols());
        let (mut of, mut scale, mut mask, mut flips) = (direction, None, None, Flips::default());
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
                Direction::Flipped { of: inner, rows, cols } => {
                    let outer = std::mem::replace(&mut flips, Flips::new(*rows, *cols, param.noise_name()));
                    assert!(outer.is_empty(), "the direction of {:?} is flipped twice", param.name());
                    of = inner;
                }
                Direction::LowRank { left, right, rank } => {
                    let plain = scale.is_none() && mask.is_none() && flips.is_empty();
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
                Direction::PerExample(_) => panic!("the directions of {:?} are those of examples", param.name()),
            }
        };
        Part::Dense(Dense { source, scale, mask, flips })
    }

    /// The signs of its rows and columns.
    pub(super) fn flips(&self) -> Flips {
        match self {
            Part::Dense(dense) => dense.flips,
            Part::Thin(_) => Flips::default(),
        }
    }

    /// The same without signs.
    pub(super) fn unflipped(mut self) -> Self {
        if let Part::Dense(dense) = &mut self {
            dense.flips = Flips::default();
        }
        self
    }

    /// Whether this is known to have the values of `other` but for their signs.
    pub(super) fn shares(&self, other: &Part<'_>) -> bool {
        match (self, other) {
            (Part::Dense(dense), Part::Dense(other)) => dense.shares(other),
            (Part::Thin(thin), Part::Thin(other)) => {
                std::ptr::eq(thin.left.data(), other.left.data()) && std::ptr::eq(thin.right.data(), other.right.data())
            }
            _ => false,
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
    pub(super) fn rank(self) -> usize {
        self.left.cols()
    }

    /// The factors at the inputs and at the outputs of a layer.
    pub(super) fn factors(self, stored: Stored) -> (MatRef<'a>, MatRef<'a>) {
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
