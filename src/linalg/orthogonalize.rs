//! Orthogonalisation: every singular value of a matrix moved to (about) one.
//!
//! *What it is.* [`newton_schulz`] is the iteration of the optimizer Muon (Jordan et al. 2024, "Muon: an
//! optimizer for hidden layers in neural networks"): five matmul-only steps after which the singular
//! values lie in a band around one. [`polar`] is the exact counterpart, `U·Vᵀ` of the singular value
//! decomposition `U·Σ·Vᵀ`, by eigen-decomposition of the Gram matrix of the short side.
//!
//! *What it is not.* [`newton_schulz`] does not converge to the polar factor and is not meant to: its
//! coefficients maximise the slope at zero. Singular values above 0.01·‖M‖_F end in [0.68, 1.14], from
//! 0.002·‖M‖_F on in [0.68, 1.21], smaller ones below; zero stays zero.
//!
//! **Deviations** of [`newton_schulz`] from Muon's code. f32 instead of bf16. No 1e-7 added to the
//! norm: the result is invariant under the scale of the matrix, exactly so for powers of two, down to
//! the smallest f32. No factor √max(1, rows/columns): that belongs to the optimizer.

use rayon::prelude::*;

use super::{
    Square, fill_nan, frobenius, is_finite,
    symmetric_eigen::symmetric_eigen,
    tall::{self, Block, add_scaled, dot},
};
use crate::{
    kernels::{Context, matmul::product},
    tensor::{MatMut, MatRef},
};

/// Muon's quintic: `s ↦ a·s + b·s³ + c·s⁵` on every singular value `s`.
const QUINTIC: (f32, f32, f32) = (3.4445, -4.775, 2.0315);
/// Muon's number of iterations: the smallest singular values grow by 3.4445⁵ ≈ 485.
const ITERATIONS: usize = 5;

/// Singular values up to this times the Frobenius norm count as zero in [`polar`]: the noise of 16
/// roundings to f32 in every element, and above the 1.7e-7 that the f64 Gram matrix of 256 rows resolves.
const RANK_CUTOFF: f64 = 1.0 / (1 << 20) as f64;

/// Five Newton-Schulz steps from `m` `[rows, cols]`, of any shape, into `out` of the same shape.
///
/// `X₀ = M/‖M‖_F`, then five times `X ← (a·I + b·A + c·A²)·X` with `A = X·Xᵀ`, on the transpose if there
/// are more rows than columns. The zero matrix stays zero; a non-finite element makes all of `out` NaN.
/// Elements of `A` are f32 chains over the long side: with n = 50,000 their error is about √n·2⁻²⁴ ≈
/// 1.3e-5 of the diagonal, far less than the width of the band.
///
/// # Panics
/// If the shapes differ.
pub fn newton_schulz(cx: &Context, m: MatRef<'_>, mut out: MatMut<'_>) {
    assert_same_shape("Newton-Schulz", m, &out);
    let norm = frobenius(m);
    if !norm.is_finite() {
        return fill_nan(out);
    }
    let transposed = m.rows() > m.cols();
    let (short, long) = if transposed { (m.cols(), m.rows()) } else { (m.rows(), m.cols()) };
    let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    let scaled = |x: f32| (f64::from(x) * inverse) as f32;
    let mut x = cx.workspace.take::<f32>(short * long);
    let mut next = cx.workspace.take::<f32>(short * long);
    let mut gram = cx.workspace.take::<f32>(short * short);
    let mut square = cx.workspace.take::<f32>(short * short);
    for r in 0..m.rows() {
        if transposed {
            m.row(r).iter().enumerate().for_each(|(c, &y)| x[c * long + r] = scaled(y));
        } else {
            x[r * long..][..long].iter_mut().zip(m.row(r)).for_each(|(x, &y)| *x = scaled(y));
        }
    }
    let (a, b, c) = QUINTIC;
    for _ in 0..ITERATIONS {
        let wide = MatRef::new(&x, short, long);
        product::nt(cx, wide, wide, false, MatMut::new(&mut gram, short, short));
        let symmetric = MatRef::new(&gram, short, short);
        product::nn(cx, symmetric, symmetric, false, MatMut::new(&mut square, short, short));
        square.iter_mut().zip(&*gram).for_each(|(s, &g)| *s = c * *s + b * g);
        square.iter_mut().step_by(short + 1).for_each(|s| *s += a);
        product::nn(cx, MatRef::new(&square, short, short), wide, false, MatMut::new(&mut next, short, long));
        std::mem::swap(&mut x, &mut next);
    }
    for r in 0..out.rows() {
        if transposed {
            out.row_mut(r).iter_mut().enumerate().for_each(|(c, y)| *y = x[c * long + r]);
        } else {
            out.row_mut(r).copy_from_slice(&x[r * long..][..long]);
        }
    }
}

/// The polar factor `U·Vᵀ` of `m` `[rows, cols]`, of any shape, into `out` of the same shape.
///
/// `M·(MᵀM)^(−1/2)` for tall `M`, in f64. Singular values up to 2⁻²⁰·‖M‖_F count as zero and stay zero:
/// a rank-deficient `M` gives a partial isometry, the zero matrix zero. A singular value σ becomes 1 up
/// to `n·2⁻⁵³·(‖M‖_F/σ)²`, then elements are rounded to f32. Cost: 3·m·n² + 50·n³ flops in f64, where n
/// is the short side: meant for n ≤ 256. A non-finite element makes all of `out` NaN.
///
/// # Panics
/// If the shapes differ.
pub fn polar(m: MatRef<'_>, out: MatMut<'_>) {
    assert_same_shape("polar factor", m, &out);
    if !is_finite(m) {
        return fill_nan(out);
    }
    let mut blocks = tall::load(m);
    let root = inverse_root(&gram(&blocks));
    blocks.par_iter_mut().for_each(|block| *block = times(block, &root));
    tall::store(&blocks, out);
}

/// The singular values of `m` `[rows, cols]`, largest first, as many as the short side has elements.
///
/// Square roots of the eigenvalues of the Gram matrix in f64: a value is within about
/// `n·2⁻⁵³·‖M‖_F²/σ`, so those below 2⁻²⁵·‖M‖_F are noise. Cost as [`polar`]. A non-finite element
/// makes all values NaN.
pub fn singular_values(m: MatRef<'_>) -> Vec<f64> {
    if !is_finite(m) {
        return vec![f64::NAN; m.rows().min(m.cols())];
    }
    let eigen = symmetric_eigen(&gram(&tall::load(m)));
    eigen.values.into_iter().map(|value| value.max(0.0).sqrt()).collect()
}

fn assert_same_shape(what: &str, m: MatRef<'_>, out: &MatMut<'_>) {
    assert!(
        (m.rows(), m.cols()) == (out.rows(), out.cols()),
        "{what} of a matrix [{}, {}] into one [{}, {}]",
        m.rows(),
        m.cols(),
        out.rows(),
        out.cols()
    );
}

/// `TᵀT` of the tall matrix made of `blocks`: one partial sum per block, added in block order.
fn gram(blocks: &[Block]) -> Square {
    let n = blocks[0].cols();
    let partial = |block: &Block| {
        let mut out = Square::zeros(n);
        for i in 0..n {
            for j in 0..=i {
                out[(i, j)] = dot(block.column(i), block.column(j));
            }
        }
        out
    };
    let partials: Vec<_> = blocks.par_iter().map(partial).collect();
    partials.iter().fold(Square::zeros(n), |mut sum, part| {
        add_scaled(sum.elements_mut(), 1.0, part.elements());
        sum
    })
}

/// `G^(−1/2)` on the space of the eigenvalues that count, zero elsewhere.
fn inverse_root(gram: &Square) -> Square {
    let n = gram.n();
    let eigen = symmetric_eigen(gram);
    let trace = (0..n).fold(0.0, |sum, i| sum + gram[(i, i)]);
    let negligible = RANK_CUTOFF * RANK_CUTOFF * trace;
    let mut root = Square::zeros(n);
    for (i, &value) in eigen.values.iter().enumerate().take_while(|&(_, &value)| value > negligible) {
        let vector = eigen.vectors.row(i);
        for (r, &x) in vector.iter().enumerate() {
            add_scaled(root.row_mut(r), x / value.sqrt(), vector);
        }
    }
    root
}

/// `block · root` for a symmetric `root`.
fn times(block: &Block, root: &Square) -> Block {
    let mut out = Block::zeros(block.rows(), block.cols());
    for c in 0..block.cols() {
        for (k, &x) in root.row(c).iter().enumerate() {
            add_scaled(out.column_mut(c), x, block.column(k));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{UNIT, awkward, bits, gaussian, orthogonality_error, same_bits};
    use super::super::qr::thin_qr;
    use super::*;
    use crate::kernels::Isa;

    fn newton_schulz_of(m: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * cols];
        newton_schulz(&Context::new(Isa::fastest()), MatRef::new(m, rows, cols), MatMut::new(&mut out, rows, cols));
        out
    }

    fn polar_of(m: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * cols];
        polar(MatRef::new(m, rows, cols), MatMut::new(&mut out, rows, cols));
        out
    }

    fn transpose(m: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| m[i % rows * cols + i / rows]).collect()
    }

    /// What the five steps make of one singular value, in f64.
    fn quintic(s: f64) -> f64 {
        let (a, b, c) = (f64::from(QUINTIC.0), f64::from(QUINTIC.1), f64::from(QUINTIC.2));
        (0..ITERATIONS).fold(s, |s, _| s * (a + s * s * (b + c * s * s)))
    }

    /// `Q₁·diag(values)·Q₂ᵀ` `[rows, values.len()]`, with Haar factors, rounded to f32, and the factors.
    fn with_spectrum(rows: usize, values: &[f64]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let n = values.len();
        let (mut left, mut right) = (gaussian(21, rows, n), gaussian(22, n, n));
        thin_qr(MatMut::new(&mut left, rows, n));
        thin_qr(MatMut::new(&mut right, n, n));
        let m = combine(&left, values, &right);
        (m.iter().map(|&x| x as f32).collect(), left, right)
    }

    fn combine(left: &[f32], values: &[f64], right: &[f32]) -> Vec<f64> {
        let n = values.len();
        let element = |r: usize, c: usize| {
            (0..n).fold(0.0, |sum, k| sum + f64::from(left[r * n + k]) * values[k] * f64::from(right[c * n + k]))
        };
        (0..left.len()).map(|i| element(i / n, i % n)).collect()
    }

    #[test]
    fn newton_schulz_applies_the_quintic_to_every_singular_value() {
        let values: Vec<f64> = (0..12).map(|k| 0.7_f64.powi(k)).collect();
        let norm = values.iter().fold(0.0, |sum, s| sum + s * s).sqrt();
        let (m, left, right) = with_spectrum(90, &values);
        let mapped: Vec<f64> = values.iter().map(|s| quintic(s / norm)).collect();
        let expected = combine(&left, &mapped, &right);
        // The input's rounding and each step's chains disturb X by some 2·√n·u of its norm √n, and the
        // quintic, whose slope is at most 3.4445, passes that on: Σ 3.4445ᵏ = 1.4·3.4445⁵ ≈ 681 times.
        let bound = 681.0 * 2.0 * 12.0 * UNIT;
        for (x, y) in newton_schulz_of(&m, 90, 12).iter().zip(&expected) {
            assert!((f64::from(*x) - y).abs() <= bound, "{x} for {y}");
        }
    }

    #[test]
    fn newton_schulz_puts_the_singular_values_into_its_band() {
        for (rows, cols) in [(64, 1000), (200, 16), (1, 50), (30, 60)] {
            let m = gaussian(23, rows, cols);
            let smallest = singular_values(MatRef::new(&m, rows, cols)).pop().unwrap();
            assert!(smallest >= 0.01 * frobenius(MatRef::new(&m, rows, cols)), "a well-conditioned input");
            let values = singular_values(MatRef::new(&newton_schulz_of(&m, rows, cols), rows, cols));
            // The band of the scalar recursion over [0.01, 1] is [0.6818, 1.1344].
            assert!(values.iter().all(|s| (0.68..=1.14).contains(s)), "[{rows}, {cols}]: {values:?}");
        }
        let band = (10..=1000).map(|i| quintic(f64::from(i) / 1000.0));
        assert!(band.into_iter().all(|s| (0.6818..=1.1345).contains(&s)));
        let wide = (20..=10_000).map(|i| quintic(f64::from(i) / 10_000.0));
        assert!(wide.into_iter().all(|s| (0.6818..=1.2025).contains(&s)));
    }

    #[test]
    fn both_forget_the_scale_and_commute_with_transposition() {
        let (rows, cols) = (20, 50);
        let m = gaussian(24, rows, cols);
        for run in [newton_schulz_of, polar_of] {
            let one = run(&m, rows, cols);
            for scale in [2_f32.powi(-100), 2_f32.powi(100)] {
                let scaled: Vec<f32> = m.iter().map(|x| x * scale).collect();
                assert_eq!(bits(&run(&scaled, rows, cols)), bits(&one));
            }
            let turned = run(&transpose(&m, rows, cols), cols, rows);
            // The same arithmetic on the same numbers, up to the order of the sum of the norm: an error
            // of that times the slope of the quintic, as in the test of the quintic above.
            for (x, y) in transpose(&turned, cols, rows).iter().zip(&one) {
                assert!(f64::from((x - y).abs()) <= 681.0 * UNIT, "{x} for {y}");
            }
        }
    }

    #[test]
    fn the_polar_factor_is_orthonormal_to_one_rounding() {
        for (rows, cols) in [(1, 1), (50, 1), (64, 40), (3000, 64)] {
            let m = gaussian(25, rows, cols);
            let factor = polar_of(&m, rows, cols);
            // Singular values of a Gaussian [64, 40] are above ‖M‖_F/100: σ² of the factor errs by
            // 2·40·2⁻⁵³·10⁴ < 2⁻¹³·u; the rest is the rounding of its elements, as in `qr`.
            let error = orthogonality_error(MatRef::new(&factor, rows, cols));
            assert!(error <= 2.01 * UNIT, "[{rows}, {cols}]: {error:e}");
        }
    }

    #[test]
    fn the_polar_factor_is_that_of_the_singular_value_decomposition() {
        let values: Vec<f64> = (0..8).map(|k| 0.2_f64.powi(k)).collect();
        let (m, left, right) = with_spectrum(700, &values);
        let expected = combine(&left, &[1.0; 8], &right);
        // The polar factor moves by at most 2‖E‖/(σ₇ + σ₈) when the input moves by E: the input was rounded
        // to f32 (‖E‖_F ≤ u·‖M‖_F, ‖M‖_F < 1.03), and so were the two factors (3u beside that).
        let bound = UNIT * (2.0 * 1.03 / (values[6] + values[7]) + 3.0);
        for (x, y) in polar_of(&m, 700, 8).iter().zip(&expected) {
            assert!((f64::from(*x) - y).abs() <= bound, "{x} for {y}, bound {bound:e}");
        }
    }

    #[test]
    fn a_rank_deficient_matrix_gives_a_partial_isometry() {
        // Columns in pairs: rank 4 of 8. Singular values are 0 or 1 to the rounding of the elements: the
        // eigenvalues of the Gram matrix then err by at most 8·2.01u.
        let m: Vec<f32> = gaussian(26, 30, 4).iter().flat_map(|&x| [x, x]).collect();
        let values = singular_values(MatRef::new(&polar_of(&m, 30, 8), 30, 8));
        for (i, value) in values.iter().enumerate() {
            let expected = f64::from(u8::from(i < 4));
            assert!((value * value - expected).abs() <= 8.0 * 2.01 * UNIT, "{values:?}");
        }
    }

    #[test]
    fn zero_stays_zero_and_no_finite_matrix_gives_nan() {
        for (rows, cols) in [(1, 1), (5, 3), (3, 5), (6, 40)] {
            for (what, m) in awkward(rows, cols) {
                for run in [newton_schulz_of, polar_of] {
                    let out = run(&m, rows, cols);
                    assert!(out.iter().all(|x| x.is_finite()), "{what} [{rows}, {cols}]");
                    assert_eq!(out.iter().all(|&x| x == 0.0), m.iter().all(|&x| x == 0.0), "{what} [{rows}, {cols}]");
                    let largest = singular_values(MatRef::new(&out, rows, cols))[0];
                    assert!(largest <= 1.2025, "{what} [{rows}, {cols}]: {largest}");
                }
            }
        }
        for (rows, cols) in [(0, 0), (4, 0), (0, 4)] {
            assert!(newton_schulz_of(&[], rows, cols).is_empty() && polar_of(&[], rows, cols).is_empty());
            assert!(singular_values(MatRef::new(&[], rows, cols)).is_empty());
        }
    }

    #[test]
    fn one_non_finite_element_makes_everything_nan() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut m = gaussian(27, 4, 9);
            m[17] = bad;
            assert!(newton_schulz_of(&m, 4, 9).iter().chain(&polar_of(&m, 4, 9)).all(|x| x.is_nan()));
            assert!(singular_values(MatRef::new(&m, 4, 9)).iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn the_bits_are_those_of_every_instruction_set_and_thread_count() {
        for (rows, cols) in [(17, 333), (2000, 33)] {
            let m = gaussian(28, rows, cols);
            same_bits(rows, cols, |cx, out| newton_schulz(cx, MatRef::new(&m, rows, cols), out));
            same_bits(rows, cols, |_, out| polar(MatRef::new(&m, rows, cols), out));
        }
    }
}
