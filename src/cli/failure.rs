//! Why a command could not do its work: for people by `miette`, for programs as JSON.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use serde_json::{Value, json};

use super::{Exit, dump::Problem};
use crate::{
    compare::CompareError,
    journal::JournalError,
    model::ModelError,
    objective::{ExamplesError, GenerationError},
    optim::{OptimError, OracleError},
    simd::{Isa, IsaError},
    task::{ReadError, TaskError},
    text::TextError,
    train::{Difference, TrainError},
    weights::WeightsError,
};

/// Everything that ends a command before its result.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(super) enum Failure {
    /// The command line does not parse.
    #[error("{message}")]
    #[diagnostic(code(usage), help("`zofo --help` lists commands and flags"))]
    Usage { message: String },
    /// The instruction set asked for is unknown, or this CPU lacks it.
    #[error("{origin} asks for the instruction set {found:?}, which {reason}")]
    #[diagnostic(
        code(isa),
        help("available here: {}; name one of these, or drop {origin} to let zofo choose", available.join(", "))
    )]
    Isa { origin: &'static str, found: String, reason: &'static str, available: Vec<&'static str> },
    /// The worker threads did not start.
    #[error("cannot start {threads} worker threads")]
    #[diagnostic(code(threads), help("pass a smaller --threads, or raise the limit on processes (`ulimit -u`)"))]
    Threads { threads: usize, source: rayon::ThreadPoolBuildError },
    /// Flush-to-zero or denormals-are-zero is set in this process.
    #[error("this process flushes subnormal numbers to zero, so its results would not be zofo's")]
    #[diagnostic(
        code(subnormals),
        help(
            "a preloaded library or a wrapper changed the floating-point mode (crtfastmath.o does): start zofo without it"
        )
    )]
    SubnormalsFlushed,
    /// A model's files cannot be read, written or understood.
    #[error(transparent)]
    #[diagnostic(code(weights))]
    Weights(#[from] WeightsError),
    /// A model's configuration is not one that zofo computes, or an input does not fit the model.
    #[error(transparent)]
    #[diagnostic(code(model))]
    Model(ModelError),
    /// A tokenizer or chat template cannot be read or used.
    #[error(transparent)]
    #[diagnostic(code(text))]
    Text(#[from] TextError),
    /// A data file cannot be read.
    #[error(transparent)]
    #[diagnostic(code(data))]
    Data(#[from] ReadError),
    /// A task is unknown, or a row is no example of it.
    #[error(transparent)]
    #[diagnostic(code(task))]
    Task(TaskError),
    /// Tensors or labels that do not fit the model.
    #[error("{}: {problem}", path.display())]
    #[diagnostic(code(inputs))]
    Inputs { path: PathBuf, problem: Problem },
    /// Examples of a task that do not fit the model.
    #[error(transparent)]
    #[diagnostic(code(inputs))]
    Examples(ExamplesError),
    /// No text came out of a model.
    #[error(transparent)]
    #[diagnostic(code(generation))]
    Generation(GenerationError),
    /// A result or a run cannot be read, written or understood.
    #[error(transparent)]
    #[diagnostic(code(train))]
    Train(TrainError),
    /// A comparison cannot begin or go on.
    #[error(transparent)]
    #[diagnostic(code(compare))]
    Compare(CompareError),
    /// A task asks for what the model's head does not answer.
    #[error("the task {task} needs a model with a {needs} head; this {family} model's is {found}")]
    #[diagnostic(code(head), help("`zofo inspect DIR` shows a model's head, `zofo list tasks` what tasks are for"))]
    Head { task: String, needs: &'static str, family: &'static str, found: &'static str },
    /// An optimizer is unknown.
    #[error(transparent)]
    #[diagnostic(code(optimizer))]
    Optimizer(#[from] OptimError),
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    #[diagnostic(code(io))]
    Output { source: io::Error },
}

impl Failure {
    /// `error` of the argument parser, without colours and the usage lines that follow its message.
    pub(super) fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let message = text.split("\n\nUsage:").next().unwrap_or_default().trim();
        Failure::Usage { message: message.trim_start_matches("error: ").to_owned() }
    }

    /// `error` about the instruction set that `origin` (a flag or a variable) names.
    pub(super) fn isa(origin: &'static str, error: &IsaError) -> Self {
        let (found, reason) = match error {
            IsaError::Unknown { found } => (found.clone(), "zofo does not know"),
            IsaError::Unavailable { name } => (name.to_string(), "this CPU does not have"),
        };
        let available = Isa::available().into_iter().map(|isa| isa.name().as_str()).collect();
        Failure::Isa { origin, found, reason, available }
    }

    /// The process's exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Usage { .. } | Failure::Isa { .. } | Failure::Optimizer(_) => Exit::Usage,
            Failure::Threads { .. } | Failure::SubnormalsFlushed => Exit::Failed,
            Failure::Output { .. } => Exit::Io,
            Failure::Weights(error) | Failure::Model(ModelError::Weights(error)) => weights_exit(error),
            Failure::Model(ModelError::Read { .. })
            | Failure::Text(TextError::Read { .. })
            | Failure::Data(ReadError::Read { .. }) => Exit::Io,
            Failure::Train(error) => train_exit(error),
            Failure::Compare(error) => compare_exit(error),
            Failure::Head { .. } | Failure::Examples(ExamplesError::Head { .. } | ExamplesError::Criterion { .. }) => {
                Exit::Usage
            }
            Failure::Generation(GenerationError::NotANumber(_)) => Exit::NonFinite,
            Failure::Task(TaskError::Unknown { .. }) => Exit::Usage,
            Failure::Task(TaskError::Read { .. }) => Exit::Io,
            Failure::Task(_)
            | Failure::Model(_)
            | Failure::Text(_)
            | Failure::Data(_)
            | Failure::Inputs { .. }
            | Failure::Examples(_)
            | Failure::Generation(_) => Exit::Failed,
        }
    }

    /// `{"error": {"code", "message", "causes", "help", …}}`, with the fields a program would look for.
    pub(super) fn to_json(&self) -> Value {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        let text = |part: Option<Box<dyn std::fmt::Display + '_>>| part.map(|part| part.to_string());
        let mut error = json!({
            "code": text(self.code()),
            "message": self.to_string(),
            "causes": causes.map(ToString::to_string).collect::<Vec<_>>(),
            "help": text(self.help()),
        });
        if let Failure::Isa { origin, found, available, .. } = self {
            error["origin"] = json!(origin);
            error["found"] = json!(found);
            error["available"] = json!(available);
        }
        if let Failure::Weights(weights) = self {
            error["path"] = json!(weights.path().display().to_string());
        }
        json!({ "error": error })
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        match error {
            ModelError::Weights(error) => Failure::Weights(error),
            error => Failure::Model(error),
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Failure {
        match error {
            TaskError::Data(error) => Failure::Data(error),
            error => Failure::Task(error),
        }
    }
}

impl From<ExamplesError> for Failure {
    fn from(error: ExamplesError) -> Failure {
        match error {
            ExamplesError::Model(error) => error.into(),
            ExamplesError::Generation(error) => (*error).into(),
            ExamplesError::Task(error) => (*error).into(),
            error => Failure::Examples(error),
        }
    }
}

impl From<GenerationError> for Failure {
    fn from(error: GenerationError) -> Failure {
        match error {
            GenerationError::Model(error) => error.into(),
            error => Failure::Generation(error),
        }
    }
}

impl From<TrainError> for Failure {
    /// What a floor below says of its own is said by its own name.
    fn from(error: TrainError) -> Failure {
        match error {
            TrainError::Model(error) => error.into(),
            TrainError::Weights(error) => error.into(),
            TrainError::Data(error) => error.into(),
            TrainError::Task(error) => error.into(),
            TrainError::Text(error) => error.into(),
            TrainError::Examples(error) => error.into(),
            error => Failure::Train(error),
        }
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Failure {
        match error {
            CompareError::Train(error) => error.into(),
            error => Failure::Compare(error),
        }
    }
}

/// The exit code of a comparison that failed; where a run of it did, that one's.
fn compare_exit(error: &CompareError) -> Exit {
    let of_runs = [Exit::Usage, Exit::InputChanged, Exit::JournalDamaged, Exit::Io];
    match error {
        CompareError::Cell { exit, .. } => {
            of_runs.into_iter().find(|code| *code as i32 == *exit).unwrap_or(Exit::Failed)
        }
        CompareError::Train(error) => train_exit(error),
        CompareError::Holds { .. } | CompareError::NoDev { .. } => Exit::Usage,
        CompareError::Ledger { .. } | CompareError::Report { .. } => Exit::Failed,
    }
}

/// The exit code of a run that failed.
fn train_exit(error: &TrainError) -> Exit {
    match error {
        TrainError::Write { source, .. } | TrainError::Journal(JournalError::Write { source, .. })
            if is_full(source) =>
        {
            Exit::DoesNotFit
        }
        TrainError::Read { .. }
        | TrainError::Write { .. }
        | TrainError::Journal(JournalError::Read { .. } | JournalError::Write { .. }) => Exit::Io,
        TrainError::Journal(_) | TrainError::Replay { .. } => Exit::JournalDamaged,
        TrainError::Locked { .. } => Exit::OutputLocked,
        TrainError::Differs { what: Difference::Input(_), .. } => Exit::InputChanged,
        TrainError::Step(OptimError::NonFinite { .. }) => Exit::NonFinite,
        TrainError::Step(OptimError::Oracle(OracleError::NoSlopes)) => Exit::Usage,
        TrainError::Step(_) | TrainError::Signals { .. } => Exit::Failed,
        _ => Exit::Usage,
    }
}

fn is_full(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}

/// A full disk is a plan that does not fit, a target that may not be written an argument that cannot be meant.
fn weights_exit(error: &WeightsError) -> Exit {
    match error {
        WeightsError::Write { source, .. } if is_full(source) => Exit::DoesNotFit,
        WeightsError::Read { .. } | WeightsError::Write { .. } => Exit::Io,
        WeightsError::Target { .. } => Exit::Usage,
        WeightsError::Changed { .. } => Exit::InputChanged,
        WeightsError::NoWeights { .. }
        | WeightsError::NotAFile { .. }
        | WeightsError::Header { .. }
        | WeightsError::Index { .. }
        | WeightsError::Missing { .. }
        | WeightsError::Shape { .. }
        | WeightsError::Type { .. }
        | WeightsError::Gguf { .. }
        | WeightsError::Snapshot { .. }
        | WeightsError::Config { .. } => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_instruction_set_names_its_origin_the_choices_and_the_fix() {
        let failure = Failure::isa("--isa", &IsaError::Unknown { found: "sse2".to_owned() });
        assert_eq!(failure.to_string(), "--isa asks for the instruction set \"sse2\", which zofo does not know");
        let json = failure.to_json();
        assert_eq!(json["error"]["code"], "isa");
        assert_eq!(json["error"]["found"], "sse2");
        assert_eq!(json["error"]["available"][0], "portable-soft");
        assert!(json["error"]["help"].as_str().is_some_and(|help| help.contains("drop --isa")), "{json}");
        assert_eq!(failure.exit(), Exit::Usage);
    }

    #[test]
    fn a_models_file_error_has_its_own_exit_code_and_names_the_file() {
        let write = |kind: io::ErrorKind| {
            Failure::from(WeightsError::Write { path: "out/config.json".into(), source: kind.into() })
        };
        assert_eq!(write(io::ErrorKind::StorageFull).exit(), Exit::DoesNotFit);
        assert_eq!(write(io::ErrorKind::PermissionDenied).exit(), Exit::Io);
        let changed = Failure::from(WeightsError::Changed { path: "m.gguf".into(), what: "it is gone" });
        assert_eq!(changed.exit(), Exit::InputChanged);
        let json = write(io::ErrorKind::StorageFull).to_json();
        assert_eq!((&json["error"]["path"], &json["error"]["code"]), (&json!("out/config.json"), &json!("weights")));
        assert_eq!(json["error"]["causes"].as_array().map(Vec::len), Some(1), "{json}");
    }

    #[test]
    fn causes_are_listed_outermost_first() {
        let failure = Failure::Output { source: io::Error::other("disk full") };
        assert_eq!(failure.to_json()["error"]["causes"], json!(["disk full"]));
        assert_eq!(failure.exit(), Exit::Io);
    }
}
