//! The examples of a run, in the form in which a model scores them.
//!
//! *What it is.* [`Examples`] is made of encoded examples once, checked against the model, and asked for any of them by
//! number, in any number of lanes: whatever the objective, the answer is a loss per example, its weight, and whether the
//! model is right.
//!
//! *What must stay true* (contract C1). An example is never cut. Its weight is known before any pass, so that a mean
//! over examples does not depend on how they are cut into passes: it is the sum of losses, each over the sum of the
//! weights of the whole step. Where tokens are learnt, an example weighs as many as it has: the mean is over all tokens
//! of the step, as Hugging Face has it, not a mean of the examples' means, in which short answers would count for more.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{LabelError, Learnt, OptionBatch, Options, Scores, WordBatch, Words};
use crate::{
    direction::{DirectionSet, Displacement},
    kernels::Context,
    model::{ArchSpec, Model, ModelError},
    task::{Encoded, Example, Objective, Place, Sequence},
};

/// Examples of one objective, checked against a model.
#[derive(Clone, Debug)]
pub struct Examples {
    form: Form,
    /// Rows of each example in a pass.
    tokens: Vec<usize>,
}

/// How the examples are scored.
#[derive(Clone, Debug)]
enum Form {
    Continuations(Vec<Options>, Learnt),
    Words(Vec<Words>),
}

/// Why examples cannot be scored by a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExamplesError {
    /// The objective reads other logits than the model has.
    #[error("the objective needs a model with a {needs} head; this {family} model's is {found}")]
    Head {
        /// The head that is needed.
        needs: &'static str,
        /// `model_type` of the configuration.
        family: &'static str,
        /// The model's head.
        found: &'static str,
    },
    /// An example has an answer that the model cannot give.
    #[error("{place}: {source}")]
    Label {
        /// Where its row stands.
        place: Place,
        /// What is wrong.
        source: LabelError,
    },
}

/// What [`Head::about`](crate::model::Head::about) says of the models that an objective is for.
pub fn needed_head(objective: Objective) -> &'static str {
    match objective {
        Objective::Options | Objective::LanguageModel => "next-token",
        Objective::LabelWords => "masked-token",
        Objective::Classifier => "class",
    }
}

impl Examples {
    /// These examples, with their tokens, for a model of `spec`.
    ///
    /// # Errors
    /// [`ExamplesError`].
    ///
    /// # Panics
    /// If an example is not one of `objective`: the encoder's bug.
    pub fn new(
        spec: &ArchSpec,
        objective: Objective,
        examples: &[(Example, Encoded)],
    ) -> Result<Examples, ExamplesError> {
        let (needs, found) = (needed_head(objective), spec.head.about());
        if needs != found {
            return Err(ExamplesError::Head { needs, family: spec.family, found });
        }
        let encoded = examples.iter().map(|(_, encoded)| encoded);
        let form = match objective {
            Objective::Options => Form::Continuations(encoded.map(options).collect(), Learnt::Choice),
            Objective::LanguageModel => Form::Continuations(encoded.map(options).collect(), Learnt::Tokens),
            Objective::LabelWords | Objective::Classifier => {
                Form::Words(encoded.map(|encoded| words(encoded, spec.outputs())).collect())
            }
        };
        let mut checked = Examples { form, tokens: Vec::with_capacity(examples.len()) };
        for (number, (example, _)) in examples.iter().enumerate() {
            let tokens = checked.alone(spec, number);
            let tokens = tokens.map_err(|source| ExamplesError::Label { place: example.place.clone(), source })?;
            checked.tokens.push(tokens);
        }
        Ok(checked)
    }

    /// The rows of an example in a pass of its own.
    fn alone(&self, spec: &ArchSpec, number: usize) -> Result<usize, LabelError> {
        let one = number..number + 1;
        match &self.form {
            Form::Continuations(examples, learnt) => Ok(OptionBatch::new(spec, &examples[one], *learnt)?.tokens()),
            Form::Words(examples) => Ok(WordBatch::new(spec, &examples[one])?.tokens()),
        }
    }

    /// The same examples without what their losses do not read: where the tokens of the right continuation are learnt,
    /// the others, which only say whether the model would choose it. What is left costs less to train on.
    #[must_use]
    pub fn only_learnt(mut self) -> Examples {
        if let Form::Continuations(examples, Learnt::Tokens) = &mut self.form {
            for (Options { sequences, gold }, tokens) in examples.iter_mut().zip(&mut self.tokens) {
                let right = sequences.swap_remove(gold[0]);
                *tokens = right.1.end - 1;
                (*sequences, *gold) = (vec![right], vec![0]);
            }
        }
        self
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Rows of example `number` in one lane of a pass; those that its continuations share are counted once.
    pub fn tokens(&self, number: usize) -> usize {
        self.tokens[number]
    }

    /// What the loss of example `number` is a sum of: the tokens that are learnt of it, or 1.
    pub fn weight(&self, number: usize) -> usize {
        match &self.form {
            Form::Continuations(examples, Learnt::Tokens) => {
                let Options { sequences, gold } = &examples[number];
                sequences[gold[0]].1.len()
            }
            Form::Continuations(..) | Form::Words(_) => 1,
        }
    }

    /// `numbers` cut into passes of at most `rows` rows in one lane, unless a single example has more.
    pub fn passes<'n>(&self, numbers: &'n [usize], rows: usize) -> impl Iterator<Item = &'n [usize]> {
        let mut rest = numbers;
        std::iter::from_fn(move || {
            let mut sum = 0;
            let fitting = rest.iter().take_while(|&&number| {
                sum += self.tokens(number);
                sum <= rows
            });
            let (now, later) = rest.split_at_checked(fitting.count().max(1))?;
            rest = later;
            Some(now)
        })
    }

    /// What `model` makes of the examples `numbers` in every lane, from one pass over the weights.
    ///
    /// # Errors
    /// [`ModelError`] if a sequence does not fit the model.
    ///
    /// # Panics
    /// If there are no such examples, or none, or the model is not of the `spec` that they were checked against.
    pub fn score(
        &self,
        model: &Model,
        cx: &Context,
        numbers: &[usize],
        lanes: &[Displacement],
    ) -> Result<Vec<Scores>, ModelError> {
        match self.batch(model, numbers) {
            Scored::Continuations(batch) => batch.score(model, cx, lanes),
            Scored::Words(batch) => batch.score(model, cx, lanes),
        }
    }

    /// What `model` makes of the examples `numbers` at θ, and the exact derivative of each one's loss along each of
    /// `along`, from one pass over the weights.
    ///
    /// # Errors
    /// As [`Examples::score`].
    ///
    /// # Panics
    /// As [`Examples::score`].
    pub fn slopes(
        &self,
        model: &Model,
        cx: &Context,
        numbers: &[usize],
        along: &[Arc<DirectionSet>],
    ) -> Result<(Scores, Vec<Vec<f64>>), ModelError> {
        match self.batch(model, numbers) {
            Scored::Continuations(batch) => batch.slopes(model, cx, along),
            Scored::Words(batch) => batch.slopes(model, cx, along),
        }
    }

    fn batch(&self, model: &Model, numbers: &[usize]) -> Scored {
        const CHECKED: &str = "`new` checked every example";
        match &self.form {
            Form::Continuations(examples, learnt) => {
                let examples = chosen(examples, numbers);
                Scored::Continuations(OptionBatch::new(model.spec(), &examples, *learnt).expect(CHECKED))
            }
            Form::Words(examples) => {
                Scored::Words(WordBatch::new(model.spec(), &chosen(examples, numbers)).expect(CHECKED))
            }
        }
    }
}

/// Some examples as one batch.
enum Scored {
    Continuations(OptionBatch),
    Words(WordBatch),
}

fn chosen<T: Clone>(examples: &[T], numbers: &[usize]) -> Vec<T> {
    numbers.iter().map(|&number| examples[number].clone()).collect()
}

/// An example whose continuations are scored; a text or an answer is the only one of its example.
fn options(encoded: &Encoded) -> Options {
    let scored = |sequence: &Sequence| (sequence.ids.clone(), sequence.scored.clone());
    match encoded {
        Encoded::Candidates { sequences, gold, .. } => {
            Options { sequences: sequences.iter().map(scored).collect(), gold: gold.clone() }
        }
        Encoded::Answer { sequence, .. } | Encoded::Text(sequence) => {
            Options { sequences: vec![scored(sequence)], gold: vec![0] }
        }
        Encoded::Mask { .. } | Encoded::Class { .. } => panic!("an example without a continuation: {encoded:?}"),
    }
}

/// An example with a mask token, or of one of a model's `outputs` classes.
fn words(encoded: &Encoded, outputs: usize) -> Words {
    match encoded {
        Encoded::Mask { ids, position, words, gold, .. } => {
            Words { ids: ids.clone(), position: *position, words: words.clone(), gold: *gold }
        }
        Encoded::Class { ids, classes, gold, .. } => {
            // A class that the model lacks is refused by its number.
            let words = (0..outputs.max(*classes) as u32).collect();
            Words { ids: ids.clone(), position: 0, words, gold: *gold }
        }
        Encoded::Candidates { .. } | Encoded::Answer { .. } | Encoded::Text(_) => {
            panic!("an example without words: {encoded:?}")
        }
    }
}
