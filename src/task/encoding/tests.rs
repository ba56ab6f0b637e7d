use std::{fs, path::Path, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::task::Place;

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text").join(name)).expect("a golden file")
}

fn tiny(name: &str) -> Tokenizer {
    Tokenizer::from_json(Path::new(name), &golden(&format!("{name}.json"))).expect("a tokenizer")
}

/// No begin of text; `<s>` in front; `<s>` in front and merges across spaces.
static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| tiny("byte_level"));
static SPLIT: LazyLock<Tokenizer> = LazyLock::new(|| tiny("split"));
static BYTE_FALLBACK: LazyLock<Tokenizer> = LazyLock::new(|| tiny("byte_fallback"));
/// `</s>` at the end.
static UNIGRAM: LazyLock<Tokenizer> = LazyLock::new(|| tiny("unigram"));

/// The byte-level tokenizer with roles for its special tokens.
fn with_roles(roles: &str) -> Tokenizer {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("tokenizer.json"), golden("byte_level.json")).expect("a file");
    fs::write(dir.path().join("tokenizer_config.json"), roles).expect("a file");
    Tokenizer::open(dir.path()).expect("a tokenizer")
}

fn with_masked_roles() -> Tokenizer {
    with_roles(r#"{"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}"#)
}

fn example(input: Input) -> Example {
    Example { place: Place { path: Path::new("data.jsonl").into(), line: 7 }, input }
}

fn candidates(prompt: &str, candidates: &[&str]) -> Input {
    let candidates = candidates.iter().map(|&text| text.to_owned()).collect();
    Input::Candidates { prompt: prompt.to_owned(), candidates, gold: vec![0] }
}

fn encode(tokenizer: &Tokenizer, max_tokens: usize, input: Input) -> Result<Encoded, String> {
    Encoder::new(tokenizer, None, max_tokens).encode(&example(input)).map_err(|error| error.to_string())
}

fn sequences(tokenizer: &Tokenizer, max_tokens: usize, input: Input) -> (Vec<Sequence>, usize) {
    match encode(tokenizer, max_tokens, input) {
        Ok(Encoded::Candidates { sequences, shared, .. }) => (sequences, shared),
        other => panic!("{other:?}"),
    }
}

fn sequence(encoded: Result<Encoded, String>) -> Sequence {
    match encoded {
        Ok(Encoded::Text(sequence) | Encoded::Answer { sequence, .. }) => sequence,
        other => panic!("{other:?}"),
    }
}

/// The scored tokens as text.
fn scored(tokenizer: &Tokenizer, sequence: &Sequence) -> String {
    tokenizer.decode(&sequence.ids[sequence.scored.clone()], false).expect("text")
}

#[test]
fn a_token_that_reaches_over_the_end_of_the_prompt_is_scored() {
    // ` t` is a token of the prompt alone, ` terrible` one of the whole: no token more, and yet one is scored.
    let (found, shared) = sequences(&BYTE_LEVEL, 64, candidates("The film was t", &["errible", "he"]));
    assert_eq!(BYTE_LEVEL.encode(" terrible", false).expect("ids").len(), 1);
    assert_eq!([scored(&BYTE_LEVEL, &found[0]), scored(&BYTE_LEVEL, &found[1])], [" terrible", " the"]);
    assert_eq!(shared, found[0].scored.start);
    let lengths =
        ["The film was t", "The film was terrible"].map(|text| BYTE_LEVEL.encode(text, false).expect("ids").len());
    assert_eq!(lengths[0], lengths[1], "a difference of lengths would score nothing");
}

#[test]
fn tokens_that_no_text_stands_for_are_no_part_of_a_candidate() {
    let (found, _) = sequences(&UNIGRAM, 64, candidates("The cat sat", &[" on the mat"]));
    assert_ne!(found[0].ids.last(), UNIGRAM.encode("", true).expect("ids").last(), "the end of text");
    let whole = UNIGRAM.encode("The cat sat on the mat", false).expect("ids");
    assert_eq!(found[0].ids, whole);
}

#[test]
fn candidates_without_a_token_that_can_be_predicted_are_errors() {
    let error = encode(&UNIGRAM, 64, candidates("The cat", &["", " sat"])).expect_err("nothing to score");
    assert_eq!(
        error,
        "data.jsonl:7: the candidate \"\" has no token of its own to score, expected a text that the tokenizer does not drop"
    );
    // Without a begin of text, nothing stands before the first token.
    let alone = encode(&BYTE_LEVEL, 64, candidates("", &["t", " the mat"])).expect_err("nothing to score");
    assert!(alone.contains("the candidate \"t\" has no token"), "{alone}");
    assert_eq!(sequences(&SPLIT, 64, candidates("", &["t"])).0[0].scored, 1..2);
}

proptest! {
    #[test]
    fn scored_tokens_end_behind_the_prompt_and_all_others_within_it(prompt in "\\n[a-e ht\\n]{0,20}", rest in "[a-e ht\\n]{1,8}") {
        for tokenizer in [&*BYTE_LEVEL, &*SPLIT, &*BYTE_FALLBACK] {
            let (found, _) = sequences(tokenizer, 64, candidates(&prompt, &[&rest]));
            let whole = tokenizer.encode_with_offsets(&(prompt.clone() + &rest), true).expect("ids");
            prop_assert_eq!(&found[0].ids, &whole.ids);
            let behind = whole.offsets.iter().position(|range| !range.is_empty() && range.end > prompt.len());
            prop_assert_eq!(found[0].scored.clone(), behind.expect("a token").max(1)..whole.ids.len());
        }
    }

    #[test]
    fn long_inputs_lose_the_left_of_their_prompt_and_keep_the_begin_of_text(
        prompt in "\\n[a-e ]{0,40}", texts in prop::collection::vec(" [a-e]{1,9}", 2..4), max_tokens in 4_usize..40,
    ) {
        for (tokenizer, kept) in [(&*BYTE_LEVEL, 0), (&*SPLIT, 1)] {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (whole, _) = sequences(tokenizer, usize::MAX, candidates(&prompt, &texts));
            let (cut, shared) = sequences(tokenizer, max_tokens, candidates(&prompt, &texts));
            for (whole, cut) in whole.iter().zip(&cut) {
                prop_assert!(cut.ids.len() <= max_tokens && !cut.scored.is_empty() && cut.scored.start >= 1);
                prop_assert_eq!(cut.ids.len() + cut.dropped, whole.ids.len());
                prop_assert_eq!(&cut.ids[..kept], &whole.ids[..kept]);
                prop_assert_eq!(&cut.ids[kept..], &whole.ids[kept + cut.dropped..]);
                let first = whole.scored.start.saturating_sub(cut.dropped).max(1);
                prop_assert_eq!(cut.scored.clone(), first..cut.ids.len());
            }
            prop_assert!(cut.iter().all(|sequence| sequence.ids[..shared] == cut[0].ids[..shared]));
        }
    }

    #[test]
    fn masks_survive_any_cut(before in "[a-e ]{0,40}", after in "[a-e ]{0,40}", max_tokens in 4_usize..40) {
        let tokenizer = &*MASKED;
        let input = |before: &str, after: &str| Input::Mask {
            before: before.to_owned(),
            after: after.to_owned(),
            words: vec!["terrible".to_owned(), "the".to_owned()],
            gold: 1,
        };
        let parts = |max_tokens| match encode(tokenizer, max_tokens, input(&before, &after)) {
            Ok(Encoded::Mask { ids, position, dropped, .. }) => (ids, position, dropped),
            other => panic!("{other:?}"),
        };
        let (whole, mask, _) = parts(usize::MAX);
        let (ids, position, dropped) = parts(max_tokens);
        prop_assert_eq!(ids.len(), whole.len().min(max_tokens));
        prop_assert_eq!(ids.len() + dropped, whole.len());
        prop_assert_eq!([ids[0], ids[position], ids[ids.len() - 1]], [0, 4, 2]);
        prop_assert!(whole[1..mask].ends_with(&ids[1..position]));
        prop_assert!(whole[mask..whole.len() - 1].starts_with(&ids[position..ids.len() - 1]));
        // What stands after the mask loses nothing as long as there is something before it.
        prop_assert!(position == 1 || ids.len() - position == whole.len() - mask);
    }
}

static MASKED: LazyLock<Tokenizer> = LazyLock::new(with_masked_roles);

#[test]
fn answers_are_scored_and_prompts_leave_room_for_them() {
    let input = |max_tokens| Input::Answer {
        prompt: "The cat sat on the mat and the dog".to_owned(),
        answer: " sat in the sun\n".to_owned(),
        golds: Vec::new(),
        max_tokens,
    };
    let Ok(Encoded::Answer { sequence, prompt }) = encode(&SPLIT, 100, input(10)) else { panic!("an answer") };
    assert_eq!(scored(&SPLIT, &sequence), " sat in the sun\n");
    assert_eq!(prompt, sequence.ids[..sequence.scored.start]);
    let Ok(Encoded::Answer { prompt: short, .. }) = encode(&SPLIT, 12, input(7)) else { panic!("an answer") };
    assert_eq!((short.len(), short[0]), (5, prompt[0]));
    assert!(prompt.ends_with(&short[1..]));
    let Ok(Encoded::Answer { prompt: least, .. }) = encode(&SPLIT, 12, input(100)) else { panic!("an answer") };
    assert_eq!(least.len(), 1);
}

#[test]
fn texts_are_learnt_from_their_beginning_to_the_end_of_text() {
    let tokenizer = with_roles(r#"{"eos_token": "</s>"}"#);
    let text = || Input::Text { text: "The cat sat on the mat".to_owned() };
    let whole = sequence(encode(&tokenizer, 100, text()));
    assert_eq!((whole.ids.last(), whole.scored.start), (Some(&2), 1), "nothing stands before the first token");
    let cut = sequence(encode(&tokenizer, 5, text()));
    assert_eq!((&cut.ids[..], cut.scored, cut.dropped), (&whole.ids[..5], 1..5, whole.ids.len() - 5));
    let begun = sequence(encode(&SPLIT, 100, text()));
    assert_eq!(scored(&SPLIT, &begun), "The cat sat on the mat");
    assert!(
        encode(&BYTE_LEVEL, 9, Input::Text { text: String::new() }).expect_err("an error").contains("the text \"\"")
    );
}

#[test]
fn completions_end_with_the_end_of_text_and_only_they_are_scored() {
    let tokenizer = with_roles(r#"{"eos_token": "</s>"}"#);
    let input = || Input::Completion { prompt: "Is it bad?".to_owned(), completion: " Terrible".to_owned() };
    assert_eq!(scored(&tokenizer, &sequence(encode(&tokenizer, 100, input()))), " Terrible</s>");
    assert_eq!(scored(&BYTE_LEVEL, &sequence(encode(&BYTE_LEVEL, 100, input()))), " Terrible");
}

#[test]
fn of_conversations_only_the_last_turn_is_scored() {
    let template = String::from_utf8(golden("templates/chatml.jinja")).expect("text");
    let template = ChatTemplate::from_source(Path::new("chatml.jinja"), &template).expect("a template");
    let turn = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let messages =
        vec![turn("user", "Is it?"), turn("assistant", "No."), turn("user", "Why?"), turn("assistant", "The sun")];
    let asked = template.render(&messages[..3], true).expect("text");
    let whole = template.render(&messages, false).expect("text");
    let encoder = Encoder::new(&BYTE_LEVEL, Some(&template), 1000);
    let found = |input| match encoder.encode(&example(input)) {
        Ok(Encoded::Text(sequence)) => sequence,
        other => panic!("{other:?}"),
    };
    let conversation = found(Input::Conversation { messages: messages.clone() });
    assert_eq!(BYTE_LEVEL.decode(&conversation.ids, false).expect("text"), whole);
    assert_eq!(asked.clone() + &scored(&BYTE_LEVEL, &conversation), whole);
    // With a template, a prompt with its completion is a conversation.
    let pair = Input::Completion { prompt: "Is it?".to_owned(), completion: "No.".to_owned() };
    assert_eq!(found(pair), found(Input::Conversation { messages: messages[..2].to_vec() }));
    let error = encode(&BYTE_LEVEL, 100, Input::Conversation { messages }).expect_err("no template");
    assert!(error.contains("need a model with a chat template"), "{error}");
}

#[test]
fn label_words_are_single_tokens_that_differ() {
    let input = |words: &[&str]| Input::Mask {
        before: "It was".to_owned(),
        after: ".".to_owned(),
        words: words.iter().map(|&word| word.to_owned()).collect(),
        gold: 0,
    };
    let error = |words| encode(&MASKED, 100, input(words)).expect_err("an error");
    let tokens = MASKED.encode(" zebra", false).expect("ids").len();
    assert_eq!(
        error(&["terrible", "zebra"]),
        format!(
            "data.jsonl:7: the label word \"zebra\" is {tokens} tokens of this model, expected one; choose another word"
        )
    );
    assert!(error(&["the", "the"]).contains("\"the\" and \"the\" are the same token"));
    let Ok(Encoded::Mask { words, .. }) = encode(&MASKED, 100, input(&["terrible", "the"])) else { panic!("a mask") };
    let ids = [" terrible", " the"].map(|word| MASKED.encode(word, false).expect("ids"));
    assert_eq!(words, ids.concat());
    let error = encode(&BYTE_LEVEL, 100, input(&["the", "a"])).expect_err("an error");
    assert!(error.contains("the tokenizer has no cls_token"), "{error}");
}

#[test]
fn a_mask_token_in_the_text_is_not_taken_for_ours() {
    let words = vec!["terrible".to_owned(), "the".to_owned()];
    let input = Input::Mask { before: "a <mask> b".to_owned(), after: ".".to_owned(), words, gold: 0 };
    let Ok(Encoded::Mask { ids, position, .. }) = encode(&MASKED, 100, input) else { panic!("a mask") };
    assert_eq!(ids.iter().rposition(|&id| id == 4), Some(position));
    assert_eq!(ids.iter().filter(|&&id| id == 4).count(), 2);
}

#[test]
fn texts_of_a_class_keep_what_encloses_them() {
    let tokenizer = tiny("wordpiece");
    let input = || Input::Class { text: "The cat sat on the mat".to_owned(), classes: 3, gold: 2 };
    let Ok(Encoded::Class { ids: whole, classes: 3, gold: 2, dropped: 0 }) = encode(&tokenizer, 100, input()) else {
        panic!("a class")
    };
    let Ok(Encoded::Class { ids, dropped, .. }) = encode(&tokenizer, 5, input()) else { panic!("a class") };
    assert_eq!((ids.len(), ids[0], dropped), (5, whole[0], whole.len() - 5));
    assert!(whole.ends_with(&ids[1..]));
}
