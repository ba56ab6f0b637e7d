//! What can be wrong with a run file or a run directory: with the place, what was found and what was expected.

use std::{fmt, io, ops::Range, path::PathBuf};

use crate::{
    journal::{JournalError, ReplayError},
    model::ModelError,
    objective::ExamplesError,
    optim::{OptimError, OracleError},
    task::{ReadError, TaskError, TooFewExamples},
    text::TextError,
    weights::WeightsError,
};

/// Where a user wrote something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The text it stands in.
    pub origin: Origin,
    /// Its line there, from 1.
    pub line: usize,
    /// Its character in the line, from 1.
    pub column: usize,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

/// A text that a configuration is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The run file.
    File(PathBuf),
    /// The argument of a `--set`.
    Set(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File(path) => write!(f, "{}:{}:{}", path.display(), self.line, self.column),
            Origin::Set(argument) => write!(f, "--set {}", argument.escape_debug()),
        }
    }
}

/// Why a run cannot be set up, cannot go on, or cannot write.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file or directory cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file or directory cannot be made, written, synced, locked or renamed.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A run file of more bytes than any has.
    #[error("{} makes a run file of more than {limit} bytes, the most that is read", path.display())]
    TooLong {
        /// The run file.
        path: PathBuf,
        /// Our limit.
        limit: usize,
    },
    /// A run file that is not text.
    #[error("{} is not UTF-8 from byte {valid} on; a run file is TOML", path.display())]
    NotText {
        /// The run file.
        path: PathBuf,
        /// The bytes of it that are.
        valid: usize,
    },
    /// A run file below a directory whose name is not UTF-8: the resolved one could not be written.
    #[error("{} is not UTF-8, which paths of a run file must be; move the run file", path.display())]
    PathNotText {
        /// The directory.
        path: PathBuf,
    },
    /// A text that is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Box<Place>,
        /// What the parser says.
        message: String,
    },
    /// A `--set` that sets nothing.
    #[error("--set {} sets nothing; write key=value, for example train.steps=100", argument.escape_debug())]
    Set {
        /// The argument.
        argument: String,
    },
    /// A key without a meaning.
    #[error("{place}: unknown key {key}; did you mean {nearest}?")]
    Unknown {
        /// Where.
        place: Box<Place>,
        /// The key, with its section.
        key: String,
        /// The key that is most like it.
        nearest: String,
    },
    /// A key that has no default and is not there.
    #[error("{} does not say {key}; add {example}", path.display())]
    Missing {
        /// The run file.
        path: PathBuf,
        /// The key, with its section.
        key: &'static str,
        /// How it could stand there.
        example: &'static str,
    },
    /// A value of another type than it should have, or out of its range.
    #[error("{place}: {key} is {found}, expected {expected}")]
    Value {
        /// Where.
        place: Box<Place>,
        /// The key, with its section.
        key: String,
        /// The value, shortened.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A key that says nothing beside another one's value.
    #[error("{place}: {key} means something only where {with}; remove it, or change that")]
    OutOfPlace {
        /// Where.
        place: Box<Place>,
        /// The key, with its section.
        key: String,
        /// What it goes with.
        with: &'static str,
    },
    /// The run directory holds a run, and nobody asked for it to go on.
    #[error(
        "{} holds a run; pass --resume to go on with it, or name another directory with --set output=DIR",
        path.display()
    )]
    HoldsRun {
        /// The run directory.
        path: PathBuf,
    },
    /// A directory with the results of a run, but not the run.
    #[error(
        "{} holds {found} of a run but no journal.zofo, without which it cannot go on; restore that, or name another \
         directory with --set output=DIR",
        path.display()
    )]
    NoJournal {
        /// The run directory.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
    },
    /// A step asks for more numbers than a record holds.
    #[error(
        "a step of {found} losses does not fit into a record, which holds {limit}; lower optimizer.queries, or \
         train.batch_size if each example has directions of its own"
    )]
    TooManyLosses {
        /// Losses of a step, each example's if it has directions of its own.
        found: usize,
        /// What a record holds.
        limit: usize,
    },
    /// A directory that is to be made is there and not empty.
    #[error("{} is not empty, and nothing is overwritten; remove it, or name another with --output", path.display())]
    Output {
        /// The directory.
        path: PathBuf,
    },
    /// Another process writes to the run directory.
    #[error("{} is in use by {}; wait for it or stop it", path.display(), holder(*pid, host.as_deref()))]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// The process, if it has had time to say.
        pid: Option<u32>,
        /// Its machine.
        host: Option<String>,
    },
    /// The run directory lies in the model's.
    #[error(
        "{} lies in the model {}, which is never written to; name another directory as output",
        path.display(),
        model.display()
    )]
    InModel {
        /// The run directory.
        path: PathBuf,
        /// The model.
        model: PathBuf,
    },
    /// A scope that names what the model lacks.
    #[error("{key} is {found}, expected {expected}")]
    Scope {
        /// The key, with its section.
        key: &'static str,
        /// What it names.
        found: String,
        /// What it could name.
        expected: String,
    },
    /// Bottlenecks that are to be folded into matrices.
    #[error("bottlenecks are not linear, so that no matrix holds them; export them alone, without --merge")]
    NotLinear,
    /// A run that is to be continued was begun with something else.
    #[error(
        "{} is the journal of another run: {what}; restore what it was begun with, or begin a new run in another directory",
        path.display()
    )]
    Differs {
        /// The journal.
        path: PathBuf,
        /// What is not as it was.
        what: Difference,
    },
    /// A step that a journal does not reach.
    #[error("{} ends after step {steps}; it has no step {found}", path.display())]
    NoStep {
        /// The journal.
        path: PathBuf,
        /// The step asked for.
        found: u64,
        /// The steps that are recorded.
        steps: u64,
    },
    /// A run without evaluations, of which the best is asked for.
    #[error("{} has no evaluation, so no step is the best; ask for the last", path.display())]
    NoBest {
        /// The journal.
        path: PathBuf,
    },
    /// A run with first-order steps, which its journal alone does not make again.
    #[error(
        "{} is of a run that took gradients, which no journal holds: `--data-from RUN_DIR` names the run whose config.toml \
         says where its data is",
        path.display()
    )]
    NeedsData {
        /// The journal.
        path: PathBuf,
    },
    /// The optimizer or its options are not known.
    #[error("{}{error}", place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default())]
    Optimizer {
        /// Where it stands, if it was given.
        place: Option<Box<Place>>,
        /// What is wrong.
        error: OptimError,
    },
    /// A step failed.
    #[error(transparent)]
    Step(OptimError),
    /// A record does not make the step that it stands for.
    #[error("{}: {problem}", path.display())]
    Replay {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        problem: ReplayError,
    },
    /// The journal cannot be read, written or understood.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The model is none that zofo computes, or does not fit an example.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights cannot be read, written or understood, or changed underneath.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A data file cannot be read.
    #[error(transparent)]
    Data(#[from] ReadError),
    /// A task is unknown, or a row is no example of it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The tokenizer cannot be read or used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The data has too few examples.
    #[error("{}: {problem}", path.display())]
    TooFew {
        /// The training data.
        path: PathBuf,
        /// What was asked for.
        problem: TooFewExamples,
    },
    /// Examples do not fit the model.
    #[error(transparent)]
    Examples(#[from] ExamplesError),
    /// Signals cannot be listened to.
    #[error("cannot listen to SIGINT and SIGTERM")]
    Signals {
        /// What the system answered.
        source: io::Error,
    },
}

/// What a run was begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A key of the run file: its value then and now.
    Setting(String),
    /// An input, by its name.
    Input(&'static str),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Setting(change) => f.write_str(change),
            Difference::Input(what) => write!(f, "{what} differ from what they were"),
        }
    }
}

impl From<OptimError> for TrainError {
    /// What failed in the world behind the oracle is that failure.
    fn from(error: OptimError) -> TrainError {
        match error {
            OptimError::Oracle(OracleError::World(world)) => match world.downcast::<ExamplesError>() {
                Ok(error) => TrainError::Examples(*error),
                Err(world) => match world.downcast::<WeightsError>() {
                    Ok(error) => TrainError::Weights(*error),
                    Err(world) => TrainError::Step(OptimError::Oracle(OracleError::World(world))),
                },
            },
            error => TrainError::Step(error),
        }
    }
}

fn holder(pid: Option<u32>, host: Option<&str>) -> String {
    let process = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    host.map_or(process.clone(), |host| format!("{process} on {}", host.escape_debug()))
}
