//! Training: the run file, the run directory, what a step reports, and how a run is asked to stop.
//!
//! *What it is.* [`RunFile`] reads what is to be done, [`RunDir`] holds the one place where a run writes, [`Metrics`]
//! says a line a step, [`Interrupt`] hears the signals that end a run early.
//!
//! *What it is not.* It computes nothing: losses are for `objective`, updates for `optim`, the record for `journal`.
//!
//! *What must stay true.* A run file is read whole and checked before anything is done; one process writes to a run
//! directory; every file of it is replaced whole or appended to, so that a process may end at any moment.

mod config;
mod error;
mod exam;
mod job;
mod live_oracle;
mod memory;
mod metrics;
mod nearest;
mod plan;
mod replay;
mod report;
mod run;
mod run_dir;
mod scope;
mod selection;
mod signals;
mod snapshot;
mod tuned;

pub use config::{DataConfig, LoopConfig, MAX_RUN_FILE_BYTES, OptimizerConfig, RunConfig, RunFile, TuneConfig};
pub use error::{Difference, Origin, Place, TrainError};
pub use exam::{Exam, Score};
pub use job::Job;
pub use live_oracle::LiveOracle;
pub use memory::Resident;
pub use metrics::{Metrics, StepMetrics};
pub use plan::Plan;
pub use replay::{Replayed, Which};
pub use report::{Best, Report};
pub use run::{Event, Outcome, Run, finished};
pub use run_dir::{Layout, RunDir, replace_file};
pub use scope::trainable;
pub use selection::{Mark, Selection};
pub use signals::Interrupt;
pub use tuned::Tuned;
