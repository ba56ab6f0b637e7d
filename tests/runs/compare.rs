//! Whole comparisons of `zofo compare` on the demo's small model: resumed, cut off, and each of their runs made again.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Bench, bench, fails, json, zofo};

/// Passes are counted, so that every number of steps is the same again.
const BUDGET: [&str; 4] = ["--budget", "240-forwards", "--grid", "lr=0.002,0.005"];

/// `zofo compare` into the directory `output`, with further arguments.
fn compare(bench: &Bench, output: &str, more: &[&str]) -> Command {
    let mut command = zofo(&["compare", "--json"]);
    command.arg(bench.path("run.toml")).arg("--output").arg(bench.path(output)).args(BUDGET);
    for setting in ["train.batch_size=4", "data.num_dev=20", "compare.evaluations=3", "compare.rehearsal=3"] {
        command.args(["--set", setting]);
    }
    command.args(more);
    command
}

/// The answer of a comparison that comes to its end.
fn finished(bench: &Bench, output: &str, more: &[&str]) -> Value {
    let ended = compare(bench, output, more).output().expect("zofo");
    assert!(ended.status.success(), "{ended:?}");
    json(&ended)
}

fn record(bench: &Bench, output: &str) -> Value {
    let bytes = fs::read(bench.path(output).join("compare.json")).expect("a record");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The digest of the weights that the journal of a run makes.
fn replayed(bench: &Bench, run: &Path, out: &Path) -> Value {
    let mut command = zofo(&["replay", "--json", "--model"]);
    command.arg(bench.path("model")).arg("--journal").arg(run.join("journal.zofo")).arg(out);
    json(&command.output().expect("zofo"))["weights_sha256"].clone()
}

/// The digest of the last weights of each cell that finished.
fn digests(record: &Value) -> BTreeMap<String, Option<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let cells = record["cells"].as_array().expect("cells").iter();
    cells.map(|cell| (text(&cell["cell"]).expect("a name"), text(&cell["weights_sha256"]))).collect()
}

#[test]
fn methods_are_compared_and_each_run_can_be_made_again() {
    let (bench, _) = bench();
    let answer = finished(bench, "compared", &["--optimizers", "mezo,fzoo"]);
    let methods = answer["methods"].as_array().expect("methods");
    assert_eq!(methods.len(), 2, "{answer}");
    for method in methods {
        assert_eq!(method["seeds"].as_array().map(Vec::len), Some(2), "{method}");
        assert!(method["peak_rss_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{method}");
        let forwards = method["forwards"].as_f64().expect("a number");
        assert!((200.0..=240.0).contains(&forwards), "the whole budget but for a part of a step: {forwards}");
    }
    let record = record(bench, "compared");
    let digests = digests(&record);
    // Of each method a rehearsal, two candidates and, as one of them is left after that, two seeds.
    assert_eq!(digests.len(), 2 * (1 + 2 + 2), "{digests:?}");
    for name in ["report.html", "cells.csv", "curves.csv"] {
        assert!(fs::metadata(bench.path("compared").join(name)).expect("written").len() > 500, "{name}");
    }
    for cell in record["cells"].as_array().expect("cells") {
        let name = cell["cell"].as_str().expect("a name");
        let run = bench.path("compared/cells").join(name);
        assert!(
            !run.join("last").exists() && !run.join("best").exists(),
            "weights are made again where they are wanted"
        );
        let out = bench.path(&format!("made-{}", name.replace('/', "-")));
        assert_eq!(replayed(bench, &run, &out), cell["weights_sha256"], "{name}");
        let points = cell["curve"].as_array().expect("evaluations").len();
        assert_eq!(points, if name.contains("/seed-") { 4 } else { 2 }, "{name}");
    }

    let again = compare(bench, "compared", &["--optimizers", "mezo,fzoo"]).output().expect("zofo");
    fails(&again, 2, &["holds a comparison", "--resume"]);
    let more = finished(bench, "compared", &["--optimizers", "mezo,fzoo,lozo", "--resume"]);
    assert_eq!(more["methods"].as_array().map(Vec::len), Some(3));
    let kept = self::digests(&self::record(bench, "compared"));
    assert!(digests.iter().all(|(name, digest)| kept.get(name) == Some(digest)), "nothing is done twice");
    let other = ["--optimizers", "mezo", "--set", "train.batch_size=2", "--resume"];
    fails(&compare(bench, "compared", &other).output().expect("zofo"), 2, &["train.batch_size was 4, is 2"]);
}

#[test]
fn a_comparison_that_is_killed_goes_on_to_the_same_runs() {
    let (bench, _) = bench();
    let optimizers = ["--optimizers", "mezo,adamw", "--seeds", "1"];
    finished(bench, "whole", &optimizers);
    let resumed = [&optimizers[..], &["--resume"]].concat();
    let mut kills = 0;
    for milliseconds in [150, 300, 450, 600, 750, 900] {
        let mut child = compare(bench, "killed", &resumed);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("zofo");
        thread::sleep(Duration::from_millis(milliseconds));
        // Its own child lives on and holds its run directory: whoever comes next waits for it.
        let _ = child.kill();
        kills += usize::from(child.wait().expect("an end").code().is_none());
    }
    assert!(kills > 0, "no process was killed");
    finished(bench, "killed", &resumed);
    assert_eq!(digests(&record(bench, "killed")), digests(&record(bench, "whole")));
}

#[test]
fn a_signal_ends_a_comparison_and_it_goes_on() {
    let (bench, _) = bench();
    let optimizers = ["--optimizers", "mezo", "--resume"];
    let mut child = compare(bench, "signalled-comparison", &optimizers);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("zofo");
    while !bench.path("signalled-comparison/cells").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
    let ended = child.wait_with_output().expect("an end");
    assert_eq!((ended.status.code(), &json(&ended)["stopped"]), (Some(143), &Value::from("signal")), "{ended:?}");
    finished(bench, "signalled-comparison", &optimizers);
}

#[test]
fn a_candidate_that_diverges_is_not_chosen_and_a_method_that_does_drops_out() {
    let (bench, _) = bench();
    let grids =
        ["--set", "compare.methods.wild.optimizer.name=mezo", "--set", "compare.methods.wild.grid.lr=[1e18, 9e17]"];
    let mezo = ["--set", "compare.methods.mezo.grid.lr=[1e18, 0.005]", "--optimizers", "mezo,wild", "--seeds", "1"];
    // Rehearsals end before five steps in a row are not finite.
    let answer = finished(bench, "wild", &[&grids[..], &mezo[..]].concat());
    let [mezo, wild] = [&answer["methods"][0], &answer["methods"][1]];
    assert_eq!((&mezo["method"], mezo["chosen"]["lr"].as_f64()), (&Value::from("mezo"), Some(0.005)), "{answer}");
    assert!(wild["seeds"].as_array().is_some_and(Vec::is_empty), "{wild}");
    assert!(wild["failure"].as_str().is_some_and(|failure| failure.contains("not finite")), "{wild}");
}

#[test]
fn a_method_that_cannot_be_meant_is_refused_before_anything_is_made() {
    let (bench, _) = bench();
    let refused = |more: &[&str], words: &[&str]| {
        fails(&compare(bench, "refused", more).output().expect("zofo"), 2, words);
        assert!(!bench.path("refused").exists(), "{words:?}");
    };
    refused(&["--optimizers", "mezo,loso"], &["compare.optimizers", "loso", "lozo"]);
    refused(&["--optimizers", "mezo", "--set", "compare.methods.mezo.grid.rank=[1]"], &["no option", "rank"]);
    refused(&[], &["does not say compare.optimizers"]);
    refused(&["--optimizers", "mezo", "--grid", "lr"], &["--grid lr lists nothing"]);
    fails(
        &compare(bench, "refused", &["--budget", "ten"]).output().expect("zofo"),
        2,
        &["cannot be used multiple times"],
    );
}

#[test]
fn a_run_may_be_bounded_by_the_time_of_its_steps() {
    let (bench, _) = bench();
    let bounded = ["--set", "train.steps=1000000", "--set", "train.seconds=1", "--set", "train.patience=0"];
    let often = ["--set", "train.eval_every=1000000"];
    let report = bench.finished("bounded", &[&bounded[..], &often].concat());
    let (seconds, steps) = (report["training_seconds"].as_f64().expect("seconds"), report["steps"].as_u64());
    assert_eq!(report["stopped"], "seconds");
    // The step that crosses the bound is the last.
    let metrics = fs::read_to_string(bench.path("bounded/metrics.jsonl")).expect("metrics");
    let last: Value = serde_json::from_str(metrics.lines().last().expect("a step")).expect("JSON");
    let before = seconds - last["seconds"].as_f64().expect("seconds");
    assert!(seconds >= 1.0 && before < 1.0, "{before} and {seconds}");
    assert_eq!(last["step"].as_u64(), steps);
    let again = bench.finished("bounded", &[&bounded[..], &often, &["--resume"]].concat());
    assert_eq!(again, report);
    assert_eq!(replayed(bench, &bench.path("bounded"), &bench.path("bounded-replayed")), report["weights_sha256"]);
}
