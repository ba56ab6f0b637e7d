//! The container: what breaks the format, and that it is refused at once.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Gguf, GgufProblem, problem};
use crate::testing::gguf::GgufBuilder;

fn refusal(file: &GgufBuilder) -> GgufProblem {
    let file = file.build();
    let begin = Instant::now();
    let problem = Gguf::read(&file).expect_err("a file that is refused");
    // A sound file of this size takes microseconds; what followed a declared size would take hours.
    assert!(begin.elapsed() < Duration::from_secs(1), "{problem}: refused only after {:?}", begin.elapsed());
    problem
}

fn empty() -> GgufBuilder {
    GgufBuilder::default()
}

#[test]
fn versions_2_and_3_are_read_alike() {
    for version in [2, 3] {
        let file = GgufBuilder::tiny("llama").version(version).build();
        let gguf = Gguf::read(&file).expect("a sound file");
        assert_eq!(gguf.tensors.len(), 11);
        assert_eq!(gguf.tensors["token_embd.weight"].shape, [5, 8]);
        assert_eq!(gguf.metadata.size("llama.block_count").expect("a number"), Some(1));
    }
}

#[test]
fn other_files_versions_and_byte_orders_are_told_apart() {
    let wrong = |file: &[u8]| Gguf::read(file).expect_err("no GGUF file");
    assert!(matches!(wrong(b""), GgufProblem::Magic { found } if found.is_empty()));
    assert!(matches!(wrong(b"PK\x03\x04rest"), GgufProblem::Magic { .. }));
    assert!(matches!(wrong(b"GGUF"), GgufProblem::Truncated { at: 4, .. }));
    assert!(matches!(refusal(&empty().version(1)), GgufProblem::Version { found: 1 }));
    assert!(matches!(refusal(&empty().version(4)), GgufProblem::Version { found: 4 }));
    assert!(matches!(refusal(&empty().version(3_u32.swap_bytes())), GgufProblem::BigEndian));
}

#[test]
fn every_prefix_of_a_file_is_refused() {
    let file = GgufBuilder::tiny("llama").build();
    for length in 0..file.len() {
        assert!(Gguf::read(&file[..length]).is_err(), "a file cut to {length} of {} bytes", file.len());
    }
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused_before_anything_is_allocated() {
    for (at, what) in [(8, "tensors"), (16, "metadata pairs")] {
        for count in [u64::MAX, 1 << 40, 1_000_000] {
            let mut file = GgufBuilder::tiny("llama").build();
            file[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let problem = Gguf::read(&file).expect_err("more than the file can hold");
            assert!(matches!(problem, GgufProblem::Limit { what: w, found, .. } if w == what && found == count));
        }
    }
    let long = (1_u64 << 62).to_le_bytes();
    assert!(matches!(refusal(&empty().pair("k", 8, &long)), GgufProblem::Truncated { .. }));
    let array = |element: u32, count: u64| [&element.to_le_bytes()[..], &count.to_le_bytes(), &[0; 64]].concat();
    for element in 0..=12 {
        let problem = refusal(&empty().pair("k", 9, &array(element, 1 << 61)));
        let nested = matches!(problem, GgufProblem::NestedArray { .. });
        assert_eq!(nested, element == 9, "{problem}");
    }
    // Texts inside an array: a sound count, then a length beyond the file.
    let texts = [&8_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &long, &[0; 64]].concat();
    assert!(matches!(refusal(&empty().pair("k", 9, &texts)), GgufProblem::Truncated { .. }));
    assert!(matches!(refusal(&empty().declare(&"n".repeat(256), &[1], 0, 0)), GgufProblem::Limit { .. }));
}

#[test]
fn a_million_tensors_are_refused_even_if_the_file_is_large_enough() {
    let mut file = vec![0; 64 << 20];
    file[..8].copy_from_slice(b"GGUF\x03\0\0\0");
    file[8..16].copy_from_slice(&1_000_000_u64.to_le_bytes());
    let problem = Gguf::read(&file).expect_err("too many");
    assert!(matches!(problem, GgufProblem::Limit { what: "tensors", limit: 65_536, .. }), "{problem}");
}

#[test]
fn unknown_types_arrays_of_arrays_and_texts_that_are_none_are_refused() {
    assert!(matches!(refusal(&empty().pair("k", 13, &[0; 8])), GgufProblem::ValueType { found: 13, .. }));
    let of = |element: u32| [&element.to_le_bytes()[..], &1_u64.to_le_bytes(), &[0; 8]].concat();
    assert!(matches!(refusal(&empty().pair("k", 9, &of(99))), GgufProblem::ValueType { found: 99, .. }));
    assert!(matches!(refusal(&empty().pair("k", 9, &of(9))), GgufProblem::NestedArray { .. }));
    let text = [&2_u64.to_le_bytes()[..], &[0xc3, 0x28]].concat();
    assert!(matches!(refusal(&empty().pair("k", 8, &text)), GgufProblem::Utf8 { .. }));
}

#[test]
fn a_key_or_tensor_that_stands_twice_is_refused() {
    let twice = empty().u32("k", 1).u32("k", 1);
    assert!(matches!(refusal(&twice), GgufProblem::Duplicate { what: "metadata key", .. }));
    let twice = empty().f32_tensor("t", &[1], &[0.0]).f32_tensor("t", &[1], &[0.0]);
    assert!(matches!(refusal(&twice), GgufProblem::Duplicate { what: "tensor", .. }));
}

#[test]
fn impossible_shapes_and_types_are_refused() {
    let declared = |dims: &[u64], number| refusal(&empty().declare("t", dims, number, 0));
    for dims in [&[1 << 63][..], &[1 << 32, 1 << 32], &[u64::MAX; 4], &[0], &[4, 0], &[]] {
        let problem = declared(dims, 0);
        assert!(matches!(problem, GgufProblem::Dimensions { .. }), "{dims:?}: {problem}");
    }
    // The bytes fit 64 bits; the file has none of them.
    assert!(matches!(declared(&[1 << 61], 0), GgufProblem::Dimensions { .. } | GgufProblem::Offset { .. }));
    assert!(matches!(declared(&[1 << 40], 0), GgufProblem::Offset { .. }));
    assert!(matches!(declared(&[1; 5], 0), GgufProblem::Limit { what: "dimensions", .. }));
    assert!(matches!(declared(&[33], 8), GgufProblem::Dimensions { .. }), "a row of a block and one value");
    let message = declared(&[32], 16).to_string();
    assert!(message.contains("GGML type 16") && message.contains("Q4_K"), "{message}");
}

#[test]
fn tensors_that_overlap_lie_askew_or_end_past_the_file_are_refused() {
    let base = empty().f32_tensor("a", &[16], &[0.0; 16]);
    assert!(matches!(refusal(&base.clone().declare("b", &[8], 0, 32)), GgufProblem::Overlap { .. }));
    assert!(matches!(refusal(&base.clone().declare("b", &[16], 0, 0)), GgufProblem::Overlap { .. }));
    for offset in [4, 33, 64, 1 << 20, u64::MAX, u64::MAX - 31] {
        let problem = refusal(&base.clone().declare("b", &[1], 0, offset));
        assert!(matches!(problem, GgufProblem::Offset { .. }), "{offset}: {problem}");
    }
    for alignment in [0, 3, 48, 1 << 20] {
        let problem = refusal(&base.clone().u32("general.alignment", alignment));
        assert!(matches!(problem, GgufProblem::Value { .. }), "{alignment}: {problem}");
    }
}

#[test]
fn the_alignment_of_the_file_is_honoured() {
    let file = empty().u32("general.alignment", 8).declare("a", &[2], 0, 0).declare("b", &[2], 0, 8);
    let mut file = file.build();
    let data = Gguf::read(&[&file[..], &[0; 32]].concat()).map(|_| ());
    data.expect("room for both");
    // The data begins at a multiple of 8, which the end of the table may be before that of 32.
    file.truncate(file.len().next_multiple_of(8));
    file.extend([1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()));
    let gguf = Gguf::read(&file).expect("two aligned tensors");
    assert_eq!(gguf.tensors["b"].data.as_ptr() as usize - gguf.tensors["a"].data.as_ptr() as usize, 8);
}

proptest! {
    #[test]
    fn any_bytes_behind_a_sound_start_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // Hardly any are accepted: the claim is that none panics.
        let _ = Gguf::read(&[&b"GGUF\x03\0\0\0"[..], &bytes].concat());
    }

    #[test]
    fn a_sound_model_with_bytes_changed_is_refused_or_read_within_the_file(
        architecture in prop::sample::select(vec!["llama", "qwen2"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut file = GgufBuilder::tiny(architecture).build();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(gguf) = Gguf::read(&file) {
            let bytes: usize = gguf.tensors.values().map(|tensor| tensor.data.len()).sum();
            prop_assert!(bytes <= file.len());
            for tensor in gguf.tensors.values() {
                let within = file.as_ptr_range();
                let data = tensor.data.as_ptr_range();
                prop_assert!(within.start <= data.start && data.end <= within.end);
            }
        }
        // Whatever the reader accepts, the architecture and the tokenizer get: they must not panic either.
        let _ = super::check(&file);
    }
}

#[test]
fn messages_say_what_was_found_and_what_to_do() {
    let message = problem(&GgufBuilder::default().text("general.architecture", "mamba").build()).to_string();
    assert!(message.contains("\"mamba\"") && message.contains("gpt2, llama, qwen2"), "{message}");
    let message = problem(&GgufBuilder::default().text("general.architecture", "llama").build()).to_string();
    assert!(message.contains("llama.context_length"), "{message}");
}
