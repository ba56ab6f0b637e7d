//! Inner products of whole directions, which several probes of one step need to share what they found, and the norm of one
//! parameter's direction.

use rayon::prelude::*;

use super::{
    Direction, DirectionSet, Param, ParamTable,
    dense::widen_rows,
    rows::PartRows,
    thin::{Part, Thin},
};
use crate::{
    kernels::{Context, matmul::product},
    linalg::Square,
    noise::PANEL_ROWS,
    simd::Isa,
    tensor::{MatMut, WeightRef},
};

/// `⟨zᵢ, zⱼ⟩` over all parameters; where a set has no direction its `z` is 0. Every direction is generated once.
///
/// Each block of sixteen rows is summed in f64 over 16 virtual lanes, and a chain runs over the blocks and
/// parameters in order: the same bits for every thread count and instruction set.
///
/// # Panics
/// If a set holds [`Direction::Weights`](super::Direction::Weights) or [`Direction::Drift`](super::Direction::Drift),
/// which are no directions without the weights, or what [`Moves::of`](super::Moves::of) does not take.
pub fn gram(isa: Isa, params: &ParamTable, sets: &[&DirectionSet]) -> Square {
    let mut gram = Square::zeros(sets.len());
    for (id, param) in params.iter() {
        let directions = sets.iter().map(|set| set.get(id)).enumerate();
        let present: Vec<(usize, Part<'_>)> =
            directions.filter_map(|(i, direction)| Some((i, Part::of(direction?, param)))).collect();
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
fn block_products(isa: Isa, param: &Param, present: &[(usize, Part<'_>)], block: usize) -> Vec<f64> {
    let cx = Context::new(isa);
    let rows = block * PANEL_ROWS..param.rows().min((block + 1) * PANEL_ROWS);
    let directions: Vec<Vec<f32>> = present
        .iter()
        .map(|(_, part)| {
            let mut z = vec![0.0; rows.len() * param.cols()];
            match part {
                Part::Dense(direction) if direction.reads_stored() => {
                    panic!("{:?} moves along its own values, which no inner product knows", param.name())
                }
                Part::Dense(direction) => direction.rows(&cx, rows.clone(), &[], &mut z).to_vec(),
                Part::Thin(Thin { left, right }) => {
                    let out = MatMut::new(&mut z, rows.len(), param.cols());
                    product::nt(&cx, left.row_range(rows.clone()), *right, false, out);
                    z
                }
            }
        })
        .collect();
    (0..directions.len())
        .flat_map(|i| (0..=i).map(move |j| (i, j)))
        .map(|(i, j)| dot(&directions[i], &directions[j]))
        .collect()
}

/// `‖z‖` of the direction of a parameter whose values are `stored`, 0 outside of a mask: summed as [`gram`] sums, with the
/// same bits for every thread count and instruction set.
///
/// # Panics
/// If what the direction or `stored` holds has not the parameter's shape, or as [`Moves::of`](super::Moves::of).
pub fn norm(cx: &Context, direction: &Direction, param: &Param, stored: WeightRef<'_>) -> f64 {
    // Signs change no square.
    let (part, cols) = (PartRows::of(Part::of(direction, param).unflipped(), None), param.cols());
    let square = |block: usize| {
        let rows = block * PANEL_ROWS..param.rows().min((block + 1) * PANEL_ROWS);
        let (mut values, mut z) = (Vec::new(), vec![0.0; rows.len() * cols]);
        if part.reads_stored() {
            values.resize(z.len(), 0.0);
            widen_rows(cx, stored, rows.clone(), &mut values);
        }
        let z = part.block(cx, rows, &values, &mut z);
        dot(z, z)
    };
    let blocks: Vec<_> = (0..param.rows().div_ceil(PANEL_ROWS)).collect();
    let squares: Vec<f64> = blocks.into_par_iter().map(square).collect();
    squares.into_iter().fold(0.0, |sum, square| sum + square).sqrt()
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
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use half::bf16;

    use super::*;
    use crate::{
        direction::{
            materialize,
            tests::{elementwise, values},
        },
        testing::on_threads,
    };

    #[test]
    fn the_gram_matrix_is_that_of_the_materialised_directions_with_the_same_bits_everywhere() {
        let mut params = ParamTable::new();
        let ids = [params.add("w", &[37, 21]), params.add("b", &[19]), params.add("other", &[3, 2])];
        let factor = |rows: usize| (0..rows * 3).map(|i| (i * 7 % 11) as f32 * 0.3 - 1.4).collect();
        let low_rank = Direction::LowRank { left: factor(37), right: factor(21), rank: 3 };
        let known = |rows, cols| elementwise(rows, cols, 3).into_iter().filter(|direction| !direction.reads_weights());
        let mut sets: Vec<_> = known(37, 21)
            .zip(known(1, 19))
            .map(|(matrix, vector)| DirectionSet::new([(ids[0], matrix), (ids[1], vector)]))
            .collect();
        sets.push(DirectionSet::new([(ids[0], low_rank)]));
        let sets: Vec<_> = sets.iter().collect();
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

    #[test]
    fn the_norm_is_that_of_the_materialised_direction_with_the_same_bits_everywhere() {
        let mut params = ParamTable::new();
        for (name, shape) in [("w", &[37, 21][..]), ("b", &[19])] {
            let id = params.add(name, shape);
            let (rows, cols) = (params[id].rows(), params[id].cols());
            let stored: Vec<bf16> = values(rows * cols, 8).into_iter().map(bf16::from_f32).collect();
            let widened: Vec<f32> = stored.iter().map(|value| value.to_f32()).collect();
            let stored = WeightRef::bf16(&stored, rows, cols);
            let low_rank =
                Direction::LowRank { left: values(rows * 3, 1).into(), right: values(cols * 3, 2).into(), rank: 3 };
            for direction in elementwise(rows, cols, 3).iter().chain([&low_rank]) {
                let z = materialize::direction(direction, &params[id], &widened);
                let square: f64 = z.iter().map(|z| f64::from(*z) * f64::from(*z)).sum();
                let found = norm(&Context::new(Isa::fastest()), direction, &params[id], stored);
                // Squares of f32 are exact in f64; fewer than 1000 of one sign in two orders, and a root.
                let bound = 1000.0 * f64::EPSILON * square.sqrt();
                assert!((found - square.sqrt()).abs() <= bound, "{name} {direction:?}");
                assert!(square > 0.0 || rows == 1, "the mask of the vector is empty");
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let again = on_threads(threads, || norm(&Context::new(isa), direction, &params[id], stored));
                        assert_eq!(again, found, "{name} {isa} {threads}");
                    }
                }
            }
        }
    }

    #[test]
    fn directions_that_read_the_weights_have_no_inner_products() {
        let mut params = ParamTable::new();
        let id = params.add("w", &[3, 5]);
        for direction in elementwise(3, 5, 1).into_iter().filter(Direction::reads_weights) {
            let set = DirectionSet::new([(id, direction)]);
            let refused = catch_unwind(AssertUnwindSafe(|| gram(Isa::fastest(), &params, &[&set])));
            let message =
                *refused.expect_err("it reads the weights").downcast::<String>().expect("a formatted message");
            assert_eq!(message, "\"w\" moves along its own values, which no inner product knows");
        }
    }
}
