//! The run file: everything that decides what a run does, with its defaults, ranges and overrides.
//!
//! *What it is.* [`RunFile`] reads TOML into a [`RunConfig`], every value checked, every relative path made one of the
//! file's directory; [`RunConfig::to_toml`] writes the resolved one, which reads back equal, and [`RunConfig::digest`]
//! identifies what it computes.
//!
//! *What it is not.* It opens no model and no data, and does not know the optimizers' options: those stay a table, and
//! [`RunFile::place`] says where each stands.
//!
//! *What must stay true.* A key that is not understood is refused, never ignored.

mod budget;
mod compare;
mod document;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf, absolute},
};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use toml::Value;

pub use self::{
    budget::Budget,
    compare::{CompareConfig, Method},
};

use self::document::{Document, Keys, Section, TOP};
use super::{Place, TrainError};
use crate::{
    journal::{MAX_CONFIG_BYTES, Sha256Digest},
    kernels::Profile,
    objective::Criterion,
    optim::{self, Tunes},
    weights::Precision,
};

/// The longest run file that is read, and the longest resolved one: a journal carries it.
pub const MAX_RUN_FILE_BYTES: usize = MAX_CONFIG_BYTES;

const SECTIONS: &[Section] = &[
    (TOP, &["model", "output", "seed", "profile", "precision"], Keys::Closed),
    ("data", &["task", "template", "train", "valid", "num_train", "num_dev"], Keys::Closed),
    ("tune", TUNE_KEYS, Keys::Closed),
    ("optimizer", &["name"], Keys::Open),
    (
        "train",
        &["objective", "steps", "seconds", "batch_size", "eval_every", "patience", "activation_mb"],
        Keys::Closed,
    ),
    (compare::NAME, compare::KEYS, Keys::Closed),
];
const TUNE_KEYS: &[&str] = &["scope", "rank", "alpha", "width", "targets", "layers", "names"];

/// The optimizer of a run file that names none.
const OPTIMIZER: &str = "mezo";

/// Keys that change no bit of a run: where its files lie, which have digests of their own, and how its batches are cut.
pub(super) const CHANGE_NO_BIT: [&str; 6] =
    ["model", "output", "data.train", "data.valid", "data.template", "train.activation_mb"];

/// The most steps of a run, and of examples in a data set: far beyond either, and no sum of them overflows.
const MOST: u64 = 1_000_000_000_000;
/// The most examples of a batch.
const MOST_IN_BATCH: u64 = 65_536;
/// A TB of activations: no machine has it, and its bytes are a number.
const MOST_ACTIVATION_MB: u64 = 1 << 20;

/// What a run is to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunConfig {
    /// The model's directory.
    pub model: PathBuf,
    /// The run directory.
    pub output: PathBuf,
    /// The seed of everything random.
    pub seed: u64,
    /// The numeric profile of linear layers.
    #[serde(serialize_with = "as_word")]
    pub profile: Profile,
    /// How trained tensors are stored.
    pub precision: Precision,
    /// What is learnt from.
    pub data: DataConfig,
    /// What is trained.
    pub tune: TuneConfig,
    /// How.
    pub optimizer: OptimizerConfig,
    /// For how long, and what is measured on the way.
    pub train: LoopConfig,
}

/// The section `[data]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataConfig {
    /// The task's name.
    pub task: String,
    /// The file that describes the task `custom`.
    pub template: Option<PathBuf>,
    /// The training data.
    pub train: PathBuf,
    /// The data that is scored and never selected by.
    pub valid: Option<PathBuf>,
    /// How many examples of `train` are trained on; all that `num_dev` leaves if not said.
    pub num_train: Option<u64>,
    /// How many more of them select the best weights; a fifth, at most 500, if not said.
    pub num_dev: Option<u64>,
}

/// The section `[tune]`: which parameters are trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "scope", rename_all = "lowercase")]
pub enum TuneConfig {
    /// All of them.
    #[default]
    Full,
    /// Low-rank adapters beside linear layers.
    Lora {
        /// The rank of each adapter.
        rank: u64,
        /// The adapters' output is scaled by `alpha / rank`.
        alpha: f64,
        /// The last parts of the layers' names; those the model's family adapts if not said.
        targets: Option<Vec<String>>,
    },
    /// Bottlenecks of tensor trains before and after linear layers.
    #[serde(rename = "tensor-train")]
    TensorTrain {
        /// The rank between two cores of a train.
        rank: u64,
        /// Features between the two layers of a bottleneck.
        width: u64,
        /// The last parts of the layers' names; those that `AdaZeta` adapts in the model's family if not said.
        targets: Option<Vec<String>>,
    },
    /// Those of some blocks.
    Layers {
        /// The blocks' numbers, from 0.
        layers: Vec<u64>,
    },
    /// Those with some names.
    Names {
        /// The names.
        names: Vec<String>,
    },
}

/// The section `[optimizer]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerConfig {
    /// The optimizer's name.
    pub name: String,
    /// Its own options, as they were given.
    #[serde(flatten)]
    pub options: toml::Table,
}

/// The section `[train]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LoopConfig {
    /// What a step minimises: the task's loss, or 1 - accuracy or 1 - F1, which have no exact slopes.
    pub objective: Criterion,
    /// How many steps are taken.
    pub steps: u64,
    /// After how many seconds of steps the run stops before that, evaluations not counted.
    pub seconds: Option<u64>,
    /// How many examples a step sees.
    pub batch_size: u64,
    /// After how many steps the weights are scored.
    pub eval_every: u64,
    /// After how many scores without gain the run stops early; 0: never.
    pub patience: u64,
    /// About how many MB the activations of a pass over the weights may take: larger batches are cut, which changes no
    /// bit.
    pub activation_mb: u64,
}

/// A run file that was read: its configuration, and where each key stood.
#[derive(Clone, Debug)]
pub struct RunFile {
    /// What the run is to do.
    pub config: RunConfig,
    /// How methods are compared on it: no part of the run.
    pub compare: CompareConfig,
    path: PathBuf,
    base: PathBuf,
    document: Document,
    places: BTreeMap<String, Place>,
}

impl RunFile {
    /// Reads the run file at `path` and the overrides `sets`, each `key=value`, of which the last counts.
    ///
    /// # Errors
    /// [`TrainError`] with the place of the first thing that is wrong.
    pub fn read(path: &Path, sets: &[String]) -> Result<RunFile, TrainError> {
        let failed = |source| TrainError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_RUN_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_RUN_FILE_BYTES {
            return Err(TrainError::TooLong { path: path.to_owned(), limit: MAX_RUN_FILE_BYTES });
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| TrainError::NotText { path: path.to_owned(), valid: error.valid_up_to() })?;
        let whole = absolute(path).map_err(failed)?;
        RunFile::parse(text, path, whole.parent().unwrap_or(Path::new("/")), sets)
    }

    /// Reads the `text` of a run file; errors name it `path`, and relative paths are of the directory `base`.
    ///
    /// # Errors
    /// As [`RunFile::read`].
    pub fn parse(text: &str, path: &Path, base: &Path, sets: &[String]) -> Result<RunFile, TrainError> {
        if base.to_str().is_none() {
            return Err(TrainError::PathNotText { path: base.to_owned() });
        }
        let mut document = Document::default();
        document.read(text, path, SECTIONS)?;
        sets.iter().try_for_each(|argument| document.set(argument, SECTIONS))?;
        document.check_keys(SECTIONS)?;
        let places = document.places();
        let given = document.clone();
        let config = RunConfig::resolve(&mut document, path, base)?;
        let compare = CompareConfig::resolve(&mut document, &config.data.task, base)?;
        if config.to_toml().len() > MAX_RUN_FILE_BYTES {
            return Err(TrainError::TooLong { path: path.to_owned(), limit: MAX_RUN_FILE_BYTES });
        }
        Ok(RunFile { config, compare, path: path.to_owned(), base: base.to_owned(), document: given, places })
    }

    /// Where the key with this dotted name stands (`optimizer.lr`), if it was given.
    pub fn place(&self, key: &str) -> Option<&Place> {
        self.places.get(key)
    }
}

impl RunConfig {
    fn resolve(document: &mut Document, path: &Path, base: &Path) -> Result<RunConfig, TrainError> {
        let missing = |key, example| move || TrainError::Missing { path: path.to_owned(), key, example };
        let model = document.path(TOP, "model", base)?;
        let model = model.ok_or_else(missing("model", "model = \"DIRECTORY\" at the top"))?;
        let data = DataConfig::resolve(document, path, base)?;
        let optimizer = OptimizerConfig {
            name: document.name("optimizer", "name")?.unwrap_or_else(|| OPTIMIZER.to_owned()),
            options: document.rest("optimizer"),
        };
        let default_output = || base.join("runs").join(format!("{}-{}", data.task, optimizer.name));
        let profiles = [Profile::StrictF32, Profile::StrictBf16].map(|profile| (profile.as_str(), profile));
        let objectives = Criterion::ALL.map(|criterion| (criterion.name(), criterion));
        let precisions = [("f32", Precision::F32), ("bf16+16", Precision::Split), ("native", Precision::Native)];
        Ok(RunConfig {
            model,
            output: document.path(TOP, "output", base)?.unwrap_or_else(default_output),
            // TOML's integers end there.
            seed: document.integer(TOP, "seed", 0..=i64::MAX as u64)?.unwrap_or(1),
            profile: document.choice(TOP, "profile", &profiles)?.unwrap_or_default(),
            precision: document.choice(TOP, "precision", &precisions)?.unwrap_or_default(),
            tune: TuneConfig::resolve(document, path, optimizer.scope())?,
            train: LoopConfig {
                objective: document.choice("train", "objective", &objectives)?.unwrap_or_default(),
                steps: document.integer("train", "steps", 1..=MOST)?.unwrap_or(1000),
                seconds: document.integer("train", "seconds", 1..=MOST)?,
                batch_size: document.integer("train", "batch_size", 1..=MOST_IN_BATCH)?.unwrap_or(16),
                eval_every: document.integer("train", "eval_every", 1..=MOST)?.unwrap_or(100),
                patience: document.integer("train", "patience", 0..=MOST)?.unwrap_or(8),
                activation_mb: document.integer("train", "activation_mb", 1..=MOST_ACTIVATION_MB)?.unwrap_or(96),
            },
            data,
            optimizer,
        })
    }

    /// The resolved run file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("paths are checked to be text, keys are text, integers fit")
    }

    /// What identifies the computation: the SHA-256 of all keys and values but those that change no bit: where files lie, and how batches are cut.
    pub fn digest(&self) -> Sha256Digest {
        let mut table = toml::Table::try_from(self).expect("as for `to_toml`");
        for key in CHANGE_NO_BIT {
            let (section, key) = key.split_once('.').unwrap_or((TOP, key));
            let section = if section == TOP { Some(&mut table) } else { table[section].as_table_mut() };
            section.expect("a section is a table").remove(key);
        }
        let mut digest = Sha256::new_with_prefix(b"zofo run configuration v1\0");
        absorb(&mut digest, &Value::Table(table));
        digest.finalize().into()
    }
}

/// Feeds a value to a digest so that different values feed different bytes: a letter for the type, lengths before
/// contents, keys in bytewise order.
fn absorb(digest: &mut Sha256, value: &Value) {
    let text = |digest: &mut Sha256, text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    match value {
        Value::String(string) => {
            digest.update(b"s");
            text(digest, string);
        }
        Value::Integer(integer) => digest.update([&b"i"[..], &integer.to_le_bytes()].concat()),
        Value::Float(float) => digest.update([&b"f"[..], &float.to_bits().to_le_bytes()].concat()),
        Value::Boolean(boolean) => digest.update([b'b', u8::from(*boolean)]),
        Value::Datetime(date) => {
            digest.update(b"d");
            text(digest, &date.to_string());
        }
        Value::Array(items) => {
            digest.update([&b"a"[..], &(items.len() as u64).to_le_bytes()].concat());
            items.iter().for_each(|item| absorb(digest, item));
        }
        Value::Table(table) => {
            digest.update([&b"t"[..], &(table.len() as u64).to_le_bytes()].concat());
            let ordered: BTreeMap<_, _> = table.iter().collect();
            for (key, value) in ordered {
                text(digest, key);
                absorb(digest, value);
            }
        }
    }
}

impl DataConfig {
    fn resolve(document: &mut Document, path: &Path, base: &Path) -> Result<DataConfig, TrainError> {
        let missing = |key, example| move || TrainError::Missing { path: path.to_owned(), key, example };
        let task = document.name("data", "task")?;
        let task =
            task.ok_or_else(missing("data.task", "task = \"sst2\" under [data]; `zofo list tasks` names all"))?;
        if let Some(place) = document.place("data", "template").filter(|_| task != "custom") {
            let key = "data.template".to_owned();
            return Err(TrainError::OutOfPlace {
                place: Box::new(place.clone()),
                key,
                with: "data.task is \"custom\"",
            });
        }
        let template = document.path("data", "template", base)?;
        if task == "custom" && template.is_none() {
            return Err(missing(
                "data.template",
                "template = \"FILE\" under [data]: the task \"custom\" is described there",
            )());
        }
        let train = document.path("data", "train", base)?;
        Ok(DataConfig {
            task,
            template,
            train: train.ok_or_else(missing("data.train", "train = \"FILE\" under [data]"))?,
            valid: document.path("data", "valid", base)?,
            num_train: document.integer("data", "num_train", 1..=MOST)?,
            num_dev: document.integer("data", "num_dev", 1..=MOST)?,
        })
    }
}

impl OptimizerConfig {
    /// The scope of a run that names none.
    fn scope(&self) -> &'static str {
        // Options that cannot be are refused where the optimizer is made for the run, with their place.
        let tunes = optim::find(&self.name).and_then(|entry| entry.build(&self.options)).map(|it| it.tunes());
        match tunes.unwrap_or_default() {
            Tunes::Model => "full",
            Tunes::TensorTrains => "tensor-train",
        }
    }
}

impl TuneConfig {
    /// Reads the section; `default` is its scope where it names none.
    fn resolve(document: &mut Document, path: &Path, default: &'static str) -> Result<TuneConfig, TrainError> {
        /// The keys beside the scope, and the scopes that each belongs to.
        const KEYS: [(&str, &[&str], &str); 6] = [
            ("rank", &["lora", "tensor-train"], "tune.scope is \"lora\" or \"tensor-train\""),
            ("alpha", &["lora"], "tune.scope is \"lora\""),
            ("width", &["tensor-train"], "tune.scope is \"tensor-train\""),
            ("targets", &["lora", "tensor-train"], "tune.scope is \"lora\" or \"tensor-train\""),
            ("layers", &["layers"], "tune.scope is \"layers\""),
            ("names", &["names"], "tune.scope is \"names\""),
        ];
        let words = ["full", "lora", "tensor-train", "layers", "names"].map(|word| (word, word));
        let scope = document.choice("tune", "scope", &words)?.unwrap_or(default);
        for (key, _, with) in KEYS.iter().filter(|(_, scopes, _)| !scopes.contains(&scope)) {
            if let Some(place) = document.place("tune", key) {
                return Err(TrainError::OutOfPlace {
                    place: Box::new(place.clone()),
                    key: document::dotted("tune", key),
                    with,
                });
            }
        }
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let names = "a list of names, at least one";
        let missing = |key, example| move || TrainError::Missing { path: path.to_owned(), key, example };
        Ok(match scope {
            "lora" => TuneConfig::Lora {
                rank: document.integer("tune", "rank", 1..=65_536)?.unwrap_or(8),
                alpha: document.take("tune", "alpha", "a number above 0", positive)?.unwrap_or(16.0),
                targets: document.list("tune", "targets", names, text)?,
            },
            "tensor-train" => TuneConfig::TensorTrain {
                rank: document.integer("tune", "rank", 1..=65_536)?.unwrap_or(5),
                width: document.integer("tune", "width", 1..=65_536)?.unwrap_or(64),
                targets: document.list("tune", "targets", names, text)?,
            },
            "layers" => {
                let number = |value: &Value| value.as_integer().and_then(|number| u64::try_from(number).ok());
                let layers = document.list("tune", "layers", "a list of block numbers, at least one", number)?;
                TuneConfig::Layers {
                    layers: layers.ok_or_else(missing("tune.layers", "layers = [0, 1] under [tune]"))?,
                }
            }
            "names" => {
                let names = document.list("tune", "names", names, text)?;
                TuneConfig::Names { names: names.ok_or_else(missing("tune.names", "names = [\"NAME\"] under [tune]"))? }
            }
            _ => TuneConfig::Full,
        })
    }
}

/// TOML writes `16` and `16.0` apart; a user means the same.
fn positive(value: &Value) -> Option<f64> {
    let number = value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))?;
    (number > 0.0 && number.is_finite()).then_some(number)
}

fn as_word<S: Serializer>(profile: &Profile, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(profile.as_str())
}
