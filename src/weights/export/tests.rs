//! Directories written and read back, and what must never be written.

use std::{fs, path::Path};

use proptest::prelude::*;
use safetensors::Dtype;
use tempfile::TempDir;

use super::{Export, TensorPlan};
use crate::weights::{Checkpoint, StoredType, WeightsError};

fn scratch() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// A directory to write, made from a model that stands beside it.
fn begun(scratch: &TempDir) -> Export {
    fs::create_dir(scratch.path().join("source")).expect("a source");
    Export::create(&scratch.path().join("target"), &scratch.path().join("source")).expect("a fresh target")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn plan(name: &str, dtype: StoredType, shape: &[usize]) -> TensorPlan {
    TensorPlan { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

/// The bytes of the `index`-th tensor in the tests: no two tensors have the same.
fn bytes_of(index: usize, plan: &TensorPlan) -> Vec<u8> {
    (0..plan.bytes()).map(|at| (index * 31) as u8 ^ at as u8).collect()
}

fn write(export: &mut Export, plans: &[TensorPlan]) {
    let fill = |index: usize, sink: &mut super::TensorSink<'_>| {
        // In two pieces, as a converter would.
        let bytes = bytes_of(index, &plans[index]);
        let (first, second) = bytes.split_at(bytes.len() / 3);
        sink.put(first).and_then(|()| sink.put(second))
    };
    export.safetensors(plans, fill).expect("tensors");
}

#[test]
fn nothing_is_there_before_the_end_and_everything_after_it() {
    let scratch = scratch();
    let mut export = begun(&scratch);
    export.write_bytes("config.json", b"{}").expect("a file");
    let hidden = format!(".target.partial-{}", std::process::id());
    assert_eq!(names(scratch.path()), [hidden, "source".to_owned()]);
    assert_eq!(export.finish().expect("a directory"), 2);
    assert_eq!(names(scratch.path()), ["source", "target"]);
    assert_eq!(fs::read(scratch.path().join("target/config.json")).expect("the file"), b"{}");
}

#[test]
fn an_export_given_up_leaves_nothing() {
    let scratch = scratch();
    let mut export = begun(&scratch);
    export.write_bytes("config.json", b"{}").expect("a file");
    let failed = export.safetensors(&[plan("w", StoredType::F32, &[1])], |_, _| {
        Err(WeightsError::Missing { dir: "elsewhere".into(), name: "w".to_owned() })
    });
    assert!(matches!(failed, Err(WeightsError::Missing { .. })));
    drop(export);
    assert_eq!(names(scratch.path()), ["source"]);
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("source/inner")).expect("a source");
    fs::create_dir(path("full")).expect("a directory");
    fs::write(path("full/notes"), "mine").expect("a file");
    fs::write(path("file"), "mine").expect("a file");
    std::os::unix::fs::symlink(path("nowhere"), path("link")).expect("a link");
    for (target, reason) in [
        (path("full"), "not empty"),
        (path("file"), "no directory"),
        (path("link"), "no directory"),
        (path("source"), "in the model that is read"),
        (path("source/copy"), "in the model that is read"),
        (path("source/inner/copy"), "in the model that is read"),
        (path("missing/copy"), "does not exist"),
        (path("full/.."), "names no directory"),
        ("/".into(), "names no directory"),
    ] {
        let error = Export::create(&target, &path("source")).expect_err("a refusal");
        assert!(matches!(error, WeightsError::Target { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(reason) && message.contains(&*target.to_string_lossy()), "{message}");
    }
    assert_eq!(names(scratch.path()), ["file", "full", "link", "source"]);

    let mut export = Export::create(&path("new"), &path("source")).expect("a fresh target");
    export.write_bytes("config.json", b"{}").expect("a file");
    // Someone else is faster.
    fs::create_dir(path("new")).and_then(|()| fs::write(path("new/notes"), "theirs")).expect("a file");
    assert!(matches!(export.finish(), Err(WeightsError::Write { path, .. }) if path.ends_with("new")));
    assert_eq!(names(scratch.path()), ["file", "full", "link", "new", "source"]);
    assert_eq!(names(&path("new")), ["notes"]);
}

#[test]
fn an_empty_directory_is_filled() {
    let scratch = scratch();
    fs::create_dir(scratch.path().join("target")).expect("an empty directory");
    let mut export = begun(&scratch);
    write(&mut export, &[plan("w", StoredType::F32, &[2])]);
    export.finish().expect("a directory");
    assert_eq!(names(&scratch.path().join("target")), ["model.safetensors"]);
}

#[test]
fn companions_are_copied_but_never_from_elsewhere() {
    let scratch = scratch();
    let mut export = begun(&scratch);
    let source = scratch.path().join("source");
    fs::write(source.join("tokenizer.json"), "{\"a\":1}").expect("a file");
    fs::write(source.join("weights.bin"), "large").expect("a file");
    export.copy_companions(&source).expect("copies");
    fs::write(scratch.path().join("secret"), "secret").expect("a file");
    std::os::unix::fs::symlink(scratch.path().join("secret"), source.join("merges.txt")).expect("a link");
    fs::create_dir(source.join("vocab.json")).expect("a directory");
    for name in ["merges.txt", "vocab.json"] {
        let error = export.copy_file(&source, name).expect_err("a refusal");
        assert!(matches!(&error, WeightsError::NotAFile { path, .. } if path.ends_with(name)), "{error}");
    }
    export.finish().expect("a directory");
    let target = scratch.path().join("target");
    assert_eq!(names(&target), ["tokenizer.json"]);
    assert_eq!(fs::read_to_string(target.join("tokenizer.json")).expect("the copy"), "{\"a\":1}");
}

#[test]
fn an_error_of_the_disk_names_the_file() {
    let scratch = scratch();
    let mut export = begun(&scratch);
    export.write_bytes("config.json", b"{}").expect("a file");
    let again = export.write_bytes("config.json", b"{}").expect_err("the file is there");
    assert!(matches!(&again, WeightsError::Write { path, .. } if path.ends_with("config.json")), "{again}");
    let full = export.write("vocab.json", |_| Err(std::io::ErrorKind::StorageFull.into())).expect_err("a full disk");
    assert!(matches!(&full, WeightsError::Write { path, .. } if path.ends_with("vocab.json")), "{full}");
}

#[test]
#[should_panic(expected = "bytes of \"w\" that were planned and not written")]
fn a_tensor_that_is_not_written_whole_is_our_bug() {
    let scratch = scratch();
    let _ = begun(&scratch).safetensors(&[plan("w", StoredType::F32, &[2])], |_, sink| sink.put(&[0; 4]));
}

#[test]
fn wider_values_come_first_so_that_all_are_aligned() {
    let scratch = scratch();
    let mut export = begun(&scratch);
    let plans = [plan("a", StoredType::Bf16, &[1]), plan("b", StoredType::F32, &[1, 1])];
    write(&mut export, &plans);
    export.finish().expect("a directory");
    let checkpoint = Checkpoint::open(&scratch.path().join("target")).expect("a sound checkpoint");
    checkpoint.tensor("b").and_then(|tensor| tensor.weight(1, 1)).expect("an aligned weight");
}

prop_compose! {
    fn any_plan()(
        name in "[a-z.0-9é]{1,12}",
        dtype in prop::sample::select(vec![
            StoredType::F32, StoredType::Bf16, StoredType::F16, StoredType::Other(Dtype::I64)
        ]),
        shape in prop::collection::vec(1_usize..5, 0..4),
    ) -> TensorPlan {
        TensorPlan { name, dtype, shape }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read_back_from_one_file_or_many(
        mut plans in prop::collection::vec(any_plan(), 1..12),
        shard_bytes in prop::sample::select(vec![1_u64, 40, 200, u64::MAX]),
    ) {
        plans.sort_by(|a, b| b.name.cmp(&a.name));
        plans.dedup_by(|a, b| a.name == b.name);
        let scratch = scratch();
        let mut export = begun(&scratch).with_shard_bytes(shard_bytes);
        write(&mut export, &plans);
        export.finish().expect("a directory");
        let target = scratch.path().join("target");
        let checkpoint = Checkpoint::open(&target).expect("a sound checkpoint");
        prop_assert_eq!(checkpoint.tensors().count(), plans.len());
        for (index, plan) in plans.iter().enumerate() {
            let tensor = checkpoint.tensor(&plan.name).expect("every tensor");
            prop_assert_eq!(tensor.dtype(), plan.dtype);
            prop_assert_eq!(tensor.shape(), &plan.shape);
            prop_assert_eq!(tensor.bytes(), bytes_of(index, plan));
        }
        for file in names(&target).iter().filter(|name| name.ends_with(".safetensors")) {
            let bytes = fs::read(target.join(file)).expect("a file of weights");
            let (size, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("as the library reads it");
            prop_assert_eq!(size % 8, 0);
            let metadata = header.metadata().as_ref().expect("metadata");
            prop_assert_eq!(metadata.get("format").map(String::as_str), Some("pt"));
            let data = (bytes.len() - 8 - size) as u64;
            prop_assert!(data <= shard_bytes || header.tensors().len() == 1);
        }
    }
}
