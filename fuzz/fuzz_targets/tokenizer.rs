//! Any bytes, or any edit of a sound file, as `tokenizer.json`: refused, or every text is encoded or refused.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zofo::text::Tokenizer;

mod edited;

/// Small tokenizers of every kind, so that inputs get past the first brace.
const SOUND: [&[u8]; 5] = [
    include_bytes!("../../tests/golden/text/byte_level.json"),
    include_bytes!("../../tests/golden/text/split.json"),
    include_bytes!("../../tests/golden/text/byte_fallback.json"),
    include_bytes!("../../tests/golden/text/unigram.json"),
    include_bytes!("../../tests/golden/text/wordpiece.json"),
];

fuzz_target!(|bytes: &[u8]| {
    let (json, text) = edited::edited(&SOUND, bytes);
    let text = String::from_utf8_lossy(text);
    let Ok(tokenizer) = Tokenizer::from_json(Path::new("tokenizer.json"), &json) else { return };
    let Ok(encoding) = tokenizer.encode_with_offsets(&text, true) else { return };
    assert_eq!(tokenizer.encode(&text, true).expect("as before"), encoding.ids);
    assert_eq!(encoding.offsets.len(), encoding.ids.len());
    assert!(encoding.offsets.iter().all(|range| range.start <= range.end && range.end <= text.len()));
    let mut stream = tokenizer.stream(false);
    for &id in &encoding.ids {
        if stream.push(id).is_err() {
            return;
        }
    }
    let _ = (stream.finish(), tokenizer.decode(&encoding.ids, true));
});
