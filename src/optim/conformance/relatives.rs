//! Relatives of `MeZO`: directions that are masked, made of candidates, or followed by exact slopes.

use super::{Case, Scale, Thin};

/// Directions made of candidates, of which `E ĝ = α g` with α ≥ 1 and `E‖ĝ‖² ≤ 4 (n + 2)‖g‖²`: at a rate of a quarter the
/// second line at the head of `conformance.rs` is `D − (4α − 2) lr L_B` at most.
///
/// Such a direction has a component s along g and independent normal ones of the variance σ² across it, so that
/// `E‖ĝ‖² = (E s⁴ + (n − 1) σ² E s²)‖g‖²`. Two in halves: σ² = 2, E s² = 2, E s⁴ = 12, which makes 4 (n + 2). Four in
/// halves: σ² = 1, E s² = 2.1, and E s⁴ ≤ 24, because s² is at most a sum of four squares. The best of three: σ² = 1,
/// E s² = 1.3, E s⁴ ≤ 9. Both are less if n ≥ 8, as in all quadratic worlds.
///
/// A candidate a that is kept makes `gᵀE ĝ = s² + ‖g‖²` with s = gᵀa, and `E‖ĝ‖² ≤ (s² + ‖g‖²)(‖a‖² + n + 4)`. With
/// ‖a‖² ≤ 3n that is 4 (n + 2) times as much, whatever s is: the loss falls on average at every step, as it does without a.
const GUIDED: Scale = Scale::Thin(Thin { noise: 4.0, window: 1.0, kept: 0.0 });

/// Of a share of all values at random, `E‖ĝ‖²` is at most what it is of all; E A = share, and masks stay for two steps.
const fn random(share: f64) -> Scale {
    Scale::Thin(Thin { noise: 1.0, window: 2.0 / share, kept: 0.0 })
}

impl Case {
    /// Whether some values take no part: in a world of two, often none does.
    pub(super) fn is_sparse(&self) -> bool {
        self.optimizer == "sparse_mezo" && self.options != "sparsity = 0"
    }

    /// Whether a value that outgrows its threshold stays there. All magnitudes of a world are the same at first, so that half
    /// of the values do in a step; of a few values, all of them soon.
    pub(super) fn freezes(&self) -> bool {
        self.is_sparse() && !self.options.contains("random")
    }
}

pub(super) const CASES: &[Case] = &[
    Case { optimizer: "adazeta", options: "", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "adazeta",
        options: "queries = 3\nshrink_factor = 1\ninc_rate = 1",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case { optimizer: "forward_grad", options: "", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "forward_grad",
        options: "queries = 2\ntangents = \"rademacher\"",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case {
        optimizer: "forward_grad",
        options: "queries = 2\naggregate = \"least-squares\"",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case { optimizer: "mezo_gv", options: "", scale: GUIDED, evaluations: Some(2) },
    Case {
        optimizer: "mezo_gv",
        options: "candidates = 4\nestimator = \"one-sided\"",
        scale: GUIDED,
        evaluations: Some(1),
    },
    Case {
        optimizer: "mezo_gv",
        options: "candidates = 3\nguide = \"greedy\"\nestimator = \"slope\"",
        scale: GUIDED,
        evaluations: Some(1),
    },
    Case { optimizer: "mezo_gv", options: "keep_best = true", scale: GUIDED, evaluations: Some(2) },
    Case { optimizer: "sparse_mezo", options: "sparsity = 0", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "sparse_mezo",
        options: "sparsity = 0.5\nqueries = 2",
        scale: Scale::Slopes,
        evaluations: Some(1),
    },
    Case {
        optimizer: "sparse_mezo",
        options: "sparsity = 0.25\nmask = \"random\"\nrefresh_interval = 2\nestimator = \"one-sided\"",
        scale: random(0.75),
        evaluations: Some(1),
    },
];
