//! The demo's model: a small Llama and its tokenizer of whole words, as a Hugging Face directory.

use std::{fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

use super::{Failure, reviews};
use crate::{
    direction::Param,
    kernels::Context,
    model::{Config, Parts, Tensors, families},
    noise::{Law, NoiseKey, Role},
    train::{TrainError, replace_file},
};

const HIDDEN: usize = 32;
const FFN: usize = 64;
const SEED: u64 = 1;
const UNKNOWN: &str = "<unk>";
const CONFIG: &str = "config.json";

/// The file of weights in a model directory.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// The weights after pretraining, as [`super::pretraining`] makes them.
pub(super) const PRETRAINED: &[u8] = include_bytes!("pretrained.safetensors");

/// Writes the model with these weights to `dir`.
pub(super) fn write(dir: &Path, weights: &[u8]) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|source| TrainError::Write { path: dir.to_owned(), source })?;
    replace_file(&dir.join(CONFIG), format!("{:#}\n", configuration()).as_bytes())?;
    replace_file(&dir.join("tokenizer.json"), format!("{:#}\n", tokenizer()).as_bytes())?;
    replace_file(&dir.join(WEIGHTS), weights)?;
    Ok(())
}

/// Weights that nothing has been learnt with.
pub(super) fn noise(cx: &Context) -> Result<Vec<u8>, Failure> {
    let config = Config::parse(Path::new(CONFIG), configuration().to_string().as_bytes())?;
    let (spec, names) = families::read(&config)?;
    let (_, params) = Parts::of(&spec, &Tensors::new(names, |_| true));
    let values: Vec<(&Param, Vec<f32>)> = params.iter().map(|(_, param)| (param, values(param, cx))).collect();
    let tensors = values.iter().map(|(param, values)| {
        let view = TensorView::new(Dtype::F32, param.shape().to_vec(), bytemuck::cast_slice(values));
        (param.name(), view.expect("as many values as the shape says"))
    });
    Ok(safetensors::serialize(tensors, None).expect("tensors of distinct names"))
}

/// What a parameter begins as: ones for norms, else noise of a variance that keeps that of what goes in.
fn values(param: &Param, cx: &Context) -> Vec<f32> {
    if param.shape().len() == 1 {
        return vec![1.0; param.elements()];
    }
    let (rows, cols) = (param.rows(), param.cols());
    let noise = NoiseKey::new(SEED, 0, Role::Init, 0).tensor(param.noise_name());
    let mut values = vec![0.0; rows * cols];
    noise.fill(cx.isa, Law::Gaussian, 0..rows as u64, 0..cols, &mut values);
    // Embedding and head are one matrix: logits begin with a variance of 1.
    let scale = 1.0 / (cols as f32).sqrt();
    values.iter_mut().for_each(|value| *value *= scale);
    values
}

fn configuration() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": vocabulary().count(),
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": HIDDEN / 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false,
    })
}

fn vocabulary() -> impl Iterator<Item = &'static str> {
    std::iter::once(UNKNOWN).chain(reviews::words())
}

fn tokenizer() -> Value {
    let words: Map<String, Value> =
        vocabulary().zip(0..).map(|(word, id): (_, u32)| (word.to_owned(), id.into())).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": words, "unk_token": UNKNOWN },
    })
}
