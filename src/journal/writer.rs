//! Appends to a journal: every record is handed to the system before its step counts as done.
//!
//! *What must stay true.* A record is written whole at the end of the ones before it; if that fails, those before it
//! can still be read, and the next append takes the failed one's place. Syncing is a matter of policy, not of
//! correctness: steps that a power failure takes are computed again to the same bits.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Header, JournalError, Reader, Record, record::Link};

/// Where a journal is kept: a file, or what a test puts in its place.
pub trait Medium {
    /// Writes `bytes` at `offset`; on an error some of them may have been written.
    ///
    /// # Errors
    /// Those of the system.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts off what lies behind `length`.
    ///
    /// # Errors
    /// Those of the system.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Waits until what was written survives a power failure.
    ///
    /// # Errors
    /// Those of the system.
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// When what was appended is made to survive a power failure: as soon as either limit is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPolicy {
    /// The most records that wait.
    pub records: u32,
    /// How long a record waits, at most, for the append that syncs it.
    pub every: Duration,
}

impl Default for SyncPolicy {
    /// A second: what a power failure takes is computed again in about that time.
    fn default() -> Self {
        SyncPolicy { records: u32::MAX, every: Duration::from_secs(1) }
    }
}

/// A journal being appended to.
#[derive(Debug)]
pub struct Writer<M = File> {
    path: PathBuf,
    pub(super) medium: M,
    policy: SyncPolicy,
    link: Link,
    /// Where the next record goes: the end of the last whole one.
    end: u64,
    /// Records not yet synced, and when the last sync was.
    waiting: u32,
    synced: Instant,
    buffer: Vec<u8>,
}

impl Writer<File> {
    /// Begins a journal at `path`, where there must be none: it appears with its whole header, or not at all.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn create(path: &Path, header: &Header, policy: SyncPolicy) -> Result<Writer, JournalError> {
        let failed = |source| JournalError::Write { path: path.to_owned(), source };
        let bytes = header.encode();
        let mut hidden = OsString::from(".");
        hidden.push(path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?);
        hidden.push(".partial");
        let partial = path.with_file_name(hidden);
        let created = || {
            if path.try_exists()? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = File::create(&partial)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(file)
        };
        let file = created().map_err(failed)?;
        let link = Link { crc: Header::decode(&bytes).expect("encoded above").2, step: 0 };
        Ok(Writer::new(file, path, policy, link, bytes.len() as u64))
    }

    /// Goes on after the last record that `reader` answered. What follows it in the file, be it torn, damaged or sound,
    /// is cut off: that is how a run goes back to an earlier step.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn resume<R: io::Read>(reader: &Reader<R>, policy: SyncPolicy) -> Result<Writer, JournalError> {
        let failed = |source| JournalError::Write { path: reader.path().to_owned(), source };
        let mut file = OpenOptions::new().write(true).open(reader.path()).map_err(failed)?;
        file.truncate(reader.offset()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Writer::new(file, reader.path(), policy, reader.link(), reader.offset()))
    }

    /// Cuts the journal at `path` after the last record that completes at most `step` steps; answers how many steps
    /// are left, fewer than `step` if it never had as many.
    ///
    /// # Errors
    /// Those of [`Reader::next_record`], as far as it has to be read, and [`JournalError::Write`].
    pub fn truncate_to(path: &Path, step: u64) -> Result<u64, JournalError> {
        let mut reader = Reader::open(path)?;
        while reader.next_until(step)?.is_some() {}
        Writer::resume(&reader, SyncPolicy::default())?;
        Ok(reader.step())
    }
}

impl<M: Medium> Writer<M> {
    pub(super) fn new(medium: M, path: &Path, policy: SyncPolicy, link: Link, end: u64) -> Self {
        let (path, synced) = (path.to_owned(), Instant::now());
        Writer { path, medium, policy, link, end, waiting: 0, synced, buffer: Vec::new() }
    }

    /// The journal's size.
    pub fn bytes(&self) -> u64 {
        self.end
    }
    /// The steps that the records complete.
    pub fn step(&self) -> u64 {
        self.link.step
    }

    /// Appends `record`, and syncs if the policy says so.
    ///
    /// # Errors
    /// [`JournalError::Write`]. If writing failed, the record is not in the journal; if the sync after it failed, it
    /// is, but a power failure may take it.
    ///
    /// # Panics
    /// If the record has too many values, or its step does not follow the last one's.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.buffer.clear();
        let link = record.encode(self.link, &mut self.buffer);
        if let Err(source) = self.medium.write_all_at(&self.buffer, self.end) {
            // What did get written would be dropped by any reader; cutting it off only tidies up, and needs no space.
            let _ = self.medium.truncate(self.end);
            return Err(JournalError::Write { path: self.path.clone(), source });
        }
        self.link = link;
        self.end += self.buffer.len() as u64;
        self.waiting = self.waiting.saturating_add(1);
        if self.waiting >= self.policy.records || self.synced.elapsed() >= self.policy.every {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes all records survive a power failure.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.medium.sync().map_err(|source| JournalError::Write { path: self.path.clone(), source })?;
        self.waiting = 0;
        self.synced = Instant::now();
        Ok(())
    }
}
