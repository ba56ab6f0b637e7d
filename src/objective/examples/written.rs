//! Examples whose answers a model writes, and what they score.

use super::passes;
use crate::{
    direction::Displacement,
    kernels::Context,
    model::Model,
    objective::{ExamplesError, Generator, NotANumber, Sampler},
    task::{Draws, Encoded, Example, Input, Judge, Place},
};

/// Rows whose keys and values are held at a time while answers are written, unless a single one has more: of SmolLM2-135M
/// 94 MB.
const ROWS: usize = 2048;

/// Questions with their judge.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    judge: Judge,
    questions: Vec<Question>,
}

#[derive(Clone, Debug)]
struct Question {
    place: Place,
    prompt: Vec<u32>,
    golds: Vec<String>,
}

impl Answers {
    /// The questions of examples whose answers are written.
    pub(super) fn new(judge: Judge, examples: &[(Example, Encoded)]) -> Answers {
        let question = |(example, encoded): &(Example, Encoded)| match (encoded, &example.input) {
            (Encoded::Answer { prompt, .. }, Input::Answer { golds, .. }) => {
                Question { place: example.place.clone(), prompt: prompt.clone(), golds: golds.clone() }
            }
            _ => panic!("an example whose answer is not written: {encoded:?}"),
        };
        Answers { judge, questions: examples.iter().map(question).collect() }
    }

    /// Rows of the longest pass that writes an answer.
    pub(super) fn tokens(&self, number: usize) -> usize {
        self.questions[number].prompt.len() + self.judge.max_tokens()
    }

    /// The scores of what `model` writes in `lane` to the questions `numbers`, always the likeliest token; none where it
    /// answers something that is no number.
    ///
    /// # Errors
    /// [`ExamplesError::Generation`], [`ExamplesError::Task`].
    pub(super) fn scores(
        &self,
        model: &Model,
        cx: &Context,
        numbers: &[usize],
        lane: &Displacement,
    ) -> Result<Vec<Result<f64, NotANumber>>, ExamplesError> {
        let sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
        let (max_tokens, ends) = (self.judge.max_tokens(), self.judge.ends());
        let generator = Generator { model, cx, lane, max_tokens, ends, sampler };
        let mut scores = Vec::with_capacity(numbers.len());
        for numbers in passes(numbers, ROWS, |number| self.tokens(number)) {
            let questions: Vec<&Question> = numbers.iter().map(|&number| &self.questions[number]).collect();
            let prompts: Vec<&[u32]> = questions.iter().map(|question| &question.prompt[..]).collect();
            let mut heard: Vec<_> = questions.iter().map(|question| self.judge.listen(&question.place)).collect();
            let texts = generator.write_all(&prompts, &mut |text, token| heard[text].push(token));
            let texts = texts.map_err(|error| ExamplesError::Generation(Box::new(error)))?;
            for ((text, written), question) in texts.into_iter().zip(heard).zip(questions) {
                scores.push(match text {
                    Ok(_) => {
                        Ok(written.score(&question.golds).map_err(|error| ExamplesError::Task(Box::new(error)))?)
                    }
                    Err(error) => Err(error),
                });
            }
        }
        Ok(scores)
    }
}
