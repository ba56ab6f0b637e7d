//! The rows between the layers of a model.

use std::sync::Arc;

use crate::{
    kernels::{Context, elementwise},
    tensor::{MatMut, MatRef, Scratch},
};

/// Rows `[groups · T, width]` between the layers of a model. A group is a lane of a forward pass (one for all of them
/// until a layer is displaced); in a tangent pass group 0 is the values and each other one their change along one
/// direction. Rows that a tape keeps are shared with it, and not written any more.
pub(super) struct Stream<'w> {
    values: Arc<Scratch<'w, f32>>,
    groups: usize,
    rows: usize,
    width: usize,
    /// Which value of a tape they are, if they are recorded.
    pub(super) node: Option<usize>,
}

impl<'w> Stream<'w> {
    /// `rows` rows in each of `groups` groups, not yet written.
    pub(super) fn new(cx: &'w Context, groups: usize, rows: usize, width: usize) -> Self {
        Stream { values: Arc::new(cx.workspace.take(groups * rows * width)), groups, rows, width, node: None }
    }

    /// The same rows once more, not copied.
    pub(super) fn share(&self) -> Self {
        Stream { values: Arc::clone(&self.values), ..*self }
    }

    /// As many rows and groups of another width, not yet written.
    pub(super) fn beside(&self, cx: &'w Context, width: usize) -> Self {
        Stream::new(cx, self.groups, self.rows, width)
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }
    pub(super) fn width(&self) -> usize {
        self.width
    }
    pub(super) fn rows(&self) -> usize {
        self.rows
    }
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        Arc::get_mut(&mut self.values).expect("rows that are shared are not written")
    }
    /// The values of each group, to be written.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let group = (self.rows * self.width).max(1);
        self.values_mut().chunks_exact_mut(group)
    }
    pub(super) fn all(&self) -> Grouped<'_> {
        Grouped::new(MatRef::new(&self.values, self.groups * self.rows, self.width), self.groups)
    }
    pub(super) fn all_mut(&mut self) -> MatMut<'_> {
        let (rows, width) = (self.groups * self.rows, self.width);
        MatMut::new(self.values_mut(), rows, width)
    }
    pub(super) fn group(&self, group: usize) -> MatRef<'_> {
        self.all().group(group)
    }
    pub(super) fn group_mut(&mut self, group: usize) -> MatMut<'_> {
        let (rows, width) = (self.rows, self.width);
        MatMut::new(&mut self.values_mut()[group * rows * width..(group + 1) * rows * width], rows, width)
    }
    /// The rows of one lane; those of the only one while lanes agree.
    pub(super) fn lane(&self, lane: usize) -> MatRef<'_> {
        self.group(lane.min(self.groups - 1))
    }

    /// With the same rows in each of `lanes` lanes.
    pub(super) fn fork(self, cx: &'w Context, lanes: usize) -> Self {
        if self.groups == lanes {
            return self;
        }
        let mut forked = Stream::new(cx, lanes, self.rows, self.width);
        forked.each().for_each(|lane| lane.copy_from_slice(&self.values));
        forked
    }

    /// With groups of zeros after those it has, `groups` in all.
    pub(super) fn extend(self, cx: &'w Context, groups: usize) -> Self {
        if self.groups == groups {
            return self;
        }
        let mut extended = Stream::new(cx, groups, self.rows, self.width);
        let (own, new) = extended.values_mut().split_at_mut(self.values.len());
        own.copy_from_slice(&self.values);
        new.fill(0.0);
        extended
    }

    /// The same rows, to be written: a copy if they are shared.
    pub(super) fn owned(mut self, cx: &'w Context) -> Self {
        if Arc::get_mut(&mut self.values).is_none() {
            let mut copy = self.beside(cx, self.width);
            copy.values_mut().copy_from_slice(&self.values);
            self.values = copy.values;
        }
        self
    }

    /// Adds `delta` to the rows; where they are shared, to a copy.
    pub(super) fn add(&mut self, cx: &'w Context, delta: &Stream<'_>) {
        match Arc::get_mut(&mut self.values) {
            Some(values) => elementwise::add_assign(cx, &delta.values, values),
            None => {
                let mut sum = self.beside(cx, self.width);
                elementwise::add(cx, &self.values, &delta.values, sum.values_mut());
                self.values = sum.values;
            }
        }
    }
}

/// The rows of all groups, those of group 0 first.
#[derive(Clone, Copy)]
pub(super) struct Grouped<'a> {
    pub(super) rows: MatRef<'a>,
    pub(super) groups: usize,
}

impl<'a> Grouped<'a> {
    /// `rows` as `groups` equal groups.
    pub(super) fn new(rows: MatRef<'a>, groups: usize) -> Self {
        assert_eq!(rows.rows() % groups, 0, "{} rows in {groups} groups", rows.rows());
        Grouped { rows, groups }
    }
    /// Where the rows of a group are.
    pub(super) fn range(self, group: usize) -> std::ops::Range<usize> {
        let rows = self.rows.rows() / self.groups;
        group * rows..(group + 1) * rows
    }
    /// The rows of a group.
    pub(super) fn group(self, group: usize) -> MatRef<'a> {
        self.rows.row_range(self.range(group))
    }
}
