//! How good a model is at a task: the score of data that it is asked about and does not learn from.
//!
//! *What must stay true.* A score depends on the weights and the data alone (contract C1): it is what a run selects by,
//! and a run that is resumed selects the same.

use serde::Serialize;

use super::TrainError;
use crate::{
    direction::Displacement,
    kernels::Context,
    model::Model,
    objective::{Examples, Sampler, generate},
    task::{Draws, Encoded, Example, Input, Tally, Task},
    text::Tokenizer,
};

/// Rows of one pass over the weights, unless a single example has more.
const ROWS: usize = 2048;

/// What a model scored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The metric's name.
    pub metric: &'static str,
    /// Its value: more is better.
    pub value: f64,
    /// The 95 % confidence interval of the value.
    pub ci95: [f64; 2],
    /// The mean loss in nats: per token of the right answers where tokens are learnt, else per example.
    pub loss: f64,
    /// How many examples were asked.
    pub count: usize,
}

/// Examples that a model is asked about.
#[derive(Debug)]
pub struct Exam {
    examples: Examples,
    /// Prompt and right answers of each example whose answer is written.
    questions: Vec<(Vec<u32>, Vec<String>)>,
}

impl Exam {
    /// An exam of these `examples` of `task`.
    ///
    /// # Errors
    /// [`TrainError::Examples`] if one has an answer that `model` cannot give.
    pub fn new(task: &Task, model: &Model, examples: &[(Example, Encoded)]) -> Result<Exam, TrainError> {
        let questions = examples.iter().filter_map(|(example, encoded)| match (&example.input, encoded) {
            (Input::Answer { golds, .. }, Encoded::Answer { prompt, .. }) => Some((prompt.clone(), golds.clone())),
            _ => None,
        });
        let questions = questions.collect();
        Ok(Exam { examples: Examples::new(model.spec(), task.objective(), examples)?, questions })
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
        (model, tokenizer): (&Model, &Tokenizer),
        cx: &Context,
        task: &Task,
        progress: &mut dyn FnMut(usize, f64) -> bool,
    ) -> Result<Option<Score>, TrainError> {
        let numbers: Vec<usize> = (0..self.len()).collect();
        let mut tally = Tally::new(task.metric());
        let (mut loss, mut weight) = (0.0, 0);
        for pass in self.examples.passes(&numbers, ROWS) {
            let scores = self.examples.score(model, cx, pass, &[Displacement::default()])?.remove(0);
            for ((&number, of_one), correct) in pass.iter().zip(scores.losses).zip(scores.correct) {
                loss += of_one;
                weight += self.examples.weight(number);
                tally.add(match self.questions.get(number) {
                    Some((prompt, golds)) => {
                        let text = written((model, tokenizer), cx, task, prompt)?;
                        task.metric().score(text.trim(), golds)
                    }
                    None => f64::from(u8::from(correct)),
                });
            }
            if !progress(tally.count() as usize, tally.value()) {
                return Ok(None);
            }
        }
        model.store().check_unchanged()?;
        Ok(Some(Score {
            metric: task.metric().name(),
            value: tally.value(),
            ci95: tally.ci95(),
            loss: loss / weight as f64,
            count: self.len(),
        }))
    }
}

/// What a model writes after `prompt`, up to the task's stop texts.
fn written(
    (model, tokenizer): (&Model, &Tokenizer),
    cx: &Context,
    task: &Task,
    prompt: &[u32],
) -> Result<String, TrainError> {
    let how = task.generation().expect("a task whose answers are written");
    let greedy = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
    let (mut stream, mut text, mut trouble) = (tokenizer.stream(true), String::new(), None);
    let ends = &tokenizer.special().stop;
    generate(model, cx, prompt, how.max_tokens, ends, &greedy, &mut |token| {
        match stream.push(token) {
            Ok(piece) => text += &piece,
            Err(error) => trouble = Some(error),
        }
        trouble.is_none() && !how.stop.iter().any(|stop| text.contains(stop))
    })?;
    if let Some(error) = trouble {
        return Err(error.into());
    }
    text += &stream.finish()?;
    let end = how.stop.iter().filter_map(|stop| text.find(stop)).min().unwrap_or(text.len());
    text.truncate(end);
    Ok(text)
}
