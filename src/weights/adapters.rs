//! The kinds of adapters that a model may have: parameters beside those of the checkpoint.

use super::{Bottlenecks, Lora};
use crate::direction::ParamId;

/// The adapters of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapters {
    /// Thin products beside matrices.
    LowRank(Lora),
    /// Bottlenecks of tensor trains before and after layers.
    TensorTrain(Bottlenecks),
}

impl Adapters {
    /// The parameters of all adapters, in ascending order.
    pub fn params(&self) -> Vec<ParamId> {
        match self {
            Adapters::LowRank(lora) => lora.params().collect(),
            Adapters::TensorTrain(bottlenecks) => bottlenecks.params().collect(),
        }
    }
}
