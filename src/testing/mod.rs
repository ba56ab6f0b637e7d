//! What the tests of every floor share: bit comparison, awkward inputs, the grid of instruction sets and
//! thread counts, derivatives by finite differences, the naive forward pass of every architecture, examples
//! of every objective, toy worlds for optimizers.
//!
//! *What it is not.* No definitions of kernels (those are `kernels::twin`, part of the program), and nothing
//! that the program calls: compiled only for tests and with the feature `testing`.
//!
//! *What must stay true.* Every tolerance in here is derived beside the code that computes it.

pub mod adapters;
mod bits;
mod everywhere;
pub mod examples;
mod finite_diff;
pub mod gguf;
pub mod origin;
pub mod record;
pub mod reference;
pub mod roofline;
pub mod sequences;
pub mod simd_operations;
#[cfg(test)]
mod strategies;
pub mod worlds;

pub use bits::{assert_same_bits, canonical_bits};
pub use everywhere::{THREAD_COUNTS, everywhere, on_threads};
pub use finite_diff::{Estimate, adjoint_gap, directional_derivative};
#[cfg(test)]
pub(crate) use strategies::{awkward, awkward_values, edge_length, moderate_values};
