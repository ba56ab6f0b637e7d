//! The definition of the embedding: a table of rows and the ids that select them.

use super::Real;

/// Row `ids[t]` of `table` (`cols` values a row) times `scale`, for every `t`.
pub fn forward<R: Real>(table: &[R], cols: usize, ids: &[u32], scale: R) -> Vec<R> {
    ids.iter().flat_map(|&id| &table[id as usize * cols..][..cols]).map(|&w| w * scale).collect()
}

/// Continues the gradient of the table with every row of `dy`, in order.
pub fn backward<R: Real>(dy: &[R], cols: usize, ids: &[u32], scale: R, dtable: &mut [R]) {
    for (t, &id) in ids.iter().enumerate() {
        for c in 0..cols {
            let sum = &mut dtable[id as usize * cols + c];
            *sum = dy[t * cols + c].mul_add(scale, *sum);
        }
    }
}
