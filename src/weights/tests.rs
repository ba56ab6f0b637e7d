//! Checkpoints good and bad, written byte by byte: what a hostile file says is what a test must control.

use std::{fs, path::Path};

use half::bf16;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Checkpoint, HeaderProblem, IndexProblem, StoredType, WeightsError, header};

/// A safetensors file: `header` as it stands, then `data`.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// A header padded to eight bytes, as writers do.
fn padded(header: &str) -> String {
    format!("{header:<width$}", width = header.len().next_multiple_of(8))
}

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("a file in it");
    }
    dir
}

fn single(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    let dir = directory(&[("model.safetensors", bytes)]);
    // The mapping keeps the file alive after the directory is removed.
    Checkpoint::open(dir.path())
}

fn problem(bytes: &[u8]) -> HeaderProblem {
    match single(bytes).expect_err("a broken file") {
        WeightsError::Header { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn tensors_of_every_type_are_found_by_name_and_lent_as_stored() {
    let header = padded(
        r#"{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"h":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[12,20]},"__metadata__":{"format":"pt"}}"#,
    );
    let mut data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    data.extend([0.5_f32, 3.0].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
    data.extend(7_i64.to_le_bytes());
    let checkpoint = single(&file(&header, &data)).expect("a sound file");
    let names: Vec<_> = checkpoint.tensors().map(|tensor| tensor.name()).collect();
    assert_eq!(names, ["h", "ids", "w"]);
    let w = checkpoint.tensor("w").expect("a tensor");
    assert_eq!((w.dtype(), w.shape(), w.elements()), (StoredType::F32, &[2, 1][..], 2));
    let weight = w.weight(2, 1).expect("a weight");
    assert_eq!((weight.at(0, 0), weight.at(1, 0)), (1.5, -2.0));
    assert_eq!(*checkpoint.tensor("h").expect("a tensor").values(&[1, 2]).expect("values"), [0.5, 3.0]);
    let message = checkpoint.tensor("w").expect("a tensor").weight(1, 2).unwrap_err().to_string();
    assert!(
        message.contains("[2, 1]") && message.contains("[1, 2]") && message.contains("model.safetensors"),
        "{message}"
    );
    let message = checkpoint.tensor("ids").expect("a tensor").values(&[1]).unwrap_err().to_string();
    assert!(message.contains("I64") && message.contains("BF16"), "{message}");
    assert!(matches!(checkpoint.tensor("x"), Err(WeightsError::Missing { .. })));
}

#[test]
fn a_header_that_breaks_the_format_is_refused_with_its_reason() {
    let one = |body: &str| file(&padded(&format!("{{{body}}}")), &[0; 8]);
    assert!(matches!(problem(&[1, 2, 3]), HeaderProblem::TooShort { bytes: 3 }));
    assert!(matches!(problem(&[0xff; 64]), HeaderProblem::Length { declared: u64::MAX, .. }));
    assert!(matches!(problem(&file("[1]", &[])), HeaderProblem::Json { .. }));
    let twice =
        r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#;
    assert!(matches!(problem(&one(twice)), HeaderProblem::Duplicate { name } if name == "a"));
    let empty = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]}"#;
    assert!(matches!(problem(&one(empty)), HeaderProblem::Empty { name, .. } if name == "b"));
    for broken in [
        // A hole, an overlap, more than the file, less than the file, a shape that overflows, an unknown type.
        r#""a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#,
        r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#,
        r#""a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}"#,
        r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#,
        r#""a":{"dtype":"F32","shape":[9223372036854775808,2],"data_offsets":[0,8]}"#,
        r#""a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#,
    ] {
        let problem = problem(&one(broken));
        assert!(matches!(problem, HeaderProblem::Table { .. }), "{broken}: {problem}");
    }
}

#[test]
fn what_costs_time_or_memory_is_refused_before_it_does() {
    let many: Vec<String> = (0..1_000_000).map(|i| format!(r#""{i}":0"#)).collect();
    let many = file(&format!("{{{}}}", many.join(",")), &[]);
    let fewer: Vec<String> = (0..70_000).map(|i| format!(r#""{i}":0"#)).collect();
    let fewer = file(&format!("{{{}}}", fewer.join(",")), &[]);
    let long = file(&" ".repeat(100 << 20), &[]);
    let deep = file(&format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), &[]);
    for (bytes, expected) in [
        (&many, "declares a header of"),
        (&fewer, "more than 65536 tensors"),
        (&long, "declares a header of"),
        (&deep, ""),
    ] {
        let start = std::time::Instant::now();
        let message = header::read(bytes).expect_err("too much of something").to_string();
        assert!(message.contains(expected), "{message}");
        assert!(start.elapsed().as_secs_f64() < 1.0, "{message}: refused only after {:?}", start.elapsed());
    }
}

/// Two shards with one tensor each, and an index whose `weight_map` is `map`.
fn sharded(map: &str) -> TempDir {
    let shard = |name: &str, value: f32| {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}}}"#);
        file(&padded(&header), &value.to_le_bytes())
    };
    directory(&[
        ("model-1.safetensors", &shard("a", 1.0)),
        ("model-2.safetensors", &shard("b", 2.0)),
        ("model.safetensors.index.json", format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).as_bytes()),
    ])
}

fn index_problem(dir: &Path) -> IndexProblem {
    match Checkpoint::open(dir).expect_err("a broken index") {
        WeightsError::Index { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn shards_are_found_through_their_index() {
    let dir = sharded(r#"{"a":"model-1.safetensors","b":"model-2.safetensors"}"#);
    let checkpoint = Checkpoint::open(dir.path()).expect("a sound checkpoint");
    for (name, value) in [("a", 1.0), ("b", 2.0)] {
        let weight = checkpoint.tensor(name).and_then(|tensor| tensor.weight(1, 1)).expect("a weight");
        assert_eq!(weight.at(0, 0), value);
    }
    assert_eq!(checkpoint.files().len(), 2);
}

#[test]
fn an_index_that_lies_or_leads_elsewhere_is_refused() {
    for shard in [
        "../model-1.safetensors",
        "/etc/model.safetensors",
        "a/b.safetensors",
        "./model-1.safetensors",
        "x.bin",
        "",
        "..",
        "m\\u0000.safetensors",
    ] {
        let dir = sharded(&format!(r#"{{"a":"{shard}"}}"#));
        assert!(matches!(index_problem(dir.path()), IndexProblem::ShardName { .. }), "{shard:?}");
    }
    let dir = sharded(r#"{"a":"model-2.safetensors"}"#);
    assert!(matches!(index_problem(dir.path()), IndexProblem::NotInShard { .. }));
    let dir = sharded(r#"{"a":"model-1.safetensors","a":"model-1.safetensors"}"#);
    assert!(matches!(index_problem(dir.path()), IndexProblem::Duplicate { .. }));
    let dir = sharded("[]");
    assert!(matches!(index_problem(dir.path()), IndexProblem::Json { .. }));
}

#[test]
fn a_link_out_of_the_directory_is_refused() {
    let elsewhere = sharded(r#"{"a":"model-1.safetensors"}"#);
    let dir = directory(&[]);
    std::os::unix::fs::symlink(elsewhere.path().join("model-1.safetensors"), dir.path().join("model.safetensors"))
        .expect("a link");
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, WeightsError::NotAFile { found: "a link out of the directory", .. }), "{error}");
}

#[test]
fn a_directory_of_another_format_says_which() {
    let dir = directory(&[("pytorch_model.bin", b"")]);
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(&error, WeightsError::NoWeights { instead: Some(name), .. } if name == "pytorch_model.bin"));
}

#[test]
fn a_file_that_changes_underneath_is_noticed() {
    let dir = sharded(r#"{"a":"model-1.safetensors"}"#);
    let checkpoint = Checkpoint::open(dir.path()).expect("a sound checkpoint");
    checkpoint.check_unchanged().expect("nothing happened yet");
    let path = dir.path().join("model-1.safetensors");
    let longer = [fs::read(&path).expect("the shard"), vec![0; 8]].concat();
    fs::write(&path, longer).expect("a longer shard");
    let error = checkpoint.check_unchanged().unwrap_err();
    assert!(matches!(&error, WeightsError::Changed { what: "its size differs", .. }), "{error}");
    fs::remove_file(&path).expect("no shard");
    assert!(matches!(checkpoint.check_unchanged(), Err(WeightsError::Changed { what: "it is gone", .. })));
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Hardly any are accepted: the claim is that none panics.
        let _ = single(&bytes);
    }

    #[test]
    fn a_sound_header_with_one_byte_changed_is_refused_or_read_within_the_file(at in 0_usize..80, byte in any::<u8>()) {
        let mut bytes = file(&padded(r#"{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#), &[0; 8]);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(checkpoint) = single(&bytes) {
            for tensor in checkpoint.tensors() {
                prop_assert_eq!(tensor.bytes().len(), 8);
            }
        }
    }
}
