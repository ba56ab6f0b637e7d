//! `zofo inspect`: what a model directory holds, or a finished run, without computing anything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, console::Console, report};
use crate::{
    kernels::Mask,
    model::{ArchSpec, Model, NormKind, NormPlacement, Positions},
    train::Layout,
    weights::Tensor,
};

/// What `zofo inspect` takes.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Hugging Face model directory, or the directory of a finished run
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Also list every tensor
    #[arg(long)]
    tensors: bool,
}

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Facts<'a> {
    path: &'a Path,
    family: &'static str,
    head: &'static str,
    layers: usize,
    hidden_size: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn_size: usize,
    vocab_size: usize,
    max_positions: usize,
    /// Values that the model computes with; a tied tensor counts once.
    parameters: usize,
    /// Bytes of the tensors that the model uses.
    weight_bytes: usize,
    /// Bytes of keys and values per token of context.
    cache_bytes_per_token: usize,
    /// Bytes by stored type.
    dtypes: BTreeMap<String, usize>,
    /// Tensors of the files that the model does not use.
    unused: Vec<&'a str>,
    tensors: Vec<TensorFacts<'a>>,
}

/// One tensor that the model uses.
#[derive(Debug, Serialize)]
struct TensorFacts<'a> {
    name: &'a str,
    dtype: String,
    shape: &'a [usize],
    bytes: usize,
}

pub(super) fn run(arguments: &Arguments, console: &mut Console) -> Result<Exit, Failure> {
    if let Some(report) = Layout::of(&arguments.path).read_report()? {
        console.result(&report, &report::text(&report))?;
        return Ok(Exit::Ok);
    }
    let model = Model::open(&arguments.path)?;
    let store = model.store();
    let checkpoint = store.checkpoint().expect("an opened model has files");
    let used: Vec<Tensor<'_>> = store.params().iter().filter_map(|(_, param)| checkpoint.find(param.name())).collect();
    let mut dtypes = BTreeMap::new();
    for tensor in &used {
        *dtypes.entry(tensor.dtype().to_string()).or_default() += tensor.bytes().len();
    }
    let spec = model.spec();
    let facts = Facts {
        path: &arguments.path,
        family: spec.family,
        head: spec.head.about(),
        layers: spec.layers,
        hidden_size: spec.hidden_size,
        heads: spec.attention.heads,
        kv_heads: spec.attention.kv_heads,
        head_dim: spec.attention.head_dim,
        ffn_size: spec.ffn.width,
        vocab_size: spec.vocab_size,
        max_positions: spec.max_positions,
        parameters: used.iter().map(Tensor::elements).sum(),
        weight_bytes: dtypes.values().sum(),
        cache_bytes_per_token: 2 * spec.layers * spec.key_width() * size_of::<f32>(),
        dtypes,
        unused: checkpoint
            .tensors()
            .map(|tensor| tensor.name())
            .filter(|name| store.params().find(name).is_none())
            .collect(),
        tensors: used
            .iter()
            .map(|tensor| TensorFacts {
                name: tensor.name(),
                dtype: tensor.dtype().to_string(),
                shape: tensor.shape(),
                bytes: tensor.bytes().len(),
            })
            .collect(),
    };
    console.result(&facts, &text(&facts, spec, arguments.tensors))?;
    Ok(Exit::Ok)
}

fn text(facts: &Facts<'_>, spec: &ArchSpec, tensors: bool) -> String {
    let Facts { family, layers, hidden_size, heads, kv_heads, head_dim, ffn_size, vocab_size, .. } = facts;
    let norm = match (spec.norm.kind, spec.norm.placement) {
        (NormKind::Layer, NormPlacement::Before) => "LayerNorm before each layer",
        (NormKind::Layer, NormPlacement::After) => "LayerNorm after each layer",
        (NormKind::Rms, NormPlacement::Before) => "RMSNorm before each layer",
        (NormKind::Rms, NormPlacement::After) => "RMSNorm after each layer",
    };
    let positions = match spec.embedding.positions {
        Positions::Rope { theta, .. } => format!("rotary, base {theta}"),
        Positions::Learned { rows, .. } => format!("learned, {rows} rows"),
    };
    let mask = match spec.attention.mask {
        Mask::Bidirectional => "all of the sequence".to_owned(),
        Mask::Causal => "all before".to_owned(),
        Mask::Window(width) => format!("the last {width}"),
    };
    let gate = if spec.ffn.gated { "gated " } else { "" };
    let dtypes: Vec<String> =
        facts.dtypes.iter().map(|(dtype, bytes)| format!("{dtype} {}", megabytes(*bytes))).collect();
    let mut text = format!(
        "\
{}
family      {family}, {} head
blocks      {layers} of {hidden_size} features, {norm}
attention   {heads} heads of {head_dim}, {kv_heads} for keys and values; a token sees {mask}
feed-forward {ffn_size} features, {gate}{}
positions   {positions}, up to {} tokens
vocabulary  {vocab_size}
parameters  {} ({:.1} M)
weights     {} ({})
memory      the weights, and {} for a thousand tokens of generated context
",
        facts.path.display(),
        facts.head,
        spec.ffn.activation,
        facts.max_positions,
        facts.parameters,
        facts.parameters as f64 / 1e6,
        megabytes(facts.weight_bytes),
        dtypes.join(", "),
        megabytes(1000 * facts.cache_bytes_per_token),
    );
    if !facts.unused.is_empty() {
        let shown: Vec<&str> = facts.unused.iter().copied().take(5).collect();
        let more = if facts.unused.len() > shown.len() { ", …" } else { "" };
        text += &format!("unused      {} tensors: {}{more}\n", facts.unused.len(), shown.join(", "));
    }
    if tensors {
        for tensor in &facts.tensors {
            text += &format!("  {:60} {:5} {:?}\n", tensor.name, tensor.dtype, tensor.shape);
        }
    }
    text
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
