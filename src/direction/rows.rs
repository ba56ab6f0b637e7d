//! Rows of directions, made where they are gathered, lent or applied.
//!
//! *What must stay true.* An element has the same bits whichever rows are asked for beside it, and whether its values were
//! made for it or for a direction before it that differs in its signs alone.

use std::{ops::Range, sync::Arc};

use super::{
    dense::Mask,
    thin::{Part, Thin},
};
use crate::{
    kernels::{Context, elementwise},
    tensor::Scratch,
};

/// The rows of a direction.
#[derive(Clone, Debug)]
pub(super) struct PartRows<'a> {
    part: Part<'a>,
    /// Of a low-rank direction the columns of the right factor.
    columns: Arc<[Vec<f32>]>,
}

impl<'a> PartRows<'a> {
    /// The rows of `part`; `before` are those of a direction that may share its right factor.
    pub(super) fn of(part: Part<'a>, before: Option<&PartRows<'a>>) -> Self {
        let columns = match (part, before) {
            (Part::Dense(_), _) => Arc::default(),
            (Part::Thin(Thin { right, .. }), Some(PartRows { part: Part::Thin(before), columns }))
                if std::ptr::eq(right.data(), before.right.data()) =>
            {
                Arc::clone(columns)
            }
            (Part::Thin(Thin { right, .. }), _) => {
                let column = |r: usize| (0..right.rows()).map(|row| right.row(row)[r]).collect();
                (0..right.cols()).map(column).collect()
            }
        };
        PartRows { part, columns }
    }

    /// Whether its values are made of those of the weight.
    pub(super) fn reads_stored(&self) -> bool {
        matches!(&self.part, Part::Dense(dense) if dense.reads_stored())
    }

    /// Rows `rows`, one after the other: made in `z`, unless they lie somewhere. `stored` are those of the weight, for
    /// directions that read them.
    pub(super) fn block<'z>(&self, cx: &Context, rows: Range<usize>, stored: &'z [f32], z: &'z mut [f32]) -> &'z [f32]
    where
        'a: 'z,
    {
        match self.part {
            Part::Dense(dense) => dense.rows(cx, rows, stored, z),
            Part::Thin(Thin { left, .. }) => {
                z.fill(0.0);
                let cols = z.len() / rows.len();
                for (row, z) in rows.zip(z.chunks_exact_mut(cols)) {
                    for (&factor, column) in left.row(row).iter().zip(&*self.columns) {
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
        match self.part {
            Part::Dense(dense) => dense.mask,
            Part::Thin(_) => None,
        }
    }
}

/// The same rows of one direction after the other.
pub(super) struct Made<'a, 'c> {
    cx: &'c Context,
    z: Scratch<'c, f32>,
    /// Values without signs, and whose they are.
    unflipped: Option<(Part<'a>, Scratch<'c, f32>)>,
}

impl<'a, 'c> Made<'a, 'c> {
    /// Rows of so many values in all.
    pub(super) fn new(cx: &'c Context, values: usize) -> Self {
        Made { cx, z: cx.workspace.take(values), unflipped: None }
    }

    /// Rows `rows` of `of`, as [`PartRows::block`] makes them.
    pub(super) fn block<'z>(&'z mut self, of: &PartRows<'a>, rows: Range<usize>, stored: &'z [f32]) -> &'z [f32]
    where
        'a: 'z,
    {
        let flips = of.part.flips();
        if flips.is_empty() {
            return of.block(self.cx, rows, stored, &mut self.z);
        }
        if !self.unflipped.as_ref().is_some_and(|(made, _)| made.shares(&of.part)) {
            let plain = PartRows { part: of.part.unflipped(), columns: Arc::clone(&of.columns) };
            let mut values = self.cx.workspace.take(self.z.len());
            values.copy_from_slice(plain.block(self.cx, rows.clone(), stored, &mut self.z));
            self.unflipped = Some((plain.part, values));
        }
        if let Some((_, values)) = &self.unflipped {
            self.z.copy_from_slice(values);
        }
        flips.apply(self.cx.isa, rows, &mut self.z);
        &self.z
    }
}
