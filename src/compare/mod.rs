//! Comparisons: several methods on one job, each with the same budget, and the picture that users decide by.
//!
//! *What it is.* A [`Plan`] says which [`Cell`]s there are and which comes next; a [`Launcher`] runs one as `zofo train` in
//! a process of its own; a [`Ledger`] keeps what they came to; a [`Session`] does one after the other; a [`Comparison`]
//! says how methods stand, and [`report`] writes it down.
//!
//! *What it is not.* No training: a cell is an ordinary run, which can be replayed, exported and gone on with.
//!
//! *What must stay true.* What chooses and what counts are kept apart: rates are chosen on dev with one seed, scores are
//! reported of others. One cell runs at a time. A comparison may end at any moment and goes on to the same plan.

mod cell;
mod error;
mod halving;
mod ledger;
mod measure;
mod plan;
pub mod report;
mod running;
mod session;
pub mod standing;

pub use cell::{CELLS, Cell, Stage};
pub use error::CompareError;
pub use ledger::{Ended, Ledger, Measured, Outcome, Point, Scored};
pub use plan::{Outlook, Plan};
pub use running::{Ending, Launcher, Sign};
pub use session::{Conclusion, Event, Session};
pub use standing::{Comparison, Standing, Verdict};
