//! Thin QR of a tall matrix: Householder reflections in f64, blocks of rows combined in a tree.
//!
//! *What it is.* `A = Q·R` with `Q` `[m, n]` of orthonormal columns and `R` upper triangular with a
//! diagonal ≥ 0. With a positive diagonal the factorisation is unique, which has three uses: `Q` of a
//! Gaussian matrix is Haar distributed (Mezzadri 2007, arXiv math-ph/0609050), `Q` does not depend on
//! how the work was cut, and `Q(A·T) = Q(A)` for every upper triangular `T` with positive diagonal.
//!
//! The tree is TSQR (Demmel, Grigori, Hoemmen, Langou 2012, arXiv 0808.2664): each block of rows is
//! factored in cache, the triangles are stacked and factored in turn, and on the way back every block
//! applies its reflections to its piece of the upper `Q`.
//!
//! *Why not `CholeskyQR2`.* It is made of matmuls, but its Gram matrix squares the condition number: it
//! fails outright at κ ≥ 2¹² in f32 (2²⁶ in f64), and power iteration feeds it matrices of rank below
//! `n`. A Gram matrix over m = 50,000 rows in one f32 chain would lose a further √m·2⁻²⁴ ≈ 1.3e-5.
//! Reflections are unconditionally stable, and in f64 the rounding of `Q` to f32 is all the error there
//! is: `|QᵀQ − I| ≤ 2·2⁻²⁴` for every element, whatever `A`.
//!
//! *Rank-deficient input.* `Q` is always orthonormal: where `A` gives no direction, the reflections
//! complete the basis in a fixed way. The zero matrix gives the first `n` columns of the identity.

use rayon::prelude::*;

use super::{
    Square, fill_nan, is_finite,
    tall::{self, Block, add_scaled, dot},
};
use crate::tensor::MatMut;

/// Squared norms below this are rounding dust: √ of it is 10⁻¹⁴⁶, a hundred orders of magnitude below
/// the smallest f32, and above it a square root keeps full precision.
const DUST: f64 = f64::MIN_POSITIVE / f64::EPSILON;

/// Replaces `a` `[m, n]`, m ≥ n, by its factor `Q` and returns `R`.
///
/// `R` is f64: column norms of finite f32 input may exceed the range of f32. Cost: 4·m·n² flops in f64,
/// over the threads of the current rayon pool. A non-finite element makes all of `Q` and `R` NaN.
///
/// # Panics
/// If `a` has more columns than rows.
pub fn thin_qr(mut a: MatMut<'_>) -> Square {
    let (m, n) = (a.rows(), a.cols());
    assert!(m >= n, "thin QR of a matrix [{m}, {n}]: more columns than rows");
    if n == 0 {
        return Square::zeros(0);
    }
    if !is_finite(a.as_ref()) {
        fill_nan(a);
        return Square::from_fn(n, |_, _| f64::NAN);
    }
    let mut blocks = tall::load(a.as_ref());
    let mut r = factor(&mut blocks);
    for j in 0..n {
        if r[(j, j)] < 0.0 {
            r.row_mut(j)[j..].iter_mut().for_each(|x| *x = -*x);
            blocks.par_iter_mut().for_each(|block| block.column_mut(j).iter_mut().for_each(|x| *x = -*x));
        }
    }
    tall::store(&blocks, a.reborrow());
    r
}

/// Replaces the tall matrix made of `blocks` by its `Q` and returns `R`, signs of its diagonal arbitrary.
fn factor(blocks: &mut [Block]) -> Square {
    let n = blocks[0].cols();
    let taus: Vec<_> = blocks.par_iter_mut().map(reflect).collect();
    let (tops, per_stack, r) = if let [only] = &*blocks {
        let mut identity = Block::zeros(n, n);
        (0..n).for_each(|j| identity.column_mut(j)[j] = 1.0);
        (vec![identity], 1, Square::from_fn(n, |i, j| triangle(only, i, j)))
    } else {
        let per_stack = tall::block_rows(n) / n;
        let mut stacks: Vec<_> = blocks.chunks(per_stack).map(stack).collect();
        let r = factor(&mut stacks);
        (stacks, per_stack, r)
    };
    blocks.par_iter_mut().zip(&taus).enumerate().for_each(|(i, (block, tau))| {
        let top = |c| &tops[i / per_stack].column(c)[i % per_stack * n..][..n];
        *block = expand(block, tau, top);
    });
    r
}

/// Element (`i`, `j`) of the triangle left by [`reflect`].
fn triangle(block: &Block, i: usize, j: usize) -> f64 {
    if i <= j { block.column(j)[i] } else { 0.0 }
}

/// The triangles of `blocks`, one below the other.
fn stack(blocks: &[Block]) -> Block {
    let n = blocks[0].cols();
    let mut out = Block::zeros(blocks.len() * n, n);
    for j in 0..n {
        for (part, block) in out.column_mut(j).chunks_exact_mut(n).zip(blocks) {
            part[..=j].copy_from_slice(&block.column(j)[..=j]);
        }
    }
    out
}

/// Householder QR in place: `R` on and above the diagonal, below it the vectors `v` of the reflections
/// `I − τ·v·vᵀ`, whose element on the diagonal is 1 and not stored. Returns the `τ`.
fn reflect(block: &mut Block) -> Vec<f64> {
    let (rows, n) = (block.rows(), block.cols());
    let mut taus = vec![0.0; n];
    for (j, tau) in taus.iter_mut().enumerate() {
        let (done, rest) = block.split_columns_mut(j + 1);
        let pivot = &mut done[j * rows + j..];
        let (head, v) = pivot.split_first_mut().expect("a block has at least as many rows as columns");
        let squares = *head * *head + dot(v, v);
        if squares < DUST {
            *head = 0.0;
            v.fill(0.0);
            continue;
        }
        // The sign that makes `head − beta` a sum of like signs: no cancellation.
        let beta = -squares.sqrt().copysign(*head);
        let scale = 1.0 / (*head - beta);
        v.iter_mut().for_each(|x| *x *= scale);
        *tau = (beta - *head) / beta;
        *head = beta;
        for column in rest.chunks_exact_mut(rows) {
            apply(*tau, v, &mut column[j..]);
        }
    }
    taus
}

/// `x −= τ·v·(vᵀx)` where `v` is 1 followed by `tail`.
fn apply(tau: f64, tail: &[f64], x: &mut [f64]) {
    let (head, rest) = x.split_first_mut().expect("a reflection acts on at least one element");
    let w = tau * (*head + dot(tail, rest));
    *head -= w;
    add_scaled(rest, -w, tail);
}

/// The reflections of `block`, first to last, times the matrix whose first `n` rows are `top` and whose
/// others are zero.
fn expand<'t>(block: &Block, taus: &[f64], top: impl Fn(usize) -> &'t [f64]) -> Block {
    let n = block.cols();
    let mut out = Block::zeros(block.rows(), n);
    for c in 0..n {
        let x = out.column_mut(c);
        x[..n].copy_from_slice(top(c));
        for (j, &tau) in taus.iter().enumerate().rev() {
            apply(tau, &block.column(j)[j + 1..], &mut x[j..]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{UNIT, awkward, bits, gaussian, orthogonality_error, same_bits};
    use super::*;
    use crate::tensor::MatRef;

    /// Shapes with one block, an uneven last block, two levels of stacking (n = 100: blocks of 400 rows,
    /// stacks of 4 triangles) and the edges.
    const SHAPES: [(usize, usize); 12] = [
        (1, 1),
        (5, 1),
        (70_000, 1),
        (2, 2),
        (7, 3),
        (17, 16),
        (64, 64),
        (65, 64),
        (1023, 64),
        (1600, 64),
        (1100, 96),
        (4000, 100),
    ];

    fn factor_of(a: &[f32], m: usize, n: usize) -> (Vec<f32>, Square) {
        let mut q = a.to_vec();
        let r = thin_qr(MatMut::new(&mut q, m, n));
        (q, r)
    }

    /// Everything a thin QR promises of finite input.
    fn check(what: &str, a: &[f32], m: usize, n: usize) {
        let (q, r) = factor_of(a, m, n);
        // Rounding moves an element of Q by at most u of itself, hence qᵢᵀqⱼ by at most 2u + u²; f64
        // itself errs by less than m·n·2⁻⁵³ < 2⁻¹⁰·u for these shapes, and the sums here likewise.
        let error = orthogonality_error(MatRef::new(&q, m, n));
        assert!(error <= 2.01 * UNIT, "{what} [{m}, {n}]: |QᵀQ − I| = {error:e}");
        let column = |j: usize| (0..m).map(move |i| f64::from(a[i * n + j]));
        for j in 0..n {
            assert!(r[(j, j)] >= 0.0, "{what} [{m}, {n}]: R[{j}, {j}] = {}", r[(j, j)]);
            assert!((j + 1..n).all(|i| r[(i, j)] == 0.0), "{what} [{m}, {n}]: R is not triangular");
            // Σ|q̂ᵢₖ − qᵢₖ||rₖⱼ| ≤ u·‖qᵢ‖‖rⱼ‖ ≤ u·‖aⱼ‖ for a row qᵢ of an orthonormal Q; the subnormal
            // elements of Q err by up to 2⁻¹⁵⁰ each instead.
            let length = column(j).fold(0.0, |sum, x| sum + x * x).sqrt();
            let bound = 1.01 * UNIT * length;
            for (i, x) in column(j).enumerate() {
                let product = (0..=j).fold(0.0, |sum, k| sum + f64::from(q[i * n + k]) * r[(k, j)]);
                assert!((x - product).abs() <= bound, "{what} [{m}, {n}]: A[{i}, {j}] = {x:e}, QR {product:e}");
            }
        }
    }

    #[test]
    fn a_gaussian_of_every_shape_is_factored_to_one_rounding() {
        for (m, n) in SHAPES {
            check("gaussian", &gaussian(1, m, n), m, n);
        }
    }

    #[test]
    fn zero_huge_tiny_and_rank_deficient_matrices_get_orthonormal_columns() {
        for (m, n) in [(1, 1), (3, 3), (40, 7), (1600, 64), (1100, 96)] {
            for (what, a) in awkward(m, n) {
                check(what, &a, m, n);
            }
        }
    }

    #[test]
    fn the_zero_matrix_gives_the_first_columns_of_the_identity() {
        let (m, n) = (1600, 64);
        let (q, r) = factor_of(&vec![0.0; m * n], m, n);
        assert_eq!(r, Square::zeros(n));
        assert!((0..m * n).all(|i| q[i] == if i / n == i % n { 1.0 } else { 0.0 }));
    }

    #[test]
    fn a_matrix_without_columns_is_left_alone() {
        assert_eq!(thin_qr(MatMut::new(&mut [], 5, 0)).n(), 0);
        assert_eq!(thin_qr(MatMut::new(&mut [], 0, 0)).n(), 0);
    }

    #[test]
    fn an_orthonormal_matrix_is_its_own_factor() {
        let (q, _) = factor_of(&gaussian(2, 300, 20), 300, 20);
        let (again, r) = factor_of(&q, 300, 20);
        // QᵀQ = I + E with |E| ≤ 2.01u, so R = I + F where F + Fᵀ = E to first order and F is upper
        // triangular: |F| ≤ 2.01u; then |Q̂ − Q| ≤ |Q|·|F| + u ≤ (√20·2.01 + 1)·u per element.
        for (x, y) in q.iter().zip(&again) {
            assert!(f64::from((x - y).abs()) <= (20_f64.sqrt() * 2.01 + 1.0) * UNIT);
        }
        assert!((0..20).all(|i| (r[(i, i)] - 1.0).abs() <= 2.01 * UNIT));
    }

    #[test]
    fn one_non_finite_element_makes_everything_nan() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut a = gaussian(3, 50, 4);
            a[199] = bad;
            let (q, r) = factor_of(&a, 50, 4);
            assert!(q.iter().all(|x| x.is_nan()) && r.elements().iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn the_bits_are_those_of_every_instruction_set_and_thread_count() {
        for (m, n) in [(17, 16), (1600, 64), (4000, 100)] {
            let a = gaussian(4, m, n);
            let got = same_bits(m, n, |_, mut out| {
                (0..m).for_each(|i| out.row_mut(i).copy_from_slice(&a[i * n..][..n]));
                thin_qr(out);
            });
            // And they are a function of the input alone.
            assert_eq!(bits(&got), bits(&factor_of(&a, m, n).0));
        }
    }

    #[test]
    fn the_factor_of_a_gaussian_has_the_moments_of_haar_measure() {
        // For Haar Q [m, n]: E q = 0, E q² = 1/m, E q⁴ = 3/(m(m+2)), for every element alike; without the
        // positive diagonal, Householder makes q₁₁ negative wherever a₁₁ is positive. 4,000 samples of
        // six elements.
        const SAMPLES: usize = 4000;
        let (m, n) = (6, 3);
        let probes = [(0, 0), (1, 1), (2, 2), (0, 2), (5, 0), (5, 2)];
        let mut sums = [[0.0_f64; 4]; 6];
        let mut positive = [0; 6];
        for seed in 0..SAMPLES {
            let (q, _) = factor_of(&gaussian(1000 + seed as u64, m, n), m, n);
            for (p, (i, j)) in probes.into_iter().enumerate() {
                let x = f64::from(q[i * n + j]);
                positive[p] += usize::from(x > 0.0);
                (0..4).for_each(|power| sums[p][power] += x.powi(power as i32 + 1));
            }
        }
        let samples = SAMPLES as f64;
        let dim = m as f64;
        let second = 1.0 / dim;
        let fourth = 3.0 / (dim * (dim + 2.0));
        let eighth = 105.0 / (dim * (dim + 2.0) * (dim + 4.0) * (dim + 6.0));
        // Five standard deviations of each mean: a false alarm in 24 means has probability 1.4e-5.
        let within =
            |mean: f64, expected: f64, variance: f64| (mean - expected).abs() <= 5.0 * (variance / samples).sqrt();
        for (p, probe) in probes.iter().enumerate() {
            let mean = |power: usize| sums[p][power - 1] / samples;
            assert!(within(positive[p] as f64 / samples, 0.5, 0.25), "{probe:?}: {} positive", positive[p]);
            assert!(within(mean(1), 0.0, second), "{probe:?}: mean {}", mean(1));
            assert!(within(mean(2), second, fourth - second * second), "{probe:?}: mean square {}", mean(2));
            assert!(within(mean(4), fourth, eighth - fourth * fourth), "{probe:?}: fourth moment {}", mean(4));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_finite_matrix_is_factored(
            (m, n, a) in (1_usize..12, 0_usize..30).prop_flat_map(|(n, more)| {
                let m = n + more;
                let element = prop_oneof![any::<f32>().prop_filter("finite", |x| x.is_finite()), Just(0.0), -1.0_f32..1.0];
                (Just(m), Just(n), prop::collection::vec(element, m * n))
            }),
        ) {
            check("arbitrary", &a, m, n);
        }
    }
}
