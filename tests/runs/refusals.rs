//! Runs that cannot begin or go on: each says why, by its own exit code, and nothing is lost.

use std::{fs, process::Stdio};

use crate::harness::{bench, copy, digest, fails, zofo};

#[test]
fn a_directory_that_holds_a_run_needs_the_flag() {
    let (bench, expected) = bench();
    bench.finished("held", &[]);
    fails(&bench.train("held", &[]).output().expect("zofo"), 2, &["holds a run", "--resume"]);
    assert_eq!(&digest(&bench.finished("held", &["--resume"])), expected);
}

#[test]
fn results_without_their_journal_are_not_trained_over() {
    let (bench, _) = bench();
    bench.finished("bereft", &[]);
    fs::remove_file(bench.path("bereft/journal.zofo")).expect("a journal");
    for more in [&[][..], &["--resume"]] {
        fails(&bench.train("bereft", more).output().expect("zofo"), 2, &["bereft", "no journal.zofo"]);
    }
    assert!(bench.path("bereft/report.json").exists());
}

#[test]
fn a_step_that_does_not_fit_into_a_record_is_refused() {
    let (bench, _) = bench();
    let queries = bench.train("many", &["--set", "optimizer.queries=5000"]).output().expect("zofo");
    fails(&queries, 2, &["10000 losses", "8192", "optimizer.queries"]);
}

#[test]
fn another_configuration_of_the_model_is_noticed() {
    let (bench, _) = bench();
    copy(&bench.path("model"), &bench.path("model-eps"));
    let model = ["--set", "model=\"model-eps\""];
    bench.finished("other-eps", &model);
    let config = bench.path("model-eps/config.json");
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("0.00001", "0.001").replace("1e-5", "0.001")).expect("another");
    let again = bench.train("other-eps", &[&["--resume"], &model[..]].concat()).output().expect("zofo");
    fails(&again, 4, &["training data"]);
}

#[test]
fn other_settings_and_other_data_are_named() {
    let (bench, _) = bench();
    bench.finished("begun", &[]);
    let resume = |more: &[&str]| bench.train("begun", &[&["--resume"], more].concat()).output().expect("zofo");
    fails(&resume(&["--set", "optimizer.lr=0.007"]), 2, &["optimizer.lr was 0.005, is 0.007"]);
    fails(&resume(&["--set", "seed=2"]), 2, &["seed was 1, is 2"]);
    let other = format!("data.valid={:?}", bench.path("train.jsonl"));
    fails(&resume(&["--set", &other]), 4, &["validation data"]);
}

#[test]
fn changed_weights_are_noticed() {
    let (bench, _) = bench();
    copy(&bench.path("model"), &bench.path("model-2"));
    let model = ["--set", "model=\"model-2\""];
    bench.finished("other-model", &model);
    let file = bench.path("model-2/model.safetensors");
    let mut bytes = fs::read(&file).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(file, bytes).expect("other weights");
    let again = bench.train("other-model", &[&["--resume"], &model[..]].concat()).output().expect("zofo");
    fails(&again, 4, &["the model's weights"]);
}

#[test]
fn a_second_process_is_told_of_the_first() {
    let (bench, _) = bench();
    let mut first = bench.train("busy", &["--set", "train.steps=100000", "--set", "train.patience=0"]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("zofo");
    while !bench.path("busy/journal.zofo").exists() {
        std::thread::yield_now();
    }
    let second = bench.train("busy", &["--resume"]).output().expect("zofo");
    let _ = first.kill();
    let _ = first.wait();
    fails(&second, 6, &[&format!("process {}", first.id())]);
}

#[test]
fn a_journal_that_was_changed_is_refused_with_the_place() {
    let (bench, _) = bench();
    bench.finished("to-flip", &[]);
    let journal = bench.path("to-flip/journal.zofo");
    let mut bytes = fs::read(&journal).expect("a journal");
    let middle = bytes.len() - 1000;
    bytes[middle] ^= 4;
    fs::write(&journal, bytes).expect("a damaged journal");
    fails(&bench.train("to-flip", &["--resume"]).output().expect("zofo"), 7, &["journal.zofo", "byte"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let (bench, _) = bench();
    fails(&bench.train("/proc/zofo", &[]).output().expect("zofo"), 74, &["/proc/zofo"]);
    let inside = bench.path("model/run");
    fails(&bench.train(inside.to_str().expect("text"), &[]).output().expect("zofo"), 2, &["lies in the model"]);
}

#[test]
fn a_wrong_option_is_refused_with_its_place() {
    let (bench, _) = bench();
    let wrong = bench.train("wrong", &["--set", "optimizer.epsilom=1.0"]).output().expect("zofo");
    fails(&wrong, 2, &["--set optimizer.epsilom=1.0", "epsilon"]);
    assert!(!bench.path("wrong").exists(), "nothing is made before the options are checked");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_with_its_code() {
    let (bench, _) = bench();
    copy(&bench.path("model"), &bench.path("model-nan"));
    let file = bench.path("model-nan/model.safetensors");
    let mut bytes = fs::read(&file).expect("weights");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file, bytes).expect("weights with a NaN");
    let diverging = ["--set", "model=\"model-nan\""];
    fails(&bench.train("diverging", &diverging).output().expect("zofo"), 3, &["not finite in 5 steps in a row"]);
    let dir = bench.path("diverging");
    let kept = zofo(&["export", "--json"]).arg(dir).arg(bench.path("kept")).output().expect("zofo");
    assert!(kept.status.success(), "{kept:?}");
}
