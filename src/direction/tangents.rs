//! What the directions of a tangent pass make of one parameter: its change along each of them.
//!
//! The rows of a tangent pass are stacked in groups: group 0 is the values, group `1 + i` their change along direction
//! `i`. A weight is packed once for all groups.
//!
//! *What must stay true* (contract C1). The values have the bits they have in [`super::Moves`] where nothing moves, and a
//! change has the same bits whichever directions are beside it.

use std::borrow::Cow;

use rayon::prelude::*;

use super::{
    DirectionSet, ExampleRows, Param, ParamId, Stored,
    apart::{self, Apart},
    examples::{ByExample, owners, spans},
    fuse,
    rows::PartRows,
    thin::{self, Part},
};
use crate::{
    kernels::{Context, elementwise::Store, embedding, matmul},
    tensor::{MatMut, MatRef, WeightRef},
};

/// One parameter's change along each of several directions.
#[derive(Clone, Debug)]
pub struct Tangents<'a> {
    changes: Vec<Option<ByExample<Part<'a>>>>,
    /// The rows of a group by their examples.
    examples: &'a [ExampleRows],
}

impl<'a> Tangents<'a> {
    /// How parameter `id` changes along each of `sets`.
    ///
    /// # Panics
    /// If what a direction holds has not the parameter's shape; if one is scaled, masked or flipped twice, or low-rank and
    /// scaled or masked.
    pub fn of(sets: impl IntoIterator<Item = &'a DirectionSet>, id: ParamId, param: &Param) -> Self {
        let change = |set: &'a DirectionSet| set.get(id).map(|direction| ByExample::parts(direction, param));
        Tangents { changes: sets.into_iter().map(change).collect(), examples: &[] }
    }

    /// The same for groups whose rows are those of `examples`.
    #[must_use]
    pub fn over(self, examples: &'a [ExampleRows]) -> Self {
        Tangents { examples, ..self }
    }

    /// Whether the parameter changes along a direction.
    pub fn moves(&self, direction: usize) -> bool {
        self.changes[direction].is_some()
    }

    /// Groups of rows, the values included.
    fn groups(&self) -> usize {
        1 + self.changes.len()
    }

    /// `y = x Wᵀ` and `ẏ = ẋ Wᵀ + x żᵀ`, the second product continuing the chains of the first: `x` `[groups · m, k]`, `y`
    /// `[groups · m, n]`.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn linear(&self, cx: &Context, x: MatRef<'_>, (weight, stored): (WeightRef<'_>, Stored), mut y: MatMut<'_>) {
        let (rows, groups) = (x.rows(), self.groups());
        assert_eq!(rows % groups, 0, "x [{rows}, {}] has rows for {groups} groups", x.cols());
        let m = rows / groups;
        let values = x.row_range(0..m);
        let thin = |change: &Option<ByExample<Part<'a>>>| match change {
            Some(ByExample::Shared(Part::Thin(factors))) => vec![(1.0, *factors)],
            _ => Vec::new(),
        };
        let thin: Vec<_> = std::iter::once(Vec::new()).chain(self.changes.iter().map(thin)).collect();
        thin::linear(cx, x, (&weight, stored), &thin, |_| values, None, y.reborrow());
        for (at, change) in self.changes.iter().enumerate() {
            let own = y.row_range_mut((at + 1) * m..(at + 2) * m);
            match change {
                Some(ByExample::Shared(Part::Dense(direction))) => {
                    let change = fuse::Change { weight, direction: *direction };
                    match stored {
                        Stored::OutIn => matmul::accumulate(cx, values, &change, own),
                        Stored::InOut => matmul::accumulate_transposed(cx, values, &change, own),
                    }
                }
                Some(ByExample::Each(parts)) => {
                    let span = |ExampleRows { example, rows }| Apart {
                        from: rows.clone(),
                        to: rows,
                        coefficient: 1.0,
                        part: parts[example],
                    };
                    let aparts = spans(self.examples, m, true).into_iter().map(span).collect();
                    apart::accumulate(cx, values, (weight, stored), aparts, own);
                }
                Some(ByExample::Shared(Part::Thin(_))) | None => {}
            }
        }
    }

    /// Rows `ids` of the table and their change: `y` `[groups · ids.len(), D]`.
    ///
    /// # Panics
    /// If an id is not below the table's rows or `y` has another shape.
    pub fn gather(&self, cx: &Context, table: WeightRef<'_>, ids: &[u32], mut y: MatMut<'_>) {
        let groups = self.groups();
        assert_eq!(y.rows(), groups * ids.len(), "y [{}, {}] of {groups} groups", y.rows(), y.cols());
        embedding::forward(cx, table, ids, 1.0, Store::Write, y.row_range_mut(0..ids.len()));
        let mut rows = y.into_rows();
        let values: Vec<&mut [f32]> = rows.by_ref().take(ids.len()).collect();
        let owners = owners(self.examples, ids.len(), self.changes.iter().flatten().any(ByExample::is_each));
        let (parts, changes): (Vec<_>, Vec<_>) = (self.rows(), rows.enumerate().collect());
        changes.into_par_iter().for_each(|(at, out)| match &parts[at / ids.len()] {
            None => out.fill(0.0),
            Some(part) => {
                let at = at % ids.len();
                out.copy_from_slice(&part.of(owners[at]).row(cx, ids[at] as usize, values[at]));
            }
        });
    }

    fn rows(&self) -> Vec<Option<ByExample<PartRows<'a>>>> {
        let rows = |part: &Part<'a>| PartRows::of(*part, None);
        self.changes.iter().map(|change| change.as_ref().map(|change| change.map(rows))).collect()
    }

    /// The change of a vector along each direction: none, that of all rows, or each example's, in the order of
    /// [`Tangents::over`].
    pub fn values<'v>(&self, cx: &Context, values: &'v [f32]) -> Vec<Vec<Cow<'v, [f32]>>>
    where
        'a: 'v,
    {
        let change = |parts: &ByExample<PartRows<'a>>| {
            let of = |example| Cow::Owned(parts.of(example).row(cx, 0, values));
            if parts.is_each() { self.examples.iter().map(|rows| of(rows.example)).collect() } else { vec![of(0)] }
        };
        self.rows().iter().map(|parts| parts.as_ref().map(change).unwrap_or_default()).collect()
    }
}
