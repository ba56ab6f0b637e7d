//! The head: logits, or the loss of labelled rows without a logit matrix.
//!
//! *What must stay true.* Only the rows, and where a vocabulary is named only the entries, that are asked for are
//! computed; each has the bits it has among all the others.

use super::{
    HeadParts, Hidden, LinearPart, Model, ModelError,
    layers::{self, Mode},
    pass::Pass,
    stream::{Grouped, Stream},
};
use crate::{
    direction::Displacement,
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
        let mut pass = Pass { cx, model: self, lanes, cache: None };
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
        let mut pass = Pass { cx, model: self, lanes, cache: None };
        let head = self.head()?;
        let x = layers::head_input(&mut pass, head, &hidden.stream, rows);
        let x = pass.enter(x, head.last.params());
        let groups = x.groups();
        // Head and loss in one, block of rows by block of rows.
        let product = |x: MatRef<'_>, logits: MatMut<'_>| pass.linear(head.last, Grouped::new(x, groups), logits);
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
        for lane in 0..self.lanes.len() {
            let mut alone = Pass { cx: self.cx, model: self.model, lanes: &self.lanes[lane..=lane], cache: None };
            let entries = alone.gather(last.weight, ids, 1, matrix.cols());
            let bias: Option<Vec<f32>> = last.bias.map(|id| {
                let bias = &alone.vectors(id)[0];
                ids.iter().map(|&id| bias[id as usize]).collect()
            });
            let y = logits.group_mut(lane);
            matmul::forward(self.cx, x.lane(lane), &entries.group(0), bias.as_deref(), y);
        }
        logits
    }
}
