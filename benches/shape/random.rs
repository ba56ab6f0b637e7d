//! A model of SmolLM2-135M's shape with random weights.

use std::path::Path;

use zofo::{
    model::{Config, Model, Parts, Tensors, families},
    noise::{Law, NoiseKey, Role},
    simd::Isa,
    weights::Store,
};

const CONFIG: &str = r#"{
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true
}"#;

pub(crate) fn model() -> Model {
    let config = Config::parse(Path::new("config.json"), CONFIG.as_bytes()).expect("a configuration");
    let (spec, names) = families::read(&config).expect("a family");
    let (parts, params) = Parts::of(&spec, &Tensors::new(names, |_| false));
    let store = Store::in_memory(params, |param| {
        let mut values = vec![0.0; param.elements()];
        let noise = NoiseKey::new(1, 0, Role::Init, 0).tensor(param.noise_name());
        noise.fill(Isa::fastest(), Law::Gaussian, 0..param.rows() as u64, 0..param.cols(), &mut values);
        values.iter_mut().for_each(|value| *value *= 0.04);
        values
    });
    Model::new(spec, parts, store)
}
