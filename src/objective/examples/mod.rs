//! The examples of a run, in the form in which a model scores them.
//!
//! *What it is.* [`Examples`] is made of encoded examples once, checked against the model, and asked for any of them by
//! number: for their losses and choices in any number of lanes, for an [`Evaluation`] by the task's metric, or, as
//! [`Minimised`], for what a training step is to make small.
//!
//! *What must stay true* (contract C1). An example is never cut. Its weight is known before any pass, so that a mean
//! over examples does not depend on how they are cut into passes: it is the sum of losses, each over the sum of the
//! weights of the whole step. Where tokens are learnt, an example weighs as many as it has: the mean is over all tokens
//! of the step, as Hugging Face has it, not a mean of the examples' means, in which short answers would count for more.

mod evaluation;
mod minimised;
#[cfg(test)]
mod tests;
mod written;

pub use evaluation::Evaluation;
pub use minimised::{Criterion, Minimised};

use std::sync::Arc;

use self::written::Answers;
use super::{GenerationError, LabelError, Learnt, OptionBatch, Options, Scores, WordBatch, Words};
use crate::{
    direction::{DirectionSet, Displacement},
    kernels::Context,
    model::{ArchSpec, Differentiated, Gradients, Model, ModelError, Summand, Unit, Work},
    task::{Encoded, Example, Judge, Metric, Objective, Place, Sequence, TaskError},
};

/// Examples of one objective, checked against a model.
#[derive(Clone, Debug)]
pub struct Examples {
    form: Form,
    /// Rows of each example in a pass.
    tokens: Vec<usize>,
    metric: Metric,
    /// What is asked where answers are written.
    answers: Option<Answers>,
}

/// How the examples are scored.
#[derive(Clone, Debug)]
enum Form {
    Continuations(Vec<Options>, Learnt),
    Words(Vec<Words>),
}

/// Which continuations of an example are scored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scored {
    All,
    /// Those that the loss reads: where the tokens of the right one are learnt, no other.
    Learnt,
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
    /// What is to be minimised is not what the task is scored by.
    #[error(
        "a step cannot minimise 1 - {} on a task that is scored by its {}; expected the objective \"loss\"{}",
        criterion.name(),
        metric.name(),
        Criterion::of(*metric).map(|fits| format!(" or {:?}", fits.name())).unwrap_or_default()
    )]
    Criterion {
        /// What was asked for.
        criterion: Criterion,
        /// The task's metric.
        metric: Metric,
    },
    /// A sequence does not fit the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model wrote no answer.
    #[error(transparent)]
    Generation(Box<GenerationError>),
    /// An answer that the model wrote is no text.
    #[error(transparent)]
    Task(Box<TaskError>),
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
    /// These examples, with their tokens, for a model of `spec`; a task whose answers are written has a judge of them.
    ///
    /// # Errors
    /// [`ExamplesError::Head`], [`ExamplesError::Label`].
    ///
    /// # Panics
    /// If an example is not one of `objective`, or the judge's: the encoder's bug.
    pub fn new(
        spec: &ArchSpec,
        objective: Objective,
        judge: Option<Judge>,
        examples: &[(Example, Encoded)],
    ) -> Result<Examples, ExamplesError> {
        let (needs, found) = (needed_head(objective), spec.head.about());
        if needs != found {
            return Err(ExamplesError::Head { needs, family: spec.family, found });
        }
        let encoded = examples.iter().map(|(_, encoded)| encoded);
        let chosen = |encoded: &Encoded| !matches!(encoded, Encoded::Text(_) | Encoded::Answer { .. });
        let metric = match &judge {
            Some(judge) => judge.metric(),
            None if encoded.clone().any(chosen) => Metric::Accuracy,
            None => Metric::Perplexity,
        };
        let form = match objective {
            Objective::Options => Form::Continuations(encoded.map(options).collect(), Learnt::Choice),
            Objective::LanguageModel => Form::Continuations(encoded.map(options).collect(), Learnt::Tokens),
            Objective::LabelWords | Objective::Classifier => {
                Form::Words(encoded.map(|encoded| words(encoded, spec.outputs())).collect())
            }
        };
        let answers = judge.map(|judge| Answers::new(judge, examples));
        let mut checked = Examples { form, tokens: Vec::with_capacity(examples.len()), metric, answers };
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How they are scored.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Rows of example `number` in one lane of a pass; those that its continuations share are counted once.
    pub fn tokens(&self, number: usize) -> usize {
        self.tokens[number]
    }

    /// What the loss of example `number` is a sum of: the tokens that are learnt of it, or 1.
    pub fn weight(&self, number: usize) -> usize {
        match &self.form {
            Form::Continuations(examples, Learnt::Tokens) => right(&examples[number]).1.len(),
            Form::Continuations(..) | Form::Words(_) => 1,
        }
    }

    /// `numbers` cut into passes of at most `rows` rows in one lane, unless a single example has more.
    pub fn passes<'n>(&self, numbers: &'n [usize], rows: usize) -> impl Iterator<Item = &'n [usize]> {
        passes(numbers, rows, |number| self.tokens(number))
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
        self.batch(Scored::All, model, numbers).score(model, cx, lanes)
    }

    /// The examples `numbers` as one batch.
    fn batch(&self, scored: Scored, model: &Model, numbers: &[usize]) -> ExampleBatch {
        const CHECKED: &str = "`new` checked every example";
        match &self.form {
            Form::Continuations(examples, learnt) => {
                let examples = numbers.iter().map(|&number| &examples[number]);
                let examples: Vec<Options> = match (scored, learnt) {
                    (Scored::Learnt, Learnt::Tokens) => examples.map(alone).collect(),
                    _ => examples.cloned().collect(),
                };
                ExampleBatch::Continuations(OptionBatch::new(model.spec(), &examples, *learnt).expect(CHECKED))
            }
            Form::Words(examples) => {
                let examples: Vec<Words> = numbers.iter().map(|&number| examples[number].clone()).collect();
                ExampleBatch::Words(WordBatch::new(model.spec(), &examples).expect(CHECKED))
            }
        }
    }
}

/// Some examples as one batch.
enum ExampleBatch {
    Continuations(OptionBatch),
    Words(WordBatch),
}

impl ExampleBatch {
    /// The same examples as those of a larger batch from number `first` on.
    fn numbered_from(self, first: usize) -> ExampleBatch {
        match self {
            ExampleBatch::Continuations(batch) => ExampleBatch::Continuations(batch.numbered_from(first)),
            ExampleBatch::Words(batch) => ExampleBatch::Words(batch.numbered_from(first)),
        }
    }

    fn score(&self, model: &Model, cx: &Context, lanes: &[Displacement]) -> Result<Vec<Scores>, ModelError> {
        match self {
            ExampleBatch::Continuations(batch) => batch.score(model, cx, lanes),
            ExampleBatch::Words(batch) => batch.score(model, cx, lanes),
        }
    }

    /// At θ, and the exact derivative of each example's loss along each of `along`.
    fn slopes(
        &self,
        model: &Model,
        cx: &Context,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Scores, Vec<Vec<f64>>), ModelError> {
        match self {
            ExampleBatch::Continuations(batch) => batch.slopes(model, cx, along),
            ExampleBatch::Words(batch) => batch.slopes(model, cx, along),
        }
    }

    fn work(&self, model: &Model, unit: Unit<'_>) -> Result<Vec<Work>, ModelError> {
        match self {
            ExampleBatch::Continuations(batch) => batch.work(model, unit),
            ExampleBatch::Words(batch) => batch.work(model, unit),
        }
    }

    /// Adds the gradient of `factor` times the sum of the losses.
    fn gradients(
        &self,
        of: &mut dyn Differentiated,
        sums: &mut Gradients,
        summand: Summand<'_>,
        factor: f64,
    ) -> Result<Scores, ModelError> {
        match self {
            ExampleBatch::Continuations(batch) => batch.gradients(of, sums, summand, factor),
            ExampleBatch::Words(batch) => batch.gradients(of, sums, summand, factor),
        }
    }
}

/// `numbers` cut into parts whose `tokens` sum to at most `rows`, unless a single one has more.
fn passes(numbers: &[usize], rows: usize, tokens: impl Fn(usize) -> usize) -> impl Iterator<Item = &[usize]> {
    let mut rest = numbers;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fitting = rest.iter().take_while(|&&number| {
            sum += tokens(number);
            sum <= rows
        });
        let (now, later) = rest.split_at_checked(fitting.count().max(1))?;
        rest = later;
        Some(now)
    })
}

/// The continuation that is learnt.
fn right(example: &Options) -> &(Vec<u32>, std::ops::Range<usize>) {
    &example.sequences[example.gold[0]]
}

/// An example of its right continuation alone.
fn alone(example: &Options) -> Options {
    Options { sequences: vec![right(example).clone()], gold: vec![0] }
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
