//! Cholesky factor of a small symmetric positive definite matrix; linear systems and log-determinant.
//!
//! *What it is not.* A test for definiteness of matrices that come from arithmetic: those are often
//! semidefinite up to rounding (Gram and covariance matrices of fewer samples than variables), and the
//! jitter policy of [`Cholesky::new`] is there to factor them.

use super::{Square, tall::dot};
use crate::kernels::twin::Real;

/// `A + jitter·I = L·Lᵀ`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cholesky {
    lower: Square,
    jitter: f64,
}

/// The matrix is not positive semidefinite, not even up to rounding.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the matrix [{n}, {n}] is not positive definite: pivot {index} is {pivot:e} after adding {jitter:e} to the diagonal"
)]
pub struct NotPositiveDefinite {
    /// Rows of the matrix.
    pub n: usize,
    /// The first unusable pivot.
    pub index: usize,
    /// Its value.
    pub pivot: f64,
    /// What had been added to the diagonal.
    pub jitter: f64,
}

/// Growth of the jitter between attempts.
const GROWTH: f64 = 16.0;
/// Attempts with jitter: from n·2⁻⁵² to n·2⁻²⁴ of the largest diagonal element, where the noise of f32
/// input ends.
const ATTEMPTS: i32 = 8;

impl Cholesky {
    /// Factors the symmetric matrix `a`, of which the lower triangle is read.
    ///
    /// A pivot is usable if it exceeds `n·2⁻⁵²·aᵢᵢ`, the rounding error of its computation. If one is
    /// not, the factorisation is repeated with `n·2⁻⁵²·max aᵢᵢ` added to the diagonal, then 16 times
    /// that, up to `n·2⁻²⁴·max aᵢᵢ`; [`Cholesky::jitter`] tells what was added. A non-finite element
    /// makes factor, jitter, solutions and log-determinant NaN.
    ///
    /// # Errors
    /// [`NotPositiveDefinite`] if the largest jitter is not enough; the zero matrix is an example.
    pub fn new(a: &Square) -> Result<Self, NotPositiveDefinite> {
        let n = a.n();
        if (0..n).any(|i| a.row(i)[..=i].iter().any(|x| !x.is_finite())) {
            return Ok(Cholesky { lower: Square::from_fn(n, |_, _| f64::NAN), jitter: f64::NAN });
        }
        let largest = (0..n).map(|i| a[(i, i)]).fold(0.0, f64::max);
        let first = noise(n) * largest;
        let mut outcome = factor(a, 0.0);
        for attempt in 0..ATTEMPTS {
            if outcome.is_ok() {
                break;
            }
            outcome = factor(a, first * GROWTH.powi(attempt));
        }
        outcome
    }

    /// The lower triangular factor `L`.
    pub fn lower(&self) -> &Square {
        &self.lower
    }

    /// What was added to every diagonal element: 0 unless the matrix is semidefinite up to rounding.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// Replaces `b` by the solution `x` of `(A + jitter·I)·x = b`.
    ///
    /// # Panics
    /// If `b` does not have `n` values.
    pub fn solve(&self, b: &mut [f64]) {
        let n = self.lower.n();
        assert_eq!(b.len(), n, "a system [{n}, {n}] with a right-hand side of {} values", b.len());
        self.solve_lower(b);
        for i in (0..n).rev() {
            b[i] /= self.lower[(i, i)];
            let (above, below) = b.split_at_mut(i);
            let x = below[0];
            above.iter_mut().zip(self.lower.row(i)).for_each(|(b, l)| *b -= x * l);
        }
    }

    /// Replaces `b` by the solution `x` of `L·x = b`: whitens a sample of covariance `A`.
    ///
    /// # Panics
    /// If `b` does not have `n` values.
    pub fn solve_lower(&self, b: &mut [f64]) {
        let n = self.lower.n();
        assert_eq!(b.len(), n, "a system [{n}, {n}] with a right-hand side of {} values", b.len());
        for i in 0..n {
            let row = self.lower.row(i);
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
    }

    /// ln det (A + jitter·I).
    pub fn log_det(&self) -> f64 {
        (0..self.lower.n()).fold(0.0, |sum, i| sum + 2.0 * Real::ln(self.lower[(i, i)]))
    }
}

/// The rounding error of a pivot, relative to the diagonal element it came from.
fn noise(n: usize) -> f64 {
    n as f64 * f64::EPSILON
}

/// The factor of `a + jitter·I`, row by row.
fn factor(a: &Square, jitter: f64) -> Result<Cholesky, NotPositiveDefinite> {
    let n = a.n();
    let mut lower = Square::zeros(n);
    for i in 0..n {
        for j in 0..i {
            let (above, row) = lower.two_rows_mut(j, i);
            row[j] = (a[(i, j)] - dot(&row[..j], &above[..j])) / above[j];
        }
        let row = lower.row_mut(i);
        let pivot = a[(i, i)] + jitter - dot(&row[..i], &row[..i]);
        if pivot <= noise(n) * a[(i, i)].abs() {
            return Err(NotPositiveDefinite { n, index: i, pivot, jitter });
        }
        row[i] = pivot.sqrt();
    }
    Ok(Cholesky { lower, jitter })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `B·Bᵀ` of `B` `[n, k]`.
    fn covariance(n: usize, k: usize, b: &[f64]) -> Square {
        Square::from_fn(n, |i, j| (0..k).fold(0.0, |sum, l| sum + b[i * k + l] * b[j * k + l]))
    }

    /// `|L·Lᵀ − A − jitter·I| ≤ (n + 1)·2⁻⁵³·√(aᵢᵢaⱼⱼ)` up to second order (Higham, *Accuracy and
    /// Stability*, theorem 10.3); twice that for the sums of this check.
    fn check(a: &Square, cholesky: &Cholesky) {
        let n = a.n();
        let lower = cholesky.lower();
        for i in 0..n {
            for j in 0..=i {
                let product = (0..=j).fold(0.0, |sum, k| sum + lower[(i, k)] * lower[(j, k)]);
                let expected = a[(i, j)] + if i == j { cholesky.jitter() } else { 0.0 };
                let scale = ((a[(i, i)] + cholesky.jitter()) * (a[(j, j)] + cholesky.jitter())).sqrt();
                let bound = 2.01 * (n + 1) as f64 * f64::EPSILON / 2.0 * scale;
                assert!((product - expected).abs() <= bound, "element ({i}, {j}): {expected} became {product}");
            }
            assert!(lower[(i, i)] > 0.0);
            assert!(lower.row(i)[i + 1..].iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn a_known_matrix_has_its_known_factor_solution_and_determinant() {
        let a = Square::from_fn(3, |i, j| [[4.0, 2.0, -2.0], [2.0, 10.0, 2.0], [-2.0, 2.0, 6.0]][i][j]);
        let cholesky = Cholesky::new(&a).unwrap();
        let expected = [[2.0, 0.0, 0.0], [1.0, 3.0, 0.0], [-1.0, 1.0, 2.0]];
        assert_eq!(*cholesky.lower(), Square::from_fn(3, |i, j| expected[i][j]));
        assert_eq!(cholesky.jitter(), 0.0);
        let mut x = [4.0, 14.0, 6.0];
        cholesky.solve(&mut x);
        assert_eq!(x, [1.0, 1.0, 1.0]);
        let mut whitened = [2.0, 4.0, 2.0];
        cholesky.solve_lower(&mut whitened);
        assert_eq!(whitened, [1.0, 1.0, 1.0]);
        // det = (2·3·2)²: three logarithms and three roundings of an ulp each.
        assert!((cholesky.log_det() - 144_f64.ln()).abs() <= 6.0 * f64::EPSILON * 144_f64.ln());
    }

    #[test]
    fn a_semidefinite_matrix_is_factored_with_a_small_reported_jitter() {
        for (n, k) in [(2, 1), (10, 3), (60, 59), (64, 1)] {
            let b: Vec<f64> = (0..n * k).map(|i| ((i * i + 3 * i) % 17) as f64 - 8.0).collect();
            let a = covariance(n, k, &b);
            let cholesky = Cholesky::new(&a).unwrap();
            let largest = (0..n).map(|i| a[(i, i)]).fold(0.0, f64::max);
            assert!(cholesky.jitter() > 0.0 && cholesky.jitter() <= 256.0 * noise(n) * largest, "{cholesky:?}");
            check(&a, &cholesky);
        }
    }

    #[test]
    fn scale_changes_nothing_but_the_scale() {
        let b: Vec<f64> = (0..36).map(|i| f64::from((i * i + 3 * i) % 17) - 8.0).collect();
        let a = covariance(6, 6, &b);
        let one = Cholesky::new(&a).unwrap();
        for scale in [2_f64.powi(-200), 2_f64.powi(200)] {
            let scaled = Cholesky::new(&Square::from_fn(6, |i, j| a[(i, j)] * scale)).unwrap();
            assert_eq!(scaled.lower, Square::from_fn(6, |i, j| one.lower[(i, j)] * scale.sqrt()));
        }
    }

    #[test]
    fn an_indefinite_matrix_is_an_error_that_names_the_pivot() {
        let a = Square::from_fn(3, |i, j| if i != j { 0.0 } else { [1.0, -1.0, 1.0][i] });
        let error = Cholesky::new(&a).unwrap_err();
        assert_eq!((error.n, error.index), (3, 1));
        assert!(error.to_string().contains("pivot 1"), "{error}");
        assert!(Cholesky::new(&Square::zeros(2)).is_err());
        assert!(Cholesky::new(&Square::zeros(0)).is_ok());
    }

    #[test]
    fn one_non_finite_element_makes_everything_nan() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut a = Square::identity(4);
            a[(3, 1)] = bad;
            let cholesky = Cholesky::new(&a).unwrap();
            let mut x = [1.0; 4];
            cholesky.solve(&mut x);
            assert!(cholesky.jitter().is_nan() && cholesky.log_det().is_nan() && x.iter().all(|x| x.is_nan()));
        }
    }

    proptest! {
        #[test]
        fn any_covariance_is_factored_and_its_systems_solved(
            (n, b, x) in (1_usize..20).prop_flat_map(|n| {
                let element = prop_oneof![-1.0..1.0, Just(0.0), -1e-3..1e-3];
                (Just(n), prop::collection::vec(element.clone(), n * n), prop::collection::vec(element, n))
            }),
        ) {
            let a = covariance(n, n, &b);
            let Ok(cholesky) = Cholesky::new(&a) else {
                prop_assert!(a.elements().iter().all(|&x| x == 0.0));
                return Ok(());
            };
            check(&a, &cholesky);
            let mut solution = x.clone();
            cholesky.solve(&mut solution);
            // Backward stable: the residual is at most 4·n·(n + 1)·2⁻⁵³·max|a|·‖x‖₁ (Higham, theorem 10.4).
            let largest = (0..n).map(|i| a[(i, i)]).fold(0.0, f64::max) + cholesky.jitter();
            let size = solution.iter().fold(0.0, |sum, x| sum + x.abs());
            let bound = 4.0 * (n * (n + 1)) as f64 * f64::EPSILON / 2.0 * largest * size + f64::EPSILON;
            for i in 0..n {
                let image = (0..n).fold(cholesky.jitter() * solution[i], |sum, j| sum + a[(i, j)] * solution[j]);
                prop_assert!((image - x[i]).abs() <= bound, "row {}: {} for {}", i, image, x[i]);
            }
        }
    }
}
