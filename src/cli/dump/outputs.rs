//! One tensor, written to a temporary sibling, synced and renamed.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};

use crate::{cli::Failure, train::replace_file};

/// A tensor to write.
pub(super) struct Values {
    pub(super) name: &'static str,
    pub(super) shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Values {
    pub(super) fn f32(name: &'static str, shape: Vec<usize>, values: Vec<f32>) -> Self {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Values { name, shape, dtype: Dtype::F32, bytes }
    }

    pub(super) fn f64(name: &'static str, shape: Vec<usize>, values: Vec<f64>) -> Self {
        let bytes = values.into_iter().flat_map(f64::to_le_bytes).collect();
        Values { name, shape, dtype: Dtype::F64, bytes }
    }

    /// Writes the file whole, or leaves what was there.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let view =
            TensorView::new(self.dtype, self.shape.clone(), &self.bytes).expect("as many bytes as the shape says");
        let bytes = safetensors::serialize([(self.name, view)], None).expect("a tensor serialises");
        Ok(replace_file(path, &bytes)?)
    }
}
