//! Methods along thin factors.

use super::{Case, Scale, Thin};

/// Values of `U Vᵀ` with r columns have the variance r, hence the part `‖g_V‖²` of vectors counts with r n and the part
/// of matrices with at most `mn + 2 + 2 (m + n + 1) / r` for LOZO, `mn + 2 + (2mn + 6 (m + n) + 10) / r` for `TeZO`: in
/// all no more than `(r + 1) (n + 2)` in these worlds if r ≥ 2. Directions of `SubZero` are as long as dense ones, and
/// `mn (1 + 2 / r²)` is less than that. Those of Subspace-MeZO are shorter, and over fresh spaces E A = r / m, at least
/// 2/5 here: its windows count as three times as long.
pub(super) const fn thin(rank: u32, window: u32, kept: f64) -> Scale {
    Scale::Thin(Thin { noise: (rank + 1) as f64, window: window as f64, kept })
}

pub(super) const CASES: &[Case] = &[
    Case { optimizer: "lozo", options: "refresh_interval = 1", scale: thin(2, 1, 0.0), evaluations: Some(1) },
    Case {
        optimizer: "lozo",
        options: "refresh_interval = 5\nrank = 3\nqueries = 2\nestimator = \"one-sided\"",
        scale: thin(3, 5, 0.0),
        evaluations: Some(1),
    },
    Case {
        optimizer: "lozo",
        options: "refresh_interval = 3\nestimator = \"slope\"",
        scale: thin(2, 3, 0.0),
        evaluations: Some(1),
    },
    Case { optimizer: "lozo_m", options: "refresh_interval = 7", scale: thin(2, 7, 0.9), evaluations: Some(1) },
    Case {
        optimizer: "lozo_m",
        options: "refresh_interval = 6\non_refresh = \"zero\"\nmomentum = 0.5\nqueries = 2",
        scale: thin(2, 6, 0.5),
        evaluations: Some(1),
    },
    Case {
        optimizer: "subspace_mezo",
        options: "refresh_interval = 3\nrank = 2",
        scale: thin(2, 9, 0.0),
        evaluations: Some(1),
    },
    Case { optimizer: "subzero", options: "refresh_interval = 5", scale: thin(2, 1, 0.0), evaluations: Some(1) },
    Case {
        optimizer: "subzero",
        options: "refresh_interval = 3\nrank = 2",
        scale: thin(2, 3, 0.0),
        evaluations: Some(1),
    },
    Case {
        optimizer: "subzero",
        options: "refresh_interval = 4\nrank = 2\nreshape = \"square\"\nqueries = 2",
        scale: thin(2, 4, 0.0),
        evaluations: Some(1),
    },
    Case { optimizer: "tezo", options: "refresh_interval = 1\nrank = 4", scale: thin(4, 1, 0.0), evaluations: Some(1) },
    Case {
        optimizer: "tezo",
        options: "refresh_interval = 3\nrank = 4\nqueries = 2\nestimator = \"one-sided\"",
        scale: thin(4, 3, 0.0),
        evaluations: Some(1),
    },
    Case {
        optimizer: "tezo_adam",
        options: "refresh_interval = 5\nrank = 8",
        scale: Scale::Normalised,
        evaluations: Some(1),
    },
    Case { optimizer: "tezo_adam", options: "rank = 64\nqueries = 2", scale: Scale::Normalised, evaluations: Some(1) },
    Case {
        optimizer: "tezo_m",
        options: "refresh_interval = 7\nrank = 4",
        scale: thin(4, 7, 0.9),
        evaluations: Some(1),
    },
    Case {
        optimizer: "tezo_m",
        options: "refresh_interval = 4\nrank = 4\nmomentum = 0.5\nestimator = \"slope\"",
        scale: thin(4, 4, 0.5),
        evaluations: Some(1),
    },
    Case { optimizer: "zo_mopi", options: "", scale: Scale::Spectral(4), evaluations: Some(1) },
    Case {
        optimizer: "zo_mopi",
        options: "refresh_interval = 5\nrank = 3\nk = 2\nmomentum = 0.5\nestimator = \"slope\"",
        scale: Scale::Spectral(2),
        evaluations: Some(1),
    },
    Case {
        optimizer: "zo_mopi",
        options: "refresh_interval = 3\nrank = 2\nk = 1\nmomentum = 0\nprojection = \"random\"\n\
                  reset_v_on_p_refresh = true",
        scale: Scale::Spectral(1),
        evaluations: Some(1),
    },
    Case { optimizer: "zo_muon", options: "", scale: Scale::Spectral(4), evaluations: Some(1) },
    Case {
        optimizer: "zo_muon",
        options: "refresh_interval = 3\nrank = 2\nqueries = 1\nestimator = \"two-sided\"\northogonalize = \"polar\"",
        scale: Scale::Spectral(2),
        evaluations: Some(1),
    },
];
