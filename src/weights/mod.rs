//! Checkpoints as they lie on disk: mapped, checked, and lent to kernels tensor by tensor.
//!
//! *What it is.* [`Checkpoint`] opens an unmodified Hugging Face directory, one safetensors file or
//! several behind an index, and answers tensors by name; `header` is our stricter reading of the
//! format, `mapping` the only place that maps a file. [`Export`] writes such a directory, whole or not at
//! all; [`gguf`] makes one of a llama.cpp file. [`Store`] lends what a model is made of, private copies of what is
//! trained among it, in a [`Precision`], and the parameters of [`Adapters`]; [`tuned`] writes down, reads back and names what
//! training made.
//!
//! *What it is not.* It knows no architecture: which tensors there should be, and of which shape, is
//! for `model`. It never reads pickle, and never writes where it reads.
//!
//! *What must stay true.* Files are untrusted: every size is checked before it is used, no allocation
//! follows a declared size, no shard lies outside the directory. A file that changes while it is mapped
//! is noticed ([`Checkpoint::check_unchanged`]), never silently computed with.

mod adapters;
mod anchor;
mod bottleneck;
mod checkpoint;
mod error;
mod export;
pub mod gguf;
pub mod header;
pub mod index;
mod lora;
mod mapping;
mod precision;
mod private;
mod replace;
mod rounding;
mod store;
#[cfg(test)]
mod tests;
pub mod tuned;

pub use adapters::Adapters;
pub use bottleneck::{Bottleneck, BottleneckSizes, Bottlenecks, Place, TrainLayer, core_shapes};
pub use checkpoint::{Checkpoint, Tensor};
pub use error::{HeaderProblem, IndexProblem, SnapshotProblem, WeightsError};
pub use export::{COMPANIONS, Export, TensorPlan, TensorSink};
pub use header::{Entry, StoredType};
pub use lora::{Adapter, Lora};
pub use mapping::{Identity, Mapping};
pub use precision::Precision;
pub use private::Change;
pub use replace::replace_file;
pub use store::{Footprint, Store};
