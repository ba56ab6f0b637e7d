//! Whole runs of `zofo train` on the demo's small model, ended in every way a run can end, and made again.

mod compare;
mod ends;
mod gradients;
mod harness;
mod refusals;
mod results;
mod variants;
