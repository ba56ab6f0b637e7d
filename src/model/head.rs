//! The head: logits, or the loss of labelled rows without a logit matrix.
//!
//! *What must stay true.* Only the rows, and where a vocabulary is named only the entries, that are asked for are
//! computed; each has the bits it has among all the others.

use super::{Head, HeadParts, Hidden, LinearPart, Model, ModelError, NormPart, pass::Pass, stream::Stream};
use crate::{
    direction::{Displacement, Moves},
    kernels::{
        Context,
        activation::{self, Activation},
        cross_entropy::{self, Sums, Targets, Vocabulary},
        matmul,
    },
    tensor::MatRef,
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
        let pass = Pass { cx, model: self, lanes };
        let head = self.head()?;
        let x = pass.head_input(head, hidden, rows);
        let stream = match vocabulary {
            Vocabulary::Full(_) => {
                let x = if pass.moved(head.last.params()) { x.fork(cx, lanes.len()) } else { x };
                let mut logits = x.beside(cx, head.last.outputs);
                pass.linear(head.last, x.all(), logits.all_mut());
                logits
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
        let pass = Pass { cx, model: self, lanes };
        let head = self.head()?;
        let x = pass.head_input(head, hidden, rows);
        Ok(pass.fused_losses(head.last, x, targets))
    }

    fn head(&self) -> Result<&HeadParts, ModelError> {
        self.parts.head.as_ref().ok_or(ModelError::NoHead { family: self.spec.family })
    }
}

impl<'w> Pass<'_, 'w> {
    /// What the last product of the head reads.
    fn head_input(&self, head: &HeadParts, hidden: &Hidden<'w>, rows: &[usize]) -> Stream<'w> {
        let mut x = Stream::new(self.cx, hidden.stream.lanes(), rows.len(), hidden.stream.width());
        for lane in 0..x.lanes() {
            let mut out = x.all_mut();
            for (at, &row) in rows.iter().enumerate() {
                out.row_mut(lane * rows.len() + at).copy_from_slice(hidden.lane(lane).row(row));
            }
        }
        let dense = head.dense.map(LinearPart::params).into_iter().flatten();
        if self.moved(dense.chain(head.norm.map(NormPart::params).into_iter().flatten())) {
            x = x.fork(self.cx, self.lanes.len());
        }
        if let Some(part) = head.dense {
            let mut out = x.beside(self.cx, part.outputs);
            self.linear(part, x.all(), out.all_mut());
            let activation = match self.model.spec.head {
                Head::MaskedLm { activation, .. } => activation,
                _ => Activation::Tanh,
            };
            activation::forward_in_place(self.cx, activation, out.values());
            x = out;
        }
        if let Some(part) = head.norm {
            let mut out = x.beside(self.cx, x.width());
            self.norm(part, x.all(), out.all_mut());
            x = out;
        }
        x
    }

    /// The logits of some entries of the vocabulary: their rows of the matrix are taken out and multiplied by.
    fn entries(&self, last: LinearPart, x: Stream<'w>, ids: &[u32]) -> Stream<'w> {
        let x = x.fork(self.cx, self.lanes.len());
        let mut logits = x.beside(self.cx, ids.len());
        let matrix = self.model.store.weight(last.weight);
        for lane in 0..self.lanes.len() {
            let alone = Pass { lanes: &self.lanes[lane..=lane], ..*self };
            let mut entries = Stream::new(self.cx, 1, ids.len(), matrix.cols());
            alone.moves(last.weight).gather(self.cx, matrix, ids, entries.all_mut());
            let bias: Option<Vec<f32>> = last.bias.map(|id| {
                let bias = &alone.vectors(id)[0];
                ids.iter().map(|&id| bias[id as usize]).collect()
            });
            let rows = lane * x.rows()..(lane + 1) * x.rows();
            matmul::forward(
                self.cx,
                x.lane(lane),
                &entries.all(),
                bias.as_deref(),
                logits.all_mut().row_range_mut(rows),
            );
        }
        logits
    }

    /// Head and loss in one, block of rows by block of rows.
    fn fused_losses(&self, last: LinearPart, x: Stream<'w>, targets: &Targets<'_>) -> Vec<Sums> {
        let matrix = self.model.store.weight(last.weight);
        if last.bias.is_some_and(|bias| self.moved([bias])) {
            let one = |lane: usize| {
                let alone = Pass { lanes: &self.lanes[lane..=lane], ..*self };
                let bias = last.bias.map(|id| alone.vectors(id));
                let bias = bias.as_ref().map(|bias| &*bias[0]);
                alone.moves(last.weight).losses(self.cx, x.lane(lane), matrix, bias, targets).remove(0)
            };
            return (0..self.lanes.len()).map(one).collect();
        }
        let bias = last.bias.map(|id| self.model.store.vector(id));
        let moves: Moves<'_> = self.moves(last.weight);
        if !moves.is_empty() {
            let x = x.fork(self.cx, self.lanes.len());
            return moves.losses(self.cx, x.all(), matrix, bias, targets);
        }
        // One operand for all lanes: their rows are rows of one batch.
        let examples = targets.examples.repeat(x.lanes());
        let stacked = Targets { labels: &targets.labels.repeat(x.lanes()), examples: &examples, ..*targets };
        let sums = moves.losses(self.cx, x.all(), matrix, bias, &stacked).remove(0);
        let count = targets.examples.len();
        (0..self.lanes.len()).map(|lane| sums.part(lane.min(x.lanes() - 1) * count, count)).collect()
    }
}
