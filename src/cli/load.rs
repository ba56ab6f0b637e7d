//! Opening a model for a command, with progress.

use std::path::Path;

use super::{Failure, console::Console};
use crate::model::Model;

/// Bytes from which reading a checkpoint is worth a line: about a second from a disk.
const LONG: u64 = 1 << 29;

/// Opens the model in `dir` and brings its files into memory.
pub(super) fn model(dir: &Path, console: &mut Console) -> Result<Model, Failure> {
    let model = Model::open(dir)?;
    if let Some(checkpoint) = model.store().checkpoint() {
        checkpoint.populate(&mut |done, total| {
            if total >= LONG {
                console.progress(&format!("reading {}: {} of {} MB", dir.display(), done >> 20, total >> 20), false);
            }
        })?;
        console.clear();
    }
    Ok(model)
}
