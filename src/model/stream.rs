//! The rows between the layers of a model.

use crate::{
    kernels::{Context, elementwise},
    tensor::{MatMut, MatRef, Scratch},
};

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
