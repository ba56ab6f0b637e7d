//! The operations of a transformer: `forward`, `tangent` (forward mode) and `backward` (reverse mode)
//! of each, side by side in one file.
//!
//! *What it is not.* No model, no parameters, no directions: kernels see slices and views.
//!
//! *What must stay true* (contract C1). Every kernel gives the bits of its scalar definition in
//! [`twin`], on every instruction set, for every thread count and every split of the batch. Work is
//! split over threads only where no result depends on the split: over rows, or over output columns.
//! A reduction over a row of `n` values pads it with +0 to a multiple of 16, gives element `i` to
//! virtual lane `i % 16` and folds the lanes with [`crate::simd::tree_sum`].
//!
//! Shape legend: `T` rows (tokens of all sequences of the batch), `D` features, `H` heads, `K` key and
//! value heads, `V` vocabulary; `m × k × n` in a matmul. A wrong shape is our bug: it asserts, naming
//! both shapes.

pub mod activation;
pub mod attention;
mod context;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod head;
mod lanewise;
mod mask;
pub mod matmul;
pub mod norm;
pub mod reduce;
pub mod rope;
pub mod round_bf16;
mod rows;
pub mod softmax;
mod storage;
pub mod tensor_train;
pub mod twin;

/// What a [`Context`] is made of, for floors that see kernels and not `simd`.
pub use crate::simd::Isa;
pub use context::{Context, Profile};
pub use mask::Mask;
