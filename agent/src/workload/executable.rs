//! What a process runs: the path and SHA-256 of its executable. It refuses an answer that could be another process's:
//! the start time is checked before and after.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// The executable of one process; empty strings where it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executable {
    pub path: String,
    /// Lower-case hex.
    pub sha256: String,
}

/// Hashes by what the file system says about the file. Changing a file's content changes its `ctime`, which nobody
/// can set back.
#[derive(Debug, Default)]
pub struct Cache {
    hashes: HashMap<Key, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The executable of process `pid` that started at `start_time` (nanoseconds since boot); `None` when that process is
/// gone or has another start.
#[must_use]
pub fn of(pid: u32, start_time: u64, cache: &Mutex<Cache>) -> Option<Executable> {
    let is_same = || start_ticks(pid) == Some(start_time / TICK_NS);
    is_same().then_some(())?;
    let link = format!("/proc/{pid}/exe");
    let path = std::fs::read_link(&link).ok()?.to_string_lossy().into_owned();
    let sha256 = File::open(&link).and_then(|file| hash(file, cache)).unwrap_or_default();
    is_same().then_some(Executable { path, sha256 })
}

fn hash(file: File, cache: &Mutex<Cache>) -> io::Result<String> {
    let found = file.metadata()?;
    let key = Key {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    };
    let known = cache.lock().unwrap_or_else(PoisonError::into_inner).hashes.get(&key).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let sha256 = sha256(file)?;
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.hashes.len() >= EXECUTABLES {
        cache.hashes.clear();
    }
    cache.hashes.insert(key, sha256.clone());
    Ok(sha256)
}

fn sha256(file: File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut left = file.take(EXECUTABLE_BYTES);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = left.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        digest.update(buffer.get(..count).unwrap_or_default());
    }
    if left.limit() == 0 {
        return Err(io::Error::other("the executable is larger than weir hashes"));
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); the name before it may hold anything, so the last `)` counts.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// USER_HZ is 100 on every architecture Linux offers eBPF on.
const TICK_NS: u64 = 10_000_000;
/// Executables remembered; beyond it the memory starts anew.
const EXECUTABLES: usize = 1_024;
/// Executables larger than this stay without hash.
const EXECUTABLE_BYTES: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_executable_and_only_with_its_own_start() {
        let pid = std::process::id();
        let start = start_ticks(pid).unwrap() * TICK_NS;
        let cache = Mutex::default();
        let found = of(pid, start, &cache).unwrap();
        assert_eq!(found.path, std::env::current_exe().unwrap().to_string_lossy());
        assert_eq!(found.sha256.len(), 64);
        assert_eq!(of(pid, start, &cache), Some(found));
        assert_eq!(of(pid, start + TICK_NS, &cache), None);
    }

    #[test]
    fn a_changed_file_is_hashed_again() {
        let path = std::env::temp_dir().join(format!("weir-exe-{}", std::process::id()));
        let cache = Mutex::default();
        std::fs::write(&path, "a").unwrap();
        let first = hash(File::open(&path).unwrap(), &cache).unwrap();
        std::fs::write(&path, "b").unwrap();
        let second = hash(File::open(&path).unwrap(), &cache).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_ne!(first, second);
        assert!(first.starts_with("ca978112"), "{first}");
    }
}
