//! Training: from a run file to tuned weights and the record of how they came to be.
//!
//! *What it is.* [`RunFile`] reads what is to be done, [`Job`] opens what it names, [`LiveOracle`] answers an optimizer's
//! questions about a model on its data, [`Run`] takes the steps, evaluates ([`Exam`]), keeps snapshots and ends in a
//! [`Report`]; [`Replayed`] makes weights again without data, [`Plan`] says what a run will need. [`RunDir`] is the one
//! place where a run writes, [`Metrics`] says a line a step, [`Interrupt`] hears the signals that end a run early.
//!
//! *What it is not.* No losses (`objective`), no updates (`optim`), no format of a record (`journal`).
//!
//! *What must stay true.* A run file is read whole and checked before anything is done; one process writes to a run
//! directory; every file of it is replaced whole or appended to, so that a process may end at any moment.

mod config;
mod duration;
mod error;
mod exam;
mod job;
mod live_oracle;
mod memory;
mod metrics;
mod nearest;
mod plan;
mod pools;
mod replay;
mod report;
mod run;
mod run_dir;
mod scope;
mod selection;
mod signals;
mod snapshot;
mod tuned;

pub use config::{
    Budget, CompareConfig, DataConfig, LoopConfig, MAX_RUN_FILE_BYTES, Method, OptimizerConfig, RunConfig, RunFile,
    TuneConfig,
};
pub use duration::duration;
pub use error::{Difference, Origin, Place, TrainError};
pub use exam::{Exam, Score};
pub use job::{Job, first_difference};
pub use live_oracle::LiveOracle;
pub use memory::Resident;
pub use metrics::{Metrics, StepMetrics};
pub use plan::Plan;
pub use replay::{Replayed, Which};
pub use report::{Best, Partition, Report};
pub use run::{Event, Outcome, Run, finished};
pub use run_dir::{Layout, RunDir, lock, replace_file};
pub use scope::trainable;
pub use selection::{Mark, Selection};
pub use signals::Interrupt;
pub use tuned::Tuned;
