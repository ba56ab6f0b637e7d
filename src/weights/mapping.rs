//! Files as memory: the only place that maps one.
//!
//! *What must stay true.* A mapping is read-only and private. The file's identity (device, inode, size,
//! time of modification) is taken from the open file before it is mapped and compared again by
//! [`Mapping::check_unchanged`]: a page that another process rewrites changes under the mapping without a
//! signal, so results are trusted only if the identity is the same afterwards.
#![allow(unsafe_code, reason = "one of the four files where `unsafe` may stand")]

use std::{
    fs::{File, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use super::WeightsError;

/// What tells one file, and one state of it, from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// A file mapped into memory, read-only.
#[derive(Debug)]
pub struct Mapping {
    path: PathBuf,
    identity: Identity,
    map: Mmap,
}

impl Mapping {
    /// Maps a regular file.
    ///
    /// # Errors
    /// [`WeightsError::Read`] if it cannot be opened or mapped, [`WeightsError::NotAFile`] if it is no file.
    pub fn open(path: &Path) -> Result<Mapping, WeightsError> {
        let failed = |source| WeightsError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a directory" } else { "a device or pipe" };
            return Err(WeightsError::NotAFile { path: path.to_owned(), found });
        }
        // SAFETY: the map is private and never written, and its length is that of the open file. What no
        // program can exclude, another process changing the file, is what `check_unchanged` is for; any
        // bytes are valid values of the types that this floor reads.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Mapping { path: path.to_owned(), identity: Identity::of(&metadata), map })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The file as it was when it was mapped.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Compares the file under this path with the one that was mapped.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] if it is another file, has another size or was written since.
    pub fn check_unchanged(&self) -> Result<(), WeightsError> {
        let changed = |what| Err(WeightsError::Changed { path: self.path.clone(), what });
        let Ok(metadata) = std::fs::metadata(&self.path) else { return changed("it is gone") };
        let now = Identity::of(&metadata);
        let then = self.identity;
        if (now.device, now.inode) != (then.device, then.inode) {
            changed("another file has its name")
        } else if now.bytes != then.bytes {
            changed("its size differs")
        } else if now.modified != then.modified {
            changed("it was written to")
        } else {
            Ok(())
        }
    }
}
