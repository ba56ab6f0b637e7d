//! The one directory that a run writes to: made, locked, laid out.
//!
//! *What it is not.* It does not know what its files say: `config.toml` is the resolved run file, `journal.zofo` a
//! journal, `metrics.jsonl` a line a step, `report.json` the result, `last` and `best` directories of weights.
//!
//! *What must stay true.* While a [`RunDir`] lives no other process has one of the same directory, whatever ended the
//! process before; the lock is the system's, on the open file `lock`, and never outlives its process. Nothing is
//! written before the lock is held.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    ops::Deref,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::TrainError;
use crate::weights;

/// Where the files of a run directory are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    path: PathBuf,
}

/// A run directory that this process may write to.
#[derive(Debug)]
pub struct RunDir {
    layout: Layout,
    holds_run: bool,
    /// Held until dropped.
    _lock: File,
}

/// What the file `lock` says about the process that holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
}

impl RunDir {
    /// Makes and locks the directory `path` of a run on the model in `model`. One that holds a run is answered only if
    /// `resume` asks for it.
    ///
    /// # Errors
    /// [`TrainError::InModel`], [`TrainError::Locked`], [`TrainError::HoldsRun`], [`TrainError::Write`],
    /// [`TrainError::Read`].
    pub fn open(path: &Path, model: &Path, resume: bool) -> Result<RunDir, TrainError> {
        let write_failed = |source| TrainError::Write { path: path.to_owned(), source };
        let real_model = model.canonicalize().map_err(|source| TrainError::Read { path: model.to_owned(), source })?;
        let check_outside = |real: &Path| match real.starts_with(&real_model) {
            true => Err(TrainError::InModel { path: path.to_owned(), model: model.to_owned() }),
            false => Ok(()),
        };
        // Before anything is made, as far as it exists; and again, because `..` behind what is missing may lead
        // anywhere.
        let whole = std::path::absolute(path).map_err(write_failed)?;
        whole
            .ancestors()
            .find_map(|ancestor| ancestor.canonicalize().ok())
            .map_or(Ok(()), |real| check_outside(&real))?;
        fs::create_dir_all(path).map_err(write_failed)?;
        let path = path.canonicalize().map_err(write_failed)?;
        check_outside(&path)?;
        let lock = lock(&path)?;
        let journal = path.join("journal.zofo");
        let holds_run = journal.try_exists().map_err(|source| TrainError::Read { path: journal.clone(), source })?;
        if holds_run && !resume {
            return Err(TrainError::HoldsRun { path });
        }
        // What a run writes only after its journal: to begin anew would overwrite it.
        let mut results = ["last", "best", "report.json"].into_iter();
        if let Some(found) = results.find(|name| !holds_run && path.join(name).exists()) {
            return Err(TrainError::NoJournal { path, found });
        }
        Ok(RunDir { layout: Layout { path }, holds_run, _lock: lock })
    }

    /// Whether there was a journal when the directory was opened: what is there is to be continued.
    pub fn holds_run(&self) -> bool {
        self.holds_run
    }
}

impl Deref for RunDir {
    type Target = Layout;
    fn deref(&self) -> &Layout {
        &self.layout
    }
}

impl Layout {
    /// The files of the run directory `path`, to be read.
    pub fn of(path: &Path) -> Layout {
        Layout { path: path.to_owned() }
    }

    /// The directory; that of a [`RunDir`] is without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The resolved run file.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }
    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.zofo")
    }
    /// One JSON object a step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }
    /// The result, once there is one.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.json")
    }
    /// What the result says, once there is one.
    ///
    /// # Errors
    /// [`TrainError::Read`].
    pub fn read_report(&self) -> Result<Option<serde_json::Value>, TrainError> {
        match fs::read(self.report()) {
            Ok(report) => Ok(serde_json::from_slice(&report).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TrainError::Read { path: self.report(), source }),
        }
    }
    /// The weights after the last step that was kept.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }
    /// The weights with the best score.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }
}

/// Locks the file `lock` in `directory` and says in it who holds it.
///
/// The file stays when the lock ends: a process that removed it could remove another one's.
///
/// # Errors
/// [`TrainError::Locked`], [`TrainError::Write`].
pub fn lock(directory: &Path) -> Result<File, TrainError> {
    let path = directory.join("lock");
    let failed = |source| TrainError::Write { path: path.clone(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&mut file);
            let (pid, host) = (holder.as_ref().map(|holder| holder.pid), holder.map(|holder| holder.host));
            return Err(TrainError::Locked { path: directory.to_owned(), pid, host });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // Where the system does not say its name, the process number is what helps.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown".to_owned());
    let holder = Holder { pid: std::process::id(), host: host.trim().to_owned() };
    let line = format!("{}\n", serde_json::to_string(&holder).expect("a number and a text"));
    file.set_len(0).and_then(|()| file.write_all(line.as_bytes())).map_err(failed)?;
    Ok(file)
}

/// What the holder has written so far, if it can be understood.
fn holder(file: &mut File) -> Option<Holder> {
    const LONGEST: u64 = 4096;
    let mut text = String::new();
    file.rewind().and_then(|()| file.take(LONGEST).read_to_string(&mut text)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Puts `bytes` into the file `path` as [`weights::replace_file`] does.
///
/// # Errors
/// [`TrainError::Write`].
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let written = weights::replace_file(path, |file| file.write_all(bytes));
    written.map_err(|source| TrainError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
