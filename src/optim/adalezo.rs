//! `AdaLeZO`: a zeroth-order method that moves a few layers a step, drawn by how much the loss has changed along them.
//!
//! ```text
//! p_l = (1 − γ) softmax(Q / τ)_l + γ / L                Q over its largest; L layers
//! n   = K draws from p, with replacement                K = max(1, ⌊ρ L⌋), from the key (seed, step)
//! one step of the inner method on the layers with n_l > 0, its estimate ĝ_l times w_l n_l,
//!     w_l = min(1 / (K p_l), C)
//! Q_l ← (1 − a) Q_l + a |c|                             where n_l > 0; c the slope that was measured
//! ```
//!
//! Wang et al., "Universally Empowering Zeroth-Order Optimization via Adaptive Layer-wise Sampling", Findings of ACL 2026,
//! arXiv:2604.18264. Without the bound C the estimate is that of all layers on average.
//!
//! | paper | here |
//! | --- | --- |
//! | the method that is made layer-wise | `inner` |
//! | ρ | `k_ratio` |
//! | τ, γ | `tau`, `gamma` |
//! | C, bound of the weights | `ipw_clip` |
//! | a, of the running mean of rewards | `ema_alpha` |
//! | c, `projected_grad` | the mean magnitude of [`StepReport::projected_grads`] |
//!
//! A layer is what parameters have in common that follow each other and whose names agree up to the first number, or,
//! where there is none, up to the last dot: a block, a norm, a head.
//!
//! **Deviations.** The paper's softmax is over Q, that of the released code over Q by its largest: `score`. That code has
//! one layer for all names with `embed` and one for all that is neither such nor a block; its layers are drawn anew in
//! every step here as in all its experiments, and its division by a root mean square, off by default, is left out, as is
//! the 1e-8 beside K p. Only estimates are weighed, not decay and not projections. Directions are drawn of all layers and
//! kept of the drawn ones, so what an inner method remembers of the others (momentum) also takes in slopes along noise
//! that was not measured, whose mean is 0; the released wrappers, one for each method, leave alone what they remember of
//! them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Clock, Entry, OptimError, Optimizer, Oracle, Positive, Share, Space, StateVisitor, StepReport, Tunes,
    options::{choice, options},
    parts::{
        descent::Named,
        inner::{Inner, Rate},
        layers::layers,
        restricted::Restricted,
    },
};
use crate::{
    direction::ParamId,
    kernels::twin::Real,
    noise::{Law, NoiseKey, Role},
};

choice! {
    /// What the softmax sees of rewards.
    pub enum Score {
        /// As released: rewards over the largest of them, whatever the scale of the loss.
        Relative = "relative",
        /// As in the paper: rewards.
        Absolute = "absolute",
    }
    expected "\"relative\" or \"absolute\""
}

options! {
    /// The options of `AdaLeZO`.
    pub struct Options {
        /// The method that moves the layers: its name, or a table of its name and options.
        inner: Inner = Inner::default(), "";
        /// Learning rate of that method, in place of its own.
        lr: Rate = Rate::Inner, "";
        /// Share of the layers that is drawn in a step, at least one draw.
        k_ratio: Share = Share::new(0.2), "of the layers";
        /// Temperature of the draws: how little rewards count.
        tau: Positive = Positive::new(0.6), "rewards";
        /// How much of the draws does not depend on rewards.
        gamma: Share = Share::new(0.1), "";
        /// Bound of the weights of rare layers.
        ipw_clip: Positive = Positive::new(4.0), "";
        /// How much of a reward enters the running mean of its layer.
        ema_alpha: Share = Share::new(0.1), "";
        /// What draws see of rewards: relative to the largest as released, or absolute as in the paper.
        score: Score = Score::Relative, "";
    }
}

pub(super) static ENTRY: Entry = Entry {
    name: "adalezo",
    about: "a zeroth-order method on a few layers a step, drawn by rewards and weighed by the odds",
    paper: "Wang et al., Universally Empowering Zeroth-Order Optimization via Adaptive Layer-wise Sampling, Findings of ACL \
            2026, arXiv:2604.18264",
    groups: &[Options::SPECS],
    new: |reader| {
        let options = Options::read(reader)?;
        let inner = options.inner.build(reader, options.lr)?;
        Ok(Box::new(AdaLezo { options, inner, rewards: BTreeMap::new() }))
    },
};

struct AdaLezo {
    options: Options,
    inner: Box<dyn Optimizer>,
    /// `Q` of its layer, for each parameter; 0 where there is none.
    rewards: BTreeMap<String, Arc<[f32]>>,
}

impl Optimizer for AdaLezo {
    fn step(&mut self, oracle: &mut dyn Oracle, clock: Clock) -> Result<StepReport, OptimError> {
        let Options { k_ratio, ipw_clip, .. } = self.options;
        let layers = layers(oracle.space());
        let p = self.options.probabilities(&self.rewards(oracle.space(), &layers));
        let draws = ((k_ratio.get() * layers.len() as f64) as usize).max(1);
        let n = drawn(&p, draws, clock);

        let mut weights = BTreeMap::new();
        for ((ids, p), &n) in layers.iter().zip(p).zip(&n).filter(|(_, n)| **n > 0) {
            let weight = weight(p, draws, ipw_clip) * f64::from(n);
            weights.extend(ids.iter().map(|&id| (id, weight)));
        }
        let report = self.inner.step(&mut Restricted::new(oracle, &weights), clock)?;
        if !report.nonfinite {
            self.reward(oracle.space(), &layers, &n, &report.projected_grads);
        }
        Ok(report)
    }

    fn tunes(&self) -> Tunes {
        self.inner.tunes()
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.factors("reward", &mut self.rewards, &|_| 1);
        self.inner.visit_state(&mut Named { visitor, prefix: "inner" });
    }
}

impl AdaLezo {
    /// `Q` of each layer.
    fn rewards(&self, space: &dyn Space, layers: &[Vec<ParamId>]) -> Vec<f64> {
        let reward = |ids: &Vec<ParamId>| self.rewards.get(space.params()[ids[0]].name()).map_or(0.0, |q| q[0].into());
        layers.iter().map(reward).collect()
    }

    /// Takes a step's slopes into the running means of the layers that were drawn.
    fn reward(&mut self, space: &dyn Space, layers: &[Vec<ParamId>], n: &[u32], slopes: &[f64]) {
        let c = slopes.iter().map(|slope| slope.abs()).sum::<f64>() / slopes.len().max(1) as f64;
        let alpha = self.options.ema_alpha.get();
        for ((ids, before), n) in layers.iter().zip(self.rewards(space, layers)).zip(n) {
            let after = if *n > 0 { (1.0 - alpha) * before + alpha * c } else { before };
            let after: Arc<[f32]> = Arc::new([after.min(f64::from(f32::MAX)) as f32]);
            let reward = |id: &ParamId| (space.params()[*id].name().to_owned(), Arc::clone(&after));
            self.rewards.extend(ids.iter().map(reward));
        }
    }
}

impl Options {
    /// `p` of each layer.
    fn probabilities(&self, rewards: &[f64]) -> Vec<f64> {
        let largest = rewards.iter().copied().fold(0.0, f64::max);
        // As released: rewards that are next to nothing are not blown up.
        let unit = if self.score == Score::Relative && largest > 1e-6 { largest } else { 1.0 };
        let weight = |reward: &f64| Real::exp((reward - largest) / unit / self.tau.get());
        let weights: Vec<f64> = rewards.iter().map(weight).collect();
        let (sum, gamma) = (weights.iter().sum::<f64>(), self.gamma.get());
        weights.iter().map(|weight| (1.0 - gamma) * weight / sum + gamma / rewards.len() as f64).collect()
    }
}

/// `w` of a layer of probability `p`: the weight of its estimate where it is drawn once.
fn weight(p: f64, draws: usize, clip: Positive) -> f64 {
    (1.0 / (draws as f64 * p)).min(clip.get())
}

/// How often each layer is drawn.
fn drawn(p: &[f64], draws: usize, clock: Clock) -> Vec<u32> {
    let noise = NoiseKey::new(clock.seed, clock.step, Role::Selection, 0).tensor(0);
    let mut n = vec![0; p.len()];
    for draw in 0..draws {
        let mut left = f64::midpoint(1.0, noise.at(Law::Uniform, 0, draw).into());
        let reached = |p: &f64| {
            left -= p;
            left < 0.0
        };
        n[p.iter().position(reached).unwrap_or(p.len() - 1)] += 1;
    }
    n
}

#[cfg(test)]
mod tests;
