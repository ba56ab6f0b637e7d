//! A directory of data in the layout of mlx-lm: `train`, `valid` and `test`, each `.jsonl`, `.csv` or `.parquet`.

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
    /// [`ReadError::NoSplit`] without `train`, [`ReadError::TwoSplits`] where one is there in two formats.
    pub fn open(dir: &Path) -> Result<DataDirectory, ReadError> {
        let find = |split: &'static str| -> Result<Option<PathBuf>, ReadError> {
            let file = |extension: &str| dir.join(format!("{split}.{extension}"));
            let mut present = ["jsonl", "csv", "parquet"].into_iter().filter(|extension| file(extension).is_file());
            match (present.next(), present.next()) {
                (Some(one), Some(other)) => {
                    Err(ReadError::TwoSplits { dir: dir.to_owned(), split, found: [one, other] })
                }
                (one, _) => Ok(one.map(file)),
            }
        };
        let train = find("train")?.ok_or_else(|| ReadError::NoSplit { dir: dir.to_owned(), split: "train" })?;
        Ok(DataDirectory { train, valid: find("valid")?, test: find("test")? })
    }
}
