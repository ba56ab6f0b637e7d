//! What a run file names, opened, checked and encoded: the model, the task, the examples of each use.
//!
//! *What it is not.* It trains nothing and writes nothing. *What must stay true*: which examples are learnt from and
//! which select depends on the seed and the data alone; those that validate are never among them unless the user's files
//! overlap.

use std::{path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use super::{
    Difference, Exam, LiveOracle, RunConfig, TrainError, Tuned, config::CHANGE_NO_BIT, replay::optimizer, trainable,
};
use crate::{
    journal::{Header, NumericProfile, RunKind, Sha256Digest},
    kernels::{Context, Profile},
    model::{ArchSpec, Model},
    noise::NOISE_VERSION,
    objective::Examples,
    task::{Encoded, Encoder, Example, Input, Row, Sequence, Style, Subsets, Task, TaskError, read_rows},
    text::Tokenizer,
    weights::tuned,
};

/// The longest sequence of a run, unless the model has fewer positions: the `max_length` of `MeZO`.
const MAX_TOKENS: usize = 2048;

/// A run that can begin.
#[derive(Debug)]
pub struct Job {
    /// What is to be done.
    pub config: RunConfig,
    /// The task.
    pub task: Task,
    /// The examples that select, if there are any.
    pub dev: Option<Exam>,
    /// The examples that validate, if there are any.
    pub valid: Option<Exam>,
    /// How many examples were longer than the model reads, and are cut.
    pub cut: usize,
    /// How often the most frequent answer of the examples that the report is about is right.
    pub majority: Option<f64>,
    /// What identifies the run.
    pub header: Header,
}

impl Job {
    /// Opens what `config` names, with the oracle of the run at the base weights.
    ///
    /// # Errors
    /// [`TrainError`] naming the file and what is wrong with it.
    pub fn open(config: RunConfig, mut model: Model, cx: Context) -> Result<(Job, LiveOracle), TrainError> {
        let tokenizer = Arc::new(Tokenizer::open(&config.model)?);
        let style = if model.spec().is_causal() { Style::Causal } else { Style::Masked };
        let task = match &config.data.template {
            Some(template) => Task::open(template)?,
            None => Task::named(&config.data.task, style)?,
        };
        let chat = task.chat_template(&config.model)?;
        let encoder = Encoder::new(&tokenizer, chat.as_ref(), model.spec().max_positions.clamp(4, MAX_TOKENS));
        let reader = Reader { task: &task, encoder };
        let rows = read_rows(&config.data.train, usize::MAX)?;
        let size = |number: Option<u64>| number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        let subsets = Subsets::draw(rows.len(), size(config.data.num_train), size(config.data.num_dev), config.seed)
            .map_err(|problem| TrainError::TooFew { path: config.data.train.clone(), problem })?;
        let train = reader.encode(subsets.train.iter().map(|&row| &rows[row]))?;
        let dev = reader.encode(subsets.dev.iter().map(|&row| &rows[row]))?;
        let valid = match &config.data.valid {
            Some(path) => reader.encode(read_rows(path, usize::MAX)?.iter())?,
            None => Vec::new(),
        };
        let trainable = trainable(&mut model, &config.tune, config.seed)?;
        // Before anything is computed: what is read of the base from here on are the private copies.
        let tuned = Tuned::new(model, cx, trainable).with_precision(config.precision, config.seed)?;
        let model = tuned.model();

        let header = Header {
            profile: match config.profile {
                Profile::StrictF32 => NumericProfile::StrictF32,
                Profile::StrictBf16 => NumericProfile::StrictBf16,
            },
            run: run_kind(&config)?,
            noise_version: NOISE_VERSION,
            seed: config.seed,
            config_digest: config.digest(),
            base_weights: base_digest(model),
            train: digest(model.spec(), &[&train, &dev]),
            valid: (!valid.is_empty()).then(|| digest(model.spec(), &[&valid])),
            template: config.data.template.as_deref().map(file_digest).transpose()?,
            config: config.to_toml(),
        };
        let exam = |examples: &[(Example, Encoded)]| -> Result<Option<Exam>, TrainError> {
            if examples.is_empty() { Ok(None) } else { Exam::new(&task, (model, &tokenizer), examples).map(Some) }
        };
        let (dev_exam, valid_exam) = (exam(&dev)?, exam(&valid)?);
        let cut = [&train, &dev, &valid].into_iter().flatten().filter(|(_, encoded)| encoded.dropped() > 0).count();
        let majority = majority(if valid.is_empty() { &dev } else { &valid });
        let examples = Examples::new(model.spec(), task.objective(), task.judge(&tokenizer), &train)?;
        let examples = examples.minimising(config.train.objective)?;
        let batch = (config.train.batch_size as usize, config.seed);
        let oracle = LiveOracle::new(tuned, examples, batch, config.train.activation_mb << 20);
        Ok((Job { config, task, dev: dev_exam, valid: valid_exam, cut, majority, header }, oracle))
    }

    /// The examples that the report is about, and what they are called.
    pub fn split(&self) -> Option<(&'static str, &Exam)> {
        let valid = self.valid.as_ref().map(|exam| ("valid", exam));
        valid.or_else(|| self.dev.as_ref().map(|exam| ("dev", exam)))
    }
}

/// What encodes the examples of a run.
struct Reader<'a> {
    task: &'a Task,
    encoder: Encoder<'a>,
}

impl Reader<'_> {
    fn encode<'r>(&self, rows: impl Iterator<Item = &'r Row>) -> Result<Vec<(Example, Encoded)>, TaskError> {
        rows.map(|row| {
            let example = self.task.example(row)?;
            let encoded = self.encoder.encode(&example)?;
            Ok((example, encoded))
        })
        .collect()
    }
}

/// Whether the numbers that its steps are answered make the run again.
pub(super) fn run_kind(config: &RunConfig) -> Result<RunKind, TrainError> {
    let hybrid = optimizer(&config.optimizer)?.needs_gradients();
    Ok(if hybrid { RunKind::Hybrid } else { RunKind::Scalar })
}

/// What identifies the weights that a run starts from: the `weights_sha256` of all that the checkpoint has. Those of
/// adapters follow from the configuration.
pub(super) fn base_digest(model: &Model) -> Sha256Digest {
    tuned::digest(model.store(), &model.base_params().collect::<Vec<_>>())
}

/// What identifies examples: the tokens that a model reads of them and what is scored, so that another tokenizer or
/// template shows as well as another file; where answers are written, also those that are right.
fn digest(spec: &ArchSpec, parts: &[&[(Example, Encoded)]]) -> Sha256Digest {
    let mut digest = Sha256::new_with_prefix(b"zofo examples v1\0");
    // What reads them: another rotation or norm makes other losses of the same weights.
    digest.update(format!("{spec:?}\0"));
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        part.iter().for_each(|example| absorb(&mut digest, example));
    }
    digest.finalize().into()
}

/// Feeds an example to a digest so that different ones feed different words: a number for its kind, counts before lists.
fn absorb(digest: &mut Sha256, (example, encoded): &(Example, Encoded)) {
    let numbers = |digest: &mut Sha256, numbers: &[usize]| {
        for &number in numbers {
            digest.update((number as u64).to_le_bytes());
        }
    };
    let tokens = |digest: &mut Sha256, tokens: &[u32]| {
        digest.update((tokens.len() as u64).to_le_bytes());
        for token in tokens {
            digest.update(token.to_le_bytes());
        }
    };
    let sequence = |digest: &mut Sha256, Sequence { ids, scored, .. }: &Sequence| {
        tokens(digest, ids);
        numbers(digest, &[scored.start, scored.end]);
    };
    match encoded {
        Encoded::Candidates { sequences, gold, .. } => {
            numbers(digest, &[0, sequences.len(), gold.len()]);
            sequences.iter().for_each(|one| sequence(digest, one));
            numbers(digest, gold);
        }
        Encoded::Answer { sequence: one, prompt } => {
            numbers(digest, &[1]);
            sequence(digest, one);
            tokens(digest, prompt);
            if let Input::Answer { golds, .. } = &example.input {
                numbers(digest, &[golds.len()]);
                for gold in golds {
                    numbers(digest, &[gold.len()]);
                    digest.update(gold);
                }
            }
        }
        Encoded::Mask { ids, position, words, gold, .. } => {
            numbers(digest, &[2, *position, *gold]);
            tokens(digest, ids);
            tokens(digest, words);
        }
        Encoded::Class { ids, gold, .. } => {
            numbers(digest, &[3, *gold]);
            tokens(digest, ids);
        }
        Encoded::Text(one) => {
            numbers(digest, &[4]);
            sequence(digest, one);
        }
    }
}

fn file_digest(path: &Path) -> Result<Sha256Digest, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })?;
    Ok(Sha256::digest(bytes).into())
}

/// The share of the most frequent right answer, where answers are chosen by their number.
fn majority(examples: &[(Example, Encoded)]) -> Option<f64> {
    let gold = |encoded: &Encoded| match encoded {
        Encoded::Candidates { gold, .. } => gold.first().copied(),
        Encoded::Mask { gold, .. } | Encoded::Class { gold, .. } => Some(*gold),
        Encoded::Answer { .. } | Encoded::Text(_) => None,
    };
    let golds: Option<Vec<usize>> = examples.iter().map(|(_, encoded)| gold(encoded)).collect();
    let golds = golds.filter(|golds| !golds.is_empty())?;
    let most = (0..=golds.iter().copied().max()?).map(|of| golds.iter().filter(|&&gold| gold == of).count()).max()?;
    Some(most as f64 / golds.len() as f64)
}

/// The first thing in which a run that is to be continued with `now` was begun otherwise.
///
/// # Errors
/// [`TrainError::Differs`].
pub(super) fn check_same(path: &Path, begun: &Header, now: &Header) -> Result<(), TrainError> {
    let Some(what) = begun.first_difference(now) else { return Ok(()) };
    let what = match (begun.config_digest != now.config_digest, first_difference(&begun.config, &now.config)) {
        (true, Some(key)) => Difference::Setting(key),
        _ => Difference::Input(what),
    };
    Err(TrainError::Differs { path: path.to_owned(), what })
}

/// The first key in which two resolved run files differ, with both values; those that change no bit do not count.
pub fn first_difference(begun: &str, now: &str) -> Option<String> {
    let [begun, now] = [begun, now].map(|text| text.parse::<toml::Table>().unwrap_or_default());
    let leaves = |table: &toml::Table| -> Vec<(String, String)> {
        let section = |(name, value): (&String, &toml::Value)| match value {
            toml::Value::Table(keys) => {
                keys.iter().map(|(key, value)| (format!("{name}.{key}"), value.to_string())).collect()
            }
            value => vec![(name.clone(), value.to_string())],
        };
        table.iter().flat_map(section).collect()
    };
    let (begun, now) = (leaves(&begun), leaves(&now));
    let value = |of: &[(String, String)], key: &str| {
        of.iter().find(|(name, _)| name == key).map_or_else(|| "not set".to_owned(), |(_, value)| value.clone())
    };
    let keys = begun.iter().chain(&now).map(|(key, _)| key).filter(|key| !CHANGE_NO_BIT.contains(&key.as_str()));
    let mut differing = keys.filter(|key| value(&begun, key) != value(&now, key));
    differing.next().map(|key| format!("{key} was {}, is {}", value(&begun, key), value(&now, key)))
}
