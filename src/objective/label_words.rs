//! Label words: which of several words stands at the mask (Gao et al., 2020, arXiv:2012.15723).
//!
//! The loss of an example is the cross-entropy of the softmax over the logits of its words alone, in the row of the
//! mask token. The classes of a classifier are words at the first row.

use std::sync::Arc;

use super::{LabelError, Scores, scores};
use crate::{
    direction::{DirectionSet, Displacement},
    kernels::{Context, cross_entropy::Vocabulary},
    model::{ArchSpec, Batch, Differentiated, Gradients, Model, ModelError, Slopes, Summand, Unit, Work},
};

/// One example: a sequence with a mask token, and the words that may stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The sequence.
    pub ids: Vec<u32>,
    /// Where its mask token is.
    pub position: usize,
    /// The words' tokens.
    pub words: Vec<u32>,
    /// The right one.
    pub gold: usize,
}

/// Examples as one batch.
#[derive(Clone, Debug)]
pub struct WordBatch {
    batch: Batch,
    /// The row of each example's mask token.
    rows: Vec<usize>,
    /// Every word of the batch, once.
    vocabulary: Vec<u32>,
    /// The columns of each example's words, and the right one among them.
    columns: Vec<(Vec<usize>, [usize; 1])>,
}

impl WordBatch {
    /// The batch of these examples for a model of `spec`.
    ///
    /// # Errors
    /// [`LabelError::Range`] for a word beyond the vocabulary, [`LabelError::None`] if there is no example.
    ///
    /// # Panics
    /// If an example has no such position or no such word.
    pub fn new(spec: &ArchSpec, examples: &[Words]) -> Result<WordBatch, LabelError> {
        let mut vocabulary: Vec<u32> = examples.iter().flat_map(|example| example.words.iter().copied()).collect();
        vocabulary.sort_unstable();
        vocabulary.dedup();
        let width = spec.outputs();
        if let Some(index) = vocabulary.iter().position(|&word| word as usize >= width) {
            return Err(LabelError::Range { found: vocabulary[index], what: "label word", index, width });
        }
        if examples.is_empty() {
            return Err(LabelError::None);
        }
        let (mut rows, mut columns, mut first) = (Vec::new(), Vec::new(), 0);
        for Words { ids, position, words, gold } in examples {
            assert!(position < &ids.len() && gold < &words.len(), "word {gold} of {words:?} at {position} of {ids:?}");
            rows.push(first + position);
            first += ids.len();
            let column = |word| vocabulary.binary_search(word).expect("every word is in the vocabulary");
            columns.push((words.iter().map(column).collect(), [*gold]));
        }
        let batch = Batch::new(examples.iter().map(|example| &example.ids));
        Ok(WordBatch { batch, rows, vocabulary, columns })
    }

    /// The same examples as those of a larger batch from number `first` on.
    #[must_use]
    pub fn numbered_from(self, first: usize) -> WordBatch {
        WordBatch { batch: self.batch.numbered_from(first), ..self }
    }

    /// Rows of the batch.
    pub fn tokens(&self) -> usize {
        self.batch.tokens()
    }

    /// What `model` makes of the examples in every lane, from one pass over the weights; scores are logits.
    ///
    /// # Errors
    /// [`ModelError`] if a sequence does not fit the model, or the model has no head.
    pub fn score(&self, model: &Model, cx: &Context, lanes: &[Displacement]) -> Result<Vec<Scores>, ModelError> {
        let hidden = model.forward(cx, &self.batch, lanes, None, None)?;
        let logits = model.logits(cx, &hidden, lanes, &self.rows, Vocabulary::Only(&self.vocabulary))?;
        let scores = |lane| Scores::of_choices(self.words(|row| logits.lane(lane).row(row)), &self.gold());
        Ok((0..lanes.len()).map(scores).collect())
    }

    /// What `model` makes of the examples at θ, and the exact derivative of each example's loss along each of `along`,
    /// from one pass over the weights.
    ///
    /// # Errors
    /// As [`WordBatch::score`].
    pub fn slopes(
        &self,
        model: &Model,
        cx: &Context,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Scores, Vec<Vec<f64>>), ModelError> {
        let mut pass = model.tangent(cx, &self.batch, along)?;
        let logits = pass.logits(&self.rows, Vocabulary::Only(&self.vocabulary))?;
        let width = self.vocabulary.len();
        let Slopes { value, slopes } = logits.map(|logits| self.words(|row| &logits[row * width..(row + 1) * width]));
        let scores = Scores::of_choices(value, &self.gold());
        let slopes = slopes.iter().map(|changes| scores.slopes(changes, &self.gold())).collect();
        Ok((scores, slopes))
    }

    /// Adds the gradient of `factor` times the sum of the examples' losses to `sums`, and answers what the model makes of
    /// the examples.
    ///
    /// # Errors
    /// As [`WordBatch::score`].
    pub fn gradients(
        &self,
        of: &mut dyn Differentiated,
        sums: &mut Gradients,
        summand: Summand<'_>,
        factor: f64,
    ) -> Result<Scores, ModelError> {
        let mut found = Scores::default();
        sums.add_logits(of, summand, &self.batch, &self.rows, &self.vocabulary, |logits| {
            found = Scores::of_choices(self.words(|row| logits.row(row)), &self.gold());
            let mut bars = vec![0.0; self.rows.len() * self.vocabulary.len()];
            let derivatives = scores::derivatives(&found.scores, &self.gold());
            let rows = bars.chunks_exact_mut(self.vocabulary.len()).zip(derivatives).zip(&self.columns);
            for ((row, derivatives), (columns, _)) in rows {
                // A word that stands twice among an example's words is met twice.
                columns.iter().zip(derivatives).for_each(|(&column, by)| row[column] += (by * factor) as f32);
            }
            bars
        })?;
        Ok(found)
    }

    /// What the examples' losses and the gradients of all parameters cost.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no head.
    pub fn work(&self, model: &Model, unit: Unit<'_>) -> Result<Vec<Work>, ModelError> {
        model.work(&self.batch, self.rows.len(), self.vocabulary.len(), unit)
    }

    /// The values of each example's words in the rows of a matrix `[examples, vocabulary]`.
    fn words<'a>(&self, row: impl Fn(usize) -> &'a [f32]) -> Vec<Vec<f64>> {
        let of = |(at, (columns, _)): (usize, &(Vec<usize>, [usize; 1]))| {
            columns.iter().map(|&column| f64::from(row(at)[column])).collect()
        };
        self.columns.iter().enumerate().map(of).collect()
    }

    fn gold(&self) -> Vec<&[usize]> {
        self.columns.iter().map(|(_, gold)| gold.as_slice()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::Isa,
        testing::reference::{self, golden},
    };

    #[test]
    fn scores_are_the_logits_of_the_reference_at_the_mask() {
        let weights = golden::Weights::open(&golden::directory("roberta-mlm"));
        let model = Model::open(&golden::directory("roberta-mlm")).expect("a golden checkpoint");
        let example = |ids: &[u32], position, words: &[u32], gold| Words {
            ids: ids.to_vec(),
            position,
            words: words.to_vec(),
            gold,
        };
        let examples = [example(&[0, 17, 94, 5, 2], 2, &[60, 8], 1), example(&[0, 94, 33, 2], 1, &[8, 41, 90], 0)];
        let batch = WordBatch::new(model.spec(), &examples).expect("a batch");
        let lanes = [Displacement::default()];
        let found = batch.score(&model, &Context::new(Isa::fastest()), &lanes).expect("scores").remove(0);
        let source = |slot, layer, role| weights.values(slot, layer, role);
        for (i, example) in examples.iter().enumerate() {
            let logits = reference::forward(&weights.spec, &source, &example.ids).logits.expect("a head");
            let expected: Vec<f64> =
                example.words.iter().map(|&word| logits[example.position][word as usize]).collect();
            for (found, expected) in found.scores[i].iter().zip(&expected) {
                // The golden files' bound for logits of an f32 engine.
                assert!((found - expected).abs() <= 1e-4, "example {i}: {found}, expected {expected}");
            }
            let sum: f64 = expected.iter().map(|logit| logit.exp()).sum();
            assert!((found.losses[i] - (sum.ln() - expected[example.gold])).abs() <= 2e-4, "example {i}");
        }
    }

    #[test]
    fn a_word_beyond_the_vocabulary_is_named() {
        let spec = golden::Weights::open(&golden::directory("roberta-mlm")).spec;
        let example = Words { ids: vec![0, 94, 2], position: 1, words: vec![5, 96], gold: 0 };
        let error = WordBatch::new(&spec, &[example]).expect_err("96 is no token");
        assert_eq!(error, LabelError::Range { found: 96, what: "label word", index: 1, width: 96 });
    }
}
