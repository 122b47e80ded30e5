//! The state of a file that is read again when it changes.
//! It refuses to trust the modification time alone: a file put in its place within one tick has another inode or size.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    changed: (i64, i64),
    modified: (i64, i64),
    size: u64,
    file: (u64, u64),
}

impl Stamp {
    /// # Errors
    /// The file cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Stamp> {
        std::fs::metadata(path).map(|facts| Stamp::from(&facts))
    }
}

impl From<&Metadata> for Stamp {
    fn from(facts: &Metadata) -> Self {
        Self {
            changed: (facts.ctime(), facts.ctime_nsec()),
            modified: (facts.mtime(), facts.mtime_nsec()),
            size: facts.size(),
            file: (facts.dev(), facts.ino()),
        }
    }
}
