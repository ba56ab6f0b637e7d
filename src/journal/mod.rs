//! The journal of a run: the numbers that its optimizer saw, from which its weights are made again (contract C4).
//!
//! *What it is.* A [`Header`] that says which run this is, then a [`Record`] a step, made by a [`Recorder`], appended
//! by [`Writer`], streamed by [`Reader`] and turned into the step again by a [`Replay`]. Every record carries a CRC of
//! everything before it, so that none can be changed, moved, dropped or taken from another run unnoticed.
//!
//! *What it is not.* It holds no weights and no directions: those are regenerated from the seed and the step by the
//! optimizer that is named in the header's configuration. What the numbers of a record mean is for `optim` and `train`.
//!
//! *What must stay true.* A journal is appended to and never rewritten; what a crash leaves of the last record is
//! dropped, damage before it is an error with its place, and the records read from a damaged file are always the first
//! of the true ones. The bytes are a file format: `docs/journal.md` is the specification.

mod error;
mod header;
mod reader;
mod record;
mod tape;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{HeaderProblem, JournalError, RecordProblem};
pub use header::{FORMAT_VERSION, Header, MAX_CONFIG_BYTES, NumericProfile, RunKind, Sha256Digest};
pub use reader::Reader;
pub use record::{Flags, Kind, MAX_STEP_DELTA, MAX_VALUES, Record, coefficients_crc};
pub use tape::{Recorder, Replay, ReplayError, same};
pub use writer::{Medium, SyncPolicy, Writer};
