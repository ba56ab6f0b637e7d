//! Uniform numbers for sampling tokens.

use crate::noise::{NoiseKey, Role};

/// The draws of one generated text: draw `i` is a function of (seed, `i`).
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    seed: u64,
}

impl Draws {
    /// The draws of a seed.
    pub fn new(seed: u64) -> Self {
        Draws { seed }
    }

    /// Draw `index`, uniform in [0, 1): 53 bits, the first 32 of which come first.
    pub fn uniform(&self, index: u64) -> f64 {
        let noise = NoiseKey::new(self.seed, index, Role::Sampling, 0).tensor(0);
        let mut generator = noise.generator(0, 0);
        let bits = u64::from(rand_pcg::rand_core::Rng::next_u32(&mut generator)) << 32
            | u64::from(rand_pcg::rand_core::Rng::next_u32(&mut generator));
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_in_the_unit_interval_and_depend_on_seed_and_place_only() {
        let draws = Draws::new(5);
        let first: Vec<f64> = (0..1000).map(|i| draws.uniform(i)).collect();
        assert!(first.iter().all(|u| (0.0..1.0).contains(u)));
        assert_eq!(first[7], Draws::new(5).uniform(7));
        assert_ne!(first[7], Draws::new(6).uniform(7));
        // The mean of 1000 uniforms is within 5 standard errors of 1/2: 5 · √(1/12/1000) = 0.0456.
        let mean = first.iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.0456, "{mean}");
    }
}
