//! Methods that multiply slopes by gains.

use super::{Case, Scale};

/// Of the slopes along k directions, each with a gain γ from ½ to 1, `ĝ = Σ γᵢ pᵢ zᵢ` has the mean c g, c = Σ γᵢ, and
/// `E‖ĝ‖² ≤ (Σ γᵢ² (n + 2) + c²) ‖g‖²`. As in the head of this suite, with lr = 1 / (L (n + 2)),
///
/// ```text
/// E D' ≤ D + lr L_B (Σ (2 γᵢ² − 4 γᵢ) + 2 c² / (n + 2)) ≤ D − 2 lr L_B
/// ```
///
/// because 2γ² − 4γ ≤ −3/2 there and c ≤ k: with n ≥ 17 it is −3 + 8/19 at most for k = 2, and −9/2 + 18/19 for k = 3.
///
/// A noise that stays and is that of the prior makes gains of ½, 2/3 and so on. One that follows the readings starts
/// there as well and falls; beside σ = 10⁴ no slope of these worlds counts for more than a hundredth in it, so that a
/// gain hardly depends on its own slope.
const GAINS: Scale = Scale::Slopes;

pub(super) const CASES: &[Case] = &[
    Case { optimizer: "bszo", options: "sigma_p = 1e4\nsigma_0 = 1e4", scale: GAINS, evaluations: Some(1) },
    Case {
        optimizer: "bszo",
        options: "sigma_p = 1e4\nsigma_0 = 1e4\nextra = \"remeasure\"\nestimator = \"two-sided\"",
        scale: GAINS,
        evaluations: Some(2),
    },
    Case { optimizer: "bszo", options: "adaptive_noise = false\nextra = \"none\"", scale: GAINS, evaluations: Some(1) },
    Case {
        optimizer: "bszo",
        options: "adaptive_noise = false\nk = 3\nm = 5\nestimator = \"slope\"",
        scale: GAINS,
        evaluations: Some(1),
    },
    Case {
        optimizer: "bszo",
        options: "sigma_p = 1e4\nsigma_0 = 1e4\nk = 3\nm = 2\nalpha = 0.5",
        scale: GAINS,
        evaluations: Some(1),
    },
];
