//! Trains of cores by definition.

use super::{Real, matmul::product};

/// The cores of a train, each with its `l` and its values `[l, n, r]`.
pub type Cores<'a, R> = &'a [(usize, Vec<R>)];

/// The values of the train.
pub fn forward<R: Real>(cores: Cores<'_, R>) -> Vec<R> {
    let times = |before: Vec<R>, (left, core): &(usize, Vec<R>)| {
        let (rows, cols) = (before.len() / left, core.len() / left);
        let (x, w) = (|i: usize, s: usize| before[i * left + s], |j: usize, s: usize| core[s * cols + j]);
        product((rows, *left, cols), x, w, |_, _| R::default())
    };
    cores[1..].iter().fold(cores[0].1.clone(), times)
}

/// The change of the values along `changes`, one for each core.
pub fn tangent<R: Real>(cores: Cores<'_, R>, changes: &[Vec<R>]) -> Vec<R> {
    let mut change = changes[0].clone();
    for at in 1..cores.len() {
        let (left, core) = &cores[at];
        let (before, moved) = (forward(&cores[..at]), &changes[at]);
        let (rows, cols) = (before.len() / left, core.len() / left);
        let shape = (rows, *left, cols);
        let by_before = product(shape, |i, s| change[i * left + s], |j, s| core[s * cols + j], |_, _| R::default());
        change =
            product(shape, |i, s| before[i * left + s], |j, s| moved[s * cols + j], |i, j| by_before[i * cols + j]);
    }
    change
}

/// The gradient of each core, given that of the values.
pub fn backward<R: Real>(cores: Cores<'_, R>, bar: &[R]) -> Vec<Vec<R>> {
    let [before @ .., (left, core)] = cores else { return Vec::new() };
    if before.is_empty() {
        return vec![bar.to_vec()];
    }
    let (values, cols) = (forward(before), core.len() / left);
    let (rows, zero) = (values.len() / left, |_: usize, _: usize| R::default());
    let of_core = product((*left, rows, cols), |s, i| values[i * left + s], |j, i| bar[i * cols + j], zero);
    let of_before = product((rows, cols, *left), |i, j| bar[i * cols + j], |s, j| core[s * cols + j], zero);
    let mut gradients = backward(before, &of_before);
    gradients.push(of_core);
    gradients
}
