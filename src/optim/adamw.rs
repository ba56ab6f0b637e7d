//! `AdamW`: steps down the running mean of gradients over the root of that of their squares.
//!
//! ```text
//! g = ∇L(θ)                                            on one batch; g · c / ‖g‖ where ‖g‖ > c > 0
//! m ← β₁ m + (1 − β₁) g,    m̂ = m / (1 − β₁ᵗ)
//! v ← β₂ v + (1 − β₂) g²,   v̂ = v / (1 − β₂ᵗ)
//! θ ← θ − η (m̂ / (√v̂ + ε) + λ θ)
//! ```
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | β₁, β₂ | `beta1`, `beta2` |
//! | ε | `adam_epsilon` |
//! | λ, weight decay | `weight_decay` |
//! | c, of `clip_grad_norm_` | `clip` |
//!
//! **Deviations.** From `torch.optim.AdamW`: the same formula and defaults, but that decay leaves vectors alone and is 0, that
//! it is a term of the update and not a multiplication before it, and the order of roundings. A tensor counts the steps of
//! the run, not its own.

use super::{
    Decay, Entry, NonNegative, Positive,
    options::options,
    parts::{
        descent::{Adamw, betas},
        first_order::{Consumption, FirstOrder},
    },
    schedule::Schedule,
};

options! {
    /// The options of `AdamW`.
    pub struct Options {
        /// Learning rate: about how far a weight moves in a step.
        lr: NonNegative = NonNegative::new(2e-5), "weights";
        /// How much of the running mean of gradients a step keeps.
        beta1: Decay = Decay::new(0.9), "";
        /// How much of the running mean of their squares a step keeps.
        beta2: Decay = Decay::new(0.999), "";
        /// What is added to the root of that mean.
        adam_epsilon: Positive = Positive::new(1e-8), "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "adamw",
    about: "gradients by backpropagation, each weight's step scaled by the size of its own",
    paper: "Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, arXiv:1711.05101",
    groups: &[Options::SPECS, Consumption::SPECS, Schedule::SPECS],
    new: |reader| {
        let Options { lr, beta1, beta2, adam_epsilon, weight_decay } = Options::read(reader)?;
        let (schedule, consumption) = (Schedule::read(reader)?, Consumption::checked(reader)?);
        let descent = Adamw::new(betas(beta1, beta2, adam_epsilon));
        Ok(Box::new(FirstOrder { lr, weight_decay, schedule, consumption, descent }))
    },
};
