//! Runs that take gradients: journals hold their losses alone, so their steps are taken again, on their data.

use std::{fs, process::Stdio, thread, time::Duration};

use crate::harness::{bench, copy, digest, fails, json, zofo};

/// The demo's run file without options that only other methods have.
const RUN_FILE: &str = "gradients.toml";

fn run_file() {
    let (bench, _) = bench();
    let text = fs::read_to_string(bench.path("run.toml")).expect("the demo's run file");
    let of_others = ["epsilon =", "queries ="];
    let lines = text.lines().filter(|line| !of_others.iter().any(|option| line.starts_with(option)));
    fs::write(bench.path(RUN_FILE), lines.map(|line| line.to_owned() + "\n").collect::<String>()).expect("a run file");
}

#[test]
fn a_run_that_selects_by_times_replays_by_those_that_its_journal_keeps() {
    let (bench, _) = bench();
    run_file();
    let options = ["optimizer.name=\"green_trainer\"", "optimizer.cost_unit=\"time\""].map(|set| ["--set", set]);
    let ended = bench.train_as(RUN_FILE, "by-times", options.as_flattened()).output().expect("zofo");
    let expected = digest(&json(&ended));
    for isa in zofo::simd::Isa::available() {
        let isa = isa.name();
        let mut command = zofo(&["replay", "--json", "--isa", isa.as_str(), "--model"]);
        command.arg(bench.path("model")).arg("--journal").arg(bench.path("by-times/journal.zofo"));
        let replayed =
            command.arg(bench.path(&format!("by-times-{isa}"))).arg("--data-from").arg(bench.path("by-times"));
        assert_eq!(digest(&json(&replayed.output().expect("zofo"))), expected, "{isa}");
    }
}

#[test]
fn a_run_that_takes_gradients_goes_on_to_the_same_bits_and_replays_with_its_data() {
    let (bench, _) = bench();
    run_file();
    for name in ["adamw", "sgd", "hi_zfo"] {
        let set = format!("optimizer.name={name:?}");
        let train = |output: &str, more: &[&str]| {
            let ended = bench.train_as(RUN_FILE, output, &[&["--set", &set], more].concat()).output().expect("zofo");
            // A snapshot that is there is one to go on from.
            let refused = String::from_utf8_lossy(&ended.stderr).contains("from the journal instead");
            assert!(ended.status.success() && !refused, "{name}: {ended:?}");
            digest(&json(&ended))
        };
        let (output, broken) = (format!("by-{name}"), format!("by-{name}-broken"));
        let expected = train(&output, &[]);
        let mut kills = 0;
        for milliseconds in [40, 80, 120, 160, 200] {
            let mut child = bench.train_as(RUN_FILE, &broken, &["--set", &set, "--resume"]);
            let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("zofo");
            thread::sleep(Duration::from_millis(milliseconds));
            let _ = child.kill();
            kills += usize::from(child.wait().expect("an end").code().is_none());
        }
        assert!(kills > 0, "no process was killed");
        // Without its snapshots every recorded step is taken again, from the first.
        let stripped = format!("{broken}-stripped");
        copy(&bench.path(&broken), &bench.path(&stripped));
        for snapshot in ["last", "best"] {
            let _ = fs::remove_dir_all(bench.path(&stripped).join(snapshot));
        }
        for killed in [broken, stripped] {
            assert_eq!(train(&killed, &["--resume"]), expected, "{killed}");
        }

        let replay = |to: &str, more: &[&str]| {
            let mut command = zofo(&["replay", "--json", "--isa", "portable", "--model"]);
            command.arg(bench.path("model")).arg("--journal").arg(bench.path(&output).join("journal.zofo"));
            command.arg(bench.path(&format!("{output}-{to}"))).args(more).output().expect("zofo")
        };
        let data = bench.path(&output);
        let with_data = replay("replayed", &["--data-from", data.to_str().expect("text")]);
        assert_eq!(digest(&json(&with_data)), expected, "{name}, replayed");
        fails(&replay("refused", &[]), 2, &["took gradients", "--data-from RUN_DIR"]);

        let exported = zofo(&["export", "--json"]).arg(&data).arg(bench.path(&format!("{output}-exported"))).output();
        assert_eq!(digest(&json(&exported.expect("zofo"))), expected, "{name}, exported from its snapshot");
    }
}
