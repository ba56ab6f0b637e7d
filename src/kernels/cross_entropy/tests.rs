use proptest::prelude::*;

use super::*;
use crate::{
    kernels::twin,
    testing::{
        adjoint_gap, assert_same_bits, awkward_values, directional_derivative, edge_length, everywhere, moderate_values,
    },
};

/// Canonical bits: all NaNs are one.
fn bits(x: f64) -> u64 {
    if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() }
}

/// Labelled and ignored rows of a few examples, over `columns` columns.
fn targets_of(columns: usize) -> impl Strategy<Value = (Vec<Option<u32>>, Sequences)> {
    prop::collection::vec(0_usize..4, 0..4).prop_flat_map(move |lengths| {
        let rows: usize = lengths.iter().sum();
        let label = prop::option::weighted(0.8, 0..columns as u32);
        (prop::collection::vec(label, rows), Just(Sequences::from_lengths(lengths)))
    })
}

type Case = (usize, Vec<Option<u32>>, Sequences, Vec<f32>, Vec<f32>);

fn case() -> impl Strategy<Value = Case> {
    edge_length().prop_map(|n| n.max(1)).prop_flat_map(|columns| {
        targets_of(columns).prop_flat_map(move |(labels, examples)| {
            let n = labels.len() * columns;
            (Just(columns), Just(labels), Just(examples), awkward_values(n), awkward_values(n))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_instruction_set_has_the_bits_of_the_definition((columns, labels, examples, logits, dots) in case()) {
        let rows = labels.len();
        let row = |x: &[f32], r: usize| x[r * columns..(r + 1) * columns].to_vec();
        let sums = |value: &dyn Fn(usize, usize) -> f64| {
            let (mut per_example, mut total) = (vec![], 0.0);
            for rows in examples.iter() {
                let labelled = rows.filter_map(|r| labels[r].map(|label| (r, label as usize)));
                let sum = labelled.fold(0.0, |sum, (r, target)| sum + value(r, target));
                total += sum;
                per_example.push(bits(sum));
            }
            (per_example, bits(total))
        };
        let loss = sums(&|r, target| twin::cross_entropy::forward(&row(&logits, r), target));
        let slope = sums(&|r, target| twin::cross_entropy::tangent(&row(&logits, r), &row(&dots, r), target));
        let scale: Vec<f32> = (0..rows).map(|r| 0.3 + r as f32).collect();
        let gradient: Vec<f32> = (0..rows)
            .flat_map(|r| match labels[r] {
                Some(target) => twin::cross_entropy::backward(&row(&logits, r), target as usize, scale[r]),
                None => vec![0.0; columns],
            })
            .collect();
        let targets = Targets { vocabulary: Vocabulary::Full(columns), labels: &labels, examples: &examples };
        let (z, z_dot) = (MatRef::new(&logits, rows, columns), MatRef::new(&dots, rows, columns));
        everywhere(|cx, label| {
            let of = |sums: &Sums| (sums.per_example.iter().map(|&x| bits(x)).collect::<Vec<_>>(), bits(sums.total));
            assert_eq!(of(&forward(cx, &targets, z)), loss, "{label}, loss");
            assert_eq!(of(&tangent(cx, &targets, z, z_dot)), slope, "{label}, slope");
            let mut out = vec![f32::NAN; rows * columns];
            backward(cx, &targets, z, &scale, MatMut::new(&mut out, rows, columns));
            assert_same_bits(&out, &gradient, format!("{label}, gradient"));
        });
    }

    #[test]
    fn tangent_is_the_derivative_and_backward_its_adjoint(z in moderate_values(21), z_dot in moderate_values(21)) {
        let along = |t: f64| {
            let moved: Vec<f64> = z.iter().zip(&z_dot).map(|(z, dot)| z + t * dot).collect();
            vec![twin::cross_entropy::forward(&moved, 4)]
        };
        let slope = twin::cross_entropy::tangent(&z, &z_dot, 4);
        // max − z ≤ 6 and ln Σ ≤ 3.1 err by a few roundings each, ln of a relative error of 2 ulp by as much: < 5e-15.
        let estimate = directional_derivative(5e-15, along)[0];
        prop_assert!(estimate.admits(slope), "{estimate:?} does not admit {slope}");
        let gradient = twin::cross_entropy::backward(&z, 4, 1.0);
        // Both sides are Σ p ż − ż[4]; p errs by exp, a sum of 21 and a quotient: 30 roundings.
        let ones = vec![1.0; 21];
        let terms: Vec<f64> = gradient.iter().zip(&z_dot).map(|(g, dot)| g * dot).collect();
        let softmax: Vec<f64> = gradient.iter().enumerate().map(|(i, g)| if i == 4 { g + 1.0 } else { *g }).collect();
        let mut split: Vec<f64> = softmax.iter().zip(&z_dot).map(|(p, dot)| p * dot).collect();
        split.push(-z_dot[4]);
        let direct = [slope];
        prop_assert!(adjoint_gap(30, (&direct, &[1.0]), (&terms, &ones)) * magnitude(&terms, slope) <= magnitude(&split, slope));
    }
}

/// Σ|terms| + |slope|: the slope cancels `−ż[label]` against a sum, so its error is in units of the larger terms.
fn magnitude(terms: &[f64], slope: f64) -> f64 {
    terms.iter().map(|x| x.abs()).sum::<f64>() + slope.abs()
}

/// The loss of one row on the fastest instruction set.
fn loss_of(logits: &[f32], label: u32) -> f64 {
    let examples = Sequences::from_lengths([1]);
    let targets = Targets { vocabulary: Vocabulary::Full(logits.len()), labels: &[Some(label)], examples: &examples };
    let cx = Context::new(crate::simd::Isa::fastest());
    forward(&cx, &targets, MatRef::new(logits, 1, logits.len())).total
}

#[test]
fn a_uniform_row_costs_the_logarithm_of_its_length() {
    // ln errs by at most 2 ulp, 4.5e-16 relative; everything before it is exact here.
    for n in [1, 2, 10, 49_152] {
        let exact = (n as f64).ln();
        assert!((loss_of(&vec![3.25; n], 0) - exact).abs() <= 4.5e-16 * exact, "{n}");
    }
}

#[test]
fn the_sum_over_a_large_vocabulary_is_right_to_thirty_two_bits_of_its_terms() {
    // 131,072 different terms of 16 lanes: a plain f32 lane of 8,192 terms would err by up to 8,192 · 2⁻²⁴.
    let logits: Vec<f32> = (0..131_072).map(|i| -((i % 1021) as f32) / 512.0).collect();
    let terms: f64 = logits.iter().map(|&z| f64::from(math::exp(crate::simd::Scalar, z))).sum();
    // The compensated sum errs by n²·2⁻⁴⁸ of Σ|terms| at most in each lane (Ogita, Rump & Oishi 2005, Sum2):
    // far below one ulp of the f64 reference sum times its 131,072 additions, 1.5e-11.
    let difference = (loss_of(&logits, 0) - terms.ln()).abs();
    assert!(difference <= 131_072.0 * f64::EPSILON + 8192.0_f64.powi(2) * 2.0_f64.powi(-48), "{difference:e}");
}

#[test]
fn nan_and_infinity_reach_the_loss_unless_the_row_is_ignored() {
    assert!(loss_of(&[0.0, f32::NAN, 1.0], 0).is_nan());
    assert!(loss_of(&[f32::INFINITY, 0.0], 0).is_nan());
    assert_eq!(loss_of(&[0.0, f32::NEG_INFINITY], 1), f64::INFINITY);
    let examples = Sequences::from_lengths([2]);
    let targets = Targets { vocabulary: Vocabulary::Full(2), labels: &[None, Some(0)], examples: &examples };
    let cx = Context::new(crate::simd::Isa::fastest());
    let sums = forward(&cx, &targets, MatRef::new(&[f32::NAN, 0.0, 0.0, 0.0], 2, 2));
    assert_eq!((sums.count(), sums.total.is_finite()), (1, true));
}

#[test]
fn labels_follow_the_conventions_of_data_sets() {
    assert_eq!((label(-100), label(5), label(-1), label(1 << 32)), (Ok(None), Ok(Some(5)), Err(-1), Err(1 << 32)));
    let words = Vocabulary::Only(&[7, 3]);
    assert_eq!((words.column(3), words.column(0), words.len()), (Some(1), None, 2));
    assert_eq!((Vocabulary::Full(4).column(3), Vocabulary::Full(4).column(4)), (Some(3), None));
}

#[test]
#[should_panic(expected = "row 0 has label 2, which is not among 2 ids")]
fn a_label_without_a_column_is_refused() {
    loss_of(&[0.0, 1.0], 2);
}
