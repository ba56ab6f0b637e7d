//! What parameters were before training: in the mapping of the checkpoint where they lie in one, else in memory.

use std::sync::Arc;

use super::Checkpoint;
use crate::{direction::Anchor, tensor::WeightRef};

/// A matrix in a checkpoint.
#[derive(Debug)]
pub(super) struct Mapped {
    /// Has the tensor, in this shape and in a type that is computed with.
    pub(super) checkpoint: Arc<Checkpoint>,
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// Values in memory.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) values: Arc<[f32]>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl Anchor for Mapped {
    fn weight(&self) -> WeightRef<'_> {
        let tensor = self.checkpoint.find(&self.name).expect("the checkpoint has the tensor");
        tensor.weight(self.rows, self.cols).expect("it was checked when the store was opened")
    }
}

impl Anchor for Kept {
    fn weight(&self) -> WeightRef<'_> {
        WeightRef::f32(&self.values, self.rows, self.cols)
    }
}
