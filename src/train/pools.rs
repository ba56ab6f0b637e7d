//! The examples that batches of each pool are drawn from.
//!
//! *What must stay true* (contract C2). A batch is a function of the lengths of all examples, the seed, the pool and the number
//! of the draw: no cursor.

use crate::{optim::Pool, task::Batches};

/// Examples by their lengths.
#[derive(Debug)]
pub(super) struct Pools {
    lengths: Vec<usize>,
    seed: u64,
}

impl Pools {
    /// The pools of examples that have so many tokens each.
    ///
    /// # Panics
    /// If there is no example.
    pub(super) fn new(lengths: Vec<usize>, seed: u64) -> Pools {
        assert!(!lengths.is_empty(), "pools of nothing");
        Pools { lengths, seed }
    }

    /// Draw `number` of a run, which asks for `size` examples of `pool`: their numbers.
    pub(super) fn draw(&self, pool: Pool, number: u64, size: usize) -> Vec<usize> {
        let (members, order) = self.members(pool);
        let places = Batches::new(members.len(), order, self.seed).draw(number, size);
        places.into_iter().map(|place| members[place]).collect()
    }

    /// How often all examples come before those of draw `number`, if all draws are of `size` of them.
    pub(super) fn epoch(&self, number: u64, size: usize) -> u64 {
        Batches::new(self.lengths.len(), 0, self.seed).epoch(number, size)
    }

    /// The examples of a pool, ascending, and which of the seed's orders they come in. Lengths that do not differ in the
    /// pool's respect make no pools.
    fn members(&self, pool: Pool) -> (Vec<usize>, u32) {
        let is_short = |longest: u32| move |&number: &usize| self.lengths[number] <= longest as usize;
        let all = 0..self.lengths.len();
        let (short, long): (Vec<usize>, Vec<usize>) = match pool {
            Pool::Train => return (all.collect(), 0),
            Pool::Short(longest) | Pool::Long(longest) => all.clone().partition(is_short(longest)),
        };
        match pool {
            _ if short.is_empty() || long.is_empty() => (all.collect(), 0),
            Pool::Long(_) => (long, 2),
            _ => (short, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_and_long_examples_are_all_of_them_and_none_twice(
            lengths in prop::collection::vec(1_usize..9, 1..30), longest in 0_u32..10, seed: u64, number in 0_u64..20,
        ) {
            let pools = Pools::new(lengths.clone(), seed);
            let of = |pool| pools.members(pool).0;
            let (short, long) = (of(Pool::Short(longest)), of(Pool::Long(longest)));
            let is_short = |&number: &usize| lengths[number] <= longest as usize;
            let shorts = (0..lengths.len()).filter(is_short).count();
            if (1..lengths.len()).contains(&shorts) {
                prop_assert!(short.iter().all(is_short) && !long.iter().any(is_short));
                let mut both = [short, long].concat();
                both.sort_unstable();
                prop_assert_eq!(both, of(Pool::Train));
            } else {
                for pool in [Pool::Short(longest), Pool::Long(longest)] {
                    prop_assert_eq!(pools.draw(pool, number, 4), pools.draw(Pool::Train, number, 4));
                }
            }
        }
    }

    #[test]
    fn every_example_of_a_pool_comes_before_any_comes_again() {
        let pools = Pools::new(vec![5, 1, 9, 2, 7, 3, 8], 11);
        for (pool, members) in [(Pool::Train, vec![0, 1, 2, 3, 4, 5, 6]), (Pool::Short(5), vec![0, 1, 3, 5])] {
            let mut drawn = pools.draw(pool, 0, members.len());
            drawn.sort_unstable();
            assert_eq!(drawn, members);
        }
        assert_eq!(pools.epoch(2, 4), 1);
    }
}
