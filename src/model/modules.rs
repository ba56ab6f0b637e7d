//! The modules of a model as `transformers` names them, and the ends of their names, by which layers are chosen for
//! adapters.

use super::{AdapterProblem, ArchSpec, Head, families};
use crate::direction::{ParamId, ParamTable};

/// The names of modules in the class that `transformers` makes of a model.
pub(super) struct Modules<'a> {
    pub(super) params: &'a ParamTable,
    /// What the names of the base model's tensors begin with, in the spelling of a model with a head.
    prefix: Option<&'static str>,
    is_bare: bool,
}

impl<'a> Modules<'a> {
    /// Those of a model with these parameters.
    pub(super) fn new(spec: &ArchSpec, params: &'a ParamTable) -> Self {
        Modules { params, prefix: families::prefix(spec.family), is_bare: matches!(spec.head, Head::None) }
    }

    /// The module that holds a weight.
    pub(super) fn name(&self, weight: ParamId) -> String {
        let name = self.params[weight].name();
        let name = name.strip_suffix(".weight").unwrap_or(name);
        let Some(prefix) = self.prefix else { return name.to_owned() };
        // Checkpoints of a bare model lack the first part of their names, that of a head before it has it.
        let bare = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name);
        if self.is_bare { bare.to_owned() } else { format!("{prefix}.{bare}") }
    }
}

/// Whether the words between dots that `module` consists of end with those of `target`.
pub(super) fn ends_with(module: &str, target: &str) -> bool {
    module.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Refuses a target that is the end of no module's name.
pub(super) fn check_targets<'m>(
    targets: &[String],
    modules: impl Iterator<Item = &'m str> + Clone,
) -> Result<(), AdapterProblem> {
    let Some(found) = targets.iter().find(|target| !modules.clone().any(|module| ends_with(module, target))) else {
        return Ok(());
    };
    let mut layers: Vec<&str> = Vec::new();
    for module in modules {
        let last = module.rsplit('.').next().unwrap_or_default();
        if !layers.contains(&last) {
            layers.push(last);
        }
    }
    let nearest = layers.iter().min_by_key(|layer| strsim::levenshtein(found, layer)).copied().unwrap_or_default();
    Err(AdapterProblem::Target {
        found: found.clone(),
        nearest: nearest.to_owned(),
        layers: layers.into_iter().map(str::to_owned).collect(),
    })
}
