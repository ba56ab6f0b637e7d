use std::fs;

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::train::Origin;

/// The run file of the documentation.
const FULL: &str = r#"
model = "smollm2-135m"            # Hugging Face directory
output = "runs/sst2-mezo"
seed = 1
profile = "strict-f32"
precision = "f32"
[data]
task = "sst2"
train = "sst2/train.jsonl"
valid = "sst2/valid.jsonl"
num_train = 1000
num_dev = 500
[tune]
scope = "full"
[optimizer]
name = "mezo"
lr = 1e-6
epsilon = 1e-3
[train]
objective = "loss"
steps = 1000
batch_size = 16
eval_every = 100
patience = 8
activation_mb = 96
"#;

/// The shortest run file.
const SHORT: &str = "model = \"m\"\n[data]\ntask = \"sst2\"\ntrain = \"t.jsonl\"\n";

fn parse(text: &str, sets: &[&str]) -> Result<RunFile, TrainError> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    RunFile::parse(text, Path::new("run.toml"), Path::new("/base"), &sets)
}

fn config(text: &str, sets: &[&str]) -> RunConfig {
    parse(text, sets).unwrap_or_else(|error| panic!("{error}")).config
}

fn message(text: &str, sets: &[&str]) -> String {
    match parse(text, sets) {
        Err(error) => error.to_string(),
        Ok(file) => panic!("accepted: {file:?}"),
    }
}

#[test]
fn the_documented_run_file_says_what_it_says() {
    let expected = RunConfig {
        model: "/base/smollm2-135m".into(),
        output: "/base/runs/sst2-mezo".into(),
        seed: 1,
        profile: Profile::StrictF32,
        precision: Precision::F32,
        data: DataConfig {
            task: "sst2".to_owned(),
            template: None,
            train: "/base/sst2/train.jsonl".into(),
            valid: Some("/base/sst2/valid.jsonl".into()),
            num_train: Some(1000),
            num_dev: Some(500),
        },
        tune: TuneConfig::Full,
        optimizer: OptimizerConfig {
            name: "mezo".to_owned(),
            options: [("lr".to_owned(), Value::Float(1e-6)), ("epsilon".to_owned(), Value::Float(1e-3))]
                .into_iter()
                .collect(),
        },
        train: LoopConfig {
            objective: Criterion::Loss,
            steps: 1000,
            seconds: None,
            batch_size: 16,
            eval_every: 100,
            patience: 8,
            activation_mb: 96,
        },
    };
    assert_eq!(config(FULL, &[]), expected);
}

#[test]
fn everything_but_model_task_and_training_data_has_a_default() {
    let mut expected = config(FULL, &["model=m", "data.train=t.jsonl"]);
    expected.data = DataConfig { valid: None, num_train: None, num_dev: None, ..expected.data };
    expected.optimizer.options = toml::Table::new();
    assert_eq!(config(SHORT, &[]), expected);
    for (line, key) in
        [("model = \"m\"\n", "model"), ("task = \"sst2\"\n", "data.task"), ("train = \"t.jsonl\"\n", "data.train")]
    {
        let missing = message(&SHORT.replace(line, ""), &[]);
        assert!(missing.starts_with(&format!("run.toml does not say {key}; add ")), "{missing}");
    }
    assert_eq!(config(SHORT, &["optimizer.name=fzoo"]).output, Path::new("/base/runs/sst2-fzoo"));
}

#[test]
fn the_resolved_run_file_is_written_in_the_order_of_the_documentation_with_whole_paths() {
    let expected = r#"model = "/base/m"
output = "/base/runs/sst2-mezo"
seed = 1
profile = "strict-f32"
precision = "f32"

[data]
task = "sst2"
train = "/base/t.jsonl"

[tune]
scope = "full"

[optimizer]
name = "mezo"

[train]
objective = "loss"
steps = 1000
batch_size = 16
eval_every = 100
patience = 8
activation_mb = 96
"#;
    assert_eq!(config(SHORT, &[]).to_toml(), expected);
}

#[test]
fn unknown_keys_are_refused_with_the_place_and_the_nearest_name() {
    let with = |more: &str| format!("{SHORT}{more}");
    for (text, expected) in [
        (with("[train]\nstpes = 3\n"), "run.toml:6:1: unknown key train.stpes; did you mean train.steps?"),
        (with("tasks = 3\n"), "run.toml:5:1: unknown key data.tasks; did you mean data.task?"),
        (with("[trian]\nsteps = 3\n"), "run.toml:5:2: unknown key trian; did you mean [train]?"),
        (with("[train]\nseed = 3\n"), "run.toml:6:1: unknown key train.seed; did you mean seed?"),
        (format!("  \"stéps\" = 3 # é\n{SHORT}"), "run.toml:1:3: unknown key stéps; did you mean seed?"),
        (format!("steps = 3\nmodle = 1\n{SHORT}"), "run.toml:1:1: unknown key steps; did you mean train.steps?"),
        (format!("\"a\\nb\" = 3\n{SHORT}"), "run.toml:1:1: unknown key \"a\\nb\"; did you mean seed?"),
        // Not the key of a section, but a name with a dot.
        (format!("\"data.task\" = 3\n{SHORT}"), "run.toml:1:1: unknown key \"data.task\"; did you mean data.task?"),
    ] {
        assert_eq!(message(&text, &[]), expected, "{text}");
    }
    assert_eq!(
        message(SHORT, &["train.step=3"]),
        "--set train.step=3: unknown key train.step; did you mean train.steps?"
    );
}

#[test]
fn values_of_another_type_or_out_of_range_are_refused_with_the_place() {
    for (set, expected) in [
        ("train.objective=accurate", "train.objective is \"accurate\", expected \"loss\" or \"accuracy\" or \"f1\""),
        ("train.steps=0", "train.steps is 0, expected an integer from 1 to 1000000000000"),
        ("train.batch_size=65537", "train.batch_size is 65537, expected an integer from 1 to 65536"),
        ("train.eval_every=1.5", "train.eval_every is 1.5, expected an integer from 1 to 1000000000000"),
        ("train.patience=-1", "train.patience is -1, expected an integer from 0 to 1000000000000"),
        ("seed=true", "seed is true, expected an integer from 0 to 9223372036854775807"),
        ("profile=strict-f16", "profile is \"strict-f16\", expected \"strict-f32\" or \"strict-bf16\""),
        ("precision=32", "precision is 32, expected \"f32\" or \"bf16+16\" or \"native\""),
        ("model=[1]", "model is a list, expected a path"),
        ("model=\"\"", "model is \"\", expected a path"),
        ("model.name=1", "model is a section, expected a path"),
        ("data=3", "data is 3, expected a section of keys"),
        ("data.task=../x", "data.task is \"../x\", expected a name of letters, digits, `_` and `-`"),
        ("optimizer.name=2020-01-01", "optimizer.name is a date, expected a name of letters, digits, `_` and `-`"),
        (
            "tune.scope=some",
            "tune.scope is \"some\", expected \"full\" or \"lora\" or \"tensor-train\" or \"layers\" or \"names\"",
        ),
    ] {
        assert_eq!(message(SHORT, &[set]), format!("--set {}: {expected}", set.escape_debug()), "{set}");
    }
    let nested = |depth: usize| format!("optimizer.x={}1{}", "{a=[".repeat(depth / 2), "]}".repeat(depth / 2));
    assert!(parse(SHORT, &[&nested(8)]).is_ok());
    let found = message(SHORT, &[&nested(10)]);
    assert!(found.ends_with("optimizer.x is nested deeper, expected at most 8 lists and sections within each other"));
    let long = message(&SHORT.replace("\"sst2\"", &format!("\"{}\"", "é".repeat(99))), &[]);
    let expected =
        format!("run.toml:3:1: data.task is \"{}…, expected a name of letters, digits, `_` and `-`", "é".repeat(59));
    assert_eq!(long, expected);
}

#[test]
fn keys_that_mean_nothing_beside_another_value_are_refused() {
    assert_eq!(
        message(SHORT, &["tune.rank=4"]),
        "--set tune.rank=4: tune.rank means something only where tune.scope is \"lora\" or \"tensor-train\"; remove it, \
         or change that"
    );
    let of_another = message(SHORT, &["tune.scope=lora", "tune.width=8"]);
    assert!(
        of_another.contains("tune.width means something only where tune.scope is \"tensor-train\";"),
        "{of_another}"
    );
    assert_eq!(
        message(&format!("{SHORT}template = \"x.toml\"\n"), &[]),
        "run.toml:5:1: data.template means something only where data.task is \"custom\"; remove it, or change that"
    );
    for (sets, key) in [
        (["data.task=custom"], "data.template"),
        (["tune.scope=layers"], "tune.layers"),
        (["tune.scope=names"], "tune.names"),
    ] {
        assert!(message(SHORT, &sets).starts_with(&format!("run.toml does not say {key}; add")), "{sets:?}");
    }
}

#[test]
fn an_optimizer_says_what_it_tunes_unless_the_run_does() {
    let tune = |sets: &[&str]| config(SHORT, sets).tune;
    let trains = |rank| TuneConfig::TensorTrain { rank, width: 64, targets: None };
    assert_eq!(tune(&["optimizer.name=mezo"]), TuneConfig::Full);
    assert_eq!(tune(&["optimizer.name=adazeta"]), trains(5));
    assert_eq!(tune(&["optimizer.name=adazeta", "tune.rank=2"]), trains(2));
    assert_eq!(tune(&["optimizer.name=adalezo", "optimizer.inner=adazeta"]), trains(5));
    assert_eq!(tune(&["optimizer.name=adazeta", "tune.scope=full"]), TuneConfig::Full);
    // What cannot be is refused where the optimizer is made.
    assert_eq!(tune(&["optimizer.name=adazeta", "optimizer.lr=-1"]), TuneConfig::Full);
    assert_eq!(tune(&["optimizer.name=none"]), TuneConfig::Full);
}

#[test]
fn scopes_take_their_own_keys() {
    let lora = TuneConfig::Lora { rank: 8, alpha: 16.0, targets: None };
    assert_eq!(config(SHORT, &["tune.scope=lora"]).tune, lora);
    let lora = TuneConfig::Lora { rank: 4, alpha: 8.0, targets: Some(vec!["q_proj".to_owned()]) };
    assert_eq!(config(SHORT, &["tune={scope=\"lora\", rank=4, alpha=8, targets=[\"q_proj\"]}"]).tune, lora);
    let trains = TuneConfig::TensorTrain { rank: 5, width: 64, targets: None };
    assert_eq!(config(SHORT, &["tune.scope=tensor-train"]).tune, trains);
    let trains = TuneConfig::TensorTrain { rank: 2, width: 8, targets: Some(vec!["down_proj".to_owned()]) };
    let set = "tune={scope=\"tensor-train\", rank=2, width=8, targets=[\"down_proj\"]}";
    assert_eq!(config(SHORT, &[set]).tune, trains);
    let layers = config(SHORT, &["tune.scope=layers", "tune.layers=[0, 3]"]).tune;
    assert_eq!(layers, TuneConfig::Layers { layers: vec![0, 3] });
    let names = config(SHORT, &["tune.scope=names", "tune.names=[\"lm_head\"]"]).tune;
    assert_eq!(names, TuneConfig::Names { names: vec!["lm_head".to_owned()] });
    for bad in ["tune.layers=[]", "tune.layers=[-1]", "tune.layers=3", "tune.layers=[1, \"2\"]"] {
        assert!(message(SHORT, &["tune.scope=layers", bad]).contains("a list of block numbers, at least one"), "{bad}");
    }
    for bad in ["0", "inf", "nan", "-1.5"] {
        let message = message(SHORT, &["tune.scope=lora", &format!("tune.alpha={bad}")]);
        assert!(message.contains("expected a number above 0"), "{message}");
    }
}

#[test]
fn overrides_take_bare_words_and_the_last_one_counts() {
    let config = config(
        FULL,
        &["train.steps=5", " train . steps = 7 ", "model=/elsewhere/a-b_c.d", "precision=bf16+16", "optimizer.lr=3e-5"],
    );
    assert_eq!((config.train.steps, config.precision), (7, Precision::Split));
    assert_eq!(config.model, Path::new("/elsewhere/a-b_c.d"));
    assert_eq!(config.optimizer.options["lr"], Value::Float(3e-5));
    assert_eq!(config.optimizer.options["epsilon"], Value::Float(1e-3));
    for bad in ["train.steps", ""] {
        assert_eq!(
            message(FULL, &[bad]),
            format!("--set {bad} sets nothing; write key=value, for example train.steps=100")
        );
    }
    for bad in ["=3", "train.=3", "train.steps=", "train.steps=a b", "train.steps=\"", "a b=c"] {
        assert!(matches!(parse(FULL, &[bad]), Err(TrainError::Syntax { .. })), "{bad}");
    }
}

#[test]
fn what_is_no_toml_is_refused_with_the_place() {
    let place = |text: &str| match parse(text, &[]) {
        Err(TrainError::Syntax { place, .. }) => (place.line, place.column),
        other => panic!("{other:?}"),
    };
    assert_eq!(place("model = \"m\"\nseed = = 1\n"), (2, 8));
    assert_eq!(place("model = \"m\"\nseed = 99999999999999999999\n").0, 2);
    assert_eq!(place("seed = 1\nseed = 2\n"), (2, 1));
    // Deep nesting ends in an error, not in the end of the stack.
    assert_eq!(place(&format!("seed = {}", "[".repeat(100_000))).0, 1);
    assert_eq!(place(&format!("seed = {}", "{a=".repeat(100_000))).0, 1);
    assert_eq!(place(&format!("{} = 1", ["a"; 1000].join("."))).0, 1);
}

#[test]
fn every_key_has_its_place() {
    let file = parse(FULL, &["optimizer.epsilon=1"]).expect("sound");
    let lr = file.place("optimizer.lr").expect("given");
    assert_eq!((lr.line, lr.column, &FULL[lr.span.clone()]), (17, 1, "lr"));
    assert_eq!(lr.to_string(), "run.toml:17:1");
    let epsilon = file.place("optimizer.epsilon").expect("given");
    assert_eq!(epsilon.origin, Origin::Set("optimizer.epsilon=1".to_owned()));
    assert_eq!(file.place("model").map(|place| place.line), Some(2));
    assert_eq!(file.place("data.template"), None);
}

#[test]
fn a_file_is_read_relative_to_its_own_directory_and_up_to_a_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run.toml");
    let read = || RunFile::read(&path, &[]);
    assert!(matches!(read(), Err(TrainError::Read { .. })));
    fs::write(&path, SHORT).expect("written");
    assert_eq!(read().expect("sound").config.model, dir.path().join("m"));
    fs::write(&path, format!("{SHORT}#{}", "x".repeat(MAX_RUN_FILE_BYTES))).expect("written");
    assert!(matches!(read(), Err(TrainError::TooLong { .. })));
    fs::write(&path, b"model = \"\xff\"").expect("written");
    assert!(matches!(read(), Err(TrainError::NotText { valid: 9, .. })));
    let value = format!("optimizer.x=\"{}\"", "x".repeat(MAX_RUN_FILE_BYTES));
    assert!(matches!(parse(SHORT, &[&value]), Err(TrainError::TooLong { .. })));
}

#[test]
fn the_digest_is_that_of_what_is_computed() {
    let digest = |sets: &[&str]| config(FULL, sets).digest();
    for same in [
        "model=x",
        "output=x",
        "data.train=x",
        "data.valid=x",
        "train.activation_mb=9",
        "train.steps=1000",
        "optimizer.lr=0.000001",
    ] {
        assert_eq!(digest(&[same]), digest(&[]), "{same}");
    }
    let changes = [
        "seed=2",
        "profile=strict-bf16",
        "precision=native",
        "data.task=rte",
        "data.num_dev=9",
        "tune.scope=lora",
        "tune.scope=tensor-train",
        "optimizer.name=fzoo",
        "optimizer.lr=1e-5",
        "optimizer.more=[1]",
        "optimizer.more=[[1]]",
        "optimizer.more=\"1\"",
        "optimizer.more={a=1}",
        "optimizer.more=true",
        "optimizer.more=1",
        "optimizer.more=1.0",
        "optimizer.more=1979-05-27",
        "train.objective=accuracy",
        "train.objective=f1",
        "train.steps=9",
        "train.seconds=9",
        "train.batch_size=9",
        "train.eval_every=9",
        "train.patience=9",
    ];
    let mut digests: Vec<_> = changes.iter().map(|change| digest(&[change])).chain([digest(&[])]).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), changes.len() + 1);
    // Journals carry digests, so their input is a format; the value is that of a few lines of Python.
    let hex: String = config(SHORT, &[]).digest()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "d7b033f20d02293c");
}

fn arbitrary_path() -> impl Strategy<Value = PathBuf> {
    "[ -~é\\n]{1,12}".prop_map(|name| Path::new("/").join(name))
}

fn arbitrary_option() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_filter("NaN is not equal to itself", |float| !float.is_nan()).prop_map(Value::Float),
        any::<bool>().prop_map(Value::Boolean),
        any::<String>().prop_map(Value::String),
        Just(Value::Datetime("1979-05-27T07:32:00.5Z".parse().expect("a date"))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((any::<String>(), inner), 0..4).prop_map(|entries| Value::Table(entries.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn arbitrary_data()(
        task in "[a-z0-9_]{1,9}", custom: bool, template in arbitrary_path(), train in arbitrary_path(),
        valid in option::of(arbitrary_path()), num_train in option::of(1..=MOST), num_dev in option::of(1..=MOST),
    ) -> DataConfig {
        let task = if custom { "custom".to_owned() } else { task };
        DataConfig { template: (task == "custom").then_some(template), task, train, valid, num_train, num_dev }
    }
}

fn arbitrary_tune() -> impl Strategy<Value = TuneConfig> {
    let names = || vec("\\PC{1,9}", 1..4);
    let lora = (1_u64..=65_536, 1e-3..1e3_f64, option::of(names()));
    prop_oneof![
        Just(TuneConfig::Full),
        lora.prop_map(|(rank, alpha, targets)| TuneConfig::Lora { rank, alpha, targets }),
        (1_u64..=65_536, 1_u64..=65_536, option::of(names()))
            .prop_map(|(rank, width, targets)| TuneConfig::TensorTrain { rank, width, targets }),
        vec(0..=i64::MAX as u64, 1..4).prop_map(|layers| TuneConfig::Layers { layers }),
        names().prop_map(|names| TuneConfig::Names { names }),
    ]
}

prop_compose! {
    fn arbitrary_config()(
        (model, output) in (arbitrary_path(), arbitrary_path()),
        (seed, bf16, precision) in (0..=i64::MAX as u64, any::<bool>(), 0_usize..3),
        data in arbitrary_data(), tune in arbitrary_tune(),
        name in "[a-z-]{1,9}", mut options in vec((any::<String>(), arbitrary_option()), 0..4),
        objective in prop::sample::select(Criterion::ALL.to_vec()),
        (steps, seconds, batch_size, eval_every, patience, activation_mb) in
            (1..=MOST, option::of(1..=MOST), 1..=MOST_IN_BATCH, 1..=MOST, 0..=MOST, 1..=MOST_ACTIVATION_MB),
    ) -> RunConfig {
        options.retain(|(key, _)| key != "name");
        RunConfig {
            model, output, seed, data, tune,
            profile: if bf16 { Profile::StrictBf16 } else { Profile::StrictF32 },
            precision: [Precision::F32, Precision::Split, Precision::Native][precision],
            optimizer: OptimizerConfig { name, options: options.into_iter().collect() },
            train: LoopConfig { objective, steps, seconds, batch_size, eval_every, patience, activation_mb },
        }
    }
}

proptest! {
    #[test]
    fn a_written_configuration_reads_back_equal_wherever_it_stands(config in arbitrary_config()) {
        let text = config.to_toml();
        let read = RunFile::parse(&text, Path::new("config.toml"), Path::new("/elsewhere"), &[]);
        let read = read.unwrap_or_else(|error| panic!("{error}\n{text}")).config;
        prop_assert_eq!(read.digest(), config.digest());
        prop_assert_eq!(read, config);
    }

    #[test]
    fn any_text_is_refused_or_read(
        text: String,
        edit in "\\PC{0,20}",
        at: prop::sample::Index,
        sets in vec("\\PC{0,20}", 0..3),
    ) {
        let _ = RunFile::parse(&text, Path::new("r"), Path::new("/"), &sets);
        let mut edited = FULL.to_owned();
        edited.insert_str(at.index(FULL.len()), &edit);
        if let Ok(file) = RunFile::parse(&edited, Path::new("r"), Path::new("/"), &[]) {
            let again = RunFile::parse(&file.config.to_toml(), Path::new("r"), Path::new("/"), &[]).expect("resolved");
            prop_assert_eq!(again.config.digest(), file.config.digest());
        }
    }
}
