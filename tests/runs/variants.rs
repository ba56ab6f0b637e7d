//! Runs that store their weights otherwise, or measure otherwise: each goes on, replays and exports to its own bits.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use half::bf16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use crate::harness::{Bench, bench, copy, digest, fails, json, zofo};

/// The demo's model in bf16.
fn in_bf16(bench: &Bench) -> String {
    let (from, to) = (bench.path("model"), bench.path("model-bf16"));
    if !to.exists() {
        copy(&from, &to);
        let bytes = fs::read(from.join("model.safetensors")).expect("weights");
        let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
        let rounded: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, tensor)| {
                let values = tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
                let bytes = values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect();
                (name.to_owned(), tensor.shape().to_vec(), bytes)
            })
            .collect();
        let views = rounded.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).expect("two bytes a value"))
        });
        fs::write(to.join("model.safetensors"), safetensors::serialize(views, None).expect("tensors"))
            .expect("written");
    }
    format!("model={to:?}")
}

/// The digest of the run in `output` unbroken, killed and gone on with, and replayed: one and the same.
fn of_every_kind(output: &str, model: &Path, more: &[&str]) -> String {
    let (bench, _) = bench();
    let expected = digest(&bench.finished(output, more));
    let broken = format!("{output}-broken");
    let again = [more, &["--resume"]].concat();
    let mut kills = 0;
    for milliseconds in [40, 80, 120, 160, 200] {
        let mut child = bench.train(&broken, &again).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("zofo");
        thread::sleep(Duration::from_millis(milliseconds));
        let _ = child.kill();
        kills += usize::from(child.wait().expect("an end").code().is_none());
    }
    assert!(kills > 0, "no process was killed");
    assert_eq!(digest(&bench.finished(&broken, &again)), expected, "{output}, killed");
    let replayed = zofo(&["replay", "--json", "--isa", "portable-soft", "--model"])
        .arg(model)
        .arg("--journal")
        .args([bench.path(output).join("journal.zofo"), bench.path(&format!("{output}-replayed"))])
        .output()
        .expect("zofo");
    assert_eq!(digest(&json(&replayed)), expected, "{output}, replayed");
    expected
}

#[test]
fn every_precision_goes_on_and_replays_to_its_own_bits() {
    let (bench, _) = bench();
    let model = in_bf16(bench);
    let [f32, split, native] = ["f32", "bf16+16", "native"].map(|precision| {
        let set = format!("precision={precision:?}");
        of_every_kind(&format!("in-{precision}"), &bench.path("model-bf16"), &["--set", &model, "--set", &set])
    });
    assert_eq!(f32, split, "both are exact");
    assert_ne!(f32, native);
    let bytes = |name: &str| fs::read(bench.path(name).join("model.safetensors")).expect("weights");
    let dtype =
        |name: &str| SafeTensors::deserialize(&bytes(name)).expect("tensors").iter().next().expect("one").1.dtype();
    assert_eq!((dtype("in-f32-replayed"), dtype("in-native-replayed")), (Dtype::F32, Dtype::BF16));
    let metrics = fs::read_to_string(bench.path("in-native/metrics.jsonl")).expect("metrics");
    let last: Value = serde_json::from_str(metrics.lines().last().expect("a step")).expect("JSON");
    assert!(last["rounding_rms"].as_f64().expect("a number") > 0.0, "{last}");
}

#[test]
fn adapters_of_a_16_bit_model_have_the_same_bits_in_every_precision_and_are_all_that_is_kept() {
    let (bench, _) = bench();
    let model = in_bf16(bench);
    let [f32, native] = ["f32", "native"].map(|precision| {
        let (set, output) = (format!("precision={precision:?}"), format!("adapters-in-{precision}"));
        let lora = ["--set", "tune.scope=lora", "--set", "tune.rank=2", "--set", &model, "--set", &set];
        of_every_kind(&output, &bench.path("model-bf16"), &lora)
    });
    assert_eq!(f32, native);
    let bytes = fs::read(bench.path("adapters-in-native/last/weights.safetensors")).expect("a snapshot");
    let snapshot = SafeTensors::deserialize(&bytes).expect("tensors");
    for (name, tensor) in snapshot.iter() {
        assert!(name.contains(".lora_") && tensor.dtype() == Dtype::F32, "{name}");
    }
    let other =
        ["--resume", "--set", &model, "--set", "precision=native", "--set", "tune.scope=lora", "--set", "tune.rank=3"];
    fails(&bench.train("adapters-in-native", &other).output().expect("zofo"), 2, &["tune.rank was 2, is 3"]);
}

#[test]
fn every_estimator_and_optimizer_goes_on_and_replays() {
    let (bench, expected) = bench();
    let model = bench.path("model");
    for (output, settings) in [
        ("by-slopes", &["optimizer.estimator=\"slope\""][..]),
        ("one-sided", &["optimizer.estimator=\"one-sided\"", "optimizer.aggregate=\"least-squares\""]),
        ("strict-bf16", &["profile=\"strict-bf16\""]),
        ("accuracy", &["train.objective=\"accuracy\"", "optimizer.epsilon=0.1"]),
        ("by-momentum", &["optimizer.rule=\"momentum\"", "optimizer.lr=4e-4"]),
        ("by-adam", &["optimizer.rule=\"adam\"", "optimizer.lr=1e-3"]),
        ("by-fzoo", &["optimizer.name=\"fzoo\""]),
        ("by-dizo", &["optimizer.name=\"dizo\"", "optimizer.interval=5", "optimizer.projection_steps=2"]),
        ("by-sparse", &["optimizer.name=\"sparse_mezo\"", "optimizer.lr=4e-3"]),
        ("each-its-own", &["optimizer.directions=\"per-example\""]),
        ("each-its-own-by-lozo", &["optimizer.name=\"lozo\"", "optimizer.directions=\"per-example\""]),
        ("by-lozo-m", &["optimizer.name=\"lozo_m\"", "optimizer.refresh_interval=15"]),
        ("by-tezo-adam", &["optimizer.name=\"tezo_adam\"", "optimizer.lr=1e-3", "optimizer.refresh_interval=15"]),
        ("by-zo-mopi", &["optimizer.name=\"zo_mopi\"", "optimizer.rank=8", "optimizer.refresh_interval=15"]),
        ("one-block", &["tune.scope=\"layers\"", "tune.layers=[0]"]),
        ("by-adapters", &["tune.scope=\"lora\"", "tune.targets=[\"q_proj\",\"down_proj\"]"]),
        ("by-adapters-slopes", &["tune.scope=\"lora\"", "optimizer.estimator=\"slope\""]),
        // Two epochs in ten steps.
        ("by-adazeta", &["optimizer.name=\"adazeta\"", "optimizer.inc_rate=1", "data.num_train=20"]),
    ] {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        assert_ne!(&of_every_kind(output, &model, &settings), expected, "{output} is another run");
    }
}
