//! The program from outside: what scripts and other tools rely on.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use safetensors::SafeTensors;
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
fn the_demo_ends_in_its_expected_digest_with_a_lower_loss() {
    let output = run(zofo().args(["demo", "--json"]));
    let outcome = json(&output);
    assert_eq!((code(&output), &outcome["ok"]), (0, &Value::Bool(true)), "{outcome:#}");
    assert_eq!(outcome["digest"], outcome["expected"]);
    let of = |score: &str, field: &str| outcome[score][field].as_f64().expect("a number");
    assert!(of("final", "loss") < 0.5 * of("base", "loss"), "{outcome:#}");
    assert!(of("final", "accuracy") > 0.9, "{outcome:#}");
    let progress = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert!(progress.lines().count() > 2 && !progress.contains('\r'), "plain lines on no terminal: {progress:?}");
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

/// A golden checkpoint with a tokenizer of its 96 words: `w0` to `w95`.
fn tiny_model(folder: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let golden = golden(folder);
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(name), dir.path().join(name)).expect("a golden file");
    }
    let vocabulary: serde_json::Map<String, Value> = (0..96).map(|id| (format!("w{id}"), Value::from(id))).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "w3" },
    });
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("a tokenizer");
    dir
}

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(folder)
}

/// The recorded tensors that `zofo dump` reads, and a direction: the recorded gradient.
fn recorded_inputs(folder: &str, dir: &Path) -> PathBuf {
    let bytes = fs::read(golden(folder).join("golden.safetensors")).expect("a golden file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let renamed = tensors.iter().filter_map(|(name, view)| {
        let inputs = ["input_ids", "attention_mask", "labels"];
        let name = match (name.strip_prefix("right."), name.strip_prefix("grad.")) {
            (Some(input), _) if inputs.contains(&input) => input.to_owned(),
            (_, Some(parameter)) => format!("direction.{parameter}"),
            _ => return None,
        };
        Some((name, view))
    });
    let path = dir.join("inputs.safetensors");
    fs::write(&path, safetensors::serialize(renamed, None).expect("safetensors")).expect("a file");
    path
}

fn dump(what: &str, folder: &str, extra: &[&str]) -> (Vec<usize>, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    let (inputs, output) = (recorded_inputs(folder, dir.path()), dir.path().join("out.safetensors"));
    let mut command = zofo();
    command.args(["dump", what, "--json", "--model"]).arg(golden(folder));
    let answer = run(command.arg("--inputs").arg(inputs).arg("--output").arg(&output).args(extra));
    assert_eq!(code(&answer), 0, "{}", String::from_utf8_lossy(&answer.stdout));
    let bytes = fs::read(output).expect("an output");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = tensors.tensor(what).expect("the tensor asked for");
    assert_eq!(json(&answer)["shape"], serde_json::json!(tensor.shape()));
    (tensor.shape().to_vec(), tensor.data().to_vec())
}

fn recorded(folder: &str, name: &str) -> Vec<f32> {
    let bytes = fs::read(golden(folder).join("golden.safetensors")).expect("a golden file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let data = tensors.tensor(name).expect("a recorded tensor").data();
    data.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

#[test]
fn dumped_logits_are_the_recorded_ones_with_zeros_at_padding() {
    for folder in ["llama", "roberta-mlm", "bert-cls"] {
        let (shape, bytes) = dump("logits", folder, &[]);
        let found: Vec<f32> = bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        let expected = recorded(folder, "right.logits");
        assert_eq!((shape[0], found.len()), (3, expected.len()), "{folder}");
        let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // The bound of the golden files for an f32 engine; the recorded rows at padding are zero too.
        assert!(difference <= 1e-4, "{folder}: {difference}");
    }
}

#[test]
fn dumped_losses_follow_the_recorded_gradient_up_and_down() {
    for folder in ["opt", "gpt2", "roberta-cls"] {
        let epsilon = recorded(folder, "zo.eps")[0];
        let (shape, bytes) = dump("loss", folder, &["--epsilon", &format!("{epsilon},-{epsilon}")]);
        assert_eq!(shape, [3]);
        let found: Vec<f64> = bytes.as_chunks().0.iter().map(|&word| f64::from_le_bytes(word)).collect();
        let expected = ["right.loss", "zo.loss_plus", "zo.loss_minus"].map(|name| f64::from(recorded(folder, name)[0]));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-5, "{folder}: {found}, recorded {expected}");
        }
        assert!(found[2] < found[0] && found[0] < found[1], "{folder}: {found:?}");
    }
}

#[test]
fn generate_answers_new_tokens_only_and_the_same_for_the_same_seed() {
    let dir = tiny_model("llama");
    let generate = |extra: &[&str]| {
        let mut command = zofo();
        command.args(["generate", "--json", "--prompt", "w5 w42 w79", "--max-tokens", "6", "--model"]).arg(dir.path());
        let output = run(command.args(extra));
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
        json(&output)
    };
    let greedy = generate(&[]);
    let tokens: Vec<u64> = greedy["tokens"].as_array().expect("tokens").iter().filter_map(Value::as_u64).collect();
    assert!(!tokens.is_empty() && tokens.len() <= 6 && !tokens.contains(&2), "2 is the end: {greedy}");
    let words: Vec<String> = tokens.iter().map(|token| format!("w{token}")).collect();
    assert_eq!(
        greedy["text"].as_str().map(|text| text.split_whitespace().collect::<Vec<_>>()),
        Some(words.iter().map(|w| &**w).collect())
    );
    let hot = ["--temperature", "1.5", "--top-k", "40", "--top-p", "0.95", "--seed"];
    let drawn = |seed: &str| generate(&[&hot[..], &[seed]].concat())["tokens"].clone();
    assert_eq!(drawn("1"), drawn("1"));
    assert!((2..9).any(|seed| drawn(&seed.to_string()) != drawn("1")));
}

#[test]
fn perplexity_is_the_exponential_of_the_mean_loss() {
    let dir = tiny_model("qwen2");
    let data = dir.path().join("texts.jsonl");
    fs::write(&data, "{\"text\": \"w5 w42 w79 w20\"}\n{\"text\": \"w1\"}\n{\"text\": \"w9 w9 w9\"}\n").expect("a file");
    let mut command = zofo();
    command.args(["evaluate", "--json", "--task", "perplexity", "--context", "4", "--model"]).arg(dir.path());
    let answer = json(&run(command.arg("--data").arg(&data)));
    let number = |field: &str| answer[field].as_f64().unwrap_or_else(|| panic!("{field} in {answer}"));
    assert_eq!((number("count"), number("examples"), &answer["metric"]), (5.0, 3.0, &Value::from("perplexity")));
    assert_eq!(number("value"), number("loss").exp());
    let [low, high] = [0, 1].map(|i| answer["ci95"][i].as_f64().expect("a bound"));
    assert!(low < number("value") && number("value") < high, "{answer}");
}

#[test]
fn inspect_and_list_name_what_there_is() {
    let output = run(zofo().args(["inspect", "--json"]).arg(golden("llama-sharded")));
    let facts = json(&output);
    assert_eq!(
        (&facts["family"], &facts["layers"], &facts["dtypes"]["F32"]),
        (&"llama".into(), &2.into(), &facts["weight_bytes"])
    );
    assert_eq!(facts["tensors"].as_array().map(Vec::len), Some(21));
    let families = json(&run(zofo().args(["list", "families", "--json"])))["families"].clone();
    let names: Vec<&str> =
        families.as_array().expect("a list").iter().filter_map(|family| family["name"].as_str()).collect();
    assert_eq!(names, ["bert", "gpt2", "llama", "mistral", "opt", "qwen2", "roberta"]);
    let optimizers = json(&run(zofo().args(["list", "optimizers", "--json"])))["optimizers"].clone();
    let mezo = optimizers.as_array().and_then(|list| list.iter().find(|entry| entry["name"] == "mezo")).expect("mezo");
    let options: Vec<&str> =
        mezo["options"].as_array().expect("options").iter().filter_map(|o| o["name"].as_str()).collect();
    assert!(["lr", "epsilon", "queries"].iter().all(|name| options.contains(name)), "{options:?}");
}

#[test]
fn a_model_that_cannot_be_used_is_an_error_that_says_why() {
    let dir = tiny_model("llama");
    let failure = |arguments: &[&str]| {
        let output = run(zofo().args(arguments).args(["--json", "--model"]).arg(dir.path()));
        (code(&output), json(&output)["error"]["message"].as_str().expect("a message").to_owned())
    };
    let config = dir.path().join("config.json");
    let sound = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, sound.replace("\"llama\"", "\"mamba\"")).expect("a file");
    let (exit, message) = failure(&["generate", "--prompt", "w1"]);
    assert!(
        exit == 1 && message.contains("model_type is mamba, which is not supported; supported: bert, gpt2"),
        "{message}"
    );
    fs::write(&config, sound.replace("56", "57")).expect("a file");
    let (exit, message) = failure(&["generate", "--prompt", "w1"]);
    assert!(exit == 1 && message.contains("has shape [56, 32], expected [57, 32]"), "{message}");
    fs::write(&config, &sound).expect("a file");
    let (exit, message) = failure(&["generate", "--prompt", "w1", "--chat"]);
    assert!(exit == 1 && message.contains("chat template"), "{message}");
    fs::remove_file(dir.path().join("model.safetensors")).expect("a file");
    let (exit, message) = failure(&["generate", "--prompt", "w1"]);
    assert!(exit == 1 && message.contains("neither model.safetensors nor"), "{message}");
}

#[test]
fn a_task_file_is_scored_with_its_interval_and_an_unknown_task_names_the_nearest() {
    let dir = tiny_model("opt");
    let task = dir.path().join("which.toml");
    let definition = "about = \"Which word follows?\"\nsource = \"none\"\ntemplate = \"{{ words }}\"\n\
                      [label]\nfield = \"label\"\nnames = [\"a\", \"b\"]\n[candidates]\ntexts = [\" w11\", \" w12\"]\n";
    fs::write(&task, definition).expect("a task");
    let data = dir.path().join("rows.jsonl");
    let row = |i: usize| format!("{{\"words\": \"w{} w{}\", \"label\": {}}}\n", 20 + i, 50 + 2 * i, i % 2);
    fs::write(&data, (0..20).map(row).collect::<String>()).expect("rows");
    let evaluate = |task: &str| {
        let mut command = zofo();
        command.args(["evaluate", "--json", "--task", task, "--model"]).arg(dir.path());
        run(command.arg("--data").arg(&data))
    };
    let answer = json(&evaluate(task.to_str().expect("UTF-8")));
    let number = |field: &str| answer[field].as_f64().unwrap_or_else(|| panic!("{field} in {answer}"));
    assert_eq!((number("count"), &answer["metric"]), (20.0, &Value::from("accuracy")));
    let [low, high] = [0, 1].map(|i| answer["ci95"][i].as_f64().expect("a bound"));
    assert!(low < number("value") && number("value") < high && number("loss") > 0.0, "{answer}");
    let unknown = evaluate("sst-2");
    assert_eq!(code(&unknown), 2);
    assert!(json(&unknown)["error"]["message"].as_str().expect("a message").contains("sst2"), "{}", json(&unknown));
}

#[test]
fn tasks_are_listed_by_the_model_they_are_for() {
    let tasks = json(&run(zofo().args(["list", "tasks", "--json"])))["tasks"].clone();
    let tasks = tasks.as_array().expect("a list");
    let of = |model: &str| tasks.iter().filter(|task| task["model"] == model).count();
    assert_eq!((of("causal"), of("masked"), tasks.len()), (13, 14, 27));
}
