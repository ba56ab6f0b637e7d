//! Methods that scale directions by curvature.

use super::{Case, Scale, Thin};

/// Estimates with `E ĝ = C g`, where ½ ≤ C ≤ 1 most of the time, and `E‖ĝ‖² ≤ (n + 2) gᵀCg`. At the rate of the head of
/// `conformance.rs` the loss f then falls by `E f' ≤ f − lr gᵀCg / 2 ≤ (1 − lr μ / 2) f`, and D is at most L/μ ≤ 4 times
/// as large a part of what it was: 2 ln 6400 / ln 400, less than 3, times the steps.
const PRECONDITIONED: Scale = Scale::Thin(Thin { noise: 1.0, window: 3.0, kept: 0.0 });

/// `HiZOO`: C = 1 / H. With a floor of 1 it is at most 1, and of d = √C z `E (gᵀd)²‖d‖² = gᵀCg tr C + 2‖Cg‖²`. A step lets
/// H grow by α E c z² at most, which is α (½ tr h + h) ≤ 34 α in the convex worlds: 1900 steps with α = 1e-6 by e^0.07. In
/// Rosenbrock's valley it is less than 0.003 while the first walls are left, which takes some hundred steps.
///
/// LOREN: C = (I + A Aᵀ / ρ)⁻¹, at least ½ where ‖A‖² ≤ ρ = 100, the largest of them, the square of 24 normal values or
/// of 5 · 4 that come in five equal rows, being 20 to 24 on average. `E‖ĝ‖² = ‖Cg‖² + (gᵀCg tr C + ‖Cg‖²) / (K − 1)`. With
/// momentum the sum of losses that `Case::steps` bounds is that of D in the norm of C⁻¹, twice as much at most: it is a
/// fiftieth, and D above a quarter in one step of 12.
pub(super) const CASES: &[Case] = &[
    Case { optimizer: "hizoo", options: "", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "hizoo",
        options: "hessian_smooth = 1e-6\nhessian_floor = 1\nqueries = 2",
        scale: PRECONDITIONED,
        evaluations: Some(1),
    },
    Case { optimizer: "loren", options: "queries = 3\ndamping = 100", scale: Scale::Mean(0.9), evaluations: Some(1) },
    Case {
        optimizer: "loren",
        options: "queries = 2\ndamping = 100\nmomentum = 0\ncov_scale = \"1\"",
        scale: PRECONDITIONED,
        evaluations: Some(1),
    },
];
