//! How the demo's model came to be: from noise, by gradients, on sentences that say nothing of whether a film is good.
//!
//! `zofo demo --pretrain --output DIR` makes it again. `DIR/model/model.safetensors` is then [`model::PRETRAINED`] to the last
//! bit, on every machine; whoever changes bits on purpose puts the new file in the place of the old one.

use std::{fs, path::Path};

use serde_json::json;

use super::{super::train, Exit, Failure, lines, model, reviews};
use crate::{
    cli::console::Console,
    kernels::Context,
    train::{Layout, Outcome, Replayed, RunFile, TrainError, Which, replace_file},
};

const TEXTS: u64 = 4000;
/// Not that of any data of the demo itself.
const SEED: u64 = 3;

const RUN_FILE: &str = r#"# How the model of `zofo demo` came to be.
model = "noise"
output = "run"
[data]
task = "text"
train = "texts.jsonl"
num_dev = 200
[optimizer]
name = "adamw"
lr = 0.01
lr_schedule = "cosine"
[train]
steps = 200
batch_size = 32
eval_every = 50
"#;

/// Pretrains in the empty directory `dir`, and compares: exit code 1 if another model came out.
pub(super) fn run(dir: &Path, cx: &Context, console: &mut Console) -> Result<Exit, Failure> {
    model::write(&dir.join("noise"), &model::noise(cx)?)?;
    let texts = reviews::reviews(TEXTS, SEED).into_iter().map(|review| json!({ "text": review.sentence }));
    replace_file(&dir.join("texts.jsonl"), lines(texts).as_bytes())?;
    let path = dir.join("pretrain.toml");
    replace_file(&path, RUN_FILE.as_bytes())?;
    if let Outcome::Interrupted { code, step } = train::fine_tune(RunFile::read(&path, &[])?, false, cx, console)? {
        return train::left((code, step), &dir.join("run"), console);
    }
    console.clear();
    let target = dir.join("model");
    let last = Replayed::from_run(&Layout::of(&dir.join("run")), None, Which::Last, cx, &mut |_, _| ())?;
    last.export(&target, false)?;
    let weights = target.join(model::WEIGHTS);
    let made = fs::read(&weights).map_err(|source| TrainError::Read { path: weights.clone(), source })?;
    let ok = made == model::PRETRAINED;
    let verdict = if ok { "the demo's" } else { "NOT the demo's" };
    let text = format!("model      {verdict}: {}", weights.display());
    console.result(&json!({ "ok": ok, "path": weights }), &text)?;
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}
