//! A matrix with its adapter folded in.
//!
//! *What must stay true.* Every product is exact in f64 and every sum is a chain over the rank ascending, so that the
//! result is rounded once to f32 but for some 2⁻⁵³ a term, and has the same bits everywhere.

use crate::{
    direction::Stored,
    tensor::WeightRef,
    weights::{Adapter, Store},
};

/// Hands on the rows of `W + scale · B A` as `W` is stored.
pub(super) fn merged_rows<E>(
    store: &Store,
    adapter: &Adapter,
    scale: f32,
    mut put: impl FnMut(&[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let [weight, a, b] = [adapter.weight, adapter.a, adapter.b].map(|id| store.weight(id));
    let (rows, cols, rank) = (weight.rows(), weight.cols(), a.rows());
    let at = |matrix: WeightRef<'_>, row, col| f64::from(matrix.at(row, col));
    // A stored row moves along `rank` directions, row `r` of `along`, by the factors of `by`.
    let by = |row: usize, r: usize| match adapter.stored {
        Stored::OutIn => at(b, row, r),
        Stored::InOut => at(a, r, row),
    };
    let along = |r: usize, col: usize| match adapter.stored {
        Stored::OutIn => at(a, r, col),
        Stored::InOut => at(b, col, r),
    };
    let along: Vec<Vec<f64>> = (0..rank).map(|r| (0..cols).map(|col| along(r, col)).collect()).collect();
    let (mut sums, mut out) = (vec![0.0_f64; cols], vec![0.0_f32; cols]);
    for row in 0..rows {
        sums.fill(0.0);
        for (r, along) in along.iter().enumerate() {
            let by = by(row, r);
            sums.iter_mut().zip(along).for_each(|(sum, along)| *sum += by * along);
        }
        for (col, (out, sum)) in out.iter_mut().zip(&sums).enumerate() {
            *out = (at(weight, row, col) + f64::from(scale) * sum) as f32;
        }
        put(&out)?;
    }
    Ok(())
}
