use std::path::Path;

use super::*;
use crate::{
    compare::{Ledger, Measured, Outcome, Plan, Point, Scored, Stage},
    train::{Budget, Method, RunFile},
};

/// A method of a made-up comparison: label, memory in MB, last score, seconds in which half of the way is gone.
type Made = (&'static str, u64, f64, f64);

const METHODS: [Made; 10] = [
    ("mezo", 560, 0.79, 70.0),
    ("lozo", 562, 0.84, 40.0),
    ("subzero", 575, 0.83, 45.0),
    ("tezo_adam", 590, 0.80, 60.0),
    ("fzoo", 561, 0.845, 32.0),
    ("zo_mopi", 610, 0.85, 38.0),
    ("hi_zfo", 900, 0.87, 25.0),
    ("lora-adamw", 1180, 0.885, 14.0),
    ("adamw", 2650, 0.89, 20.0),
    ("sgd", 1250, 0.70, 120.0),
];

const FILE: &str = r#"
    model = "smollm2-135m"
    seed = 0
    [data]
    task = "sst2"
    train = "t.jsonl"
    num_train = 1000
    num_dev = 500
    [compare]
    output = "out"
    optimizers = ["mezo", "lozo", "subzero", "tezo_adam", "fzoo", "zo_mopi", "hi_zfo", "lora-adamw", "adamw", "sgd", "muon"]
    [compare.methods.lora-adamw]
    optimizer = { name = "adamw" }
    tune = { scope = "lora" }
"#;

/// What a run of a made-up method measures.
fn measured((_, memory, end, half): Made, seed: u64, budget: f64) -> Measured {
    let shift = [-0.006, 0.007][seed as usize % 2];
    // Numbers of few digits are read back as they were; of others JSON may lose the last bit.
    let rounded = |number: f64| (1e6 * number).round() / 1e6;
    let at = |step: u64| {
        let seconds = budget * step as f64 / 8.0;
        let share = 1.0 - 0.5_f64.powf(seconds / half);
        // A little unrest, the same at every call.
        let unrest = 0.008 * ((step * 37 + seed * 11 + memory) % 7) as f64 / 7.0;
        let value = 0.502 + (end + shift - 0.502) * share - if step > 0 { unrest } else { 0.0 };
        let (value, loss) = (rounded(value), rounded(1.15 - 1.9 * (value - 0.502)));
        Point { step: 50 * step, seconds, forwards: (seconds * 2e3 / half) as u64, value, loss }
    };
    let curve: Vec<Point> = (0..=8).map(at).collect();
    let last = curve[8];
    let scored =
        |value: f64| Scored { value, ci95: [value - 0.023, value + 0.021].map(rounded), loss: last.loss, count: 872 };
    Measured {
        steps: 400,
        stopped: "steps".to_owned(),
        seconds: last.seconds,
        seconds_per_step: last.seconds / 400.0,
        forwards: last.forwards,
        tokens: 400_000,
        nonfinite: 0,
        peak_rss_bytes: memory << 20,
        metric: "accuracy".to_owned(),
        split: "valid".to_owned(),
        base: scored(0.516),
        best: scored(rounded(last.value + 0.004)),
        last: scored(last.value),
        best_step: 400,
        weights_sha256: "0".repeat(64),
        curve,
    }
}

/// A comparison that is over: every method of [`METHODS`] finishes, `muon` fails in its rehearsal.
fn over() -> (RunFile, Vec<Method>, Ledger) {
    let file = RunFile::parse(FILE, Path::new("run.toml"), Path::new("/"), &[]).expect("sound");
    let methods = file.methods().expect("sound");
    let mut ledger = Ledger::default();
    while let Some(cell) =
        (Plan { config: &file.compare, methods: &methods, ledger: &ledger }).next().expect("one comparison")
    {
        let made = METHODS.into_iter().find(|made| made.0 == cell.method);
        let number = match cell.stage {
            Stage::Seed(seed) => seed,
            _ => cell.candidate.0 as u64,
        };
        let outcome = match made {
            Some(made) => {
                Outcome::Finished(Box::new(measured(made, number, cell.budget.map_or(8, Budget::amount) as f64)))
            }
            None => Outcome::Failed { exit: None, message: "the process was ended: <signal: 9>".to_owned() },
        };
        ledger.add(Ended::of(&cell, &toml::Table::new(), outcome, 1.0));
    }
    (file, methods, ledger)
}

/// Writes the report of [`over`] to a directory and answers the text of each file.
fn written(output: &Path) -> [String; 4] {
    let (file, methods, ledger) = over();
    let comparison = Comparison::of(&Plan { config: &file.compare, methods: &methods, ledger: &ledger });
    let command = |ended: &Ended| format!("zofo train out/cells/{}.toml --threads 2", ended.cell);
    write(&comparison.expect("one comparison"), &Job::of(&file.config), &command, output).expect("written");
    [RECORD, "cells.csv", "curves.csv", PAGE].map(|name| fs::read_to_string(output.join(name)).expect("there"))
}

#[test]
fn the_page_stands_alone_and_is_well_formed() {
    let dir = tempfile::tempdir().expect("a directory");
    let [.., page] = written(dir.path());
    for foreign in ["<script", "http", "src=", "href=", "url(//", "@import", "NaN", "inf"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    // Every element that is not empty by its nature is closed, innermost first.
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().expect("a part")) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().expect("a name");
        match tag {
            _ if tag.starts_with('!') || tag.ends_with('/') || ["meta", "br"].contains(&name) => {}
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "before </{name}>"),
            _ => open.push(name),
        }
    }
    assert_eq!(open, [""; 0]);
    assert!(page.contains("&lt;signal: 9&gt;"), "why a method has no result");
    assert_eq!(page.matches("aria-label").count(), 6);
    for (label, ..) in METHODS {
        // Once in each drawing, at least.
        assert!(page.matches(&format!(">{label}</text>")).count() >= 5, "{label}");
    }
}

#[test]
fn the_record_reads_back_and_says_how_methods_stand() {
    let dir = tempfile::tempdir().expect("a directory");
    let [record, cells, curves, _] = written(dir.path());
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let (_, _, ledger) = over();
    let mut again = Ledger::open(&dir.path().join(RECORD)).expect("a record");
    let failed = |ended: &&Ended| ended.measured().is_none();
    assert_eq!(again.cells().filter(failed).count(), 0, "what may come to something else is done again");
    ledger.cells().filter(failed).for_each(|ended| again.add(ended.clone()));
    assert!(again.cells().eq(ledger.cells()));

    let methods = record["methods"].as_array().expect("methods");
    let label = |method: &Value| method["method"].as_str().expect("a label").to_owned();
    let order: Vec<String> = methods.iter().map(label).collect();
    assert_eq!((&*order[0], &*order[9], &*order[10]), ("adamw", "sgd", "muon"), "the best first, failures last");
    assert_eq!((&methods[0]["against"]["sgd"], &methods[0]["against"]["lora-adamw"]), (&json!("wins"), &json!("ties")));
    assert_eq!(methods[9]["against"]["adamw"], "loses");
    let counted = |text: &str| text.lines().count() - 1;
    assert_eq!(counted(&cells), ledger.cells().count());
    assert_eq!(counted(&curves), 9 * ledger.cells().filter(|ended| ended.measured().is_some()).count());
}

#[test]
fn a_comparison_that_has_just_begun_has_a_page() {
    let (file, methods, _) = over();
    let (dir, ledger) = (tempfile::tempdir().expect("a directory"), Ledger::default());
    let comparison = Comparison::of(&Plan { config: &file.compare, methods: &methods, ledger: &ledger });
    write(&comparison.expect("one"), &Job::of(&file.config), &|_| String::new(), dir.path()).expect("written");
    let page = fs::read_to_string(dir.path().join(PAGE)).expect("there");
    assert!(page.contains("No run that counts is over yet.") && !page.contains("aria-label"), "{page}");
}
