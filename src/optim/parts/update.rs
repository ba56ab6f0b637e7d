//! `θ ← θ − lr·Σ aᵢ·zᵢ − lr·weight_decay·θ` as one displacement, and `Σ aᵢ·zᵢ` as another.

use std::sync::Arc;

use super::{sparsity::Masks, subspace::is_matrix};
use crate::{
    direction::{Coefficients, Direction, DirectionSet, Displacement, ParamId, Term},
    optim::{NonNegative, Oracle},
};

/// The update along directions with these weights. Decay is decoupled (it sees no estimate) and leaves vectors alone:
/// biases, and the scales and shifts of norms. A coefficient is rounded to f32 once, here.
pub fn descend(
    oracle: &dyn Oracle,
    z: &[Arc<DirectionSet>],
    weights: &[f64],
    step: (f64, NonNegative),
) -> Displacement {
    descend_some(oracle, oracle.trainable(), z, weights, step)
}

/// As [`descend`], along directions of some parameters, which alone decay.
pub fn descend_some(
    oracle: &dyn Oracle,
    ids: &[ParamId],
    z: &[Arc<DirectionSet>],
    weights: &[f64],
    step: (f64, NonNegative),
) -> Displacement {
    let mut update = decay(oracle, ids, step);
    update.terms.extend(sum(z, weights, -step.0).terms);
    update
}

/// `−lr·weight_decay·θ` for the matrices among `ids`.
fn decay(oracle: &dyn Oracle, ids: &[ParamId], (lr, weight_decay): (f64, NonNegative)) -> Displacement {
    if weight_decay.get() == 0.0 {
        return Displacement::default();
    }
    let matrices = ids.iter().filter(|&&id| is_matrix(&oracle.params()[id]));
    let set = Arc::new(DirectionSet::new(matrices.map(|&id| (id, Direction::Weights))));
    Displacement::along(&set, (-lr * weight_decay.get()) as f32)
}

/// What estimates of matrices and of vectors are multiplied by, where they differ in scale.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Of matrices.
    pub matrices: f64,
    /// Of vectors.
    pub vectors: f64,
}

/// As [`descend`], with a rate each for matrices and vectors. Decay goes by `lr`, whatever the scale of an estimate.
pub fn descend_apart(
    oracle: &dyn Oracle,
    z: &[Arc<DirectionSet>],
    weights: &[f64],
    rates: Rates,
    step: (f64, NonNegative),
) -> Displacement {
    assert_eq!(z.len(), weights.len(), "one weight a direction");
    let mut update = decay(oracle, oracle.trainable(), step);
    for (set, weight) in z.iter().zip(weights) {
        let coefficient = |id: ParamId| {
            let rate = if is_matrix(&oracle.params()[id]) { rates.matrices } else { rates.vectors };
            (id, (-rate * weight) as f32)
        };
        let coefficients = Coefficients::PerParam(set.params().map(coefficient).collect());
        update.terms.push(Term { set: Arc::clone(set), coefficients });
    }
    update
}

/// `scale·Σ aᵢ·zᵢ`.
pub fn sum(z: &[Arc<DirectionSet>], weights: &[f64], scale: f64) -> Displacement {
    assert_eq!(z.len(), weights.len(), "one weight a direction");
    let term = |(z, weight): (&Arc<DirectionSet>, &f64)| Term {
        set: Arc::clone(z),
        coefficients: Coefficients::One((scale * weight) as f32),
    };
    Displacement { terms: z.iter().zip(weights).map(term).collect() }
}

/// As [`descend`] along directions that `masks` were laid over: what takes no part does not decay.
pub fn descend_masked(
    oracle: &dyn Oracle,
    masks: &Masks,
    z: &[Arc<DirectionSet>],
    weights: &[f64],
    step: (f64, NonNegative),
) -> Displacement {
    let mut update = decay(oracle, oracle.trainable(), step);
    for term in &mut update.terms {
        term.set = masks.over(&term.set);
    }
    update.terms.extend(sum(z, weights, -step.0).terms);
    update
}
