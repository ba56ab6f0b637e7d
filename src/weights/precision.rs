//! In which type the tensors that are trained are kept.

use serde::Serialize;

use crate::tensor::DType;

/// How trained tensors are kept.
///
/// | precision | bytes a weight | what is computed with |
/// | --- | --- | --- |
/// | `f32` | 4 | an f32 |
/// | `bf16+16` | 4 | the same f32 |
/// | `native` | 2 (4 for a checkpoint in F32) | the checkpoint's type |
///
/// An f32 *is* the 16 bits of a bf16 beside the 16 bits below them. Two planes of 16 bits would take as many bytes as
/// one of 32, and more time to read; so `bf16+16` keeps both halves side by side, for every checkpoint (F16, and F32
/// itself, as the f32 that they widen to). That `f32` takes no more than these 4 bytes is because a copy is read from
/// the file, not through its mapping: nothing of the base stays in memory beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Precision {
    /// f32.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// The checkpoint's 16 bits and the 16 below them: together an exact f32.
    #[serde(rename = "bf16+16")]
    Split,
    /// The checkpoint's own type, rounded at random: unbiased, but at usual rates the rounding moves weights further
    /// than the update does.
    #[serde(rename = "native")]
    Native,
}

impl Precision {
    /// The type in which a tensor that the checkpoint has in `stored` is kept, and in which it is written down.
    pub(super) fn keeps(self, stored: DType) -> DType {
        match self {
            Precision::F32 | Precision::Split => DType::F32,
            Precision::Native => stored,
        }
    }
}
