//! Architectures of llama.cpp as Hugging Face models: `config.json`, tensor names, row orders.
//!
//! *What it is not.* It computes nothing: a [`Plan`] says which tensor goes where, `convert` moves it.
//!
//! *What must stay true.* An import is the whole model or an error: every tensor of the file finds its place, every
//! place its tensor, of the shape that the metadata asks for, and no metadata of the architecture stays unread.

use std::{collections::BTreeSet, fmt::Display};

use serde_json::{Map, Value, json};

use super::{
    GgufProblem,
    metadata::required,
    reader::{Gguf, Stored},
    rope,
};

/// An architecture that is imported.
struct Family {
    /// As in `general.architecture`.
    name: &'static str,
    plan: fn(&mut Reading<'_, '_>) -> Result<Map<String, Value>, GgufProblem>,
}

const FAMILIES: &[Family] = &[
    Family { name: "gpt2", plan: gpt2 },
    Family { name: "llama", plan: llama },
    Family { name: "qwen2", plan: qwen2 },
];

/// All names, for a message.
pub(super) fn names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

/// How the rows and columns of a stored tensor lie in the Hugging Face one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The same.
    AsStored,
    /// llama.cpp rotates neighbours, Hugging Face halves: within each of `heads` heads, the stored rows
    /// `0, 2, 4 … 1, 3, 5 …` are rows `0, 1, 2 …`.
    Rotary { heads: usize },
    /// Columns are rows: GPT-2's `Conv1D` multiplies by `[in, out]`.
    Transposed,
}

/// One tensor of the Hugging Face model.
#[derive(Debug)]
pub(super) struct Placement<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) stored: Stored<'a>,
    pub(super) layout: Layout,
}

/// What becomes of a file.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) family: &'static str,
    /// `config.json`, without the type of the weights.
    pub(super) config: Map<String, Value>,
    pub(super) tensors: Vec<Placement<'a>>,
    /// Rows of the embedding.
    pub(super) vocabulary: usize,
    /// Most positions.
    pub(super) context: usize,
}

/// Plans the import of `gguf`.
pub(super) fn plan<'a>(gguf: &Gguf<'a>) -> Result<Plan<'a>, GgufProblem> {
    const KEY: &str = "general.architecture";
    let found = required(KEY, gguf.metadata.text(KEY)?)?;
    let unknown = || GgufProblem::Architecture { found: found.chars().take(80).collect() };
    let family = FAMILIES.iter().find(|family| family.name == found).ok_or_else(unknown)?;
    let mut reading = Reading::new(gguf, family.name)?;
    let mut config = (family.plan)(&mut reading)?;
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        let id = gguf.metadata.size(&format!("tokenizer.ggml.{key}_token_id"))?;
        config.insert(format!("{name}_token_id"), json!(id));
    }
    config.insert("vocab_size".to_owned(), json!(reading.vocabulary));
    config.insert("use_cache".to_owned(), json!(true));
    let (vocabulary, context) = (reading.vocabulary, reading.context);
    Ok(Plan { family: family.name, config, tensors: reading.finish()?, vocabulary, context })
}

/// A file being read as a model of one architecture: what was asked for is ticked off.
pub(super) struct Reading<'g, 'a> {
    gguf: &'g Gguf<'a>,
    family: &'static str,
    keys: BTreeSet<String>,
    placed: BTreeSet<&'a str>,
    tensors: Vec<Placement<'a>>,
    vocabulary: usize,
    context: usize,
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    heads: usize,
}

/// Written by converters, without meaning for what is computed: the row order of `tensor_data_layout` is the same
/// for all its values, `finetuned` says only how a scaling came about.
const WITHOUT_EFFECT: [&str; 3] = ["tensor_data_layout", "rope.scaling.finetuned", "vocab_size"];

impl<'g, 'a> Reading<'g, 'a> {
    fn new(gguf: &'g Gguf<'a>, family: &'static str) -> Result<Self, GgufProblem> {
        let mut reading = Reading {
            gguf,
            family,
            keys: WITHOUT_EFFECT.iter().map(|key| format!("{family}.{key}")).collect(),
            placed: BTreeSet::new(),
            tensors: Vec::new(),
            vocabulary: 0,
            context: 0,
            layers: 0,
            hidden: 0,
            feed_forward: 0,
            heads: 0,
        };
        reading.context = reading.positive("context_length")?;
        reading.layers = reading.positive("block_count")?;
        reading.hidden = reading.positive("embedding_length")?;
        reading.feed_forward = reading.positive("feed_forward_length")?;
        reading.heads = reading.positive("attention.head_count")?;
        // The rows themselves, not the metadata: some files are padded beyond their tokens.
        let embedding = reading.stored("token_embd.weight")?;
        reading.vocabulary = embedding.shape[0];
        Ok(reading)
    }

    fn key(&mut self, suffix: &str) -> String {
        let key = format!("{}.{suffix}", self.family);
        self.keys.insert(key.clone());
        key
    }

    /// The error of a value that cannot be meant.
    pub(super) fn wrong<T>(
        &mut self,
        suffix: &str,
        found: &dyn Display,
        expected: &'static str,
    ) -> Result<T, GgufProblem> {
        Err(GgufProblem::Value { key: self.key(suffix), found: found.to_string(), expected })
    }

    fn size(&mut self, suffix: &str) -> Result<Option<usize>, GgufProblem> {
        let key = self.key(suffix);
        self.gguf.metadata.size(&key)
    }

    fn positive(&mut self, suffix: &str) -> Result<usize, GgufProblem> {
        let size = self.size(suffix)?;
        match self.required(suffix, size)? {
            0 => self.wrong(suffix, &0, "a number from 1 up"),
            size => Ok(size),
        }
    }

    /// The number of that key, which must be greater than zero.
    pub(super) fn number(&mut self, suffix: &str) -> Result<Option<f64>, GgufProblem> {
        let key = self.key(suffix);
        match self.gguf.metadata.number(&key)? {
            Some(found) if found <= 0.0 => self.wrong(suffix, &found, "a number above 0"),
            found => Ok(found),
        }
    }

    /// `value`, or the error that the key is missing.
    pub(super) fn required<T>(&mut self, suffix: &str, value: Option<T>) -> Result<T, GgufProblem> {
        required(&self.key(suffix), value)
    }

    /// The text of that key.
    pub(super) fn text(&mut self, suffix: &str) -> Result<Option<&'a str>, GgufProblem> {
        let key = self.key(suffix);
        self.gguf.metadata.text(&key)
    }

    fn has(&self, name: &str) -> bool {
        self.gguf.tensors.contains_key(name)
    }

    fn stored(&self, name: &str) -> Result<&'g Stored<'a>, GgufProblem> {
        self.gguf.tensors.get(name).ok_or_else(|| GgufProblem::MissingTensor { name: name.to_owned() })
    }

    /// The tensor `name`, if it is there, with the shape `expected`; it needs no place in the model.
    pub(super) fn consume(&mut self, name: &str, expected: &[usize]) -> Result<Option<Stored<'a>>, GgufProblem> {
        let Some(stored) = self.gguf.tensors.get(name) else { return Ok(None) };
        if stored.shape != expected {
            let (found, expected) = (stored.shape.clone(), expected.to_vec());
            return Err(GgufProblem::Shape { name: name.to_owned(), found, expected });
        }
        self.placed.insert(stored.name);
        Ok(Some(stored.clone()))
    }

    /// Puts the tensor `from`, stored with shape `stored_shape`, in the place `to`.
    fn place(&mut self, from: &str, to: String, stored_shape: &[usize], layout: Layout) -> Result<(), GgufProblem> {
        let missing = || GgufProblem::MissingTensor { name: from.to_owned() };
        let stored = self.consume(from, stored_shape)?.ok_or_else(missing)?;
        let mut shape = stored_shape.to_vec();
        if layout == Layout::Transposed {
            shape.reverse();
        }
        self.tensors.push(Placement { name: to, shape, stored, layout });
        Ok(())
    }

    /// All placements, once nothing of the file is left over.
    fn finish(self) -> Result<Vec<Placement<'a>>, GgufProblem> {
        if let Some(&name) = self.gguf.tensors.keys().find(|&name| !self.placed.contains(name)) {
            return Err(GgufProblem::UnexpectedTensor { name: name.to_owned(), family: self.family });
        }
        let prefix = format!("{}.", self.family);
        let unread = |key: &&str| key.starts_with(&prefix) && !self.keys.contains(*key);
        match self.gguf.metadata.keys().find(unread) {
            Some(key) => Err(GgufProblem::UnknownKey { key: key.to_owned() }),
            None => Ok(self.tensors),
        }
    }

    /// Rows of `heads` heads, a size that a hostile file may make overflow.
    fn rows(&mut self, heads: usize, head_dim: usize) -> Result<usize, GgufProblem> {
        match heads.checked_mul(head_dim) {
            Some(rows) => Ok(rows),
            None => self.wrong("attention.head_count", &heads, "a number of heads that fits memory"),
        }
    }
}

/// Llama, and Mistral, which llama.cpp stores as Llama: only a sliding window tells them apart.
fn llama(reading: &mut Reading<'_, '_>) -> Result<Map<String, Value>, GgufProblem> {
    let biased = reading.has("blk.0.attn_q.bias");
    let mlp_biased = reading.has("blk.0.ffn_up.bias");
    let window = reading.size("attention.sliding_window")?.filter(|&window| window > 0);
    let biases = Biases { query_key_value: biased, output: biased, feed_forward: mlp_biased };
    let mut config = rotary_decoder(reading, true, &biases)?;
    let mut set = |key: &str, value| config.insert(key.to_owned(), value);
    match window {
        Some(window) => {
            set("architectures", json!(["MistralForCausalLM"]));
            set("model_type", json!("mistral"));
            set("sliding_window", json!(window));
        }
        None => {
            set("architectures", json!(["LlamaForCausalLM"]));
            set("model_type", json!("llama"));
            set("attention_bias", json!(biased));
            set("mlp_bias", json!(mlp_biased));
        }
    }
    Ok(config)
}

/// Qwen 2 and 2.5: biases on queries, keys and values; rows as Hugging Face has them.
fn qwen2(reading: &mut Reading<'_, '_>) -> Result<Map<String, Value>, GgufProblem> {
    let biases = Biases { query_key_value: true, output: false, feed_forward: false };
    let mut config = rotary_decoder(reading, false, &biases)?;
    config.insert("architectures".to_owned(), json!(["Qwen2ForCausalLM"]));
    config.insert("model_type".to_owned(), json!("qwen2"));
    config.insert("use_sliding_window".to_owned(), json!(false));
    Ok(config)
}

/// Which linear layers of a block have a bias.
struct Biases {
    query_key_value: bool,
    output: bool,
    feed_forward: bool,
}

/// What Llama and its kin share: `RMSNorm`, rotary positions, grouped queries, a gated feed-forward.
fn rotary_decoder(
    reading: &mut Reading<'_, '_>,
    permuted: bool,
    biases: &Biases,
) -> Result<Map<String, Value>, GgufProblem> {
    let (hidden, heads, feed_forward) = (reading.hidden, reading.heads, reading.feed_forward);
    let kv_heads = reading.size("attention.head_count_kv")?.unwrap_or(heads);
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return reading.wrong("attention.head_count_kv", &kv_heads, "a divisor of attention.head_count");
    }
    let head_dim = match reading.size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return reading.wrong("embedding_length", &hidden, "a multiple of attention.head_count"),
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return reading.wrong("attention.key_length", &head_dim, "an even number from 2 up");
    }
    for (suffix, expected) in [
        ("attention.value_length", "the same as attention.key_length"),
        ("rope.dimension_count", "the width of a head: partly rotated heads are not imported"),
    ] {
        if let Some(found) = reading.size(suffix)?.filter(|&found| found != head_dim) {
            return reading.wrong(suffix, &found, expected);
        }
    }
    for suffix in ["expert_count", "expert_used_count"] {
        if let Some(found) = reading.size(suffix)?.filter(|&found| found > 0) {
            return reading.wrong(suffix, &found, "0: mixtures of experts are not imported");
        }
    }
    let epsilon = reading.number("attention.layer_norm_rms_epsilon")?;
    let epsilon = reading.required("attention.layer_norm_rms_epsilon", epsilon)?;
    let theta = reading.number("rope.freq_base")?.unwrap_or(10_000.0);
    let scaling = rope::scaling(reading, theta, head_dim)?;
    let (query, key_value) = (reading.rows(heads, head_dim)?, reading.rows(kv_heads, head_dim)?);

    let rotary = |heads| if permuted { Layout::Rotary { heads } } else { Layout::AsStored };
    let (plain, qkv) = (Layout::AsStored, biases.query_key_value);
    let linears = [
        ("attn_q", "self_attn.q_proj", query, hidden, rotary(heads), qkv),
        ("attn_k", "self_attn.k_proj", key_value, hidden, rotary(kv_heads), qkv),
        ("attn_v", "self_attn.v_proj", key_value, hidden, plain, qkv),
        ("attn_output", "self_attn.o_proj", hidden, query, plain, biases.output),
        ("ffn_gate", "mlp.gate_proj", feed_forward, hidden, plain, biases.feed_forward),
        ("ffn_up", "mlp.up_proj", feed_forward, hidden, plain, biases.feed_forward),
        ("ffn_down", "mlp.down_proj", hidden, feed_forward, plain, biases.feed_forward),
    ];
    for layer in 0..reading.layers {
        for (from, to) in [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")] {
            let (from, to) = (format!("blk.{layer}.{from}.weight"), format!("model.layers.{layer}.{to}.weight"));
            reading.place(&from, to, &[hidden], plain)?;
        }
        for (from, to, rows, cols, layout, biased) in linears {
            let (from, to) = (format!("blk.{layer}.{from}"), format!("model.layers.{layer}.{to}"));
            reading.place(&format!("{from}.weight"), format!("{to}.weight"), &[rows, cols], layout)?;
            if biased {
                reading.place(&format!("{from}.bias"), format!("{to}.bias"), &[rows], layout)?;
            }
        }
    }
    let embedding = [reading.vocabulary, hidden];
    reading.place("token_embd.weight", "model.embed_tokens.weight".to_owned(), &embedding, plain)?;
    reading.place("output_norm.weight", "model.norm.weight".to_owned(), &[hidden], plain)?;
    let tied = !reading.has("output.weight");
    if !tied {
        reading.place("output.weight", "lm_head.weight".to_owned(), &embedding, plain)?;
    }
    Ok(object(json!({
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": reading.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": reading.context,
        "rms_norm_eps": epsilon,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
    })))
}

/// GPT-2: learned positions, one matrix for queries, keys and values, `[in, out]` weights.
fn gpt2(reading: &mut Reading<'_, '_>) -> Result<Map<String, Value>, GgufProblem> {
    let (hidden, feed_forward, context) = (reading.hidden, reading.feed_forward, reading.context);
    if !hidden.is_multiple_of(reading.heads) {
        return reading.wrong("embedding_length", &hidden, "a multiple of attention.head_count");
    }
    let epsilon = reading.number("attention.layer_norm_epsilon")?;
    let epsilon = reading.required("attention.layer_norm_epsilon", epsilon)?;
    let linears = [
        ("attn_qkv", "attn.c_attn", reading.rows(3, hidden)?, hidden),
        ("attn_output", "attn.c_proj", hidden, hidden),
        ("ffn_up", "mlp.c_fc", feed_forward, hidden),
        ("ffn_down", "mlp.c_proj", hidden, feed_forward),
    ];
    for layer in 0..reading.layers {
        for (from, to) in [("attn_norm", "ln_1"), ("ffn_norm", "ln_2")] {
            for part in ["weight", "bias"] {
                let (from, to) = (format!("blk.{layer}.{from}.{part}"), format!("transformer.h.{layer}.{to}.{part}"));
                reading.place(&from, to, &[hidden], Layout::AsStored)?;
            }
        }
        for (from, to, rows, cols) in linears {
            let (from, to) = (format!("blk.{layer}.{from}"), format!("transformer.h.{layer}.{to}"));
            reading.place(&format!("{from}.weight"), format!("{to}.weight"), &[rows, cols], Layout::Transposed)?;
            reading.place(&format!("{from}.bias"), format!("{to}.bias"), &[rows], Layout::AsStored)?;
        }
    }
    let embedding = [reading.vocabulary, hidden];
    for (from, to, shape) in [
        ("token_embd.weight", "transformer.wte.weight", &embedding[..]),
        ("position_embd.weight", "transformer.wpe.weight", &[context, hidden]),
        ("output_norm.weight", "transformer.ln_f.weight", &[hidden]),
        ("output_norm.bias", "transformer.ln_f.bias", &[hidden]),
    ] {
        reading.place(from, to.to_owned(), shape, Layout::AsStored)?;
    }
    // Converters before 2024 wrote the tied head a second time; quantised differently it is a head of its own.
    let embedded = reading.stored("token_embd.weight")?;
    let tied = match reading.consume("output.weight", &embedding)? {
        None => true,
        Some(head) if head.blocks == embedded.blocks && head.data == embedded.data => true,
        Some(_) => {
            reading.place("output.weight", "lm_head.weight".to_owned(), &embedding, Layout::AsStored)?;
            false
        }
    };
    Ok(object(json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": hidden,
        "n_head": reading.heads,
        "n_inner": feed_forward,
        "n_layer": reading.layers,
        "n_positions": context,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": epsilon,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": tied,
    })))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("{other} is no object"),
    }
}
