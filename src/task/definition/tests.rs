use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::task::{Input, Row};

const REVIEWS: &str = "
template = 'Review: {{ text }}\\nVerdict: '
[label]
field = 'stars'
[candidates]
texts = ['bad', 'good']
";

fn problem(text: &str) -> String {
    match Task::parse("mine", text) {
        Ok(_) => panic!("a task"),
        Err(problem) => format!("mine.toml{problem}"),
    }
}

fn input(task: &str, row: serde_json::Value) -> Result<Input, String> {
    let task = Task::parse("mine", task).unwrap_or_else(|problem| panic!("mine.toml{problem}"));
    task.example(&Row::from_json(row)).map(|example| example.input).map_err(|error| error.to_string())
}

#[test]
fn a_file_is_a_task_of_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("reviews.toml");
    fs::write(&path, REVIEWS).expect("a file");
    let task = Task::open(&path).expect("a task");
    assert_eq!((task.name(), task.style()), ("reviews", Style::Causal));
    assert_eq!((task.objective(), task.metric()), (Objective::Options, Metric::Accuracy));
    fs::write(&path, "template = 3").expect("a file");
    let error = Task::open(&path).expect_err("no task").to_string();
    assert!(error.ends_with("reviews.toml:1:12: invalid type: integer `3`, expected a string"), "{error}");
    fs::write(&path, b"\xff").expect("a file");
    assert!(Task::open(&path).expect_err("no task").to_string().contains("is not UTF-8"));
    assert!(matches!(Task::open(&dir.path().join("none.toml")), Err(TaskError::Read { .. })));
    fs::write(&path, vec![b'\n'; MAX_DEFINITION as usize + 1]).expect("a file");
    assert!(Task::open(&path).expect_err("no task").to_string().contains("more than 1048576 bytes"));
}

#[test]
fn spaces_at_the_end_of_a_prompt_begin_the_candidates() {
    let expected = Input::Candidates {
        prompt: "Review: Fine.\\nVerdict:".to_owned(),
        candidates: vec![" bad".to_owned(), " good".to_owned()],
        gold: vec![1],
    };
    assert_eq!(input(REVIEWS, json!({"text": "Fine.", "stars": 1})), Ok(expected));
}

#[test]
fn unknown_keys_are_named_with_the_key_that_was_meant() {
    let unknown = problem("template = 'a'\n[candidates]\ntext = ['a', 'b']");
    assert_eq!(unknown, "mine.toml:3:1: unknown field `text`, expected `texts` or `objective`; did you mean `texts`?");
    let variant = problem(&REVIEWS.replace("texts", "objective = 'option'\ntexts"));
    assert!(variant.starts_with("mine.toml:6:13: unknown variant `option`"), "{variant}");
    assert!(variant.ends_with("; did you mean `options`?"), "{variant}");
    assert!(problem("template = 'a'\nxyzzy = 1").ends_with("`mask`"), "nothing is near");
    assert_eq!(problem("template = "), "mine.toml:1:12: string values must be quoted, expected literal string");
}

#[test]
fn a_task_has_one_kind_of_answers() {
    assert!(problem("template = 'a'").starts_with("mine.toml: 0 of the tables [candidates], [choices]"));
    let two = format!("{REVIEWS}\n[mask]\nwords = ['a', 'b']");
    assert!(problem(&two).starts_with("mine.toml: 2 of the tables"));
    assert!(problem("template = 'a'\n[mask]\nwords = ['a', 'b']").contains("no table [label]"));
    assert!(problem("template = 'a'\n[mask]\nwords = ['a']").contains("mask.words has 1 entries"));
    assert!(problem("template = 'a'\n[label]\nfield = 'x'\nnames = ['a']").contains("label.names has 1 entries"));
    let needless =
        format!("{}\n[choices]\neach = 'a'\ntext = 'b'\ngold = 'c'", REVIEWS.replace("[candidates]\ntexts", "#"));
    assert!(problem(&needless).contains("no meaning beside [choices]"));
    let names = REVIEWS.replace("'stars'", "'stars'\nnames = ['a', 'b', 'c']");
    assert_eq!(problem(&names), "mine.toml: label.names has 3 entries, expected 2, one for each answer");
}

#[test]
fn templates_are_checked_when_they_are_read() {
    let broken = problem("template = '{{ text'\n[label]\nfield = 'x'\nnames = ['a', 'b']");
    assert!(broken.starts_with("mine.toml: template: syntax error"), "{broken}");
    let filter = problem("template = 'x'\n[label]\nfield = 'x'\n[candidates]\ntexts = ['a', '{% if %}']");
    assert!(filter.starts_with("mine.toml: candidates.texts[1]: syntax error"), "{filter}");
}

#[test]
fn rows_that_a_template_cannot_use_are_errors_with_their_line() {
    let error = |row| input(REVIEWS, row).expect_err("no example");
    assert_eq!(
        error(json!({"review": "a", "stars": 1})),
        "data.jsonl:7: the fields are [\"review\", \"stars\"]; expected the field \"text\" with a value"
    );
    assert!(error(json!({"text": "a", "stars": 5})).contains("\"stars\" is 5, expected a number from 0 to 1"));
    let operator = REVIEWS.replace("{{ text }}", "{{ text - 1 }}");
    let failed = input(&operator, json!({"text": "a", "stars": 1})).expect_err("no example");
    assert!(failed.starts_with("data.jsonl:7: the template fails: invalid operation"), "{failed}");
}

#[test]
fn answers_may_be_entries_of_a_field_or_words_or_classes() {
    let choices = "
        template = '{{ question }}'\naliases = { options = 'choices' }
        [choices]\neach = 'options'\ntext = ' {{ entry }}'\ngold = 'answer'";
    let row = |gold: &str| json!({"question": "2 + 2?", "choices": ["3", "4"], "answer": gold});
    let Ok(Input::Candidates { candidates, gold, .. }) = input(choices, row("4")) else { panic!("candidates") };
    assert_eq!((candidates, gold), (vec![" 3".to_owned(), " 4".to_owned()], vec![1]));
    assert_eq!(
        input(choices, row("5")).expect_err("not among them"),
        "data.jsonl:7: \"answer\" has \"5\", which is not among the 2 entries of \"choices\""
    );
    let classes = "template = '{{ text }}'\n[label]\nfield = 'kind'\nnames = ['a', 'b']";
    let class = input(classes, json!({"text": " x ", "kind": "b"}));
    assert_eq!(class, Ok(Input::Class { text: " x ".to_owned(), classes: 2, gold: 1 }));
    let task = Task::parse("mine", classes).expect("a task");
    assert_eq!(task.objective(), Objective::Classifier);
    let generation = "template = '{{ q }}'\n[generation]\ngold = 'a'\nanswer = ' {{ entry }}'\nmetric = 'exact-match'\nmax_tokens = 7";
    let task = Task::parse("mine", generation).expect("a task");
    assert_eq!(task.generation(), Some(&Generation { max_tokens: 7, stop: vec!["\n".to_owned()] }));
    assert_eq!(task.metric(), Metric::ExactMatch);
}

proptest! {
    #[test]
    fn no_file_makes_the_parser_panic(text in "\\PC{0,80}", template in "[{}%#a-c|' \\n-]{0,30}") {
        let _ = Task::parse("mine", &text);
        let _ = input_of(&REVIEWS.replace("{{ text }}", &template));
    }
}

fn input_of(task: &str) -> Result<(), DefinitionProblem> {
    let task = Task::parse("mine", task)?;
    let _ = task.example(&Row::from_json(json!({"text": "a", "a": "b", "b": [1, {"c": null}], "stars": 0})));
    Ok(())
}
