//! Directions and how they meet a weight: the perturbed operand of a matmul, fused and by definition.
//!
//! *What it is.* [`ParamTable`] numbers the tensors of a model, a [`Displacement`] is `Σ cᵢ·zᵢ` over some of them,
//! and [`Moves`] is what the displacements of one pass make of one tensor: an operand that a matmul packs
//! ([`fuse`]), a thin product beside it, rows of a table, values of a vector. [`Tangents`] is the same for exact slopes.
//! [`materialize`] is the slow truth that every fused path must equal.
//!
//! *What it is not.* It never writes a weight: probing does not mutate (contract C3).
//!
//! *What must stay true.* A displacement is applied term by term, left to right, one fused multiply-add
//! per element and term; the order is part of contract C1, for probes and updates alike.

mod apart;
mod dense;
pub mod displacement;
mod examples;
mod flips;
pub mod fuse;
mod gram;
pub mod lanes;
pub mod materialize;
pub mod params;
mod rows;
mod tangents;
#[cfg(test)]
mod tests;
mod thin;

pub use displacement::{Anchor, Coefficients, Direction, DirectionSet, Displacement, RowFn, Term};
pub use examples::ExampleRows;
pub use gram::{gram, norm};
pub use lanes::{Moves, Stored};
pub use params::{Param, ParamId, ParamTable};
pub use tangents::Tangents;
