//! How GGML stores values, and back to f32.
//!
//! Rows are cut into blocks of 32 or 256 values that share scales. Every value is `scale · q`, `scale · q + min` or
//! `scale · q − min` with one rounding an operation, in the order of the `gguf` Python package (0.19), whose
//! `dequantize` gives the same bits; llama.cpp's own decoders do too.
//!
//! *What must stay true.* Multiplication and addition are never fused.

use std::fmt;

use half::{bf16, f16};

/// Values of a block of the "K" types.
const K: usize = 256;

/// How a tensor's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "GGML's names of its types")]
pub enum BlockType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    Bf16,
}

impl BlockType {
    /// All types that are decoded.
    pub const ALL: [BlockType; 11] = [
        BlockType::F32,
        BlockType::F16,
        BlockType::Bf16,
        BlockType::Q8_0,
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
    ];

    /// The type that GGML numbers so, if it is decoded.
    pub fn new(number: u32) -> Option<BlockType> {
        BlockType::ALL.into_iter().find(|kind| kind.facts().number == number)
    }

    /// All names, for a message.
    pub(super) fn names() -> String {
        BlockType::ALL.map(|kind| kind.to_string()).join(", ")
    }

    /// Values of a block.
    pub fn elements(self) -> usize {
        self.facts().elements
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.facts().bytes
    }

    fn facts(self) -> Facts {
        let facts = |name, number, elements, bytes| Facts { name, number, elements, bytes };
        match self {
            BlockType::F32 => facts("F32", 0, 1, 4),
            BlockType::F16 => facts("F16", 1, 1, 2),
            BlockType::Q4_0 => facts("Q4_0", 2, 32, 18),
            BlockType::Q4_1 => facts("Q4_1", 3, 32, 20),
            BlockType::Q5_0 => facts("Q5_0", 6, 32, 22),
            BlockType::Q5_1 => facts("Q5_1", 7, 32, 24),
            BlockType::Q8_0 => facts("Q8_0", 8, 32, 34),
            BlockType::Q4K => facts("Q4_K", 12, K, 144),
            BlockType::Q5K => facts("Q5_K", 13, K, 176),
            BlockType::Q6K => facts("Q6_K", 14, K, 210),
            BlockType::Bf16 => facts("BF16", 30, 1, 2),
        }
    }

    /// Decodes whole blocks: `values` has as many values as `bytes` has blocks for.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(bytes.len() / self.bytes() * self.elements(), values.len(), "{self} blocks of other values");
        match self {
            BlockType::F32 => each(bytes, values, |block, [y]| *y = f32::from_le_bytes(*block)),
            BlockType::F16 => each(bytes, values, |block, [y]| *y = f16::from_le_bytes(*block).to_f32()),
            BlockType::Bf16 => each(bytes, values, |block, [y]| *y = bf16::from_le_bytes(*block).to_f32()),
            BlockType::Q8_0 => each(bytes, values, q8_0),
            BlockType::Q4_0 => each(bytes, values, q4_0),
            BlockType::Q4_1 => each(bytes, values, q4_1),
            BlockType::Q5_0 => each(bytes, values, q5_0),
            BlockType::Q5_1 => each(bytes, values, q5_1),
            BlockType::Q4K => each(bytes, values, q4_k),
            BlockType::Q5K => each(bytes, values, q5_k),
            BlockType::Q6K => each(bytes, values, q6_k),
        }
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

/// What GGML fixes about a type.
struct Facts {
    name: &'static str,
    number: u32,
    elements: usize,
    bytes: usize,
}

/// Calls `decode` for every block and its values.
fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (blocks, values) = (bytes.as_chunks().0, values.as_chunks_mut().0);
    blocks.iter().zip(values).for_each(|(block, values)| decode(block, values));
}

/// The half-precision number at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (y, &q) in values.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * scale;
    }
}

/// The unsigned values of a block of 32: low nibbles first, then high ones.
fn nibbles(packed: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| packed[i % 16] >> (i / 16 * 4) & 15)
}

/// The same with a fifth bit: of value `i` the bit `i` of `high`.
fn five_bits(high: &[u8], packed: &[u8]) -> [u8; 32] {
    let low = nibbles(packed);
    std::array::from_fn(|i| low[i] | (high[i / 8] >> (i % 8) & 1) << 4)
}

fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let q = nibbles(&block[2..]);
    *values = q.map(|q| scale * f32::from(q as i8 - 8));
}

fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    *values = nibbles(&block[4..]).map(|q| scale * f32::from(q) + min);
}

fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    *values = five_bits(&block[2..6], &block[6..]).map(|q| scale * f32::from(q as i8 - 16));
}

fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    *values = five_bits(&block[4..8], &block[8..]).map(|q| scale * f32::from(q) + min);
}

/// Scale and minimum, 6 bits each, of the `i`-th 32 values of a `Q4_K` or `Q5_K` block: the first four lie in the low
/// bits of bytes 0 to 7; of the others four bits lie in bytes 8 to 11, two in the high bits of bytes 0 to 7.
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        (packed[i + 4] & 15 | packed[i - 4] >> 2 & 48, packed[i + 4] >> 4 | packed[i] >> 2 & 48)
    };
    (f32::from(scale), f32::from(min))
}

/// A block of `Q4_K` or `Q5_K`, whose fifth bits are in `high`.
fn q45_k(block: &[u8], high: Option<&[u8]>, packed: &[u8], values: &mut [f32; K]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    for (i, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (factor, offset) = scale_and_min(&block[4..16], i);
        let (scale, min) = (scale * factor, min * offset);
        let packed = &packed[i / 2 * 32..][..32];
        for (j, y) in values.iter_mut().enumerate() {
            let fifth = high.map_or(0, |high| high[j] >> i & 1);
            let q = packed[j] >> (i % 2 * 4) & 15 | fifth << 4;
            *y = scale * f32::from(q) - min;
        }
    }
}

fn q4_k(block: &[u8; 144], values: &mut [f32; K]) {
    q45_k(block, None, &block[16..], values);
}

fn q5_k(block: &[u8; 176], values: &mut [f32; K]) {
    q45_k(block, Some(&block[16..48]), &block[48..], values);
}

fn q6_k(block: &[u8; 210], values: &mut [f32; K]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let scale = half_at(rest, 16);
    for (i, y) in values.iter_mut().enumerate() {
        // Halves of 128 values; in each, four runs of 32 take their low bits from two runs of nibbles.
        let (half, run, j) = (i / 128, i / 32 % 4, i % 32);
        let four = low[half * 64 + run % 2 * 32 + j] >> (run / 2 * 4) & 15;
        let two = high[half * 32 + j] >> (run * 2) & 3;
        let q = (four | two << 4) as i8 - 32;
        *y = scale * f32::from(rest[i / 16] as i8) * f32::from(q);
    }
}
