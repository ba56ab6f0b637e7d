//! Continuations of a prompt: which of several is the right one, and how likely the tokens of the right one are
//! (`MeZO`, Malladi et al., 2023, arXiv:2305.17333, released code).
//!
//! The score of a continuation is the mean log-probability of its tokens after the prompt. What is learnt of an example
//! is the choice, by the cross-entropy of the softmax over its continuations' scores, or the tokens of the right
//! continuation, by the sum of their cross-entropies.
//!
//! *What must stay true.* Nothing is computed twice within an example: the last token of a sequence predicts nothing, so
//! it is no row, and what begins another sequence of the example is read there. Continuations of one token therefore
//! cost the prompt alone.

use std::{ops::Range, sync::Arc};

use super::{LabelError, Scores, scores};
use crate::{
    direction::{DirectionSet, Displacement},
    kernels::{
        Context,
        cross_entropy::{Sums, Targets, Vocabulary},
        head::Scale,
    },
    model::{ArchSpec, Batch, Differentiated, Gradients, Model, ModelError, Slopes, Summand, Unit, Work},
    tensor::Sequences,
};

/// One example: whole sequences, prompt and continuation, and which of their tokens are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The tokens of each continuation, its prompt first, and the span that is scored: not empty, not at token 0.
    pub sequences: Vec<(Vec<u32>, Range<usize>)>,
    /// The right ones: at least one; the first is learnt.
    pub gold: Vec<usize>,
}

/// What is learnt of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    /// Which continuation is right.
    Choice,
    /// The tokens of the first right continuation.
    Tokens,
}

/// Examples as one batch, and the rows and labels that score them.
#[derive(Clone, Debug)]
pub struct OptionBatch {
    batch: Batch,
    rows: Vec<usize>,
    labels: Vec<Option<u32>>,
    /// The labels of each continuation.
    continuations: Sequences,
    /// The continuations of each example.
    examples: Sequences,
    gold: Vec<Vec<usize>>,
    learnt: Learnt,
    vocab_size: usize,
}

impl OptionBatch {
    /// The batch of these examples for a model of `spec`.
    ///
    /// # Errors
    /// [`LabelError::Range`] for a token beyond the vocabulary, [`LabelError::None`] if there is no example.
    ///
    /// # Panics
    /// If an example has no continuation, a right one it does not have, or a span that is empty, begins at token 0 or
    /// ends beyond its sequence.
    pub fn new(spec: &ArchSpec, examples: &[Options], learnt: Learnt) -> Result<OptionBatch, LabelError> {
        let (mut inputs, mut rows, mut labels) = (Vec::<&[u32]>::new(), Vec::new(), Vec::new());
        let (mut owners, mut spans, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let mut first_row = 0;
        for (number, example) in examples.iter().enumerate() {
            let count = example.sequences.len();
            let known = !example.gold.is_empty() && example.gold.iter().all(|&gold| gold < count);
            assert!(known, "continuations {:?} of {count} are right", example.gold);
            // Longest first: what begins another sequence is found in it.
            let mut order: Vec<usize> = (0..example.sequences.len()).collect();
            order.sort_by_key(|&at| std::cmp::Reverse(input(&example.sequences[at]).len()));
            let mut own: Vec<(&[u32], usize)> = Vec::new();
            let mut starts = vec![0; order.len()];
            for at in order {
                let input = input(&example.sequences[at]);
                starts[at] = match own.iter().find(|(held, _)| held.starts_with(input)) {
                    Some((_, start)) => *start,
                    None => {
                        own.push((input, first_row));
                        first_row += input.len();
                        first_row - input.len()
                    }
                };
            }
            inputs.extend(own.iter().map(|(input, _)| *input));
            owners.resize(inputs.len(), number);
            for ((tokens, span), start) in example.sequences.iter().zip(starts) {
                rows.extend(span.clone().map(|token| start + token - 1));
                labels.extend(tokens[span.clone()].iter().map(|&token| Some(token)));
                spans.push(span.len());
            }
            counts.push(example.sequences.len());
        }
        let width = spec.vocab_size;
        if let Some((index, found)) = labels.iter().enumerate().find_map(|(i, label)| Some((i, beyond(*label, width)?)))
        {
            return Err(LabelError::Range { found, what: "scored token", index, width });
        }
        if examples.is_empty() {
            return Err(LabelError::None);
        }
        Ok(OptionBatch {
            batch: Batch::new(inputs).of_examples(owners),
            rows,
            labels,
            continuations: Sequences::from_lengths(spans),
            examples: Sequences::from_lengths(counts),
            gold: examples.iter().map(|example| example.gold.clone()).collect(),
            learnt,
            vocab_size: spec.vocab_size,
        })
    }

    /// The same examples as those of a larger batch from number `first` on.
    #[must_use]
    pub fn numbered_from(self, first: usize) -> OptionBatch {
        OptionBatch { batch: self.batch.numbered_from(first), ..self }
    }

    /// Rows of the batch.
    pub fn tokens(&self) -> usize {
        self.batch.tokens()
    }

    /// What `model` makes of the examples in every lane, from one pass over the weights.
    ///
    /// # Errors
    /// [`ModelError`] if a sequence does not fit the model, or the model has no head.
    pub fn score(&self, model: &Model, cx: &Context, lanes: &[Displacement]) -> Result<Vec<Scores>, ModelError> {
        let hidden = model.forward(cx, &self.batch, lanes, None, None)?;
        let sums = model.losses(cx, &hidden, lanes, &self.rows, &self.targets())?;
        Ok(sums.iter().map(|sums| self.scores(sums)).collect())
    }

    /// What `model` makes of the examples at θ, and the exact derivative of each example's loss along each of `along`,
    /// from one pass over the weights.
    ///
    /// # Errors
    /// As [`OptionBatch::score`].
    pub fn slopes(
        &self,
        model: &Model,
        cx: &Context,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Scores, Vec<Vec<f64>>), ModelError> {
        let Slopes { value, slopes } = model.tangent(cx, &self.batch, along)?.losses(&self.rows, &self.targets())?;
        let scores = self.scores(&value);
        let slope = |sums: &Sums| match self.learnt {
            Learnt::Choice => scores.slopes(&self.means(sums), &self.gold()),
            Learnt::Tokens => self.of_right(sums),
        };
        let slopes = slopes.iter().map(slope).collect();
        Ok((scores, slopes))
    }

    /// Adds the gradient of `factor` times the sum of the examples' losses to `sums`, and answers what the model makes of
    /// the examples.
    ///
    /// # Errors
    /// As [`OptionBatch::score`].
    pub fn gradients(
        &self,
        of: &mut dyn Differentiated,
        sums: &mut Gradients,
        summand: Summand<'_>,
        factor: f64,
    ) -> Result<Scores, ModelError> {
        let found = match self.learnt {
            Learnt::Choice => {
                let mut scale = |sums: &Sums| self.choice_scale(sums, factor);
                sums.add_losses(of, summand, &self.batch, &self.rows, &self.targets(), Scale::Of(&mut scale))?
            }
            Learnt::Tokens => {
                let scale = self.per_row(
                    |example, continuation| {
                        if self.gold[example][0] == continuation { factor } else { 0.0 }
                    },
                );
                sums.add_losses(of, summand, &self.batch, &self.rows, &self.targets(), Scale::Known(&scale))?
            }
        };
        Ok(self.scores(&found))
    }

    /// What the examples' losses and the gradients of all parameters cost.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no head.
    pub fn work(&self, model: &Model, unit: Unit<'_>) -> Result<Vec<Work>, ModelError> {
        model.work(&self.batch, self.rows.len(), self.vocab_size, unit)
    }

    /// `factor` times the derivative of the choices' losses by the loss of each row, given the sums of these: a score is
    /// their negated mean.
    fn choice_scale(&self, sums: &Sums, factor: f64) -> Vec<f32> {
        let derivatives = scores::derivatives(&self.means(sums), &self.gold());
        self.per_row(|example, continuation| {
            let count = sums.counts[self.examples.range(example).start + continuation] as f64;
            -derivatives[example][continuation] / count * factor
        })
    }

    /// A value for every row, that of its example and continuation.
    fn per_row(&self, value: impl Fn(usize, usize) -> f64) -> Vec<f32> {
        let of_example = |(example, of): (usize, Range<usize>)| (0..of.len()).map(move |at| (example, at));
        let places = self.examples.iter().enumerate().flat_map(of_example);
        let rows = places.zip(self.continuations.iter());
        rows.flat_map(|((example, at), rows)| std::iter::repeat_n(value(example, at) as f32, rows.len())).collect()
    }

    fn targets(&self) -> Targets<'_> {
        let vocabulary = Vocabulary::Full(self.vocab_size);
        Targets { vocabulary, labels: &self.labels, examples: &self.continuations }
    }

    fn scores(&self, sums: &Sums) -> Scores {
        match self.learnt {
            Learnt::Choice => Scores::of_choices(self.means(sums), &self.gold()),
            Learnt::Tokens => Scores::new(self.means(sums), self.of_right(sums), &self.gold()),
        }
    }

    /// The negated mean over each continuation: linear, so that slopes of losses give slopes of scores.
    fn means(&self, sums: &Sums) -> Vec<Vec<f64>> {
        let mean = |at: usize| -sums.per_example[at] / sums.counts[at] as f64;
        self.examples.iter().map(|of| of.map(mean).collect()).collect()
    }

    /// The sum over the continuation of each example that is learnt.
    fn of_right(&self, sums: &Sums) -> Vec<f64> {
        self.examples.iter().zip(&self.gold).map(|(of, gold)| sums.per_example[of.start + gold[0]]).collect()
    }

    fn gold(&self) -> Vec<&[usize]> {
        self.gold.iter().map(Vec::as_slice).collect()
    }
}

/// All tokens but the last, which predicts nothing.
fn input((tokens, span): &(Vec<u32>, Range<usize>)) -> &[u32] {
    let fits = span.start > 0 && span.start < span.end && span.end <= tokens.len();
    assert!(fits, "tokens {span:?} of a sequence of {} are scored", tokens.len());
    &tokens[..span.end - 1]
}

fn beyond(label: Option<u32>, width: usize) -> Option<u32> {
    label.filter(|&label| label as usize >= width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::Isa,
        testing::reference::{self, golden},
    };

    fn example(prompt: &[u32], continuations: &[&[u32]], gold: usize) -> Options {
        let sequence = |tokens: &&[u32]| {
            let whole = [prompt, tokens].concat();
            let span = prompt.len()..whole.len();
            (whole, span)
        };
        Options { sequences: continuations.iter().map(sequence).collect(), gold: vec![gold] }
    }

    fn examples() -> Vec<Options> {
        vec![
            example(&[5, 42, 79, 20], &[&[57], &[94]], 1),
            example(&[9, 9], &[&[1, 2, 3], &[1, 2], &[7]], 0),
            example(&[33, 8, 61], &[&[4, 4], &[4, 5]], 1),
        ]
    }

    #[test]
    fn rows_that_continuations_share_are_computed_once() {
        let spec = golden::Weights::open(&golden::directory("llama")).spec;
        // Prompt alone; prompt, 1, 2; and the same prompt and token for both.
        assert_eq!(OptionBatch::new(&spec, &examples(), Learnt::Choice).expect("a batch").tokens(), 4 + 4 + 4);
    }

    #[test]
    fn scores_and_losses_are_those_of_the_reference_sequence_by_sequence() {
        for name in ["llama", "gpt2"] {
            let weights = golden::Weights::open(&golden::directory(name));
            let model = Model::open(&golden::directory(name)).expect("a golden checkpoint");
            let lanes = [Displacement::default()];
            let [choice, tokens] = [Learnt::Choice, Learnt::Tokens].map(|learnt| {
                let batch = OptionBatch::new(model.spec(), &examples(), learnt).expect("a batch");
                batch.score(&model, &Context::new(Isa::fastest()), &lanes).expect("scores").remove(0)
            });
            assert_eq!((&choice.scores, &choice.correct), (&tokens.scores, &tokens.correct));
            for (i, example) in examples().iter().enumerate() {
                let scores: Vec<f64> =
                    example.sequences.iter().map(|(tokens, span)| mean_log(&weights, tokens, span)).collect();
                let sum: f64 = scores.iter().map(|score| score.exp()).sum();
                for (found, expected) in choice.scores[i].iter().zip(&scores) {
                    // The golden files' bound for losses of an f32 engine.
                    assert!((found - expected).abs() <= 1e-5, "{name}, example {i}: {found}, expected {expected}");
                }
                let gold = example.gold[0];
                assert!((choice.losses[i] - (sum.ln() - scores[gold])).abs() <= 2e-5, "{name}, example {i}");
                // A sum of so many losses.
                let count = example.sequences[gold].1.len() as f64;
                let expected = -scores[gold] * count;
                assert!((tokens.losses[i] - expected).abs() <= 1e-5 * count, "{name}, example {i}");
                let best = scores.iter().copied().fold(f64::MIN, f64::max);
                assert_eq!(choice.correct[i], scores[gold] == best, "{name}, example {i}");
            }
        }
    }

    fn mean_log(weights: &golden::Weights, tokens: &[u32], span: &Range<usize>) -> f64 {
        let source = |slot, layer, role| weights.values(slot, layer, role);
        let logits = reference::forward(&weights.spec, &source, tokens).logits.expect("a head");
        let losses = span.clone().map(|at| reference::loss::cross_entropy(&logits[at - 1], tokens[at] as usize));
        -losses.sum::<f64>() / span.len() as f64
    }

    #[test]
    fn a_token_beyond_the_vocabulary_is_named() {
        let spec = golden::Weights::open(&golden::directory("llama")).spec;
        let error = OptionBatch::new(&spec, &[example(&[1], &[&[96]], 0)], Learnt::Choice).expect_err("96 is no token");
        assert_eq!(error, LabelError::Range { found: 96, what: "scored token", index: 0, width: 96 });
        assert_eq!(OptionBatch::new(&spec, &[], Learnt::Choice).map(|_| ()), Err(LabelError::None));
    }
}
