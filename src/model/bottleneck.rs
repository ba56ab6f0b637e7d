//! Which layers of a model have bottlenecks of tensor trains.
//!
//! *What it is.* [`Model::add_bottlenecks`] puts them before and after linear layers of blocks: before those by which a
//! feed-forward layer reads the residual stream, after those that write to it. What a bottleneck is, and its values, are
//! for [`crate::weights`], what it computes for `layers`. Their parameters come after all others of the table, in the order
//! of the forward pass.
//!
//! *What must stay true*: parameters are named by the module that `transformers` has, as for low-rank adapters.

use super::{
    AdapterPart, AdapterProblem, BlockParts, LinearPart, Model, ModelError, Slot, families,
    modules::{Modules, check_targets, ends_with},
};
use crate::{
    direction::{ParamId, Stored},
    weights::{Adapters, BottleneckSizes, Bottlenecks, Place},
};

/// A layer that is to have a bottleneck.
struct Site {
    part: LinearPart,
    place: Place,
    module: String,
    /// Features of the rows that the bottleneck reads.
    features: usize,
}

impl Model {
    /// Puts a bottleneck beside each layer whose module's name ends with one of `targets`, whole words between dots; beside
    /// those that `AdaZeta` adapts in this family if there are none. Answers the parameters, in ascending order. The
    /// model computes what it computed until they are written to.
    ///
    /// # Errors
    /// [`ModelError::Adapter`] if a target is the end of no such name, or the rank cannot be.
    ///
    /// # Panics
    /// If the model has adapters, or the width is 0.
    pub fn add_bottlenecks(
        &mut self,
        sizes: BottleneckSizes,
        targets: Option<&[String]>,
    ) -> Result<Vec<ParamId>, ModelError> {
        assert!(self.adapters.is_none(), "a model is adapted once");
        let BottleneckSizes { width, rank, .. } = sizes;
        let sites = self.sites(targets)?;
        let limit = sites.iter().map(|site| site.features).fold(width, usize::min);
        if !(1..=limit).contains(&rank) {
            return Err(AdapterProblem::TrainRank { found: rank, limit }.into());
        }
        let Model { parts, store, .. } = self;
        let mut adapters = Vec::with_capacity(sites.len());
        for part in parts.blocks.iter_mut().flat_map(BlockParts::linears_mut) {
            if let Some(site) = sites.iter().find(|site| site.part.weight == part.weight) {
                let adapter = store.add_bottleneck((&site.module, site.place), site.features, sizes);
                part.adapter = Some(AdapterPart::Bottleneck(adapter));
                adapters.push(adapter);
            }
        }
        let bottlenecks = Bottlenecks { width, rank, adapters };
        let ids = bottlenecks.params().collect();
        self.adapters = Some(Adapters::TensorTrain(bottlenecks));
        Ok(ids)
    }

    /// The layers that `targets` name.
    fn sites(&self, targets: Option<&[String]>) -> Result<Vec<Site>, AdapterProblem> {
        let params = self.store.params();
        let modules = Modules::new(&self.spec, params);
        let site = |(slot, place, part): (Slot, Place, LinearPart)| {
            let weight = &params[part.weight];
            let inputs = match part.stored {
                Stored::OutIn => weight.cols(),
                Stored::InOut => weight.rows(),
            };
            let features = if place == Place::Before { inputs } else { part.outputs };
            (slot, Site { part, place, module: modules.name(part.weight), features })
        };
        let all: Vec<(Slot, Site)> = self.parts.blocks.iter().flat_map(BlockParts::bottlenecked).map(site).collect();
        check_targets(targets.unwrap_or_default(), all.iter().map(|(_, site)| &*site.module))?;
        let is_chosen = |slot: &Slot, site: &Site| match targets {
            Some(targets) => targets.iter().any(|target| ends_with(&site.module, target)),
            None => families::bottlenecks(self.spec.family).contains(slot),
        };
        Ok(all.into_iter().filter(|(slot, site)| is_chosen(slot, site)).map(|(_, site)| site).collect())
    }
}
