//! Examples whose answers a model writes, and what they score.

use crate::{
    direction::Displacement,
    kernels::Context,
    model::Model,
    objective::{ExamplesError, Generator, Sampler},
    task::{Draws, Encoded, Example, Input, Judge, Place},
};

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

    /// The score of what `model` writes in `lane`, always the likeliest token.
    ///
    /// # Errors
    /// [`ExamplesError::Generation`], [`ExamplesError::Task`].
    pub(super) fn score(
        &self,
        model: &Model,
        cx: &Context,
        number: usize,
        lane: &Displacement,
    ) -> Result<f64, ExamplesError> {
        let Question { place, prompt, golds } = &self.questions[number];
        let sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
        let (max_tokens, ends) = (self.judge.max_tokens(), self.judge.ends());
        let mut written = self.judge.listen(place);
        let generator = Generator { model, cx, lane, max_tokens, ends, sampler };
        let tokens = generator.write(prompt, &mut |token| written.push(token));
        tokens.map_err(|error| ExamplesError::Generation(Box::new(error)))?;
        written.score(golds).map_err(|error| ExamplesError::Task(Box::new(error)))
    }
}
