//! What can be wrong with a choice of optimizer and options, and how a run can fail.

use super::OracleError;

/// Why an optimizer cannot be built or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// No optimizer of that name.
    #[error("there is no optimizer {found:?}; the nearest name is {nearest:?}, and `zofo list optimizers` shows all")]
    UnknownOptimizer {
        /// What was asked for.
        found: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// No option of that name.
    #[error("optimizer {optimizer} has no option {found:?}; the nearest name is {nearest:?}")]
    UnknownOption {
        /// The optimizer.
        optimizer: &'static str,
        /// What was given.
        found: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// An option's value is of another type or out of range.
    #[error("option {option} of {optimizer} is {found}, expected {expected}")]
    OptionValue {
        /// The optimizer.
        optimizer: &'static str,
        /// The option.
        option: &'static str,
        /// The value, as it stands in the run file.
        found: String,
        /// What the option takes.
        expected: &'static str,
    },
    /// Step after step the loss was not a finite number; no weight was changed by those steps.
    #[error(
        "the loss was not finite in {count} steps in a row, up to step {step}: lower lr or epsilon, or look for broken \
         examples"
    )]
    NonFinite {
        /// How many steps.
        count: u64,
        /// The last of them, from 1.
        step: u64,
    },
    /// The world behind the oracle failed.
    #[error(transparent)]
    Oracle(#[from] OracleError),
}

impl OptimError {
    /// The option at fault, if one is.
    pub fn option(&self) -> Option<&str> {
        match self {
            OptimError::UnknownOption { found, .. } => Some(found),
            OptimError::OptionValue { option, .. } => Some(option),
            OptimError::UnknownOptimizer { .. } | OptimError::NonFinite { .. } | OptimError::Oracle(_) => None,
        }
    }
}
