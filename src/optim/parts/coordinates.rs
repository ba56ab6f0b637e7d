//! Gradient estimates in the coordinates of kept factors, and their running means: what momentum and Adam remember of a
//! matrix is as small as what was drawn for it.
//!
//! *What it is.* [`estimate`] sums the coordinates of a step's probes; [`Running`] keeps a running mean of such sums. A
//! vector's coordinates are its own values.
//!
//! *What must stay true.* The same operations in the same order for every value, so that bits do not depend on the
//! instruction set. A mean takes in only what is finite.

use std::{collections::BTreeMap, sync::Arc};

use super::subspace::{Factor, Probe};
use crate::{
    direction::{Param, ParamId},
    kernels::elementwise,
    optim::{Space, StateVisitor},
};

/// The coordinates of each trainable parameter.
pub type Coordinates = BTreeMap<ParamId, Vec<f32>>;

/// `Σ aᵢ·xᵢ` over the coordinates of probes; `None` if a value is not finite.
pub fn estimate(space: &dyn Space, probes: &[Probe], weights: &[f64]) -> Option<Coordinates> {
    assert_eq!(probes.len(), weights.len(), "one weight a probe");
    let sum = |&id: &ParamId| {
        let mut sum = Vec::new();
        for (probe, &weight) in probes.iter().zip(weights) {
            let coordinates = probe.coordinates(space, id);
            sum.resize(coordinates.len(), 0.0);
            elementwise::axpy(space.context(), weight as f32, &coordinates, &mut sum);
        }
        sum.iter().all(|x| x.is_finite()).then_some((id, sum))
    };
    space.trainable().iter().map(sum).collect()
}

/// A running mean of coordinates.
#[derive(Clone, Debug, Default)]
pub struct Running {
    values: BTreeMap<String, Arc<[f32]>>,
}

impl Running {
    /// `m ← βm + (1 − β)x` for each parameter, from zero.
    pub fn absorb(&mut self, space: &dyn Space, x: &Coordinates, beta: f64) {
        self.update(space, x, |x| x, beta);
    }

    /// `m ← βm + (1 − β)x²`, elementwise.
    pub fn absorb_squares(&mut self, space: &dyn Space, x: &Coordinates, beta: f64) {
        self.update(space, x, |x| x * x, beta);
    }

    fn update(&mut self, space: &dyn Space, x: &Coordinates, of: impl Fn(f32) -> f32, beta: f64) {
        let (keep, take) = (beta as f32, (1.0 - beta) as f32);
        for (&id, x) in x {
            let name = space.params()[id].name();
            let before = self.values.get(name).cloned().unwrap_or_else(|| vec![0.0; x.len()].into());
            assert_eq!(before.len(), x.len(), "what is remembered of {name:?}");
            let mean = before.iter().zip(x).map(|(mean, &x)| keep * mean + take * of(x)).collect();
            self.values.insert(name.to_owned(), mean);
        }
    }

    /// The mean of a parameter; none before the first.
    pub fn get(&self, param: &Param) -> &[f32] {
        self.values.get(param.name()).map_or(&[], |values| values)
    }

    /// The mean of a parameter, in rows of `rank`.
    ///
    /// # Panics
    /// Before the first.
    pub fn factor(&self, param: &Param, rank: usize) -> Factor {
        let values = self.values.get(param.name()).unwrap_or_else(|| panic!("nothing of {:?} yet", param.name()));
        Factor::new(Arc::clone(values), rank)
    }

    /// Whether nothing was taken in.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Puts other values in the place of a parameter's.
    pub fn set(&mut self, param: &Param, values: Arc<[f32]>) {
        self.values.insert(param.name().to_owned(), values);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.values.clear();
    }

    /// Shows `visitor` the means under `name`, `len` values for a parameter.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor, name: &str, len: &dyn Fn(&Param) -> usize) {
        visitor.factors(name, &mut self.values, len);
    }
}
