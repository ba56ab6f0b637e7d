use std::path::Path;

use super::*;
use crate::{
    compare::{Outcome, Point, Scored},
    train::RunFile,
};

/// A comparison of two methods with candidates and one without.
fn file(sets: &[&str]) -> RunFile {
    const FILE: &str = r#"
        model = "m"
        [data]
        task = "sst2"
        train = "t.jsonl"
        valid = "v.jsonl"
        [compare]
        output = "out"
        optimizers = ["mezo", "lozo", "adamw"]
        budget = "300s"
        seeds = 2
        grid = { lr = [0.1, 0.2, 0.3, 0.4] }
        [compare.methods.adamw.grid]
        lr = [0.5]
    "#;
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    RunFile::parse(FILE, Path::new("run.toml"), Path::new("/"), &sets).expect("sound")
}

/// What a cell comes to whose step takes `pace` seconds and which scores `value`; `None`: it fails.
fn ended(cell: &Cell, pace: f64, value: Option<f64>) -> Ended {
    let steps = cell.config.train.steps;
    let score = |value| Scored { value, ci95: [value; 2], loss: 1.0, count: 9 };
    let outcome = match value {
        None => Outcome::Failed { exit: Some(3), message: "not finite".to_owned() },
        Some(value) => Outcome::Finished(Box::new(Measured {
            steps,
            stopped: "steps".to_owned(),
            seconds: pace * steps as f64,
            seconds_per_step: pace,
            forwards: 4 * steps,
            tokens: 0,
            nonfinite: 0,
            peak_rss_bytes: 1,
            metric: "accuracy".to_owned(),
            split: "valid".to_owned(),
            base: score(0.5),
            best: score(value),
            last: score(value),
            best_step: steps,
            weights_sha256: String::new(),
            curve: vec![Point { step: steps, seconds: 1.0, forwards: 1, value, loss: 1.0 }],
        })),
    };
    let seconds = 2.0 * cell.budget.map_or(0, Budget::amount) as f64;
    Ended::of(cell, &toml::Table::new(), outcome, seconds)
}

/// All cells of a comparison in their order, where `outcome` says what each comes to.
fn all(file: &RunFile, outcome: impl Fn(&Cell) -> (f64, Option<f64>)) -> (Vec<Cell>, Ledger) {
    let methods = file.methods().expect("sound");
    let (mut cells, mut ledger) = (Vec::new(), Ledger::default());
    loop {
        let plan = Plan { config: &file.compare, methods: &methods, ledger: &ledger };
        let outlook = plan.outlook().expect("one comparison");
        let Some(cell) = plan.next().expect("one comparison") else {
            assert_eq!((outlook.done, outlook.seconds_left), (outlook.of, Some(0.0)));
            return (cells, ledger);
        };
        assert_eq!(outlook.done, cells.len());
        let (pace, value) = outcome(&cell);
        ledger.add(ended(&cell, pace, value));
        cells.push(cell);
    }
}

fn names(cells: &[Cell]) -> Vec<String> {
    cells.iter().map(Cell::name).collect()
}

/// Candidate 3 is the best of `mezo`, candidate 1 of `lozo`.
fn by_candidate(cell: &Cell) -> (f64, Option<f64>) {
    let best = if cell.method == "mezo" { 2 } else { 0 };
    (0.5, Some(0.9 - 0.1 * cell.candidate.0.abs_diff(best) as f64))
}

#[test]
fn rehearsals_come_first_then_rungs_then_seeds_of_what_they_chose() {
    let (cells, _) = all(&file(&[]), by_candidate);
    assert_eq!(
        names(&cells),
        [
            "mezo/rehearsal-candidate-1",
            "lozo/rehearsal-candidate-1",
            "adamw/rehearsal",
            "mezo/rung-1-candidate-1",
            "mezo/rung-1-candidate-2",
            "mezo/rung-1-candidate-3",
            "mezo/rung-1-candidate-4",
            "lozo/rung-1-candidate-1",
            "lozo/rung-1-candidate-2",
            "lozo/rung-1-candidate-3",
            "lozo/rung-1-candidate-4",
            "mezo/rung-2-candidate-3",
            "mezo/rung-2-candidate-2",
            "lozo/rung-2-candidate-1",
            "lozo/rung-2-candidate-2",
            "mezo/seed-1-candidate-3",
            "lozo/seed-1-candidate-1",
            "adamw/seed-1",
            "mezo/seed-2-candidate-3",
            "lozo/seed-2-candidate-1",
            "adamw/seed-2",
        ]
    );
}

#[test]
fn what_chooses_sees_neither_the_seeds_nor_the_data_of_what_counts() {
    let file = file(&[]);
    for cell in all(&file, by_candidate).0 {
        let counts = matches!(cell.stage, Stage::Seed(_));
        assert_eq!(cell.config.seed == file.config.seed, !counts, "{}", cell.name());
        assert_eq!(cell.config.data.valid.is_some(), counts, "{}", cell.name());
        assert_eq!(cell.config.train.patience, 0);
        assert_eq!(cell.config.output, Path::new("/out/cells").join(cell.name()));
    }
}

#[test]
fn a_budget_is_as_many_steps_as_the_stage_before_says() {
    // Rehearsals misjudge by a factor of two.
    let pace = |cell: &Cell| match cell.stage {
        Stage::Rehearsal => (1.0, Some(0.5)),
        _ => (0.5, by_candidate(cell).1),
    };
    let (cells, _) = all(&file(&[]), pace);
    for Cell { stage, method, config, .. } in &cells {
        let (steps, seconds, every) = match (stage, &**method) {
            (Stage::Rehearsal, _) => (8, None, 8),
            (Stage::Rung(1), _) => (40, Some(44), 40),
            (Stage::Rung(_), _) => (240, Some(132), 240),
            (Stage::Seed(_), "adamw") => (300, Some(330), 38),
            (Stage::Seed(_), _) => (600, Some(330), 75),
        };
        let train = config.train;
        assert_eq!((train.steps, train.seconds, train.eval_every), (steps, seconds, every), "{method} {stage}");
    }
    let forwards = file(&["compare.budget=1500-forwards"]);
    for Cell { stage, config, .. } in all(&forwards, pace).0 {
        let steps = match stage {
            Stage::Rehearsal => 8,
            Stage::Rung(1) => 50,
            Stage::Rung(_) => 150,
            Stage::Seed(_) => 375,
        };
        assert_eq!((config.train.steps, config.train.seconds), (steps, None), "{stage}: four passes a step");
    }
    assert_eq!(Pace { seconds: 0.0, forwards: 0.0 }.steps(Budget::Seconds(1)), MOST_STEPS);
    assert_eq!(Pace { seconds: 9.0, forwards: 4.0 }.steps(Budget::Seconds(1)), 1);
}

#[test]
fn a_method_that_cannot_be_trained_drops_out_and_the_others_go_on() {
    let (cells, ledger) = all(&file(&[]), |cell| match (&*cell.method, cell.stage) {
        ("adamw", Stage::Rehearsal) | ("lozo", Stage::Rung(1)) => (0.5, None),
        _ => by_candidate(cell),
    });
    let names = names(&cells);
    assert!(names.contains(&"mezo/seed-2-candidate-3".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("adamw/seed") || name.starts_with("lozo/rung-2")), "{names:?}");
    let file = file(&[]);
    let methods = file.methods().expect("sound");
    let plan = Plan { config: &file.compare, methods: &methods, ledger: &ledger };
    let out: Vec<bool> = methods.iter().map(|method| plan.is_out(method).expect("one comparison")).collect();
    assert_eq!(out, [false, true, true]);
    assert!(plan.runs(&methods[1]).expect("one comparison").is_empty());
}

#[test]
fn methods_and_seeds_can_be_added_and_nothing_is_done_twice() {
    let begun = all(&file(&["compare.optimizers=[\"mezo\"]", "compare.seeds=1"]), by_candidate);
    let whole = file(&[]);
    let methods = whole.methods().expect("sound");
    let mut ledger = begun.1;
    let mut more = Vec::new();
    while let Some(cell) =
        (Plan { config: &whole.compare, methods: &methods, ledger: &ledger }).next().expect("the same cells")
    {
        more.push(cell.name());
        ledger.add(ended(&cell, 0.5, by_candidate(&cell).1));
    }
    let done = names(&begun.0);
    assert!(more.iter().all(|name| !done.contains(name)) && more.contains(&"mezo/seed-2-candidate-3".to_owned()));
    assert_eq!(more.len() + done.len(), 21);
}

#[test]
fn a_cell_that_was_another_run_is_named_with_what_differs() {
    let (_, ledger) = all(&file(&[]), by_candidate);
    for (set, expected) in [
        ("compare.budget=600s", "the budget of mezo/rung-1-candidate-1 was 40s, is 80s"),
        ("train.batch_size=4", "of mezo/rehearsal-candidate-1, train.batch_size was 16, is 4"),
        ("compare.grid={lr=[0.1, 0.2, 0.3, 0.7]}", "of mezo/rung-1-candidate-4, optimizer.lr was 0.4, is 0.7"),
    ] {
        let file = file(&[set]);
        let methods = file.methods().expect("sound");
        let error = Plan { config: &file.compare, methods: &methods, ledger: &ledger }.next().expect_err("another");
        assert!(error.to_string().contains(expected), "{set}: {error}");
    }
}
