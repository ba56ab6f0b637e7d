//! Writes a model directory as Hugging Face's libraries load it: whole, or not at all.
//!
//! *What it is.* [`Export`] collects files in a hidden sibling of the target, syncs each, and renames the sibling
//! into place. Tensors are streamed: the header is known from names, types and shapes before any value is.
//!
//! *What it is not.* It converts nothing and knows no model: whoever calls brings bytes.
//!
//! *What must stay true.* Nothing that exists is overwritten. After a crash, a full disk or an error there is no
//! target; after [`Export::finish`] there is a whole one that survives a power failure.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{StoredType, WeightsError};

/// The files beside weights and `config.json` that make a directory usable: tokenizer, chat template, generation.
pub const COMPANIONS: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
];

/// Hugging Face's own limit for a file of weights.
const SHARD_BYTES: u64 = 5_000_000_000;

/// A directory being written.
#[derive(Debug)]
pub struct Export {
    target: PathBuf,
    /// The hidden sibling; gone once it is renamed.
    partial: Option<PathBuf>,
    shard_bytes: u64,
    written: u64,
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// How its values are stored.
    pub dtype: StoredType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl TensorPlan {
    /// Its size in the file.
    pub fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.dtype.bits()).div_ceil(8) as u64
    }
}

/// Takes the bytes of one tensor.
pub struct TensorSink<'a> {
    file: &'a mut BufWriter<File>,
    path: &'a Path,
    /// What is still to come.
    left: u64,
}

impl TensorSink<'_> {
    /// Writes the tensor's next bytes, row-major and little-endian.
    ///
    /// # Errors
    /// [`WeightsError::Write`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), WeightsError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.expect("no more bytes than the tensor was planned with");
        self.file.write_all(bytes).map_err(write_failed(self.path))
    }
}

impl Export {
    /// Begins a directory at `target`, which must not exist or be empty, made from `source`, which it may not lie in.
    ///
    /// # Errors
    /// [`WeightsError::Target`] if nothing may be written there, [`WeightsError::Write`] if nothing can.
    pub fn create(target: &Path, source: &Path) -> Result<Export, WeightsError> {
        let refused = |reason| WeightsError::Target { path: target.to_owned(), reason };
        let name = target.file_name().ok_or_else(|| refused("it names no directory; give a new one"))?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.exists() {
            return Err(refused("the directory it lies in does not exist; make that first"));
        }
        let parent = parent.canonicalize().map_err(write_failed(parent))?;
        let place = parent.join(name);
        let read_failed = |source_error| WeightsError::Read { path: source.to_owned(), source: source_error };
        if place.starts_with(source.canonicalize().map_err(read_failed)?) {
            return Err(refused("it lies in the model that is read; give a directory elsewhere"));
        }
        match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(write_failed(&place)(error)),
            Ok(found) if !found.is_dir() => {
                return Err(refused("something that is no directory has this name; nothing is overwritten"));
            }
            Ok(_) => {
                if fs::read_dir(&place).map_err(write_failed(&place))?.next().is_some() {
                    return Err(refused("it is not empty, and nothing is overwritten; give a new directory"));
                }
            }
        }
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".partial-{}", std::process::id()));
        let partial = parent.join(hidden);
        fs::create_dir(&partial).map_err(write_failed(&partial))?;
        Ok(Export { target: place, partial: Some(partial), shard_bytes: SHARD_BYTES, written: 0 })
    }

    /// The same with another limit for a file of weights (a tensor that is larger has a file of its own).
    #[must_use]
    pub fn with_shard_bytes(mut self, shard_bytes: u64) -> Export {
        self.shard_bytes = shard_bytes;
        self
    }

    fn partial(&self) -> &Path {
        self.partial.as_deref().expect("only `finish`, which consumes the export, takes it")
    }

    /// Writes the file `name`, which must be new, by `content`, and syncs it.
    ///
    /// # Errors
    /// [`WeightsError::Write`] naming the file.
    pub fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), WeightsError> {
        let path = self.partial().join(name);
        let failed = write_failed(&path);
        self.write_file(name, |file, _| content(file).map_err(failed))
    }

    /// Writes the file `name` with these bytes.
    ///
    /// # Errors
    /// As [`Export::write`].
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), WeightsError> {
        self.write(name, |file| file.write_all(bytes))
    }

    /// Writes the file `name` as indented JSON.
    ///
    /// # Errors
    /// As [`Export::write`].
    pub fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<(), WeightsError> {
        self.write(name, |file| {
            serde_json::to_writer_pretty(&mut *file, value)?;
            writeln!(file)
        })
    }

    /// Copies the file `name` of the directory `from`, if it is there; answers whether it is.
    ///
    /// # Errors
    /// [`WeightsError::NotAFile`] for a directory, a device or a link out of `from`, [`WeightsError::Read`],
    /// [`WeightsError::Write`].
    pub fn copy_file(&mut self, from: &Path, name: &str) -> Result<bool, WeightsError> {
        let path = from.join(name);
        let read_failed = |source| WeightsError::Read { path: path.clone(), source };
        let real = match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            real => real.map_err(read_failed)?,
        };
        if real.parent() != Some(&from.canonicalize().map_err(read_failed)?) {
            return Err(WeightsError::NotAFile { path, found: "a link out of the directory" });
        }
        if !real.is_file() {
            return Err(WeightsError::NotAFile { path, found: "a directory, device or pipe" });
        }
        let mut original = File::open(&real).map_err(read_failed)?;
        self.write(name, |file| io::copy(&mut original, file).map(|_| ()))?;
        Ok(true)
    }

    /// Copies those of [`COMPANIONS`] that `from` has.
    ///
    /// # Errors
    /// As [`Export::copy_file`].
    pub fn copy_companions(&mut self, from: &Path) -> Result<(), WeightsError> {
        COMPANIONS.iter().try_for_each(|name| self.copy_file(from, name).map(|_| ()))
    }

    /// Writes all `tensors`: `model.safetensors`, or shards and their index. `fill` is called for every tensor
    /// once, with its place in `tensors`, and puts exactly its bytes.
    ///
    /// Values of more bits come first, so that none lies at an odd address; of one type tensors are in bytewise
    /// order of names.
    ///
    /// # Errors
    /// Those of `fill`, and [`WeightsError::Write`].
    pub fn safetensors(
        &mut self,
        tensors: &[TensorPlan],
        mut fill: impl FnMut(usize, &mut TensorSink<'_>) -> Result<(), WeightsError>,
    ) -> Result<(), WeightsError> {
        let shards = shards(tensors, self.shard_bytes);
        if let [all] = &shards[..] {
            return self.shard("model.safetensors", tensors, all, &mut fill);
        }
        let mut weight_map = Map::new();
        for (number, shard) in shards.iter().enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
            self.shard(&name, tensors, shard, &mut fill)?;
            weight_map.extend(shard.iter().map(|&index| (tensors[index].name.clone(), json!(name))));
        }
        let total: u64 = tensors.iter().map(TensorPlan::bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        self.write_json("model.safetensors.index.json", &index)
    }

    /// Writes all `tensors` to the one file `name`, in the order and by the `fill` of [`Export::safetensors`].
    ///
    /// # Errors
    /// As [`Export::safetensors`].
    pub fn safetensors_file(
        &mut self,
        name: &str,
        tensors: &[TensorPlan],
        mut fill: impl FnMut(usize, &mut TensorSink<'_>) -> Result<(), WeightsError>,
    ) -> Result<(), WeightsError> {
        let all = shards(tensors, u64::MAX).concat();
        self.shard(name, tensors, &all, &mut fill)
    }

    fn shard(
        &mut self,
        name: &str,
        tensors: &[TensorPlan],
        shard: &[usize],
        fill: &mut impl FnMut(usize, &mut TensorSink<'_>) -> Result<(), WeightsError>,
    ) -> Result<(), WeightsError> {
        self.write_file(name, |file, path| {
            let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
            let head = head(&metadata, shard.iter().map(|&index| &tensors[index]));
            file.write_all(&head).map_err(write_failed(path))?;
            for &index in shard {
                let mut sink = TensorSink { file, path, left: tensors[index].bytes() };
                fill(index, &mut sink)?;
                assert_eq!(sink.left, 0, "bytes of {:?} that were planned and not written", tensors[index].name);
            }
            Ok(())
        })
    }

    /// Creates, fills and syncs a file.
    fn write_file(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut BufWriter<File>, &Path) -> Result<(), WeightsError>,
    ) -> Result<(), WeightsError> {
        let path = self.partial().join(name);
        let failed = || write_failed(&path);
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&path).map_err(failed())?);
        content(&mut file, &path)?;
        let file = file.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        self.written += file.metadata().map_err(failed())?.len();
        Ok(())
    }

    /// Puts the directory into its place; answers the bytes of all its files.
    ///
    /// # Errors
    /// [`WeightsError::Write`]. There is no target then, unless only the last sync failed, that of the directory
    /// around it: then it is whole, but a power failure may undo it.
    pub fn finish(mut self) -> Result<u64, WeightsError> {
        sync_directory(self.partial())?;
        fs::rename(self.partial(), &self.target).map_err(write_failed(&self.target))?;
        self.partial = None;
        sync_directory(self.target.parent().expect("its name was joined to a directory"))?;
        Ok(self.written)
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            // Whatever ended the export is the error to report, not a leftover.
            let _ = fs::remove_dir_all(partial);
        }
    }
}

/// The tensors of each file of at most `limit` bytes (a larger tensor has one of its own), by their place in `tensors`.
fn shards(tensors: &[TensorPlan], limit: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| &tensors[index].name);
    let distinct = order.windows(2).all(|pair| tensors[pair[0]].name != tensors[pair[1]].name);
    assert!(distinct, "two tensors of one name");
    let (mut shards, mut size) = (vec![Vec::new()], 0);
    for index in order {
        let bytes = tensors[index].bytes();
        if size > 0 && bytes > limit.saturating_sub(size) {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        shards.last_mut().expect("it starts with one").push(index);
    }
    for shard in &mut shards {
        shard.sort_by_key(|&index| std::cmp::Reverse(tensors[index].dtype.bits()));
    }
    shards
}

/// What a file with these tensors one after the other begins with: the length of its header, and the header, padded so
/// that the tensors start at a multiple of eight.
pub(super) fn head<'a>(metadata: &BTreeMap<String, String>, tensors: impl Iterator<Item = &'a TensorPlan>) -> Vec<u8> {
    let mut entries = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype.to_string(), "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(tensor.name.clone(), entry);
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// Writes down the names in a directory, which syncing its files does not.
fn sync_directory(path: &Path) -> Result<(), WeightsError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(write_failed(path))
}

pub(super) fn write_failed(path: &Path) -> impl FnOnce(io::Error) -> WeightsError {
    let path = path.to_owned();
    |source| WeightsError::Write { path, source }
}

#[cfg(test)]
mod tests;
