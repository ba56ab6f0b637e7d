//! Models with adapters that do something, and the same for the f64 reference.

use std::{fs, path::Path};

use safetensors::SafeTensors;

use super::reference::{self, Role as Part, golden::Weights};
use crate::{
    direction::{DirectionSet, ParamId, Stored, materialize},
    model::{Model, Slot},
    noise::{Law, NoiseKey, Role},
    simd::Isa,
    weights::{Adapter, Adapters, BottleneckSizes, Place, TrainLayer},
};

/// The model in `dir` with adapters beside `targets` whose `A` and `B` are both noise of `seed`.
///
/// # Panics
/// If there is none, or it cannot have them.
pub fn adapted(dir: &Path, rank: usize, alpha: f64, targets: Option<&[&str]>, seed: u64) -> Model {
    let mut model = Model::open(dir).unwrap_or_else(|error| panic!("{error}"));
    let targets = targets.map(|targets| targets.iter().map(|&target| target.to_owned()).collect::<Vec<_>>());
    let ids = model.adapt(rank, alpha, targets.as_deref(), seed).unwrap_or_else(|error| panic!("{error}"));
    stir(&mut model, ids, seed);
    model
}

/// The model in `dir` with bottlenecks of these sizes (width, rank) beside `targets`, all of whose values noise of `seed` has
/// moved.
///
/// # Panics
/// If there is none, or it cannot have them.
pub fn bottlenecked(dir: &Path, (width, rank): (usize, usize), targets: Option<&[&str]>, seed: u64) -> Model {
    let mut model = Model::open(dir).unwrap_or_else(|error| panic!("{error}"));
    let targets = targets.map(|targets| targets.iter().map(|&target| target.to_owned()).collect::<Vec<_>>());
    let sizes = BottleneckSizes { width, rank, seed };
    let ids = model.add_bottlenecks(sizes, targets.as_deref()).unwrap_or_else(|error| panic!("{error}"));
    stir(&mut model, ids, seed);
    model
}

/// Moves parameters by noise.
fn stir(model: &mut Model, ids: Vec<ParamId>, seed: u64) {
    for id in ids {
        let param = model.store().params()[id].clone();
        let noise = NoiseKey::new(seed, 1, Role::Init, 0).tensor(param.noise_name());
        let moved = |first: usize, values: &mut [f32]| {
            for (at, value) in values.iter_mut().enumerate() {
                *value += 0.1 * noise.at(Law::Gaussian, (first + at / param.cols()) as u64, at % param.cols());
            }
        };
        model
            .store_mut()
            .update_rows(id, Isa::fastest(), NoiseKey::new(0, 0, Role::Rounding, 0), moved)
            .expect("a private copy");
    }
}

/// Writes the golden checkpoint in `dir` to `target` as bare models are saved: names without their first part, `prefix`.
///
/// # Panics
/// If a file cannot be read or written.
pub fn saved_bare(dir: &Path, prefix: &str, target: &Path) {
    fs::create_dir_all(target).expect("a directory");
    fs::copy(dir.join("config.json"), target.join("config.json")).expect("a configuration");
    let bytes = fs::read(dir.join("model.safetensors")).expect("weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let bare = tensors.iter().map(|(name, tensor)| (name.strip_prefix(prefix).unwrap_or(name).to_owned(), tensor));
    // `transformers` asks what wrote a file.
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize_to_file(bare, metadata, &target.join("model.safetensors")).expect("a file");
}

/// The values of an adapter's parameter at `θ + t·z`, in f64.
fn factor(model: &Model, id: ParamId, along: &DirectionSet, t: f64) -> Vec<f64> {
    let (weight, param) = (model.store().weight(id), &model.store().params()[id]);
    let stored: Vec<f32> = (0..param.elements()).map(|i| weight.at(i / param.cols(), i % param.cols())).collect();
    let mut values: Vec<f64> = stored.iter().map(|&value| f64::from(value)).collect();
    if let Some(direction) = along.get(id) {
        let z = materialize::direction(direction, param, &stored);
        values.iter_mut().zip(z).for_each(|(value, z)| *value += t * f64::from(z));
    }
    values
}

/// The tensor of a slot at `θ + t·z`, adapters folded in: what a [`super::reference::Source`] of the adapted model
/// answers, of which `weights` are the base.
///
/// # Panics
/// If the slot has no such tensor.
pub fn merged(
    model: &Model,
    weights: &Weights,
    (along, t): (&DirectionSet, f64),
    (slot, layer, part): (Slot, usize, Part),
) -> Vec<f64> {
    let mut values = weights.values(slot, layer, part);
    let params = model.store().params();
    let id = params.find(&weights.name(slot, layer, part)).expect("a parameter of the model");
    if let Some(direction) = along.get(id) {
        let stored: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        let z = materialize::direction(direction, &params[id], &stored);
        values.iter_mut().zip(z).for_each(|(value, z)| *value += t * f64::from(z));
    }
    let Some(lora) = model.lora() else { return values };
    let Some(Adapter { stored, a, b, .. }) = lora.adapters.iter().find(|adapter| adapter.weight == id).copied() else {
        return values;
    };
    let (inputs, outputs, scale) = (params[a].cols(), params[b].rows(), f64::from(lora.scale()));
    let [a, b] = [a, b].map(|id| factor(model, id, along, t));
    for (at, value) in values.iter_mut().enumerate() {
        let (output, input) = match stored {
            Stored::OutIn => (at / inputs, at % inputs),
            Stored::InOut => (at % outputs, at / outputs),
        };
        *value += scale * (0..lora.rank).map(|r| b[output * lora.rank + r] * a[r * inputs + input]).sum::<f64>();
    }
    values
}

/// The bottleneck of the layer in a slot at `θ + t·z`, its matrices made element by element: what
/// [`reference::adapted`] is told of a model of which `weights` are the base.
///
/// # Panics
/// If the model has no bottlenecks.
pub fn whole_bottleneck(
    model: &Model,
    weights: &Weights,
    (along, t): (&DirectionSet, f64),
    (slot, layer): (Slot, usize),
) -> Option<reference::Bottleneck> {
    let Some(Adapters::TensorTrain(bottlenecks)) = model.adapters() else { panic!("a model with bottlenecks") };
    if !matches!(slot, Slot::AttentionOut | Slot::Gate | Slot::Up | Slot::Down) {
        return None;
    }
    let name = weights.name(slot, layer, Part::Weight);
    let params = model.store().params();
    let module = name.strip_suffix(".weight").unwrap_or(&name);
    let is_its = |first: &str| first.strip_suffix(".adapter_down.cores.0").is_some_and(|it| it.ends_with(module));
    let adapter = bottlenecks.adapters.iter().find(|adapter| is_its(params[adapter.first].name()))?;
    let values = |id| factor(model, id, along, t);
    let whole = |layer: TrainLayer| {
        let cores = layer.cores.map(|id| (params[id].cols(), values(id)));
        (matrix(&cores, layer.inputs), values(layer.bias))
    };
    Some(reference::Bottleneck {
        is_before: adapter.place == Place::Before,
        down: whole(adapter.down()),
        up: whole(adapter.up()),
    })
}

/// The matrix of six cores, each with its last dimension: an element is a product of one slice of each.
fn matrix(cores: &[(usize, Vec<f64>)], inputs: usize) -> Vec<Vec<f64>> {
    let ranks: Vec<usize> = std::iter::once(1).chain(cores.iter().map(|(right, _)| *right)).collect();
    let modes: Vec<usize> =
        cores.iter().zip(&ranks).map(|((right, values), left)| values.len() / right / left).collect();
    let element = |mut at: usize| {
        // The digits of an index, the last mode's first.
        let mut digits = [0; 6];
        for (digit, mode) in digits.iter_mut().zip(&modes).rev() {
            (*digit, at) = (at % mode, at / mode);
        }
        let slice = |row: Vec<f64>, core: usize| -> Vec<f64> {
            let (right, values) = &cores[core];
            let value = |left: usize, col: usize| values[(left * modes[core] + digits[core]) * right + col];
            (0..*right).map(|col| row.iter().enumerate().map(|(left, x)| x * value(left, col)).sum()).collect()
        };
        (0..6).fold(vec![1.0], slice)[0]
    };
    let elements: usize = modes.iter().product();
    (0..elements / inputs).map(|row| (0..inputs).map(|col| element(row * inputs + col)).collect()).collect()
}
