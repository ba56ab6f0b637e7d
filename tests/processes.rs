//! What one process does to another: a file that becomes shorter under its mapping, a run directory that is in use,
//! signals. The other process is this program again, playing a part.

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    io::{self, BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{self, Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use zofo::{
    train::{Interrupt, RunDir, TrainError},
    weights::Mapping,
};

/// The part that the other process plays, and with what: `part=argument`.
const PART: &str = "ZOFO_TEST_PART";

#[test]
#[ignore = "the other process of the tests below"]
fn the_other_process() {
    let Ok(part) = env::var(PART) else { return };
    match part.split_once('=').expect("a part and its argument") {
        ("shrink", path) => read_what_is_gone(Path::new(path)),
        ("hold", directory) => hold(Path::new(directory)),
        ("listen", manner) => listen(manner == "stubborn"),
        other => panic!("{other:?}"),
    }
}

fn other_process(part: &str, argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "--ignored", "--nocapture", "the_other_process"]);
    command.env(PART, format!("{part}={argument}")).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The process and what it says.
fn start(part: &str, argument: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = other_process(part, argument).spawn().expect("a second process");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    (child, lines)
}

fn await_line(lines: &mut Lines<BufReader<ChildStdout>>, expected: &str) {
    assert!(lines.any(|line| line.expect("text") == expected), "the process never says {expected:?}");
}

// --- a file that shrinks ------------------------------------------------------------------------

fn read_what_is_gone(path: &Path) {
    let mapping = Mapping::open(path).expect("a file");
    File::options().write(true).open(path).and_then(|file| file.set_len(1)).expect("a shorter file");
    let error = mapping.populate(0..mapping.bytes().len()).expect_err("a page that is gone");
    eprintln!("{error}");
    black_box(mapping.bytes()[50_000]);
    panic!("read a page that is gone");
}

#[test]
fn a_file_that_shrinks_under_its_mapping_ends_the_process_with_its_name_and_code_74() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("model.safetensors");
    fs::write(&path, vec![1; 100_000]).expect("a file");
    let output = other_process("shrink", path.to_str().expect("UTF-8")).output().expect("a second process");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("model.safetensors changed while it was in use: it ends too early"), "{stderr}");
    assert!(stderr.contains("model.safetensors shrank"), "{stderr}");
}

// --- a run directory in use ---------------------------------------------------------------------

/// A model and a run directory beside it.
fn places(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("model"), dir.join("run"))
}

fn hold(dir: &Path) {
    let (model, run) = places(dir);
    let _held = RunDir::open(&run, &model, true).expect("free");
    println!("\nheld");
    // Until killed, or until the test that started this process is gone.
    let _ = io::stdin().read_line(&mut String::new());
}

#[test]
fn a_second_process_is_told_the_first_and_a_killed_one_blocks_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let (model, run) = places(dir.path());
    fs::create_dir(&model).expect("a model");
    let (mut child, mut lines) = start("hold", dir.path().to_str().expect("UTF-8"));
    await_line(&mut lines, "held");
    let begin = Instant::now();
    let error = RunDir::open(&run, &model, true).expect_err("held");
    assert!(begin.elapsed().as_secs() < 1, "the lock is tried, not waited for");
    match &error {
        TrainError::Locked { path, pid, host } => {
            assert_eq!((path.as_path(), *pid), (&*run.canonicalize().expect("made"), Some(child.id())));
            let host = host.as_deref().expect("a host");
            let expected = format!("is in use by process {} on {host}; wait for it or stop it", child.id());
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
        other => panic!("{other:?}"),
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("gone");
    let ours = RunDir::open(&run, &model, false).expect("a stale lock blocks nobody");
    let text = fs::read_to_string(run.join("lock")).expect("written");
    assert!(text.starts_with(&format!("{{\"pid\":{},", process::id())), "{text}");
    drop(ours);
}

// --- signals ------------------------------------------------------------------------------------

/// Leaves when asked to, or if stubborn does not.
fn listen(stubborn: bool) {
    let interrupt = Interrupt::listen().expect("signals");
    println!("\nlistening");
    // A minute at most, should the test that started this process be gone.
    for _ in 0..6000 {
        thread::sleep(Duration::from_millis(10));
        if let Some(code) = interrupt.exit_code() {
            println!("asked");
            if !stubborn {
                process::exit(code.into());
            }
            thread::sleep(Duration::from_secs(60));
        }
    }
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -s {signal} {}", child.id())).status();
    assert!(sent.expect("a shell").success());
}

#[test]
fn the_first_signal_lets_the_run_leave_with_its_code() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (mut child, mut lines) = start("listen", "obedient");
        await_line(&mut lines, "listening");
        send(&child, signal);
        await_line(&mut lines, "asked");
        assert_eq!(child.wait().expect("gone").code(), Some(code));
    }
}

#[test]
fn the_second_signal_of_either_kind_ends_the_process_at_once() {
    for (first, second, code) in [("INT", "INT", 130), ("INT", "TERM", 143), ("TERM", "INT", 130)] {
        let (mut child, mut lines) = start("listen", "stubborn");
        await_line(&mut lines, "listening");
        send(&child, first);
        await_line(&mut lines, "asked");
        send(&child, second);
        assert_eq!(child.wait().expect("gone").code(), Some(code));
    }
}
