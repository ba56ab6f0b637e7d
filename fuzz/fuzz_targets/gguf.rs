//! Any bytes as a GGUF file, or a small model with bytes changed: refused, or every tensor lies in the file and
//! decodes. What the reader accepts, the architecture and the tokenizer answer as well.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use zofo::{
    testing::gguf::GgufBuilder,
    weights::gguf::{Gguf, check},
};

static MODELS: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| ["llama", "qwen2"].map(|architecture| GgufBuilder::tiny(architecture).build()));

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    let file = match kind % 4 {
        0 => bytes.to_vec(),
        1 => [&b"GGUF\x03\0\0\0"[..], bytes].concat(),
        kind => {
            let mut file = MODELS[usize::from(kind - 2)].clone();
            // Three bytes a change: where, and what.
            for change in bytes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % file.len();
                file[at] = change[2];
            }
            file
        }
    };
    if let Ok(gguf) = Gguf::read(&file) {
        let mut total = 0;
        for tensor in gguf.tensors.values() {
            let elements: usize = tensor.shape.iter().product();
            assert_eq!(elements / tensor.blocks.elements() * tensor.blocks.bytes(), tensor.data.len());
            tensor.blocks.decode(tensor.data, &mut vec![0.0; elements]);
            total += tensor.data.len();
        }
        assert!(total <= file.len(), "tensors share bytes");
    }
    let _ = check(&file);
});
