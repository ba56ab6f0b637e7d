//! `zofo demo`: the main job in seconds, on a small model and data that it makes itself, with a result checked to the
//! bit.
//!
//! A Llama of one block that has read sentences about films ([`pretraining`]) learns which of 32 adjectives are praise by the
//! forward passes of `MeZO` (Malladi et al., 2023, arXiv:2305.17333), never a backward one. Model, data and run file are written
//! to a directory and `zofo train` does the rest: what the demo shows is what a run of one's own looks like.
//!
//! *What must stay true*: the final weights are those behind [`EXPECTED`] on every machine. Whoever changes the bits of a
//! kernel, of the noise or of an update on purpose changes that line and the changelog with it.

mod model;
mod pretraining;
mod reviews;

use std::{fs, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{Exit, Failure, console::Console, report, train};
use crate::{
    kernels::Context,
    train::{Outcome, RunFile, TrainError, replace_file},
};

/// The `weights_sha256` of the run.
const EXPECTED: &str = "ae8a3e934b2cbdc08dc59d8f35e463e43ddbf84601bebb8309f11682a601b4e2";

const TRAIN: u64 = 800;
const VALID: u64 = 400;

/// What `zofo demo` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory to make: model, data, run file and run
    #[arg(long, value_name = "DIR", default_value = "zofo-demo")]
    output: PathBuf,
    /// Only write model, data and run file, for `zofo train`
    #[arg(long)]
    prepare: bool,
    /// Make the model itself again instead, from noise by gradients, and compare
    #[arg(long, conflicts_with = "prepare")]
    pretrain: bool,
}

const RUN_FILE: &str = r#"# What `zofo demo` does. Try other values: zofo train run.toml --set output=again --set optimizer.lr=0.016
model = "model"
output = "run"
[data]
task = "sst2"
train = "train.jsonl"
valid = "valid.jsonl"
num_train = 600
num_dev = 200
[optimizer]
name = "mezo"
lr = 0.008
lr_schedule = "linear"
epsilon = 1e-3
queries = 4
[train]
steps = 600
batch_size = 16
eval_every = 100
"#;

/// A row a line.
fn lines(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| row.to_string() + "\n").collect()
}

/// Trains and checks the digest: exit code 1 if it differs.
pub(super) fn run(arguments: &Arguments, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    let dir = &arguments.output;
    let failed = |source| TrainError::Write { path: dir.clone(), source };
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(TrainError::Output { path: dir.clone() }.into());
    }
    fs::create_dir_all(dir).map_err(failed)?;
    if arguments.pretrain {
        return pretraining::run(dir, cx, console);
    }
    model::write(&dir.join("model"), model::PRETRAINED)?;
    for (name, count, seed) in [("train.jsonl", TRAIN, 1), ("valid.jsonl", VALID, 2)] {
        let rows = reviews::reviews(count, seed).into_iter().map(|row| json!(row));
        replace_file(&dir.join(name), lines(rows).as_bytes())?;
    }
    let path = dir.join("run.toml");
    replace_file(&path, RUN_FILE.as_bytes())?;
    let train = format!("zofo train {}", path.display());
    if arguments.prepare {
        console.result(&json!({ "run": path }), &format!("next       {train}"))?;
        return Ok(Exit::Ok);
    }
    console.progress(&train, true);
    let mut report = match train::fine_tune(RunFile::read(&path, &[])?, false, cx, console)? {
        Outcome::Finished(report) => report,
        Outcome::Interrupted { code, step } => return train::left((code, step), &dir.join("run"), console),
    };
    console.clear();
    let ok = report["weights_sha256"] == EXPECTED;
    report["ok"] = Value::Bool(ok);
    report["expected"] = EXPECTED.into();
    let verdict = if ok { "as on every other machine" } else { "NOT the weights of other machines" };
    let text = format!(
        "{}\ndigest     {verdict}\n\n\
         next       zofo export {dir}/run {dir}/tuned\n           \
         zofo evaluate --model {dir}/tuned --task sst2 --data {dir}/valid.jsonl",
        report::text(&report),
        dir = dir.display()
    );
    console.result(&report, &text)?;
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}
