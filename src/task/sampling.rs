//! Which examples are learnt from, which choose the best checkpoint, and in which order they come.
//!
//! *What must stay true.* Everything is a function of the seed, the pool and the number of the draw (contract C2): no
//! cursor, so that a run that is resumed sees the same batches. The orders are part of what a journal means.

use crate::noise::{NoiseKey, Role};

/// The share of `train` that becomes `dev` where no number is given, as a divisor, and the most that is taken.
const DEV_DIVISOR: usize = 5;
const MAX_DEFAULT_DEV: usize = 500;

/// What a shuffle is for: the tensor of its noise.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Shuffle {
    Batches = 0,
    Subsets = 1,
}

/// The numbers of the examples of `train`, by use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsets {
    /// Learnt from.
    pub train: Vec<usize>,
    /// Used for the best checkpoint, early stopping and grids.
    pub dev: Vec<usize>,
}

/// More examples are asked for than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "num_train {num_train} and num_dev {num_dev} need {}, but the training file has {available} examples; lower one of them",
    num_train.saturating_add(*num_dev)
)]
pub struct TooFewExamples {
    /// For training.
    pub num_train: usize,
    /// For `dev`.
    pub num_dev: usize,
    /// What there is.
    pub available: usize,
}

impl Subsets {
    /// Draws subsets of `available` examples: the first `num_train` of a seeded permutation, then `num_dev`. Without
    /// `num_dev` a fifth, at most 500; without `num_train` all that is left.
    ///
    /// # Errors
    /// [`TooFewExamples`], also where nothing would be left to learn from.
    pub fn draw(
        available: usize,
        num_train: Option<usize>,
        num_dev: Option<usize>,
        seed: u64,
    ) -> Result<Subsets, TooFewExamples> {
        let num_dev = num_dev.unwrap_or_else(|| (available / DEV_DIVISOR).min(MAX_DEFAULT_DEV));
        let num_train = num_train.unwrap_or_else(|| available.saturating_sub(num_dev).max(1));
        if num_train.checked_add(num_dev).is_none_or(|sum| sum > available) {
            return Err(TooFewExamples { num_train, num_dev, available });
        }
        let order = permutation(available, NoiseKey::new(seed, 0, Role::DataOrder, 0), Shuffle::Subsets);
        let (train, rest) = order.split_at(num_train);
        Ok(Subsets { train: train.to_vec(), dev: rest[..num_dev].to_vec() })
    }
}

/// The batches of a pool of examples: every example once, in a new order, before any comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    seed: u64,
    pool: u32,
    examples: usize,
}

impl Batches {
    /// The batches of `examples` examples; pools of one seed have orders of their own.
    ///
    /// # Panics
    /// If there is no example.
    pub fn new(examples: usize, pool: u32, seed: u64) -> Batches {
        assert!(examples > 0, "batches of nothing");
        Batches { seed, pool, examples }
    }

    /// How often all examples come before those of batch `number` of `size` examples.
    pub fn epoch(&self, number: u64, size: usize) -> u64 {
        number.wrapping_mul(size as u64) / self.examples as u64
    }

    /// Batch `number` of `size` examples, by their numbers: the places from `number · size` of all orders end to end.
    pub fn draw(&self, number: u64, size: usize) -> Vec<usize> {
        let examples = self.examples as u64;
        let first = number.wrapping_mul(size as u64);
        let mut batch = Vec::with_capacity(size);
        let (mut epoch, mut at) = (first / examples, (first % examples) as usize);
        while batch.len() < size {
            let order = permutation(
                self.examples,
                NoiseKey::new(self.seed, epoch, Role::DataOrder, self.pool),
                Shuffle::Batches,
            );
            let end = self.examples.min(at + (size - batch.len()));
            batch.extend_from_slice(&order[at..end]);
            (epoch, at) = (epoch + 1, 0);
        }
        batch
    }
}

/// A permutation of `0..len` (Fisher and Yates), each equally likely.
fn permutation(len: usize, key: NoiseKey, shuffle: Shuffle) -> Vec<usize> {
    let mut generator = key.tensor(shuffle as u64).generator(0, 0);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        let bound = u32::try_from(last + 1).expect("a data file has less than 2³² rows");
        order.swap(last, below(bound, || rand_pcg::rand_core::Rng::next_u32(&mut generator)) as usize);
    }
    order
}

/// A number below `bound`, each equally likely (Lemire, "Fast random integer generation in an interval", 2019).
fn below(bound: u32, mut draw: impl FnMut() -> u32) -> u32 {
    let rejected = bound.wrapping_neg() % bound;
    loop {
        let product = u64::from(draw()) * u64::from(bound);
        if product as u32 >= rejected {
            return (product >> 32) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_are_fixed_for_journals_depend_on_them() {
        // From docs/noise.md, Fisher-Yates and Lemire's rule in another language.
        assert_eq!(Batches::new(10, 0, 1).draw(0, 10), [5, 4, 2, 6, 1, 0, 9, 8, 3, 7]);
        assert_eq!(Batches::new(10, 1, 1).draw(0, 10), [9, 1, 6, 7, 3, 8, 4, 5, 2, 0]);
        assert_eq!(Batches::new(10, 0, 1).draw(1, 10), [7, 4, 8, 0, 3, 1, 6, 9, 5, 2]);
        let subsets = Subsets::draw(10, Some(6), Some(4), 1).expect("ten");
        assert_eq!((subsets.train, subsets.dev), (vec![4, 5, 0, 2, 9, 7], vec![1, 3, 8, 6]));
    }

    #[test]
    fn numbers_that_would_be_likelier_than_others_are_drawn_again() {
        // 2³² = 3 · 1431655765 + 1: the lowest fraction of one of three intervals is rejected.
        let mut draws = [0_u32, 1].into_iter();
        assert_eq!(below(3, || draws.next().expect("two draws")), 0);
        assert_eq!(draws.next(), None);
        assert_eq!(below(3, || u32::MAX), 2);
        assert_eq!(below(1, || 12345), 0);
    }

    #[test]
    fn all_orders_of_three_examples_are_equally_likely() {
        let mut counts = [0_u32; 9];
        for seed in 0..6000 {
            let order = permutation(3, NoiseKey::new(seed, 0, Role::DataOrder, 0), Shuffle::Batches);
            counts[3 * order[0] + order[1]] += 1;
        }
        // 1000 expected of each of six; five standard errors are 5 · √(6000 · 1/6 · 5/6) = 144.
        let likely: Vec<u32> = counts.into_iter().filter(|&count| count > 0).collect();
        assert!(likely.len() == 6 && likely.iter().all(|count| count.abs_diff(1000) < 144), "{counts:?}");
    }

    #[test]
    fn absent_numbers_leave_a_fifth_to_dev_and_the_rest_to_train() {
        let sizes = |available, train, dev| {
            Subsets::draw(available, train, dev, 1).map(|subsets| (subsets.train.len(), subsets.dev.len()))
        };
        assert_eq!(sizes(6920, None, None), Ok((6420, 500)));
        assert_eq!(sizes(100, None, None), Ok((80, 20)));
        assert_eq!(sizes(100, None, Some(0)), Ok((100, 0)));
        assert_eq!(sizes(100, Some(30), Some(70)), Ok((30, 70)));
        let error = sizes(100, Some(31), Some(70)).expect_err("one too many");
        assert_eq!(
            error.to_string(),
            "num_train 31 and num_dev 70 need 101, but the training file has 100 examples; lower one of them"
        );
        assert!(sizes(100, None, Some(100)).is_err(), "nothing to learn from");
        assert!(sizes(100, Some(usize::MAX), Some(1)).is_err());
    }

    proptest! {
        #[test]
        fn subsets_are_disjoint_and_do_not_depend_on_how_many_are_asked_for_first(
            available in 1_usize..60, seed: u64, cut in 0_usize..60,
        ) {
            let num_train = cut % available + 1;
            let all = Subsets::draw(available, Some(num_train), Some(available - num_train), seed).expect("all");
            let mut numbers = [all.train.as_slice(), &all.dev].concat();
            let few = Subsets::draw(available, Some(num_train), Some(0), seed).expect("few");
            prop_assert_eq!(&few.train, &all.train);
            numbers.sort_unstable();
            prop_assert_eq!(numbers, (0..available).collect::<Vec<_>>());
        }

        #[test]
        fn batches_run_through_all_examples_before_any_comes_again(
            examples in 1_usize..20, size in 1_usize..30, seed: u64, pool in 0_u32..4,
        ) {
            let batches = Batches::new(examples, pool, seed);
            let drawn: Vec<usize> = (0..2 * examples as u64).flat_map(|number| batches.draw(number, size)).collect();
            for epoch in drawn.chunks_exact(examples) {
                let mut epoch = epoch.to_vec();
                epoch.sort_unstable();
                prop_assert_eq!(epoch, (0..examples).collect::<Vec<_>>());
            }
        }
    }
}
