//! A file that becomes shorter under its mapping: never silent wrong numbers. The test dies in a process of its own.

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    path::Path,
    process::Command,
};

use zofo::weights::Mapping;

/// Names the file for the process that the test starts.
const SHRINKING: &str = "ZOFO_TEST_SHRINKING_FILE";

#[test]
fn a_file_that_shrinks_under_its_mapping_ends_the_process_with_its_name_and_code_74() {
    if let Some(path) = env::var_os(SHRINKING) {
        return read_what_is_gone(Path::new(&path));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.safetensors");
    fs::write(&path, vec![1; 100_000]).expect("a file");
    let output = Command::new(env::current_exe().expect("this test"))
        .arg("--nocapture")
        .env(SHRINKING, &path)
        .output()
        .expect("this test again");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("model.safetensors changed while it was in use: it ends too early"), "{stderr}");
    assert!(stderr.contains("model.safetensors shrank"), "{stderr}");
}

fn read_what_is_gone(path: &Path) {
    let mapping = Mapping::open(path).expect("a file");
    File::options().write(true).open(path).and_then(|file| file.set_len(1)).expect("a shorter file");
    let error = mapping.populate(0..mapping.bytes().len()).expect_err("a page that is gone");
    eprintln!("{error}");
    black_box(mapping.bytes()[50_000]);
    panic!("read a page that is gone");
}
