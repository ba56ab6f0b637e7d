//! How good a model is on a task: one of several continuations, a word at the mask, an answer that it writes, a text.

use std::{path::Path, sync::Arc, time::Instant};

use super::{Arguments, Outcome};
use crate::{
    cli::{Exit, Failure, console::Console},
    kernels::Context,
    model::Model,
    objective::needed_head,
    task::{Encoder, Objective, Style, Task, read_rows},
    text::Tokenizer,
    train::Exam,
};

pub(super) fn run(
    arguments: &Arguments,
    (model, tokenizer): (&Model, Tokenizer),
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
    let (tokenizer, chat) = (Arc::new(tokenizer), task.chat_template(&arguments.model)?);
    let context = arguments.context.min(model.spec().max_positions).max(4);
    let encoder = Encoder::new(&tokenizer, chat.as_ref(), context);
    let mut examples = Vec::with_capacity(rows.len());
    for row in &rows {
        let example = task.example(row)?;
        let encoded = encoder.encode(&example)?;
        examples.push((example, encoded));
    }
    let cut = examples.iter().filter(|(_, encoded)| encoded.dropped() > 0).count();
    if cut > 0 {
        let all = examples.len();
        console.progress(&format!("{cut} of {all} examples have more than {context} tokens and were cut"), true);
    }
    let exam = Exam::new(&task, (model, &tokenizer), &examples)?;
    let mut progress = |done: usize, value: f64| {
        let left = begin.elapsed().as_secs_f64() * (exam.len() - done) as f64 / done as f64;
        console.progress(&format!("{done} of {} examples, {value:.3} so far, {left:.0} s left", exam.len()), false);
        true
    };
    let score = exam.score(model, cx, &mut progress)?.expect("nobody asked it to stop");
    console.clear();
    let outcome = Outcome {
        task: task.name().to_owned(),
        metric: score.metric,
        value: score.value,
        ci95: score.ci95,
        loss: score.loss,
        count: score.count,
        examples: score.count,
        seconds: begin.elapsed().as_secs_f64(),
    };
    let Outcome { metric, value, ci95: [low, high], loss, count, seconds, .. } = &outcome;
    let unit = if task.objective() == Objective::LanguageModel { "a learnt token" } else { "an example" };
    let text = format!(
        "{metric:10} {value:.4} (95 % between {low:.4} and {high:.4}), {count} examples\n\
         loss       {loss:.4} nats {unit}\n\
         time       {seconds:.1} s"
    );
    console.result(&outcome, &text)?;
    Ok(Exit::Ok)
}
