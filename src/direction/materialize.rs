//! Perturbed weights written out, element by element: the truth that every fused path must equal, bit for bit but for
//! products with low-rank directions, which are within a bound that the tests derive.

use super::{
    Direction, Displacement, Param, ParamId, RowFn,
    flips::Flips,
    fuse::{Mask, Perturbed, Source},
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
                let direction = term.direction;
                if term.coefficients[branch] == 0.0 || direction.mask.is_some_and(|mask| !mask.contains(row, col)) {
                    return w;
                }
                let z = match direction.source {
                    Source::Noise(noise, law) => noise.at(law, row as u64, col),
                    Source::Explicit(values) => values.row(row)[col],
                    Source::Weights => weight.at(row, col),
                    Source::Drift(anchor) => weight.at(row, col) - anchor.at(row, col),
                    Source::Rows(rule) => element(rule, row, col),
                };
                let z = direction.scale.map_or(z, |scale| z * scale.row(row)[col]);
                term.coefficients[branch].mul_add(z * direction.flips.at(row, col), w)
            })
        })
        .collect()
}

/// A whole direction, row-major: `z` of a parameter whose values are `values`, +0 outside of a mask.
///
/// # Panics
/// If the number of values is not the parameter's, or what the direction holds has not its shape; if there is not one
/// direction but one of each example.
pub fn direction(direction: &Direction, param: &Param, values: &[f32]) -> Vec<f32> {
    elements(direction, param, values).into_iter().map(Option::unwrap_or_default).collect()
}

/// The elements of a direction, `None` where they do not move.
fn elements(direction: &Direction, param: &Param, values: &[f32]) -> Vec<Option<f32>> {
    let (count, rows, cols) = (param.elements(), param.rows(), param.cols());
    assert_eq!(values.len(), count, "values of {:?} {:?}", param.name(), param.shape());
    let every = |z: &dyn Fn(usize, usize) -> f32| (0..count).map(|at| Some(z(at / cols, at % cols))).collect();
    match direction {
        Direction::Dense { key, law } => {
            let noise = key.tensor(param.noise_name());
            every(&|row, col| noise.at(*law, row as u64, col))
        }
        Direction::Explicit(z) => {
            assert_eq!(z.len(), count, "a direction of {:?} {:?}", param.name(), param.shape());
            every(&|row, col| z[row * cols + col])
        }
        Direction::LowRank { left, right, rank } => {
            assert_eq!((left.len(), right.len()), (rows * rank, cols * rank), "factors of {:?}", param.name());
            let factors = |row: usize, col: usize| left[row * rank..][..*rank].iter().zip(&right[col * rank..]);
            every(&|row, col| factors(row, col).fold(0.0, |sum, (l, r)| l.mul_add(*r, sum)))
        }
        Direction::Weights => every(&|row, col| values[row * cols + col]),
        Direction::Drift(anchor) => every(&|row, col| values[row * cols + col] - anchor.weight().at(row, col)),
        Direction::Rows(rule) => every(&|row, col| element(&**rule, row, col)),
        Direction::Scaled { of, scale } => {
            assert_eq!(scale.len(), count, "a scale of {:?} {:?}", param.name(), param.shape());
            let scaled = |(z, scale): (Option<f32>, &f32)| z.map(|z| z * scale);
            elements(of, param, values).into_iter().zip(&**scale).map(scaled).collect()
        }
        Direction::Masked { of, mask } => {
            let mask = Mask::new(mask, rows, cols);
            let masked = |(at, z): (usize, Option<f32>)| z.filter(|_| mask.contains(at / cols, at % cols));
            elements(of, param, values).into_iter().enumerate().map(masked).collect()
        }
        Direction::Flipped { of, rows, cols: columns } => {
            let flips = Flips::new(*rows, *columns, param.noise_name());
            let flipped = |(at, z): (usize, Option<f32>)| z.map(|z| z * flips.at(at / cols, at % cols));
            elements(of, param, values).into_iter().enumerate().map(flipped).collect()
        }
        Direction::PerExample(_) => panic!("the directions of {:?} are those of examples", param.name()),
    }
}

fn element(rule: &dyn RowFn, row: usize, col: usize) -> f32 {
    let mut z = [0.0];
    rule.row(row, col..col + 1, &mut z);
    z[0]
}

/// A whole parameter, displaced: `values` with `w = fma(c, z, w)` for each term that moves it, in order, where its mask
/// lets it.
///
/// # Panics
/// As [`direction`].
pub fn displaced(values: &[f32], id: ParamId, param: &Param, displacement: &Displacement) -> Vec<f32> {
    displacement.terms.iter().filter_map(|term| term.get(id)).fold(values.to_vec(), |mut displaced, (z, c)| {
        let moved = displaced.iter_mut().zip(elements(z, param, values));
        moved.for_each(|(w, z)| *w = z.map_or(*w, |z| c.mul_add(z, *w)));
        displaced
    })
}
