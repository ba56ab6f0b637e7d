//! The derivatives of `y = x Wᵀ (+ bias)`: forward mode and reverse mode. The bias gradient is
//! [`crate::kernels::elementwise::add_bias_backward`].

use super::{
    Chain, Context, Left, MatMut, MatRef, PanelSource, empty_product, multiply,
    panel::{ByInput, Plain},
    tile::Start,
};
use crate::{kernels::Profile, tensor::Sequences};

/// Forward mode: `ẏ = ẋ Wᵀ + x Ẇᵀ (+ ḃias)`, the second product continuing the chains of the first.
///
/// Shapes: `x`, `x_dot` `[m, k]`; `w`, `w_dot` `[n, k]`; `bias_dot` `[n]`; `y_dot` `[m, n]`. A part
/// that does not move is `None`.
///
/// # Panics
/// If the shapes do not fit.
pub fn tangent<W: PanelSource, D: PanelSource>(
    cx: &Context,
    (x, x_dot): (MatRef<'_>, Option<MatRef<'_>>),
    (w, w_dot): (&W, Option<&D>),
    bias_dot: Option<&[f32]>,
    mut y_dot: MatMut<'_>,
) {
    let bias = |last: bool| bias_dot.filter(|_| last);
    match x_dot {
        Some(x_dot) => {
            let chain = Chain { start: Start::Zero, bias: bias(w_dot.is_none()) };
            multiply(cx, Left::Rows(x_dot), w, None, chain, y_dot.reborrow());
        }
        None => {
            let chain = Chain { start: Start::Zero, bias: bias(w_dot.is_none()) };
            y_dot.reborrow().into_rows().for_each(|row| empty_product(row, chain));
        }
    }
    if let Some(w_dot) = w_dot {
        multiply(cx, Left::Rows(x), w_dot, None, Chain { start: Start::Continue, bias: bias_dot }, y_dot);
    }
}

/// Reverse mode, the input: `dx (+)= dy W`, each chain over output features ascending.
///
/// Shapes: `dy` `[m, n]`, `w` `[n, k]`, `dx` `[m, k]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn input<W: PanelSource>(cx: &Context, dy: MatRef<'_>, w: &W, accumulate: bool, dx: MatMut<'_>) {
    let start = if accumulate { Start::Continue } else { Start::Zero };
    multiply(cx, Left::Rows(dy), &ByInput(w), None, Chain { start, bias: None }, dx);
}

/// Reverse mode, the weight: `dw += dyᵀ x`, each chain over tokens in batch order, continuing in `dw`.
///
/// Shapes: `dy` `[t, n]`, `x` `[t, k]`, `dw` `[n, k]`, where `t` rows are the `examples` end to end. In
/// `strict-bf16` tokens pair within their example, an odd last one with nothing, so that no
/// micro-batch split changes a bit.
///
/// # Panics
/// If the shapes do not fit.
pub fn weight(cx: &Context, dy: MatRef<'_>, x: MatRef<'_>, examples: &Sequences, mut dw: MatMut<'_>) {
    assert!(
        dy.rows() == x.rows() && dy.rows() == examples.total(),
        "dy [{}, {}] and x [{}, {}] for {} tokens",
        dy.rows(),
        dy.cols(),
        x.rows(),
        x.cols(),
        examples.total()
    );
    let chain = Chain { start: Start::Continue, bias: None };
    if cx.profile == Profile::StrictF32 {
        return multiply(cx, Left::Columns(dy), &Plain(x), None, chain, dw);
    }
    for tokens in examples.iter().filter(|tokens| !tokens.is_empty()) {
        let part = |of: MatRef<'_>| {
            let (from, to) = (tokens.start * of.stride(), (tokens.end - 1) * of.stride() + of.cols());
            (from..to, tokens.len(), of.cols(), of.stride())
        };
        let (dy_span, rows, cols, stride) = part(dy);
        let own_dy = MatRef::with_stride(&dy.data()[dy_span], rows, cols, stride);
        let (x_span, rows, cols, stride) = part(x);
        let own_x = MatRef::with_stride(&x.data()[x_span], rows, cols, stride);
        multiply(cx, Left::Columns(own_dy), &Plain(own_x), None, chain, dw.reborrow());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        kernels::twin::matmul::{product, product_bf16},
        tensor::WeightRef,
        testing::{adjoint_gap, assert_same_bits, awkward_values, directional_derivative, everywhere, moderate_values},
    };

    type Matrix<'a> = &'a dyn Fn(usize, usize) -> f32;

    /// Tokens of each example, features in, features out.
    fn shapes() -> impl Strategy<Value = (Vec<usize>, usize, usize)> {
        let edge = || prop::sample::select(vec![1_usize, 2, 3, 5, 15, 16, 17, 33]);
        (prop::collection::vec(prop::sample::select(vec![0_usize, 1, 2, 3, 8, 13]), 1..4), edge(), edge())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn derivatives_give_the_bits_of_their_definitions(
            (lengths, k, n, dy, x, w, w_dot, before) in shapes().prop_flat_map(|(lengths, k, n)| {
                let t: usize = lengths.iter().sum();
                (Just(lengths), Just(k), Just(n), awkward_values(t * n), awkward_values(t * k),
                 awkward_values(n * k), awkward_values(n * k), awkward_values(n * k))
            }),
            bf16 in any::<bool>(),
        ) {
            let examples = Sequences::from_lengths(lengths);
            let t = examples.total();
            let define = |shape, x: Matrix<'_>, w: Matrix<'_>, start: Matrix<'_>| {
                if bf16 { product_bf16(shape, x, w, start) } else { product(shape, x, w, start) }
            };
            let zero = |_: usize, _: usize| 0.0;
            let (at_x, at_dy) = (|i: usize, l: usize| x[i * k + l], |i: usize, j: usize| dy[i * n + j]);
            let dx = define((t, n, k), &at_dy, &|l, j| w[j * k + l], &zero);
            let moved = define((t, k, n), &at_x, &|j, l| w[j * k + l], &zero);
            let y_dot = define((t, k, n), &at_x, &|j, l| w_dot[j * k + l], &|i, j| moved[i * n + j]);
            let mut dw = before.clone();
            for tokens in examples.iter() {
                let (of_dy, of_x) = (|j, i| at_dy(tokens.start + i, j), |l, i| at_x(tokens.start + i, l));
                dw = define((n, tokens.len(), k), &of_dy, &of_x, &|j, l| dw[j * k + l]);
            }
            everywhere(|cx, label| {
                let cx = &cx.clone().with_profile(if bf16 { Profile::StrictBf16 } else { Profile::StrictF32 });
                let (weight, direction) = (WeightRef::f32(&w, n, k), WeightRef::f32(&w_dot, n, k));
                let (x, dy) = (MatRef::new(&x, t, k), MatRef::new(&dy, t, n));
                let (mut got_dx, mut got_dw, mut got_y) = (vec![0.0; t * k], before.clone(), vec![0.0; t * n]);
                input(cx, dy, &weight, false, MatMut::new(&mut got_dx, t, k));
                assert_same_bits(&got_dx, &dx, format_args!("input, {label}"));
                super::weight(cx, dy, x, &examples, MatMut::new(&mut got_dw, n, k));
                assert_same_bits(&got_dw, &dw, format_args!("weight, {label}"));
                tangent(cx, (x, Some(x)), (&weight, Some(&direction)), None, MatMut::new(&mut got_y, t, n));
                assert_same_bits(&got_y, &y_dot, format_args!("tangent, {label}"));
            });
        }

        #[test]
        fn definitions_agree_with_finite_differences_and_the_adjoint_identity(
            (t, k, n, x, x_dot, w, w_dot, dy) in (1_usize..5, 1_usize..6, 1_usize..5).prop_flat_map(|(t, k, n)| {
                (Just(t), Just(k), Just(n), moderate_values(t * k), moderate_values(t * k),
                 moderate_values(n * k), moderate_values(n * k), moderate_values(t * n))
            }),
        ) {
            let at = |m: &[f64], cols: usize| { let m = m.to_vec(); move |i: usize, l: usize| m[i * cols + l] };
            let zero = |_: usize, _: usize| 0.0;
            let moved = product((t, k, n), at(&x_dot, k), at(&w, k), zero);
            let y_dot = product((t, k, n), at(&x, k), at(&w_dot, k), |i, j| moved[i * n + j]);
            let curve = |s: f64| {
                let along = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + s * b).collect() };
                product((t, k, n), at(&along(&x, &x_dot), k), at(&along(&w, &w_dot), k), zero)
            };
            // k products of magnitude below 3.02² < 10 (`moderate_values`), at most k + 1 roundings of 2⁻⁵³ each.
            let noise = (k * (k + 1)) as f64 * 10.0 * f64::EPSILON / 2.0;
            for (estimate, &analytic) in directional_derivative(noise, curve).into_iter().zip(&y_dot) {
                prop_assert!(estimate.admits(analytic), "{estimate:?} against {analytic}");
            }
            let dx = product((t, n, k), at(&dy, n), |l, j| w[j * k + l], zero);
            let dw = product((n, t, k), |j, i| dy[i * n + j], |l, i| x[i * k + l], zero);
            let (right_a, right_b) = ([&x_dot[..], &w_dot].concat(), [&dx[..], &dw].concat());
            prop_assert!(adjoint_gap(2 * (k + n + t), (&y_dot, &dy), (&right_a, &right_b)) <= 1.0);
        }
    }
}
