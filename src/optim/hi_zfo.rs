//! Hi-ZFO: gradients of the parameters that are worth their cost, differences along random directions of all others.
//!
//! ```text
//! F = select(I_k, costs, ρ)                            once; I_k of a probe step, costs of the backward pass
//! u ~ N(0, I) on Z, all parameters but F               from the key (seed, step)
//! L_FO = L(θ),  L_ZO = L(θ + ε u)                      on one batch, evaluated together
//! θ_F ← AdamW(θ_F, ∇_F (L_FO + α L_ZO), η)
//! θ_Z ← θ_Z − r η (L_ZO − L_FO) / ε · u
//! ```
//!
//! "Hi-ZFO: Hierarchical Zeroth- and First-Order LLM Fine-Tuning", 2026, arXiv:2601.05501, sections 3 to 5; the selector
//! is that of `GreenTrainer` (Huang et al., 2023, arXiv:2309.13192), of which [`super::green_trainer`] is the rest.
//!
//! | paper | here |
//! | --- | --- |
//! | `η_FO` | `lr` |
//! | `r = η_ZO / η_FO` | `zo_lr_ratio` |
//! | ε, smoothing radius | `epsilon` |
//! | α, weight of the perturbed loss | `alpha` |
//! | ρ, budget of forward and backward | `budget` |
//! | `(L_ZO − L_FO) / ε` | [`StepReport::projected_grads`](super::StepReport::projected_grads) |
//!
//! **Deviations.** There is no code to compare with; where the text is open, options choose. Setup says `AdamW` for both
//! sides, the equations a plain step for Z: `zo_rule`. α is in the loss of F only; an ablation suggests that α = 0 drops Z,
//! the theorem that its step scales: `zo_off_when_alpha_zero`, `zo_scaled_by_alpha`. `fo_coupling = false` keeps α out of the
//! loss, which saves its backward pass. The direction is drawn anew in every step. Z is the complement of F, embeddings and
//! vectors included; `zo_without` takes out what names say. The selector is exact where that of `GreenTrainer` is a
//! heuristic; the probe step is a first step of the rule, whatever its means hold, and is never applied.
//! `reselect_every` counts steps, because an optimizer knows no epochs; where it selects other parameters, means begin anew.

use super::{
    Decay, Entry, Names, NonNegative, Positive,
    options::options,
    parts::{
        descent::{Rule, betas},
        hybrid::{FirstOrderSide, Hybrid, ZerothOrderSide},
        moments::Moments,
        partition::Selection,
    },
    schedule::Schedule,
};

options! {
    /// The options of Hi-ZFO.
    pub struct Options {
        /// Learning rate of parameters that take gradients.
        lr: NonNegative = NonNegative::new(2e-5), "weights";
        /// Learning rate of all others over lr.
        zo_lr_ratio: NonNegative = NonNegative::new(0.1), "lr";
        /// Scale of the perturbation of all others.
        epsilon: Positive = Positive::new(1e-3), "weights";
        /// Weight of the perturbed loss in what gradients are taken of.
        alpha: NonNegative = NonNegative::new(0.1), "";
        /// Whether the perturbed loss is in there at all: without it a step has one backward pass less.
        fo_coupling: bool = true, "";
        /// What is done with gradients.
        fo_rule: Rule = Rule::Adamw, "";
        /// What is done with the estimate of all others.
        zo_rule: Rule = Rule::Sgd, "";
        /// Whether alpha also scales the step of all others.
        zo_scaled_by_alpha: bool = false, "";
        /// Whether all others stay where they are if alpha is 0.
        zo_off_when_alpha_zero: bool = false, "";
        /// Parts of the names of parameters that stay where they are unless they take gradients.
        zo_without: Names = Names::new(&[]), "";
        /// How much of the running mean of gradients `AdamW` keeps.
        beta1: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares it keeps.
        beta2: Decay = Decay::new(0.999), "";
        /// What it adds to the root of that mean.
        adam_epsilon: Positive = Positive::new(1e-8), "";
        /// Decay of matrices that take gradients a step, times lr.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "hi_zfo",
    about: "gradients of the parameters that are worth their cost, one-sided differences for all others",
    paper: "Hi-ZFO: Hierarchical Zeroth- and First-Order LLM Fine-Tuning, 2026, arXiv:2601.05501",
    groups: &[Options::SPECS, Selection::SPECS, Schedule::SPECS],
    new: |reader| {
        let options = Options::read(reader)?;
        let (selection, schedule) = (Selection::read(reader)?, Schedule::read(reader)?);
        let betas = betas(options.beta1, options.beta2, options.adam_epsilon);
        let first_order = FirstOrderSide::new(options.fo_rule, betas, options.weight_decay);
        let alpha = options.alpha.get();
        let is_on = !(options.zo_off_when_alpha_zero && alpha == 0.0);
        let zeroth_order = is_on.then(|| ZerothOrderSide {
            lr_ratio: options.zo_lr_ratio.get() * if options.zo_scaled_by_alpha { alpha } else { 1.0 },
            epsilon: options.epsilon,
            coupling: if options.fo_coupling { alpha } else { 0.0 },
            rule: options.zo_rule,
            betas,
            without: options.zo_without,
            moments: Moments::default(),
        });
        Ok(Box::new(Hybrid::new((options.lr, schedule), selection, first_order, zeroth_order)))
    },
};

#[cfg(test)]
mod tests;
