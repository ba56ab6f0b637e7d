//! Directions and how they meet a weight: the perturbed operand of a matmul, fused and by definition.
//!
//! *What it is.* [`Perturbed`] is a stored weight plus a sum of scaled directions, as an operand that a
//! matmul packs ([`fuse`]); [`materialize`] is the slow truth that every fused path must equal. The
//! parameter table and displacements of whole models will stand here too.
//!
//! *What it is not.* It never writes a weight: probing does not mutate (contract C3).
//!
//! *What must stay true.* A displacement is applied term by term, left to right, one fused multiply-add
//! per element and term; the order is part of contract C1, for probes and updates alike.

pub mod fuse;
pub mod materialize;
#[cfg(test)]
mod tests;

pub use fuse::{Dense, Mask, Perturbed, Term};
