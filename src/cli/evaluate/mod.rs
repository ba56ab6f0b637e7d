//! `zofo evaluate`: a model's score on a data file.

mod answers;
mod perplexity;

use std::{num::NonZeroUsize, path::PathBuf, time::Instant};

use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, console::Console, load};
use crate::{kernels::Context, text::Tokenizer};

/// What `zofo evaluate` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Hugging Face model directory with its tokenizer
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// `perplexity`, a task of `zofo list tasks`, or a task file (.toml)
    #[arg(long, value_name = "NAME")]
    task: String,
    /// JSON lines (.jsonl) or a table (.csv) with the fields of the task; for perplexity a `text` field, or plain text
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Read only this many examples
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// Tokens that the model sees at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = context)]
    context: usize,
}

impl Arguments {
    /// The most rows to read.
    fn rows(&self) -> usize {
        self.limit.map_or(usize::MAX, NonZeroUsize::get)
    }
}

fn context(text: &str) -> Result<usize, String> {
    const SMALLEST: usize = 4;
    let value: usize = text.parse().map_err(|_| "not a whole number".to_owned())?;
    if value >= SMALLEST { Ok(value) } else { Err(format!("expected {SMALLEST} or more")) }
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    task: String,
    metric: &'static str,
    value: f64,
    /// 95 % confidence interval of the value.
    ci95: [f64; 2],
    /// Mean loss in nats: per token for perplexity and where tokens are learnt, else per example.
    loss: f64,
    /// Predicted tokens for perplexity, else examples.
    count: usize,
    /// Examples read.
    examples: usize,
    seconds: f64,
}

pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let tokenizer = Tokenizer::open(&arguments.model)?;
    let model = load::model(&arguments.model, console)?;
    if arguments.task == "perplexity" {
        perplexity::run(arguments, (&model, &tokenizer), cx, begin, console)
    } else {
        answers::run(arguments, (&model, tokenizer), cx, begin, console)
    }
}
