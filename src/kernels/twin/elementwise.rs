//! The definitions of elementwise kernels, one element at a time.

use super::Real;

/// `c · x + y`, rounded once.
pub fn axpy<R: Real>(c: R, x: R, y: R) -> R {
    c.mul_add(x, y)
}

/// The tangent of `a · b`.
pub fn mul_tangent<R: Real>([a, b]: [R; 2], [da, db]: [R; 2]) -> R {
    da.mul_add(b, a * db)
}

/// `sums[c]` continues as a chain over the rows of `rows`, which are as wide as `sums`.
pub fn column_sums<R: Real>(rows: &[R], sums: &mut [R]) {
    for row in rows.chunks_exact(sums.len().max(1)) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum = *sum + x;
        }
    }
}
