//! Perturbed weights written out, element by element: the truth that every fused path must equal.

use super::fuse::{Dense, Perturbed};

/// Branch `branch` of a perturbed weight, row-major `[n, k]`: for each term in order,
/// `w = fma(c, z, w)` where the mask lets it and `c` is not 0.
///
/// # Panics
/// If there is no such branch.
pub fn dense(perturbed: &Perturbed<'_>, branch: usize) -> Vec<f32> {
    let weight = perturbed.weight();
    let (rows, cols) = (weight.rows(), weight.cols());
    (0..rows * cols)
        .map(|at| {
            let (row, col) = (at / cols, at % cols);
            perturbed.terms().iter().fold(weight.at(row, col), |w, term| {
                if term.coefficients[branch] == 0.0 || term.mask.is_some_and(|mask| !mask.contains(row, col)) {
                    return w;
                }
                let z = match term.direction {
                    Dense::Noise(noise, law) => noise.at(law, row as u64, col),
                    Dense::Explicit(values) => values.row(row)[col],
                };
                term.coefficients[branch].mul_add(z, w)
            })
        })
        .collect()
}
