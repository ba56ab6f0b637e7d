//! Methods that take gradients.
//!
//! An exact gradient has `E‖g‖² = ‖g‖²`, no more than an estimate along random directions: what is derived for those holds for
//! it. `AdamW` moves a weight by about lr, as `sign` does, and Muon all directions of a matrix.

use super::{Case, Scale};

pub(super) const CASES: &[Case] = &[
    Case { optimizer: "adamw", options: "", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "adamw", options: "clip = 1.0\nbeta1 = 0.5", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "adamw", options: "in_place = true", scale: Scale::Normalised, evaluations: Some(1) },
    Case { optimizer: "addax", options: "alpha = 0.5\nin_place = true", scale: Scale::Slopes, evaluations: None },
    Case { optimizer: "addax", options: "alpha = 0.5\nin_place = false", scale: Scale::Slopes, evaluations: None },
    Case { optimizer: "elastic_zo", options: "", scale: Scale::Slopes, evaluations: None },
    Case { optimizer: "elastic_zo", options: "first_order_layers = 0", scale: Scale::Slopes, evaluations: Some(1) },
    Case {
        optimizer: "elastic_zo",
        options: "first_order_layers = 9\nfo_rule = \"adamw\"",
        scale: Scale::Normalised,
        evaluations: Some(1),
    },
    Case { optimizer: "green_trainer", options: "budget = 1.0", scale: Scale::Normalised, evaluations: None },
    Case {
        optimizer: "green_trainer",
        options: "budget = 1.0\nreselect_every = 2\nfo_rule = \"sgd\"",
        scale: Scale::Slopes,
        evaluations: None,
    },
    Case {
        optimizer: "hi_zfo",
        options: "backward_budget = 0.3\nfo_rule = \"sgd\"\nzo_lr_ratio = 1.0",
        scale: Scale::Slopes,
        evaluations: None,
    },
    Case {
        optimizer: "hi_zfo",
        options: "backward_budget = 0.3\nfo_rule = \"sgd\"\nzo_lr_ratio = 1.0\nfo_coupling = false",
        scale: Scale::Slopes,
        evaluations: None,
    },
    Case { optimizer: "hi_zfo", options: "budget = 1.0", scale: Scale::Normalised, evaluations: None },
    Case {
        optimizer: "hi_zfo",
        options: "backward_budget = 0\nzo_rule = \"adamw\"\nzo_lr_ratio = 1.0",
        scale: Scale::Normalised,
        evaluations: Some(1),
    },
    Case { optimizer: "muon", options: "adamw_lr_ratio = 1.0", scale: Scale::Normalised, evaluations: Some(1) },
    Case {
        optimizer: "muon",
        options: "adamw_lr_ratio = 1.0\nnesterov = false\nin_place = true",
        scale: Scale::Normalised,
        evaluations: Some(1),
    },
    Case { optimizer: "sgd", options: "", scale: Scale::Slopes, evaluations: Some(1) },
    Case { optimizer: "sgd", options: "in_place = true", scale: Scale::Slopes, evaluations: Some(1) },
    Case { optimizer: "sgd", options: "momentum = 0.9", scale: Scale::Mean(0.9), evaluations: Some(1) },
    Case {
        optimizer: "sgd",
        options: "momentum = 0.9\nnesterov = true",
        scale: Scale::Mean(0.9),
        evaluations: Some(1),
    },
];
