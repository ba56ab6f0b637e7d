//! Muon: momentum whose matrices are orthogonalised, so that every direction of a matrix moves alike; the rest by `AdamW`.
//!
//! ```text
//! M ← μ M + (1 − μ) G                                  of each matrix
//! U = (1 − μ) G + μ M, or M without Nesterov
//! W ← W − η (√max(1, rows / cols) NS₅(U) + λ W)        NS₅: five steps of Newton and Schulz, singular values to about 1
//! ```
//!
//! Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the code of `MuonWithAuxAdam`.
//!
//! | authors' code | here |
//! | --- | --- |
//! | `lr` | `lr` |
//! | `momentum`, `nesterov` | `momentum`, `nesterov` |
//! | `weight_decay` | `weight_decay` |
//! | `lr` of the auxiliary Adam over that of Muon, 3e-4 / 0.02 | `adamw_lr_ratio` |
//! | its `betas` and `eps` | `beta1`, `beta2`, `adam_epsilon` |
//! | parameters that are not hidden matrices | `adamw_names`, and all vectors |
//!
//! **Deviations.** From the authors' code: Newton-Schulz in f32 instead of bf16; the mean is kept as `Σ μᵗ G`, which is
//! `M / (1 − μ)` and orthogonalises to the same; vectors do not decay; which matrices are no hidden layers follows from
//! their names, and Adam counts the steps of the run.

use std::sync::Arc;

use super::{
    Decay, Entry, Names, NonNegative, Positive, StateVisitor,
    options::options,
    parts::{
        descent::{Adamw, Descent, Momentum, Named, betas},
        first_order::{Consumption, FirstOrder},
        subspace::is_matrix,
    },
    schedule::Schedule,
};
use crate::{
    direction::{Direction, DirectionSet, Displacement, Moves, Param, ParamId},
    kernels::Context,
    linalg::orthogonalize::newton_schulz,
    tensor::{Block, MatMut, MatRef},
};

options! {
    /// The options of Muon.
    pub struct Options {
        /// Learning rate of matrices: about how far each of their directions moves in a step.
        lr: NonNegative = NonNegative::new(0.02), "weights";
        /// How much of the running mean of a matrix's gradients a step keeps.
        momentum: Decay = Decay::new(0.95), "";
        /// Whether a step looks ahead by its momentum.
        nesterov: bool = true, "";
        /// Learning rate of all other parameters, which `AdamW` moves, over lr.
        adamw_lr_ratio: NonNegative = NonNegative::new(0.015), "lr";
        /// Parts of the names of matrices that `AdamW` moves: embeddings and heads.
        adamw_names: Names = Names::new(&["embed", "wte", "wpe", "lm_head", "classifier"]), "";
        /// How much of the running mean of gradients `AdamW` keeps.
        beta1: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares it keeps.
        beta2: Decay = Decay::new(0.95), "";
        /// What it adds to the root of that mean.
        adam_epsilon: Positive = Positive::new(1e-10), "";
        /// Decay of matrices a step, times their learning rate; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "muon",
    about: "gradients by backpropagation, momentum of matrices orthogonalised, AdamW for the rest",
    paper: "Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024",
    groups: &[Options::SPECS, Consumption::SPECS, Schedule::SPECS],
    new: |reader| {
        let Options { lr, momentum, nesterov, adamw_lr_ratio, adamw_names, beta1, beta2, adam_epsilon, weight_decay } =
            Options::read(reader)?;
        let (schedule, consumption) = (Schedule::read(reader)?, Consumption::checked(reader)?);
        let descent = Muon {
            momentum: Momentum::new(momentum, nesterov && momentum.get() != 0.0),
            adamw: Adamw::new(betas(beta1, beta2, adam_epsilon)),
            adamw_names,
            adamw_lr_ratio: adamw_lr_ratio.get(),
        };
        Ok(Box::new(FirstOrder { lr, weight_decay, schedule, consumption, descent }))
    },
};

struct Muon {
    momentum: Momentum,
    adamw: Adamw,
    adamw_names: Names,
    adamw_lr_ratio: f64,
}

impl Muon {
    /// Whether a parameter is a matrix of a hidden layer.
    fn orthogonalizes(&self, param: &Param) -> bool {
        is_matrix(param) && !self.adamw_names.stand_in(param.name())
    }
}

impl Descent for Muon {
    fn begin(&mut self) {
        self.adamw.begin();
    }

    fn direction(&mut self, cx: &Context, of: (ParamId, &Param), gradient: Block<f32>) -> Direction {
        if !self.orthogonalizes(of.1) {
            return self.adamw.direction(cx, of, gradient);
        }
        let direction = self.momentum.direction(cx, of, gradient);
        Direction::Explicit(orthogonalized(cx, of, direction).into())
    }

    fn rate(&self, param: &Param) -> f64 {
        if self.orthogonalizes(param) { 1.0 } else { self.adamw_lr_ratio }
    }

    fn visit(&mut self, visitor: &mut dyn StateVisitor) {
        self.momentum.visit(visitor);
        self.adamw.visit(&mut Named { visitor, prefix: "adamw" });
    }
}

/// `√max(1, rows / cols)` times what five Newton-Schulz steps make of a direction.
fn orthogonalized(cx: &Context, (id, param): (ParamId, &Param), direction: Direction) -> Vec<f32> {
    let (rows, cols) = (param.rows(), param.cols());
    let displacement = Displacement::along(&Arc::new(DirectionSet::new([(id, direction)])), 1.0);
    let moves = Moves::of(std::slice::from_ref(&displacement), id, param);
    let add = moves.update(cx);
    let mut values = vec![0.0; param.elements()];
    values.chunks_exact_mut(cols).enumerate().for_each(|(row, values)| add(row, values));
    let mut out = vec![0.0; param.elements()];
    newton_schulz(cx, MatRef::new(&values, rows, cols), MatMut::new(&mut out, rows, cols));
    let scale = (rows as f64 / cols as f64).max(1.0).sqrt() as f32;
    out.iter_mut().for_each(|value| *value *= scale);
    out
}

#[cfg(test)]
mod tests;
