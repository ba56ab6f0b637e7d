//! Every branch in which examples have directions of their own.
//!
//! They make no more noise than shared ones: gradients of examples are orthogonal in all quadratic worlds, so that
//! `Σ ‖gᵢ‖² = ‖g‖²`. Signs of one `z` then have `E‖ĝ‖² = (n − 1) Σ ‖gᵢ‖² + 3 ‖g‖² = (n + 2) ‖g‖²` (`parts::per_example`),
//! and thin factors that are independent given those that stay have what each example has, summed.

use super::{Case, Scale, low_rank::thin};

pub(super) const CASES: &[Case] = &[
    Case {
        optimizer: "fzoo",
        options: "epsilon = 1e-3\ndirections = \"per-example\"",
        scale: Scale::Normalised,
        evaluations: Some(1),
    },
    Case {
        optimizer: "lozo",
        options: "refresh_interval = 3\ndirections = \"per-example\"",
        scale: thin(2, 3, 0.0),
        evaluations: Some(1),
    },
    Case { optimizer: "mezo", options: "directions = \"per-example\"", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "mezo",
        options: "directions = \"per-example\"\nqueries = 2\nestimator = \"one-sided\"",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case {
        optimizer: "mezo",
        options: "directions = \"per-example\"\nestimator = \"slope\"",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case {
        optimizer: "subspace_mezo",
        options: "refresh_interval = 2\nrank = 2\ndirections = \"per-example\"\nestimator = \"slope\"",
        scale: thin(2, 6, 0.0),
        evaluations: Some(1),
    },
    Case {
        optimizer: "subzero",
        options: "refresh_interval = 3\nrank = 2\ndirections = \"per-example\"\nestimator = \"one-sided\"",
        scale: thin(2, 3, 0.0),
        evaluations: Some(1),
    },
    Case {
        optimizer: "zo_mopi",
        options: "queries = 2\ndirections = \"per-example\"",
        scale: Scale::Spectral(4),
        evaluations: Some(1),
    },
    Case {
        optimizer: "zo_muon",
        options: "queries = 2\ndirections = \"per-example\"",
        scale: Scale::Spectral(4),
        evaluations: Some(1),
    },
];
