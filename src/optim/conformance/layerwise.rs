//! Methods that treat layers apart.

use super::{Case, Scale, Thin};

/// Of the two layers that a world has at most one is drawn, with this probability at least, and its estimate counts four
/// times at most: so many times the square of that of both, and on average no less than four times the probability of it.
const fn odds(probability: f64) -> Scale {
    Scale::Thin(Thin { noise: 4.0, window: 1.0 / (4.0 * probability), kept: 0.0 })
}

/// Every step but the first draws three batches. With so small a step of its scalars a projection lowers a loss on
/// average: s is below 2 / (L ‖Δ‖² (n + 2)) for n scalars.
const NORMS: &str = "interval = 1\nprojection_steps = 2\nstep_size_projection = 1e-6";
const RATIOS: &str =
    "interval = 1\nprojection_steps = 2\nstep_size_projection = 1e-6\nscalar = \"ratio\"\nprojected = \"all\"";

pub(super) const CASES: &[Case] = &[
    // The softmax of rewards 0 and 1 at τ = 0.6, and half of γ = 0.1.
    Case { optimizer: "adalezo", options: "[inner]\nname = \"mezo\"", scale: odds(0.19), evaluations: Some(1) },
    // Half of γ alone.
    Case {
        optimizer: "adalezo",
        options: "score = \"absolute\"\n[inner]\nestimator = \"slope\"\nqueries = 2",
        scale: odds(0.05),
        evaluations: Some(1),
    },
    Case { optimizer: "dizo", options: NORMS, scale: Scale::Slopes, evaluations: None },
    Case { optimizer: "dizo", options: RATIOS, scale: Scale::Slopes, evaluations: None },
];
