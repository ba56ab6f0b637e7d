//! What the gradients of parameters are worth: how much a step along each would lower the loss.
//!
//! *What it is.* The score of `GreenTrainer` (Huang et al., 2023, arXiv:2309.13192): `I_k = −Σ Δ_i·∂L/∂θ_i (θ + Δ)` over the
//! values of parameter k, where `Δ = −lr·z` is the first step of the rule that gradients are for.
//!
//! *What it is not.* A step: the gradient at θ + Δ is that of a displacement, so no weight changes and none is put back, and
//! no running mean is touched, because a first step needs none.

use std::{collections::BTreeMap, sync::Arc};

use rayon::prelude::*;

use super::gradient::Gradient;
use crate::{
    direction::{Direction, DirectionSet, Displacement, Moves, ParamId, ParamTable},
    kernels::Context,
    optim::{BatchId, GradientSink, Oracle, OracleError},
    tensor::Block,
};

/// Scores of parameters.
pub type Importance = BTreeMap<ParamId, f64>;

/// What a probe step told.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// The loss at θ.
    pub loss: f64,
    /// Losses that were evaluated.
    pub evaluations: usize,
    /// The scores; none where a loss, a gradient or a score is not finite.
    pub importance: Option<Importance>,
}

/// The scores of the parameters `wrt` for a first step of `lr`, of which `first` makes the direction from a gradient.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn importance(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    wrt: &[ParamId],
    lr: f64,
    first: impl Fn(Block<f32>) -> Direction,
) -> Result<Probed, OracleError> {
    let (losses, gradient) = Gradient::of(oracle, batch, &[(1.0, Displacement::default())], wrt)?;
    let loss = losses[0];
    if !loss.is_finite() || !gradient.is_finite() {
        return Ok(Probed { loss, evaluations: 1, importance: None });
    }
    let directions = gradient.into_values().map(|(id, gradient)| (id, first(gradient)));
    let step = Displacement::along(&Arc::new(DirectionSet::new(directions)), -lr as f32);
    let (params, cx) = (oracle.params().clone(), oracle.space().context().clone());
    let mut scores = Scores { step: &step, params, cx, importance: Importance::new() };
    oracle.gradients(batch, &[(1.0, step.clone())], wrt, &mut scores)?;
    let importance = scores.importance;
    let is_whole = importance.len() == wrt.len() && importance.values().all(|score| score.is_finite());
    Ok(Probed { loss, evaluations: 2, importance: is_whole.then_some(importance) })
}

/// Scores gradients after a step.
struct Scores<'s> {
    step: &'s Displacement,
    params: ParamTable,
    cx: Context,
    importance: Importance,
}

impl GradientSink for Scores<'_> {
    fn take(&mut self, id: ParamId, gradient: Block<f32>) -> Option<Displacement> {
        let param = &self.params[id];
        let moves = Moves::of(std::slice::from_ref(self.step), id, param);
        let add = moves.update(&self.cx);
        let lowered = |(row, gradient): (usize, &[f32])| {
            let mut change = vec![0.0; param.cols()];
            add(row, &mut change);
            change.iter().zip(gradient).map(|(change, g)| -f64::from(*change) * f64::from(*g)).sum::<f64>()
        };
        // In the order of the rows, whoever summed them.
        let rows: Vec<f64> = gradient.par_chunks(param.cols()).enumerate().map(lowered).collect();
        self.importance.insert(id, rows.into_iter().sum());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        optim::Pool,
        testing::worlds::{self, Dual, Facts, World},
    };

    fn scores(world: &mut World, lr: f64) -> Option<Importance> {
        let before = world.values().to_vec();
        let wrt = crate::optim::Space::trainable(world).to_vec();
        let batch = world.draw(Pool::Train, None).expect("a toy");
        let scores = importance(world, batch, &wrt, lr, |gradient| Direction::Explicit(gradient.into()));
        assert_eq!(world.values(), before, "a probe step is taken back");
        scores.expect("a toy").importance
    }

    #[test]
    fn along_the_gradient_of_a_quadratic_they_have_their_closed_form() {
        // ½ Σ λ_k ‖x_k − t_k‖²: g = λ(x − t), H = λ, hence I_k = lr (‖g_k‖² − lr λ_k ‖g_k‖²).
        const LAMBDA: [f64; 3] = [0.5, 4.0, 1.0];
        let (lr, start) = (0.125, [2.0, -1.0, 0.5]);
        let loss = |values: &[Vec<Dual>], _| {
            let of = |(values, lambda): (&Vec<Dual>, f64)| {
                values.iter().fold(Dual::from(0.0), |sum, x| sum + Dual::from(lambda / 2.0) * *x * *x)
            };
            values.iter().zip(LAMBDA).map(of).collect()
        };
        let start = |at: usize, n: usize| vec![start[at]; n];
        let tensors = [
            ("a", &[2, 3][..], start(0, 6), start(0, 6)),
            ("b", &[4][..], start(1, 4), start(1, 4)),
            ("c", &[2, 2][..], start(2, 4), start(2, 4)),
        ];
        let mut world = World::new(&tensors, &[], Facts { smoothness: 4.0, convexity: 0.0 }, Box::new(loss));
        let found = scores(&mut world, lr).expect("finite losses");
        for (((_, score), lambda), values) in found.iter().zip(LAMBDA).zip(world.values()) {
            let square: f64 = values.iter().map(|x| (lambda * f64::from(*x)).powi(2)).sum();
            // Powers of two and their sums: every product above is exact.
            assert_eq!(*score, lr * (square - lr * lambda * square));
        }
        // A step of more than twice the way to the minimum climbs.
        let far = scores(&mut world, 1.0).expect("finite losses");
        assert!(far.values().map(|score| *score > 0.0).eq([true, false, false]), "{far:?}");
    }

    #[test]
    fn a_loss_that_is_not_finite_has_none() {
        for fault in [f64::NAN, f64::INFINITY] {
            assert_eq!(scores(&mut worlds::mixed_ranks().failing([0], fault), 0.1), None);
        }
        assert!(scores(&mut worlds::mixed_ranks(), 0.1).is_some());
    }
}
