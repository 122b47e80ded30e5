//! The host's key of hash and token masks: made once, kept, so that equal values stay equal across restarts.
//! It refuses a key that others can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use weir_core::mask::Key;
use zeroize::Zeroizing;

/// Opens `mask.key` in the folder, or makes it (mode 0600, on the disk before it is used).
///
/// # Errors
/// The file is not 32 bytes, belongs to somebody else or is readable by others; no randomness; no room.
pub fn mask_key(folder: &Path) -> io::Result<Key> {
    let path = folder.join("mask.key");
    let mut bytes = Zeroizing::new([0_u8; 32]);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            getrandom::fill(&mut *bytes).map_err(io::Error::other)?;
            file.write_all(&*bytes)?;
            file.sync_all()?;
        }
        Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => {
            let mut file = File::open(&path)?;
            let about = file.metadata()?;
            if about.mode() & 0o077 != 0 || about.len() != 32 {
                let words =
                    format!("{} must hold 32 bytes and be readable by its owner only", path.display());
                return Err(io::Error::other(words));
            }
            file.read_exact(&mut *bytes)?;
        }
        Err(fault) => return Err(fault),
    }
    Ok(Key::new(*bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        mask_key(folder.path()).unwrap();
        let path = folder.path().join("mask.key");
        let first = std::fs::read(&path).unwrap();
        mask_key(folder.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(mask_key(folder.path()).is_err());
    }
}
