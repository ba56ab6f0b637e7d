//! The commands that open a model, on golden checkpoints.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use super::{code, json, run, zofo};

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
    dump_of(&recorded_inputs(folder, dir.path()), what, folder, extra)
}

fn dump_of(inputs: &Path, what: &str, folder: &str, extra: &[&str]) -> (Vec<usize>, Vec<u8>) {
    let output = inputs.with_file_name("out.safetensors");
    let mut command = zofo();
    command.args(["dump", what, "--json", "--model"]).arg(golden(folder));
    let answer = run(command.arg("--inputs").arg(inputs).arg("--output").arg(&output).args(extra));
    assert_eq!(code(&answer), 0, "{}", String::from_utf8_lossy(&answer.stdout));
    let bytes = fs::read(output).expect("an output");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = tensors.tensor(if what == "slopes" { "slope" } else { what }).expect("the tensor asked for");
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
fn a_dumped_slope_along_the_recorded_gradient_is_its_square_and_along_its_negative_the_negative() {
    for folder in ["opt", "gpt2", "roberta-cls"] {
        let dir = tempfile::tempdir().expect("a directory");
        let single = recorded_inputs(folder, dir.path());
        let bytes = fs::read(&single).expect("the inputs");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let (mut square, mut bound, mut views) = (0.0, 0.0, Vec::new());
        for (name, view) in tensors.iter() {
            let Some(parameter) = name.strip_prefix("direction.") else {
                views.push((name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
                continue;
            };
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
            let (mut sum, mut largest) = (0.0, 0.0_f64);
            for &value in &values {
                square += f64::from(value) * f64::from(value);
                sum += f64::from(value).abs();
                largest = largest.max(f64::from(value).abs());
            }
            // An element of a gradient errs by up to 32 roundings of the largest one, as a logit does
            // (`testing/reference/tests.rs`): in the recorded one, and twice in the slope, whose operands err as well.
            bound += 96.0 / f64::from(1 << 24) * sum * largest;
            for (k, sign) in [(11, -1.0), (3, 1.0)] {
                let data = values.iter().flat_map(|value| (sign * value).to_le_bytes()).collect();
                views.push((format!("direction.{k}.{parameter}"), (view.dtype(), view.shape().to_vec(), data)));
            }
        }
        let views = views.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
        });
        let both = dir.path().join("both.safetensors");
        fs::write(&both, safetensors::serialize(views, None).expect("safetensors")).expect("a file");
        let slopes = |inputs: &Path| -> Vec<f64> {
            let (shape, bytes) = dump_of(inputs, "slopes", folder, &[]);
            assert_eq!(shape, [bytes.len() / 8]);
            bytes.as_chunks().0.iter().map(|&word| f64::from_le_bytes(word)).collect()
        };
        let found = slopes(&single);
        assert!((found[0] - square).abs() <= bound, "{folder}: {} for {square} ± {bound}", found[0]);
        assert_eq!(slopes(&both), [found[0], -found[0]], "{folder}");
    }
}

#[test]
fn dumped_gradients_are_the_recorded_ones_under_the_names_of_the_checkpoint() {
    for folder in ["opt", "gpt2", "llama", "roberta-mlm", "bert-cls"] {
        let dir = tempfile::tempdir().expect("a directory");
        let (inputs, output) = (recorded_inputs(folder, dir.path()), dir.path().join("out.safetensors"));
        let mut command = zofo();
        command.args(["dump", "gradients", "--json", "--model"]).arg(golden(folder));
        let answer = run(command.arg("--inputs").arg(inputs).arg("--output").arg(&output));
        assert_eq!(code(&answer), 0, "{}", String::from_utf8_lossy(&answer.stdout));
        let (found, expected) = (fs::read(output), fs::read(golden(folder).join("golden.safetensors")));
        let [found, expected] = [found, expected].map(|bytes| bytes.expect("a file"));
        let [found, expected] = [&found, &expected].map(|bytes| SafeTensors::deserialize(bytes).expect("safetensors"));
        let values = |view: TensorView<'_>| -> Vec<f32> {
            view.data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
        };
        let largest = |values: &[f32]| values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let recorded: Vec<_> = expected.iter().filter(|(name, _)| name.starts_with("grad.")).collect();
        let of_model = recorded.iter().map(|(_, view)| largest(&values(view.clone()))).fold(0.0, f32::max);
        assert_eq!(json(&answer)["tensors"], 1 + recorded.len(), "{folder}");
        assert_eq!(found.names().len(), 1 + recorded.len(), "{folder}: a tied tensor stands once");
        for (name, view) in recorded {
            let own = found.tensor(name).unwrap_or_else(|error| panic!("{folder}, {name}: {error}"));
            assert_eq!((own.dtype(), own.shape()), (Dtype::F32, view.shape()), "{folder}, {name}");
            let (own, expected) = (values(own), values(view));
            // The bounds of the golden files for an f32 engine; true zeros are compared with the model's largest entry.
            let bound = if largest(&expected) < 1e-6 * of_model { 1e-6 * of_model } else { 1e-4 * largest(&expected) };
            let error = own.iter().zip(&expected).fold(0.0_f32, |error, (x, y)| error.max((x - y).abs()));
            assert!(error <= bound, "{folder}: {name} is off by {error}, at most {bound}");
        }
        let loss = found.tensor("loss").expect("the loss beside them").data();
        let loss = f64::from_le_bytes(loss.try_into().expect("eight bytes"));
        assert!((loss - f64::from(self::recorded(folder, "right.loss")[0])).abs() <= 1e-5, "{folder}: {loss}");
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
    let alone = run(zofo().args(["list", "optimizers", "mezo", "--json"]));
    assert_eq!(json(&alone)["optimizers"], serde_json::json!([mezo]));
    let unknown = run(zofo().args(["list", "optimizers", "mexo", "--json"]));
    let message = json(&unknown)["error"]["message"].to_string();
    assert!(code(&unknown) == 2 && message.contains("mezo"), "{unknown:?}");
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
    assert_eq!((of("causal"), of("masked"), tasks.len()), (14 + 3, 14, 31));
}

#[test]
fn a_task_for_another_head_is_refused_and_a_class_task_scores_a_classifier() {
    let dir = tiny_model("bert-cls");
    let data = dir.path().join("rows.jsonl");
    let row = |i: usize| format!("{{\"sentence\": \"w{} w{}\", \"label\": {}}}\n", 20 + i, 50 + 2 * i, i % 3);
    fs::write(&data, (0..9).map(row).collect::<String>()).expect("rows");
    let task = dir.path().join("kind.toml");
    let evaluate = |definition: &str, name: &str| {
        fs::write(&task, definition).expect("a task");
        let mut command = zofo();
        let name = if name.is_empty() { task.to_str().expect("UTF-8") } else { name };
        command.args(["evaluate", "--json", "--task", name, "--model"]).arg(dir.path());
        run(command.arg("--data").arg(&data))
    };
    let head =
        "about = \"Which kind?\"\nsource = \"none\"\ntemplate = \"{{ sentence }}\"\n[label]\nfield = \"label\"\n";
    let classes = evaluate(&format!("{head}names = [\"a\", \"b\", \"c\"]\n"), "");
    assert_eq!(code(&classes), 0, "{}", json(&classes));
    assert_eq!(json(&classes)["count"], 9);
    let four = evaluate(&format!("{head}names = [\"a\", \"b\", \"c\", \"d\"]\n"), "");
    let message = json(&four)["error"]["message"].as_str().expect("a message").to_owned();
    assert!(code(&four) == 1 && message.contains("label 3"), "{message}");
    let masked = evaluate("", "sst2");
    assert_eq!(code(&masked), 2);
    assert_eq!(
        json(&masked)["error"]["message"],
        "the task sst2 needs a model with a masked-token head; this bert model's is class"
    );
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_their_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let (inputs, output) = (dir.path().join("in.safetensors"), dir.path().join("out.safetensors"));
    let bytes = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let refusal = |mask: [i64; 4], labels: [i64; 4], parameter: &str| {
        let (ids, mask, labels, direction) = (bytes(&[5, 6, 7, 8]), bytes(&mask), bytes(&labels), [0; 128]);
        let view = |bytes, dtype, shape: &[usize]| TensorView::new(dtype, shape.to_vec(), bytes).expect("a tensor");
        let tensors = [
            ("input_ids", view(&ids, Dtype::I64, &[2, 2])),
            ("attention_mask", view(&mask, Dtype::I64, &[2, 2])),
            ("labels", view(&labels, Dtype::I64, &[2, 2])),
            (parameter, view(&direction, Dtype::F32, &[32])),
        ];
        fs::write(&inputs, safetensors::serialize(tensors, None).expect("safetensors")).expect("a file");
        let mut command = zofo();
        command.args(["dump", "loss", "--json", "--epsilon", "1e-3", "--model"]).arg(golden("llama"));
        let answer = run(command.arg("--inputs").arg(&inputs).arg("--output").arg(&output));
        (code(&answer), json(&answer)["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let (sound, norm) = ([1; 4], "direction.model.norm.weight");
    assert_eq!(refusal(sound, [-100, 6, -100, 8], norm), (0, String::new()));
    for (mask, labels, parameter, expected) in [
        ([1, 2, 1, 1], [-100; 4], norm, "2 at [0, 1]; expected 0 or 1"),
        ([1, 0, 1, 1], [-100, 6, -100, 8], norm, "6 at [0, 1]; expected -100 where attention_mask is 0"),
        (sound, [-100, 6, -100, -7], norm, "-7 at [1, 1]; expected an id, or -100"),
        (sound, [-100, 6, -100, 96], norm, "label 96 of token 3"),
        (sound, [-100; 4], norm, "no labelled position"),
        (sound, [-100, 6, -100, 8], "direction.model.none", "names no parameter of the model"),
        (sound, [-100, 6, -100, 8], "other", "0 directions in the file; --epsilon needs exactly one"),
    ] {
        let (exit, message) = refusal(mask, labels, parameter);
        assert!(exit == 1 && message.contains(expected), "{exit}: {message}, expected {expected}");
    }
}
