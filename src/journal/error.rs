//! What can be wrong with a journal: always with the file, and with the place in it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{FORMAT_VERSION, MAX_CONFIG_BYTES};

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened or read.
    #[error("cannot read the journal {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file cannot be created, written, synced or cut. What it held before can still be read.
    #[error("cannot write the journal {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file does not begin as a journal does.
    #[error("{}: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// Bytes before the last record are not those that were written.
    #[error(
        "{} is damaged at byte {offset}; the records before it, to step {step}, are sound: restore the file \
         from a copy, or go back to that step",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// The steps that the sound records complete.
        step: u64,
    },
    /// A record that was written as it stands, but says what this version does not know.
    #[error("{}: the record at byte {offset} {problem}; it was written by another version of zofo", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        problem: RecordProblem,
    },
}

impl JournalError {
    /// The journal at fault.
    pub fn path(&self) -> &Path {
        match self {
            JournalError::Read { path, .. }
            | JournalError::Write { path, .. }
            | JournalError::Header { path, .. }
            | JournalError::Damaged { path, .. }
            | JournalError::Record { path, .. } => path,
        }
    }
}

/// What is wrong with the header of a journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The file ends within the header.
    #[error("a file of {bytes} bytes is no journal: its header ends at byte {expected}")]
    TooShort {
        /// The file's size.
        bytes: usize,
        /// The size of the header, as far as it is known.
        expected: usize,
    },
    /// Other bytes at the start.
    #[error("it is not a journal of zofo: it begins with {found:02x?}")]
    Magic {
        /// The first bytes.
        found: [u8; 8],
    },
    /// A format that this version does not read.
    #[error("its format has version {found}; this zofo reads version {}", FORMAT_VERSION)]
    Version {
        /// The version declared.
        found: u16,
    },
    /// The configuration is larger than any run file.
    #[error("it declares a configuration of {declared} bytes; at most {} are read", MAX_CONFIG_BYTES)]
    ConfigLength {
        /// The length declared.
        declared: u32,
    },
    /// The header is not the one that was written.
    #[error(
        "its header is damaged: the checksum is {found:08x}, expected {expected:08x}; restore the file from a copy"
    )]
    Checksum {
        /// The checksum stored.
        found: u32,
        /// That of the bytes.
        expected: u32,
    },
    /// A field says what this version does not know.
    #[error("its header has {field} {found}, which this version of zofo does not know")]
    Unknown {
        /// The field.
        field: &'static str,
        /// Its number.
        found: u8,
    },
    /// The configuration is not text.
    #[error("the configuration in its header is not UTF-8 from byte {valid} on")]
    ConfigText {
        /// The bytes of it that are.
        valid: usize,
    },
}

/// What a sound record says that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// A kind of record without a meaning.
    #[error("is of the unknown kind {found}")]
    Kind {
        /// Its number.
        found: u8,
    },
    /// A step that completes none.
    #[error("completes no step, expected at least one")]
    NoStep,
}
