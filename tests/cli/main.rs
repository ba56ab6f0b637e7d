//! The program from outside: what scripts and other tools rely on.

mod models;

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

use serde_json::Value;

fn zofo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zofo"));
    // The suite itself may run under a forced instruction set.
    command.env_remove("ZOFO_ISA").env_remove("RAYON_NUM_THREADS");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// Standard output as exactly one JSON object and one line break.
fn json(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).expect("UTF-8");
    assert!(text.ends_with('\n') && text.trim_end().lines().count() == 1, "one line, found: {text:?}");
    let value: Value = serde_json::from_str(text).expect("one JSON object and nothing else");
    assert!(value.is_object(), "{value}");
    value
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// An instruction set that no CPU of this architecture has.
const FOREIGN: &str = if cfg!(target_arch = "x86_64") { "neon" } else { "avx512" };

#[test]
fn verify_passes_and_covers_every_check_on_every_instruction_set_and_two_thread_counts() {
    let output = run(zofo().args(["verify", "--json", "--threads", "3"]));
    let verdict = json(&output);
    assert_eq!((code(&output), &verdict["ok"]), (0, &Value::Bool(true)), "{verdict:#}");
    assert_eq!(verdict["digest"].as_str().map(str::len), Some(64));
    let isas: Vec<&str> = verdict["isas"].as_array().expect("isas").iter().filter_map(Value::as_str).collect();
    assert!(isas.contains(&"portable-soft"), "{isas:?}");
    let checks = verdict["checks"].as_array().expect("checks");
    let of_softmax: BTreeSet<_> = checks
        .iter()
        .filter(|check| check["name"] == "softmax")
        .map(|check| (check["isa"].as_str(), check["threads"].as_u64(), check["ok"].as_bool()))
        .collect();
    let expected = isas.iter().flat_map(|&isa| [1, 3].map(|n| (Some(isa), Some(n), Some(true)))).collect();
    assert_eq!(of_softmax, expected);
}

#[test]
fn the_digest_of_verify_does_not_depend_on_the_instruction_set_or_on_threads() {
    let digest = |arguments: &[&str]| json(&run(zofo().args(arguments)))["digest"].clone();
    let first = digest(&["verify", "--json"]);
    assert_eq!(first, digest(&["--isa", "portable-soft", "--threads", "1", "verify", "--json"]));
}

#[test]
fn the_demo_ends_in_its_expected_digest_and_has_learnt() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(zofo().args(["demo", "--json", "--output"]).arg(dir.path().join("demo")));
    let outcome = json(&output);
    assert_eq!((code(&output), &outcome["ok"]), (0, &Value::Bool(true)), "{outcome:#}");
    assert_eq!(outcome["weights_sha256"], outcome["expected"]);
    let of = |score: &str, field: &str| outcome[score][field].as_f64().expect("a number");
    assert!(of("final", "loss") < 0.5 * of("base", "loss"), "{outcome:#}");
    assert!(of("final", "value") > 0.9, "{outcome:#}");
    let progress = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert!(progress.lines().count() > 2 && !progress.contains('\r'), "plain lines on no terminal: {progress:?}");
    let again = run(zofo().args(["demo", "--json", "--output"]).arg(dir.path().join("demo")));
    assert_eq!(code(&again), 2, "nothing is overwritten: {again:?}");
}

#[test]
fn the_model_of_the_demo_is_what_its_pretraining_makes() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(zofo().args(["demo", "--pretrain", "--json", "--output"]).arg(dir.path().join("demo")));
    assert_eq!((code(&output), &json(&output)["ok"]), (0, &Value::Bool(true)), "{output:?}");
    let output = run(zofo().args(["demo", "--pretrain", "--prepare"]));
    assert_eq!(code(&output), 2, "one or the other: {output:?}");
}

#[test]
fn an_unknown_instruction_set_is_a_usage_error_that_names_the_choices() {
    let output = run(zofo().args(["--isa", "sse2", "verify"]));
    let message = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!((code(&output), output.stdout.len()), (2, 0));
    for part in ["--isa", "sse2", "portable-soft"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_forced_instruction_set_that_this_cpu_lacks_is_a_clear_error() {
    let output = run(zofo().env("ZOFO_ISA", FOREIGN).args(["verify", "--json"]));
    let error = &json(&output)["error"];
    assert_eq!((code(&output), &error["code"]), (2, &Value::from("isa")), "{error}");
    assert_eq!((&error["origin"], &error["found"]), (&Value::from("ZOFO_ISA"), &Value::from(FOREIGN)));
    assert!(error["message"].as_str().is_some_and(|text| text.contains(FOREIGN) && text.contains("ZOFO_ISA")));
    assert!(error["available"].as_array().is_some_and(|names| names.contains(&Value::from("portable-soft"))));
    // The flag wins over the variable.
    let output = run(zofo().env("ZOFO_ISA", FOREIGN).args(["--isa", "portable-soft", "--version"]));
    assert_eq!(code(&output), 0);
}

#[test]
fn every_answer_to_a_program_is_one_object_also_where_arguments_do_not_parse() {
    for (arguments, expected) in [
        (&["verify", "--json", "--frobnicate"][..], 2),
        (&["--json"], 2),
        (&["--json", "train"], 2),
        (&["verify", "--json", "--threads", "0"], 2),
        (&["--json", "--version"], 0),
        (&["--json", "--help"], 0),
    ] {
        let output = run(zofo().args(arguments));
        let value = json(&output);
        assert_eq!(code(&output), expected, "{arguments:?}: {value}");
        if expected == 2 {
            assert_eq!(value["error"]["code"], "usage", "{arguments:?}");
            assert!(value["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{arguments:?}");
            assert!(output.stderr.is_empty(), "{arguments:?}");
        }
    }
}

#[test]
fn help_has_examples_and_exit_codes_and_version_is_the_crates() {
    let help = String::from_utf8(run(zofo().arg("--help")).stdout).expect("UTF-8");
    for part in ["Examples:", "Exit codes:", "--isa", "--threads", "--json", "verify", "demo"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let version = String::from_utf8(run(zofo().arg("--version")).stdout).expect("UTF-8");
    assert_eq!(version.trim(), format!("zofo {}", env!("CARGO_PKG_VERSION")));
}
