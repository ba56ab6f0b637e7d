//! Any JSON as a model's configuration, and as changes to a sound one: refused in a short line, or sizes that go
//! together.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use zofo::model::{ArchSpec, Config, ModelError, families};

/// A sound configuration of each family: the fuzzer would have to guess a dozen fields.
const SOUND: [&str; 7] = [
    include_str!("../../tests/golden/models/bert-cls/config.json"),
    include_str!("../../tests/golden/models/gpt2/config.json"),
    include_str!("../../tests/golden/models/llama3-rope-tied/config.json"),
    include_str!("../../tests/golden/models/mistral/config.json"),
    include_str!("../../tests/golden/models/opt-postln-proj/config.json"),
    include_str!("../../tests/golden/models/qwen2/config.json"),
    include_str!("../../tests/golden/models/roberta-mlm/config.json"),
];

fuzz_target!(|bytes: &[u8]| {
    check(spec(bytes));
    let Some((&which, changes)) = bytes.split_first() else { return };
    let Ok(changes) = serde_json::from_slice::<Map<String, Value>>(changes) else { return };
    let sound = SOUND[usize::from(which) % SOUND.len()];
    let mut fields: Map<String, Value> = serde_json::from_str(sound).expect("a sound configuration");
    fields.extend(changes);
    check(spec(Value::Object(fields).to_string().as_bytes()));
});

fn spec(bytes: &[u8]) -> Result<ArchSpec, ModelError> {
    let config = Config::parse(Path::new("config.json"), bytes)?;
    families::read(&config).map(|(spec, _)| spec)
}

fn check(answer: Result<ArchSpec, ModelError>) {
    match answer {
        Err(error) => {
            let message = error.to_string();
            assert!(message.chars().count() < 400 && !message.contains(char::is_control), "{message:?}");
        }
        Ok(spec) => {
            assert!(spec.layers > 0 && spec.attention.heads.is_multiple_of(spec.attention.kv_heads));
            assert!(spec.query_width() >= spec.key_width());
            assert!(spec.rope_table(1).is_none_or(|table| table.head_dim() == spec.attention.head_dim));
        }
    }
}
