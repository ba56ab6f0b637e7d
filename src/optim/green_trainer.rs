//! `GreenTrainer`: gradients of the parameters that are worth their cost; all others stay where they are.
//!
//! ```text
//! F = select(I_k, costs, ρ)                            anew every reselect_every steps
//! θ_F ← AdamW(θ_F, ∇_F L(θ), η)
//!
//! I_k = −Σ Δ_i ∂L/∂θ_i (θ + Δ),  Δ a first step        over the values of parameter k
//! max Σ I_k over F  with  Σ through (down to the deepest of F) + Σ into (of F) ≤ ρ_bp T_bp
//! ρ_bp = ρ (1 + T_fp / T_bp) − T_fp / T_bp             ρ counts the forward and the backward pass
//! ```
//!
//! Huang et al., "Towards Green AI in Fine-tuning Large Language Models via Adaptive Backpropagation", ICLR 2024,
//! arXiv:2309.13192.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | ρ, reduction objective | `budget` |
//! | `ρ_bp` where it is not positive, in the code | `budget_floor` |
//! | selection at every second epoch, in the code | `reselect_every`, in steps |
//!
//! **Deviations.** From the released code: the selection is exact, where its memo drops states and never reaches the last
//! tensor; costs are in the order of execution, not of registration, with corrections that `Model::work` names; the probe
//! step is a first step of the rule whatever its means hold, it is not applied, and means do not advance by it; scores are
//! not divided by the largest, which changes no selection; means of a new selection begin anew.

use super::{
    Decay, Entry, NonNegative, Positive,
    options::options,
    parts::{
        descent::{Rule, betas},
        hybrid::{FirstOrderSide, Hybrid},
        partition::Selection,
    },
    schedule::Schedule,
};

options! {
    /// The options of `GreenTrainer`.
    pub struct Options {
        /// Learning rate of parameters that are selected.
        lr: NonNegative = NonNegative::new(2e-5), "weights";
        /// What is done with gradients.
        fo_rule: Rule = Rule::Adamw, "";
        /// How much of the running mean of gradients `AdamW` keeps.
        beta1: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares it keeps.
        beta2: Decay = Decay::new(0.999), "";
        /// What it adds to the root of that mean.
        adam_epsilon: Positive = Positive::new(1e-8), "";
        /// Decay of matrices that are selected a step, times lr.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "green_trainer",
    about: "gradients of the parameters that are worth their cost; all others stay",
    paper: "Huang et al., Towards Green AI in Fine-tuning Large Language Models, ICLR 2024, arXiv:2309.13192",
    groups: &[Options::SPECS, Selection::SPECS, Schedule::SPECS],
    new: |reader| {
        let Options { lr, fo_rule, beta1, beta2, adam_epsilon, weight_decay } = Options::read(reader)?;
        let (selection, schedule) = (Selection::read(reader)?, Schedule::read(reader)?);
        let first_order = FirstOrderSide::new(fo_rule, betas(beta1, beta2, adam_epsilon), weight_decay);
        Ok(Box::new(Hybrid::new((lr, schedule), selection, first_order, None)))
    },
};
