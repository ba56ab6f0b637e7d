//! How surprised a causal model is by a text, per token.

use std::time::Instant;

use super::{Arguments, Outcome};
use crate::{
    cli::{Exit, Failure, console::Console, dump::Problem},
    direction::Displacement,
    kernels::Context,
    model::{Batch, Model},
    objective::{GenerationError, LabelError, Labelled, losses},
    task::{read_texts, windows},
    text::Tokenizer,
};

/// Tokens of one pass.
const BATCH_TOKENS: usize = 1024;

/// Loss and predicted tokens of one window.
#[derive(Clone, Copy)]
struct Part {
    loss: f64,
    tokens: usize,
}

pub(super) fn run(
    arguments: &Arguments,
    (model, tokenizer): (&Model, &Tokenizer),
    cx: &Context,
    begin: Instant,
    console: &mut Console,
) -> Result<Exit, Failure> {
    let texts = read_texts(&arguments.data, arguments.rows())?;
    if !model.spec().predicts_next() {
        return Err(GenerationError::NotCausal { family: model.spec().family }.into());
    }
    let context = arguments.context.min(model.spec().max_positions).max(2);
    let mut pieces = Vec::new();
    for text in &texts {
        let ids = tokenizer.encode(&text.text, true)?;
        pieces.extend(windows(ids.len(), context).map(|window| ids[window].to_vec()));
    }
    let failed = |problem| Failure::Inputs { path: arguments.data.clone(), problem };
    if pieces.is_empty() {
        return Err(failed(Problem::Labels(LabelError::None)));
    }
    let parts = measure(model, cx, &pieces, &failed, begin, console)?;
    console.clear();
    model.store().check_unchanged()?;

    let (loss, error) = mean(&parts);
    let outcome = Outcome {
        task: arguments.task.clone(),
        metric: "perplexity",
        value: loss.exp(),
        ci95: [(loss - 1.96 * error).exp(), (loss + 1.96 * error).exp()],
        loss,
        count: parts.iter().map(|part| part.tokens).sum(),
        examples: texts.len(),
        seconds: begin.elapsed().as_secs_f64(),
    };
    let Outcome { value, ci95: [low, high], count, examples, seconds, .. } = outcome;
    let text = format!(
        "perplexity {value:.3} (95 % between {low:.3} and {high:.3})\n\
         loss       {loss:.4} nats a token, {count} tokens of {examples} texts\n\
         time       {seconds:.1} s"
    );
    console.result(&outcome, &text)?;
    Ok(Exit::Ok)
}

/// The loss of every window, as many at once as fit [`BATCH_TOKENS`].
fn measure(
    model: &Model,
    cx: &Context,
    pieces: &[Vec<u32>],
    failed: &dyn Fn(Problem) -> Failure,
    begin: Instant,
    console: &mut Console,
) -> Result<Vec<Part>, Failure> {
    let total: usize = pieces.iter().map(Vec::len).sum();
    let (mut parts, mut rest, mut done) = (Vec::with_capacity(pieces.len()), pieces, 0);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|piece| {
            tokens += piece.len();
            tokens <= BATCH_TOKENS
        });
        let (now, later) = rest.split_at(fitting.count().max(1));
        let batch = Batch::new(now);
        let labels: Vec<Option<u32>> = batch.ids().iter().map(|&id| Some(id)).collect();
        let labelled = Labelled::of(model.spec(), &batch, &labels).map_err(|error| failed(Problem::Labels(error)))?;
        let sums = losses(model, cx, &batch, &labelled, &[Displacement::default()])?.remove(0);
        parts.extend(sums.per_example.iter().zip(&sums.counts).map(|(&loss, &tokens)| Part { loss, tokens }));
        rest = later;
        done += batch.tokens();
        let left = begin.elapsed().as_secs_f64() * (total - done) as f64 / done as f64;
        console.progress(&format!("{done} of {total} tokens, {left:.0} s left"), false);
    }
    Ok(parts)
}

/// The mean loss of a token and its standard error: that of a ratio of sums over windows (Cochran, Sampling
/// Techniques, 1977, section 6.4), since windows, not tokens, are independent.
fn mean(parts: &[Part]) -> (f64, f64) {
    let tokens: f64 = parts.iter().map(|part| part.tokens as f64).sum();
    let mean = parts.iter().map(|part| part.loss).sum::<f64>() / tokens;
    let n = parts.len() as f64;
    let residuals: f64 = parts.iter().map(|part| (part.loss - mean * part.tokens as f64).powi(2)).sum();
    let error = if parts.len() < 2 { f64::INFINITY } else { (n / (n - 1.0) * residuals).sqrt() / tokens };
    (mean, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_equal_windows_is_that_of_their_mean() {
        let losses = [1.0, 2.0, 4.0, 5.0];
        let parts = losses.map(|loss| Part { loss, tokens: 1 });
        let (mean, error) = mean(&parts);
        assert_eq!(mean, 3.0);
        // √(Σ(x − 3)² / 3 / 4) = √(10/12).
        assert!((error - (10.0_f64 / 12.0).sqrt()).abs() < 1e-15, "{error}");
    }
}
