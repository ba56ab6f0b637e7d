//! One tensor, written to a temporary sibling, synced and renamed.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorView};

use crate::cli::Failure;

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
        let failed = |source| Failure::Write { path: path.to_owned(), source };
        let view =
            TensorView::new(self.dtype, self.shape.clone(), &self.bytes).expect("as many bytes as the shape says");
        let bytes = safetensors::serialize([(self.name, view)], None).expect("a tensor serialises");
        let parent =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(PathBuf::from("."), PathBuf::from);
        let mut file = tempfile::NamedTempFile::new_in(&parent).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        File::open(&parent).and_then(|parent| parent.sync_all()).map_err(failed)
    }
}
