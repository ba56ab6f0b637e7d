//! Directions of examples: each example of a batch is probed along its own, in the passes that probe all along one.
//!
//! With gᵢ the gradient of example i of B, g their mean and σ² the mean of `‖gᵢ − g‖²`, over directions of n values and the
//! law N(0, I):
//!
//! ```text
//! shared        ĝ = ⟨Σ gᵢ/B, z⟩ z           E‖ĝ − Σ gᵢ/B‖² = (n + 1) ‖Σ gᵢ/B‖²             ≈ n (‖g‖² + σ²/B)
//! per example   ĝ = Σ ⟨gᵢ/B, zᵢ⟩ zᵢ         E‖ĝ − Σ gᵢ/B‖² = (n + 1) Σ ‖gᵢ/B‖²             ≈ n (‖g‖² + σ²)/B
//! ```
//!
//! The noise of a step is never more, and up to B times less where examples agree. Thin factors are drawn anew for each
//! example. Of dense noise, drawing it for each would cost as many passes over the weights: there directions are `s z t` of
//! one z, under signs s of rows and t of columns that are each example's own. They are not independent, but nearly: `z⁴` has
//! the mean 3, or 1 if z are signs, and the noise is
//!
//! ```text
//! E‖ĝ − Σ gᵢ/B‖² = (n − 1) Σ ‖gᵢ/B‖² + 2 ‖Σ gᵢ/B‖²     z ~ N(0, I)
//!                = (n − 1) Σ ‖gᵢ/B‖²                    z ∈ {−1, +1}ⁿ
//! ```
//!
//! *What must stay true.* An example's directions are named by its number in the batch, whatever pass it is in.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    direction::{Direction, DirectionSet, ParamId},
    kernels::{Context, elementwise},
    noise::{NoiseKey, Role},
    optim::{BatchId, Clock, Losses, Oracle, OracleError, options::choice},
};

choice! {
    /// Whose a direction is.
    pub enum Directions {
        /// All examples of a batch are probed along the same.
        Shared = "shared",
        /// Each is probed along its own: as many times more directions for as many losses.
        PerExample = "per-example",
    }
    expected "\"shared\" or \"per-example\""
}

impl Directions {
    /// Who has the directions of a step on this batch.
    ///
    /// # Errors
    /// [`OracleError`] if the oracle has no answer.
    pub fn owners(self, oracle: &mut dyn Oracle, batch: BatchId) -> Result<Owners, OracleError> {
        Ok(match self {
            Directions::Shared => Owners::All,
            Directions::PerExample => Owners::Each(oracle.batch_size(batch)?),
        })
    }
}

/// Who has the directions of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// All examples together.
    All,
    /// Each of so many.
    Each(usize),
}

impl Owners {
    /// How many directions so many queries have.
    pub fn directions(self, queries: u32) -> u32 {
        queries * self.count() as u32
    }

    /// How many directions a query has.
    fn count(self) -> usize {
        match self {
            Owners::All => 1,
            Owners::Each(examples) => examples,
        }
    }

    /// Each owner's own mean, of a mean over all: of as many owners, each contributes that share of its own.
    pub(super) fn means(self, losses: &Losses) -> Vec<f64> {
        let count = self.count() as f64;
        self.contributions(losses).iter().map(|x| count * x).collect()
    }

    /// The slope of each owner's own mean, between losses that are so far apart.
    pub(super) fn slopes(self, from: &Losses, to: &Losses, distance: f64) -> Vec<f64> {
        let count = self.count() as f64;
        let pairs = self.contributions(to).iter().zip(self.contributions(from));
        pairs.map(|(to, from)| count * ((to - from) / distance)).collect()
    }

    /// What each owner contributes to a mean over all.
    fn contributions(self, losses: &Losses) -> &[f64] {
        match self {
            Owners::All => std::slice::from_ref(&losses.total),
            Owners::Each(examples) => {
                assert_eq!(losses.per_example.len(), examples, "a contribution of each example");
                &losses.per_example
            }
        }
    }

    /// The directions that a query is evaluated along, of those that it has.
    pub(super) fn along(self, z: &[Arc<DirectionSet>]) -> Vec<Arc<DirectionSet>> {
        match self {
            Owners::All => z.to_vec(),
            Owners::Each(examples) => {
                assert!(z.len().is_multiple_of(examples), "{} directions of {examples} examples", z.len());
                z.chunks_exact(examples).map(|z| Arc::new(DirectionSet::per_example(z))).collect()
            }
        }
    }
}

/// The directions of queries as their owners have them: query by query, and in each example by example, under signs of its
/// own.
pub fn flipped(z: Vec<Arc<DirectionSet>>, clock: Clock, owners: Owners) -> Vec<Arc<DirectionSet>> {
    let Owners::Each(examples) = owners else { return z };
    let of_example = |probe: usize, set: &DirectionSet, example: usize| {
        let key = NoiseKey::new(clock.seed, clock.step, Role::Dense, probe as u32);
        let [rows, cols] = [0, 1].map(|axis| Some(key.extended(2 * example as u64 + axis)));
        let flipped = |id| Some((id, Direction::Flipped { of: Box::new(set.get(id)?.clone()), rows, cols }));
        Arc::new(DirectionSet::new(set.params().filter_map(flipped)))
    };
    let of_query = |(probe, set): (usize, &Arc<DirectionSet>)| -> Vec<_> {
        (0..examples).map(|example| of_example(probe, set, example)).collect()
    };
    z.iter().enumerate().flat_map(of_query).collect()
}

/// Directions with weights whose sum is that of these: where examples have their own, thin factors that stand beside a common
/// one are summed, so that an update costs no more than along one direction.
pub fn merged(
    oracle: &dyn Oracle,
    z: &[Arc<DirectionSet>],
    weights: &[f64],
    owners: Owners,
) -> (Vec<Arc<DirectionSet>>, Vec<f64>) {
    if owners == Owners::All {
        return (z.to_vec(), weights.to_vec());
    }
    let cx = oracle.space().context();
    let sums: BTreeMap<_, _> =
        oracle.trainable().iter().filter_map(|&id| Some((id, sum_of_factors(cx, z, weights, id)?))).collect();
    let rest = |set: &Arc<DirectionSet>| {
        let others = set.params().filter(|id| !sums.contains_key(id));
        Arc::new(DirectionSet::new(others.filter_map(|id| Some((id, set.get(id)?.clone())))))
    };
    let rest = z.iter().map(rest).zip(weights.iter().copied());
    let rest: Vec<_> = rest.filter(|(set, _)| set.params().next().is_some()).collect();
    std::iter::once((Arc::new(DirectionSet::new(sums)), 1.0)).chain(rest).unzip()
}

/// `Σ aᵢ·zᵢ` of a parameter as one low-rank direction, if all are low-rank, have a factor in common, and the sum is finite.
fn sum_of_factors(cx: &Context, z: &[Arc<DirectionSet>], weights: &[f64], id: ParamId) -> Option<Direction> {
    let factors = |set: &Arc<DirectionSet>| match set.get(id)? {
        Direction::LowRank { left, right, rank } => Some((Arc::clone(left), Arc::clone(right), *rank)),
        _ => None,
    };
    let all: Vec<_> = z.iter().map(factors).collect::<Option<_>>()?;
    let (left, right, rank) = all.first()?.clone();
    let sum = |len: usize, of: &dyn Fn(usize) -> Arc<[f32]>| -> Option<Arc<[f32]>> {
        let mut sum = vec![0.0; len];
        weights.iter().enumerate().for_each(|(at, &weight)| elementwise::axpy(cx, weight as f32, &of(at), &mut sum));
        sum.iter().all(|x| x.is_finite()).then(|| sum.into())
    };
    if all.iter().all(|(_, other, _)| Arc::ptr_eq(other, &right)) {
        let left = sum(left.len(), &|at| Arc::clone(&all[at].0))?;
        Some(Direction::LowRank { left, right, rank })
    } else if all.iter().all(|(other, _, _)| Arc::ptr_eq(other, &left)) {
        let right = sum(right.len(), &|at| Arc::clone(&all[at].1))?;
        Some(Direction::LowRank { left, right, rank })
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
