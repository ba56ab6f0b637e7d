//! What can be wrong with a comparison.

use std::path::PathBuf;

use crate::train::TrainError;

/// Why a comparison cannot begin or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// A run file, a directory or a run of it.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The directory holds a comparison, and nobody asked for it to go on.
    #[error(
        "{} holds a comparison; pass --resume to go on with it, or name another directory with --output DIR",
        path.display()
    )]
    Holds {
        /// The directory.
        path: PathBuf,
    },
    /// `compare.json` is not what was written.
    #[error("{} is not the record of a comparison; restore it, or name another directory with --output DIR", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A run ended for a reason that is not its method's.
    #[error("{cell} ended with exit code {exit}: {message}; {} has all it said", log.display())]
    Cell {
        /// The cell's name.
        cell: String,
        /// The exit code.
        exit: i32,
        /// What it said.
        message: String,
        /// What it said on the way.
        log: PathBuf,
    },
    /// Nothing to choose rates by.
    #[error("{cell} was scored on no example of dev, by which rates are chosen; raise data.num_dev")]
    NoDev {
        /// The cell's name.
        cell: String,
    },
    /// A run's file is not what `zofo train` writes.
    #[error("{} cannot be understood", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
