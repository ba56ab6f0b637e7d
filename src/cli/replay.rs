//! `zofo export` and `zofo replay`: a run's tuned weights as a model directory, or its adapters as one that PEFT loads.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Exit, Failure, console::Console};
use crate::{
    kernels::Context,
    train::{Layout, Replayed, Which},
    weights::tuned,
};

/// What `zofo export` takes.
#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Run directory
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Directory to make, new or empty: a model, or the adapters of a run with tune.scope = "lora"
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
    /// Make a whole model of a run's adapters too: fold them into its weights
    #[arg(long)]
    merge: bool,
    /// Weights of the last step, or those with the best score
    #[arg(long, value_enum, default_value_t = Kept::Last)]
    which: Kept,
    /// Base model, if it is no longer where the run found it
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Weights that a run keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kept {
    Last,
    Best,
}

/// What `zofo replay` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Base model of the run
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Journal of the run
    #[arg(long, value_name = "FILE")]
    journal: PathBuf,
    /// Directory to make, new or empty: a model, or the adapters of a run with tune.scope = "lora"
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
    /// Make a whole model of a run's adapters too: fold them into its weights
    #[arg(long)]
    merge: bool,
    /// Run directory whose config.toml names the data: needed for runs that took gradients
    #[arg(long, value_name = "RUN_DIR")]
    data_from: Option<PathBuf>,
    /// Step whose weights are made: a number, `best` or `last`
    #[arg(long, value_name = "N|best|last", default_value = "last", value_parser = which)]
    step: Which,
}

fn which(text: &str) -> Result<Which, String> {
    match text {
        "last" => Ok(Which::Last),
        "best" => Ok(Which::Best),
        number => number.parse().map(Which::Step).map_err(|_| "expected a number, best or last".to_owned()),
    }
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Made {
    weights_sha256: String,
    step: u64,
    path: PathBuf,
}

pub(super) fn export(arguments: &ExportArguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let which = if arguments.which == Kept::Best { Which::Best } else { Which::Last };
    let dir = Layout::of(&arguments.run);
    let replayed = Replayed::from_run(&dir, arguments.model.as_deref(), which, cx, &mut told(console))?;
    finish(&replayed, (&arguments.out, arguments.merge), console)
}

pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let Arguments { model, journal, out, merge, data_from, step } = arguments;
    let data_from = data_from.as_deref().map(Layout::of);
    let replayed = Replayed::from_journal(model, journal, *step, data_from.as_ref(), cx, &mut told(console))?;
    finish(&replayed, (out, *merge), console)
}

/// Shows the steps as they are made again.
fn told(console: &mut Console) -> impl FnMut(u64, u64) {
    |step, of| console.progress(&format!("step {step} of {of} made again"), false)
}

fn finish(replayed: &Replayed, (out, merge): (&Path, bool), console: &mut Console) -> Result<Exit, Failure> {
    let digest = replayed.export(out, merge)?;
    let what = if replayed.is_adapter() && !merge { "adapters" } else { "model" };
    console.clear();
    let weights_sha256 = tuned::hex(&digest);
    let made = Made { weights_sha256, step: replayed.step, path: out.to_owned() };
    let text = format!("weights    {} after step {}\n{what:10} {}", made.weights_sha256, made.step, out.display());
    console.result(&made, &text)?;
    Ok(Exit::Ok)
}
