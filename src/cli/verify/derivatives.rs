//! Derivatives: the f64 reading of each definition against central differences.
//!
//! The definitions are generic over the number type, and the checks of the other families hold the
//! kernels to their f32 reading bit for bit; here the same lines, read in f64, must be the derivative
//! of their forward pass: slope along `ẋ` by differences = ⟨tangent(ẋ), ȳ⟩ = ⟨ẋ, backward(ȳ)⟩.

use super::{
    check::{Agreement, Check, Claim},
    inputs::Inputs,
};
use crate::kernels::{
    Mask,
    activation::Activation,
    twin::{
        activation,
        attention::{Matrices, Sequence},
        cross_entropy,
        norm::Norm,
        softmax,
    },
};

/// The checks of derivatives.
pub(super) const CHECKS: &[Check] = &[
    check("derivative.activation", of_activation),
    check("derivative.norm.layer", || of_norm(true)),
    check("derivative.norm.rms", || of_norm(false)),
    check("derivative.softmax", of_softmax),
    check("derivative.cross_entropy", of_cross_entropy),
    check("derivative.attention", of_attention),
];

const fn check(name: &'static str, agreement: fn() -> Agreement) -> Check {
    Check { name, claim: Claim::Agreement(agreement) }
}

/// Compares ⟨f(x + t·ẋ), ȳ⟩′ at t = 0 by differences with both analytic values; the larger distance.
///
/// *Bound.* D(s) = (F(s) − F(−s)) / 2s errs by F‴·s²/6 + O(s⁴). R = (4·D(h/2) − D(h)) / 3 cancels the s²
/// term, and |D(h) − D(h/2)| / 3 is the error of D(h/2), of which that of R is the fraction O(h²): we
/// allow all of it. Rounding: one evaluation of F errs by at most `operations`·2⁻⁵³·Σ|terms|, D(h/2) by
/// that over h/2, R by (4·2 + 1)/3 = 3 of it over h.
fn agreement(
    [x, x_dot, y_bar]: [&[f64]; 3],
    operations: f64,
    forward: impl Fn(&[f64]) -> Vec<f64>,
    tangent: Vec<f64>,
    backward: Vec<f64>,
) -> Agreement {
    const H: f64 = 1.0 / 256.0;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let along = |t: f64| forward(&x.iter().zip(x_dot).map(|(x, dx)| x + t * dx).collect::<Vec<_>>());
    let difference = |s: f64| (dot(&along(s), y_bar) - dot(&along(-s), y_bar)) / (2.0 * s);
    let (coarse, fine) = (difference(H), difference(H / 2.0));
    let slope = (4.0 * fine - coarse) / 3.0;
    let magnitude: f64 = along(0.0).iter().zip(y_bar).map(|(y, y_bar)| (y * y_bar).abs()).sum();
    let rounding = 3.0 * operations * f64::EPSILON / 2.0 * magnitude / H;
    let error = (slope - dot(&tangent, y_bar)).abs().max((slope - dot(x_dot, &backward)).abs());
    Agreement { error, bound: (coarse - fine).abs() / 3.0 + rounding }
}

/// `n` values as f64, none within 1/64 of zero (where ReLU has its kink).
fn values(stream: u64, n: usize) -> Vec<f64> {
    let apart = |x: f32| f64::from(x) + f64::copysign(1.0 / 64.0, f64::from(x));
    Inputs::new(500 + stream).values(n, 2.0).into_iter().map(apart).collect()
}

fn of_activation() -> Agreement {
    const N: usize = 50;
    let all =
        || Activation::ALL.into_iter().enumerate().flat_map(|(i, kind)| (i * N..(i + 1) * N).map(move |j| (kind, j)));
    let [x, x_dot, y_bar] = [0, 1, 2].map(|stream| values(stream, N * Activation::ALL.len()));
    let slope = |x: &[f64], by: &[f64]| -> Vec<f64> {
        all().map(|(kind, j)| activation::value_and_slope(kind, x[j]).1 * by[j]).collect()
    };
    // One elementary function (2 ulp) and a handful of roundings per element, and the sum of 200 terms.
    let operations = 16.0 + 200.0;
    agreement(
        [&x, &x_dot, &y_bar],
        operations,
        |x| all().map(|(kind, j)| activation::value_and_slope(kind, x[j]).0).collect(),
        slope(&x, &x_dot),
        slope(&x, &y_bar),
    )
}

fn of_norm(centered: bool) -> Agreement {
    const N: usize = 40;
    let [x, x_dot, y_bar] = [10, 11, 12].map(|stream| values(stream, N));
    let [weight, bias] = [13, 14].map(|stream| values(stream, N));
    let norm = Norm { weight: &weight[..], bias: centered.then_some(&bias[..]), eps: 1e-5, centered };
    // Two sums of 40, a square root, a division, the affine map, and the sum of 40 terms.
    let operations = 3.0 * 40.0 + 8.0;
    agreement(
        [&x, &x_dot, &y_bar],
        operations,
        |x| norm.forward(x),
        norm.tangent(&x, &x_dot, None),
        norm.backward(&x, &y_bar),
    )
}

fn of_softmax() -> Agreement {
    const N: usize = 23;
    let [x, x_dot, y_bar] = [20, 21, 22].map(|stream| values(stream, N));
    let p = softmax::forward(&x, 0..N);
    // An exponential (2 ulp), the sum of 23, a division, and the sum of 23 terms.
    let operations = 2.0 * 23.0 + 8.0;
    agreement(
        [&x, &x_dot, &y_bar],
        operations,
        |x| softmax::forward(x, 0..N),
        softmax::jacobian_product(&p, &x_dot, 0..N),
        softmax::jacobian_product(&p, &y_bar, 0..N),
    )
}

fn of_cross_entropy() -> Agreement {
    const N: usize = 31;
    let [x, x_dot] = [30, 31].map(|stream| values(stream, N));
    // The loss is a difference of two terms as large as the logits (4), a few times the loss itself.
    let operations = 4.0 * (31.0 + 8.0);
    agreement(
        [&x, &x_dot, &[1.0]],
        operations,
        |x| vec![cross_entropy::forward(x, 3)],
        vec![cross_entropy::tangent(&x, &x_dot, 3)],
        cross_entropy::backward(&x, 3, 1.0),
    )
}

fn of_attention() -> Agreement {
    const ROWS: usize = 9;
    let sequence =
        Sequence { queries: ROWS, keys: ROWS, heads: 2, kv_heads: 1, head_dim: 4, mask: Mask::Causal, scale: 0.5 };
    let (wide, narrow) = (ROWS * 8, ROWS * 4);
    let [x, x_dot] = [40, 41].map(|stream| values(stream, wide + 2 * narrow));
    let y_bar = values(42, wide);
    let split = |x: &[f64]| Matrices {
        q: x[..wide].to_vec(),
        k: x[wide..wide + narrow].to_vec(),
        v: x[wide + narrow..].to_vec(),
    };
    let bar = sequence.backward(&split(&x), &y_bar);
    // A score: 4 products and a scale, magnified by up to 4·4·0.5·4 in the exponent; two sums over 9 keys;
    // then the sum of 72 terms.
    let operations = 5.0 * 32.0 + 18.0 + 72.0;
    agreement(
        [&x, &x_dot, &y_bar],
        operations,
        |x| sequence.forward(&split(x)),
        sequence.tangent(&split(&x), &split(&x_dot)),
        [bar.q, bar.k, bar.v].concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_that_is_a_thousandth_off_does_not_hold() {
        let (x, x_dot) = ([0.3], [1.0]);
        let with_slope =
            |slope: f64| agreement([&x, &x_dot, &[1.0]], 4.0, |x| vec![x[0].powi(3)], vec![slope], vec![slope]);
        assert!(with_slope(0.27).holds());
        assert!(!with_slope(0.27 * 1.001).holds());
    }

    #[test]
    fn every_derivative_agrees_and_its_bound_is_small() {
        for check in CHECKS {
            let Claim::Agreement(measure) = check.claim else { panic!("{} is not an agreement", check.name) };
            let agreement = measure();
            assert!(agreement.holds(), "{}: {agreement:?}", check.name);
            assert!(agreement.bound < 1e-3, "{}: {agreement:?} would hide a wrong term", check.name);
        }
    }
}
