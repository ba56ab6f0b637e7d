//! A model directory: its tensors by name, from one file or from several behind an index.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use super::{Entry, IndexProblem, Mapping, StoredType, WeightsError, header, index};
use crate::tensor::WeightRef;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint directory, opened: every header is read and checked, no tensor is touched yet.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<Mapping>,
    /// Name → file and entry, in bytewise order of names.
    tensors: BTreeMap<String, (usize, Entry)>,
}

/// One tensor of a [`Checkpoint`].
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    name: &'a str,
    file: &'a Mapping,
    entry: &'a Entry,
}

impl Checkpoint {
    /// Opens a Hugging Face model directory: `model.safetensors` or, with several shards,
    /// `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file: nothing to read, a header or index that breaks the format, a shard
    /// outside the directory.
    pub fn open(dir: &Path) -> Result<Checkpoint, WeightsError> {
        let failed = |source| WeightsError::Read { path: dir.to_owned(), source };
        // The real directory: a link to a checkpoint is fine, a link out of it is not.
        let dir = dir.canonicalize().map_err(failed)?;
        let mut checkpoint = Checkpoint { files: Vec::new(), tensors: BTreeMap::new(), dir };
        if checkpoint.dir.join(SINGLE).exists() {
            let (_, tensors) = checkpoint.add_file(SINGLE)?;
            checkpoint.tensors = tensors.into_iter().map(|(name, entry)| (name, (0, entry))).collect();
        } else if checkpoint.dir.join(INDEX).exists() {
            checkpoint.add_shards()?;
        } else {
            let other = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "model.gguf"];
            let instead = other.into_iter().find(|name| checkpoint.dir.join(name).exists()).map(str::to_owned);
            return Err(WeightsError::NoWeights { dir: checkpoint.dir, instead });
        }
        Ok(checkpoint)
    }

    /// The directory, without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files, in the order they were opened.
    pub fn files(&self) -> &[Mapping] {
        &self.files
    }

    /// All tensors in bytewise order of names.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.tensors.iter().map(|(name, (file, entry))| Tensor { name, file: &self.files[*file], entry })
    }

    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<Tensor<'_>> {
        let (name, (file, entry)) = self.tensors.get_key_value(name)?;
        Some(Tensor { name, file: &self.files[*file], entry })
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`WeightsError::Missing`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, WeightsError> {
        self.find(name).ok_or_else(|| WeightsError::Missing { dir: self.dir.clone(), name: name.to_owned() })
    }

    /// Brings all files into memory, calling `progress` with the bytes brought and their total now and then.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] naming a file that is shorter than it was when it was opened.
    pub fn populate(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), WeightsError> {
        /// Bytes between two calls of `progress`: 10 to 100 ms of reading.
        const STEP: usize = 64 << 20;
        let total = self.files.iter().map(|file| file.bytes().len() as u64).sum();
        let mut done = 0;
        for file in &self.files {
            let bytes = file.bytes().len();
            for start in (0..bytes).step_by(STEP) {
                let end = bytes.min(start + STEP);
                file.populate(start..end)?;
                done += (end - start) as u64;
                progress(done, total);
            }
        }
        Ok(())
    }

    /// Checks that every file is still the one that was opened.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] naming the first that is not.
    pub fn check_unchanged(&self) -> Result<(), WeightsError> {
        self.files.iter().try_for_each(Mapping::check_unchanged)
    }

    /// Maps a file of the directory and reads its header.
    fn add_file(&mut self, name: &str) -> Result<(usize, Vec<(String, Entry)>), WeightsError> {
        let path = self.dir.join(name);
        let real = path.canonicalize().map_err(|source| WeightsError::Read { path: path.clone(), source })?;
        if real.parent() != Some(&self.dir) {
            return Err(WeightsError::NotAFile { path, found: "a link out of the directory" });
        }
        let mapping = Mapping::open(&path)?;
        let entries = header::read(mapping.bytes()).map_err(|problem| WeightsError::Header { path, problem })?;
        self.files.push(mapping);
        Ok((self.files.len() - 1, entries))
    }

    fn add_shards(&mut self) -> Result<(), WeightsError> {
        let path = self.dir.join(INDEX);
        let index = read_index(&path)?;
        let wrong = |problem| WeightsError::Index { path: path.clone(), problem };
        let mut shards: BTreeMap<&str, (usize, BTreeMap<String, Entry>)> = BTreeMap::new();
        for (name, shard) in &index {
            if !shards.contains_key(shard.as_str()) {
                let (file, entries) = self.add_file(shard)?;
                shards.insert(shard, (file, entries.into_iter().collect()));
            }
            let (file, entries) = shards.get_mut(shard.as_str()).expect("just inserted");
            let Some(entry) = entries.remove(name) else {
                return Err(wrong(IndexProblem::NotInShard { name: name.clone(), shard: shard.clone() }));
            };
            self.tensors.insert(name.clone(), (*file, entry));
        }
        Ok(())
    }
}

/// Reads the index: (tensor, shard), in bytewise order of tensors.
fn read_index(path: &Path) -> Result<Vec<(String, String)>, WeightsError> {
    let failed = |source| WeightsError::Read { path: path.to_owned(), source };
    let wrong = |problem| WeightsError::Index { path: path.to_owned(), problem };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > index::MAX_BYTES {
        return Err(wrong(IndexProblem::Length { bytes, limit: index::MAX_BYTES }));
    }
    index::read(&fs::read(path).map_err(failed)?).map_err(wrong)
}

impl<'a> Tensor<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }
    /// Its shape, outermost dimension first.
    pub fn shape(&self) -> &'a [usize] {
        &self.entry.shape
    }
    /// How its values are stored.
    pub fn dtype(&self) -> StoredType {
        self.entry.dtype
    }
    /// How many values it has.
    pub fn elements(&self) -> usize {
        // The header's reader found this product to agree with the file's size.
        self.entry.shape.iter().product()
    }
    /// Its bytes as stored, little-endian.
    pub fn bytes(&self) -> &'a [u8] {
        &self.file.bytes()[self.entry.bytes.clone()]
    }

    /// Reads its bytes from byte `first` on from the file itself: what is read so does not stay in memory, as pages of
    /// the mapping would.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] if the file has become shorter, [`WeightsError::Read`] if it cannot be read.
    ///
    /// # Panics
    /// If the tensor ends before `bytes` is full.
    pub fn read(&self, first: usize, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let range = &self.entry.bytes;
        assert!(first + bytes.len() <= range.len(), "bytes {first}.. of a tensor of {}", range.len());
        self.file.read(range.start + first, bytes)
    }

    /// The tensor as a weight `[rows, cols]`, as it lies in the file.
    ///
    /// # Errors
    /// [`WeightsError::Shape`] if it has another shape, [`WeightsError::Type`] if it is not stored as F32, BF16
    /// or F16, or not at an address of that type.
    pub fn weight(&self, rows: usize, cols: usize) -> Result<WeightRef<'a>, WeightsError> {
        self.expect_shape(&[rows, cols])?;
        let bytes = self.bytes();
        let weight = match self.entry.dtype {
            StoredType::F32 => bytemuck::try_cast_slice(bytes).map(|data| WeightRef::f32(data, rows, cols)),
            StoredType::Bf16 => bytemuck::try_cast_slice(bytes).map(|data| WeightRef::bf16(data, rows, cols)),
            StoredType::F16 => bytemuck::try_cast_slice(bytes).map(|data| WeightRef::f16(data, rows, cols)),
            StoredType::Other(_) => return Err(self.type_error(self.entry.dtype.to_string())),
        };
        weight.map_err(|_| self.type_error(format!("{} at an odd address", self.entry.dtype)))
    }

    /// The tensor's values in f32, read past the mapping: of a page that is read through it, the system may bring in the two
    /// megabytes around, which for norms and biases is most of the file.
    ///
    /// # Errors
    /// As [`Tensor::weight`] and [`Tensor::read`].
    pub fn values(&self, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        self.expect_shape(shape)?;
        let mut bytes = vec![0; self.entry.bytes.len()];
        self.read(0, &mut bytes)?;
        let wide = |widen: fn([u8; 2]) -> f32| bytes.as_chunks().0.iter().map(|&pair| widen(pair)).collect();
        Ok(match self.entry.dtype {
            StoredType::F32 => bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect(),
            StoredType::Bf16 => wide(|pair| bf16::from_le_bytes(pair).to_f32()),
            StoredType::F16 => wide(|pair| f16::from_le_bytes(pair).to_f32()),
            StoredType::Other(_) => return Err(self.type_error(self.entry.dtype.to_string())),
        })
    }

    fn expect_shape(&self, expected: &[usize]) -> Result<(), WeightsError> {
        if self.entry.shape == expected {
            return Ok(());
        }
        Err(WeightsError::Shape {
            path: self.file.path().to_owned(),
            name: self.name.to_owned(),
            found: self.entry.shape.clone(),
            expected: expected.to_vec(),
        })
    }

    fn type_error(&self, found: String) -> WeightsError {
        WeightsError::Type { path: self.file.path().to_owned(), name: self.name.to_owned(), found }
    }
}
