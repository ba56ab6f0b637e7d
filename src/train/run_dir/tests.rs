use super::*;

struct Places {
    _dir: tempfile::TempDir,
    model: PathBuf,
    run: PathBuf,
}

fn places() -> Places {
    let dir = tempfile::tempdir().expect("a directory");
    let (model, run) = (dir.path().join("model"), dir.path().join("runs/first"));
    fs::create_dir(&model).expect("a model");
    Places { _dir: dir, model, run }
}

#[test]
fn a_lock_file_that_says_nothing_still_locks() {
    let places = places();
    let _held = RunDir::open(&places.run, &places.model, false).expect("new");
    fs::write(places.run.join("lock"), b"\xff").expect("overwritten");
    match RunDir::open(&places.run, &places.model, false) {
        Err(TrainError::Locked { pid: None, host: None, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_with_a_journal_needs_resume_and_one_without_does_not() {
    let places = places();
    let dir = RunDir::open(&places.run, &places.model, true).expect("a missing directory is a start");
    assert!(!dir.holds_run());
    fs::write(dir.config(), "").expect("interrupted before the journal");
    drop(dir);
    let dir = RunDir::open(&places.run, &places.model, false).expect("nothing to lose");
    fs::write(dir.journal(), "").expect("written");
    drop(dir);
    let error = RunDir::open(&places.run, &places.model, false).expect_err("a run");
    assert!(matches!(error, TrainError::HoldsRun { .. }) && error.to_string().contains("--resume"), "{error}");
    assert!(RunDir::open(&places.run, &places.model, true).expect("asked for").holds_run());
}

#[test]
fn nothing_is_made_in_the_model_whatever_way_leads_there() {
    let places = places();
    let link = places.model.with_file_name("link");
    std::os::unix::fs::symlink(&places.model, &link).expect("a link");
    for inside in [places.model.clone(), places.model.join("a/b"), link.join("a"), places.model.join("a/../b")] {
        match RunDir::open(&inside, &places.model, true) {
            Err(TrainError::InModel { path, .. }) => assert_eq!(path, inside),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read_dir(&places.model).expect("listed").count(), 0);
    let around = places.model.with_file_name("missing").join("../model/a");
    assert!(matches!(RunDir::open(&around, &places.model, true), Err(TrainError::InModel { .. })));
    assert!(!places.model.join("a/lock").exists());
    RunDir::open(&places.model.with_file_name("model-run"), &places.model, false).expect("beside it");
}

#[test]
fn a_file_in_the_way_is_a_typed_error() {
    let places = places();
    fs::write(places.model.with_file_name("runs"), "").expect("written");
    match RunDir::open(&places.run, &places.model, false) {
        Err(TrainError::Write { path, .. }) => assert_eq!(path, places.run),
        other => panic!("{other:?}"),
    }
    match RunDir::open(&places.run, Path::new("no model"), false) {
        Err(TrainError::Read { path, .. }) => assert_eq!(path, Path::new("no model")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_replaced_whole_and_what_a_crash_left_is_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("report.json");
    fs::write(dir.path().join(".report.json.partial"), "half of an old attempt, longer than the new one")
        .expect("left");
    for bytes in [&b"one"[..], b"", b"three"] {
        replace_file(&path, bytes).expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), bytes);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
    // A directory has the name: the rename fails, and nothing is left.
    let taken = dir.path().join("best");
    fs::create_dir(&taken).expect("made");
    assert!(matches!(replace_file(&taken, b"x"), Err(TrainError::Write { path, .. }) if path == taken));
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2);
}
