//! How a process ends.

use std::process::ExitCode;

/// Every exit code of the program: a contract with the scripts that call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it says.
    Ok = 0,
    /// It failed for a reason without a code of its own; a check that found a difference.
    Failed = 1,
    /// A flag, argument, variable or run file that cannot be meant.
    Usage = 2,
    /// The loss became infinite or NaN; no weight was changed by it.
    NonFinite = 3,
    /// A file that a run depends on changed underneath it.
    InputChanged = 4,
    /// The plan needs more memory or disk than there is.
    DoesNotFit = 5,
    /// Another process writes to the same output.
    OutputLocked = 6,
    /// A journal has damage before its last record.
    JournalDamaged = 7,
    /// Reading or writing failed (`EX_IOERR` of sysexits.h).
    Io = 74,
    /// SIGINT: 128 + 2.
    Interrupted = 130,
    /// SIGTERM: 128 + 15.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
