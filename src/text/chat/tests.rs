//! Renderings against `transformers`' environment (`tests/golden/text`), and templates that misbehave.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ChatTemplate, Date, Message, TemplateProblem, TextError};

const TOKENS: &str = r#""bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>""#;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("a file in it");
    }
    dir
}

fn template(source: &str) -> Result<ChatTemplate, TextError> {
    ChatTemplate::from_source(Path::new("chat_template.jinja"), source)
}

fn render(source: &str) -> Result<String, TextError> {
    template(source)?.render(&[Message { role: "user".into(), content: "Hi".into() }], true)
}

fn problem(source: &str) -> TemplateProblem {
    match render(source).expect_err("a template that fails") {
        TextError::Template { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn every_template_renders_every_conversation_as_the_reference_does() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text");
    let cases: Value =
        serde_json::from_slice(&fs::read(golden.join("conversations.json")).expect("a golden file")).expect("JSON");
    let cases = cases.as_array().expect("a list");
    assert!(cases.len() > 50);
    for case in cases {
        let name = case["template"].as_str().expect("a name");
        let source = fs::read_to_string(golden.join("templates").join(name)).expect("a template");
        let dir = directory(&[("chat_template.jinja", &source), ("tokenizer_config.json", &format!("{{{TOKENS}}}"))]);
        let template = ChatTemplate::open(dir.path()).expect("a template");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let message = |value: &Value| Message { role: text(&value["role"]), content: text(&value["content"]) };
        let messages: Vec<Message> = case["messages"].as_array().expect("a list").iter().map(message).collect();
        let rendered = template.render(&messages, case["add_generation_prompt"] == true);
        match (rendered, &case["error"]) {
            (Ok(rendered), Value::Null) => assert_eq!(rendered, case["text"], "{name} of {}", case["messages"]),
            (Err(TextError::Template { problem: TemplateProblem::Raised { message }, .. }), expected) => {
                assert_eq!(message, *expected, "{name}");
            }
            (other, expected) => panic!("{name}: {other:?}, expected {expected}"),
        }
    }
}

#[test]
fn a_template_is_found_in_each_place_and_the_file_of_its_own_comes_first() {
    let jinja = ("chat_template.jinja", "jinja {{ bos_token }}");
    let config = format!(r#"{{{TOKENS}, "chat_template": "config {{{{ eos_token }}}}"}}"#);
    let list =
        json!({"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "list"}]});
    let list = list.to_string();
    let processor = ("chat_template.json", r#"{"chat_template": "processor"}"#);
    for (files, expected) in [
        (vec![jinja, ("tokenizer_config.json", config.as_str()), processor], "jinja <s>"),
        (vec![("tokenizer_config.json", config.as_str()), processor], "config </s>"),
        (vec![("tokenizer_config.json", list.as_str()), processor], "list"),
        (vec![("tokenizer_config.json", r#"{"chat_template": null}"#), processor], "processor"),
    ] {
        let template = ChatTemplate::open(directory(&files).path()).expect("a template");
        assert_eq!(template.render(&[], false).expect("text"), expected);
    }
}

#[test]
fn a_model_without_a_template_says_so_and_what_to_do() {
    let error = ChatTemplate::open(directory(&[]).path()).expect_err("no template").to_string();
    assert!(
        error.contains("--chat") && error.contains("chat_template.jinja") && error.contains("tokenizer_config.json"),
        "{error}"
    );
    let open = |config: &str| ChatTemplate::open(directory(&[("tokenizer_config.json", config)]).path());
    let error = open(r#"{"chat_template": [{"name": "rag", "template": ""}]}"#).expect_err("no default");
    assert!(matches!(error, TextError::Template { problem: TemplateProblem::NoDefault, .. }), "{error}");
    let error = open(r#"{"chat_template": 7}"#).expect_err("a number").to_string();
    assert!(error.contains("tokenizer_config.json: chat_template is 7"), "{error}");
    let error = template("line one\n{% if %}").expect_err("no condition").to_string();
    assert!(error.contains("chat_template.jinja") && error.contains(":2)"), "{error}");
}

#[test]
fn a_template_that_never_ends_or_writes_without_end_is_stopped() {
    let forever = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
    assert!(matches!(problem(forever), TemplateProblem::OutOfSteps));
    let again = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(matches!(problem(again), TemplateProblem::Failed { .. } | TemplateProblem::OutOfSteps));
    let shout = "{% for a in range(10000) %}{{ 'a' * 10000 }}{% endfor %}";
    assert!(matches!(problem(shout), TemplateProblem::OutputTooLong));
    assert!(matches!(problem("{{ 'a' * 5000000 }}"), TemplateProblem::OutputTooLong));
}

#[test]
fn nesting_as_deep_as_the_steps_allow_does_not_overflow_the_stack() {
    // Sixty lists in each other for little more than sixty steps: some 170,000 in all.
    let (open, close) = ("[".repeat(60), "]".repeat(60));
    let nest = |rounds: usize| {
        format!(
            "{{% set ns = namespace(x=0) %}}{{% for a in range({rounds}) %}}{{% set ns.x = {open}ns.x{close} %}}{{% endfor %}}"
        )
    };
    let found = problem(&nest(100_000));
    assert!(matches!(found, TemplateProblem::OutOfSteps), "{found}");
    for (end, fails) in
        [("done", false), ("{{ ns.x | tojson }}", true), ("{{ ns.x }}", false), ("{{ ns.x == [ns.x] }}", false)]
    {
        let rendered = render(&(nest(2_800) + end));
        assert_eq!(rendered.is_err(), fails, "{end}");
    }
    let open = "(".repeat(100_000);
    let error = template(&format!("{{{{ {open}")).expect_err("too deep");
    assert!(matches!(error, TextError::Template { problem: TemplateProblem::Syntax { .. }, .. }), "{error}");
}

#[test]
fn a_template_reaches_no_file_and_no_clock() {
    for source in ["{% include '/etc/passwd' %}", "{% extends 'tokenizer.json' %}", "{% from 'x' import y %}"] {
        assert!(matches!(problem(source), TemplateProblem::Failed { .. } | TemplateProblem::Syntax { .. }), "{source}");
    }
    assert_eq!(render("{{ strftime_now('%Y-%m-%d') }}").expect("text"), "2024-07-26");
    let template = template("{{ strftime_now('%-d %b %y, %A, %F %%') }}").expect("a template");
    let leap_day = template.with_date(Date { year: 2000, month: 2, day: 29 });
    assert_eq!(leap_day.render(&[], false).expect("text"), "29 Feb 00, Tuesday, 2000-02-29 %");
    let error = render("{{ strftime_now('%Q') }}").expect_err("no such directive").to_string();
    assert!(error.contains("%Q"), "{error}");
}

#[test]
fn a_panic_of_the_template_library_is_a_typed_error() {
    // minijinja 3.0.5 indexes an empty list where Python gives an empty one back.
    let found = problem("{{ [][::-1] }}");
    assert!(matches!(&found, TemplateProblem::Panic { message } if message.contains("index out of bounds")), "{found}");
}

#[test]
fn what_a_template_says_against_a_conversation_is_carried_along() {
    let raised = problem("{% macro f() %}{{ raise_exception('no ' ~ messages[0].role) }}{% endmacro %}{{ f() }}");
    assert!(matches!(&raised, TemplateProblem::Raised { message } if message == "no user"), "{raised}");
}
