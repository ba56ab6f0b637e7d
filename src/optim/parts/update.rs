//! `θ ← θ − lr·Σ aᵢ·zᵢ − lr·weight_decay·θ` as one displacement, and `Σ aᵢ·zᵢ` as another.

use std::sync::Arc;

use crate::{
    direction::{Coefficients, Direction, DirectionSet, Displacement, Term},
    optim::{NonNegative, Oracle},
};

/// The update along directions with these weights. Decay is decoupled (it sees no estimate) and leaves vectors alone:
/// biases, and the scales and shifts of norms. A coefficient is rounded to f32 once, here.
pub fn descend(
    oracle: &dyn Oracle,
    z: &[Arc<DirectionSet>],
    weights: &[f64],
    (lr, weight_decay): (f64, NonNegative),
) -> Displacement {
    let mut update = Displacement::default();
    if weight_decay.get() != 0.0 {
        let matrices = oracle.trainable().iter().filter(|&&id| oracle.params()[id].shape().len() == 2);
        let set = Arc::new(DirectionSet::new(matrices.map(|&id| (id, Direction::Weights))));
        update.terms.extend(Displacement::along(&set, (-lr * weight_decay.get()) as f32).terms);
    }
    update.terms.extend(sum(z, weights, -lr).terms);
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
