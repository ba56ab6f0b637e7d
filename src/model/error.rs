//! Why a model cannot be opened or fed: always with the file and field, what was found and what was expected.

use std::{io, path::PathBuf};

use crate::weights::WeightsError;

/// Why a model, or an input of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// `config.json` cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// `config.json` does not describe a model that zofo computes.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: ConfigProblem,
    },
    /// A directory of adapters, which are no model by themselves.
    #[error("{} holds adapters, not a model; low-rank ones are folded into one with `zofo export --merge`", path.display())]
    OnlyAdapters {
        /// The directory.
        path: PathBuf,
    },
    /// The checkpoint cannot be opened or does not fit the configuration.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A token that the model has no vector for.
    #[error("token {found} at position {position} of sequence {sequence}: the vocabulary ends at {vocab_size}")]
    Token {
        /// The sequence of the batch.
        sequence: usize,
        /// The position in it.
        position: usize,
        /// The token.
        found: u32,
        /// `vocab_size` of the configuration.
        vocab_size: usize,
    },
    /// A sequence that is longer than the model has positions.
    #[error("sequence {sequence} has {found} tokens, the model has positions for {limit}")]
    TooLong {
        /// The sequence of the batch.
        sequence: usize,
        /// Its tokens, cached ones included.
        found: usize,
        /// `max_position_embeddings` of the configuration.
        limit: usize,
    },
    /// The model has no head, so it has no logits.
    #[error("a {family} checkpoint without a head has no logits")]
    NoHead {
        /// `model_type` of the configuration.
        family: &'static str,
    },
    /// The model cannot have such adapters.
    #[error("adapters: {0}")]
    Adapter(#[from] AdapterProblem),
}

/// Why a model cannot have some adapters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterProblem {
    /// No linear layer of a block has a name that ends so.
    #[error("the target is {found:?}, expected {}", self.expected())]
    Target {
        /// The target.
        found: String,
        /// The layer that is most like it.
        nearest: String,
        /// The last words of the layers' names.
        layers: Vec<String>,
    },
    /// A rank that adds nothing, or nothing that a smaller one does not.
    #[error("the rank is {found}, expected {}", self.expected())]
    Rank {
        /// The rank.
        found: usize,
        /// A layer.
        layer: String,
        /// Its input features.
        inputs: usize,
    },
    /// A rank of tensor trains that adds nothing, or nothing that a smaller one does not.
    #[error("the rank is {found}, expected {}", self.expected())]
    TrainRank {
        /// The rank.
        found: usize,
        /// The fewer of a layer's features and those of the bottleneck.
        limit: usize,
    },
    /// A scale that single precision has not.
    #[error("alpha is {alpha}, expected {}", self.expected())]
    Scale {
        /// The numerator.
        alpha: f64,
        /// The denominator.
        rank: usize,
    },
}

impl AdapterProblem {
    /// What was expected instead of what was found.
    pub fn expected(&self) -> String {
        match self {
            AdapterProblem::Target { nearest, layers, .. } => {
                let layers = layers.join(", ");
                format!("the end of the name of a block's linear layer ({layers}); the nearest is {nearest:?}")
            }
            AdapterProblem::Rank { inputs, layer, .. } => {
                format!("a number from 1 to {inputs}, the inputs of {layer}")
            }
            AdapterProblem::TrainRank { limit, .. } => {
                format!("a number from 1 to {limit}, the fewer of a layer's features and those of the bottleneck")
            }
            AdapterProblem::Scale { rank, .. } => {
                format!("a number that over the rank of {rank} is a positive one of single precision")
            }
        }
    }
}

/// What is wrong with `config.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// More bytes than any configuration has.
    #[error("a configuration of {bytes} bytes; at most {limit} are read")]
    Length {
        /// The file's size.
        bytes: u64,
        /// Our limit.
        limit: u64,
    },
    /// Not JSON.
    #[error("not the JSON of a configuration: {source}")]
    Json {
        /// Where and why.
        #[from]
        source: serde_json::Error,
    },
    /// A field that the family needs is absent.
    #[error("{field} is missing; expected {expected}")]
    Missing {
        /// The field.
        field: String,
        /// What should be there.
        expected: String,
    },
    /// A field has another type, or a number that cannot be meant.
    #[error("{field} is {found}; expected {expected}")]
    Value {
        /// The field.
        field: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// A field asks for something that zofo does not compute.
    #[error("{field} is {found}, which is not supported; supported: {}", supported.join(", "))]
    Unsupported {
        /// The field.
        field: String,
        /// What is there.
        found: String,
        /// What may be there.
        supported: Vec<String>,
    },
}
