//! Inner products of whole directions, which several probes of one step need to share what they found.

use rayon::prelude::*;

use super::{Direction, DirectionSet, Param, ParamTable};
use crate::{
    kernels::{Context, matmul::product},
    linalg::Square,
    noise::PANEL_ROWS,
    simd::Isa,
    tensor::{MatMut, MatRef},
};

/// `⟨zᵢ, zⱼ⟩` over all parameters; where a set has no direction its `z` is 0. Every direction is generated once.
///
/// Each block of sixteen rows is summed in f64 over 16 virtual lanes, and a chain runs over the blocks and
/// parameters in order: the same bits for every thread count and instruction set.
///
/// # Panics
/// If a set holds [`Direction::Weights`], which is no direction without the weights, or explicit values of another
/// shape.
pub fn gram(isa: Isa, params: &ParamTable, sets: &[&DirectionSet]) -> Square {
    let mut gram = Square::zeros(sets.len());
    for (id, param) in params.iter() {
        let present: Vec<(usize, &Direction)> =
            sets.iter().enumerate().filter_map(|(i, set)| set.get(id).map(|z| (i, z))).collect();
        if present.is_empty() {
            continue;
        }
        let blocks: Vec<_> = (0..param.rows().div_ceil(PANEL_ROWS)).collect();
        let products: Vec<Vec<f64>> =
            blocks.into_par_iter().map(|block| block_products(isa, param, &present, block)).collect();
        for products in products {
            let mut products = products.into_iter();
            for (at, &(i, _)) in present.iter().enumerate() {
                for (&(j, _), product) in present[..=at].iter().zip(products.by_ref()) {
                    gram[(i, j)] += product;
                }
            }
        }
    }
    Square::from_fn(sets.len(), |i, j| gram[(i.max(j), i.min(j))])
}

/// The products of all pairs within sixteen rows, in the order of a lower triangle.
fn block_products(isa: Isa, param: &Param, present: &[(usize, &Direction)], block: usize) -> Vec<f64> {
    let rows = block * PANEL_ROWS..param.rows().min((block + 1) * PANEL_ROWS);
    let cols = param.cols();
    let directions: Vec<Vec<f32>> = present
        .iter()
        .map(|(_, direction)| match direction {
            Direction::Dense { key, law } => {
                let mut z = vec![0.0; rows.len() * cols];
                let rows = rows.start as u64..rows.end as u64;
                key.tensor(param.noise_name()).fill(isa, *law, rows, 0..cols, &mut z);
                z
            }
            Direction::Explicit(z) => {
                assert_eq!(z.len(), param.elements(), "a direction of {:?} {:?}", param.name(), param.shape());
                z[rows.start * cols..rows.end * cols].to_vec()
            }
            Direction::LowRank { left, right, rank } => {
                let (left, right) = (MatRef::new(left, param.rows(), *rank), MatRef::new(right, cols, *rank));
                let mut z = vec![0.0; rows.len() * cols];
                let out = MatMut::new(&mut z, rows.len(), cols);
                product::nt(&Context::new(isa), left.row_range(rows.clone()), right, false, out);
                z
            }
            Direction::Weights => panic!("{:?} moves along its own values, which no inner product knows", param.name()),
        })
        .collect();
    (0..directions.len())
        .flat_map(|i| (0..=i).map(move |j| (i, j)))
        .map(|(i, j)| dot(&directions[i], &directions[j]))
        .collect()
}

/// `Σ aᵢ·bᵢ` in f64, without fused operations: element `i` in lane `i % 16`, then the lanes in order.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f64::from(a) * f64::from(b);
        }
    }
    lanes.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        direction::materialize,
        noise::{Law, NoiseKey, Role},
        testing::on_threads,
    };

    #[test]
    fn the_gram_matrix_is_that_of_the_materialised_directions_with_the_same_bits_everywhere() {
        let mut params = ParamTable::new();
        let ids = [params.add("w", &[37, 21]), params.add("b", &[19]), params.add("other", &[3, 2])];
        let noise = |probe| Direction::Dense { key: NoiseKey::new(3, 0, Role::Dense, probe), law: Law::Gaussian };
        let explicit = Direction::Explicit((0..19).map(|i| i as f32 - 7.5).collect());
        let factor = |rows: usize| (0..rows * 3).map(|i| (i * 7 % 11) as f32 * 0.3 - 1.4).collect();
        let low_rank = Direction::LowRank { left: factor(37), right: factor(21), rank: 3 };
        let sets = [
            DirectionSet::new([(ids[0], noise(0)), (ids[1], noise(0))]),
            DirectionSet::new([(ids[1], explicit)]),
            DirectionSet::new([(ids[0], noise(1))]),
            DirectionSet::new([(ids[0], low_rank)]),
        ];
        let sets = [&sets[0], &sets[1], &sets[2], &sets[3]];
        let found = gram(Isa::fastest(), &params, &sets);
        for (i, a) in sets.iter().enumerate() {
            for (j, b) in sets.iter().enumerate() {
                let (mut sum, mut magnitude) = (0.0, 0.0);
                for (id, param) in params.iter() {
                    let whole = |set: &DirectionSet| {
                        set.get(id).map(|z| materialize::direction(z, param, &vec![0.0; param.elements()]))
                    };
                    let (Some(a), Some(b)) = (whole(a), whole(b)) else { continue };
                    for (a, b) in a.into_iter().zip(b) {
                        sum += f64::from(a) * f64::from(b);
                        magnitude += (f64::from(a) * f64::from(b)).abs();
                    }
                }
                // Products of two f32 are exact in f64; two sums of fewer than 1000 terms in different orders.
                assert!((found[(i, j)] - sum).abs() <= 2000.0 * f64::EPSILON * magnitude, "{i} {j}");
            }
        }
        for isa in Isa::available() {
            for threads in [1, 3] {
                assert_eq!(on_threads(threads, || gram(isa, &params, &sets)), found, "{isa} {threads}");
            }
        }
    }
}
