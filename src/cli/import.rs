//! `zofo import`: a GGUF file becomes a Hugging Face directory that every other command reads.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Exit, Failure, console::Console};
use crate::{
    tensor::DType,
    weights::gguf::{self, ImportSummary, Progress},
};

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The GGUF file
    #[arg(value_name = "MODEL.gguf")]
    source: PathBuf,
    /// The directory to make: new, or empty
    #[arg(value_name = "OUT_DIR")]
    target: PathBuf,
    /// How weights are stored: f32 has the exact decoded values, bf16 half the size
    #[arg(long, value_enum, default_value_t = Stored::Bf16)]
    dtype: Stored,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stored {
    F32,
    Bf16,
    F16,
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    output: &'a Path,
    family: &'static str,
    tokenizer: Option<&'static str>,
    tensors: usize,
    parameters: usize,
    bytes: u64,
    dtype: &'static str,
    seconds: f64,
}

/// Imports the file.
pub(super) fn run(arguments: &Import, console: &mut Console) -> Result<Exit, Failure> {
    let begin = Instant::now();
    let (dtype, name) = match arguments.dtype {
        Stored::F32 => (DType::F32, "f32"),
        Stored::Bf16 => (DType::BF16, "bf16"),
        Stored::F16 => (DType::F16, "f16"),
    };
    let mut show = |progress| show(console, progress);
    let summary = gguf::import(&arguments.source, &arguments.target, dtype, &mut show);
    console.clear();
    let ImportSummary { family, tokenizer, tensors, parameters, bytes } = summary?;
    let outcome = Outcome {
        output: &arguments.target,
        family,
        tokenizer,
        tensors,
        parameters,
        bytes,
        dtype: name,
        seconds: begin.elapsed().as_secs_f64(),
    };
    console.result(&outcome, &text(&outcome)).map(|()| Exit::Ok)
}

/// A line for every tensor on a terminal; elsewhere one for every quarter.
fn show(console: &mut Console, Progress { tensors, of, bytes }: Progress) {
    let kept = !console.is_live() && tensors * 4 / of != (tensors - 1) * 4 / of;
    console.progress(&format!("tensor {tensors}/{of}  {:.1} MB", bytes as f64 / 1e6), kept);
}

/// The result for people.
fn text(outcome: &Outcome<'_>) -> String {
    let Outcome { family, tensors, parameters, bytes, dtype, seconds, .. } = outcome;
    let output = outcome.output.display();
    let tokenizer = outcome.tokenizer.unwrap_or("none in the file: copy one into the directory");
    format!(
        "\
{output}: {family} with {tensors} tensors, {parameters} parameters as {dtype}
tokenizer {tokenizer}
{:.1} MB in {seconds:.1} s
next      zofo generate --model {output} --prompt \"The capital of France is\"",
        *bytes as f64 / 1e6,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{testing::gguf::GgufBuilder, weights::Checkpoint};

    fn arguments(scratch: &Path, file: &[u8]) -> Import {
        let source = scratch.join("model.gguf");
        std::fs::write(&source, file).expect("a file");
        Import { source, target: scratch.join("model"), dtype: Stored::Bf16 }
    }

    #[test]
    fn an_import_makes_a_directory_that_opens() {
        let scratch = tempfile::TempDir::new().expect("a temporary directory");
        let arguments = arguments(scratch.path(), &GgufBuilder::tiny("llama").build());
        let exit = run(&arguments, &mut Console::new(true)).expect("an import");
        assert_eq!(exit, Exit::Ok);
        assert_eq!(Checkpoint::open(&arguments.target).expect("a checkpoint").tensors().count(), 11);
        let again = run(&arguments, &mut Console::new(true)).expect_err("the target is there");
        assert_eq!(again.exit(), Exit::Usage);
        assert_eq!(again.to_json()["error"]["path"], arguments.target.display().to_string());
    }

    #[test]
    fn a_file_that_is_no_gguf_fails_with_the_reason_and_leaves_nothing() {
        let scratch = tempfile::TempDir::new().expect("a temporary directory");
        let arguments = arguments(scratch.path(), b"PK\x03\x04");
        let failure = run(&arguments, &mut Console::new(true)).expect_err("no GGUF");
        assert_eq!(failure.exit(), Exit::Failed);
        assert!(failure.to_string().contains("GGUF"), "{failure}");
        assert!(!arguments.target.exists());
    }

    #[test]
    fn the_text_names_the_next_command() {
        let outcome = Outcome {
            output: Path::new("smollm2"),
            family: "llama",
            tokenizer: None,
            tensors: 272,
            parameters: 134_515_008,
            bytes: 274_048_307,
            dtype: "bf16",
            seconds: 0.52,
        };
        let text = text(&outcome);
        for part in ["llama", "272", "134515008", "bf16", "274.0 MB", "0.5 s", "zofo generate --model smollm2"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
