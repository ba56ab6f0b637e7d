//! Derivatives of f64 definitions by central differences, and the adjoint identity: the ground truth of
//! every `tangent` and `backward`.

/// A derivative by finite differences.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// The derivative.
    pub value: f64,
    /// A bound on its error; see [`directional_derivative`].
    pub error: f64,
}

impl Estimate {
    /// Whether `analytic` may be the derivative that was estimated.
    pub fn admits(self, analytic: f64) -> bool {
        (self.value - analytic).abs() <= self.error
    }
}

/// d/dt of every component of `curve(t)` at t = 0, where one evaluation errs by at most `noise` (absolute).
///
/// Central differences D(s) = (f(s) − f(−s)) / 2s = f′ + a·s² + b·s⁴ + … at s = h, h/2, h/4 give two Richardson
/// values R(h) = (4·D(h/2) − D(h)) / 3 = f′ + r·h⁴ + O(h⁶) and R(h/2) = f′ + r·h⁴/16 + O(h⁶). The answer is
/// R(h/2). Its truncation error is R(h/2) − f′ ≈ (R(h) − R(h/2)) / 15; we allow the whole difference, 15 times
/// the leading term, which also covers the higher orders as long as they shrink from h to h/2 at all. D(s)
/// carries at most noise/s, so R(h/2) at most (4·4 + 2)/3 · noise/h = 6·noise/h. With h = 2⁻⁸ and noise ≈ 1e-15 the
/// rounding part is 1.5e-12, and the truncation part for f⁽⁵⁾ ≈ 1 about h⁴/480 ≈ 5e-13: the two are balanced.
pub fn directional_derivative(noise: f64, curve: impl Fn(f64) -> Vec<f64>) -> Vec<Estimate> {
    const H: f64 = 1.0 / 256.0;
    let central = |s: f64| -> Vec<f64> {
        curve(s).into_iter().zip(curve(-s)).map(|(ahead, behind)| (ahead - behind) / (2.0 * s)).collect()
    };
    let [coarse, middle, fine] = [H, H / 2.0, H / 4.0].map(central);
    let richardson = |wide: f64, narrow: f64| (4.0 * narrow - wide) / 3.0;
    coarse
        .into_iter()
        .zip(middle)
        .zip(fine)
        .map(|((coarse, middle), fine)| {
            let (first, value) = (richardson(coarse, middle), richardson(middle, fine));
            Estimate { value, error: (first - value).abs() + 6.0 * noise / H }
        })
        .collect()
}

/// |⟨a, b⟩ − ⟨c, d⟩| in units of its rounding error: at most 1 if the two are equal but for `operations` roundings
/// on the way to each term.
///
/// Every term of an inner product errs by at most `operations`·2⁻⁵³ of its magnitude, and the sum of n of them by a
/// further n·2⁻⁵³ of Σ|terms| (Higham, *Accuracy and Stability*, 2002, eq. 3.4); both sides err, and both magnitudes
/// are taken from the terms themselves.
pub fn adjoint_gap(operations: usize, (a, b): (&[f64], &[f64]), (c, d): (&[f64], &[f64])) -> f64 {
    let products = |a: &[f64], b: &[f64]| -> Vec<f64> {
        assert_eq!(a.len(), b.len(), "an inner product of {} and {} values", a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| a * b).collect()
    };
    let (left, right) = (products(a, b), products(c, d));
    let magnitude: f64 = left.iter().chain(&right).map(|x| x.abs()).sum();
    let unit = (operations + left.len() + right.len()) as f64 * f64::EPSILON / 2.0 * magnitude;
    let gap = (left.iter().sum::<f64>() - right.iter().sum::<f64>()).abs();
    if gap == 0.0 { 0.0 } else { gap / unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivative_of_a_known_curve_lies_within_the_bound_and_the_bound_is_tight() {
        let estimates = directional_derivative(1e-15, |t| vec![(1.0 + t).powi(7), 1.0 / (2.0 + t), t.sin()]);
        for (estimate, exact) in estimates.into_iter().zip([7.0, -0.25, 1.0]) {
            assert!(estimate.admits(exact), "{estimate:?} does not admit {exact}");
            // x⁷ has the largest fifth derivative, 2520: r·h⁴ = 2520·h⁴/480 = 1.2e-9.
            assert!(estimate.error < 3e-9, "{estimate:?}");
            assert!(!estimate.admits(exact * (1.0 + 1e-6)), "{estimate:?} admits a relative error of 1e-6");
        }
    }

    #[test]
    fn a_wrong_adjoint_is_noticed() {
        let (a, b) = ([1.0, 2.0, 3.0], [0.5, -1.0, 0.25]);
        assert!(adjoint_gap(2, (&a, &b), (&b, &a)) <= 1.0);
        assert!(adjoint_gap(2, (&a, &b), (&a, &[0.5, -1.0, 0.250_000_1])) > 1.0);
    }
}
