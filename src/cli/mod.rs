//! The command line: flags in, numbers out; one file per subcommand.
//!
//! *What it is not.* Nothing is computed here: a command sets up threads and an instruction set, calls
//! the floors below and prints. *What must stay true*: other tools call it, so exit codes
//! ([`Exit`]) and `--json` shapes only ever gain fields. With `--json`, standard output holds exactly
//! one JSON object, errors included; progress and logs always go to standard error.

mod compare;
mod console;
mod demo;
mod dump;
mod evaluate;
mod exit;
mod failure;
mod generate;
mod import;
mod inspect;
mod list;
mod load;
mod replay;
mod report;
mod threads;
mod train;
mod verify;

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, error::ErrorKind};

use crate::{kernels::Context, simd};
use console::Console;
use failure::Failure;

pub use exit::Exit;

const EXAMPLES: &str = "\
Examples:
  zofo demo                          fine-tune a small model without a gradient, check the result to the bit
  zofo verify                        check that this CPU computes what every other CPU computes
  zofo verify --json                 the same for programs
  zofo --isa avx2 --threads 1 demo   the same bits, by other instructions on one core
  zofo import MODEL.gguf DIRECTORY   make a Hugging Face directory of a GGUF file
  zofo inspect DIRECTORY             what the model is, and what it needs
  zofo generate --model DIRECTORY --prompt \"The capital of France is\"
  zofo train run.toml                fine-tune a model; --resume goes on where it was left
  zofo export runs/sst2-mezo TUNED   a model directory of the run's tuned weights
  zofo evaluate --model DIRECTORY --task perplexity --data texts.jsonl
  zofo compare run.toml --optimizers mezo,lozo,adamw --budget 5m   which method to take

Exit codes: 0 ok, 1 failed, 2 usage, 3 non-finite loss, 4 input changed, 5 does not fit,
6 output locked, 7 journal damaged, 74 I/O, 130 and 143 interrupted.";

const THREADS: &str = "Worker threads; results never depend on it [default: RAYON_NUM_THREADS, else physical cores]";
const ISA: &str = "Instruction set: portable-soft, portable, neon, avx2 or avx512; results never depend on it \
                   [default: ZOFO_ISA, else the fastest here]";

/// Fine-tunes language models without a GPU.
#[derive(Debug, Parser)]
#[command(name = "zofo", version, about, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The flags that every command takes.
#[derive(Debug, Args)]
struct Global {
    #[arg(long, global = true, value_name = "N", help = THREADS)]
    threads: Option<NonZeroUsize>,
    #[arg(long, global = true, value_name = "NAME", help = ISA)]
    isa: Option<String>,
    /// Print one JSON object on standard output and nothing else there, errors included
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run several optimizers on one job with the same budget, and report which to take
    Compare(compare::Arguments),
    /// Fine-tune a small model that is within the program; under a minute, no download
    Demo(demo::Arguments),
    /// Write logits, losses or slopes of given tokens to a safetensors file, to compare engines
    Dump(dump::Arguments),
    /// Score a model on a data file
    Evaluate(evaluate::Arguments),
    /// Make a model directory of a run's tuned weights
    Export(replay::ExportArguments),
    /// Go on from a prompt
    Generate(generate::Arguments),
    /// Make a Hugging Face directory, with tokenizer, of a GGUF file of llama.cpp
    Import(import::Import),
    /// Show what a model directory holds
    Inspect(inspect::Arguments),
    /// List what there is to choose from
    List(list::Arguments),
    /// Predict what a run needs: memory, time, steps
    Plan(train::PlanArguments),
    /// Make a run's tuned weights again from its base model and its journal
    Replay(replay::Arguments),
    /// Fine-tune a model as a run file says
    Train(train::Arguments),
    /// Check every kernel against its scalar definition on each instruction set of this CPU
    Verify,
}

/// Runs the command that `arguments` (program name first) describe.
///
/// Initialises rayon's global thread pool, so a process calls it at most once.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Arguments that do not parse still say whether a program or a person reads the answer.
    let json = arguments.iter().any(|argument| argument == "--json");
    let mut console = Console::new(json);
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => finish(execute(&arguments, &mut console), &console),
        Err(error) => match error.kind() {
            ErrorKind::DisplayVersion => finish(console.notice("version", &error.to_string()), &console),
            ErrorKind::DisplayHelp => finish(console.notice("help", &help(&error.render())), &console),
            _ if json => finish(Err(Failure::usage(&error)), &console),
            _ => {
                // clap's own rendering is coloured and names the nearest flag.
                let _ = error.print();
                Exit::Usage.into()
            }
        },
    }
}

/// Help text, coloured on a terminal only.
fn help(text: &clap::builder::StyledStr) -> String {
    if io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() }
}

/// Sets up the machine for `arguments` and runs the command.
fn execute(arguments: &Arguments, console: &mut Console) -> Result<Exit, Failure> {
    let context = Context::new(isa(arguments.global.isa.as_deref())?);
    threads::start(arguments.global.threads)?;
    if !simd::subnormals_survive() {
        return Err(Failure::SubnormalsFlushed);
    }
    // On a worker itself: from outside the pool, every parallel kernel would wake and await another thread.
    rayon::scope(|_| match &arguments.command {
        Command::Compare(arguments) => compare::run(arguments, &context, console),
        Command::Demo(arguments) => demo::run(arguments, &context, console),
        Command::Dump(arguments) => dump::run(arguments, &context, console),
        Command::Evaluate(arguments) => evaluate::run(arguments, &context, console),
        Command::Export(arguments) => replay::export(arguments, &context, console),
        Command::Generate(arguments) => generate::run(arguments, &context, console),
        Command::Import(arguments) => import::run(arguments, console),
        Command::Inspect(arguments) => inspect::run(arguments, console),
        Command::List(arguments) => list::run(arguments, console),
        Command::Plan(arguments) => train::plan(arguments, &context, console),
        Command::Replay(arguments) => replay::run(arguments, &context, console),
        Command::Train(arguments) => train::run(arguments, &context, console),
        Command::Verify => verify::run(&context, console),
    })
}

/// The instruction set that the flag names, else the one of `ZOFO_ISA`, else the fastest.
fn isa(flag: Option<&str>) -> Result<simd::Isa, Failure> {
    match flag {
        Some(name) => name.parse().and_then(simd::Isa::new).map_err(|error| Failure::isa("--isa", &error)),
        None => simd::Isa::active().map_err(|error| Failure::isa("ZOFO_ISA", &error)),
    }
}

/// The exit code of `outcome`, its failure reported.
fn finish(outcome: Result<Exit, Failure>, console: &Console) -> ExitCode {
    outcome
        .unwrap_or_else(|failure| {
            let exit = failure.exit();
            console.report(failure);
            exit
        })
        .into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in [["zofo", "--threads", "3", "verify"], ["zofo", "verify", "--threads", "3"]] {
            let arguments = Arguments::try_parse_from(line).expect("a valid line");
            assert_eq!(arguments.global.threads.map(NonZeroUsize::get), Some(3));
        }
        assert!(Arguments::try_parse_from(["zofo", "verify", "--threads", "0"]).is_err());
    }
}
