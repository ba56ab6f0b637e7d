//! The built-in tasks on five rows each, against what `tests/golden/tasks/make_golden.py` makes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    task::{Encoded, Encoder, Example, Input, Objective, Row, read_rows},
    text::Tokenizer,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn expected() -> Value {
    let bytes = fs::read(golden("tasks/expected.json")).expect("a golden file");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn rows(task: &str) -> Vec<Row> {
    let rows = read_rows(&golden(&format!("tasks/{task}.jsonl")), usize::MAX).expect("rows");
    assert_eq!(rows.len(), 5, "{task}");
    rows
}

/// Calls `check` with every row's example of every task of a style, and what is expected of it.
fn for_each_example(style: Style, mut check: impl FnMut(&Task, &Example, &Value)) {
    let expected = expected();
    let of_style = expected[style.to_string()].as_object().expect("tasks");
    let names: BTreeSet<&str> = of_style.keys().map(String::as_str).collect();
    let questions = builtin_tasks().filter(|task| task.format().is_none());
    let tasks: Vec<Task> = questions.filter(|task| task.style() == style).collect();
    assert_eq!(tasks.iter().map(Task::name).collect::<BTreeSet<_>>(), names, "every task has a fixture");
    for task in &tasks {
        for (row, expected) in rows(task.name()).iter().zip(of_style[task.name()].as_array().expect("cases")) {
            let example = task.example(row).unwrap_or_else(|error| panic!("{}: {error}", task.name()));
            check(task, &example, expected);
        }
    }
}

#[test]
fn prompts_candidates_and_right_answers_are_the_reference_ones() {
    for_each_example(Style::Causal, |task, example, expected| {
        let (prompt, candidates, gold) = match &example.input {
            Input::Candidates { prompt, candidates, gold } => (prompt, candidates.clone(), gold.clone()),
            Input::Answer { prompt, answer, .. } => (prompt, vec![answer.clone()], vec![0]),
            other => panic!("{}: {other:?}", task.name()),
        };
        let found = json!({"prompt": prompt, "candidates": candidates, "gold": gold});
        let mut expected = expected.clone();
        expected.as_object_mut().expect("a case").remove("spans");
        if let Value::Number(_) = expected["gold"] {
            expected["gold"] = json!([expected["gold"]]);
        }
        assert_eq!(found, expected, "{} {}", task.name(), example.place);
    });
}

#[test]
fn scored_tokens_are_those_the_reference_counts() {
    for name in ["byte_level", "split", "byte_fallback"] {
        let json = fs::read(golden(&format!("text/{name}.json"))).expect("a tokenizer");
        let tokenizer = Tokenizer::from_json(Path::new(name), &json).expect("a tokenizer");
        let encoder = Encoder::new(&tokenizer, None, 2048);
        for_each_example(Style::Causal, |task, example, expected| {
            let sequences = match encoder.encode(example).expect("tokens") {
                Encoded::Candidates { sequences, shared, .. } => {
                    for sequence in &sequences {
                        assert_eq!(sequence.ids[..shared], sequences[0].ids[..shared]);
                        assert!(shared <= sequence.scored.start);
                    }
                    sequences
                }
                Encoded::Answer { sequence, .. } => vec![sequence],
                other => panic!("{other:?}"),
            };
            let spans: Vec<[usize; 2]> =
                sequences.iter().map(|sequence| [sequence.scored.start, sequence.scored.end]).collect();
            assert_eq!(json!(spans), expected["spans"][name], "{name} {} {}", task.name(), example.place);
            assert!(sequences.iter().all(|sequence| sequence.scored.end == sequence.ids.len()));
        });
    }
}

/// The byte-level tokenizer with every label word as a token, in the layout of `RoBERTa`.
fn masked_tokenizer() -> Tokenizer {
    let mut tokenizer: Value =
        serde_json::from_slice(&fs::read(golden("text/byte_level.json")).expect("a file")).expect("JSON");
    let words: BTreeMap<String, u32> = serde_json::from_value(expected()["words"].clone()).expect("words");
    let added = tokenizer["added_tokens"].as_array_mut().expect("a list");
    let mut words: Vec<(String, u32)> = words.into_iter().collect();
    words.sort_by_key(|&(_, id)| id);
    added.extend(words.iter().map(|(word, id)| {
        json!({"id": id, "content": format!(" {word}"), "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": false})
    }));
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("a file");
    let roles = json!({"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"});
    fs::write(dir.path().join("tokenizer_config.json"), roles.to_string()).expect("a file");
    Tokenizer::open(dir.path()).expect("a tokenizer")
}

#[test]
fn masked_examples_are_the_reference_ones() {
    let tokenizer = masked_tokenizer();
    let encoder = Encoder::new(&tokenizer, None, 512);
    for_each_example(Style::Masked, |task, example, expected| {
        let Encoded::Mask { ids, position, words, gold, dropped } = encoder.encode(example).expect("tokens") else {
            panic!("{}", task.name())
        };
        let found = json!({"ids": ids, "position": position, "words": words, "gold": gold});
        assert_eq!((&found, dropped), (expected, 0), "{} {}", task.name(), example.place);
        assert_eq!(Some(ids[position]), tokenizer.special().mask);
    });
}

#[test]
fn every_task_says_what_it_asks_and_has_at_least_two_answers_or_generates_them() {
    for task in builtin_tasks() {
        assert!(!task.about().is_empty() && !task.source().is_empty(), "{}", task.name());
        assert_eq!(task.generation().is_some(), ["squad", "drop", "gsm8k"].contains(&task.name()), "{}", task.name());
        let by_tokens = ["squad", "drop", "gsm8k", "copa", "record"].contains(&task.name()) || task.format().is_some();
        let objective = match task.style() {
            Style::Masked => Objective::LabelWords,
            Style::Causal if by_tokens => Objective::LanguageModel,
            Style::Causal => Objective::Options,
        };
        assert_eq!(task.objective(), objective, "{}", task.name());
    }
}

#[test]
fn names_are_found_by_style_and_slips_are_named() {
    for task in builtin_tasks() {
        let found = Task::named(task.name(), task.style()).expect("a task");
        assert_eq!((found.name(), found.style(), found.format()), (task.name(), task.style(), task.format()));
    }
    assert!(Task::named("chat", Style::Masked).is_err());
    let slip = Task::named("completion", Style::Causal).expect_err("no task").to_string();
    assert!(slip.contains("did you mean \"completions\"?"), "{slip}");
    assert_eq!(
        Task::named("SST-2", Style::Causal).expect_err("no task").to_string(),
        "there is no task \"SST-2\" for causal models, did you mean \"sst2\"?; `zofo list tasks` names all"
    );
    assert_eq!(
        Task::named("squad", Style::Masked).expect_err("no task").to_string(),
        "there is no task \"squad\" for masked models; `zofo list tasks` names all"
    );
}

#[test]
fn copies_of_a_data_set_with_other_field_names_and_numbers_are_read() {
    let gold = |task: &str, row: Value| {
        let task = Task::named(task, Style::Causal).expect("a task");
        match task.example(&Row::from_json(row)).expect("an example").input {
            Input::Candidates { gold, .. } => gold[0],
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(gold("sst2", json!({"text": "good", "label": "positive"})), 1);
    assert_eq!(gold("boolq", json!({"question": "is it", "passage": "It is.", "answer": true})), 1);
    assert_eq!(gold("trec", json!({"text": "What is CPU ?", "coarse_label": 0})), 2);
    assert_eq!(gold("trec", json!({"text": "Where ?", "label-coarse": 5})), 4);
    assert_eq!(gold("trec", json!({"text": "Where ?", "coarse_label": "LOC"})), 4);
    assert_eq!(gold("rte", json!({"sentence1": "a", "sentence2": "b", "label": "not_entailment"})), 1);
}
