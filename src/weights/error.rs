//! What can be wrong with a checkpoint: always with the file, what was found and what was expected.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::gguf::GgufProblem;

/// Why a checkpoint, or a tensor of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A file cannot be opened, examined or mapped.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The directory holds no safetensors.
    #[error("{} has neither model.safetensors nor model.safetensors.index.json", dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
        /// A file of another format that it does hold, for example `pytorch_model.bin`.
        instead: Option<String>,
    },
    /// Not a regular file: a directory, a device, or a link that leads out of the checkpoint.
    #[error("{} is {found}, not a file of the checkpoint", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The header of a safetensors file breaks the format or our stricter limits.
    #[error("{}: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// The index of a sharded checkpoint breaks the format or our stricter limits.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problem: IndexProblem,
    },
    /// There is no tensor of that name.
    #[error("{} has no tensor {name:?}", dir.display())]
    Missing {
        /// The checkpoint.
        dir: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than its place in the model.
    #[error("tensor {name:?} in {} has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The stored shape.
        found: Vec<usize>,
        /// The shape that config.json asks for.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that zofo does not compute with.
    #[error("tensor {name:?} in {} is stored as {found}, expected F32, BF16 or F16", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The stored type.
        found: String,
    },
    /// A file is not the one that was opened any more.
    #[error("{} changed while it was in use: {what}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Which of its facts differs.
        what: &'static str,
    },
    /// A GGUF file breaks the format, or holds what cannot be imported.
    #[error("{}: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: GgufProblem,
    },
    /// A snapshot of tuned weights is damaged, or belongs to another run.
    #[error("{}: {problem}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: SnapshotProblem,
    },
    /// A model's `config.json` is not an object of JSON.
    #[error("{} is not the JSON of a configuration", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A directory cannot be written where it was asked for.
    #[error("cannot write a model to {}: {reason}", path.display())]
    Target {
        /// The directory.
        path: PathBuf,
        /// Why, and the fix.
        reason: &'static str,
    },
    /// A file cannot be written, synced or renamed.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl WeightsError {
    /// The file or directory at fault.
    pub fn path(&self) -> &Path {
        match self {
            WeightsError::NoWeights { dir: path, .. }
            | WeightsError::Missing { dir: path, .. }
            | WeightsError::Read { path, .. }
            | WeightsError::NotAFile { path, .. }
            | WeightsError::Header { path, .. }
            | WeightsError::Index { path, .. }
            | WeightsError::Shape { path, .. }
            | WeightsError::Type { path, .. }
            | WeightsError::Changed { path, .. }
            | WeightsError::Gguf { path, .. }
            | WeightsError::Snapshot { path, .. }
            | WeightsError::Config { path, .. }
            | WeightsError::Target { path, .. }
            | WeightsError::Write { path, .. } => path,
        }
    }
}

/// What is wrong with the header of a safetensors file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Fewer bytes than the length of a header.
    #[error("a file of {bytes} bytes is no safetensors file, which starts with 8 bytes of length")]
    TooShort {
        /// The file's size.
        bytes: usize,
    },
    /// The declared header does not fit the file or the limit.
    #[error("it declares a header of {declared} bytes; the file has {bytes} bytes, and at most {limit} are read")]
    Length {
        /// The declared length.
        declared: u64,
        /// The file's size.
        bytes: usize,
        /// Our limit.
        limit: usize,
    },
    /// The header is not an object of tensors.
    #[error("its header is not the JSON of a safetensors header: {source}")]
    Json {
        /// Where and why.
        #[from]
        source: serde_json::Error,
    },
    /// A name stands twice: readers differ in which one they take.
    #[error("tensor {name:?} is declared twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More tensors than any model has.
    #[error("it declares more than {limit} tensors")]
    TooMany {
        /// Our limit.
        limit: usize,
    },
    /// Offsets, sizes or types contradict each other or the file's size.
    #[error("its tensor table is inconsistent: {source}")]
    Table {
        /// Which rule is broken.
        #[from]
        source: safetensors::SafeTensorError,
    },
    /// A tensor without elements.
    #[error("tensor {name:?} of shape {shape:?} has no elements")]
    Empty {
        /// The name.
        name: String,
        /// The declared shape.
        shape: Vec<usize>,
    },
}

/// What is wrong with `model.safetensors.index.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexProblem {
    /// More bytes than any index has.
    #[error("an index of {bytes} bytes; at most {limit} are read")]
    Length {
        /// The file's size.
        bytes: u64,
        /// Our limit.
        limit: u64,
    },
    /// Not an object with a `weight_map` of names to files.
    #[error("not the JSON of an index: {source}")]
    Json {
        /// Where and why.
        #[from]
        source: serde_json::Error,
    },
    /// A tensor stands twice.
    #[error("weight_map names tensor {name:?} twice")]
    Duplicate {
        /// The tensor.
        name: String,
    },
    /// More tensors than any model has.
    #[error("weight_map names more than {limit} tensors")]
    TooMany {
        /// Our limit.
        limit: usize,
    },
    /// A shard that is not the bare name of a safetensors file.
    #[error(
        "weight_map puts tensor {name:?} in {shard:?}; a shard is the bare name of a .safetensors file beside the index"
    )]
    ShardName {
        /// The tensor.
        name: String,
        /// Where it should be.
        shard: String,
    },
    /// A shard lacks a tensor that the index promises.
    #[error("weight_map puts tensor {name:?} in {shard:?}, which does not have it")]
    NotInShard {
        /// The tensor.
        name: String,
        /// Where it should be.
        shard: String,
    },
}

/// What is wrong with a snapshot of tuned weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotProblem {
    /// A safetensors file that no run has written, or one of another version.
    #[error("it is no snapshot of a run: its metadata say {found:?} for \"format\", expected {expected:?}")]
    Format {
        /// What its metadata say.
        found: Option<String>,
        /// What those of a snapshot say.
        expected: &'static str,
    },
    /// A tuned tensor that is not there.
    #[error("it has no tensor {name:?}, which this run tunes; it is a snapshot of another run")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A tensor that this run does not tune.
    #[error("it has a tensor {name:?}, which this run does not tune; it is a snapshot of another run")]
    Unexpected {
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape or type.
    #[error("tensor {name:?} is {found}, expected {expected}; it is a snapshot of another run")]
    Tensor {
        /// The tensor.
        name: String,
        /// Its type and shape.
        found: String,
        /// Those of the run.
        expected: String,
    },
    /// The contents have not the digest that was written with them.
    #[error("its {field} is {found:?}, but its contents give {expected:?}; it is damaged: delete it to recompute")]
    Digest {
        /// Which of the two digests.
        field: &'static str,
        /// What its metadata say.
        found: Option<String>,
        /// What was computed.
        expected: String,
    },
}
