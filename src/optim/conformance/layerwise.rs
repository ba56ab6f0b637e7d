//! Methods that treat layers apart.

use super::{Case, Scale};

/// Every step but the first draws three batches. With so small a step of its scalars a projection lowers a loss on
/// average: s is below 2 / (L ‖Δ‖² (n + 2)) for n scalars.
const NORMS: &str = "interval = 1\nprojection_steps = 2\nstep_size_projection = 1e-6";
const RATIOS: &str =
    "interval = 1\nprojection_steps = 2\nstep_size_projection = 1e-6\nscalar = \"ratio\"\nprojected = \"all\"";

pub(super) const CASES: &[Case] = &[
    Case { optimizer: "dizo", options: NORMS, scale: Scale::Slopes, evaluations: None },
    Case { optimizer: "dizo", options: RATIOS, scale: Scale::Slopes, evaluations: None },
];
