//! SGD: gradient descent, with momentum and Nesterov's look ahead.
//!
//! ```text
//! g = ∇L(θ)                                            on one batch; g · c / ‖g‖ where ‖g‖ > c > 0
//! m ← μ m + g
//! θ ← θ − η (m + λ θ)                                  or, with Nesterov, θ − η (g + μ m + λ θ)
//! ```
//!
//! Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in the form of
//! `torch.optim.SGD`. It is the plainest control of every method that does without gradients.
//!
//! | paper | here |
//! | --- | --- |
//! | η, learning rate | `lr` |
//! | μ, momentum | `momentum` |
//! | λ, weight decay | `weight_decay` |
//! | c, of `clip_grad_norm_` | `clip` |
//!
//! **Deviations.** From `torch.optim.SGD`: decay is decoupled from momentum and leaves vectors alone; there is no dampening;
//! products of the update are fused. From `clip_grad_norm_`: nothing is added to the norm that is divided by. `in_place` is
//! LOMO (Lv et al., 2023, arXiv:2306.09782) without its second backward pass for norms.

use super::{
    Decay, Entry, NonNegative,
    options::options,
    parts::{
        descent::Momentum,
        first_order::{Consumption, FirstOrder},
    },
    schedule::Schedule,
};

options! {
    /// The options of SGD.
    pub struct Options {
        /// Learning rate: the scale of an update.
        lr: NonNegative = NonNegative::new(1e-3), "";
        /// How much of the running mean of gradients a step keeps; 0: none is kept.
        momentum: Decay = Decay::new(0.0), "";
        /// Whether a step looks ahead by its momentum.
        nesterov: bool = false, "";
        /// Decay of matrices a step, times lr; vectors do not decay.
        weight_decay: NonNegative = NonNegative::new(0.0), "1/lr";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "sgd",
    about: "gradient descent with backpropagation, momentum and Nesterov's look ahead",
    paper: "Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013",
    groups: &[Options::SPECS, Consumption::SPECS, Schedule::SPECS],
    new: |reader| {
        let Options { lr, momentum, nesterov, weight_decay } = Options::read(reader)?;
        if nesterov && momentum.get() == 0.0 {
            return Err(reader.refusal("nesterov", "false where momentum is 0: there is nothing to look ahead by"));
        }
        let (schedule, consumption) = (Schedule::read(reader)?, Consumption::checked(reader)?);
        let descent = Momentum::new(momentum, nesterov);
        Ok(Box::new(FirstOrder { lr, weight_decay, schedule, consumption, descent }))
    },
};
