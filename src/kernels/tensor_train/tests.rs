use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    kernels::twin::tensor_train as twin,
    testing::{adjoint_gap, assert_same_bits, awkward, directional_derivative, everywhere, moderate_values},
};

/// The `l` of each core and after the last its `r`; the slices of each core.
#[derive(Clone, Debug)]
struct Shape {
    ranks: Vec<usize>,
    modes: Vec<usize>,
}

impl Shape {
    fn elements(&self) -> Vec<usize> {
        self.modes.iter().enumerate().map(|(at, mode)| self.ranks[at] * mode * self.ranks[at + 1]).collect()
    }

    /// Values of the train.
    fn train(&self) -> usize {
        self.ranks[0] * self.modes.iter().product::<usize>() * self.ranks[self.modes.len()]
    }

    /// `values`, cut into cores.
    fn cut<T: Copy>(&self, values: &[T]) -> Vec<(usize, Vec<T>)> {
        let mut rest = values.iter().copied();
        self.ranks.iter().zip(self.elements()).map(|(&left, len)| (left, rest.by_ref().take(len).collect())).collect()
    }

    /// Cores of the definition as the kernel reads them.
    fn view<'a>(&self, cores: &'a [(usize, Vec<f32>)]) -> Vec<Core<'a>> {
        cores.iter().zip(&self.ranks[1..]).map(|((_, core), &right)| Core::new(core, right)).collect()
    }
}

fn shapes(sizes: &'static [usize]) -> impl Strategy<Value = Shape> {
    let size = move || prop::sample::select(sizes);
    (1_usize..4).prop_flat_map(move |cores| {
        (vec(size(), cores + 1), vec(size(), cores)).prop_map(|(ranks, modes)| Shape { ranks, modes })
    })
}

fn values<T: Clone>(cores: &[(usize, Vec<T>)]) -> Vec<Vec<T>> {
    cores.iter().map(|(_, core)| core.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn values_changes_and_gradients_have_the_bits_of_their_definitions(
        (shape, cores, moved, bar) in shapes(&[1, 2, 3, 5, 9]).prop_flat_map(|shape| {
            let (len, train) = (shape.elements().iter().sum::<usize>(), shape.train());
            (Just(shape), vec(awkward(), len), vec(awkward(), len), vec(awkward(), train))
        }),
    ) {
        let (cores, moved) = (shape.cut(&cores), shape.cut(&moved));
        let (value, change) = (twin::forward(&cores), twin::tangent(&cores, &values(&moved)));
        let gradients = twin::backward(&cores, &bar);
        let (cores, moved) = (shape.view(&cores), shape.view(&moved).into_iter().map(Some).collect::<Vec<_>>());
        everywhere(|cx, label| {
            assert_same_bits(&forward(cx, &cores), &value, format_args!("forward, {label}"));
            let found = tangent(cx, &cores, &moved).expect("every core changes");
            assert_same_bits(&found, &change, format_args!("tangent, {label}"));
            for (found, expected) in backward(cx, &cores, bar.clone()).iter().zip(&gradients) {
                assert_same_bits(found, expected, format_args!("backward, {label}"));
            }
        });
    }

    #[test]
    fn a_core_that_does_not_change_adds_nothing(
        (shape, cores, moved, chosen) in shapes(&[1, 2, 3, 5]).prop_flat_map(|shape| {
            let (len, count) = (shape.elements().iter().sum::<usize>(), shape.modes.len());
            (Just(shape), vec(-3.0_f32..3.0, len), vec(-3.0_f32..3.0, len), vec(any::<bool>(), count))
        }),
    ) {
        let (cores, moved) = (shape.cut(&cores), shape.cut(&moved));
        let zero = |(moved, &chosen): (Vec<f32>, &bool)| if chosen { moved } else { vec![0.0; moved.len()] };
        let expected = twin::tangent(&cores, &values(&moved).into_iter().zip(&chosen).map(zero).collect::<Vec<_>>());
        let moved = shape.view(&moved).into_iter().zip(&chosen).map(|(core, &chosen)| chosen.then_some(core));
        let cx = Context::new(crate::simd::Isa::fastest());
        match tangent(&cx, &shape.view(&cores), &moved.collect::<Vec<_>>()) {
            // A sum with a zero is the same number.
            Some(found) => prop_assert_eq!(found, expected),
            None => prop_assert!(!chosen.contains(&true)),
        }
    }

    #[test]
    fn definitions_agree_with_finite_differences_and_the_adjoint_identity(
        (shape, cores, moved, bar) in shapes(&[1, 2, 3]).prop_flat_map(|shape| {
            let (len, train) = (shape.elements().iter().sum::<usize>(), shape.train());
            (Just(shape), moderate_values(len), moderate_values(len), moderate_values(train))
        }),
    ) {
        let (cores, moved) = (shape.cut(&cores), shape.cut(&moved));
        let change = twin::tangent(&cores, &values(&moved));
        let curve = |s: f64| {
            let along = |(a, b): (&f64, &f64)| a + s * b;
            let mut at = cores.clone();
            for ((_, core), (_, moved)) in at.iter_mut().zip(&moved) {
                *core = core.iter().zip(moved).map(along).collect();
            }
            twin::forward(&at)
        };
        // At most 9 products of three values below 3.02 (`moderate_values`), 3 + 3 roundings of each.
        let noise = 9.0 * 28.0 * 6.0 * f64::EPSILON / 2.0;
        for (estimate, &analytic) in directional_derivative(noise, curve).into_iter().zip(&change) {
            prop_assert!(estimate.admits(analytic), "{estimate:?} against {analytic}");
        }
        let gradients = twin::backward(&cores, &bar).concat();
        // The ranks of a change, twice; of a gradient sums over up to 81 rows, then over up to 9 columns twice.
        let moved = values(&moved).concat();
        prop_assert!(adjoint_gap(2 * (3 + 3 + 81 + 9 + 9), (&change, &bar), (&moved, &gradients)) <= 1.0);
    }
}

#[test]
#[should_panic(expected = "a core of 4 values after 3")]
fn a_core_that_does_not_follow_is_our_bug() {
    let cx = Context::new(crate::simd::Isa::fastest());
    forward(&cx, &[Core::new(&[1.0; 6], 3), Core::new(&[1.0; 4], 2)]);
}
