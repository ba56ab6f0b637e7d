//! Any bytes as a safetensors file: refused, or every tensor lies in the file, without overlap or holes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zofo::weights::header;

fuzz_target!(|bytes: &[u8]| {
    // Half of the inputs are headers without their length, which the fuzzer would have to guess.
    let framed = [&(bytes.len() as u64).to_le_bytes(), bytes, &[0; 64]].concat();
    for file in [bytes, &framed] {
        let Ok(tensors) = header::read(file) else { continue };
        let mut ranges: Vec<_> = tensors.into_iter().map(|(_, entry)| (entry.bytes.start, entry.bytes.end)).collect();
        ranges.sort_unstable();
        assert!(ranges.iter().all(|&(start, end)| start < end && end <= file.len()));
        assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0));
    }
});
