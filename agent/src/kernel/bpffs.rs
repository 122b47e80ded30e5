//! The folder of the pins: a bpffs that only root enters. It refuses to share a folder between two agents.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;

use super::{FenceError, sys};

/// Where the pins of this layout lie below `fence.bpffs`.
#[must_use]
pub fn folder(bpffs: &Path) -> PathBuf {
    bpffs.join(weir_ebpf::LAYOUT)
}

/// Makes the folder, on a bpffs that is mounted here if there is none.
pub(super) fn prepare(bpffs: &Path) -> Result<PathBuf, FenceError> {
    let fault = |source| FenceError::NoBpffs { path: bpffs.into(), source };
    let host = Path::new("/sys/fs/bpf");
    if bpffs.starts_with(host) && !is_bpffs(host) {
        mount(host).map_err(fault)?;
    }
    make(bpffs).map_err(fault)?;
    if !is_bpffs(bpffs) {
        mount(bpffs).map_err(fault)?;
    }
    let folder = folder(bpffs);
    make(&folder).map_err(fault)?;
    Ok(folder)
}

/// Held until the descriptor is closed; the kernel lets go of it when the agent dies.
pub(super) fn lock(folder: &Path) -> Result<OwnedFd, FenceError> {
    let fault = |source: io::Error| FenceError::NoBpffs { path: folder.into(), source };
    let fd = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| fault(errno.into()))?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(FenceError::Held(folder.into())),
        Err(errno) => Err(fault(errno.into())),
    }
}

/// The pins of every layout that are there, of this program's and of others'.
pub(super) fn layouts(bpffs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(bpffs).into_iter().flatten().flatten();
    let is_layout = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix('v')).is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    entries.map(|entry| entry.path()).filter(is_layout).collect()
}

/// Locks the pins of every layout, so that no agent of another version lives beside this one; `inherited` is among them.
/// Returns the lock on `folder`, and the others.
pub(super) fn lock_all(
    bpffs: &Path,
    folder: &Path,
    inherited: Option<OwnedFd>,
) -> Result<(OwnedFd, Vec<OwnedFd>), FenceError> {
    let (mut own, mut others) = (None, Vec::new());
    let mut keep = |path: &Path, lock| {
        if path == folder { own = Some(lock) } else { others.push(lock) }
    };
    let mut inherited = inherited;
    for path in layouts(bpffs) {
        match inherited.take_if(|lock| is_same(lock, &path)) {
            Some(taken) => keep(&path, taken),
            None => keep(&path, lock(&path)?),
        }
    }
    others.extend(inherited);
    match own {
        Some(own) => Ok((own, others)),
        None => Ok((lock(folder)?, others)),
    }
}

pub(super) fn is_same(fd: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(fd), rustix::fs::stat(path)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Is this descriptor a folder of pins?
pub(super) fn is_pins(fd: &impl AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|found| found.f_type as u64 == BPF_FS_MAGIC)
}

/// Removes every pin in the folder, links first, and the folder.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    let mut pins: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    pins.sort_by_key(|path| !is_link_pin(path));
    for pin in &pins {
        if is_link_pin(pin) {
            sys::link_detach(sys::open_pin(pin)?.as_fd())?;
        }
        std::fs::remove_file(pin)?;
    }
    std::fs::remove_dir(folder)
}

/// Removes the pins of other versions. Call it when the new ones have their labels, so that no moment is unguarded.
pub(super) fn remove_old_layouts(bpffs: &Path) {
    for path in layouts(bpffs).into_iter().filter(|path| *path != folder(bpffs)) {
        if let Err(fault) = remove(&path) {
            tracing::warn!(path = %path.display(), %fault, "cannot remove the pins of another version");
        }
    }
}

/// Pins of links are named after their program, in lower case; pins of maps are in upper case.
fn is_link_pin(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(|c: char| c.is_lowercase()))
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as u64 == BPF_FS_MAGIC)
}

pub(super) fn make(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn mount(path: &Path) -> io::Result<()> {
    make(path)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("bpf", path, "bpf", flags, c"mode=0700")?)
}

/// statfs(2).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
