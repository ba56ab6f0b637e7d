//! Reads a journal from its start, record by record, in bounded memory.
//!
//! *What must stay true.* The records answered are the first of those that were written: what a crash leaves at the end
//! (a record cut short, zeros, a last record whose bytes did not all arrive) is dropped and counted; anything else that
//! is not as it was written is [`JournalError::Damaged`] with its place. The file is not changed.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::{
    Header, JournalError, Record,
    header::MAX_HEADER,
    record::{self, HEAD, Link, MAX_RECORD},
};

/// How much is read at once, and looked at where a record is not whole: more than a record and a header have.
const WINDOW: usize = 2 * MAX_RECORD;
const _: () = assert!(WINDOW > MAX_HEADER);

/// A journal being read.
#[derive(Debug)]
pub struct Reader<R = File> {
    path: PathBuf,
    source: R,
    /// Bytes read and not yet answered start at `start`.
    window: Vec<u8>,
    start: usize,
    header: Header,
    link: Link,
    offset: u64,
    /// The bytes after the last whole record, once they have been met.
    dropped: Option<u64>,
}

impl Reader<File> {
    /// Opens the journal at `path` and reads its header.
    ///
    /// # Errors
    /// [`JournalError::Read`], [`JournalError::Header`].
    pub fn open(path: &Path) -> Result<Reader, JournalError> {
        let file = File::open(path).map_err(|source| JournalError::Read { path: path.to_owned(), source })?;
        Reader::new(file, path)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header of the journal that `source` holds; errors name it `path`.
    ///
    /// # Errors
    /// [`JournalError::Read`], [`JournalError::Header`].
    pub fn new(mut source: R, path: &Path) -> Result<Self, JournalError> {
        let mut window = Vec::new();
        fill(&mut source, &mut window, WINDOW, path)?;
        let problem = |problem| JournalError::Header { path: path.to_owned(), problem };
        let (header, start, crc) = Header::decode(&window).map_err(problem)?;
        let link = Link { crc, step: 0 };
        Ok(Reader { path: path.to_owned(), source, window, start, header, link, offset: start as u64, dropped: None })
    }

    /// What the journal says about its run.
    pub fn header(&self) -> &Header {
        &self.header
    }
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// The steps that the records answered so far complete.
    pub fn step(&self) -> u64 {
        self.link.step
    }
    /// The bytes after the last whole record, which a crash left; `None` until the end has been read.
    pub fn dropped(&self) -> Option<u64> {
        self.dropped
    }
    pub(super) fn link(&self) -> Link {
        self.link
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// [`JournalError::Read`], [`JournalError::Damaged`], [`JournalError::Record`]. Asked again, it answers the same.
    pub fn next_record(&mut self) -> Result<Option<Record>, JournalError> {
        self.next_until(u64::MAX)
    }

    /// The next record if it completes at most `step` steps; `None` otherwise, and at the end.
    ///
    /// # Errors
    /// As [`Reader::next_record`].
    pub fn next_until(&mut self, step: u64) -> Result<Option<Record>, JournalError> {
        if self.dropped.is_some() {
            return Ok(None);
        }
        let before = self.link;
        let wanted = record::length(self.peek(HEAD)?, before.crc).unwrap_or(HEAD);
        let available = self.peek(wanted)?;
        let bytes = &available[..available.len().min(wanted)];
        if !record::is_intact(bytes, before.crc) {
            self.dropped = Some(self.torn_tail()?);
            return Ok(None);
        }
        let decoded = Record::decode(bytes, before);
        let (record, link) = decoded.map_err(|problem| JournalError::Record {
            path: self.path.clone(),
            offset: self.offset,
            problem,
        })?;
        if record.step > step {
            return Ok(None);
        }
        self.start += wanted;
        self.offset += wanted as u64;
        self.link = link;
        Ok(Some(record))
    }

    /// The number of bytes from here to the end, if they are what an interrupted append leaves.
    ///
    /// That is: at most one record and zeros, which file systems put where data did not arrive. As long as the head of
    /// the record is sound it says what one record is; otherwise any length is, and damage in the middle shows by the
    /// intact records after it.
    fn torn_tail(&mut self) -> Result<u64, JournalError> {
        let crc = self.link.crc;
        let rest = self.peek(WINDOW)?;
        let written = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let torn = written <= record::length(rest, crc).unwrap_or(MAX_RECORD) && !record::holds_intact(rest);
        let mut bytes = rest.len() as u64;
        let (offset, step) = (self.offset, self.link.step);
        let damaged = |path: &Path| JournalError::Damaged { path: path.to_owned(), offset, step };
        if !torn {
            return Err(damaged(&self.path));
        }
        let mut beyond = Vec::new();
        while fill(&mut self.source, &mut beyond, WINDOW, &self.path)? > 0 {
            if beyond.iter().any(|&byte| byte != 0) {
                return Err(damaged(&self.path));
            }
            bytes += beyond.len() as u64;
            beyond.clear();
        }
        Ok(bytes)
    }

    /// What comes next: at least `wanted` bytes, or all that there are.
    fn peek(&mut self, wanted: usize) -> Result<&[u8], JournalError> {
        if self.window.len() - self.start < wanted {
            self.window.drain(..self.start);
            self.start = 0;
            fill(&mut self.source, &mut self.window, WINDOW, &self.path)?;
        }
        Ok(&self.window[self.start..])
    }
}

/// Reads until `window` holds `size` bytes or the source ends; answers how many came.
fn fill(source: &mut impl Read, window: &mut Vec<u8>, size: usize, path: &Path) -> Result<usize, JournalError> {
    let wanted = (size - window.len()) as u64;
    loop {
        // `read_to_end` goes on after interruptions by itself and keeps what it has read.
        match source.take(wanted).read_to_end(window) {
            Ok(read) => return Ok(read),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(source) => return Err(JournalError::Read { path: path.to_owned(), source }),
        }
    }
}
