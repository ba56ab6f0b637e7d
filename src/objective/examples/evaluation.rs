//! How good a model is on examples: by their metric, and by their loss.

use super::{Examples, ExamplesError};
use crate::{
    direction::Displacement,
    kernels::Context,
    model::Model,
    task::{Metric, Tally},
};

/// Scores and losses of examples, added up in order.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    /// What the scores amount to.
    pub tally: Tally,
    loss: f64,
    weight: usize,
}

impl Evaluation {
    /// Of no example yet.
    pub fn new(examples: &Examples) -> Evaluation {
        Evaluation { tally: Tally::new(examples.metric()), loss: 0.0, weight: 0 }
    }

    /// The mean loss, over all that the examples' weights count; of none NaN.
    pub fn loss(&self) -> f64 {
        self.loss / self.weight as f64
    }
}

impl Examples {
    /// Adds what `model` makes of the examples `numbers`, which are scored in one pass over the weights.
    ///
    /// # Errors
    /// [`ExamplesError`] where the model computes nothing of an example; what was added stays.
    ///
    /// # Panics
    /// As [`Examples::score`].
    pub fn evaluate(
        &self,
        model: &Model,
        cx: &Context,
        numbers: &[usize],
        evaluation: &mut Evaluation,
    ) -> Result<(), ExamplesError> {
        let lane = Displacement::default();
        let scores = self.score(model, cx, numbers, std::slice::from_ref(&lane))?.remove(0);
        let written = match &self.answers {
            Some(answers) => answers.scores(model, cx, numbers, &lane)?,
            None => Vec::new(),
        };
        for (at, (loss, correct)) in scores.losses.into_iter().zip(scores.correct).enumerate() {
            let (number, Evaluation { tally, loss: sum, weight }) = (numbers[at], &mut *evaluation);
            match written.get(at) {
                Some(Ok(score)) => tally.add(*score),
                Some(Err(error)) => return Err(ExamplesError::Generation(Box::new((*error).into()))),
                None if self.metric == Metric::Perplexity => tally.add_loss(loss, self.weight(number)),
                None => tally.add(f64::from(u8::from(correct))),
            }
            *sum += loss;
            *weight += self.weight(number);
        }
        Ok(())
    }
}
