//! The definition of one row of the cross-entropy.

use super::Real;
use crate::simd::{VIRTUAL_LANES, math64};

/// A virtual lane: an f32 sum and the sum of the rounding errors it made.
#[derive(Clone, Copy, Default)]
struct Lane<R> {
    sum: R,
    error: R,
}

impl<R: Real> Lane<R> {
    /// Adds `x`, whose own error is `x_error`; `TwoSum` (Knuth, TAOCP 4.2.2) finds the error of the sum.
    fn add(&mut self, x: R, x_error: R) {
        let sum = self.sum + x;
        let from_x = sum - self.sum;
        let error = (self.sum - (sum - from_x)) + (x - from_x);
        self.error = self.error + (error + x_error);
        self.sum = sum;
    }
}

/// The sum of `n` (term, error) pairs over 16 lanes, which are widened and folded by halves in f64.
fn compensated_sum<R: Real>(n: usize, term: impl Fn(usize) -> (R, R)) -> f64 {
    let mut lanes = [Lane::default(); VIRTUAL_LANES];
    for i in 0..n {
        let (x, error) = term(i);
        lanes[i % VIRTUAL_LANES].add(x, error);
    }
    let mut lanes = lanes.map(|lane| lane.sum.to_f64() + lane.error.to_f64());
    let mut width = VIRTUAL_LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

struct Row<R> {
    max: R,
    e: Vec<R>,
    sum: f64,
}

impl<R: Real> Row<R> {
    fn new(logits: &[R]) -> Self {
        let max = logits.iter().fold(R::from_f64(f64::NEG_INFINITY), |max, &z| max.max(z));
        let e: Vec<_> = logits.iter().map(|&z| (z - max).exp()).collect();
        let sum = compensated_sum(e.len(), |i| (e[i], R::default()));
        Row { max, e, sum }
    }
}

/// `−ln softmax(z)[target]`.
pub fn forward<R: Real>(logits: &[R], target: usize) -> f64 {
    let row = Row::new(logits);
    (row.max.to_f64() - logits[target].to_f64()) + math64::ln(row.sum)
}

/// The derivative of [`forward`] along `logits_dot`: `Σ eᵢ żᵢ / Σ eᵢ − ż[target]`.
pub fn tangent<R: Real>(logits: &[R], logits_dot: &[R], target: usize) -> f64 {
    let row = Row::new(logits);
    let weighted = compensated_sum(logits.len(), |i| {
        let product = row.e[i] * logits_dot[i];
        (product, row.e[i].mul_add(logits_dot[i], -product))
    });
    weighted / row.sum - logits_dot[target].to_f64()
}

/// The gradient of `scale` times [`forward`]: `(softmax(z) − onehot(target)) · scale`.
pub fn backward<R: Real>(logits: &[R], target: usize, scale: R) -> Vec<R> {
    let row = Row::new(logits);
    let sum = R::from_f64(row.sum);
    let mut gradient: Vec<_> = row.e.iter().map(|&e| e / sum * scale).collect();
    gradient[target] = R::from_f64((row.e[target].to_f64() - row.sum) / row.sum * scale.to_f64());
    gradient
}
