//! Thin factors of matrices, drawn by key, and the low-rank directions that they make.
//!
//! *What it is.* [`gaussian`] and [`orthonormal`] draw a [`Factor`] for each trainable matrix, [`Lazy`] keeps those
//! that outlive a step, and [`probes`] are the directions of a step: each draws a factor of its own, its coordinates,
//! and a rule makes a low-rank direction of it. Vectors have no factors; they move along dense noise.
//!
//! *What it is not.* State: everything here is made again from its key, so that a run resumes at any step of an epoch.
//!
//! *What must stay true.* Roles have streams of their own, and a factor depends on its key and its matrix alone.
//! Drawing one anew therefore shifts no other draw, and a direction that is applied is the one that was measured, on
//! the steps that refresh a factor as on all others.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use crate::{
    direction::{Direction, DirectionSet, Param, ParamId},
    kernels::{Context, matmul::product},
    linalg::qr::thin_qr,
    noise::{Law, NoiseKey, Role},
    optim::{Clock, Space},
    tensor::{MatMut, MatRef},
};

/// A thin matrix `[rows, rank]`, row-major.
#[derive(Clone, Debug)]
pub struct Factor {
    values: Arc<[f32]>,
    rank: usize,
}

/// A thin matrix for each trainable matrix.
pub type Factors = BTreeMap<ParamId, Factor>;

impl Factor {
    /// A factor of these values.
    ///
    /// # Panics
    /// If they are not whole rows.
    pub fn new(values: impl Into<Arc<[f32]>>, rank: usize) -> Self {
        let values = values.into();
        assert!(values.len().is_multiple_of(rank), "{} values in rows of {rank}", values.len());
        Factor { values, rank }
    }
    /// How many columns it has.
    pub fn rank(&self) -> usize {
        self.rank
    }
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.values.len() / self.rank
    }
    /// Its values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
    /// Its values as a matrix.
    pub fn view(&self) -> MatRef<'_> {
        MatRef::new(&self.values, self.rows(), self.rank)
    }
    /// Its transpose: a row for each column.
    #[must_use]
    pub fn transposed(&self) -> Factor {
        let column = |s| self.values.iter().skip(s).step_by(self.rank).copied();
        Factor::new((0..self.rank).flat_map(column).collect::<Vec<_>>(), self.rows())
    }
    /// Column `s` of every row times `scale[s]`, one rounding.
    #[must_use]
    pub fn scaled_columns(&self, scale: &[f32]) -> Factor {
        let rows = self.values.chunks_exact(self.rank);
        Factor::new(rows.flat_map(|row| row.iter().zip(scale).map(|(x, s)| x * s)).collect::<Vec<_>>(), self.rank)
    }
    /// Its values, row after row.
    pub fn into_values(self) -> Arc<[f32]> {
        self.values
    }
    /// `self · other`.
    ///
    /// # Panics
    /// If `other` has not a row for each column.
    #[must_use]
    pub fn product(&self, cx: &Context, other: &Factor) -> Factor {
        let (rows, rank) = (self.rows(), other.rank);
        let mut out = vec![0.0; rows * rank];
        product::nn(cx, self.view(), other.view(), false, MatMut::new(&mut out, rows, rank));
        Factor::new(out, rank)
    }
    /// `selfᵀ · other`.
    ///
    /// # Panics
    /// If they have not the same number of rows.
    #[must_use]
    pub fn transposed_product(&self, cx: &Context, other: &Factor) -> Factor {
        let (rows, rank) = (self.rank, other.rank);
        let mut out = vec![0.0; rows * rank];
        product::tn(cx, self.view(), other.view(), false, MatMut::new(&mut out, rows, rank));
        Factor::new(out, rank)
    }
    /// The direction `self · rightᵀ`.
    ///
    /// # Panics
    /// If they have not the same rank.
    pub fn times(&self, right: &Factor) -> Direction {
        assert_eq!(self.rank, right.rank, "the ranks of two factors of one direction");
        Direction::LowRank { left: Arc::clone(&self.values), right: Arc::clone(&right.values), rank: self.rank }
    }
}

/// Whether a parameter has rows and columns, hence factors.
pub fn is_matrix(param: &Param) -> bool {
    param.shape().len() == 2
}

/// The trainable matrices.
pub fn matrices(space: &dyn Space) -> impl Iterator<Item = (ParamId, &Param)> {
    space.trainable().iter().map(|&id| (id, &space.params()[id])).filter(|(_, param)| is_matrix(param))
}

/// Independent standard normal values, a factor of `shape` (rows and rank) for each trainable matrix.
pub fn gaussian(space: &dyn Space, key: NoiseKey, shape: impl Fn(&Param) -> (usize, usize)) -> Factors {
    let factor = |(id, param): (ParamId, &Param)| {
        let (rows, rank) = shape(param);
        (id, Factor::new(normal(space, key, param, (rows, rank)), rank))
    };
    matrices(space).map(factor).collect()
}

/// As [`gaussian`], then orthonormal columns of the same span: uniformly (Haar) distributed.
///
/// # Panics
/// If a factor has more columns than rows.
pub fn orthonormal(space: &dyn Space, key: NoiseKey, shape: impl Fn(&Param) -> (usize, usize)) -> Factors {
    let factor = |(id, param): (ParamId, &Param)| {
        let (rows, rank) = shape(param);
        let mut values = normal(space, key, param, (rows, rank));
        thin_qr(MatMut::new(&mut values, rows, rank));
        (id, Factor::new(values, rank))
    };
    matrices(space).map(factor).collect()
}

/// Independent standard normal values of a parameter, row after row.
pub fn normal(space: &dyn Space, key: NoiseKey, param: &Param, (rows, cols): (usize, usize)) -> Vec<f32> {
    let mut values = vec![0.0; rows * cols];
    let noise = key.tensor(param.noise_name());
    noise.fill(space.context().isa, Law::Gaussian, 0..rows as u64, 0..cols, &mut values);
    values
}

/// How often factors have been drawn anew before this step: they live for `interval` steps.
pub fn epoch(clock: Clock, interval: NonZeroU32) -> u64 {
    clock.step / u64::from(interval.get())
}

/// Factors that outlive a step. They are drawn when first asked for, and again when their key changes.
#[derive(Debug, Default)]
pub struct Lazy {
    drawn: Option<(NoiseKey, Factors)>,
}

impl Lazy {
    /// The factors of this key.
    pub fn at(&mut self, key: NoiseKey, draw: impl FnOnce(NoiseKey) -> Factors) -> &Factors {
        if self.drawn.as_ref().is_none_or(|(of, _)| *of != key) {
            self.drawn = Some((key, draw(key)));
        }
        &self.drawn.as_ref().expect("drawn above").1
    }
}

/// A direction of a step, and what was drawn for it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The direction: what is measured, and what is applied.
    pub z: Arc<DirectionSet>,
    /// Its coordinates: the factor that was drawn for each matrix.
    drawn: Factors,
    /// The noise of vectors.
    vectors: NoiseKey,
}

/// The probes of a step: for each matrix a Gaussian factor of `shape`, drawn for `role`, of which `direction` makes a
/// direction; for each vector noise.
pub fn probes(
    space: &dyn Space,
    clock: Clock,
    count: u32,
    (role, shape): (Role, impl Fn(&Param) -> (usize, usize)),
    direction: impl Fn(ParamId, &Factor) -> Direction,
) -> Vec<Probe> {
    let probe = |probe| {
        let [drawn, vectors] = [role, Role::Z1d].map(|role| NoiseKey::new(clock.seed, clock.step, role, probe));
        let drawn = gaussian(space, drawn, &shape);
        let along = |&id| match drawn.get(&id) {
            Some(factor) => (id, direction(id, factor)),
            None => (id, Direction::Dense { key: vectors, law: Law::Gaussian }),
        };
        Probe { z: Arc::new(DirectionSet::new(space.trainable().iter().map(along))), drawn, vectors }
    };
    (0..count).map(probe).collect()
}

/// The directions of these probes.
pub fn directions(probes: &[Probe]) -> Vec<Arc<DirectionSet>> {
    probes.iter().map(|probe| Arc::clone(&probe.z)).collect()
}

impl Probe {
    /// The coordinates of a parameter: the values of a matrix's factor, of a vector its noise.
    pub fn coordinates(&self, space: &dyn Space, id: ParamId) -> Arc<[f32]> {
        match self.drawn.get(&id) {
            Some(factor) => Arc::clone(&factor.values),
            None => {
                let param = &space.params()[id];
                normal(space, self.vectors, param, (param.rows(), param.cols())).into()
            }
        }
    }
}

#[cfg(test)]
mod tests;
