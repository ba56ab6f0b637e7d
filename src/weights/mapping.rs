//! Files as memory: the only place that maps one.
//!
//! *What must stay true.* A mapping is read-only and private. The file's identity (device, inode, size,
//! time of modification) is taken from the open file before it is mapped and compared again by
//! [`Mapping::check_unchanged`]: a page that another process rewrites changes under the mapping without a
//! signal, so results are trusted only if the identity is the same afterwards. A page past the new end of a file
//! that shrank is a SIGBUS: the handler installed here says which file and ends the process with code 74; it never
//! returns to code that would have read the page.
#![allow(unsafe_code, reason = "one of the four files where `unsafe` may stand")]

use std::{
    fs::{File, Metadata},
    ops::Range,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    ptr,
    sync::{
        Once,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

use memmap2::{Advice, Mmap, MmapOptions};

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
    file: File,
    map: Mmap,
    watched: &'static Watched,
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
        let map = unsafe { MmapOptions::new().map_copy_read_only(&file) }.map_err(failed)?;
        let watched = Watched::add(path, map.as_ptr_range());
        Ok(Mapping { path: path.to_owned(), identity: Identity::of(&metadata), file, map, watched })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Brings a range of the file into memory, so that a shrunken file or a failing disk is an error here and no signal
    /// later. Where the kernel cannot say (before Linux 5.14), nothing is brought and nothing is wrong.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] if the file ends before the range does.
    pub fn populate(&self, range: Range<usize>) -> Result<(), WeightsError> {
        let cut_short = |error: &std::io::Error| error.raw_os_error() == Some(libc::EFAULT);
        match self.map.advise_range(Advice::PopulateRead, range.start, range.len()) {
            Err(error) if cut_short(&error) => {
                Err(WeightsError::Changed { path: self.path.clone(), what: "it ends too early, or cannot be read" })
            }
            _ => Ok(()),
        }
    }

    /// Reads the bytes from `first` on past the mapping, which brings none of its pages into memory.
    ///
    /// # Errors
    /// [`WeightsError::Changed`] if the file ends before `bytes` is full, [`WeightsError::Read`] if it cannot be read.
    pub fn read(&self, first: usize, bytes: &mut [u8]) -> Result<(), WeightsError> {
        self.file.read_exact_at(bytes, first as u64).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                WeightsError::Changed { path: self.path.clone(), what: "it ends too early" }
            }
            _ => WeightsError::Read { path: self.path.clone(), source },
        })
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

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watched.end.store(0, Ordering::Release);
    }
}

/// A mapped range that the signal handler knows: a node of a list that only grows, since a handler may be walking it.
#[derive(Debug)]
struct Watched {
    start: usize,
    /// 0 once the file is unmapped.
    end: AtomicUsize,
    /// What the handler prints.
    message: Vec<u8>,
    next: *const Watched,
}

// SAFETY: a node is written before it is published and only its atomic field changes afterwards; `next` points to a
// node that lives as long as the program.
unsafe impl Sync for Watched {}
// SAFETY: as for `Sync`.
unsafe impl Send for Watched {}

static NEWEST: AtomicPtr<Watched> = AtomicPtr::new(ptr::null_mut());

impl Watched {
    /// Lets the signal handler know a mapping. About 200 bytes stay allocated for good.
    fn add(path: &Path, range: Range<*const u8>) -> &'static Watched {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the action allocates nothing, takes no lock and calls `write` and `_exit` only.
            let installed = unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, on_bus_error) };
            // Without a handler the signal still ends the process, only with fewer words.
            drop(installed);
        });
        let mut message = b"zofo: ".to_vec();
        message.extend_from_slice(path.as_os_str().as_bytes());
        message.extend_from_slice(b" shrank or cannot be read any more while it was in use\n");
        let node = Box::leak(Box::new(Watched {
            start: range.start as usize,
            end: AtomicUsize::new(range.end as usize),
            message,
            next: NEWEST.load(Ordering::Acquire),
        }));
        while let Err(newer) = NEWEST.compare_exchange(node.next.cast_mut(), node, Ordering::AcqRel, Ordering::Acquire)
        {
            node.next = newer;
        }
        node
    }
}

/// Runs in a signal handler: names the file that holds the address, and ends the process.
fn on_bus_error(info: &libc::siginfo_t) {
    // SAFETY: for SIGBUS the kernel sets the address.
    let address = unsafe { info.si_addr() } as usize;
    let mut node = NEWEST.load(Ordering::Acquire).cast_const();
    // SAFETY: nodes are published complete and never freed.
    while let Some(watched) = unsafe { node.as_ref() } {
        if (watched.start..watched.end.load(Ordering::Acquire)).contains(&address) {
            // SAFETY: the message is a live allocation of this length.
            unsafe { libc::write(libc::STDERR_FILENO, watched.message.as_ptr().cast(), watched.message.len()) };
            // SAFETY: `_exit` may be called from a handler and does not return.
            unsafe { libc::_exit(EXIT_IO) };
        }
        node = watched.next;
    }
    // Not a page of ours: the instruction is repeated under the default action, which ends the process.
    // SAFETY: `signal` may be called from a handler.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

/// `EX_IOERR`, the exit code of failed input and output.
const EXIT_IO: i32 = 74;
