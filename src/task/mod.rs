//! Data: texts and examples from files, cut into what a model reads, and how answers are scored.
//!
//! *What it is.* A [`Row`] of a data file becomes an [`Example`] by a [`Task`] (a template with its answers, itself a
//! file, or a [`Format`] of rows to be learnt as they are), and an example becomes the tokens of a model by an
//! [`Encoder`]: whole sequences with the tokens that are scored. [`Subsets`] and [`Batches`] say which examples come
//! when, a [`Judge`] scores what a model writes, [`Tally`] says what scores amount to.
//!
//! *What it is not.* No model and no loss (`objective`).
//!
//! *What must stay true.* Data and task files are untrusted, so every error names the file and the line; what is drawn
//! depends on the seed and the place of the draw, never on a cursor.

mod builtin;
mod definition;
mod draws;
mod encoding;
mod error;
mod example;
mod format;
mod judge;
mod label;
mod metric;
mod nearest;
mod reader;
mod sampling;
mod template;
mod windows;

pub use builtin::builtin_tasks;
pub use definition::{Generation, MAX_DEFINITION, Objective, Style, Task};
pub use draws::Draws;
pub use encoding::{Encoded, Encoder, Sequence};
pub use error::{DefinitionProblem, EncodeProblem, RowProblem, TaskError};
pub use example::{Example, Input};
pub use format::Format;
pub use judge::{Judge, Written};
pub use metric::{Metric, Tally, exact_match, f1, final_number, rouge_1, rouge_l};
pub use reader::{DataDirectory, FieldKind, Place, ReadError, Row, Text, read_rows, read_texts};
pub use sampling::{Batches, Subsets, TooFewExamples};
pub use template::MAX_STEPS;
pub use windows::{Window, windows};
