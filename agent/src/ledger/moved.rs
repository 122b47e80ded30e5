//! The files of intakes, and how much of each has been moved on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::journal;

/// The intakes of a folder, oldest first.
pub(super) fn intakes(dir: &Path) -> io::Result<Vec<PathBuf>> {
    journal::files(dir, EXTENSION)
}

/// The words for the trail about a copy of an intake's rest, which is no record.
pub(super) fn set_aside(path: &Path, left: u64) -> io::Result<String> {
    let name = journal::set_aside(path, |from, to| std::fs::copy(from, to).map(drop))?;
    Ok(format!("{left} bytes of an intake are no records; set aside in {name}"))
}

/// How many bytes of an intake the journal, or the store, holds.
pub(super) fn drained(path: &Path) -> io::Result<u64> {
    let bytes = std::fs::read(drained_path(path))?;
    bytes
        .first_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(super) fn set_drained(path: &Path, bytes: u64) -> io::Result<()> {
    let at = File::options().write(true).create(true).truncate(false).open(drained_path(path))?;
    at.write_all_at(&bytes.to_be_bytes(), 0)
}

pub(super) fn drained_path(path: &Path) -> PathBuf {
    path.with_extension(format!("{EXTENSION}.at"))
}

pub(super) const EXTENSION: &str = "intake";
