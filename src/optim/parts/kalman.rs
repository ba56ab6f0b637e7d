//! What noisy readings say of a few numbers: the measurement update of a Kalman filter.
//!
//! ```text
//! g ~ N(μ, Σ)                                          before the first reading N(0, σ_p² I)
//! y = dᵀg + ν,  ν ~ N(0, σ² ‖d‖²)                      a reading along d
//! v = Σ d,  K = v / (dᵀv + σ² ‖d‖²)
//! μ ← μ + K (y − dᵀμ),  Σ ← Σ − K vᵀ
//! ```
//!
//! *What it is not.* A filter over time: between readings nothing moves.
//!
//! *What must stay true.* Σ is symmetric to the bit, and no reading makes a variance larger. Readings along axes leave
//! it diagonal, with variances from 0 up.

use crate::linalg::Square;

/// A normal law of a few numbers.
#[derive(Clone, Debug)]
pub struct Posterior {
    mean: Vec<f64>,
    covariance: Square,
}

impl Posterior {
    /// `count` independent numbers around 0, each of this variance.
    pub fn prior(count: usize, variance: f64) -> Self {
        let covariance = Square::from_fn(count, |i, j| if i == j { variance } else { 0.0 });
        Posterior { mean: vec![0.0; count], covariance }
    }

    /// `μ`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The variance of each number.
    pub fn variances(&self) -> impl Iterator<Item = f64> {
        (0..self.mean.len()).map(|i| self.covariance[(i, i)])
    }

    /// The axis of the largest variance, the first of several.
    pub fn widest(&self) -> usize {
        let variance = |axis: usize| self.covariance[(axis, axis)];
        (1..self.mean.len()).fold(0, |widest, axis| if variance(axis) > variance(widest) { axis } else { widest })
    }

    /// What of a reading was not expected, over the length of its direction: `(y − dᵀμ) / ‖d‖`.
    pub fn residual(&self, along: &[f64], reading: f64) -> f64 {
        (reading - dot(along, &self.mean)) / dot(along, along).sqrt()
    }

    /// Takes in a reading along a direction that is not zero, whose noise has the variance `noise` times the square of
    /// the direction's length.
    pub fn absorb(&mut self, along: &[f64], reading: f64, noise: f64) {
        let surprise = reading - dot(along, &self.mean);
        let v: Vec<f64> = (0..along.len()).map(|i| dot(self.covariance.row(i), along)).collect();
        let variance = dot(along, &v) + noise * dot(along, along);
        for (i, gain) in v.iter().map(|v| v / variance).enumerate() {
            self.mean[i] += gain * surprise;
            for (j, v) in v[..=i].iter().enumerate() {
                let covariance = self.covariance[(i, j)] - gain * v;
                (self.covariance[(i, j)], self.covariance[(j, i)]) = (covariance, covariance);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "a direction among as many numbers");
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

#[cfg(test)]
mod tests;
