//! Tensors, written to a temporary sibling, synced and renamed.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};

use crate::{cli::Failure, train::replace_file};

/// A tensor to write.
pub(super) struct Values {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Values {
    pub(super) fn f32(name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) -> Self {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Values { name: name.into(), shape, dtype: Dtype::F32, bytes }
    }

    pub(super) fn f64(name: impl Into<String>, shape: Vec<usize>, values: Vec<f64>) -> Self {
        let bytes = values.into_iter().flat_map(f64::to_le_bytes).collect();
        Values { name: name.into(), shape, dtype: Dtype::F64, bytes }
    }
}

/// Writes the file whole, or leaves what was there.
pub(super) fn write(tensors: &[Values], path: &Path) -> Result<(), Failure> {
    let views = tensors.iter().map(|Values { name, shape, dtype, bytes }| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("as many bytes as the shape says"))
    });
    let bytes = safetensors::serialize(views, None).expect("tensors of distinct names serialise");
    Ok(replace_file(path, &bytes)?)
}
