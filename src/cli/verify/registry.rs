//! Every check, in the order of the digest: lowest floor first, new checks at the end of their family.

use super::{check::Check, derivatives, displacements, kernels, losses, models, numbers, vector};

/// The families of checks.
pub(super) const CHECKS: &[&[Check]] = &[
    vector::LANES,
    vector::ROWS,
    kernels::CHECKS,
    losses::CHECKS,
    numbers::CHECKS,
    displacements::CHECKS,
    models::CHECKS,
    derivatives::CHECKS,
];
