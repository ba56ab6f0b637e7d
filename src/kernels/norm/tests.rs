use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    kernels::twin::{Real, norm as twin},
    testing::{
        adjoint_gap, assert_same_bits, awkward, awkward_values, directional_derivative, edge_length, everywhere,
        moderate_values,
    },
};

/// `LayerNorm` with and without bias, and `RMSNorm` (which has none): (centered, biased).
const KINDS: [(bool, bool); 3] = [(true, true), (true, false), (false, false)];

fn kernel_norm<'a>((centered, biased): (bool, bool), weight: &'a [f32], bias: &'a [f32], eps: f32) -> Norm<'a> {
    if centered { Norm::layer(weight, biased.then_some(bias), eps) } else { Norm::rms(weight, eps) }
}

fn twin_norm<'a, R: Real>(
    (centered, biased): (bool, bool),
    weight: &'a [R],
    bias: &'a [R],
    eps: R,
) -> twin::Norm<'a, R> {
    twin::Norm { weight, bias: biased.then_some(bias), eps, centered }
}

/// Rows, columns, three matrices and four vectors.
fn case() -> impl Strategy<Value = (usize, usize, [Vec<f32>; 3], [Vec<f32>; 4])> {
    (edge_length(), edge_length()).prop_flat_map(|(rows, cols)| {
        let matrices = [(); 3].map(|()| vec(awkward(), rows * cols));
        (Just(rows), Just(cols), matrices, [(); 4].map(|()| awkward_values(cols)))
    })
}

fn by_rows(cols: usize, a: &[f32], b: &[f32], f: impl Fn(&[f32], &[f32]) -> Vec<f32>) -> Vec<f32> {
    if cols == 0 {
        return Vec::new();
    }
    a.chunks(cols).zip(b.chunks(cols)).flat_map(|(a, b)| f(a, b)).collect()
}

proptest! {
    #[test]
    fn every_function_gives_the_bits_of_its_definition(
        (rows, cols, [x, d, held], [weight, bias, dweight, dbias]) in case(),
        kind in prop::sample::select(&KINDS),
        eps in prop::sample::select(&[1e-5_f32, 0.0]),
    ) {
        let norm = kernel_norm(kind, &weight, &bias, eps);
        let definition = twin_norm(kind, &weight, &bias, eps);
        let changes = [None, Some((dweight.as_slice(), None)), Some((dweight.as_slice(), Some(dbias.as_slice())))];
        let value = by_rows(cols, &x, &d, |x, _| definition.forward(x));
        let tangents = changes.map(|change| by_rows(cols, &x, &d, |x, dx| definition.tangent(x, dx, change)));
        let gradient = by_rows(cols, &x, &d, |x, dy| definition.backward(x, dy));
        let joined: Vec<f32> = held.iter().zip(&gradient).map(|(held, dx)| held + dx).collect();
        let (mut sums, mut shifts) = (dweight.clone(), dbias.clone());
        for (x, dy) in x.chunks(cols.max(1)).zip(d.chunks(cols.max(1))) {
            definition.backward_parameters(x, dy, &mut sums, Some(&mut shifts));
        }
        let [x, d] = [&x, &d].map(|data| MatRef::new(data, rows, cols));
        everywhere(|cx, label| {
            let check = |kernel: &dyn Fn(MatMut<'_>), expected: &[f32], name: &str| {
                let mut out = held.clone();
                kernel(MatMut::new(&mut out, rows, cols));
                assert_same_bits(&out, expected, format_args!("{name} of {kind:?}, {label}"));
            };
            check(&|y| forward(cx, norm, x, y), &value, "forward");
            for (change, expected) in changes.iter().zip(&tangents) {
                let change = change.map(|(weight, bias)| NormTangent { weight, bias });
                check(&|y| tangent(cx, norm, x, d, change, y), expected, "tangent");
            }
            check(&|dx| backward(cx, norm, x, d, Store::Write, dx), &gradient, "backward");
            check(&|dx| backward(cx, norm, x, d, Store::Add, dx), &joined, "added backward");
            let (mut w, mut b) = (dweight.clone(), dbias.clone());
            backward_parameters(cx, norm, x, d, NormGradient { weight: &mut w, bias: Some(&mut b) });
            assert_same_bits(&w, &sums, format_args!("weight gradient of {kind:?}, {label}"));
            assert_same_bits(&b, &shifts, format_args!("bias gradient of {kind:?}, {label}"));
        });
    }

    #[test]
    fn derivatives_are_those_of_the_values(
        [x, dx, dy, weight, bias, dweight, dbias] in (2_usize..40).prop_flat_map(|n| [(); 7].map(|()| moderate_values(n))),
        kind in prop::sample::select(&KINDS),
    ) {
        // eps of the size of the variance keeps every derivative moderate: the curve below is then smooth on the
        // scale of the differences, 2⁻⁸.
        let eps = 1.0;
        let definition = twin_norm(kind, &weight, &bias, eps);
        let moved = |from: &[f64], by: &[f64], t: f64| -> Vec<f64> { from.iter().zip(by).map(|(x, d)| x + t * d).collect() };
        // x̂ has |x̂| ≤ 6 and comes of about n + 8 roundings, the result of two more at size 6·3 + 3 < 24:
        // the evaluation noise is below (n + 10)·2⁻⁵³·24.
        let noise = (x.len() + 10) as f64 * f64::EPSILON / 2.0 * 24.0;
        let estimates = directional_derivative(noise, |t| {
            let (x, weight, bias) = (moved(&x, &dx, t), moved(&weight, &dweight, t), moved(&bias, &dbias, t));
            twin_norm(kind, &weight, &bias, eps).forward(&x)
        });
        let change = Some((dweight.as_slice(), kind.1.then_some(dbias.as_slice())));
        for (i, (estimate, tangent)) in estimates.iter().zip(definition.tangent(&x, &dx, change)).enumerate() {
            prop_assert!(estimate.admits(tangent), "{kind:?}, element {i}: {estimate:?} but {tangent}");
        }

        let input_tangent = definition.tangent(&x, &dx, None);
        let input_gradient = definition.backward(&x, &dy);
        // Each term of either side comes of two means (n roundings each) and about ten more, of intermediate
        // values up to 6·6 times the term: 36·(2n + 10) units.
        let operations = 36 * (2 * x.len() + 10);
        let gap = adjoint_gap(operations, (&input_tangent, &dy), (&dx, &input_gradient));
        prop_assert!(gap <= 1.0, "{kind:?}: input adjoint off by {gap} bounds");

        let zero = vec![0.0; x.len()];
        let parameter_tangent = definition.tangent(&x, &zero, change);
        let (mut gradient, mut shift) = (zero.clone(), zero.clone());
        definition.backward_parameters(&x, &dy, &mut gradient, Some(&mut shift));
        let (mut direction, mut both) = (dweight.clone(), gradient);
        if kind.1 {
            direction.extend(&dbias);
            both.extend(&shift);
        }
        let gap = adjoint_gap(operations, (&parameter_tangent, &dy), (&direction, &both));
        prop_assert!(gap <= 1.0, "{kind:?}: parameter adjoint off by {gap} bounds");
    }
}

#[test]
fn a_row_of_known_moments_is_normalised() {
    // (1, 3) has mean 2 and variance 1; (3, 4) has mean square 25/2.
    let layer = twin::Norm { weight: &[1.0, 1.0], bias: Some(&[0.5, 0.5]), eps: 0.0, centered: true };
    assert_eq!(layer.forward(&[1.0_f64, 3.0]), [-0.5, 1.5]);
    let rms = twin::Norm { weight: &[1.0, 1.0], bias: None, eps: 0.0, centered: false };
    let root = 12.5_f64.sqrt();
    assert_eq!(rms.forward(&[3.0, 4.0]), [3.0 * (1.0 / root), 4.0 * (1.0 / root)]);
}

#[test]
fn a_row_whose_variance_underflows_is_padded_as_defined() {
    // eps = 0 and squares below the subnormals: 1/√0 = ∞, so a pad before normalisation would be 0·∞.
    let (x, dx, weight) = ([1e-30_f32; 17], [2.0; 17], [1.5; 17]);
    let definition = twin::Norm { weight: &weight, bias: None, eps: 0.0, centered: false };
    let expected = definition.tangent(&x, &dx, None);
    assert!(expected.iter().all(|y| *y == f32::NEG_INFINITY), "{expected:?}");
    everywhere(|cx, label| {
        let (mut dy, norm) = ([0.0; 17], Norm::rms(&weight, 0.0));
        let [x, dx] = [&x, &dx].map(|data| MatRef::new(data, 1, 17));
        tangent(cx, norm, x, dx, None, MatMut::new(&mut dy, 1, 17));
        assert_same_bits(&dy, &expected, label);
    });
}

#[test]
fn gradients_of_a_split_batch_continue_in_the_buffer() {
    let (rows, cols) = (301, 131);
    let x: Vec<f32> = (0..rows * cols).map(|i| (i % 97) as f32 * 0.37 - 11.0).collect();
    let dy: Vec<f32> = (0..rows * cols).map(|i| (i % 89) as f32 * 0.013 - 0.5).collect();
    let weight = vec![1.5; cols];
    everywhere(|cx, label| {
        let norm = Norm::layer(&weight, None, 1e-5);
        let gradient = |bounds: &[usize]| {
            let (mut w, mut b) = (vec![0.0; cols], vec![0.0; cols]);
            for part in bounds.windows(2) {
                let range = part[0] * cols..part[1] * cols;
                let [x, dy] = [&x, &dy].map(|data| MatRef::new(&data[range.clone()], part[1] - part[0], cols));
                backward_parameters(cx, norm, x, dy, NormGradient { weight: &mut w, bias: Some(&mut b) });
            }
            [w, b].concat()
        };
        assert_same_bits(&gradient(&[0, 100, 101, rows]), &gradient(&[0, rows]), label);
    });
}

#[test]
fn one_nan_spoils_its_row_and_no_other() {
    let (rows, cols, weight) = (3, 33, [1.0; 33]);
    let mut x = vec![0.25; rows * cols];
    x[cols + 32] = f32::NAN;
    everywhere(|cx, label| {
        let mut y = vec![0.0; rows * cols];
        forward(cx, Norm::rms(&weight, 1e-6), MatRef::new(&x, rows, cols), MatMut::new(&mut y, rows, cols));
        for (t, row) in y.chunks(cols).enumerate() {
            assert!(row.iter().all(|y| y.is_nan() == (t == 1)), "row {t}, {label}");
        }
    });
}

#[test]
#[should_panic(expected = "y [2, 3], x [2, 4]")]
fn a_wrong_shape_is_named_beside_the_right_one() {
    let cx = Context::new(crate::simd::Isa::fastest());
    let mut y = [0.0; 6];
    forward(&cx, Norm::rms(&[1.0; 4], 1e-6), MatRef::new(&[0.0; 8], 2, 4), MatMut::new(&mut y, 2, 3));
}
