//! Block power iteration: the dominant directions of a matrix, followed from step to step.
//!
//! *What it is.* One warm-started [`sweep`] `V ← Q(MᵀM·V)` and the [`truncated_polar`] factor it gives,
//! as used by ZO-MOPI (2026, arXiv 2605.09034), which orthogonalises only the `k` dominant directions of
//! a sketched gradient. The answer is a pair of thin factors: the rank-`k` matrix is never formed.
//!
//! *What it is not.* A converged singular value decomposition: a static matrix converges by the factor
//! (σⱼ₊₁/σⱼ)² per sweep, a changing one is followed.
//!
//! **Deviations** from the released code. A QR stands between the two products: it changes nothing in
//! exact arithmetic (`Q(A·T) = Q(A)` for upper triangular `T` with positive diagonal) but keeps `M` from
//! being squared, which in f32 would drown directions below 2⁻¹²·σ₁ and overflow from 1e19 on. For the
//! same reason `V` need not be orthonormalised again before a sweep. Columns of `U` that are rounding
//! noise become zero, not noise of norm one.

use super::{fill_nan, frobenius, is_finite, qr::thin_qr};
use crate::{
    kernels::{Context, matmul::product},
    tensor::{MatMut, MatRef},
};

/// Replaces the basis `v` `[n, k]` by `Q(Mᵀ·Q(M·V))` for `m` `[r, n]`, k ≤ min(r, n).
///
/// `v` should have columns of about unit length and full rank (at first: Q of a Gaussian matrix). The new
/// columns are orthonormal to 2·2⁻²⁴ whatever `m`: where `m` gives no direction the basis is completed in
/// a fixed way, so a zero `m` gives the first `k` columns of the identity. A non-finite element in
/// either makes all of `v` NaN.
///
/// # Panics
/// If the shapes do not fit, or k > min(r, n).
pub fn sweep(cx: &Context, m: MatRef<'_>, mut v: MatMut<'_>) {
    let (r, _, k) = shape(m, v.as_ref());
    let Some(scales) = Scales::of(m, v.as_ref()) else {
        return fill_nan(v);
    };
    let mut image = cx.workspace.take::<f32>(r * k);
    scaled_image(cx, m, v.as_ref(), scales.basis, MatMut::new(&mut image, r, k));
    thin_qr(MatMut::new(&mut image, r, k));
    image.iter_mut().for_each(|x| *x = (f64::from(*x) * scales.unit) as f32);
    product::tn(cx, m, MatRef::new(&image, r, k), false, v.reborrow());
    thin_qr(v);
}

/// The columns of `M·V` scaled to length one, into `u` `[r, k]`, for `m` `[r, n]` and a basis `v` `[n, k]`:
/// `U·Vᵀ` is the truncated polar factor of `M` if `V` holds right singular vectors, and near it after a
/// [`sweep`].
///
/// Columns of `U` are unit vectors, orthogonal only as far as `V` has converged. One whose length in `M·V`
/// is at most √n·2⁻²²·‖M‖_F, the noise of four f32 chains over n, is zero. A non-finite element in
/// either makes all of `u` NaN.
///
/// # Panics
/// If the shapes do not fit, or k > min(r, n).
pub fn truncated_polar(cx: &Context, m: MatRef<'_>, v: MatRef<'_>, mut u: MatMut<'_>) {
    let (r, n, k) = shape(m, v);
    assert!(
        (u.rows(), u.cols()) == (r, k),
        "left factor [{}, {}] of a matrix [{r}, {n}] and a basis [{n}, {k}]",
        u.rows(),
        u.cols()
    );
    let Some(scales) = Scales::of(m, v) else {
        return fill_nan(u);
    };
    scaled_image(cx, m, v, scales.basis, u.reborrow());
    let noise = (n as f64).sqrt() / f64::from(1 << 22) * frobenius(m) * scales.basis;
    let mut squares = vec![0.0; k];
    for i in 0..r {
        squares.iter_mut().zip(u.as_ref().row(i)).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    let inverses = squares.iter().map(|sum| if sum.sqrt() <= noise { 0.0 } else { 1.0 / sum.sqrt() });
    let inverses: Vec<f64> = inverses.collect();
    for i in 0..r {
        u.row_mut(i).iter_mut().zip(&inverses).for_each(|(x, inverse)| *x = (f64::from(*x) * inverse) as f32);
    }
}

/// `(r, n, k)` of `m` `[r, n]` and `v` `[n, k]`.
fn shape(m: MatRef<'_>, v: MatRef<'_>) -> (usize, usize, usize) {
    let (r, n, k) = (m.rows(), m.cols(), v.cols());
    assert!(v.rows() == n && k <= r.min(n), "power iteration of a matrix [{r}, {n}] with a basis [{}, {k}]", v.rows());
    (r, n, k)
}

/// Powers of two that keep everything in the range of f32: half the exponent of `m` is taken from the
/// basis before a product and never returned, since only directions matter.
#[derive(Clone, Copy)]
struct Scales {
    /// For `V`: 1/(max|vᵢⱼ|·√max|mᵢⱼ|), up to a factor of four.
    basis: f64,
    /// For a matrix of unit columns: 1/√max|mᵢⱼ|, up to a factor of two.
    unit: f64,
}

impl Scales {
    /// `None` if `m` or `v` is not finite.
    fn of(m: MatRef<'_>, v: MatRef<'_>) -> Option<Scales> {
        if !is_finite(m) || !is_finite(v) {
            return None;
        }
        let unit = power_of_two(-exponent(m) / 2);
        Some(Scales { basis: unit * power_of_two(-exponent(v)), unit })
    }
}

/// The binary exponent of the largest magnitude in `a`; of the smallest normal f32 if all are smaller.
fn exponent(a: MatRef<'_>) -> i32 {
    let largest = (0..a.rows()).flat_map(|r| a.row(r)).fold(f32::MIN_POSITIVE, |most, x| most.max(x.abs()));
    (largest.to_bits() >> 23) as i32 - 127
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// `scale·M·V` into `out` `[r, k]`.
fn scaled_image(cx: &Context, m: MatRef<'_>, v: MatRef<'_>, scale: f64, out: MatMut<'_>) {
    let (n, k) = (v.rows(), v.cols());
    let mut scaled = cx.workspace.take::<f32>(n * k);
    for i in 0..n {
        scaled[i * k..][..k].iter_mut().zip(v.row(i)).for_each(|(s, &x)| *s = (f64::from(x) * scale) as f32);
    }
    product::nn(cx, m, MatRef::new(&scaled, n, k), false, out);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{UNIT, awkward, gaussian, orthogonality_error, same_bits};
    use super::super::orthogonalize::polar;
    use super::*;
    use crate::kernels::Isa;

    fn context() -> Context {
        Context::new(Isa::fastest())
    }

    fn basis(seed: u64, n: usize, k: usize) -> Vec<f32> {
        let mut v = gaussian(seed, n, k);
        thin_qr(MatMut::new(&mut v, n, k));
        v
    }

    /// A matrix `[r, n]` with singular values 1, g, g², …
    fn decaying(r: usize, n: usize, g: f64) -> Vec<f32> {
        let (left, right) = (basis(31, r, r), basis(32, n, r));
        let element = |i: usize, j: usize| {
            let term = |l: usize| f64::from(left[i * r + l]) * g.powi(l as i32) * f64::from(right[j * r + l]);
            (0..r).fold(0.0, |sum, l| sum + term(l))
        };
        (0..r * n).map(|i| element(i / n, i % n) as f32).collect()
    }

    fn product_of(u: &[f32], v: &[f32], k: usize) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0, |sum, (&a, &b)| sum + f64::from(a) * f64::from(b));
        u.chunks_exact(k).flat_map(|a| v.chunks_exact(k).map(move |b| dot(a, b))).collect()
    }

    #[test]
    fn repeated_sweeps_converge_to_the_truncated_polar_factor() {
        let (r, n, k) = (12, 40, 3);
        let m = decaying(r, n, 0.25);
        let m = MatRef::new(&m, r, n);
        let mut v = basis(33, n, k);
        // The error starts below 1/(cosine of the starting angle), some √n·r, and shrinks by 0.25² a
        // sweep: 16^-12 leaves 1e-12.
        for _ in 0..12 {
            sweep(&context(), m, MatMut::new(&mut v, n, k));
        }
        let mut u = vec![0.0; r * k];
        truncated_polar(&context(), m, MatRef::new(&v, n, k), MatMut::new(&mut u, r, k));
        // The reference: the polar factor of the part of the same matrix with the k largest values.
        let (left, right) = (basis(31, r, r), basis(32, n, r));
        let expected = |i: usize, j: usize| {
            (0..k).fold(0.0, |sum, l| sum + f64::from(left[i * r + l]) * f64::from(right[j * r + l]))
        };
        // Directions turn by the f32 noise of two products over the gap: the chains err by at most
        // n·u·‖M‖ a column, the gap below σ₃ is 0.047; two factors, k columns.
        let bound = 2.0 * k as f64 * 2.0 * n as f64 * UNIT / 0.047;
        for (i, x) in product_of(&u, &v, k).iter().enumerate() {
            assert!((x - expected(i / n, i % n)).abs() <= bound, "{x} for {}, bound {bound:e}", expected(i / n, i % n));
        }
    }

    #[test]
    fn a_full_basis_gives_the_polar_factor() {
        let (r, n) = (6, 25);
        let m = decaying(r, n, 0.5);
        let m = MatRef::new(&m, r, n);
        let mut v = basis(34, n, r);
        // Off-diagonal mixing shrinks by 0.5² a sweep: 24 sweeps leave 4^-24 < u².
        for _ in 0..24 {
            sweep(&context(), m, MatMut::new(&mut v, n, r));
        }
        let (mut u, mut exact) = (vec![0.0; r * r], vec![0.0; r * n]);
        truncated_polar(&context(), m, MatRef::new(&v, n, r), MatMut::new(&mut u, r, r));
        polar(m, MatMut::new(&mut exact, r, n));
        // As above; the smallest singular value, and the smallest gap, are 2⁻⁵.
        let bound = 2.0 * r as f64 * 2.0 * n as f64 * UNIT * 32.0;
        for (x, &y) in product_of(&u, &v, r).iter().zip(&exact) {
            assert!((x - f64::from(y)).abs() <= bound, "{x} for {y}, bound {bound:e}");
        }
    }

    #[test]
    fn the_basis_is_orthonormal_and_the_left_columns_unit_or_zero_whatever_the_matrix() {
        for (r, n, k) in [(1, 1, 1), (8, 30, 5), (30, 8, 8), (5, 5, 5), (4, 9, 0)] {
            for (what, m) in awkward(r, n) {
                for scale in [1.0, 1e30, 1e-30] {
                    let m = MatRef::new(&m, r, n);
                    let mut v: Vec<f32> = basis(35, n, k).iter().map(|x| x * scale).collect();
                    sweep(&context(), m, MatMut::new(&mut v, n, k));
                    let error = orthogonality_error(MatRef::new(&v, n, k));
                    assert!(error <= 2.01 * UNIT, "{what} [{r}, {n}] · [{n}, {k}]: {error:e}");
                    let mut u = vec![f32::NAN; r * k];
                    truncated_polar(&context(), m, MatRef::new(&v, n, k), MatMut::new(&mut u, r, k));
                    for j in 0..k {
                        let squares = (0..r).fold(0.0, |sum, i| sum + f64::from(u[i * k + j]).powi(2));
                        // Rounding of unit columns, as in `qr`.
                        assert!(
                            squares == 0.0 || (squares - 1.0).abs() <= 2.01 * UNIT,
                            "{what}: column {j} has {squares}"
                        );
                    }
                    let zero = (0..r).all(|i| m.row(i).iter().all(|&x| x == 0.0));
                    assert!(k == 0 || zero == u.iter().all(|&x| x == 0.0), "{what} [{r}, {n}]");
                }
            }
        }
    }

    #[test]
    fn directions_without_signal_become_zero_columns() {
        let (r, n, k) = (10, 200, 4);
        let (a, b) = (gaussian(36, r, 1), gaussian(37, 1, n));
        let m: Vec<f32> = (0..r * n).map(|i| a[i / n] * b[i % n]).collect();
        let mut v = basis(38, n, k);
        sweep(&context(), MatRef::new(&m, r, n), MatMut::new(&mut v, n, k));
        let mut u = vec![0.0; r * k];
        truncated_polar(&context(), MatRef::new(&m, r, n), MatRef::new(&v, n, k), MatMut::new(&mut u, r, k));
        let signal = |j: usize| (0..r).any(|i| u[i * k + j] != 0.0);
        assert_eq!((0..k).map(signal).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn the_factor_never_points_uphill() {
        // ⟨U·Vᵀ, M⟩ = Σ ‖M·vⱼ‖ ≥ 0, and equals that sum to the rounding of U and of the chains of M·V.
        let (r, n, k) = (16, 64, 5);
        let m = gaussian(39, r, n);
        let mut v = basis(40, n, k);
        for _ in 0..3 {
            sweep(&context(), MatRef::new(&m, r, n), MatMut::new(&mut v, n, k));
            let mut u = vec![0.0; r * k];
            truncated_polar(&context(), MatRef::new(&m, r, n), MatRef::new(&v, n, k), MatMut::new(&mut u, r, k));
            let inner = product_of(&u, &v, k).iter().zip(&m).fold(0.0, |sum, (x, &y)| sum + x * f64::from(y));
            let columns: Vec<f32> = (0..n * k).map(|i| v[i % n * k + i / n]).collect();
            let image = product_of(&columns, &m, n);
            let lengths = image.chunks_exact(r).map(|x| x.iter().fold(0.0, |sum, x| sum + x * x).sqrt());
            let expected = lengths.fold(0.0, |sum, x| sum + x);
            let bound = (n + 2) as f64 * UNIT * k as f64 * frobenius(MatRef::new(&m, r, n));
            assert!((inner - expected).abs() <= bound, "{inner} for {expected}");
        }
    }

    #[test]
    fn one_non_finite_element_makes_everything_nan() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut m, mut v) = (gaussian(41, 4, 9), basis(42, 9, 2));
            m[17] = bad;
            let mut u = vec![0.0; 8];
            truncated_polar(&context(), MatRef::new(&m, 4, 9), MatRef::new(&v, 9, 2), MatMut::new(&mut u, 4, 2));
            sweep(&context(), MatRef::new(&m, 4, 9), MatMut::new(&mut v, 9, 2));
            assert!(u.iter().chain(&v).all(|x| x.is_nan()));
            m.fill(1.0);
            truncated_polar(&context(), MatRef::new(&m, 4, 9), MatRef::new(&v, 9, 2), MatMut::new(&mut u, 4, 2));
            assert!(u.iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn the_bits_are_those_of_every_instruction_set_and_thread_count() {
        let (r, n, k) = (33, 1500, 17);
        let (m, start) = (gaussian(43, r, n), basis(44, n, k));
        let m = MatRef::new(&m, r, n);
        let v = same_bits(n, k, |cx, mut v| {
            (0..n).for_each(|i| v.row_mut(i).copy_from_slice(&start[i * k..][..k]));
            sweep(cx, m, v);
        });
        same_bits(r, k, |cx, u| truncated_polar(cx, m, MatRef::new(&v, n, k), u));
    }
}
