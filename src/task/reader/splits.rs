//! A directory of data in the layout of mlx-lm: `train`, `valid` and `test`, each `.jsonl` or `.csv`.

use std::path::{Path, PathBuf};

use super::ReadError;

/// The data files of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirectory {
    /// What is learnt from, and what `dev` is taken from.
    pub train: PathBuf,
    /// What is scored, and never used for selection.
    pub valid: Option<PathBuf>,
    /// What is scored at the very end.
    pub test: Option<PathBuf>,
}

impl DataDirectory {
    /// Looks for the files of `dir`.
    ///
    /// # Errors
    /// [`ReadError::NoSplit`] without `train`, [`ReadError::TwoSplits`] where both formats are present.
    pub fn open(dir: &Path) -> Result<DataDirectory, ReadError> {
        let find = |split: &'static str| -> Result<Option<PathBuf>, ReadError> {
            let files = ["jsonl", "csv"].map(|extension| dir.join(format!("{split}.{extension}")));
            match files.each_ref().map(|file| file.is_file()) {
                [true, true] => Err(ReadError::TwoSplits { dir: dir.to_owned(), split }),
                present => Ok(files.into_iter().zip(present).find_map(|(file, present)| present.then_some(file))),
            }
        };
        let train = find("train")?.ok_or_else(|| ReadError::NoSplit { dir: dir.to_owned(), split: "train" })?;
        Ok(DataDirectory { train, valid: find("valid")?, test: find("test")? })
    }
}
