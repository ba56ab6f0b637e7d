//! Answers that a model writes: where they end, and how they are scored.

use std::sync::Arc;

use super::{Generation, Metric, Place, Task, TaskError};
use crate::text::{TextError, TextStream, Tokenizer};

/// What ends and scores the answers of a task.
#[derive(Clone, Debug)]
pub struct Judge {
    tokenizer: Arc<Tokenizer>,
    how: Generation,
    metric: Metric,
}

impl Task {
    /// What judges the answers that a model with this tokenizer writes, where they are not chosen.
    pub fn judge(&self, tokenizer: &Arc<Tokenizer>) -> Option<Judge> {
        let how = self.generation()?.clone();
        Some(Judge { tokenizer: Arc::clone(tokenizer), how, metric: self.metric() })
    }
}

impl Judge {
    /// How answers are scored.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The most tokens of an answer.
    pub fn max_tokens(&self) -> usize {
        self.how.max_tokens
    }

    /// The tokens that end one.
    pub fn ends(&self) -> &[u32] {
        &self.tokenizer.special().stop
    }

    /// An answer that is yet to be written, to the question at `place`.
    pub fn listen<'j>(&'j self, place: &'j Place) -> Written<'j> {
        Written { judge: self, place, stream: self.tokenizer.stream(true), text: String::new(), trouble: None }
    }
}

/// An answer, token by token.
#[derive(Debug)]
pub struct Written<'j> {
    judge: &'j Judge,
    place: &'j Place,
    stream: TextStream<'j>,
    text: String,
    trouble: Option<TextError>,
}

impl Written<'_> {
    /// Takes the next token; answers whether more are wanted.
    pub fn push(&mut self, token: u32) -> bool {
        match self.stream.push(token) {
            Ok(piece) => self.text += &piece,
            Err(error) => self.trouble = Some(error),
        }
        self.trouble.is_none() && !self.judge.how.stop.iter().any(|stop| self.text.contains(stop))
    }

    /// The score of the answer, up to where it stops, against those that are right.
    ///
    /// # Errors
    /// [`TaskError::Decode`].
    pub fn score(self, golds: &[String]) -> Result<f64, TaskError> {
        let Written { judge, place, stream, mut text, trouble } = self;
        let rest = trouble.map_or_else(|| stream.finish(), Err);
        text += &rest.map_err(|error| TaskError::Decode { place: place.clone(), source: Box::new(error) })?;
        let end = judge.how.stop.iter().filter_map(|stop| text.find(stop)).min().unwrap_or(text.len());
        Ok(judge.metric.score(text[..end].trim(), golds))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{task::Style, testing::examples::judge};

    /// Tokens that are read of an answer, of how many, and its F1 against `gold`.
    fn judged(answer: &str, gold: &str) -> (usize, usize, f64) {
        let (judge, tokenizer) = judge();
        let place = Place { path: Path::new("data.jsonl").into(), line: 1 };
        let mut written = judge.listen(&place);
        let tokens = tokenizer.encode(answer, false).expect("ids");
        let read = 1 + tokens.iter().take_while(|&&token| written.push(token)).count();
        (read.min(tokens.len()), tokens.len(), written.score(&[gold.to_owned()]).expect("a text"))
    }

    #[test]
    fn an_answer_ends_where_the_task_stops_it_and_is_scored_until_there() {
        let (all, tokens, score) = judged(" the red dog", "red dog");
        assert_eq!((all, score), (tokens, 1.0));
        let (read, tokens, score) = judged(" the red dog\n and a cat", "red dog");
        assert!(read < tokens, "{read} of {tokens} tokens were read");
        assert_eq!(score, 1.0, "what comes after the line is no part of it");
        // Two of three words, two of two.
        assert_eq!(judged(" big red dog", "red dog").2, 0.8);
        assert_eq!(judged("\nred dog", "red dog").2, 0.0);
    }

    #[test]
    fn only_answers_that_are_written_are_judged() {
        let (_, tokenizer) = judge();
        assert!(Task::named("sst2", Style::Causal).expect("a task").judge(&tokenizer).is_none());
    }
}
