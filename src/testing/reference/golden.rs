//! Recorded outputs of `transformers` and the tiny checkpoints they belong to (`tests/golden/models/README.md`).
//!
//! *What it is not.* The program's reader: files are read by the `safetensors` crate and trusted; whatever is wrong with
//! them panics.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use half::bf16;
use safetensors::{Dtype, SafeTensors};

use super::Role;
use crate::model::{ArchSpec, Config, Slot, Tensors, families};

/// The golden checkpoints with recorded outputs.
pub const NAMES: [&str; 12] = [
    "bert-cls",
    "bert-mlm",
    "gpt2",
    "llama",
    "llama-bf16",
    "llama3-rope-tied",
    "mistral",
    "opt",
    "opt-postln-proj",
    "qwen2",
    "roberta-cls",
    "roberta-mlm",
];

/// The directory of a golden checkpoint.
pub fn directory(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/models")).join(name)
}

/// A tensor of a file, whatever its type: integers of interest are far below 2⁵³.
#[derive(Clone, Debug)]
pub struct Array {
    /// The dimensions.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<f64>,
}

/// The tensors of a safetensors file.
///
/// # Panics
/// If it cannot be read, or holds a type that no checkpoint of ours has.
pub fn arrays(file: &Path) -> BTreeMap<String, Array> {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let array = |view: &safetensors::tensor::TensorView<'_>| {
        let words = |size| view.data().chunks_exact(size);
        let values = match view.dtype() {
            Dtype::F32 => words(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect(),
            Dtype::BF16 => words(2).map(|b| f64::from(bf16::from_le_bytes([b[0], b[1]]))).collect(),
            Dtype::I64 => words(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as f64).collect(),
            other => panic!("{}: values of type {other:?}", file.display()),
        };
        Array { shape: view.shape().to_vec(), values }
    };
    tensors.iter().map(|(name, view)| (name.to_owned(), array(&view))).collect()
}

/// A checkpoint read whole into f64.
#[derive(Debug)]
pub struct Weights {
    /// What it computes.
    pub spec: ArchSpec,
    names: &'static [(Slot, &'static str)],
    tensors: BTreeMap<String, Array>,
}

impl Weights {
    /// Reads `config.json` and all `model*.safetensors` of a directory.
    pub fn open(dir: &Path) -> Weights {
        let config = Config::read(&dir.join("config.json")).unwrap_or_else(|error| panic!("{error}"));
        let (spec, names) = families::read(&config).unwrap_or_else(|error| panic!("{error}"));
        let files = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        let is_shard = |file: &PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("model") && name.ends_with(".safetensors")
        };
        let tensors = files.filter(is_shard).flat_map(|file| arrays(&file)).collect();
        Weights { spec, names, tensors }
    }

    /// The name of a tensor.
    pub fn name(&self, slot: Slot, layer: usize, role: Role) -> String {
        let spelled = Tensors::new(self.names, |name| self.tensors.contains_key(name));
        match role {
            Role::Weight => spelled.weight(slot, layer),
            Role::Bias => spelled.bias(slot, layer),
        }
    }

    /// The names of all tensors.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The values of a tensor, a [`super::Source`].
    pub fn values(&self, slot: Slot, layer: usize, role: Role) -> Vec<f64> {
        let name = self.name(slot, layer, role);
        self.tensors.get(&name).unwrap_or_else(|| panic!("no tensor {name}")).values.clone()
    }
}

/// Recorded outputs.
#[derive(Debug)]
pub struct Golden {
    arrays: BTreeMap<String, Array>,
}

/// A sequence of a recorded batch without its padding.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its row in the batch.
    pub row: usize,
    /// Its columns in the batch.
    pub columns: Range<usize>,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// A label for each token, or one for the sequence; none where none were recorded.
    pub labels: Vec<i64>,
}

impl Golden {
    /// Reads a file of recorded outputs.
    pub fn open(file: &Path) -> Golden {
        Golden { arrays: arrays(file) }
    }

    /// Whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// An array by its name.
    pub fn array(&self, name: &str) -> &Array {
        self.arrays.get(name).unwrap_or_else(|| panic!("no array {name}"))
    }

    /// The one value of an array.
    pub fn value(&self, name: &str) -> f64 {
        match self.array(name).values[..] {
            [value] => value,
            ref values => panic!("{} values in {name}", values.len()),
        }
    }

    /// The gradients by the names of their parameters.
    pub fn gradients(&self) -> impl Iterator<Item = (&str, &Array)> {
        self.arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix("grad.")?, array)))
    }

    /// The sequences of the batch whose arrays begin with `side` (`right.`, `left.` or nothing).
    pub fn sequences(&self, side: &str) -> Vec<Sequence> {
        let mask = self.array(&format!("{side}attention_mask"));
        let [batch, width] = mask.shape[..] else { panic!("a mask of shape {:?}", mask.shape) };
        let labels = self.arrays.get(&format!("{side}labels"));
        let sequence = |row: usize| {
            let seen = &mask.values[row * width..(row + 1) * width];
            let start = seen.iter().position(|&seen| seen == 1.0).expect("a token");
            let columns = start..start + seen.iter().filter(|&&seen| seen == 1.0).count();
            let tokens = self.batch_row(&format!("{side}input_ids"), row, &columns);
            let labels = match labels {
                None => Vec::new(),
                Some(labels) if labels.shape.len() == 1 => vec![labels.values[row]],
                Some(_) => self.batch_row(&format!("{side}labels"), row, &columns).to_vec(),
            };
            Sequence {
                row,
                tokens: tokens.iter().map(|&token| token as u32).collect(),
                labels: labels.into_iter().map(|label| label as i64).collect(),
                columns,
            }
        };
        (0..batch).map(sequence).collect()
    }

    /// The rows of an array `[B, T, features]` that belong to a sequence, or its one row of `[B, features]`.
    pub fn rows(&self, name: &str, sequence: &Sequence) -> Vec<&[f64]> {
        let (width, columns) = match self.array(name).shape[..] {
            [_, columns, width] => {
                (width, sequence.columns.start + sequence.row * columns..sequence.columns.end + sequence.row * columns)
            }
            [_, width] => (width, sequence.row..sequence.row + 1),
            ref shape => panic!("{name} of shape {shape:?}"),
        };
        self.array(name).values[columns.start * width..columns.end * width].chunks_exact(width).collect()
    }

    fn batch_row(&self, name: &str, row: usize, columns: &Range<usize>) -> &[f64] {
        let array = self.array(name);
        let [_, width] = array.shape[..] else { panic!("{name} of shape {:?}", array.shape) };
        &array.values[row * width + columns.start..row * width + columns.end]
    }
}
