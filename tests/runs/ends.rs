//! Runs that are ended: wherever it happens, they go on to the weights of the unbroken run.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{bench, copy, digest, json};

/// Runs to the end over processes that are killed after times drawn from `seed`; answers the digest and how many were.
fn killed(output: &str, seed: u64, most: usize) -> (String, usize) {
    let (bench, _) = bench();
    let (mut state, mut kills) = (seed, 0);
    let whole = {
        let begin = Instant::now();
        bench.finished(&format!("{output}-timed"), &[]);
        begin.elapsed()
    };
    loop {
        let mut run = bench.train(output, &["--resume"]);
        let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("zofo");
        if kills < most {
            // Knuth's linear congruential generator; its upper bits are random enough for a time.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            thread::sleep(whole.mul_f64((state >> 40) as f64 / (1_u64 << 24) as f64 * 0.5));
            let _ = child.kill();
        }
        let ended = child.wait_with_output().expect("an end");
        if ended.status.success() {
            return (digest(&json(&ended)), kills);
        }
        assert_eq!(ended.status.code(), None, "{ended:?}");
        kills += 1;
    }
}

#[test]
fn killed_runs_go_on_to_the_same_weights() {
    let (_, expected) = bench();
    let kills: usize = (0..4)
        .map(|seed| {
            let (found, kills) = killed(&format!("killed-{seed}"), seed, 5);
            assert_eq!(&found, expected, "seed {seed}");
            kills
        })
        .sum();
    assert!(kills > 0, "no process was killed");
}

#[test]
#[ignore = "minutes; `cargo test --release --test runs -- --ignored two_hundred`"]
fn two_hundred_kills_change_nothing() {
    let (_, expected) = bench();
    let (mut kills, mut seed) = (0, 100);
    while kills < 200 {
        let (found, more) = killed(&format!("many-{seed}"), seed, 12);
        assert_eq!(&found, expected, "seed {seed}");
        (kills, seed) = (kills + more, seed + 1);
    }
    println!("{kills} kills");
}

#[test]
#[ignore = "needs strace; `cargo test --release --test runs -- --ignored every_call`"]
fn ended_at_every_call_that_writes_a_run_goes_on_to_the_same_weights() {
    let (bench, expected) = bench();
    for (call, error) in [
        ("fsync", None),
        ("fdatasync", None),
        ("rename", None),
        ("write", None),
        ("pwrite64", None),
        ("write", Some("ENOSPC")),
        ("pwrite64", Some("ENOSPC")),
        ("fsync", Some("EIO")),
        ("rename", Some("EIO")),
    ] {
        let mut ended_there = true;
        let mut number = 1;
        while ended_there {
            let output = format!("{call}-{}-{number}", error.unwrap_or("kill"));
            let fault = error.map_or_else(|| "signal=KILL".to_owned(), |error| format!("error={error}"));
            let plain = bench.train(&output, &["--resume"]);
            let mut traced = Command::new("strace");
            traced.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
            traced.arg(format!("inject={call}:{fault}:when={number}")).arg(plain.get_program()).args(plain.get_args());
            traced.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
            let ended = traced.output().expect("strace");
            ended_there = !ended.status.success();
            if error.is_some() && ended_there {
                let code = ended.status.code();
                assert!([Some(5), Some(74)].contains(&code), "{call} {number}: {ended:?}");
            }
            assert_eq!(&digest(&bench.finished(&output, &["--resume"])), expected, "{call} {number}");
            fs::remove_dir_all(bench.path(&output)).expect("no longer needed");
            // Every call of the first steps and snapshots; of later ones, which are alike, some.
            number += if number < 60 { 1 } else { 17 };
        }
        assert!(number > 2, "no {call} was met");
    }
}

#[test]
fn a_signal_ends_a_run_after_its_step_and_it_goes_on() {
    let (bench, _) = bench();
    let endless = ["--set", "train.steps=100000", "--set", "train.patience=0", "--resume"];
    let mut before = 0;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut run = bench.train("signalled", &endless);
        let child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("zofo");
        let metrics = bench.path("signalled").join("metrics.jsonl");
        let lines = || fs::read_to_string(&metrics).unwrap_or_default().lines().count() as u64;
        let begin = Instant::now();
        while lines() <= before {
            assert!(begin.elapsed() < Duration::from_secs(60), "no step after {before}");
            thread::sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let ended = child.wait_with_output().expect("an end");
        assert_eq!(ended.status.code(), Some(code), "{ended:?}");
        let steps = json(&ended)["steps"].as_u64().expect("a number");
        assert!(steps > before, "{steps} after {before}");
        assert_eq!(lines(), steps, "a line for each step");
        before = steps;
    }
}

#[test]
fn a_finished_run_says_the_same_again() {
    let (bench, _) = bench();
    let first = bench.finished("again", &[]);
    let second = bench.finished("again", &["--resume"]);
    assert_eq!(first, second);
}

#[test]
fn lost_files_are_made_again_from_the_journal() {
    let (bench, expected) = bench();
    bench.finished("whole", &[]);
    for (lost, name) in
        ["last/weights.safetensors", "best/weights.safetensors", "report.json", "metrics.jsonl"].into_iter().zip(0..)
    {
        let output = format!("lost-{name}");
        copy(&bench.path("whole"), &bench.path(&output));
        fs::remove_file(bench.path(&output).join("report.json")).expect("a report");
        let _ = fs::remove_file(bench.path(&output).join(lost));
        let report = bench.finished(&output, &["--resume"]);
        assert_eq!(&digest(&report), expected, "without {lost}");
        for made in ["last/weights.safetensors", "best/weights.safetensors", "report.json"] {
            assert!(bench.path(&output).join(made).exists(), "{made} without {lost}");
        }
        let best = &bench.finished("whole", &["--resume"])["best"];
        assert_eq!(&report["best"], best, "without {lost}");
    }
}

#[test]
fn a_damaged_snapshot_is_noticed_and_made_again() {
    let (bench, expected) = bench();
    bench.finished("sound", &[]);
    for snapshot in ["last", "best"] {
        let output = format!("damaged-{snapshot}");
        copy(&bench.path("sound"), &bench.path(&output));
        fs::remove_file(bench.path(&output).join("report.json")).expect("a report");
        let file = bench.path(&output).join(snapshot).join("weights.safetensors");
        let mut bytes = fs::read(&file).expect("a snapshot");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).expect("a damaged snapshot");
        let report = bench.finished(&output, &["--resume"]);
        assert_eq!(&digest(&report), expected, "{snapshot}");
        assert_eq!(report["best"], bench.finished("sound", &["--resume"])["best"], "{snapshot}");
    }
}

#[test]
fn a_torn_journal_goes_on_to_the_same_weights() {
    let (bench, expected) = bench();
    bench.finished("to-tear", &[]);
    let length = fs::metadata(bench.path("to-tear/journal.zofo")).expect("a journal").len();
    for cut in [1, 5, 20, 33, 34, 35, 200, 700] {
        let output = format!("torn-{cut}");
        copy(&bench.path("to-tear"), &bench.path(&output));
        fs::remove_file(bench.path(&output).join("report.json")).expect("a report");
        let journal =
            fs::File::options().write(true).open(bench.path(&output).join("journal.zofo")).expect("a journal");
        journal.set_len(length - cut).expect("a shorter journal");
        assert_eq!(&digest(&bench.finished(&output, &["--resume"])), expected, "{cut} bytes less");
    }
}
