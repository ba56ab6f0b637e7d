//! How often a model is right: one of several continuations, a word at the mask, an answer that it writes.

use std::{path::Path, time::Instant};

use super::{Arguments, Outcome};
use crate::{
    cli::{Exit, Failure, console::Console},
    direction::Displacement,
    kernels::Context,
    model::Model,
    objective::{Examples, Sampler, generate, needed_head},
    task::{Draws, Encoded, Encoder, Input, Objective, Style, Tally, Task, read_rows},
    text::Tokenizer,
};

/// Rows of one pass over the weights, unless a single example has more.
const ROWS: usize = 2048;

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
    let needs = needed_head(task.objective());
    let (family, found) = (model.spec().family, model.spec().head.about());
    if needs != found {
        return Err(Failure::Head { task: task.name().to_owned(), needs, family, found });
    }
    let rows = read_rows(&arguments.data, arguments.rows())?;
    let encoder = Encoder::new(tokenizer, None, arguments.context.min(model.spec().max_positions).max(4));
    let mut examples = Vec::with_capacity(rows.len());
    for row in &rows {
        let example = task.example(row)?;
        let encoded = encoder.encode(&example)?;
        examples.push((example, encoded));
    }
    let scored = Examples::new(model.spec(), task.objective(), &examples)?;
    let numbers: Vec<usize> = (0..examples.len()).collect();
    let mut tally = Tally::new(task.metric());
    let (mut loss, mut weight) = (0.0, 0);
    for pass in scored.passes(&numbers, ROWS) {
        let scores = scored.score(model, cx, pass, &[Displacement::default()])?.remove(0);
        for (number, (loss_of_one, correct)) in pass.iter().zip(scores.losses.iter().zip(scores.correct)) {
            loss += loss_of_one;
            weight += scored.weight(*number);
            let score = match &examples[*number] {
                (example, Encoded::Answer { prompt, .. }) => match &example.input {
                    Input::Answer { golds, .. } => written((model, tokenizer), cx, &task, prompt, golds)?,
                    other => panic!("an answer encoded from {other:?}"),
                },
                _ => f64::from(u8::from(correct)),
            };
            tally.add(score);
        }
        let (done, all) = (tally.count() as f64, examples.len());
        let left = begin.elapsed().as_secs_f64() * (all as f64 - done) / done;
        console.progress(&format!("{done} of {all} examples, {:.3} so far, {left:.0} s left", tally.value()), false);
    }
    console.clear();
    model.store().check_unchanged()?;
    let count = examples.len();
    let outcome = Outcome {
        task: task.name().to_owned(),
        metric: task.metric().name(),
        value: tally.value(),
        ci95: tally.ci95(),
        loss: loss / weight as f64,
        count,
        examples: count,
        seconds: begin.elapsed().as_secs_f64(),
    };
    let Outcome { metric, value, ci95: [low, high], loss, seconds, .. } = &outcome;
    let unit = if task.objective() == Objective::LanguageModel { "a token of the right answers" } else { "an example" };
    let text = format!(
        "{metric:10} {value:.4} (95 % between {low:.4} and {high:.4}), {count} examples\n\
         loss       {loss:.4} nats {unit}\n\
         time       {seconds:.1} s"
    );
    console.result(&outcome, &text)?;
    Ok(Exit::Ok)
}

/// The score of the answer that a model writes after `prompt`.
fn written(
    (model, tokenizer): (&Model, &Tokenizer),
    cx: &Context,
    task: &Task,
    prompt: &[u32],
    golds: &[String],
) -> Result<f64, Failure> {
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
    Ok(task.metric().score(text[..end].trim(), golds))
}
