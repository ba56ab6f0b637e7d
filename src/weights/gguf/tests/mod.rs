//! Imports against what llama.cpp's converter does to a model, decoders against the `gguf` package, and files
//! that lie.

mod container;
mod model;
mod tokenizer;

use super::{BlockType, Gguf, GgufProblem, check};

/// Made by `tests/golden/gguf/make_blocks.py`.
const BLOCKS: &[u8] = include_bytes!("../../../../tests/golden/gguf/blocks.safetensors");

fn problem(file: &[u8]) -> GgufProblem {
    check(file).expect_err("a file that is refused")
}

#[test]
fn every_block_type_decodes_to_the_bits_of_the_python_package() {
    let golden = safetensors::SafeTensors::deserialize(BLOCKS).expect("a sound file");
    for kind in BlockType::ALL {
        let tensor = |part: &str| golden.tensor(&format!("{kind}.{part}")).expect("blocks of every type").data();
        let expected = tensor("values").as_chunks().0.iter().map(|&word| f32::from_le_bytes(word));
        let mut values = vec![f32::NAN; expected.len()];
        kind.decode(tensor("blocks"), &mut values);
        for (at, (value, expected)) in values.into_iter().zip(expected).enumerate() {
            let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
            assert!(same, "{kind}, value {at}: {value} instead of {expected}");
        }
    }
}
