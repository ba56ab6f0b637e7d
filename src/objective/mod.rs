//! Losses over the logits of a model: which rows are read, against which labels, summed how.
//!
//! *What it is.* [`Examples`] are a run's examples under its objective: options, tokens of texts and answers, label words
//! or classes. [`Labelled`] turns the labels of any batch into the rows that the head is asked for; [`losses`] is the
//! pass that reads them, in every lane, [`slopes`] the one that also answers their exact derivatives, [`gradients`] the one
//! that goes back to the parameters; [`Generator`] goes from logits to text.
//!
//! *What it is not.* No templates and no metrics of answers (`task`). *What must stay true* (contract C1): an
//! example's loss is one f64 chain over its labelled rows, the total one over examples in batch order; the mean is
//! one division at the end, or of each example's loss where it is asked for by example.

mod examples;
mod generation;
mod label_words;
mod options;
mod sampling;
mod scores;

pub use examples::{Criterion, Evaluation, Examples, ExamplesError, Minimised, needed_head};
pub use generation::{GenerationError, Generator};
pub use label_words::{WordBatch, Words};
pub use options::{Learnt, OptionBatch, Options};
pub use sampling::{NotANumber, Sampler};
pub use scores::Scores;

use std::sync::Arc;

use crate::{
    direction::{DirectionSet, Displacement},
    kernels::{
        Context,
        cross_entropy::{Sums, Targets, Vocabulary},
        head::Scale,
    },
    model::{ArchSpec, Batch, Differentiated, Gradients, Head, Model, ModelError, Slopes, Summand},
    tensor::Sequences,
};

/// The rows of a batch whose logits have a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    rows: Vec<usize>,
    labels: Vec<Option<u32>>,
    examples: Sequences,
    width: usize,
}

/// Labels that do not fit a batch or a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// There is not one label for each token (each sequence, for a classifier).
    #[error("{found} labels for a batch that has {expected}")]
    Count {
        /// Labels given.
        found: usize,
        /// Tokens, or sequences.
        expected: usize,
    },
    /// A label that is no column of the logits.
    #[error("label {found} of {what} {index}: the model has {width} of them")]
    Range {
        /// The label.
        found: u32,
        /// `token` or `sequence`.
        what: &'static str,
        /// Its number in the batch.
        index: usize,
        /// `vocab_size`, or classes.
        width: usize,
    },
    /// No label at all: a mean over nothing.
    #[error("no labelled position: every label is -100, or every sequence too short to predict from")]
    None,
}

impl Labelled {
    /// The rows that a model of `spec` reads for `labels`: one per token of `batch`, `None` where there is no loss
    /// (causal models predict the label of a token from the row before it, within its sequence), or one per sequence
    /// for a classifier.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn of(spec: &ArchSpec, batch: &Batch, labels: &[Option<u32>]) -> Result<Labelled, LabelError> {
        let sequences = batch.sequences();
        let (width, classes) = (spec.outputs(), matches!(spec.head, Head::Classifier { .. }));
        let (what, expected) = if classes { ("sequence", sequences.len()) } else { ("token", batch.tokens()) };
        if labels.len() != expected {
            return Err(LabelError::Count { found: labels.len(), expected });
        }
        let beyond = |label: &Option<u32>| label.filter(|&label| label as usize >= width);
        if let Some((index, found)) = labels.iter().enumerate().find_map(|(i, label)| Some((i, beyond(label)?))) {
            return Err(LabelError::Range { found, what, index, width });
        }
        let mut labelled =
            Labelled { rows: Vec::new(), labels: Vec::new(), examples: Sequences::from_lengths([]), width };
        let mut lengths = Vec::with_capacity(sequences.len());
        for (sequence, rows) in sequences.iter().enumerate() {
            let before = labelled.rows.len();
            match spec.head {
                Head::Classifier { .. } if !rows.is_empty() => labelled.add(rows.start, labels[sequence]),
                Head::Classifier { .. } => {}
                Head::CausalLm { .. } | Head::None if spec.is_causal() => {
                    rows.clone().skip(1).for_each(|row| labelled.add(row - 1, labels[row]));
                }
                _ => rows.clone().for_each(|row| labelled.add(row, labels[row])),
            }
            lengths.push(labelled.rows.len() - before);
        }
        labelled.examples = Sequences::from_lengths(lengths);
        if labelled.rows.is_empty() { Err(LabelError::None) } else { Ok(labelled) }
    }

    fn add(&mut self, row: usize, label: Option<u32>) {
        if label.is_some() {
            self.rows.push(row);
            self.labels.push(label);
        }
    }

    fn targets(&self) -> Targets<'_> {
        Targets { vocabulary: Vocabulary::Full(self.width), labels: &self.labels, examples: &self.examples }
    }

    /// How many positions have a label.
    pub fn count(&self) -> usize {
        self.rows.len()
    }
}

/// The losses of the labelled rows of `batch` at θ and their exact derivatives along each of `along`, from one pass over
/// the weights; divided by `Labelled::count` each is that of the mean loss.
///
/// # Errors
/// [`ModelError`] if the batch does not fit the model, or the model has no head.
pub fn slopes(
    model: &Model,
    cx: &Context,
    batch: &Batch,
    labelled: &Labelled,
    along: &[Arc<DirectionSet>],
) -> Result<Slopes<Sums>, ModelError> {
    model.tangent(cx, batch, along)?.losses(&labelled.rows, &labelled.targets())
}

/// Adds the gradient of `factor` times the sum of the losses of the labelled rows of `batch` to `sums`, and answers the
/// losses; with a factor of 1 / `Labelled::count` it is that of the mean loss.
///
/// # Errors
/// [`ModelError`] if the batch does not fit the model, or the model has no head.
pub fn gradients(
    of: &mut dyn Differentiated,
    sums: &mut Gradients,
    summand: Summand<'_>,
    (batch, labelled): (&Batch, &Labelled),
    factor: f64,
) -> Result<Sums, ModelError> {
    let scale = vec![factor as f32; labelled.count()];
    sums.add_losses(of, summand, batch, &labelled.rows, &labelled.targets(), Scale::Known(&scale))
}

/// The losses of the labelled rows of `batch` in every lane, from one pass over the weights; `Sums::total` divided by
/// `Labelled::count` is the mean loss in nats.
///
/// # Errors
/// [`ModelError`] if the batch does not fit the model, or the model has no head.
pub fn losses(
    model: &Model,
    cx: &Context,
    batch: &Batch,
    labelled: &Labelled,
    lanes: &[Displacement],
) -> Result<Vec<Sums>, ModelError> {
    let hidden = model.forward(cx, batch, lanes, None, None)?;
    model.losses(cx, &hidden, lanes, &labelled.rows, &labelled.targets())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reference::golden;

    fn spec(name: &str) -> ArchSpec {
        golden::Weights::open(&golden::directory(name)).spec
    }

    fn batch() -> Batch {
        Batch::new([&[5_u32, 6, 7][..], &[], &[8], &[9, 10]])
    }

    #[test]
    fn a_causal_label_is_predicted_from_the_row_before_it_in_its_own_sequence() {
        let labels = [Some(1), None, Some(2), Some(3), Some(4), Some(5)];
        let labelled = Labelled::of(&spec("llama"), &batch(), &labels).expect("labels");
        assert_eq!((labelled.rows, labelled.labels), (vec![1, 4], vec![Some(2), Some(5)]));
        assert_eq!(labelled.examples, Sequences::from_lengths([1, 0, 0, 1]));
    }

    #[test]
    fn a_masked_label_is_read_where_it_stands_and_a_class_at_the_first_row() {
        let labels = [None, Some(1), None, Some(2), None, None];
        let labelled = Labelled::of(&spec("bert-mlm"), &batch(), &labels).expect("labels");
        assert_eq!((labelled.rows, labelled.labels), (vec![1, 3], vec![Some(1), Some(2)]));
        let labelled = Labelled::of(&spec("bert-cls"), &batch(), &[Some(0), Some(1), None, Some(2)]).expect("labels");
        assert_eq!((labelled.rows, labelled.labels), (vec![0, 4], vec![Some(0), Some(2)]));
    }

    #[test]
    fn labels_that_do_not_fit_say_where() {
        let of =
            |name: &str, labels: &[Option<u32>]| Labelled::of(&spec(name), &batch(), labels).expect_err("a misfit");
        assert_eq!(of("llama", &[None; 5]), LabelError::Count { found: 5, expected: 6 });
        assert_eq!(of("llama", &[None; 6]), LabelError::None);
        let beyond = [None, None, None, None, None, Some(96)];
        assert_eq!(of("llama", &beyond), LabelError::Range { found: 96, what: "token", index: 5, width: 96 });
        let beyond = [None, None, Some(3), None];
        assert_eq!(of("bert-cls", &beyond), LabelError::Range { found: 3, what: "sequence", index: 2, width: 3 });
    }
}
