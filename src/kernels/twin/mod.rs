//! The scalar definitions of the kernels: a few plain lines each, generic over the number type.
//!
//! With `f32` a definition gives the bits every instruction set must give (the *twin* of contract
//! C1); with `f64` the same lines are the reference for finite differences.
//! `zofo verify` compares against these on the user's machine, so they are part of the program.

pub mod activation;
pub mod attention;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod matmul;
pub mod norm;
mod real;
pub mod rope;
pub mod round_bf16;
pub mod softmax;
pub mod tensor_train;

pub use real::{Real, canonical_dot, canonical_sum};
