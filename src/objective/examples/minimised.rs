//! What a training step makes small: the loss, or 1 - score of a metric that has no derivative.
//!
//! A zeroth-order method needs values only, so it trains on the metric itself (`MeZO`, Malladi et al., 2023,
//! arXiv:2305.17333, section 3.4). Each example then counts alike: a step minimises the mean of 1 - score.

use std::sync::Arc;

use serde::Serialize;

use super::{Examples, ExamplesError, Form, Learnt, Scored, passes, right};
use crate::{
    direction::{DirectionSet, Displacement},
    kernels::Context,
    model::{Differentiated, Gradients, Model, ModelError, Summand, Unit, Work},
    objective::Scores,
    task::Metric,
};

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// The loss of the task's objective.
    #[default]
    Loss,
    /// 1 where the model chooses a wrong answer, or writes one that is no exact match.
    Accuracy,
    /// 1 - F1 of the answer that the model writes.
    F1,
}

impl Criterion {
    /// All of them.
    pub const ALL: [Criterion; 3] = [Criterion::Loss, Criterion::Accuracy, Criterion::F1];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Criterion::Loss => "loss",
            Criterion::Accuracy => "accuracy",
            Criterion::F1 => "f1",
        }
    }

    /// The one that is 1 - `metric`.
    pub(super) fn of(metric: Metric) -> Option<Criterion> {
        match metric {
            Metric::Accuracy | Metric::ExactMatch | Metric::FinalNumber => Some(Criterion::Accuracy),
            Metric::F1 | Metric::Rouge1 | Metric::RougeL => Some(Criterion::F1),
            Metric::Perplexity => None,
        }
    }
}

/// Examples with what is minimised on them.
#[derive(Clone, Debug)]
pub struct Minimised {
    examples: Examples,
    criterion: Criterion,
}

impl Examples {
    /// These examples for a step that minimises `criterion`.
    ///
    /// # Errors
    /// [`ExamplesError::Criterion`] for a metric that is not theirs.
    pub fn minimising(self, criterion: Criterion) -> Result<Minimised, ExamplesError> {
        if criterion != Criterion::Loss && Criterion::of(self.metric) != Some(criterion) {
            return Err(ExamplesError::Criterion { criterion, metric: self.metric });
        }
        Ok(Minimised { examples: self, criterion })
    }
}

impl Minimised {
    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Whether what is minimised has a derivative.
    pub fn has_slopes(&self) -> bool {
        self.criterion == Criterion::Loss
    }

    /// Rows of example `number` in one lane of a pass.
    pub fn tokens(&self, number: usize) -> usize {
        match (self.criterion, &self.examples.form, &self.examples.answers) {
            (Criterion::Loss, Form::Continuations(examples, Learnt::Tokens), _) => right(&examples[number]).1.end - 1,
            (Criterion::Loss, ..) | (_, _, None) => self.examples.tokens(number),
            (_, _, Some(answers)) => answers.tokens(number),
        }
    }

    /// What the loss of example `number` is a sum of: the tokens that are learnt of it, or 1.
    pub fn weight(&self, number: usize) -> usize {
        match self.criterion {
            Criterion::Loss => self.examples.weight(number),
            Criterion::Accuracy | Criterion::F1 => 1,
        }
    }

    /// `numbers` cut into passes of at most `rows` rows in one lane, unless a single example has more.
    pub fn passes<'n>(&self, numbers: &'n [usize], rows: usize) -> impl Iterator<Item = &'n [usize]> {
        passes(numbers, rows, |number| self.tokens(number))
    }

    /// What is minimised of the examples `numbers` in every lane: the loss of each, a sum over what its weight counts.
    /// A model whose numbers are not finite has a loss that is not, whatever the criterion. In their batch they are those
    /// from number `first` on, which names the directions that lanes have for each example.
    ///
    /// # Errors
    /// [`ExamplesError`] where the model computes nothing of an example.
    ///
    /// # Panics
    /// As [`Examples::score`].
    pub fn losses(
        &self,
        model: &Model,
        cx: &Context,
        (first, numbers): (usize, &[usize]),
        lanes: &[Displacement],
    ) -> Result<Vec<Vec<f64>>, ExamplesError> {
        let examples = &self.examples;
        let batch = |scored| examples.batch(scored, model, numbers).numbered_from(first);
        match (self.criterion, &examples.answers) {
            (Criterion::Loss, _) => {
                let scores = batch(Scored::Learnt).score(model, cx, lanes)?;
                Ok(scores.into_iter().map(|scores| scores.losses).collect())
            }
            (Criterion::Accuracy | Criterion::F1, Some(answers)) => {
                let losses = |numbers: &[usize], lane: &Displacement| -> Result<Vec<f64>, ExamplesError> {
                    let scores = answers.scores(model, cx, numbers, lane)?;
                    Ok(scores.into_iter().map(|score| 1.0 - score.unwrap_or(f64::NAN)).collect())
                };
                let of_lane = |lane: &Displacement| {
                    if !lane.is_per_example() {
                        return losses(numbers, lane);
                    }
                    let own = |(at, number)| losses(std::slice::from_ref(number), &lane.of_example(first + at));
                    let each: Result<Vec<_>, _> = numbers.iter().enumerate().map(own).collect();
                    Ok(each?.concat())
                };
                lanes.iter().map(of_lane).collect()
            }
            (Criterion::Accuracy | Criterion::F1, None) => {
                let scores = batch(Scored::All).score(model, cx, lanes)?;
                Ok(scores.iter().map(wrong).collect())
            }
        }
    }
}

impl Minimised {
    /// The loss of each of the examples `numbers`, those of their batch from number `first` on, at θ, and its exact derivative
    /// along each of `along`, from one pass over the weights.
    ///
    /// # Errors
    /// [`ModelError`] if a sequence does not fit the model.
    ///
    /// # Panics
    /// If what is minimised has no derivative ([`Minimised::has_slopes`]), and as [`Examples::score`].
    pub fn slopes(
        &self,
        model: &Model,
        cx: &Context,
        (first, numbers): (usize, &[usize]),
        along: &[Arc<DirectionSet>],
    ) -> Result<(Vec<f64>, Vec<Vec<f64>>), ModelError> {
        assert!(self.has_slopes(), "the derivative of {:?}", self.criterion);
        let batch = self.examples.batch(Scored::Learnt, model, numbers).numbered_from(first);
        batch.slopes(model, cx, along).map(|(scores, slopes)| (scores.losses, slopes))
    }
}

impl Minimised {
    /// Adds the gradient of `factor` times the sum of the losses of the examples `numbers` to `sums`, and answers these.
    ///
    /// # Errors
    /// [`ModelError`] if a sequence does not fit the model.
    ///
    /// # Panics
    /// As [`Minimised::slopes`].
    pub fn gradients(
        &self,
        of: &mut dyn Differentiated,
        sums: &mut Gradients,
        summand: Summand<'_>,
        numbers: &[usize],
        factor: f64,
    ) -> Result<Vec<f64>, ModelError> {
        assert!(self.has_slopes(), "the gradient of {:?}", self.criterion);
        let batch = self.examples.batch(Scored::Learnt, of.model(), numbers);
        batch.gradients(of, sums, summand, factor).map(|scores| scores.losses)
    }

    /// What the losses of the examples `numbers` and the gradients of all parameters cost, in whatever passes.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no head.
    ///
    /// # Panics
    /// As [`Minimised::slopes`].
    pub fn work(&self, model: &Model, numbers: &[usize], unit: Unit<'_>) -> Result<Vec<Work>, ModelError> {
        assert!(self.has_slopes(), "the gradient of {:?}", self.criterion);
        self.examples.batch(Scored::Learnt, model, numbers).work(model, unit)
    }
}

/// 1 for each wrong choice, 0 for each right one, NaN where there was nothing to choose by.
fn wrong(scores: &Scores) -> Vec<f64> {
    let loss = |(scores, &correct): (&Vec<f64>, &bool)| {
        if scores.iter().all(|score| score.is_finite()) { f64::from(u8::from(!correct)) } else { f64::NAN }
    };
    scores.scores.iter().zip(&scores.correct).map(loss).collect()
}
