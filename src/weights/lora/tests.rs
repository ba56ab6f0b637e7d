//! Adapters as parameters of a store, and as the directories that are made of them.

use std::{fs, path::Path};

use half::bf16;
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Adapter, Lora};
use crate::{
    direction::{ParamId, ParamTable, Stored},
    noise::{NoiseKey, Role},
    simd::Isa,
    tensor::DType,
    testing::assert_same_bits,
    weights::{Checkpoint, Footprint, Precision, Store, StoredType, WeightsError, tuned},
};

/// Two matrices in bf16, 5 features by 3 and, stored the other way, 4 by 6, and a vector.
const PARAMS: [(&str, &[usize]); 3] = [("h.0.w.weight", &[5, 3]), ("h.0.v.weight", &[4, 6]), ("norm.weight", &[5])];

fn checkpoint() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    let value = |i: usize| bf16::from_f32((i * 37 % 101) as f32 / 50.0 - 1.0);
    let bytes = PARAMS
        .map(|(_, shape)| -> Vec<u8> { (0..shape.iter().product()).flat_map(|i| value(i).to_le_bytes()).collect() });
    let views = PARAMS.iter().zip(&bytes).map(|(&(name, shape), bytes)| {
        (name, TensorView::new(Dtype::BF16, shape.to_vec(), bytes).expect("as many bytes"))
    });
    safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).expect("a file");
    fs::write(dir.path().join("config.json"), "{\"dtype\": \"bfloat16\"}").expect("a file");
    fs::write(dir.path().join("tokenizer.json"), "{}").expect("a file");
    dir
}

/// The checkpoint with adapters of rank 2 beside both matrices.
fn open(dir: &Path) -> (Store, Lora) {
    let mut params = ParamTable::new();
    let [w, v, norm] = PARAMS.map(|(name, shape)| params.add(name, shape));
    let mut store = Store::open(Checkpoint::open(dir).expect("a checkpoint"), params).expect("a store");
    let adapters = vec![
        store.adapt((w, Stored::OutIn), "transformer.h.0.w", 2, 1),
        store.adapt((v, Stored::InOut), "transformer.h.0.v", 2, 1),
    ];
    (
        store,
        Lora {
            rank: 2,
            alpha: 3.0,
            modules: vec!["w".to_owned(), "v".to_owned()],
            task: None,
            adapters,
            kept_beside: vec![norm],
        },
    )
}

fn key() -> NoiseKey {
    NoiseKey::new(1, 1, Role::Rounding, 1)
}

fn values(store: &Store, id: ParamId) -> Vec<f32> {
    let weight = store.weight(id);
    (0..weight.rows()).flat_map(|row| (0..weight.cols()).map(move |col| weight.at(row, col))).collect()
}

/// Moves every value of the adapters, to ones that no 16-bit type has.
fn write_to(store: &mut Store, lora: &Lora, seed: u32) {
    for id in lora.params() {
        let moved = |row: usize, values: &mut [f32]| {
            for (col, value) in values.iter_mut().enumerate() {
                *value += ((row as u32 * 7 + col as u32 * 3 + seed % 1000) as f32 * 0.7).sin() / 3.0;
            }
        };
        let change = store.update_rows(id, Isa::fastest(), key(), moved).expect("an update");
        assert_eq!(change.rounding_squares, 0.0);
    }
}

#[test]
fn adapters_are_f32_in_every_precision_and_begin_again_where_they_began() {
    for precision in [Precision::F32, Precision::Split, Precision::Native] {
        let dir = checkpoint();
        let (mut store, lora) = open(dir.path());
        let ids: Vec<ParamId> = lora.params().collect();
        let begin: Vec<_> = ids.iter().map(|&id| values(&store, id)).collect();
        let before = tuned::digest(&store, &ids);
        store.tune(&ids, precision).expect("private copies");
        assert_eq!(tuned::digest(&store, &ids), before, "whether a factor was copied does not change its digest");
        write_to(&mut store, &lora, 1);
        assert!(ids.iter().all(|&id| store.tuned_type(id) == DType::F32 && store.weight(id).dtype() == DType::F32));
        assert!(ids.iter().zip(&begin).all(|(&id, begin)| values(&store, id) != *begin));

        let (scratch, written) = (TempDir::new().expect("a directory"), tuned::digest(&store, &ids));
        let path = scratch.path().join("snapshot");
        tuned::write(&path, &store, &ids, &Default::default(), &[]).expect("a snapshot");
        store.tune(&ids, precision).expect("the base");
        assert_eq!(ids.iter().map(|&id| values(&store, id)).collect::<Vec<_>>(), begin);
        tuned::read(&path, &mut store, &ids).expect("a snapshot");
        assert_eq!(tuned::digest(&store, &ids), written);
    }
}

#[test]
fn a_footprint_counts_adapters_where_they_began_and_where_they_are() {
    let dir = checkpoint();
    let (store, lora) = open(dir.path());
    let ids: Vec<ParamId> = lora.params().collect();
    let factors = 2 * (5 + 3 + 4 + 6) * 4;
    // 39 values in bf16 are mapped, 5 of a vector copied.
    assert_eq!(store.footprint(&[], Precision::F32), Footprint { mapped: 78, private: 20 + factors });
    for precision in [Precision::F32, Precision::Native] {
        assert_eq!(store.footprint(&ids, precision), Footprint { mapped: 78, private: 20 + 2 * factors });
    }
}

#[test]
fn an_anchor_is_what_a_parameter_was_whatever_has_been_written_to_it() {
    let dir = checkpoint();
    let (mut store, _) = open(dir.path());
    let ids: Vec<ParamId> = store.params().iter().map(|(id, _)| id).collect();
    let begin: Vec<_> = ids.iter().map(|&id| values(&store, id)).collect();
    let anchors: Vec<_> = ids.iter().map(|&id| store.anchor(id)).collect();
    let in_memory = Store::in_memory(store.params().clone(), |param| vec![2.5; param.elements()]);
    for &id in &ids {
        store.update_rows(id, Isa::fastest(), key(), |_, values| values.fill(9.0)).expect("an update");
        assert!(values(&store, id).iter().all(|&value| value == 9.0));
        let anchor = in_memory.anchor(id);
        assert_eq!((anchor.weight().at(0, 0), anchor.weight().rows()), (2.5, store.params()[id].rows()));
    }
    for ((&id, begin), early) in ids.iter().zip(&begin).zip(anchors) {
        for anchor in [early, store.anchor(id)] {
            let weight = anchor.weight();
            let found: Vec<f32> =
                (0..weight.rows()).flat_map(|row| (0..weight.cols()).map(move |col| weight.at(row, col))).collect();
            assert_same_bits(&found, begin, store.params()[id].name());
        }
    }
    // A matrix of the checkpoint stays in its mapping.
    assert_eq!(store.anchor(ids[0]).weight().dtype(), DType::BF16);
}

#[test]
fn a_store_in_memory_returns_to_where_it_began() {
    let mut params = ParamTable::new();
    let (w, b) = (params.add("w", &[2, 2]), params.add("b", &[2]));
    let mut store = Store::in_memory(params, |param| (0..param.elements()).map(|i| i as f32).collect());
    for id in [w, b] {
        store.update_rows(id, Isa::fastest(), key(), |_, values| values.fill(9.0)).expect("an update");
    }
    assert_eq!((store.vector(b), values(&store, w)), (&[9.0; 2][..], vec![9.0; 4]));
    store.tune(&[w, b], Precision::Native).expect("the base");
    assert_eq!((store.vector(b), values(&store, w)), (&[0.0, 1.0][..], vec![0.0, 1.0, 2.0, 3.0]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn merged_matrices_are_the_sums_of_the_definition_rounded_once_and_all_else_is_as_it_was(
        alpha in 0.1_f64..50.0,
        seed in any::<u32>(),
    ) {
        let (dir, scratch) = (checkpoint(), TempDir::new().expect("a directory"));
        let (mut store, lora) = open(dir.path());
        let lora = Lora { alpha, ..lora };
        write_to(&mut store, &lora, seed);
        let target = scratch.path().join("merged");
        let digest = tuned::export_merged(&store, &lora, dir.path(), &target).expect("a directory");
        prop_assert_eq!(digest, tuned::digest(&store, &lora.params().collect::<Vec<_>>()));
        let [base, written] = [dir.path(), &target].map(|dir| Checkpoint::open(dir).expect("a checkpoint"));
        for &Adapter { weight, stored, a, b } in &lora.adapters {
            let name = store.params()[weight].name();
            let tensor = written.tensor(name).expect("a tensor");
            prop_assert_eq!(tensor.dtype(), StoredType::F32);
            let found = tensor.values(tensor.shape()).expect("values");
            let [weight, a, b] = [weight, a, b].map(|id| store.weight(id));
            for (at, &found) in found.iter().enumerate() {
                let (row, col) = (at / weight.cols(), at % weight.cols());
                let (output, input) = if stored == Stored::OutIn { (row, col) } else { (col, row) };
                let terms = (0..2).map(|r| f64::from(b.at(output, r)) * f64::from(a.at(r, input)));
                let exact = f64::from(weight.at(row, col)) + f64::from(lora.scale()) * terms.sum::<f64>();
                prop_assert_eq!(found, exact as f32, "{} at {}, {}", name, row, col);
            }
        }
        let [old, new] = [&base, &written].map(|it| it.tensor(PARAMS[2].0).expect("a tensor"));
        prop_assert_eq!((old.bytes(), old.dtype()), (new.bytes(), new.dtype()));
        let config: Value = serde_json::from_slice(&fs::read(target.join("config.json")).expect("a file")).expect("JSON");
        prop_assert_eq!(config, json!({"dtype": "float32"}));
        prop_assert!(target.join("tokenizer.json").exists());
    }
}

#[test]
fn a_directory_of_adapters_has_what_peft_reads() {
    let (dir, scratch) = (checkpoint(), TempDir::new().expect("a directory"));
    let (mut store, lora) = open(dir.path());
    write_to(&mut store, &lora, 1);
    for (alpha, written) in [(3.0, json!(3)), (2.5, json!(2.5))] {
        let target = scratch.path().join(format!("alpha-{alpha}"));
        let lora = Lora { alpha, task: Some("CAUSAL_LM"), ..lora.clone() };
        let digest = tuned::export_adapter(&store, &lora, dir.path(), &target).expect("a directory");
        assert_eq!(digest, tuned::digest(&store, &lora.params().collect::<Vec<_>>()));
        let config: Value =
            serde_json::from_slice(&fs::read(target.join("adapter_config.json")).expect("a file")).expect("JSON");
        let expected = json!({
            "base_model_name_or_path": dir.path(), "bias": "none", "fan_in_fan_out": true, "inference_mode": true,
            "lora_alpha": written, "lora_dropout": 0.0, "peft_type": "LORA", "r": 2, "target_modules": ["w", "v"],
            "task_type": "CAUSAL_LM", "use_dora": false, "use_rslora": false,
        });
        assert_eq!(config, expected);
        let bytes = fs::read(target.join("adapter_model.safetensors")).expect("a file");
        let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
        assert_eq!(tensors.len(), 5);
        let beside = tensors.tensor("base_model.model.norm.weight").expect("a tensor");
        assert_eq!((beside.dtype(), beside.shape()), (Dtype::F32, &[5][..]));
        for (id, name) in lora.params().zip(["w.lora_A", "w.lora_B", "v.lora_A", "v.lora_B"]) {
            let tensor = tensors.tensor(&format!("base_model.model.transformer.h.0.{name}.weight")).expect("a tensor");
            assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, store.params()[id].shape()));
            let found: Vec<f32> = tensor.data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect();
            assert_same_bits(&found, &values(&store, id), name);
        }
        let names = fs::read_dir(&target).expect("a directory").count();
        assert_eq!(names, 2, "nothing else stands there");
    }
}

#[test]
fn nothing_is_overwritten_and_a_changed_base_leaves_no_directory() {
    let (dir, scratch) = (checkpoint(), TempDir::new().expect("a directory"));
    let (store, lora) = open(dir.path());
    let target = scratch.path().join("taken");
    fs::create_dir(&target).expect("a directory");
    fs::write(target.join("file"), "mine").expect("a file");
    let both = |target: &Path| {
        [
            tuned::export_adapter(&store, &lora, dir.path(), target),
            tuned::export_merged(&store, &lora, dir.path(), target),
        ]
    };
    for made in both(&target) {
        assert!(matches!(made, Err(WeightsError::Target { .. })), "{made:?}");
    }
    let file = fs::OpenOptions::new().append(true).open(dir.path().join("model.safetensors")).expect("a file");
    file.set_len(file.metadata().expect("facts").len() + 1).expect("longer");
    for made in both(&scratch.path().join("new")) {
        assert!(matches!(made, Err(WeightsError::Changed { .. })), "{made:?}");
    }
    assert_eq!(fs::read_dir(scratch.path()).expect("a directory").count(), 1);
}
