//! Storage types, shapes, views and scratch memory: what the kernels read and write.
//!
//! *What it is not.* A tensor type with operations: mathematics lives in `kernels` and `linalg`.
//! All matrices are row-major. *What must stay true*: nothing here owns model weights; views borrow,
//! buffers are scratch.

mod buffer;
mod dtype;
mod sequences;
mod view;
mod workspace;

pub use buffer::{AlignedBuffer, Element};
pub use dtype::DType;
pub use sequences::Sequences;
pub use view::{MatMut, MatRef, WeightRef};
pub use workspace::{Scratch, Workspace};
