//! Thresholds against a sort, masks against their definition.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::{
    noise::Role,
    testing::{
        canonical_bits, everywhere,
        worlds::{Dual, Facts, World, uniform},
    },
};

fn context() -> Context {
    Context::new(crate::kernels::Isa::fastest())
}

/// Values of every kind, many of them of one magnitude.
fn value() -> impl Strategy<Value = f32> {
    let ties = prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.5, f32::MIN_POSITIVE, f32::INFINITY, f32::NAN]);
    prop_oneof![any::<u32>().prop_map(|bits| f32::from_bits(canonical_bits(f32::from_bits(bits)))), ties]
}

/// A matrix with its number of columns.
fn matrix() -> impl Strategy<Value = (Vec<f32>, usize)> {
    (1..=40_usize, 1..=40_usize).prop_flat_map(|(rows, cols)| (prop::collection::vec(value(), rows * cols), Just(cols)))
}

proptest! {
    #[test]
    fn the_nth_magnitude_is_the_one_that_a_sort_puts_there((values, cols) in matrix(), place in 0.0..1.0_f64) {
        let weight = WeightRef::f32(&values, values.len() / cols, cols);
        let nth = (place * values.len() as f64) as usize;
        let mut sorted: Vec<u32> = values.iter().map(|x| x.abs().to_bits()).collect();
        sorted.sort_unstable();
        prop_assert_eq!(nth_magnitude(&context(), weight, nth).to_bits(), sorted[nth]);
    }

    #[test]
    fn a_threshold_lets_through_the_share_that_is_not_left_out_and_no_more_than_equals_of_the_last(
        (values, cols) in matrix(),
        sparsity in 0.0..=1.0_f64,
    ) {
        let weight = WeightRef::f32(&values, values.len() / cols, cols);
        let found = threshold(&context(), weight, Share::new(sparsity));
        let part = (1.0 - sparsity) * values.len() as f64;
        let count = |takes_part: &dyn Fn(u32) -> bool| {
            values.iter().filter(|x| takes_part(x.abs().to_bits())).count() as f64
        };
        prop_assert!(found > 0.0 || found.is_nan());
        if found < f32::INFINITY {
            let (through, below) = (count(&|x| x <= found.to_bits()), count(&|x| x < found.to_bits()));
            // The share is rounded to whole values, of which there is one at least.
            prop_assert!(through >= part - 0.5 && below < f64::max(part + 0.5, 1.0), "{below} {part} {through}");
        }
    }
}

#[test]
fn without_sparsity_and_among_zeros_everything_takes_part() {
    let zeros_and_one = [0.0, -0.0, 0.0, 1.0];
    for (values, sparsity, expected) in [
        (&[1.0, 2.0, 3.0][..], 0.0, f32::INFINITY),
        (&[1.0, -2.0, 3.0], 0.34, 2.0),
        (&[3.0, -1.0, 2.0], 1.0, 1.0),
        (&[5.0], 0.99, f32::INFINITY),
        (&zeros_and_one, 0.25, f32::INFINITY),
        (&zeros_and_one, 0.5, f32::INFINITY),
    ] {
        let found = threshold(&context(), WeightRef::f32(values, 1, values.len()), Share::new(sparsity));
        assert_eq!(found, expected, "{values:?} {sparsity}");
    }
}

#[test]
fn masks_hold_the_values_up_to_the_threshold_with_the_same_bits_everywhere() {
    for (rows, cols) in [(1, 70), (1, 1), (3, 32), (17, 33), (40, 21)] {
        let values = uniform(rows * cols, 7);
        let (halves, brains): (Vec<f16>, Vec<bf16>) =
            values.iter().map(|&x| (f16::from_f32(x), bf16::from_f32(x))).unzip();
        for weight in [
            WeightRef::f32(&values, rows, cols),
            WeightRef::f16(&halves, rows, cols),
            WeightRef::bf16(&brains, rows, cols),
        ] {
            let expected = threshold(&context(), weight, Share::new(0.7));
            everywhere(|cx, label| {
                assert_eq!(threshold(cx, weight, Share::new(0.7)), expected, "{label}");
                let words = up_to(cx, weight, expected);
                let mask = Mask::new(&words, rows, cols);
                for at in 0..rows * cols {
                    let (row, col) = (at / cols, at % cols);
                    assert_eq!(mask.contains(row, col), weight.at(row, col).abs() <= expected, "{label}: {row} {col}");
                }
            });
        }
    }
}

/// A matrix, a vector and a frozen matrix, of which nothing is asked but their values.
fn tensors() -> World {
    let zeros = |n: usize| vec![0.0; n];
    let tensors = [
        ("matrix", &[60, 90][..], uniform(5400, 1), zeros(5400)),
        ("vector", &[700], uniform(700, 2), zeros(700)),
        ("frozen", &[2, 3], uniform(6, 3), zeros(6)),
    ];
    let facts = Facts { smoothness: 1.0, convexity: 0.0 };
    World::new(&tensors, &["frozen"], facts, Box::new(|_, _| vec![Dual::from(0.0)]))
}

#[test]
fn a_random_mask_is_that_of_its_key_and_leaves_out_the_share_it_says() {
    let world = tensors();
    let key = |epoch| NoiseKey::new(5, epoch, Role::Mask, 0);
    for sparsity in [0.0, 0.1, 0.5, 0.9, 1.0] {
        let masks = Masks::random(&world, key(2), Share::new(sparsity));
        assert_eq!(masks.words.keys().copied().collect::<Vec<_>>(), world.trainable());
        for (&id, words) in &masks.words {
            let param = &Space::params(&world)[id];
            let mask = Mask::new(words, param.rows(), param.cols());
            let places = || (0..param.elements()).map(|at| (at / param.cols(), at % param.cols()));
            let noise = key(2).tensor(param.noise_name());
            for (row, col) in places() {
                let u = noise.at(Law::Uniform, row as u64, col);
                assert_eq!(mask.contains(row, col), f64::from(u) < 1.0 - 2.0 * f64::from(sparsity as f32));
            }
            let left_out = places().filter(|&(row, col)| !mask.contains(row, col)).count() as f64;
            let (n, share) = (param.elements() as f64, sparsity);
            // Five standard deviations of a binomial count, which for 0 and 1 has none.
            let error = 5.0 * (n * share * (1.0 - share)).sqrt();
            assert!((left_out - n * share).abs() <= error, "{left_out} of {n} at {share}");
        }
        let other = Masks::random(&world, key(3), Share::new(sparsity));
        assert_eq!(masks.words == other.words, [0.0, 1.0].contains(&sparsity), "another epoch");
    }
}

#[test]
fn thresholds_are_of_the_first_weights_and_masks_of_the_present_ones() {
    let (mut world, mut thresholds) = (tensors(), Thresholds::default());
    let first = thresholds.masks(&world, Share::new(0.5));
    let sets = world.trainable().iter().map(|&id| (id, Direction::Weights));
    let double = crate::direction::Displacement::along(&Arc::new(DirectionSet::new(sets)), 1.0);
    crate::optim::Oracle::commit(&mut world, &double).expect("a toy");
    let second = thresholds.masks(&world, Share::new(0.5));
    let anew = Thresholds::default().masks(&world, Share::new(0.5));
    // All magnitudes have doubled: measured anew, the same values would be the smaller half.
    assert!(anew.words == first.words);
    let bits = |masks: &Masks| masks.words.values().flat_map(|words| words.iter()).map(|word| word.count_ones()).sum();
    let [before, after]: [u32; 2] = [bits(&first), bits(&second)];
    assert!(after < before && after > 0, "{after} of {before}");
    for (now, then) in second.words.values().zip(first.words.values()) {
        assert!(now.iter().zip(then.iter()).all(|(now, then)| now & !then == 0), "no value comes back by growing");
    }
}
