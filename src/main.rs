//! The `zofo` program; [`zofo::cli`] is all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    zofo::cli::run(std::env::args_os())
}
