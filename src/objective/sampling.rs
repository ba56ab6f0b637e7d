//! The next token from a row of logits.
//!
//! *What must stay true* (contract C1). A draw is a function of (logits, seed, place): exponentials are the kernels'
//! own, sums are f64 chains over candidates from the most to the least likely, equals in the order of their ids.

use crate::{kernels::twin::Real, task::Draws};

/// How a token is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Divides the logits; 0 chooses the largest logit, of equals the smallest id.
    pub temperature: f32,
    /// Only this many of the likeliest tokens are candidates; 0: all.
    pub top_k: usize,
    /// Only the likeliest candidates that together have this probability (Holtzman et al., 2019, arXiv:1904.09751);
    /// 1: all.
    pub top_p: f64,
    /// The numbers that choose.
    pub draws: Draws,
}

/// A row of logits that are not all finite: there is nothing to choose by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the logits of generated token {index} are not all finite")]
pub struct NotANumber {
    /// The token's place among the generated ones.
    pub index: u64,
}

impl Sampler {
    /// The token at place `index` of a generated text.
    ///
    /// # Errors
    /// [`NotANumber`].
    ///
    /// # Panics
    /// If there are no logits.
    pub fn choose(&self, index: u64, logits: &[f32]) -> Result<u32, NotANumber> {
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(NotANumber { index });
        }
        let before = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let ids = 0..u32::try_from(logits.len()).expect("a vocabulary of 32-bit ids");
        if self.temperature == 0.0 {
            return Ok(ids.min_by(before).expect("a vocabulary"));
        }
        let mut candidates: Vec<u32> = ids.collect();
        let kept = if self.top_k == 0 { candidates.len() } else { self.top_k.min(candidates.len()) };
        if kept < candidates.len() {
            candidates.select_nth_unstable_by(kept, before);
            candidates.truncate(kept);
        }
        candidates.sort_unstable_by(before);
        let largest = logits[candidates[0] as usize];
        let weight = |&id: &u32| f64::from(Real::exp((logits[id as usize] - largest) / self.temperature));
        let weights: Vec<f64> = candidates.iter().map(weight).collect();
        let total = weights.iter().fold(0.0, |sum, weight| sum + weight);
        // Candidates enter while those before them have less than the probability asked for.
        let mut mass = 0.0;
        let nucleus = weights.iter().take_while(|&weight| {
            let enters = mass == 0.0 || mass < self.top_p * total;
            mass += weight;
            enters
        });
        let weights: Vec<f64> = nucleus.copied().collect();
        let target = self.draws.uniform(index) * weights.iter().fold(0.0, |sum, weight| sum + weight);
        let mut mass = 0.0;
        let chosen = weights.iter().position(|weight| {
            mass += weight;
            target < mass
        });
        // Rounding may leave the target at the very end: then the last candidate is meant.
        Ok(candidates[chosen.unwrap_or(weights.len() - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_k: usize, top_p: f64) -> Sampler {
        Sampler { temperature, top_k, top_p, draws: Draws::new(3) }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(sampler(0.0, 0, 1.0).choose(0, &[1.0, 3.0, 3.0, -1.0]), Ok(1));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for temperature in [0.0, 1.0] {
                assert_eq!(sampler(temperature, 0, 1.0).choose(4, &[1.0, wrong]), Err(NotANumber { index: 4 }));
            }
        }
    }

    #[test]
    fn draws_have_the_frequencies_of_the_softmax() {
        // Probabilities 0.6, 0.3, 0.1; 20,000 draws: five standard errors are 5·√(p(1−p)/20000) < 0.0174.
        let logits = [0.6_f32, 0.1, 0.3].map(f32::ln);
        let mut counts = [0; 3];
        for index in 0..20_000 {
            counts[sampler(1.0, 0, 1.0).choose(index, &logits).expect("numbers") as usize] += 1;
        }
        for (count, p) in counts.into_iter().zip([0.6, 0.1, 0.3]) {
            assert!((f64::from(count) / 20_000.0 - p).abs() < 0.0174, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_keep_the_likeliest() {
        let logits = [0.5_f32, 0.1, 0.3, 0.1].map(f32::ln);
        let seen = |sampler: Sampler| {
            let mut seen: Vec<u32> = (0..2000).map(|i| sampler.choose(i, &logits).expect("numbers")).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(seen(sampler(1.0, 2, 1.0)), [0, 2]);
        assert_eq!(seen(sampler(1.0, 1, 1.0)), [0]);
        assert_eq!(seen(sampler(1.0, 0, 0.75)), [0, 2]);
        assert_eq!(seen(sampler(1.0, 0, 1.0)), [0, 1, 2, 3]);
        assert_eq!(seen(sampler(1.0, 0, 1e-9)), [0]);
    }
}
