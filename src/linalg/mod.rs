//! Small dense linear algebra: what subspace and spectral methods need besides a matmul.
//!
//! *What it is.* Thin QR of tall matrices ([`qr`]), orthogonalisation of a matrix ([`orthogonalize`]),
//! one sweep of block power iteration ([`power_iteration`]), and two decompositions of small symmetric
//! matrices ([`cholesky`], [`symmetric_eigen`]).
//!
//! *What it is not.* A LAPACK: no general eigenvalues, no pivoting, nothing for matrices that are large
//! in both directions except Newton-Schulz, which is made of matmuls.
//!
//! *What must stay true.*
//! - Same bits (contract C1). f64 code uses plain `+ − × ÷ √` and no fused multiply-add: Rust never
//!   contracts, so LLVM may use any vector width and every instruction set still gives the same bits,
//!   and a CPU without FMA pays nothing. f32 products go through [`crate::kernels::matmul::product`].
//!   Work is cut into blocks by the shape alone; threads only decide who computes a block.
//! - f64 is chosen for its range as much as for its precision: the square of any f32 is a normal f64,
//!   so inputs scaled by 1e-30 or 1e30 need no rescaling pass.
//! - Finite input never gives NaN; zero and rank-deficient inputs have the defined results stated at
//!   each function. One non-finite input element makes *every* output element NaN: a direction is
//!   sound as a whole or not at all.
//! - A wrong shape is our bug: it asserts, naming the shapes.

pub mod cholesky;
pub mod orthogonalize;
pub mod power_iteration;
pub mod qr;
mod square;
pub mod symmetric_eigen;
mod tall;

pub use square::Square;

use crate::tensor::{MatMut, MatRef};

/// Whether every element is finite.
fn is_finite(a: MatRef<'_>) -> bool {
    (0..a.rows()).all(|r| a.row(r).iter().all(|x| x.is_finite()))
}

/// The answer to non-finite input.
fn fill_nan(out: MatMut<'_>) {
    out.into_rows().for_each(|row| row.fill(f32::NAN));
}

/// The Frobenius norm, finite for every finite matrix: rows in order, each a [`tall::dot`] with itself.
fn frobenius(a: MatRef<'_>) -> f64 {
    let mut wide = vec![0.0; a.cols()];
    let mut sum = 0.0;
    for r in 0..a.rows() {
        wide.iter_mut().zip(a.row(r)).for_each(|(w, &x)| *w = f64::from(x));
        sum += tall::dot(&wide, &wide);
    }
    sum.sqrt()
}

#[cfg(test)]
mod fixture;
