//! Any text, or any edit of a sound template, as a chat template: refused, or it renders within its limits.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zofo::text::{ChatTemplate, MAX_TEXT_BYTES, Message};

mod edited;

/// Templates of the wild, and one that uses all there is.
const SOUND: [&[u8]; 6] = [
    include_bytes!("../../tests/golden/text/templates/features.jinja"),
    include_bytes!("../../tests/golden/text/templates/llama3.jinja"),
    include_bytes!("../../tests/golden/text/templates/mistral.jinja"),
    include_bytes!("../../tests/golden/text/templates/qwen2.jinja"),
    include_bytes!("../../tests/golden/text/templates/qwen3.jinja"),
    include_bytes!("../../tests/golden/text/templates/smollm2.jinja"),
];

fuzz_target!(|bytes: &[u8]| {
    let (source, content) = edited::edited(&SOUND, bytes);
    let (source, content) = (String::from_utf8_lossy(&source), String::from_utf8_lossy(content));
    let Ok(template) = ChatTemplate::from_source(Path::new("chat_template.jinja"), &source) else { return };
    let turn = |role: &str| Message { role: role.to_owned(), content: content.clone().into_owned() };
    if let Ok(text) = template.render(&[turn("user"), turn("assistant")], true) {
        assert!(text.len() <= MAX_TEXT_BYTES);
        assert_eq!(template.render(&[turn("user"), turn("assistant")], true).expect("as before"), text);
    }
});
