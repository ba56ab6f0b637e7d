//! An oracle of some parameters: whatever an optimizer asks or commits, the others stay where they are.
//!
//! *What it is.* [`Restricted`] keeps of each probe and each update what moves the parameters that are given, and weighs the
//! update of each. Directions stay those of all parameters: what a method remembers does not depend on which are given.
//!
//! *What must stay true.* Probes are never weighed: a slope is that along the direction which was asked for. Nor is what
//! an update makes of the weights themselves, decay or a projection, which is no estimate. A weight of 1 changes no bit.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    direction::{Coefficients, Direction, DirectionSet, Displacement, ParamId, Term},
    optim::{BatchId, CommitReport, Losses, Oracle, OracleError, Pool, Space},
};

/// Some parameters of another oracle.
pub struct Restricted<'o> {
    inner: &'o mut dyn Oracle,
    /// What the estimate of each of them is multiplied by in an update.
    weights: &'o BTreeMap<ParamId, f64>,
}

impl<'o> Restricted<'o> {
    /// The parameters of `inner` that have a weight.
    pub fn new(inner: &'o mut dyn Oracle, weights: &'o BTreeMap<ParamId, f64>) -> Self {
        Restricted { inner, weights }
    }

    /// Probes of these parameters.
    fn probes(&self, probes: &[Displacement]) -> Vec<Displacement> {
        probes.iter().map(|probe| self.keep(probe, |_, _| 1.0)).collect()
    }

    /// Directions of these parameters.
    fn along(&self, along: &[Arc<DirectionSet>]) -> Vec<Arc<DirectionSet>> {
        let kept = |set: &Arc<DirectionSet>| {
            let direction = |&id: &ParamId| Some((id, set.get(id)?.clone()));
            Arc::new(DirectionSet::new(self.weights.keys().filter_map(direction)))
        };
        along.iter().map(kept).collect()
    }

    /// What `displacement` makes of these parameters, each coefficient times `factor`.
    fn keep(&self, displacement: &Displacement, factor: impl Fn(&Direction, f64) -> f64) -> Displacement {
        let term = |Term { set, coefficients }: &Term| {
            let coefficient = |(&id, &weight): (&ParamId, &f64)| {
                let factor = factor(set.get(id)?, weight);
                Some((id, (f64::from(coefficients.of(id)) * factor) as f32))
            };
            // The set stays the one that probes share.
            let coefficients = Coefficients::PerParam(self.weights.iter().filter_map(coefficient).collect());
            Term { set: Arc::clone(set), coefficients }
        };
        Displacement { terms: displacement.terms.iter().map(term).collect() }
    }
}

impl Oracle for Restricted<'_> {
    fn space(&self) -> &dyn Space {
        self.inner.space()
    }

    fn draw(&mut self, pool: Pool, size: Option<usize>) -> Result<BatchId, OracleError> {
        self.inner.draw(pool, size)
    }

    fn epoch(&mut self, batch: BatchId) -> Result<u64, OracleError> {
        self.inner.epoch(batch)
    }

    fn batch_size(&mut self, batch: BatchId) -> Result<usize, OracleError> {
        self.inner.batch_size(batch)
    }

    fn losses(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let probes = self.probes(probes);
        self.inner.losses(batch, &probes)
    }

    fn losses_by_example(&mut self, batch: BatchId, probes: &[Displacement]) -> Result<Vec<Losses>, OracleError> {
        let probes = self.probes(probes);
        self.inner.losses_by_example(batch, &probes)
    }

    fn slopes(&mut self, batch: BatchId, along: &[Arc<DirectionSet>]) -> Result<(Losses, Vec<Losses>), OracleError> {
        let along = self.along(along);
        self.inner.slopes(batch, &along)
    }

    fn slopes_by_example(
        &mut self,
        batch: BatchId,
        along: &[Arc<DirectionSet>],
    ) -> Result<(Losses, Vec<Losses>), OracleError> {
        let along = self.along(along);
        self.inner.slopes_by_example(batch, &along)
    }

    fn commit(&mut self, update: &Displacement) -> Result<CommitReport, OracleError> {
        let weighed = |direction: &Direction, weight| if direction.reads_weights() { 1.0 } else { weight };
        let update = self.keep(update, weighed);
        self.inner.commit(&update)
    }
}

#[cfg(test)]
mod tests;
