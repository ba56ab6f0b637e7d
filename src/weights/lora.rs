//! Low-rank adapters (Hu et al., 2021, arXiv:2106.09685): beside a matrix `W` of the checkpoint stand `A` `[rank, in]`
//! and `B` `[out, rank]`, and its layer computes with `W + (alpha / rank) · B A`.
//!
//! *What it is.* [`Lora`] says which adapters a model has, [`Store::adapt`] makes the parameters of one. They are
//! parameters like all others, but in no checkpoint, and kept as f32 in every precision.
//!
//! *What it is not.* It does not know which layers there are (`model`), nor how an adapter is written down
//! ([`super::tuned`]).
//!
//! *What must stay true.* `B` begins at zero, so an adapted model begins as its base. Where `A` begins depends on the
//! seed and its name alone.

use super::Store;
use crate::{
    direction::{ParamId, Stored},
    noise::{Law, NoiseKey, Role},
};

/// The adapters of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of each `A`.
    pub rank: usize,
    /// What an adapter adds is scaled by `alpha / rank`.
    pub alpha: f64,
    /// The adapted layers as PEFT is told of them: ends of the names of modules, of those alone.
    pub modules: Vec<String>,
    /// What PEFT calls the model's task, if it has a word for it.
    pub task: Option<&'static str>,
    /// One for each adapted layer, in the order of the forward pass.
    pub adapters: Vec<Adapter>,
    /// Parameters of the base that PEFT wants to find with the adapters of this task: those of a classifier.
    pub kept_beside: Vec<ParamId>,
}

/// The adapter of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// The matrix.
    pub weight: ParamId,
    /// How it is stored.
    pub stored: Stored,
    /// `[rank, in]`.
    pub a: ParamId,
    /// `[out, rank]`.
    pub b: ParamId,
}

impl Lora {
    /// What an adapter's product is multiplied by.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    /// The parameters of all adapters, in ascending order.
    pub fn params(&self) -> impl Iterator<Item = ParamId> {
        self.adapters.iter().flat_map(|adapter| [adapter.a, adapter.b])
    }
}

impl Store {
    /// Adds an adapter of the layer `module`, whose matrix `weight` is. `A` begins uniform on ±1/√in, as in PEFT, by noise
    /// of `seed`; `B` at zero.
    ///
    /// # Panics
    /// If the layer has one.
    pub fn adapt(&mut self, (weight, stored): (ParamId, Stored), module: &str, rank: usize, seed: u64) -> Adapter {
        let (rows, cols) = (self.params()[weight].rows(), self.params()[weight].cols());
        let (inputs, outputs) = match stored {
            Stored::OutIn => (cols, rows),
            Stored::InOut => (rows, cols),
        };
        let bound = 1.0 / (inputs as f32).sqrt();
        let a = self.add(&format!("{module}.lora_A.weight"), &[rank, inputs], |param| {
            let noise = NoiseKey::new(seed, 0, Role::Init, 0).tensor(param.noise_name());
            let value = |at: usize| bound * noise.at(Law::Uniform, (at / inputs) as u64, at % inputs);
            (0..param.elements()).map(value).collect()
        });
        let b = self.add(&format!("{module}.lora_B.weight"), &[outputs, rank], |param| vec![0.0; param.elements()]);
        Adapter { weight, stored, a, b }
    }
}

#[cfg(test)]
mod tests;
