//! Which layers of a model have low-rank adapters, and how `transformers` and PEFT name them.
//!
//! *What it is.* [`Model::adapt`] puts adapters beside linear layers of blocks; what an adapter is, and its values, are for
//! [`crate::weights`]. Their parameters come after all others of the table, in the order of the forward pass.
//!
//! *What it is not.* Heads and embeddings have no adapters. *What must stay true*: an adapter's parameters are named by the
//! module that `transformers` has, however the checkpoint spells it, so that the same run names the same noise.

use super::{
    AdapterPart, AdapterProblem, BlockParts, Head, LinearPart, LowRankPart, Model, ModelError, Parts, ProjectionParts,
    modules::{Modules, check_targets, ends_with},
};
use crate::{
    direction::{ParamId, ParamTable, Stored},
    weights::{Adapters, Lora},
};

impl Model {
    /// Puts an adapter of this rank beside each linear layer of a block whose module's name ends with one of `targets`,
    /// whole words between dots; beside the query and value projections if there are none. Answers the adapters'
    /// parameters, in ascending order. The model computes what it computed until they are written to.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] if a target is the end of no name, or the rank or scale cannot be.
    ///
    /// # Panics
    /// If the model has adapters.
    pub fn adapt(
        &mut self,
        rank: usize,
        alpha: f64,
        targets: Option<&[String]>,
        seed: u64,
    ) -> Result<Vec<ParamId>, ModelError> {
        assert!(self.adapters.is_none(), "a model is adapted once");
        let Model { spec, parts, store, .. } = self;
        let params = store.params().clone();
        let modules = Modules::new(spec, &params);
        let targets = targets.map_or_else(|| modules.queries_and_values(parts), <[String]>::to_vec);
        let is_target = |module: &str| targets.iter().any(|target| ends_with(module, target));
        let layers = parts.blocks.iter().flat_map(BlockParts::linears).map(|part| (part, modules.name(part.weight)));
        let (chosen, others): (Vec<_>, Vec<_>) = layers.partition(|(_, module)| is_target(module));
        check_targets(&targets, chosen.iter().chain(&others).map(|(_, module)| &**module))?;
        check_rank(rank, &params, &chosen)?;

        // PEFT would put an adapter, of which it finds no values, beside a head's layer of that name.
        let is_ambiguous = modules.outside_blocks(parts).iter().any(|module| is_target(module));
        let mut lora = Lora {
            rank,
            alpha,
            modules: if is_ambiguous {
                chosen.into_iter().map(|(_, module)| module).collect()
            } else {
                targets.clone()
            },
            task: task(&spec.head),
            adapters: Vec::new(),
            kept_beside: match spec.head {
                Head::Classifier { .. } => modules.classifier(),
                _ => Vec::new(),
            },
        };
        if !(lora.scale().is_normal() && lora.scale() > 0.0) {
            return Err(AdapterProblem::Scale { alpha, rank }.into());
        }
        for part in parts.blocks.iter_mut().flat_map(BlockParts::linears_mut) {
            let module = modules.name(part.weight);
            if is_target(&module) {
                let adapter = store.adapt((part.weight, part.stored), &module, rank, seed);
                part.adapter = Some(AdapterPart::LowRank(LowRankPart { a: adapter.a, b: adapter.b, rank }));
                lora.adapters.push(adapter);
            }
        }
        let ids = lora.params().collect();
        self.adapters = Some(Adapters::LowRank(lora));
        Ok(ids)
    }

    /// Its low-rank adapters, if it has such.
    pub fn lora(&self) -> Option<&Lora> {
        match self.adapters() {
            Some(Adapters::LowRank(lora)) => Some(lora),
            _ => None,
        }
    }
}

impl Modules<'_> {
    /// The last words of the layers that are adapted unless others are named (Hu et al., 2021, section 4.2).
    fn queries_and_values(&self, parts: &Parts) -> Vec<String> {
        let last = |weight| self.name(weight).rsplit('.').next().unwrap_or_default().to_owned();
        match parts.blocks.first().map(|block| block.projections) {
            Some(ProjectionParts::Split([queries, _, values])) => [queries, values].map(|it| last(it.weight)).to_vec(),
            Some(ProjectionParts::Fused(part)) => vec![last(part.weight)],
            None => Vec::new(),
        }
    }

    /// The parameters of the module that PEFT takes for trained wherever the task is to classify sequences.
    fn classifier(&self) -> Vec<ParamId> {
        self.params.iter().filter(|(_, param)| param.name().starts_with("classifier.")).map(|(id, _)| id).collect()
    }

    /// The names of the linear layers outside the blocks.
    fn outside_blocks(&self, parts: &Parts) -> Vec<&str> {
        let head = parts.head.into_iter().flat_map(|head| [head.dense, Some(head.last)]);
        let layers = [parts.project_in, parts.project_out].into_iter().chain(head).flatten();
        layers.map(|part| self.params[part.weight].name()).map(|it| it.strip_suffix(".weight").unwrap_or(it)).collect()
    }
}

/// What PEFT calls what a model with this head is for.
fn task(head: &Head) -> Option<&'static str> {
    match head {
        Head::CausalLm { .. } => Some("CAUSAL_LM"),
        Head::Classifier { .. } => Some("SEQ_CLS"),
        Head::MaskedLm { .. } | Head::None => None,
    }
}

/// Refuses a rank of 0, and one beyond the inputs of a layer.
fn check_rank(rank: usize, params: &ParamTable, layers: &[(LinearPart, String)]) -> Result<(), AdapterProblem> {
    for (part, module) in layers {
        let weight = &params[part.weight];
        let inputs = match part.stored {
            Stored::OutIn => weight.cols(),
            Stored::InOut => weight.rows(),
        };
        if !(1..=inputs).contains(&rank) {
            return Err(AdapterProblem::Rank { found: rank, layer: module.clone(), inputs });
        }
    }
    Ok(())
}
