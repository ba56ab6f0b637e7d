//! Every check, in the order of the digest: append at the end of a family, never reorder.

use super::{check::Check, vector};

/// The families of checks, lowest floor first.
pub(super) const CHECKS: &[&[Check]] = &[vector::LANES, vector::ROWS];
