//! Model families: each file maps `config.json` to an [`ArchSpec`] and slots to tensor names.
//!
//! *What it is not.* No arithmetic. *What must stay true*: a field that would change results is read or refused, never
//! ignored; old and new key names are both read (`rope_theta` and `rope_parameters`).
//!
//! *To add a family*: one file, one line in [`FAMILIES`], a tiny golden checkpoint in `tests/golden`.

mod bert;
mod gpt2;
mod llama;
mod mistral;
mod opt;
mod qwen2;
mod roberta;
#[cfg(test)]
mod tests;

use super::{
    ArchSpec, Config, ConfigProblem, Head, ModelError, Positions,
    slot::{Names, Slot},
};
use crate::kernels::{
    activation::{Activation, UnknownActivation},
    rope::RopeScaling,
};

/// A family of models.
#[derive(Debug)]
pub struct Family {
    /// `model_type` of its configurations.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// The classes of `architectures` that are read.
    pub architectures: &'static [&'static str],
    spec: fn(&Config) -> Result<ArchSpec, ModelError>,
    names: Names,
    /// The layers of a block that have bottlenecks unless others are named.
    bottlenecks: &'static [Slot],
}

/// Every family, in alphabetical order.
pub const FAMILIES: &[&Family] =
    &[&bert::FAMILY, &gpt2::FAMILY, &llama::FAMILY, &mistral::FAMILY, &opt::FAMILY, &qwen2::FAMILY, &roberta::FAMILY];

/// The architecture that a configuration describes, and the names of its tensors.
///
/// # Errors
/// [`ModelError::Config`] naming the field.
pub fn read(config: &Config) -> Result<(ArchSpec, Names), ModelError> {
    let families = || FAMILIES.iter().map(|family| family.name);
    let name = config.text("model_type")?.ok_or_else(|| {
        let expected = format!("one of {}", families().collect::<Vec<_>>().join(", "));
        config.error(ConfigProblem::Missing { field: "model_type".to_owned(), expected })
    })?;
    let family = FAMILIES.iter().find(|family| family.name == name);
    let family = family.ok_or_else(|| config.unsupported("model_type", name, families()))?;
    if let Some(method) = config.section("quantization_config")? {
        let method = method.text("quant_method")?.unwrap_or("set").to_owned();
        return Err(config.unsupported("quantization_config", &method, ["none"]));
    }
    let spec = (family.spec)(config)?;
    consistent(config, &spec)?;
    Ok((spec, family.names))
}

/// What the names of a family's tensors begin with but for those of its heads: the base model's name in the classes of
/// `transformers`.
pub(super) fn prefix(family: &str) -> Option<&'static str> {
    let names = FAMILIES.iter().find(|known| known.name == family)?.names;
    let (_, tokens) = names.iter().find(|(slot, _)| *slot == Slot::TokenEmbedding)?;
    tokens.split_once('.').map(|(prefix, _)| prefix)
}

/// The layers of a block that have bottlenecks in a family unless others are named.
pub(super) fn bottlenecks(family: &str) -> &'static [Slot] {
    FAMILIES.iter().find(|known| known.name == family).map_or(&[], |family| family.bottlenecks)
}

/// Blocks of the deepest model that is read.
const MAX_LAYERS: usize = 4096;

fn layers(config: &Config, field: &str) -> Result<usize, ModelError> {
    config.size_in(field, 1..=MAX_LAYERS)?.ok_or_else(|| {
        let expected = "the number of blocks".to_owned();
        config.error(ConfigProblem::Missing { field: field.to_owned(), expected })
    })
}

/// The class of the checkpoint: the first of `architectures`, or `default`.
fn class<'a>(config: &'a Config, family: &Family, default: &'a str) -> Result<&'a str, ModelError> {
    let Some(value) = config.get("architectures") else { return Ok(default) };
    let first = value.as_array().and_then(|classes| classes.first()).and_then(|class| class.as_str());
    let class = first.ok_or_else(|| config.value_error("architectures", value, "a list of class names"))?;
    if family.architectures.contains(&class) {
        return Ok(class);
    }
    Err(config.unsupported("architectures", class, family.architectures.iter().copied()))
}

/// The head of a decoder by its class.
fn decoder_head(config: &Config, family: &Family, tied: bool) -> Result<Head, ModelError> {
    let causal = class(config, family, family.architectures[0])? == family.architectures[0];
    Ok(if causal { Head::CausalLm { tied: config.flag_or("tie_word_embeddings", tied)? } } else { Head::None })
}

/// The head of an encoder by its class.
fn encoder_head(config: &Config, family: &Family, activation: Activation) -> Result<Head, ModelError> {
    let class = class(config, family, family.architectures[0])?;
    Ok(if class.ends_with("ForMaskedLM") {
        Head::MaskedLm { tied: config.flag_or("tie_word_embeddings", true)?, activation }
    } else if class.ends_with("ForSequenceClassification") {
        Head::Classifier { labels: labels(config)? }
    } else {
        Head::None
    })
}

/// The classes of a classifier: as many as `id2label` names, `num_labels`, or two.
fn labels(config: &Config) -> Result<usize, ModelError> {
    let single = "single_label_classification";
    if let Some(kind) = config.text("problem_type")?.filter(|kind| *kind != single) {
        return Err(config.unsupported("problem_type", kind, [single]));
    }
    let named = config.get("id2label").map(|value| {
        let labels = value.as_object().map(serde_json::Map::len).filter(|&labels| labels > 0);
        labels.ok_or_else(|| config.value_error("id2label", value, "an object of label names"))
    });
    match named.unwrap_or_else(|| config.size_or("num_labels", 2))? {
        1 => Err(config.unsupported("num_labels", "1, a regression", ["2 classes or more"])),
        labels => Ok(labels),
    }
}

fn activation(config: &Config, field: &str, default: &str) -> Result<Activation, ModelError> {
    let name = config.text(field)?.unwrap_or(default);
    name.parse().map_err(|UnknownActivation { found }| {
        let names = ["relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish", "tanh"];
        config.unsupported(field, &found, names)
    })
}

/// Rotary positions: `rope_parameters` of transformers 5, or `rope_theta` and `rope_scaling` before it.
fn rope(config: &Config, default_theta: f64) -> Result<Positions, ModelError> {
    let (parameters, theta) = match config.section("rope_parameters")? {
        Some(parameters) => {
            let theta = parameters.number("rope_theta")?;
            (Some(parameters), theta)
        }
        None => (config.section("rope_scaling")?, None),
    };
    let theta = theta.or(config.number("rope_theta")?).unwrap_or(default_theta);
    for section in [Some(config), parameters.as_ref()].into_iter().flatten() {
        if let Some(share) = section.number("partial_rotary_factor")?.filter(|&share| share != 1.0) {
            return Err(config.unsupported("partial_rotary_factor", &share.to_string(), ["1"]));
        }
    }
    let Some(parameters) = parameters else {
        return Ok(Positions::Rope { theta, scaling: RopeScaling::Default });
    };
    if let Some((name, nested)) = parameters.first_section() {
        let expected = "one set of parameters for all layers";
        return Err(parameters.value_error("rope_parameters", &serde_json::json!({ name: nested }), expected));
    }
    let kind = parameters.text("rope_type")?.or(parameters.text("type")?).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: parameters.needed_number("factor")? },
        "llama3" => {
            let (low, high) =
                (parameters.needed_number("low_freq_factor")?, parameters.needed_number("high_freq_factor")?);
            if high <= low {
                let found = serde_json::json!(high);
                return Err(parameters.value_error("high_freq_factor", &found, &format!("more than {low}")));
            }
            RopeScaling::Llama3 {
                factor: parameters.needed_number("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context: parameters.needed_number("original_max_position_embeddings")?,
            }
        }
        other => return Err(parameters.unsupported("rope_type", other, ["default", "linear", "llama3"])),
    };
    Ok(Positions::Rope { theta, scaling })
}

/// What no single field can show: sizes that do not go together.
fn consistent(config: &Config, spec: &ArchSpec) -> Result<(), ModelError> {
    let wrong = |field: &str, found: usize, expected: String| {
        Err(config.value_error(field, &serde_json::json!(found), &expected))
    };
    let attention = &spec.attention;
    if !attention.heads.is_multiple_of(attention.kv_heads) {
        let expected = format!("a divisor of the {} query heads", attention.heads);
        return wrong("num_key_value_heads", attention.kv_heads, expected);
    }
    if matches!(spec.embedding.positions, Positions::Rope { .. }) && !attention.head_dim.is_multiple_of(2) {
        return wrong("head_dim", attention.head_dim, "an even number, for rotary positions".to_owned());
    }
    Ok(())
}

/// Features of one head: the hidden size shared out. Families that have a `head_dim` of their own read it first.
fn shared_head_dim(config: &Config, hidden_size: usize, heads: usize) -> Result<usize, ModelError> {
    if hidden_size.is_multiple_of(heads) {
        return Ok(hidden_size / heads);
    }
    let expected = format!("a divisor of the hidden size {hidden_size}");
    let field = ["num_attention_heads", "n_head"].into_iter().find(|field| config.has(field)).unwrap_or_default();
    Err(config.value_error(field, &serde_json::json!(heads), &expected))
}
