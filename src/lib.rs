//! zofo fine-tunes transformer language models on servers without GPUs.
//!
//! Zeroth-order methods need only forward passes and inference memory; zofo runs them, and hybrids
//! that backpropagate only where it pays, over memory-mapped weights with hand-vectorised kernels
//! whose results are bit-identical on every instruction set and for every thread count.
//! `ARCHITECTURE.md` names the floors and the contracts.

pub mod cli;
pub mod compare;
pub mod direction;
pub mod journal;
pub mod kernels;
pub mod linalg;
pub mod model;
pub mod noise;
pub mod objective;
pub mod optim;
pub mod simd;
pub mod task;
pub mod tensor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod train;
pub mod weights;
