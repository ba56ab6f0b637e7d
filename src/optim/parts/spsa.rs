//! Slopes along random directions, and the gradient that they make: SPSA (Spall 1992) with its relatives.
//!
//! *What it is.* [`directions`] names a step's `zᵢ`, [`estimate`] measures the slope `pᵢ` along each, all in one
//! evaluation, and [`aggregate`] answers the weights `aᵢ` of the gradient estimate `Σ aᵢ·zᵢ`. So does [`estimate_of`] where
//! each example of the batch has directions of its own.
//!
//! *What must stay true.* A slope is divided by the `epsilon` that was applied, the f32, not by the option's f64.

use std::sync::Arc;

use super::per_example::Owners;
use crate::{
    direction::{Direction, DirectionSet, Displacement, ParamId},
    linalg::cholesky::Cholesky,
    noise::{Law, NoiseKey, Role},
    optim::{BatchId, Clock, Losses, Oracle, OracleError, Positive, options::choice},
};

choice! {
    /// How a slope is measured.
    pub enum Estimator {
        /// `(L(θ + εz) − L(θ − εz)) / 2ε`: two losses a direction, exact for quadratics.
        TwoSided = "two-sided",
        /// `(L(θ + εz) − L(θ)) / ε`: one loss a direction and one for all.
        OneSided = "one-sided",
        /// The exact derivative: forward-mode differentiation, no ε.
        Slope = "slope",
    }
    expected "\"two-sided\", \"one-sided\" or \"slope\""
}

choice! {
    /// How several slopes make a gradient.
    pub enum Aggregate {
        /// `Σ pᵢ·zᵢ / q`.
        Mean = "mean",
        /// The vector in the span of all `zᵢ` that has exactly the slopes `pᵢ`, times n/q for the mean's expectation.
        LeastSquares = "least-squares",
    }
    expected "\"mean\" or \"least-squares\""
}

/// Slopes along the directions of a step.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The loss at θ, or with [`Estimator::TwoSided`] the mean over all probes.
    pub loss: f64,
    /// The slope along each direction.
    pub projected_grads: Vec<f64>,
    /// How many losses and slopes were evaluated.
    pub evaluations: usize,
}

/// The directions of a step: keyed noise for every trainable parameter.
pub fn directions(oracle: &dyn Oracle, clock: Clock, law: Law, count: u32) -> Vec<Arc<DirectionSet>> {
    (0..count).map(|probe| direction(oracle.trainable(), clock, law, probe)).collect()
}

/// One of them, for some parameters.
pub fn direction(ids: &[ParamId], clock: Clock, law: Law, probe: u32) -> Arc<DirectionSet> {
    let key = NoiseKey::new(clock.seed, clock.step, Role::Dense, probe);
    Arc::new(DirectionSet::new(ids.iter().map(|&id| (id, Direction::Dense { key, law }))))
}

/// Measures the slope along every direction in one evaluation.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn estimate(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    z: &[Arc<DirectionSet>],
    how: (Estimator, Positive),
) -> Result<Estimate, OracleError> {
    estimate_of(oracle, batch, z, Owners::All, how)
}

/// Measures the slope of its owners' mean loss along every direction in one evaluation: the directions of a query stand
/// together, in the order of the examples that have them. A mean over all slopes and directions is one over queries of the
/// sum over examples.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn estimate_of(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    z: &[Arc<DirectionSet>],
    owners: Owners,
    (estimator, epsilon): (Estimator, Positive),
) -> Result<Estimate, OracleError> {
    let applied = epsilon.get() as f32;
    match estimator {
        Estimator::TwoSided => two_sided(oracle, batch, &Displacement::default(), (z, owners), applied),
        Estimator::OneSided => {
            let along = owners.along(z);
            let probes = along.iter().map(|z| Displacement::along(z, applied));
            let probes: Vec<_> = std::iter::once(Displacement::default()).chain(probes).collect();
            let losses = losses(oracle, batch, owners, &probes)?;
            let slopes = losses[1..].iter().flat_map(|to| owners.slopes(&losses[0], to, applied.into()));
            Ok(Estimate { loss: losses[0].total, projected_grads: slopes.collect(), evaluations: losses.len() })
        }
        Estimator::Slope => slopes(oracle, batch, z, owners),
    }
}

/// The exact slope of its owners' mean loss along every direction, by forward-mode differentiation.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn slopes(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    z: &[Arc<DirectionSet>],
    owners: Owners,
) -> Result<Estimate, OracleError> {
    let along = owners.along(z);
    let (loss, slopes) = match owners {
        Owners::All => oracle.slopes(batch, &along)?,
        Owners::Each(_) => oracle.slopes_by_example(batch, &along)?,
    };
    assert_eq!(slopes.len(), along.len(), "a slope for each direction");
    Ok(Estimate {
        loss: loss.total,
        projected_grads: slopes.iter().flat_map(|slope| owners.means(slope)).collect(),
        evaluations: 1 + slopes.len(),
    })
}

/// Measures the slope along one direction where the loss at θ is known already. Answers it, and how many losses and slopes
/// that took.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn slope(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    z: &Arc<DirectionSet>,
    (estimator, epsilon): (Estimator, Positive),
    loss: f64,
) -> Result<(f64, usize), OracleError> {
    if estimator == Estimator::OneSided {
        let applied = epsilon.get() as f32;
        let displaced = totals(oracle, batch, &[Displacement::along(z, applied)])?[0];
        return Ok(((displaced - loss) / f64::from(applied), 1));
    }
    let estimate = estimate(oracle, batch, std::slice::from_ref(z), (estimator, epsilon))?;
    Ok((estimate.projected_grads[0], estimate.evaluations))
}

/// Measures the two-sided slope of its owners' mean loss along every direction around θ + `origin`, in one evaluation.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn two_sided(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    origin: &Displacement,
    (z, owners): (&[Arc<DirectionSet>], Owners),
    epsilon: f32,
) -> Result<Estimate, OracleError> {
    let beside = |z: &Arc<DirectionSet>, epsilon| {
        let mut probe = origin.clone();
        probe.terms.extend(Displacement::along(z, epsilon).terms);
        probe
    };
    let probes: Vec<_> = owners.along(z).iter().flat_map(|z| [beside(z, epsilon), beside(z, -epsilon)]).collect();
    let losses = losses(oracle, batch, owners, &probes)?;
    let slopes = losses.chunks_exact(2).flat_map(|pair| owners.slopes(&pair[1], &pair[0], 2.0 * f64::from(epsilon)));
    Ok(Estimate {
        loss: losses.iter().map(|losses| losses.total).sum::<f64>() / losses.len() as f64,
        projected_grads: slopes.collect(),
        evaluations: losses.len(),
    })
}

fn losses(
    oracle: &mut dyn Oracle,
    batch: BatchId,
    owners: Owners,
    probes: &[Displacement],
) -> Result<Vec<Losses>, OracleError> {
    let losses = match owners {
        Owners::All => oracle.losses(batch, probes)?,
        Owners::Each(_) => oracle.losses_by_example(batch, probes)?,
    };
    assert_eq!(losses.len(), probes.len(), "a loss for each probe");
    Ok(losses)
}

/// The loss at each probe.
///
/// # Errors
/// [`OracleError`] if the oracle has no answer.
pub fn totals(oracle: &mut dyn Oracle, batch: BatchId, probes: &[Displacement]) -> Result<Vec<f64>, OracleError> {
    Ok(losses(oracle, batch, Owners::All, probes)?.into_iter().map(|losses| losses.total).collect())
}

/// The weights of the directions in the gradient estimate.
pub fn aggregate(oracle: &dyn Oracle, z: &[Arc<DirectionSet>], projected_grads: &[f64], how: Aggregate) -> Vec<f64> {
    let queries = projected_grads.len() as f64;
    match how {
        Aggregate::Mean => projected_grads.iter().map(|slope| slope / queries).collect(),
        Aggregate::LeastSquares => {
            let mut weights = projected_grads.to_vec();
            let gram = Cholesky::new(&oracle.gram(z)).expect("products of vectors are positive semidefinite");
            gram.solve(&mut weights);
            let scale = oracle.dimension() as f64 / queries;
            weights.iter().map(|weight| weight * scale).collect()
        }
    }
}
