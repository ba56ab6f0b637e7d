//! What a run leaves: the report, and weights that replay and export to the same bits.

use std::fs;

use serde_json::Value;

use crate::harness::{bench, digest, fails, json, zofo};

#[test]
fn the_report_has_the_fields_that_other_tools_read() {
    let (bench, _) = bench();
    let report = bench.finished("reported", &[]);
    for field in ["steps", "base", "best", "final", "seconds", "peak_rss_bytes", "journal_bytes", "weights_sha256"] {
        assert!(!report[field].is_null(), "{field} in {report}");
    }
    assert_eq!((report["steps"].as_u64(), report["split"].as_str()), (Some(40), Some("valid")));
    for score in ["base", "best", "final"] {
        assert_eq!(report[score]["count"], 30, "{score} in {report}");
    }
    let kept: Value =
        serde_json::from_slice(&fs::read(bench.path("reported/report.json")).expect("a report")).expect("JSON");
    assert_eq!(kept, report);
    let lines = fs::read_to_string(bench.path("reported/metrics.jsonl")).expect("metrics");
    let steps: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["step"].as_u64().expect("a step"))
        .collect();
    assert_eq!(steps, (1..=40).collect::<Vec<u64>>());
}

#[test]
fn replay_and_export_make_the_weights_of_the_run_on_every_instruction_set() {
    let (bench, expected) = bench();
    bench.finished("replayed", &[]);
    let model = bench.path("model");
    let journal = bench.path("replayed/journal.zofo");
    for isa in zofo::simd::Isa::available() {
        let out = bench.path(&format!("replayed-{isa}"));
        let made = zofo(&["replay", "--json", "--isa", isa.name().as_str(), "--model"])
            .arg(&model)
            .arg("--journal")
            .args([&journal, &out])
            .output()
            .expect("zofo");
        assert_eq!(&digest(&json(&made)), expected, "{isa}");
    }
    let out = bench.path("exported");
    let made = zofo(&["export", "--json"]).arg(bench.path("replayed")).arg(&out).output().expect("zofo");
    assert_eq!(&digest(&json(&made)), expected);
    let read = |file: &str| fs::read(bench.path(file)).expect("weights");
    assert_eq!(read("exported/model.safetensors"), read("replayed-portable/model.safetensors"));
}

#[test]
fn any_step_can_be_made_again_and_the_best_is_what_was_reported() {
    let (bench, _) = bench();
    let report = bench.finished("stepwise", &[]);
    let best = bench.path("stepwise-best");
    let run = bench.path("stepwise");
    let made = zofo(&["export", "--json", "--which", "best"]).arg(&run).arg(&best).output().expect("zofo");
    assert_eq!(json(&made)["weights_sha256"], report["best"]["weights_sha256"]);
    let replay = |step: &str, out: &str| {
        let mut command = zofo(&["replay", "--json", "--step", step, "--model"]);
        command.arg(bench.path("model")).arg("--journal").arg(run.join("journal.zofo")).arg(bench.path(out));
        command.output().expect("zofo")
    };
    assert_eq!(digest(&json(&replay("best", "by-journal"))), digest(&json(&made)));
    let base = replay("0", "step-0");
    assert!(base.status.success(), "{base:?}");
    let values = |file: &str| {
        let bytes = fs::read(bench.path(file)).expect("weights");
        let header = u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
        bytes[8 + header..].to_vec()
    };
    assert_eq!(values("step-0/model.safetensors"), values("model/model.safetensors"), "step 0 is the base");
    fails(&replay("41", "beyond"), 2, &["ends after step 40", "no step 41"]);
}

#[test]
fn what_is_exported_scores_what_the_report_says() {
    let (bench, _) = bench();
    let report = bench.finished("scored", &[]);
    let out = bench.path("scored-tuned");
    let made = zofo(&["export", "--json"]).arg(bench.path("scored")).arg(&out).output().expect("zofo");
    assert!(made.status.success(), "{made:?}");
    let mut evaluate = zofo(&["evaluate", "--json", "--task", "sst2", "--model"]);
    evaluate.arg(&out).arg("--data").arg(bench.path("valid.jsonl"));
    let score = json(&evaluate.output().expect("zofo"));
    for field in ["value", "loss", "ci95", "count"] {
        assert_eq!(score[field], report["final"][field], "{field}");
    }
}

#[test]
fn adapters_are_exported_alone_or_folded_into_their_model() {
    let (bench, _) = bench();
    let report = bench.finished("lora", &["--set", "tune.scope=lora"]);
    let (run, model) = (bench.path("lora"), bench.path("model"));
    let made = |arguments: &[&str], out: &str| {
        let made = zofo(arguments).args(["--json"]).arg(bench.path(out)).output().expect("zofo");
        assert_eq!(json(&made)["weights_sha256"], report["weights_sha256"], "{made:?}");
    };
    let text = |path: &std::path::Path| path.to_str().expect("a path of letters").to_owned();
    let (run, base, journal) = (text(&run), text(&model), text(&run.join("journal.zofo")));
    made(&["export", &run], "lora-adapters");
    made(&["replay", "--model", &base, "--journal", &journal], "lora-replayed");
    made(&["export", "--merge", &run], "lora-merged");
    made(&["replay", "--merge", "--model", &base, "--journal", &journal], "lora-merged-again");
    let read = |file: &str| fs::read(bench.path(file)).expect("a file");
    for (one, other) in [("adapters", "replayed"), ("merged", "merged-again")] {
        let name = if one == "merged" { "model" } else { "adapter_model" };
        let file = |of| read(&format!("lora-{of}/{name}.safetensors"));
        assert_eq!(file(one), file(other), "{other}");
    }
    let config: Value = serde_json::from_slice(&read("lora-adapters/adapter_config.json")).expect("JSON");
    let said = ["r", "lora_alpha", "target_modules", "base_model_name_or_path"].map(|field| &config[field]);
    assert_eq!(serde_json::json!(said), serde_json::json!([8, 16, ["q_proj", "v_proj"], base]));

    let mut evaluate = zofo(&["evaluate", "--json", "--task", "sst2", "--model"]);
    evaluate.arg(bench.path("lora-merged")).arg("--data").arg(bench.path("valid.jsonl"));
    let merged = json(&evaluate.output().expect("zofo"));
    let difference = merged["loss"].as_f64().expect("a loss") - report["final"]["loss"].as_f64().expect("a loss");
    // Two f32 engines: the same sums in another order.
    assert!(difference.abs() <= 1e-5, "{merged} and {}", report["final"]);
    let adapters = zofo(&["inspect", "--json"]).arg(bench.path("lora-adapters")).output().expect("zofo");
    fails(&adapters, 1, &["lora-adapters holds adapters, not a model", "zofo export --merge"]);
}

#[test]
fn bottlenecks_are_exported_alone_and_not_folded() {
    let (bench, _) = bench();
    let report = bench.finished("trains", &["--set", "optimizer.name=adazeta", "--set", "tune.rank=2"]);
    let run = bench.path("trains");
    let export = |more: &[&str], out: &str| {
        zofo(&["export", "--json"]).args(more).arg(&run).arg(bench.path(out)).output().expect("zofo")
    };
    assert_eq!(json(&export(&[], "trains-adapters"))["weights_sha256"], report["weights_sha256"]);
    let config = fs::read(bench.path("trains-adapters/adapter_config.json")).expect("a file");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!((&config["rank"], &config["width"]), (&serde_json::json!(2), &serde_json::json!(64)));
    fails(&export(&["--merge"], "trains-merged"), 2, &["bottlenecks are not linear", "without --merge"]);
    assert!(!bench.path("trains-merged").exists());
}

#[test]
fn a_plan_says_what_a_step_takes() {
    let (bench, _) = bench();
    let mut plan = zofo(&["plan", "--json"]);
    let plan = json(&plan.arg(bench.path("run.toml")).output().expect("zofo"));
    assert_eq!((plan["evaluations"].as_u64(), plan["steps"].as_u64()), (Some(8), Some(600)));
}

#[test]
#[ignore = "minutes; `cargo test --release --test runs -- --ignored ten_thousand`"]
fn ten_thousand_steps_hold_no_more_memory_than_the_first() {
    let (bench, _) = bench();
    bench.finished(
        "long",
        &["--set", "train.steps=10000", "--set", "train.eval_every=500", "--set", "train.patience=0"],
    );
    let lines = fs::read_to_string(bench.path("long/metrics.jsonl")).expect("metrics");
    let resident =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["rss_bytes"].as_u64().expect("bytes");
    let resident: Vec<u64> = lines.lines().map(resident).collect();
    assert_eq!(resident.len(), 10_000);
    // After two evaluations and snapshots all scratch memory has been asked for once.
    let most = |steps: std::ops::Range<usize>| resident[steps].iter().max().expect("steps").div_ceil(1 << 10);
    let (early, late) = (most(1_000..1_500), most(9_500..10_000));
    println!("{early} KiB in steps 1,001 to 1,500, {late} KiB in steps 9,501 to 10,000");
    assert!(late < early + (1 << 10), "{early} KiB grew to {late} KiB");
}
