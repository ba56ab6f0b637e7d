//! Gradients as an oracle hands them over: kept whole, measured, scaled down.
//!
//! *What must stay true.* A norm is a chain over blocks of a parameter, and over parameters in ascending order, whatever
//! the order that they came in and the number of threads.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::{
    direction::{Displacement, ParamId},
    optim::{BatchId, GradientSink, Oracle, OracleError},
    tensor::Block,
};

/// Values that one thread sums up at a time.
const BLOCK: usize = 1 << 14;

/// Gradients of some parameters.
#[derive(Debug, Default)]
pub struct Gradient {
    values: BTreeMap<ParamId, Block<f32>>,
}

impl GradientSink for Gradient {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        self.values.insert(id, gradient);
        None
    }
}

impl Gradient {
    /// `Σ wᵢ·∇L(θ + dᵢ)` for the parameters `wrt`, with the losses. It is empty where one of these is not finite.
    ///
    /// # Errors
    /// [`OracleError`] if the oracle has no answer.
    pub fn of(
        oracle: &mut dyn Oracle,
        batch: BatchId,
        at: &[(f64, Displacement)],
        wrt: &[ParamId],
    ) -> Result<(Vec<f64>, Gradient), OracleError> {
        let mut gradient = Gradient::default();
        let losses = oracle.gradients(batch, at, wrt, &mut gradient)?;
        assert_eq!(losses.len(), at.len(), "a loss for each point");
        Ok((losses.into_iter().map(|losses| losses.total).collect(), gradient))
    }

    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.values.values().all(|values| is_finite(values))
    }

    /// Scales it down to the norm `largest`, if it is longer.
    pub fn clip(&mut self, largest: f64) {
        let norm = self.values.values().map(|values| squares(values)).sum::<f64>().sqrt();
        if norm > largest {
            let scale = (largest / norm) as f32;
            self.values.values_mut().for_each(|values| values.par_iter_mut().for_each(|value| *value *= scale));
        }
    }

    /// The gradients, in ascending order of the parameters.
    pub fn into_values(self) -> impl Iterator<Item = (ParamId, Block<f32>)> {
        self.values.into_iter()
    }
}

/// Whether every value is finite.
pub fn is_finite(values: &[f32]) -> bool {
    values.par_chunks(BLOCK).all(|block| block.iter().all(|value| value.is_finite()))
}

/// The sum of squares.
pub fn squares(values: &[f32]) -> f64 {
    let block = |block: &[f32]| block.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    values.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().sum()
}
