//! The storage types of weights.

use std::fmt;

/// How a weight tensor is stored; arithmetic is f32 (or the profile's) whatever the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32: 8 exponent bits, 7 stored mantissa bits.
    BF16,
    /// IEEE half precision: 5 exponent bits, 10 stored mantissa bits.
    F16,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The spelling of safetensors headers.
        f.write_str(match self {
            DType::F32 => "F32",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
        })
    }
}
