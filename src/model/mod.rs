//! Transformer language models: architecture as data, one description of the layers for all of it.
//!
//! *What it is.* [`ArchSpec`] says what a model computes; a family (one file of `families`) reads it from
//! `config.json` and names the tensors; [`Parts`] is the model's parameters in the order of its forward pass;
//! [`Model`] joins them with weights; [`Model::forward`] evaluates a ragged batch under several displacements at once,
//! [`Model::tangent`] at θ with its derivatives along several directions; [`Gradients`] are those of any of its
//! parameters, [`Model::work`] what they cost. [`Model::adapt`] gives it low-rank adapters, [`Model::add_bottlenecks`] bottlenecks of
//! tensor trains.
//!
//! *What it is not.* No losses (`objective`), no text, no training.
//!
//! *What must stay true.* The layers are written once (`layers`), over the operations of three modes: what families
//! differ in is data. A row's result depends on the
//! tokens before it in its own sequence (for encoders: on its own sequence), never on what else is in the batch, how
//! the batch is cut, or whether its keys came from a cache (contract C1). No padding is ever computed.

mod backward;
mod batch;
mod bottleneck;
mod config;
mod error;
pub mod families;
mod forward;
mod head;
mod kv_cache;
mod layers;
mod lora;
mod modules;
mod parts;
mod pass;
mod slot;
mod spec;
mod stream;
mod tangent;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

pub use backward::{Differentiated, Gradients, Kept, Summand, Unit, Work};
pub use batch::Batch;
pub use config::Config;
pub use error::{AdapterProblem, ConfigProblem, ModelError};
pub use forward::{Hidden, Observer};
pub use head::Logits;
pub use kv_cache::KvCache;
pub use parts::{
    AdapterPart, BlockParts, FfnParts, HeadParts, LinearPart, LowRankPart, NormPart, Parts, ProjectionParts, TrainPart,
};
pub use slot::{Names, Slot, Tensors};
pub use spec::{
    ArchSpec, AttentionSpec, EmbeddingSpec, FfnSpec, Head, NormKind, NormPlacement, NormSpec, Positions, Projections,
};
pub use tangent::{Slopes, Tangent};

use crate::{
    direction::ParamId,
    kernels::rope::RopeTable,
    weights::{Adapters, Checkpoint, Store},
};

/// A model: what it computes, its parameters, and their values.
#[derive(Debug)]
pub struct Model {
    spec: ArchSpec,
    parts: Parts,
    store: Store,
    /// Its adapters, if it has any.
    adapters: Option<Adapters>,
    /// The angles of as many positions as sequences have needed so far: 131,072 positions of Llama 3 would be 67 MB.
    rope: Mutex<Option<Arc<RopeTable>>>,
}

impl Model {
    /// Opens a Hugging Face model directory: `config.json` and its checkpoint.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the field or tensor.
    pub fn open(dir: &Path) -> Result<Model, ModelError> {
        let file = dir.join("config.json");
        if dir.join("adapter_config.json").exists() && !file.exists() {
            return Err(ModelError::OnlyAdapters { path: dir.to_owned() });
        }
        let config = Config::read(&file)?;
        let (spec, names) = families::read(&config)?;
        let checkpoint = Checkpoint::open(dir)?;
        let (parts, params) = Parts::of(&spec, &Tensors::new(names, |name| checkpoint.find(name).is_some()));
        Ok(Model::new(spec, parts, Store::open(checkpoint, params)?))
    }

    /// A model of these parts. `store` holds the parameters that `parts` names.
    pub fn new(spec: ArchSpec, parts: Parts, store: Store) -> Model {
        Model { spec, parts, store, adapters: None, rope: Mutex::default() }
    }

    /// What it computes.
    pub fn spec(&self) -> &ArchSpec {
        &self.spec
    }
    /// Its parameters in the order of the forward pass.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }
    /// The values of its parameters.
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// The values of its parameters, to be written.
    pub fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Its adapters, if it has any.
    pub fn adapters(&self) -> Option<&Adapters> {
        self.adapters.as_ref()
    }

    /// The parameters that it has without adapters.
    pub fn base_params(&self) -> impl Iterator<Item = ParamId> {
        let first = self.adapters().and_then(|adapters| adapters.params().first().copied());
        self.store.params().iter().map(|(id, _)| id).filter(move |&id| first.is_none_or(|first| id < first))
    }

    /// The angles of at least `positions` positions, if positions are turned.
    fn rope(&self, positions: usize) -> Option<Arc<RopeTable>> {
        let mut rope = self.rope.lock().unwrap_or_else(PoisonError::into_inner);
        if rope.as_ref().is_none_or(|rope| rope.positions() < positions) {
            let enough = positions.next_power_of_two().min(self.spec.max_positions);
            *rope = self.spec.rope_table(enough).map(Arc::new);
        }
        rope.clone()
    }
}
