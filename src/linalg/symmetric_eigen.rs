//! Eigenvalues and eigenvectors of a small symmetric matrix: the cyclic Jacobi method.
//!
//! Row by row, every off-diagonal element is rotated to zero until a whole sweep finds nothing left to
//! rotate (Golub and Van Loan, *Matrix Computations*, section 8.5; convergence with the small rotation
//! angle chosen here: Forsythe and Henrici 1960). About 8 sweeps of 6·n³ flops: fast up to n ≈ 256.
//! Chosen over tridiagonal QL for its accuracy and because it is short; where it is called, the Gram
//! matrix before it costs more.

use super::Square;

/// `A = Σ λᵢ·wᵢ·wᵢᵀ` with orthonormal `wᵢ`.
#[derive(Clone, Debug, PartialEq)]
pub struct SymmetricEigen {
    /// Eigenvalues `λ`, largest first.
    pub values: Vec<f64>,
    /// Row `i` is the eigenvector `wᵢ`; its element of largest magnitude (the first such) is positive.
    pub vectors: Square,
}

/// A bound on the sweeps for matrices that round in circles; 5 to 10 are used.
const MAX_SWEEPS: usize = 40;

/// The eigen-decomposition of the symmetric matrix `a`, of which the lower triangle is read.
///
/// Eigenvalues are within about `n·2⁻⁵³·‖A‖_F`, vectors orthonormal to about `n·2⁻⁵²` per element. Equal
/// eigenvalues give some fixed basis of their space; the zero matrix gives the identity. A non-finite
/// element makes everything NaN.
pub fn symmetric_eigen(a: &Square) -> SymmetricEigen {
    let n = a.n();
    let largest = (0..n)
        .flat_map(|i| &a.row(i)[..=i])
        .fold(0.0, |most: f64, x| if *x == 0.0 { most } else { join(most, x.abs()) });
    if !largest.is_finite() {
        return SymmetricEigen { values: vec![f64::NAN; n], vectors: Square::from_fn(n, |_, _| f64::NAN) };
    }
    // Divided by a power of two, squares of elements neither overflow nor vanish.
    let unit = power_of_two_near(largest);
    let mut work = Square::from_fn(n, |i, j| a[(i.max(j), i.min(j))] / unit);
    let mut vectors = Square::identity(n);
    let norm = work.elements().iter().fold(0.0, |sum, x| sum + x * x).sqrt();
    // All elements left below this together change no eigenvalue by more than 2⁻⁵³·‖A‖_F.
    let negligible = f64::EPSILON / 2.0 * norm / n.max(1) as f64;
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                if work[(p, q)].abs() > negligible {
                    rotate(&mut work, &mut vectors, p, q);
                    rotated = true;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| work[(j, j)].total_cmp(&work[(i, i)]));
    let sign = |row: &[f64]| {
        let largest = row.iter().fold(0.0, |best: f64, &x| if x.abs() > best.abs() { x } else { best });
        1.0_f64.copysign(largest)
    };
    let signs: Vec<_> = order.iter().map(|&i| sign(vectors.row(i))).collect();
    SymmetricEigen {
        values: order.iter().map(|&i| work[(i, i)] * unit).collect(),
        vectors: Square::from_fn(n, |i, j| signs[i] * vectors[(order[i], j)]),
    }
}

/// Larger of two magnitudes, NaN if either is.
fn join(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// A power of two within a factor of two of `x` > 0 wherever its reciprocal is normal; 1 for zero.
fn power_of_two_near(x: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff << 52;
    let power = f64::from_bits(x.to_bits() & EXPONENT);
    if x == 0.0 { 1.0 } else { power.clamp(f64::MIN_POSITIVE, f64::MAX) }
}

/// The rotation of the plane (`p`, `q`) that makes element (`p`, `q`) of `a` zero, applied to both sides
/// of `a` and to the rows of `vectors`.
fn rotate(a: &mut Square, vectors: &mut Square, p: usize, q: usize) {
    let (app, apq, aqq) = (a[(p, p)], a[(p, q)], a[(q, q)]);
    // tan of the smaller of the two angles; θ may overflow, then t is 0 and nothing turns.
    let theta = (aqq - app) / (2.0 * apq);
    let t = 1.0_f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    turn(a.two_rows_mut(p, q), c, s);
    turn(vectors.two_rows_mut(p, q), c, s);
    for k in 0..a.n() {
        (a[(k, p)], a[(k, q)]) = (a[(p, k)], a[(q, k)]);
    }
    (a[(p, p)], a[(q, q)]) = (app - t * apq, aqq + t * apq);
    (a[(p, q)], a[(q, p)]) = (0.0, 0.0);
}

/// `(x, y)` becomes `(c·x − s·y, s·x + c·y)`.
fn turn((xs, ys): (&mut [f64], &mut [f64]), c: f64, s: f64) {
    for (x, y) in xs.iter_mut().zip(ys) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything promised of finite input, at `c·n·2⁻⁵³·‖A‖_F`. One rotation errs by a few units per
    /// element it touches and an element is touched by 2·n rotations a sweep: with the 10 sweeps used at
    /// most and random signs √(20·n)·4 < 40·√n units; the sums of this check add n. c = 64 covers n ≥ 1.
    fn check(a: &Square) {
        let n = a.n();
        let SymmetricEigen { values, vectors } = symmetric_eigen(a);
        let norm = a.elements().iter().fold(0.0_f64, |sum, x| sum.hypot(*x));
        let bound = 64.0 * n as f64 * f64::EPSILON / 2.0;
        assert!(values.is_sorted_by(|x, y| x >= y), "{values:?}");
        for i in 0..n {
            for j in 0..n {
                let gram = (0..n).fold(0.0, |sum, k| sum + vectors[(i, k)] * vectors[(j, k)]);
                assert!((gram - f64::from(u8::from(i == j))).abs() <= bound, "wᵢ·wⱼ = {gram} for {i}, {j}");
                let sum = (0..n).fold(0.0, |sum, k| {
                    sum + values[k] / norm.max(f64::MIN_POSITIVE) * vectors[(k, i)] * vectors[(k, j)]
                });
                let expected = a[(i.max(j), i.min(j))] / norm.max(f64::MIN_POSITIVE);
                assert!((sum - expected).abs() <= bound, "element ({i}, {j}): {expected} became {sum}");
            }
            let largest = vectors.row(i).iter().fold(0.0, |best: f64, &x| if x.abs() > best.abs() { x } else { best });
            assert!(largest > 0.0, "eigenvector {i} has a negative largest element");
        }
    }

    fn symmetric(n: usize, elements: &[f64]) -> Square {
        Square::from_fn(n, |i, j| elements[i.max(j) * n + i.min(j)])
    }

    #[test]
    fn the_second_difference_matrix_has_its_known_eigenvalues() {
        // 2 on the diagonal, −1 beside it: λⱼ = 4·sin²(jπ/(2(n + 1))); std's sine errs by an ulp.
        for n in [1, 2, 3, 50, 130] {
            let a = Square::from_fn(n, |i, j| match i.abs_diff(j) {
                0 => 2.0,
                1 => -1.0,
                _ => 0.0,
            });
            check(&a);
            let values = symmetric_eigen(&a).values;
            for (i, value) in values.iter().enumerate() {
                let angle = (n - i) as f64 * std::f64::consts::FRAC_PI_2 / (n + 1) as f64;
                assert!((value - 4.0 * angle.sin().powi(2)).abs() <= 64.0 * n as f64 * f64::EPSILON);
            }
        }
    }

    #[test]
    fn equal_eigenvalues_zero_and_extreme_scales_are_decomposed() {
        for a in [
            Square::zeros(4),
            Square::identity(5),
            Square::from_fn(6, |_, _| 1.0),
            Square::from_fn(6, |i, j| if i + j == 5 { 1.0 } else { 0.0 }),
            Square::from_fn(3, |i, j| 1e300 * (1.0 + (i * j) as f64)),
            Square::from_fn(3, |i, j| 1e-300 * (1.0 + (i * j) as f64)),
            Square::from_fn(3, |i, j| f64::MAX / (1 + i + j) as f64),
        ] {
            if a[(0, 0)].abs() < 1e200 {
                check(&a);
            }
            let eigen = symmetric_eigen(&a);
            assert!(eigen.vectors.is_finite() && eigen.values.iter().all(|x| !x.is_nan()), "{a:?}");
        }
        assert_eq!(symmetric_eigen(&Square::zeros(3)).vectors, Square::identity(3));
        assert!(symmetric_eigen(&Square::zeros(0)).values.is_empty());
    }

    #[test]
    fn one_non_finite_element_makes_everything_nan() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut a = Square::identity(4);
            a[(3, 1)] = bad;
            let eigen = symmetric_eigen(&a);
            assert!(eigen.values.iter().chain(eigen.vectors.elements()).all(|x| x.is_nan()));
        }
    }

    proptest! {
        #[test]
        fn any_symmetric_matrix_is_decomposed(
            (n, elements) in (1_usize..20).prop_flat_map(|n| {
                let element = prop_oneof![-1.0..1.0, Just(0.0), -1e-9..1e-9, -1e9..1e9];
                (Just(n), prop::collection::vec(element, n * n))
            }),
        ) {
            check(&symmetric(n, &elements));
        }
    }
}
