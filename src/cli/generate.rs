//! `zofo generate`: text that follows a prompt.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Instant,
};

use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, console::Console, load};
use crate::{
    direction::Displacement,
    kernels::Context,
    objective::{Generator, Sampler},
    task::Draws,
    text::{ChatTemplate, Message, TextError, Tokenizer},
};

/// What `zofo generate` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Hugging Face model directory with its tokenizer
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to go on from
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Stop after this many tokens
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,
    /// Choose among this many of the likeliest tokens [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f64,
    /// Names the random numbers of a temperature above 0
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Give the prompt as a user's message through the model's chat template
    #[arg(long)]
    chat: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err("expected 0 or more".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err("expected more than 0 and at most 1".to_owned()) }
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Outcome {
    /// The new text.
    text: String,
    /// The new tokens, without the one that ended it.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    prompt_seconds: f64,
    tokens_per_second: Option<f64>,
}

pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let tokenizer = Tokenizer::open(&arguments.model)?;
    let prompt = if arguments.chat {
        let message = Message { role: "user".to_owned(), content: arguments.prompt.clone() };
        let text = ChatTemplate::open(&arguments.model)?.render(&[message], true)?;
        // A template writes the special tokens itself.
        tokenizer.encode(&text, false)?
    } else {
        tokenizer.encode(&arguments.prompt, true)?
    };
    let model = load::model(&arguments.model, console)?;
    let sampler = Sampler {
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        draws: Draws::new(arguments.seed),
    };

    let live = !console.is_json();
    let (begin, mut first) = (Instant::now(), None);
    let mut stream = tokenizer.stream(true);
    let mut text = String::new();
    let mut trouble: Option<Failure> = None;
    let mut show = |piece: Result<String, TextError>| -> bool {
        match piece {
            Ok(piece) => {
                text += &piece;
                if live && let Err(source) = write_now(&piece) {
                    trouble.get_or_insert(Failure::Output { source });
                }
            }
            Err(error) => drop(trouble.get_or_insert(error.into())),
        }
        trouble.is_none()
    };
    let (lane, ends) = (&Displacement::default(), &tokenizer.special().stop);
    let generator = Generator { model: &model, cx, lane, max_tokens: arguments.max_tokens, ends, sampler };
    let tokens = generator.write(&prompt, &mut |token| {
        first.get_or_insert_with(|| begin.elapsed().as_secs_f64());
        show(stream.push(token))
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    show(stream.finish());
    if let Some(failure) = trouble {
        return Err(failure);
    }
    model.store().check_unchanged()?;
    let prompt_seconds = first.unwrap_or(seconds);
    let later = tokens.len().saturating_sub(1);
    let outcome = Outcome {
        text,
        prompt_tokens: prompt.len(),
        prompt_seconds,
        tokens_per_second: (later > 0).then(|| later as f64 / (seconds - prompt_seconds)),
        tokens,
    };
    // A person has read the text already; the line break that ends it is missing.
    console.result(&outcome, "")?;
    if let Some(speed) = outcome.tokens_per_second {
        let count = outcome.tokens.len();
        console.progress(
            &format!("{count} tokens after {} of the prompt, {speed:.1} tokens/s", outcome.prompt_tokens),
            true,
        );
    }
    Ok(Exit::Ok)
}

fn write_now(piece: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(piece.as_bytes())?;
    out.flush()
}
