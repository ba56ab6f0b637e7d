//! Storage types, shapes, views and memory: what the kernels read and write.
//!
//! *What it is not.* A tensor type with operations: mathematics lives in `kernels` and `linalg`.
//! All matrices are row-major. *What must stay true*: views borrow; memory knows neither shapes nor names.

mod buffer;
mod dtype;
mod sequences;
mod view;
mod workspace;

pub use buffer::{AlignedBuffer, Block, Element};
pub use dtype::DType;
pub use sequences::Sequences;
pub use view::{MatMut, MatRef, WeightRef};
pub use workspace::{Scratch, Workspace};
