//! Running means of gradient estimates: a value or two for each weight, and the only optimizer state of that size.
//!
//! *What it is.* [`Mean`] is the momentum of `torch.optim.SGD`; [`Moments`] are the two means of Adam (Kingma and Ba, 2014,
//! arXiv:1412.6980). Both take an estimate as the displacement `Σ aᵢ·zᵢ`, or a parameter's as whatever adds its rows, and
//! never form it as a whole: its rows are made where they are added.
//!
//! *What must stay true.* The same operations in the same order for every weight, none of them fused but those of the
//! displacement, so that bits do not depend on the instruction set. Values are what a snapshot keeps.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use rayon::prelude::*;

use crate::{
    direction::{Direction, DirectionSet, Displacement, Moves, Param, ParamId, RowFn},
    kernels::Context,
    noise::PANEL_ROWS,
    optim::{Oracle, Space, StateVisitor},
};

/// Values of each parameter, by its name; a parameter that is not there has zeros.
type Tensors = BTreeMap<String, Arc<[f32]>>;

/// `m ← βm + ĝ`.
#[derive(Debug, Default)]
pub struct Mean {
    values: Tensors,
}

impl Mean {
    /// Takes an estimate in, and answers the mean as directions.
    pub fn absorb(&mut self, oracle: &dyn Oracle, estimate: &Displacement, beta: f64) -> Arc<DirectionSet> {
        let cx = oracle.space().context();
        let mut mean = |&id| {
            let values = self.take(cx, (id, &oracle.params()[id]), estimate, beta);
            (id, Direction::Explicit(values))
        };
        Arc::new(DirectionSet::new(oracle.trainable().iter().map(&mut mean)))
    }

    /// Takes the estimate of one parameter in, and answers its mean.
    pub fn take(
        &mut self,
        cx: &Context,
        (id, param): (ParamId, &Param),
        estimate: &Displacement,
        beta: f64,
    ) -> Arc<[f32]> {
        let beta = beta as f32;
        let moves = Moves::of(std::slice::from_ref(estimate), id, param);
        let add = moves.update(cx);
        let values = values(&mut self.values, param.name(), param.elements());
        values.par_chunks_mut(PANEL_ROWS * param.cols()).enumerate().for_each(|(block, values)| {
            values.iter_mut().for_each(|value| *value *= beta);
            add(block * PANEL_ROWS, values);
        });
        Arc::clone(&self.values[param.name()])
    }

    /// Shows `visitor` the values.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.tensors("mean", &mut self.values);
    }
}

/// Where the means of Adam are moved to by each step.
#[derive(Clone, Copy, Debug)]
pub struct Betas {
    /// Decay of the mean.
    pub mean: f64,
    /// Decay of the mean square.
    pub square: f64,
    /// What is added to the root of the mean square.
    pub epsilon: f64,
}

/// `m ← β₁m + (1 − β₁)ĝ`, `v ← β₂v + (1 − β₂)ĝ²`.
#[derive(Debug, Default)]
pub struct Moments {
    mean: Tensors,
    square: Tensors,
    /// How many estimates were taken in.
    steps: u64,
}

impl Moments {
    /// Takes an estimate in, and answers `m̂ / (√v̂ + ε)` as directions, where `m̂ = m / (1 − β₁ᵗ)`, `v̂ = v / (1 − β₂ᵗ)`.
    pub fn absorb(&mut self, oracle: &dyn Oracle, estimate: &Displacement, betas: Betas) -> Arc<DirectionSet> {
        let ids: Vec<ParamId> = oracle.trainable().to_vec();
        self.absorb_some(oracle.space(), &ids, estimate, betas)
    }

    /// The same for some of the parameters, always the same ones.
    pub fn absorb_some(
        &mut self,
        space: &dyn Space,
        ids: &[ParamId],
        estimate: &Displacement,
        betas: Betas,
    ) -> Arc<DirectionSet> {
        self.begin();
        let mut quotient = |&id| {
            let param = &space.params()[id];
            let moves = Moves::of(std::slice::from_ref(estimate), id, param);
            (id, self.take(param, moves.update(space.context()), betas))
        };
        Arc::new(DirectionSet::new(ids.iter().map(&mut quotient)))
    }

    /// Counts a step, whose estimates are taken in from now on.
    pub fn begin(&mut self) {
        self.steps += 1;
    }

    /// Takes the estimate of one parameter in, and answers its `m̂ / (√v̂ + ε)`. `add` adds the estimate's rows, from that of a
    /// number on, to those that it is given.
    pub fn take(&mut self, param: &Param, add: impl Fn(usize, &mut [f32]) + Sync, betas: Betas) -> Direction {
        let [keep_mean, keep_square] = [betas.mean, betas.square].map(|beta| beta as f32);
        let [take_mean, take_square] = [betas.mean, betas.square].map(|beta| (1.0 - beta) as f32);
        let [mean_sum, square_sum] = [betas.mean, betas.square].map(|beta| 1.0 - power(beta, self.steps));
        let (name, cols, elements) = (param.name(), param.cols(), param.elements());
        let means = values(&mut self.mean, name, elements).par_chunks_mut(PANEL_ROWS * cols);
        let squares = values(&mut self.square, name, elements).par_chunks_mut(PANEL_ROWS * cols);
        let rows_of_zeros = || vec![0.0; PANEL_ROWS * cols];
        means.zip(squares).enumerate().for_each_init(rows_of_zeros, |estimate, (block, (means, squares))| {
            let estimate = &mut estimate[..means.len()];
            estimate.fill(0.0);
            add(block * PANEL_ROWS, estimate);
            for ((mean, square), g) in means.iter_mut().zip(squares).zip(&*estimate) {
                *mean = keep_mean * *mean + take_mean * g;
                *square = keep_square * *square + take_square * (g * g);
            }
        });
        Direction::Rows(Arc::new(Quotient {
            mean: Arc::clone(&self.mean[name]),
            square: Arc::clone(&self.square[name]),
            cols,
            mean_scale: (1.0 / mean_sum) as f32,
            root_scale: (1.0 / square_sum.sqrt()) as f32,
            epsilon: betas.epsilon as f32,
        }))
    }

    /// Shows `visitor` the values.
    pub fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.count("steps", &mut self.steps);
        visitor.tensors("mean", &mut self.mean);
        visitor.tensors("square", &mut self.square);
    }
}

/// `base` to the power of `exponent` by products in a fixed order: the platform's `pow` has bits of its own.
fn power(base: f64, exponent: u64) -> f64 {
    (0..u64::BITS).rev().fold(1.0, |power, bit| {
        let squared = power * power;
        if exponent >> bit & 1 == 1 { squared * base } else { squared }
    })
}

/// The values of a parameter, to be written over. Whoever still holds a direction of the last step keeps its values.
fn values<'t>(tensors: &'t mut Tensors, name: &str, elements: usize) -> &'t mut [f32] {
    if !tensors.contains_key(name) {
        tensors.insert(name.to_owned(), Arc::from(vec![0.0; elements]));
    }
    let values = tensors.get_mut(name).expect("inserted above");
    assert_eq!(values.len(), elements, "what is remembered of {name:?}");
    Arc::make_mut(values)
}

/// `m̂ / (√v̂ + ε)`, made row by row where it is applied: as values it would be a third copy of the model.
#[derive(Debug)]
struct Quotient {
    mean: Arc<[f32]>,
    square: Arc<[f32]>,
    cols: usize,
    mean_scale: f32,
    root_scale: f32,
    epsilon: f32,
}

impl RowFn for Quotient {
    fn row(&self, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let at = row * self.cols + cols.start..row * self.cols + cols.end;
        for ((out, mean), square) in out.iter_mut().zip(&self.mean[at.clone()]).zip(&self.square[at]) {
            *out = mean * self.mean_scale / (square.sqrt() * self.root_scale + self.epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_products() {
        // Halves, and their products, are exact.
        assert_eq!([0, 1, 2, 3, 10].map(|exponent| power(0.5, exponent)), [1.0, 0.5, 0.25, 0.125, 0.5_f64.powi(10)]);
        // At most 2 · 14 rounded products, each of which later squarings double: 10⁴ roundings stand for all.
        let expected = 0.999_f64.ln() * 1e4;
        assert!((power(0.999, 10_000).ln() - expected).abs() <= 1e4 * f64::EPSILON);
        assert_eq!(power(0.9, u64::MAX), 0.0);
    }
}
