use std::fs;

use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{direction::ParamTable, testing::assert_same_bits, weights::tuned};

fn store() -> Store {
    Store::in_memory(ParamTable::new(), |_| Vec::new())
}

fn values(store: &Store, id: ParamId) -> Vec<f32> {
    let weight = store.weight(id);
    (0..weight.rows()).flat_map(|row| (0..weight.cols()).map(move |col| weight.at(row, col))).collect()
}

#[test]
fn features_are_split_into_modes_as_even_as_can_be() {
    assert_eq!([4096, 64].map(modes), [[16, 16, 16], [4, 4, 4]], "those of the authors");
    assert_eq!([576, 768, 1536].map(modes), [[9, 8, 8], [12, 8, 8], [16, 12, 8]]);
    assert_eq!([1, 2, 7, 12].map(modes), [[1, 1, 1], [2, 1, 1], [7, 1, 1], [3, 2, 2]]);
}

proptest! {
    #[test]
    fn modes_make_the_features_and_cores_follow_each_other(inputs in 1_usize..3000, outputs in 1_usize..3000, rank in 1_usize..9) {
        let shapes = core_shapes(inputs, outputs, rank);
        let product = |of: &[[usize; 3]]| of.iter().map(|[_, mode, _]| mode).product::<usize>();
        prop_assert_eq!((product(&shapes[..3]), product(&shapes[3..])), (outputs, inputs));
        prop_assert_eq!((shapes[0][0], shapes[2][2], shapes[5][2]), (1, rank, 1));
        prop_assert!(shapes.windows(2).all(|pair| pair[0][2] == pair[1][0]));
    }
}

#[test]
fn an_adapter_of_the_authors_has_as_many_parameters_as_theirs() {
    let mut store = store();
    let sizes = BottleneckSizes { width: 64, rank: 5, seed: 1 };
    let adapter = store.add_bottleneck(("m", Place::After), 4096, sizes);
    let elements = |layer: TrainLayer| layer.cores.map(|id| store.params()[id].elements()).iter().sum::<usize>();
    assert_eq!([adapter.down(), adapter.up()].map(elements), [1100, 1100]);
    let biases = [adapter.down().bias, adapter.up().bias].map(|id| store.params()[id].elements());
    assert_eq!((biases, adapter.params().count()), ([64, 4096], 14));
}

#[test]
fn where_adapters_begin_depends_on_the_seed_and_their_names_and_up_begins_at_zero() {
    let begin = |seed, module: &str| {
        let mut store = store();
        let adapter = store.add_bottleneck((module, Place::Before), 48, BottleneckSizes { width: 64, rank: 5, seed });
        let values: Vec<_> = adapter.params().map(|id| values(&store, id)).collect();
        (store, adapter, values)
    };
    let (store, adapter, one) = begin(1, "a");
    for (found, expected) in begin(1, "a").2.iter().zip(&one) {
        assert_same_bits(found, expected, "the same seed");
    }
    assert!(begin(2, "a").2 != one && begin(1, "b").2 != one);

    let (down, up) = (adapter.down(), adapter.up());
    for id in [up.cores[0], up.bias] {
        assert!(values(&store, id).iter().all(|value| value.to_bits() == 0));
    }
    let bound = 1.0 / 64_f32.sqrt();
    let bias = values(&store, down.bias);
    // Of 64 uniform values none beyond three quarters of the bound is once in 10⁸.
    assert!(bias.iter().all(|x| x.abs() < bound) && bias.iter().any(|x| x.abs() > 0.75 * bound));
}

#[test]
fn an_element_of_a_matrix_begins_with_the_variance_of_the_authors() {
    const LAYERS: usize = 100;
    let mut store = store();
    let sizes = BottleneckSizes { width: 64, rank: 5, seed: 3 };
    let layers: Vec<_> =
        (0..LAYERS).map(|at| store.add_bottleneck((&format!("m.{at}"), Place::After), 4096, sizes).down()).collect();
    let (mut variance, mut error) = (5_f64.powi(5), 0.0);
    for core in 0..6 {
        let values: Vec<f32> = layers.iter().flat_map(|layer| values(&store, layer.cores[core])).collect();
        variance *= values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        error += 2.0 / values.len() as f64;
    }
    // An element is a sum over 5⁵ paths of products of six values. The logarithm of a mean of n squares of normal values
    // errs by √(2/n); five times the root of the sum of squares is allowed.
    let ratio = variance * (4096.0 + 64.0);
    assert!(ratio.ln().abs() < 5.0 * error.sqrt(), "{ratio}");
}

#[test]
fn a_directory_of_bottlenecks_says_all_that_is_needed_to_compute_with_them() {
    let (base, scratch) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let mut store = store();
    let sizes = BottleneckSizes { width: 6, rank: 2, seed: 1 };
    let adapters = vec![
        store.add_bottleneck(("h.0.up", Place::Before), 12, sizes),
        store.add_bottleneck(("h.0.down", Place::After), 8, sizes),
    ];
    let bottlenecks = Bottlenecks { width: 6, rank: 2, adapters };
    let target = scratch.path().join("adapters");
    let digest = tuned::export_bottlenecks(&store, &bottlenecks, base.path(), &target).expect("a directory");
    assert_eq!(digest, tuned::digest(&store, &bottlenecks.params().collect::<Vec<_>>()));
    let config: Value =
        serde_json::from_slice(&fs::read(target.join("adapter_config.json")).expect("a file")).expect("JSON");
    let expected = json!({
        "activation": "relu", "base_model_name_or_path": base.path(), "peft_type": "ZOFO_TENSOR_TRAIN", "rank": 2,
        "width": 6, "modules": { "h.0.up": "before", "h.0.down": "after" },
    });
    assert_eq!(config, expected);
    let bytes = fs::read(target.join("adapter_model.safetensors")).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    assert_eq!(tensors.len(), 28);
    let shape = |name: &str| tensors.tensor(name).expect("a tensor").shape().to_vec();
    // 6 = 3 · 2 · 1 outputs, 12 = 2 · 2 · 3 inputs, the largest mode outermost.
    let down = [[1, 3, 2], [2, 2, 2], [2, 1, 2], [2, 2, 2], [2, 2, 2], [2, 3, 1]];
    for (core, expected) in down.iter().enumerate() {
        assert_eq!(shape(&format!("h.0.up.adapter_down.cores.{core}")), expected, "core {core}");
    }
    assert_eq!((shape("h.0.up.adapter_down.bias"), shape("h.0.down.adapter_up.bias")), (vec![6], vec![8]));
    for id in bottlenecks.params() {
        let tensor = tensors.tensor(store.params()[id].name()).expect("a tensor");
        let found: Vec<f32> = tensor.data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
        assert_same_bits(&found, &values(&store, id), store.params()[id].name());
    }
}
