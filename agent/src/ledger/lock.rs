//! One agent writes a ledger: a lock file that the kernel frees when its holder dies.
//! It refuses a second writer, and names the first.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::FlockOperation;

use super::LedgerError;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// [`LedgerError::Busy`] when another process holds it.
    pub(super) fn take(dir: &Path) -> Result<Lock, LedgerError> {
        let path = dir.join("lock");
        let fault = |source| LedgerError::File { path: path.clone(), source };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(LedgerError::Busy { dir: dir.into(), holder: holder.trim().into() });
            }
            Err(errno) => return Err(fault(errno.into())),
        }
        // The pid only helps people; a full disk must not keep the agent from starting.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = file.write_all(std::process::id().to_string().as_bytes());
        Ok(Lock { _file: file })
    }
}
