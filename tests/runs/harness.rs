//! The demo's model and data, and `zofo` as a child process over them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// What all runs here have in common: 40 short steps with evaluations and snapshots between them.
const SETTINGS: [&str; 5] =
    ["train.steps=40", "train.eval_every=5", "train.batch_size=4", "data.num_dev=20", "optimizer.lr=0.005"];

/// A directory with model, data and run file.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = TempDir::new().expect("a directory");
        let made = zofo(&["demo", "--prepare", "--output"]).arg(dir.path().join("demo")).output().expect("zofo");
        assert!(made.status.success(), "{made:?}");
        let valid = dir.path().join("demo/valid.jsonl");
        let lines = fs::read_to_string(&valid).expect("valid");
        fs::write(valid, lines.lines().take(30).collect::<Vec<_>>().join("\n")).expect("fewer lines");
        Bench { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("demo").join(name)
    }

    /// `zofo train` into the directory `output`, with further arguments.
    pub(crate) fn train(&self, output: &str, more: &[&str]) -> Command {
        self.train_as("run.toml", output, more)
    }

    /// The same by another run file.
    pub(crate) fn train_as(&self, run_file: &str, output: &str, more: &[&str]) -> Command {
        let mut command = zofo(&["train", "--json"]);
        command.arg(self.path(run_file)).args(["--set", &format!("output={output:?}")]);
        for setting in SETTINGS {
            command.args(["--set", setting]);
        }
        command.args(more);
        command
    }

    /// The report of the run in `output`, trained to its end.
    pub(crate) fn finished(&self, output: &str, more: &[&str]) -> Value {
        let ended = self.train(output, more).output().expect("zofo");
        assert!(ended.status.success(), "{ended:?}");
        json(&ended)
    }

    /// What the weights of the unbroken run are.
    pub(crate) fn unbroken(&self) -> String {
        digest(&self.finished("unbroken", &[]))
    }
}

/// The program, silent unless asked, on one thread: its bits do not depend on it.
pub(crate) fn zofo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zofo"));
    command.args(arguments).stdin(Stdio::null()).env("RAYON_NUM_THREADS", "1");
    command
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

pub(crate) fn digest(report: &Value) -> String {
    report["weights_sha256"].as_str().expect("a digest").to_owned()
}

/// Checks the exit code and the words of a failure.
pub(crate) fn fails(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let message = json(output)["error"]["message"].to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} in {message}");
    }
}

/// Copies a run directory, to be damaged.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// The one bench of this process: runs have directories of their own.
pub(crate) fn bench() -> &'static (Bench, String) {
    static BENCH: OnceLock<(Bench, String)> = OnceLock::new();
    BENCH.get_or_init(|| {
        let bench = Bench::new();
        let digest = bench.unbroken();
        (bench, digest)
    })
}
