//! Files that are replaced whole.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter},
    path::Path,
};

/// Puts what `content` writes into the file `path` so that after any interruption it holds the old bytes or the new ones:
/// a temporary sibling is written, synced and renamed, and the directory synced. The sibling has one name, because one
/// process writes to a directory: what a crash leaves is overwritten.
///
/// # Errors
/// Those of the system. The file is then the old one, unless only the last sync failed: then a power failure may bring
/// the old one back.
pub fn replace_file(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    hidden.push(".partial");
    let partial = path.with_file_name(hidden);
    let written = (|| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        content(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, path)
    })();
    if let Err(error) = written {
        // The error is what counts, not a leftover.
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
