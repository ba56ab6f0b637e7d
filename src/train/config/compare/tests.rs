use super::*;
use crate::train::{RunFile, TuneConfig};

/// A run file of `MeZO` with a comparison.
const FILE: &str = r#"
model = "m"
[data]
task = "sst2"
train = "t.jsonl"
[optimizer]
name = "mezo"
lr = 1e-6
epsilon = 1e-2
lr_schedule = "linear"
[tune]
scope = "layers"
layers = [0]
[compare]
optimizers = ["mezo", "lozo", "lora-adamw"]
budget = "5m"
[compare.methods.lora-adamw]
precision = "native"
grid = { lr = [1e-4, 3e-4], weight_decay = [0.0, 0.1] }
optimizer = { name = "adamw" }
tune = { scope = "lora", rank = 4 }
train = { batch_size = 8 }
"#;

fn read(text: &str, sets: &[&str]) -> Result<RunFile, TrainError> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    RunFile::parse(text, Path::new("run.toml"), Path::new("/base"), &sets)
}

fn methods(sets: &[&str]) -> Vec<Method> {
    read(FILE, sets).and_then(|file| file.methods()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(sets: &[&str]) -> String {
    match read(FILE, sets).and_then(|file| file.methods()) {
        Err(error) => error.to_string(),
        Ok(methods) => panic!("accepted: {methods:?}"),
    }
}

fn rates(method: &Method) -> Vec<f64> {
    method.candidates.iter().map(|candidate| candidate["lr"].as_float().expect("a rate")).collect()
}

#[test]
fn a_method_is_the_run_file_with_what_it_says_otherwise() {
    let [mezo, lozo, adamw] = &methods(&[])[..] else { panic!("three methods") };
    let run = read(FILE, &[]).expect("sound").config;
    assert_eq!(mezo.config, run, "the run file's own optimizer");
    assert_eq!((&*lozo.label, &*lozo.config.optimizer.name), ("lozo", "lozo"));
    let kept: Vec<_> = lozo.config.optimizer.options.keys().map(String::as_str).collect();
    assert_eq!(kept, ["lr_schedule"], "the course of the rate is the job's, all else another optimizer's");
    assert_eq!(lozo.config.tune, run.tune);
    assert_eq!((&*adamw.label, &*adamw.config.optimizer.name), ("lora-adamw", "adamw"));
    assert_eq!(adamw.config.tune, TuneConfig::Lora { rank: 4, alpha: 16.0, targets: None });
    assert_eq!((adamw.config.train.batch_size, mezo.config.train.batch_size), (8, 16));
    assert_eq!(adamw.config.precision, crate::weights::Precision::Native);
    for method in [mezo, lozo, adamw] {
        assert_eq!((&method.config.data, &method.config.model), (&run.data, &run.model), "one job");
    }
}

#[test]
fn candidates_are_the_points_of_the_grid_that_is_nearest_to_the_method() {
    let [mezo, lozo, adamw] = &methods(&[])[..] else { panic!("three methods") };
    assert_eq!(rates(mezo), [3e-7, 1e-6, 3e-6, 1e-5], "around the rate of the run file");
    let default = optim::find("lozo").expect("known").options().find(|spec| spec.name == "lr").expect("a rate");
    let default: f64 = (default.default)().parse().expect("a number");
    let ratios: Vec<f64> = rates(lozo).iter().map(|rate| rate / default).collect();
    // A rate is kept to three digits.
    assert!(ratios.iter().zip(RATES).all(|(found, ratio)| (found / ratio - 1.0).abs() <= 5e-3), "{ratios:?}");
    let wrapper = &methods(&["compare.optimizers=[\"adalezo\"]"])[0];
    assert_eq!(rates(wrapper), [3e-7, 1e-6, 3e-6, 1e-5], "those of the method that it wraps by default");
    let points: Vec<String> = adamw.candidates.iter().map(ToString::to_string).collect();
    assert_eq!(points.len(), 4);
    for (lr, decay) in [(1e-4, 0.0), (1e-4, 0.1), (3e-4, 0.0), (3e-4, 0.1)] {
        let point = adamw
            .candidates
            .iter()
            .find(|point| (point["lr"].as_float(), point["weight_decay"].as_float()) == (Some(lr), Some(decay)));
        assert!(point.is_some(), "{lr}, {decay} in {points:?}");
    }
    let [mezo, _, adamw] = &methods(&["compare.grid={lr=[1.0, 2.0], epsilon=[1e-3]}"])[..] else { panic!("three") };
    assert_eq!(rates(mezo), [1.0, 2.0]);
    assert!(mezo.candidates.iter().all(|candidate| candidate["epsilon"].as_float() == Some(1e-3)));
    assert_eq!(adamw.candidates.len(), 4, "a method's own grid counts");
}

#[test]
fn budgets_have_rungs_of_40_seconds_and_2_minutes_of_every_5() {
    let compare = |sets: &[&str]| read(FILE, sets).expect("sound").compare;
    let found = compare(&[]);
    assert_eq!((found.budget, &*found.rungs), (BUDGET, &[Budget::Seconds(40), Budget::Seconds(120)][..]));
    assert_eq!((found.seeds, found.output), (2, "/base/runs/sst2-compare".into()));
    let forwards = compare(&["compare.budget=1500-forwards"]);
    assert_eq!(forwards.rungs, [Budget::Forwards(200), Budget::Forwards(600)]);
    assert_eq!(compare(&["compare.rungs=[\"1s\"]"]).rungs, [Budget::Seconds(1)]);
    let kinds = refused(&["compare.rungs=[\"9-forwards\"]"]);
    assert!(kinds.contains("a list of budgets of the kind of compare.budget, \"5m\""), "{kinds}");
}

#[test]
fn a_comparison_is_no_part_of_the_run() {
    let alone = FILE.split("[compare]").next().expect("the job");
    let (with, without) = (read(FILE, &[]).expect("sound"), read(alone, &[]).expect("sound"));
    assert_eq!((with.config.to_toml(), with.config.digest()), (without.config.to_toml(), without.config.digest()));
    assert!(without.methods().is_err_and(|error| error.to_string().contains("does not say compare.optimizers")));
    let labels = FILE.replace("optimizers = [\"mezo\", \"lozo\", \"lora-adamw\"]\n", "");
    let all = read(&labels, &[]).and_then(|file| file.methods()).expect("sound");
    assert_eq!(all.iter().map(|method| &*method.label).collect::<Vec<_>>(), ["lora-adamw"], "those that are described");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (text, found) in [
        ("compare.budgte=1", "unknown key compare.budgte; did you mean compare.budget?"),
        ("compare.budget=5 minutes", "expected"),
        ("compare.budget=\"5 minutes\"", "compare.budget is \"5 minutes\", expected a time"),
        ("compare.optimizers=[\"../x\"]", "compare.optimizers is a list, expected a list of names"),
        ("compare.optimizers=[\"mezzo\"]", "there is no optimizer \"mezzo\"; the nearest name is \"mezo\""),
        ("compare.methods.lozo.data={task=\"rte\"}", "unknown key data"),
        ("compare.methods.lozo.train.steps=3", "unknown key train.steps"),
        ("compare.methods.lozo.optimizer.rnak=3", "has no option \"rnak\""),
        ("compare.methods.lozo.grid.rank=[2, 0]", "option rank of lozo is 0"),
        ("compare.grid={lr=[1.0, -1.0]}", "option lr of mezo is -1.0"),
        ("compare.methods.lozo=3", "compare.methods.lozo is 3, expected a section of keys"),
        ("compare.methods=3", "compare.methods is 3, expected a section for each method"),
        ("compare.methods.\"a/b\".tune.scope=\"full\"", "compare.methods is a section named \"a/b\""),
        ("compare.methods.lozo.grid.lr=3", "grid.lr is 3, expected a list of values"),
        ("compare.grid.lr=[]", "compare.grid is a section, expected a list of values for each option"),
    ] {
        let message = refused(&[text]);
        assert!(message.starts_with("--set ") && message.contains(found), "{text}: {message}");
    }
    let misspelt = FILE.replace("rank = 4", "rnak = 4");
    let message = read(&misspelt, &[]).map(|_| ()).expect_err("no such key").to_string();
    assert_eq!(message, "run.toml:21:26: unknown key tune.rnak; did you mean tune.rank?");
}
