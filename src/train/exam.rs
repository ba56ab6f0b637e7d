//! How good a model is at a task: the score of data that it is asked about and does not learn from.
//!
//! *What must stay true.* A score depends on the weights and the data alone (contract C1): it is what a run selects by,
//! and a run that is resumed selects the same.

use std::sync::Arc;

use serde::Serialize;

use super::TrainError;
use crate::{
    kernels::Context,
    model::Model,
    objective::{Evaluation, Examples},
    task::{Encoded, Example, Task},
    text::Tokenizer,
};

/// Rows of one pass over the weights, unless a single example has more.
const ROWS: usize = 2048;

/// What a model scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The metric's name.
    pub metric: &'static str,
    /// Its value: less is better of the perplexity, more of all others.
    pub value: f64,
    /// The 95 % confidence interval of the value.
    pub ci95: [f64; 2],
    /// The mean loss in nats: per token where tokens are learnt, else per example.
    pub loss: f64,
    /// How many examples were asked.
    pub count: usize,
}

/// Examples that a model is asked about.
#[derive(Debug)]
pub struct Exam {
    examples: Examples,
}

impl Exam {
    /// An exam of these `examples` of `task`.
    ///
    /// # Errors
    /// [`TrainError::Examples`] if one has an answer that `model` cannot give.
    pub fn new(
        task: &Task,
        (model, tokenizer): (&Model, &Arc<Tokenizer>),
        examples: &[(Example, Encoded)],
    ) -> Result<Exam, TrainError> {
        Ok(Exam { examples: Examples::new(model.spec(), task.objective(), task.judge(tokenizer), examples)? })
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.examples.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// What `model` scores. `progress` is told how many examples are done and the value so far, and says whether to go
    /// on; `None` if not.
    ///
    /// # Errors
    /// [`TrainError`] if a sequence does not fit the model, or its files changed underneath.
    pub fn score(
        &self,
        model: &Model,
        cx: &Context,
        progress: &mut dyn FnMut(usize, f64) -> bool,
    ) -> Result<Option<Score>, TrainError> {
        let numbers: Vec<usize> = (0..self.len()).collect();
        let mut evaluation = Evaluation::new(&self.examples);
        for pass in self.examples.passes(&numbers, ROWS) {
            self.examples.evaluate(model, cx, pass, &mut evaluation)?;
            if !progress(evaluation.tally.count() as usize, evaluation.tally.value()) {
                return Ok(None);
            }
        }
        model.store().check_unchanged()?;
        Ok(Some(Score {
            metric: self.examples.metric().name(),
            value: evaluation.tally.value(),
            ci95: evaluation.tally.ci95(),
            loss: evaluation.loss(),
            count: self.len(),
        }))
    }
}
