//! Data: texts and examples from files, cut into what a model reads, and the draws that sampling needs.
//!
//! *What it is not.* No model and no loss (`objective`). *What must stay true*: data files are untrusted, so every error
//! names the file and the line; what is drawn depends on the seed and the place of the draw, never on a cursor.

mod draws;
mod reader;
mod windows;

pub use draws::Draws;
pub use reader::{ReadError, Text, read_texts};
pub use windows::{Window, windows};
