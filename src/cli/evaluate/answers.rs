//! How often a model is right: one of several continuations, a word at the mask, an answer that it writes.

use std::{path::Path, time::Instant};

use super::{Arguments, Outcome};
use crate::{
    cli::{Exit, Failure, console::Console, dump::Problem},
    direction::Displacement,
    kernels::Context,
    model::Model,
    objective::{OptionBatch, Options, Sampler, WordBatch, Words, generate},
    task::{Draws, Encoded, Encoder, Example, Input, Objective, Style, Tally, Task, read_rows},
    text::Tokenizer,
};

/// Examples of one pass over the weights.
const BATCH: usize = 16;

/// Score and loss of an example.
struct Answer {
    score: f64,
    loss: f64,
}

pub(super) fn run(
    arguments: &Arguments,
    (model, tokenizer): (&Model, &Tokenizer),
    cx: &Context,
    begin: Instant,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let style = if model.spec().is_causal() { Style::Causal } else { Style::Masked };
    let file = Path::new(&arguments.task);
    let task = if file.extension().is_some_and(|extension| extension == "toml") {
        Task::open(file)?
    } else {
        Task::named(&arguments.task, style)?
    };
    let needs = needed_head(&task);
    let (family, found) = (model.spec().family, model.spec().head.about());
    if needs != found {
        return Err(Failure::Head { task: task.name().to_owned(), needs, family, found });
    }
    let rows = read_rows(&arguments.data, arguments.rows())?;
    let encoder = Encoder::new(tokenizer, None, arguments.context.min(model.spec().max_positions).max(4));
    let mut examples = Vec::with_capacity(rows.len());
    for row in &rows {
        let example = task.example(row)?;
        examples.push((encoder.encode(&example)?, example));
    }
    let judge = Judge { model, tokenizer, cx, task: &task, data: &arguments.data };
    let mut tally = Tally::new(task.metric());
    let mut loss = 0.0;
    for (number, batch) in examples.chunks(BATCH).enumerate() {
        for answer in judge.answers(batch)? {
            tally.add(answer.score);
            loss += answer.loss;
        }
        let done = (number * BATCH + batch.len()) as f64;
        let left = begin.elapsed().as_secs_f64() * (examples.len() as f64 - done) / done;
        let share = format!("{done} of {} examples, {:.3} so far, {left:.0} s left", examples.len(), tally.value());
        console.progress(&share, false);
    }
    console.clear();
    model.store().check_unchanged()?;
    let count = examples.len();
    let outcome = Outcome {
        task: task.name().to_owned(),
        metric: task.metric().name(),
        value: tally.value(),
        ci95: tally.ci95(),
        loss: loss / count as f64,
        count,
        examples: count,
        seconds: begin.elapsed().as_secs_f64(),
    };
    let Outcome { metric, value, ci95: [low, high], loss, seconds, .. } = &outcome;
    let text = format!(
        "{metric:10} {value:.4} (95 % between {low:.4} and {high:.4}), {count} examples\n\
         loss       {loss:.4} nats an example\n\
         time       {seconds:.1} s"
    );
    console.result(&outcome, &text)?;
    Ok(Exit::Ok)
}

/// What [`Head::about`](crate::model::Head::about) says of the models that a task is for.
fn needed_head(task: &Task) -> &'static str {
    match task.objective() {
        Objective::Options | Objective::LanguageModel => "next-token",
        Objective::LabelWords => "masked-token",
        Objective::Classifier => "class",
    }
}

/// What scores the examples of a task.
struct Judge<'a> {
    model: &'a Model,
    tokenizer: &'a Tokenizer,
    cx: &'a Context,
    task: &'a Task,
    data: &'a Path,
}

impl Judge<'_> {
    /// The answers to a batch of examples of one task, hence of one kind.
    fn answers(&self, batch: &[(Encoded, Example)]) -> Result<Vec<Answer>, Failure> {
        let wrong = |error| Failure::Inputs { path: self.data.to_owned(), problem: Problem::Labels(error) };
        let lanes = [Displacement::default()];
        let options: Vec<Options> = batch.iter().filter_map(|(encoded, _)| options(encoded)).collect();
        let words: Vec<Words> = batch.iter().filter_map(|(encoded, _)| self.words(encoded)).collect();
        let scores = if words.is_empty() {
            let batch = OptionBatch::new(self.model.spec(), &options).map_err(wrong)?;
            batch.score(self.model, self.cx, &lanes)?.remove(0)
        } else {
            let batch = WordBatch::new(self.model.spec(), &words).map_err(wrong)?;
            batch.score(self.model, self.cx, &lanes)?.remove(0)
        };
        let choices = scores.correct.iter().zip(&scores.losses);
        let choices = choices.map(|(&correct, &loss)| Answer { score: f64::from(u8::from(correct)), loss });
        let written = batch.iter().zip(&scores.scores).filter_map(|((encoded, example), scores)| {
            let (Encoded::Answer { prompt, .. }, Input::Answer { golds, .. }) = (encoded, &example.input) else {
                return None;
            };
            // The mean log-probability of the one continuation there is: the answer that is learnt.
            Some(self.written(prompt, golds).map(|score| Answer { score, loss: -scores[0] }))
        });
        let written: Vec<Answer> = written.collect::<Result<_, _>>()?;
        Ok(if written.is_empty() { choices.collect() } else { written })
    }

    /// An example with a mask token, or of a class.
    fn words(&self, encoded: &Encoded) -> Option<Words> {
        match encoded {
            Encoded::Mask { ids, position, words, gold, .. } => {
                Some(Words { ids: ids.clone(), position: *position, words: words.clone(), gold: *gold })
            }
            Encoded::Class { ids, gold, .. } => {
                // A class that the model lacks is refused by its number.
                let classes = self.model.spec().outputs().max(self.task.classes().unwrap_or_default());
                let words = (0..classes as u32).collect();
                Some(Words { ids: ids.clone(), position: 0, words, gold: *gold })
            }
            _ => None,
        }
    }

    /// The score of the answer that the model writes after `prompt`.
    fn written(&self, prompt: &[u32], golds: &[String]) -> Result<f64, Failure> {
        let how = self.task.generation().expect("a task whose answers are written");
        let greedy = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, draws: Draws::new(0) };
        let (mut stream, mut text, mut trouble) = (self.tokenizer.stream(true), String::new(), None);
        let ends = &self.tokenizer.special().stop;
        generate(self.model, self.cx, prompt, how.max_tokens, ends, &greedy, &mut |token| {
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
        Ok(self.task.metric().score(text[..end].trim(), golds))
    }
}

/// An example whose continuations are scored; the answer that is learnt is the only one of its example.
fn options(encoded: &Encoded) -> Option<Options> {
    match encoded {
        Encoded::Candidates { sequences, gold, .. } => {
            let sequences = sequences.iter().map(|sequence| (sequence.ids.clone(), sequence.scored.clone()));
            Some(Options { sequences: sequences.collect(), gold: gold.clone() })
        }
        Encoded::Answer { sequence, .. } => {
            Some(Options { sequences: vec![(sequence.ids.clone(), sequence.scored.clone())], gold: vec![0] })
        }
        Encoded::Mask { .. } | Encoded::Class { .. } | Encoded::Text(_) => None,
    }
}
