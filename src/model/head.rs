//! The head: logits, or the loss of labelled rows without a logit matrix.
//!
//! *What must stay true.* Only the rows, and where a vocabulary is named only the entries, that are asked for are
//! computed; each has the bits it has among all the others.

use std::{borrow::Cow, ops::Range};

use super::{
    HeadParts, Hidden, LinearPart, Model, ModelError,
    layers::{self, Mode},
    pass::Pass,
    stream::{Grouped, Stream},
};
use crate::{
    direction::{Displacement, ExampleRows},
    kernels::{
        Context,
        cross_entropy::{self, Sums, Targets, Vocabulary},
        head, matmul,
    },
    tensor::{MatMut, MatRef},
};

/// Logits `[rows, vocabulary]` per lane.
pub struct Logits<'w> {
    stream: Stream<'w>,
}

impl Logits<'_> {
    /// The rows of one lane.
    pub fn lane(&self, lane: usize) -> MatRef<'_> {
        self.stream.lane(lane)
    }
}

impl Model {
    /// The logits of `rows` of the batch, in the order asked for, in every lane; for a classifier a row is the first
    /// of a sequence.
    ///
    /// # Errors
    /// [`ModelError::NoHead`].
    ///
    /// # Panics
    /// If there are not such rows or entries of the vocabulary, or `lanes` are not those of `hidden`.
    pub fn logits<'w>(
        &self,
        cx: &'w Context,
        hidden: &Hidden<'w>,
        lanes: &[Displacement],
        rows: &[usize],
        vocabulary: Vocabulary<'_>,
    ) -> Result<Logits<'w>, ModelError> {
        let examples = ExampleRows::select(&hidden.examples, rows);
        let mut pass = Pass { cx, model: self, lanes, cache: None, examples: &examples };
        let head = self.head()?;
        let x = layers::head_input(&mut pass, head, &hidden.stream, rows);
        let stream = match vocabulary {
            Vocabulary::Full(_) => {
                let x = pass.enter(x, head.last.params());
                pass.product(head.last, &x)
            }
            Vocabulary::Only(ids) => pass.entries(head.last, x, ids),
        };
        Ok(Logits { stream })
    }

    /// The losses of `rows` of the batch against `targets`, which has one label per row, in every lane.
    ///
    /// # Errors
    /// [`ModelError::NoHead`].
    ///
    /// # Panics
    /// As [`Model::logits`], and if a label has no column.
    pub fn losses<'w>(
        &self,
        cx: &'w Context,
        hidden: &Hidden<'w>,
        lanes: &[Displacement],
        rows: &[usize],
        targets: &Targets<'_>,
    ) -> Result<Vec<Sums>, ModelError> {
        assert_eq!(rows.len(), targets.labels.len(), "{} labels for {} rows", targets.labels.len(), rows.len());
        if let Vocabulary::Only(_) = targets.vocabulary {
            let logits = self.logits(cx, hidden, lanes, rows, targets.vocabulary)?;
            return Ok((0..lanes.len()).map(|lane| cross_entropy::forward(cx, targets, logits.lane(lane))).collect());
        }
        let examples = ExampleRows::select(&hidden.examples, rows);
        let mut pass = Pass { cx, model: self, lanes, cache: None, examples: &examples };
        let head = self.head()?;
        let x = layers::head_input(&mut pass, head, &hidden.stream, rows);
        let x = pass.enter(x, head.last.params());
        let groups = x.groups();
        // Head and loss in one, block of rows by block of rows.
        let product = |rows: &[usize], x: MatRef<'_>, logits: MatMut<'_>| {
            let examples = ExampleRows::select(&examples, rows);
            let pass = Pass { cx, model: self, lanes, cache: None, examples: &examples };
            pass.linear(head.last, Grouped::new(x, groups), logits);
        };
        let sums = head::forward_by(cx, x.all().rows, groups, targets, product);
        Ok((0..lanes.len()).map(|lane| sums[lane.min(groups - 1)].clone()).collect())
    }

    pub(super) fn head(&self) -> Result<HeadParts, ModelError> {
        self.parts.head.ok_or(ModelError::NoHead { family: self.spec.family })
    }
}

impl<'w> Pass<'_, 'w> {
    /// The logits of some entries of the vocabulary: their rows of the matrix are taken out and multiplied by.
    pub(super) fn entries(&self, last: LinearPart, x: Stream<'w>, ids: &[u32]) -> Stream<'w> {
        let x = x.fork(self.cx, self.lanes.len());
        let mut logits = x.beside(self.cx, ids.len());
        let matrix = self.model.store.weight(last.weight);
        for (lane, displacement) in self.lanes.iter().enumerate() {
            for (point, rows) in self.points(displacement, x.rows()) {
                let lanes = std::slice::from_ref(&*point);
                let mut alone = Pass { cx: self.cx, model: self.model, lanes, cache: None, examples: &[] };
                let entries = alone.gather(last.weight, ids, 1, matrix.cols());
                let bias: Option<Vec<f32>> = last.bias.map(|id| {
                    let bias = &alone.vectors(id)[0][0];
                    ids.iter().map(|&id| bias[id as usize]).collect()
                });
                let (x, mut y) = (x.lane(lane).row_range(rows.clone()), logits.group_mut(lane));
                matmul::forward(self.cx, x, &entries.group(0), bias.as_deref(), y.row_range_mut(rows));
            }
        }
        logits
    }

    /// The points at which `rows` rows of a lane are evaluated: one for all of them, or each example's.
    fn points<'d>(&self, lane: &'d Displacement, rows: usize) -> Vec<(Cow<'d, Displacement>, Range<usize>)> {
        if !lane.is_per_example() {
            return vec![(Cow::Borrowed(lane), 0..rows)];
        }
        let point = |run: &ExampleRows| (Cow::Owned(lane.of_example(run.example)), run.rows.clone());
        self.examples.iter().map(point).collect()
    }
}
