//! States written and read back, what damage does to them, and directories of base and tuned tensors.

use std::{borrow::Cow, collections::BTreeMap, fs, io, panic, path::Path};

use half::bf16;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{Snapshot, StateTensor, StateValues, digest, export, hex, read, write};
use crate::{
    direction::{ParamId, ParamTable},
    noise::{NoiseKey, Role},
    simd::Isa,
    testing::{assert_same_bits, reference::golden},
    weights::{Checkpoint, HeaderProblem, SnapshotProblem, Store, StoredType, WeightsError, replace_file},
};

fn scratch() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// Parameters in this order, the values of each counting up from its number.
fn store(params: &[(&str, &[usize])]) -> Store {
    let mut table = ParamTable::new();
    for (name, shape) in params {
        table.add(name, shape);
    }
    let mut number = 0.0;
    Store::in_memory(table, |param| {
        number += 1.0;
        (0..param.elements()).map(|i| number + i as f32 / 8.0).collect()
    })
}

const SMALL: [(&str, &[usize]); 3] = [("w", &[2, 3]), ("b", &[3]), ("frozen", &[2])];

fn ids(store: &Store, names: &[&str]) -> Vec<ParamId> {
    names.iter().map(|name| store.params().find(name).expect("a parameter")).collect()
}

/// Writes over rows of a parameter.
fn change(store: &mut Store, id: ParamId, change: impl Fn(usize, &mut [f32]) + Sync) {
    store.update_rows(id, Isa::fastest(), NoiseKey::new(0, 0, Role::Rounding, 0), change).expect("a private copy");
}

fn values(store: &Store) -> Vec<f32> {
    let weights = store.params().iter().map(|(id, _)| store.weight(id));
    weights
        .flat_map(|weight| {
            (0..weight.rows() * weight.cols()).map(move |i| weight.at(i / weight.cols(), i % weight.cols()))
        })
        .collect()
}

fn facts() -> BTreeMap<String, String> {
    BTreeMap::from([("step".to_owned(), "7".to_owned()), ("note".to_owned(), "é\"\n".to_owned())])
}

fn state() -> Vec<(String, StateTensor<'static>)> {
    vec![
        (
            "m".to_owned(),
            StateTensor { shape: vec![3], values: StateValues::F32(Cow::Borrowed(&[0.5, -0.0, f32::NAN])) },
        ),
        ("w".to_owned(), StateTensor { shape: vec![1, 1], values: StateValues::F64(Cow::Borrowed(&[1e-300])) }),
    ]
}

/// The snapshot of the small store, its path and the names that are tuned.
fn small(dir: &Path) -> (std::path::PathBuf, Store, Vec<ParamId>) {
    let (path, store) = (dir.join("snapshot.safetensors"), store(&SMALL));
    let tuned = ids(&store, &["w", "b"]);
    write(&path, &store, &tuned, &facts(), &state()).expect("a snapshot");
    (path, store, tuned)
}

#[test]
fn the_digest_is_that_of_the_definition() {
    // hashlib.sha256 over b"".join(u64(len(n)) + n + u64(3) + b"F32" + u64(len(s)) + b"".join(map(u64, s)) + values)
    // for (n, s) in ((b"b", [3]), (b"w", [2, 3])), u64 = struct.Struct("<Q").pack.
    let expected = "624e716e1f16be201570db9bcf86cd9b804894dcc22bd401b7a50c824a253216";
    let store = store(&SMALL);
    for order in [["w", "b"], ["b", "w"]] {
        assert_eq!(hex(&digest(&store, &ids(&store, &order))), expected);
    }
    assert_ne!(hex(&digest(&store, &ids(&store, &["w"]))), expected);
}

#[test]
fn whether_a_tensor_was_copied_does_not_change_its_digest() {
    for name in ["llama", "llama-bf16"] {
        let mut store = golden_store(name);
        let tuned: Vec<_> = store.params().iter().map(|(id, _)| id).collect();
        let before = digest(&store, &tuned);
        for &id in &tuned {
            change(&mut store, id, |_, _| {});
        }
        assert_eq!(digest(&store, &tuned), before, "{name}");
        change(&mut store, tuned[3], |_, values| values[0] += 1.0);
        assert_ne!(digest(&store, &tuned), before, "{name}");
    }
}

#[test]
fn a_snapshot_brings_back_tuned_tensors_facts_and_state_and_leaves_the_rest() {
    let scratch = scratch();
    let (path, old, tuned) = small(scratch.path());
    let mut new = store(&SMALL);
    for (id, _) in old.params().iter() {
        change(&mut new, id, |_, values| values.fill(-1.0));
    }
    let Snapshot { facts: found, state: carried, weights_sha256 } = read(&path, &mut new, &tuned).expect("a snapshot");
    assert_eq!(found, facts());
    // `NaN` is unequal to itself.
    assert_eq!(format!("{carried:?}"), format!("{:?}", state()));
    assert_eq!(weights_sha256, digest(&old, &tuned));
    assert_same_bits(&values(&new)[..9], &values(&old)[..9], format_args!("tuned"));
    assert_eq!(values(&new)[9..], [-1.0, -1.0]);
}

#[test]
fn a_snapshot_of_other_tensors_is_refused_with_the_difference() {
    let scratch = scratch();
    let (path, ..) = small(scratch.path());
    let refusal = |params: &[(&str, &[usize])], tuned: &[&str]| {
        let mut store = store(params);
        let (tuned, before) = (ids(&store, tuned), values(&store));
        let error = read(&path, &mut store, &tuned).expect_err("another run's");
        assert_eq!(values(&store), before);
        let message = error.to_string();
        assert!(message.contains("snapshot.safetensors") && message.contains("another run"), "{message}");
        match error {
            WeightsError::Snapshot { problem, .. } => problem,
            other => panic!("{other}"),
        }
    };
    assert!(matches!(refusal(&SMALL, &["w"]), SnapshotProblem::Unexpected { name } if name == "b"));
    let missing = refusal(&SMALL, &["w", "b", "frozen"]);
    assert!(matches!(missing, SnapshotProblem::Missing { name } if name == "frozen"));
    let other = refusal(&[("w", &[3, 2]), ("b", &[3])], &["w", "b"]);
    assert!(matches!(other, SnapshotProblem::Tensor { found, expected, .. }
        if found == "F32 [2, 3]" && expected == "F32 [3, 2]"));
}

#[test]
fn a_file_that_no_run_wrote_is_refused_by_its_format() {
    let mut store = golden_store("llama");
    let tuned: Vec<_> = store.params().iter().map(|(id, _)| id).collect();
    let error = read(&golden::directory("llama").join("model.safetensors"), &mut store, &tuned).expect_err("a model");
    assert!(error.to_string().contains("no snapshot of a run: its metadata say Some(\"pt\")"), "{error}");
    let error = read(Path::new("nowhere"), &mut store, &tuned).expect_err("no file");
    assert!(matches!(error, WeightsError::Read { .. }), "{error}");
}

#[test]
fn every_flipped_bit_is_refused_or_changes_nothing() {
    let scratch = scratch();
    let (path, old, tuned) = small(scratch.path());
    let bytes = fs::read(&path).expect("the snapshot");
    let original = format!("{:?}", read(&path, &mut store(&SMALL), &tuned).expect("a snapshot"));
    let mut harmless = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(&path, &flipped).expect("a file");
            let mut store = store(&SMALL);
            match read(&path, &mut store, &tuned) {
                Err(error) => assert!(error.path() == path, "byte {at}, bit {bit}: {error}"),
                Ok(found) => {
                    assert_eq!(format!("{found:?}"), original, "byte {at}, bit {bit}");
                    harmless += 1;
                }
            }
            assert_eq!(values(&store), values(&old), "byte {at}, bit {bit}");
        }
    }
    // The padding of the header: a space may become another blank.
    assert!(harmless <= 2 * 8, "{harmless} flips were not noticed");
}

#[test]
fn a_truncated_or_extended_snapshot_is_refused() {
    let scratch = scratch();
    let (path, _, tuned) = small(scratch.path());
    let bytes = fs::read(&path).expect("the snapshot");
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).expect("a file");
        let error = read(&path, &mut store(&SMALL), &tuned).expect_err("a truncated file");
        assert!(matches!(error, WeightsError::Header { .. }), "{length} bytes: {error}");
    }
    fs::write(&path, [&bytes[..], &[0]].concat()).expect("a file");
    let error = read(&path, &mut store(&SMALL), &tuned).expect_err("a longer file");
    assert!(matches!(error, WeightsError::Header { problem: HeaderProblem::Table { .. }, .. }), "{error}");
}

#[test]
fn until_a_snapshot_is_whole_the_old_one_stays() {
    let scratch = scratch();
    let (path, mut store, tuned) = small(scratch.path());
    let old = fs::read(&path).expect("the snapshot");
    let hidden = scratch.path().join(".snapshot.safetensors.partial");
    let full = replace_file(&path, |file| {
        io::Write::write_all(file, &[0; 100])?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(full.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) && !hidden.exists());
    assert_eq!(fs::read(&path).expect("the snapshot"), old);
    // A process that dies cleans nothing up.
    let died = panic::catch_unwind(|| {
        replace_file(&path, |file| {
            io::Write::write_all(file, &vec![0; 3 << 20]).expect("room");
            panic::resume_unwind(Box::new(()))
        })
    });
    assert!(died.is_err() && hidden.exists());
    assert_eq!(fs::read(&path).expect("the snapshot"), old);
    change(&mut store, tuned[0], |_, values| values[0] = 9.0);
    write(&path, &store, &tuned, &facts(), &[]).expect("over what was left");
    assert!(!hidden.exists());
    let mut found = self::store(&SMALL);
    read(&path, &mut found, &tuned).expect("the new snapshot");
    assert_eq!(values(&found), values(&store));
}

#[test]
#[should_panic(expected = "a fact with a name that is taken")]
fn facts_do_not_hide_digests() {
    let (scratch, store) = (scratch(), store(&SMALL));
    let facts = BTreeMap::from([("weights_sha256".to_owned(), String::new())]);
    let _ = write(&scratch.path().join("s"), &store, &ids(&store, &["w"]), &facts, &[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_parameters_in_any_order_come_back_with_one_digest(
        named in prop::collection::btree_map("[a-z.]{1,8}", prop::collection::vec(1_usize..4, 1..3), 1..8),
        facts in prop::collection::btree_map("[a-z ]{1,4}", ".{0,8}", 0..4),
        (rotation, written) in (any::<prop::sample::Index>(), any::<f32>()),
    ) {
        let scratch = scratch();
        let path = scratch.path().join("s");
        let mut params: Vec<(&str, &[usize])> = named.iter().map(|(name, shape)| (&name[..], &shape[..])).collect();
        let first = store(&params);
        let names: Vec<&str> = named.keys().map(String::as_str).collect();
        let mut tuned = ids(&first, &names);
        tuned.rotate_left(rotation.index(names.len()));
        let sha = write(&path, &first, &tuned, &facts, &[]).expect("a snapshot");
        prop_assert_eq!(sha, digest(&first, &ids(&first, &names)));

        // A table of another order.
        params.reverse();
        let mut second = store(&params);
        for (id, _) in first.params().iter() {
            change(&mut second, id, |_, values| values.fill(written));
        }
        let tuned = ids(&second, &names);
        let snapshot = read(&path, &mut second, &tuned).expect("a snapshot");
        prop_assert_eq!((&snapshot.facts, snapshot.weights_sha256), (&facts, sha));
        prop_assert_eq!(digest(&second, &tuned), sha);
        change(&mut second, tuned[0], |_, values| values[0] += 0.125);
        prop_assert_ne!(digest(&second, &tuned), sha);
    }
}

// --- directories --------------------------------------------------------------------------------

/// The parameters of a golden checkpoint: all its tensors.
fn golden_store(name: &str) -> Store {
    opened(&golden::directory(name))
}

fn opened(dir: &Path) -> Store {
    let checkpoint = Checkpoint::open(dir).expect("a checkpoint");
    let mut params = ParamTable::new();
    for tensor in checkpoint.tensors() {
        params.add(tensor.name(), tensor.shape());
    }
    Store::open(checkpoint, params).expect("a store")
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("config.json")).expect("a configuration")).expect("JSON")
}

#[test]
fn an_export_has_the_tuned_tensors_as_f32_and_all_others_as_in_the_base() {
    for name in ["llama", "llama-bf16", "llama-sharded", "gpt2"] {
        let (scratch, source, mut store) = (scratch(), golden::directory(name), golden_store(name));
        let target = scratch.path().join("tuned");
        let tuned: Vec<_> = store.params().iter().map(|(id, _)| id).filter(|id| id.index() % 2 == 1).collect();
        change(&mut store, tuned[0], |_, values| values[1] = 0.1);
        let sha = export(&store, &tuned, &source, &target).expect("a directory");
        assert_eq!(sha, digest(&store, &tuned), "{name}");

        let (base, written) = (Checkpoint::open(&source).expect("the base"), opened(&target));
        for (id, param) in store.params().iter() {
            let tensor = written.checkpoint().and_then(|it| it.find(param.name())).expect("every tensor");
            if tuned.contains(&id) {
                assert_eq!((tensor.dtype(), tensor.shape()), (StoredType::F32, param.shape()), "{name}");
            } else {
                let original = base.find(param.name()).expect("every tensor");
                assert_eq!((tensor.dtype(), tensor.bytes()), (original.dtype(), original.bytes()), "{name}");
            }
        }
        assert_eq!(digest(&written, &tuned), sha, "{name}");
        assert_eq!(values(&written), values(&store), "{name}");

        let mut expected = config(&source);
        let field = if expected.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        expected[field] = json!("float32");
        assert_eq!(config(&target), expected, "{name}");
    }
}

/// A model directory of four tensors with these values, and its `config.json`.
fn tied(dir: &Path, config: &str) {
    let names = ["head", "table", "zeros", "other"];
    let entry = |at: usize| json!({ "dtype": "BF16", "shape": [1, 2], "data_offsets": [4 * at, 4 * at + 4] });
    let header: Map<String, Value> = names.iter().enumerate().map(|(at, name)| (name.to_string(), entry(at))).collect();
    let mut header = Value::Object(header).to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let data = [1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0].map(bf16::from_f32);
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), bytemuck::cast_slice(&data)].concat();
    fs::write(dir.join("model.safetensors"), file).expect("weights");
    fs::write(dir.join("config.json"), config).expect("a configuration");
}

/// The store of that directory: `table` and `zeros` are parameters.
fn tied_store(dir: &Path) -> (Store, Vec<ParamId>) {
    let mut params = ParamTable::new();
    let tuned = ["table", "zeros"].map(|name| params.add(name, &[1, 2])).to_vec();
    (Store::open(Checkpoint::open(dir).expect("a checkpoint"), params).expect("a store"), tuned)
}

#[test]
fn a_tied_tensor_that_is_stored_twice_is_written_twice_and_a_coincidence_of_zeros_is_none() {
    let scratch = scratch();
    tied(scratch.path(), "{}");
    let (mut store, tuned) = tied_store(scratch.path());
    tuned.iter().for_each(|&id| change(&mut store, id, |_, values| values.fill(3.0)));
    let outside = self::scratch();
    let target = outside.path().join("tuned");
    export(&store, &tuned, scratch.path(), &target).expect("a directory");
    let written = Checkpoint::open(&target).expect("a checkpoint");
    let values = |name: &str| written.tensor(name).and_then(|it| it.values(&[1, 2])).expect("values").to_vec();
    assert_eq!(["head", "table", "zeros", "other"].map(values), [[3.0; 2], [3.0; 2], [3.0; 2], [0.0; 2]]);
}

#[test]
fn the_type_of_the_weights_is_named_as_the_configuration_names_it() {
    for (said, expected) in [
        ("{}", json!({"torch_dtype": "float32"})),
        (r#"{"dtype":"bfloat16"}"#, json!({"dtype": "float32"})),
        (r#"{"torch_dtype":"bfloat16","a":1e-05}"#, json!({"torch_dtype": "float32", "a": 1e-5})),
        (r#"{"dtype":null,"torch_dtype":"float16"}"#, json!({"dtype": "float32", "torch_dtype": "float32"})),
    ] {
        let (base, outside) = (scratch(), scratch());
        tied(base.path(), said);
        let (store, tuned) = tied_store(base.path());
        export(&store, &tuned, base.path(), &outside.path().join("tuned")).expect("a directory");
        assert_eq!(config(&outside.path().join("tuned")), expected);
    }
}

#[test]
fn a_configuration_that_is_none_leaves_no_directory() {
    for said in ["[]", "{"] {
        let (base, outside) = (scratch(), scratch());
        tied(base.path(), said);
        let (store, tuned) = tied_store(base.path());
        let error = export(&store, &tuned, base.path(), &outside.path().join("tuned")).expect_err("no configuration");
        assert!(
            error.to_string().contains("not the JSON of a configuration") && error.path().ends_with("config.json"),
            "{error}"
        );
        assert_eq!(fs::read_dir(outside.path()).expect("readable").count(), 0);
    }
}
