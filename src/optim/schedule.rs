//! How learning rate and number of queries change over a run.
//!
//! *What must stay true.* Rates are part of what a journal replays, so they are made of `+ − × ÷` in a fixed order: no
//! cosine of the platform's library.

use super::{
    Clock, NonNegative, Queries,
    options::{choice, options},
};

choice! {
    /// The course of the learning rate after the warm-up.
    pub enum Decay {
        /// It stays.
        Constant = "constant",
        /// A straight line to zero at the end of the run.
        Linear = "linear",
        /// Half a cosine to zero at the end of the run.
        Cosine = "cosine",
    }
    expected "\"constant\", \"linear\" or \"cosine\""
}

choice! {
    /// The course of the number of queries.
    pub enum Growth {
        /// It stays.
        Constant = "constant",
        /// A straight line from one query to all.
        Linear = "linear",
    }
    expected "\"constant\" or \"linear\""
}

options! {
    /// The course of the learning rate.
    pub struct Schedule {
        /// Course of lr after the warm-up: constant, or linear or cosine to zero at the end of the run.
        lr_schedule: Decay = Decay::Constant, "";
        /// Over how many steps lr first rises to its full value.
        warmup: u64 = 0, "steps";
    }
}

impl Schedule {
    /// The learning rate of a step whose full rate is `lr`.
    pub fn lr(&self, lr: NonNegative, clock: Clock) -> f64 {
        lr.get() * self.factor(clock)
    }

    /// From 0 to 1: never 0 within the run.
    fn factor(&self, clock: Clock) -> f64 {
        if clock.step < self.warmup {
            return (clock.step + 1) as f64 / self.warmup as f64;
        }
        let length = clock.steps.saturating_sub(self.warmup).max(1);
        let left = length.saturating_sub(clock.step - self.warmup) as f64 / length as f64;
        match self.lr_schedule {
            Decay::Constant => 1.0,
            Decay::Linear => left,
            Decay::Cosine => half_cosine(1.0 - left),
        }
    }
}

impl Growth {
    /// The number of queries of a step, at most `queries`: `max(1, ⌊step / steps · queries⌋)` where it grows.
    pub fn queries(self, queries: Queries, clock: Clock) -> u32 {
        let queries = queries.get();
        match self {
            Growth::Constant => queries,
            Growth::Linear => {
                let grown = u128::from(clock.step) * u128::from(queries) / u128::from(clock.steps.max(1));
                u32::try_from(grown).unwrap_or(queries).clamp(1, queries)
            }
        }
    }
}

/// `(1 + cos πt) / 2` for `t` in [0, 1], to 2⁻⁵⁰.
fn half_cosine(t: f64) -> f64 {
    if t > 0.5 {
        return 1.0 - half_cosine(1.0 - t);
    }
    // The series of the cosine up to (π/2)²⁰/20! < 4·10⁻¹⁵, the next term being below 2·10⁻¹⁷.
    let square = (std::f64::consts::PI * t) * (std::f64::consts::PI * t);
    let cosine = (1..=10).rev().fold(1.0, |series, k| 1.0 - square / f64::from((2 * k - 1) * (2 * k)) * series);
    (1.0 + cosine) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(lr_schedule: Decay, warmup: u64, steps: u64) -> Vec<f64> {
        let schedule = Schedule { lr_schedule, warmup };
        (0..steps).map(|step| schedule.lr(NonNegative::new(2.0), Clock { seed: 0, step, steps }) / 2.0).collect()
    }

    #[test]
    fn the_warm_up_rises_to_the_full_rate_and_the_decay_starts_there() {
        assert_eq!(factors(Decay::Constant, 2, 4), [0.5, 1.0, 1.0, 1.0]);
        assert_eq!(factors(Decay::Linear, 2, 6), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(factors(Decay::Linear, 9, 3), [1.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0], "a warm-up beyond the run");
    }

    #[test]
    fn no_rate_is_zero_or_above_the_full_one() {
        for decay in [Decay::Constant, Decay::Linear, Decay::Cosine] {
            for (warmup, steps) in [(0, 1), (0, 2), (1, 1), (3, 100), (100, 100), (99, 100)] {
                for factor in factors(decay, warmup, steps) {
                    assert!(factor > 0.0 && factor <= 1.0, "{decay:?} {warmup} {steps}: {factor}");
                }
            }
        }
    }

    #[test]
    fn half_a_cosine_is_that_of_the_platform_up_to_rounding() {
        for i in 0..=1000 {
            let t = f64::from(i) / 1000.0;
            let expected = f64::midpoint(1.0, (std::f64::consts::PI * t).cos());
            // Ten rounded steps of values up to 2.5, and the platform's own last bit.
            assert!((half_cosine(t) - expected).abs() <= 16.0 * f64::EPSILON, "{t}");
        }
        assert_eq!((half_cosine(0.0), half_cosine(1.0)), (1.0, 0.0));
    }

    #[test]
    fn queries_grow_from_one_to_all_but_the_last_share() {
        let queries = Queries::new(4);
        let counts =
            |growth: Growth| (0..8).map(move |step| growth.queries(queries, Clock { seed: 0, step, steps: 8 }));
        assert_eq!(counts(Growth::Linear).collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2, 3, 3]);
        assert!(counts(Growth::Constant).all(|count| count == 4));
    }
}
