//! The golden checkpoints of `tests/golden/models`: what transformers computed from them.

use std::{fs, path::PathBuf};

use safetensors::{Dtype, SafeTensors};

/// The recorded inputs and outputs of one golden checkpoint.
pub struct Golden {
    bytes: Vec<u8>,
}

/// Tokens of one sequence, and what stands beside each in the padded originals.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenSequence {
    /// The tokens that are no padding.
    pub ids: Vec<u32>,
    /// Their columns in the padded row.
    pub columns: Vec<usize>,
    /// Their labels; −100 where there is none. Empty for a classifier.
    pub labels: Vec<i64>,
}

impl Golden {
    /// The directory of a golden checkpoint.
    pub fn dir(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/models")).join(name)
    }

    /// The recorded numbers of checkpoint `name`.
    pub fn open(name: &str) -> Golden {
        let path = Golden::dir(name).join("golden.safetensors");
        Golden { bytes: fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) }
    }

    fn view<T>(&self, name: &str, dtype: Dtype, parse: impl Fn(&[u8]) -> T) -> Option<(Vec<usize>, Vec<T>)> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a golden file is safetensors");
        let view = tensors.tensor(name).ok()?;
        assert_eq!(view.dtype(), dtype, "{name}");
        let size = dtype.bitsize() / 8;
        Some((view.shape().to_vec(), view.data().chunks_exact(size).map(parse).collect()))
    }

    /// An f32 tensor and its shape, if it was recorded.
    pub fn floats(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.view(name, Dtype::F32, |bytes| f32::from_le_bytes(bytes.try_into().expect("4 bytes")))
    }

    /// An i64 tensor and its shape, if it was recorded.
    pub fn integers(&self, name: &str) -> Option<(Vec<usize>, Vec<i64>)> {
        self.view(name, Dtype::I64, |bytes| i64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }

    /// The sequences of one side, `right` or `left` padded, without their padding.
    pub fn sequences(&self, side: &str) -> Option<Vec<GoldenSequence>> {
        let (shape, ids) = self.integers(&format!("{side}.input_ids"))?;
        let mask = self.integers(&format!("{side}.attention_mask"))?.1;
        let labels = self.integers(&format!("{side}.labels")).map(|(_, labels)| labels).unwrap_or_default();
        let (rows, cols) = (shape[0], shape[1]);
        let sequence = |row: usize| {
            let columns: Vec<usize> = (0..cols).filter(|col| mask[row * cols + col] == 1).collect();
            let at = |values: &[i64]| columns.iter().map(|col| values[row * cols + col]).collect::<Vec<_>>();
            GoldenSequence {
                ids: at(&ids).into_iter().map(|id| u32::try_from(id).expect("a token id")).collect(),
                labels: if labels.len() == ids.len() { at(&labels) } else { Vec::new() },
                columns,
            }
        };
        Some((0..rows).map(sequence).collect())
    }
}
