//! Perturbed weights written out, element by element: the truth that every fused path must equal, bit for bit but for
//! products with low-rank directions, which are within a bound that the tests derive.

use super::{
    Direction, Displacement, Param, ParamId,
    fuse::{Dense, Perturbed},
};

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
                    Dense::Weights => weight.at(row, col),
                };
                term.coefficients[branch].mul_add(z, w)
            })
        })
        .collect()
}

/// A whole direction, row-major: `z` of a parameter whose values are `values`.
///
/// # Panics
/// If the number of values is not the parameter's.
pub fn direction(direction: &Direction, param: &Param, values: &[f32]) -> Vec<f32> {
    let (elements, cols) = (param.elements(), param.cols());
    assert_eq!(values.len(), elements, "values of {:?} {:?}", param.name(), param.shape());
    match direction {
        Direction::Dense { key, law } => {
            let noise = key.tensor(param.noise_name());
            (0..elements).map(|at| noise.at(*law, (at / cols) as u64, at % cols)).collect()
        }
        Direction::Explicit(z) => {
            assert_eq!(z.len(), elements, "a direction of {:?} {:?}", param.name(), param.shape());
            z.to_vec()
        }
        Direction::LowRank { left, right, rank } => {
            assert_eq!((left.len(), right.len()), (param.rows() * rank, cols * rank), "factors of {:?}", param.name());
            let factors = |at: usize| {
                let (row, col) = (at / cols * rank, at % cols * rank);
                left[row..row + rank].iter().zip(&right[col..col + rank])
            };
            (0..elements).map(|at| factors(at).fold(0.0, |sum, (l, r)| l.mul_add(*r, sum))).collect()
        }
        Direction::Weights => values.to_vec(),
    }
}

/// A whole parameter, displaced: `values` with `w = fma(c, z, w)` for each term that moves it, in order.
///
/// # Panics
/// If the number of values is not the parameter's.
pub fn displaced(values: &[f32], id: ParamId, param: &Param, displacement: &Displacement) -> Vec<f32> {
    displacement.terms.iter().filter_map(|term| term.get(id)).fold(values.to_vec(), |mut displaced, (z, c)| {
        let z = direction(z, param, values);
        displaced.iter_mut().zip(z).for_each(|(w, z)| *w = c.mul_add(z, *w));
        displaced
    })
}
