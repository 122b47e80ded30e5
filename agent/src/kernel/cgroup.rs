//! The cgroup v2 tree below the attach point: paths, ids, the agent's own cgroup.
//! It refuses v1 hierarchies, which have no ids that a program could see.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::FenceError;

/// The attach point and what lies below it.
#[derive(Debug)]
pub struct Tree {
    mount: PathBuf,
    root: PathBuf,
    node: Node,
}

/// A cgroup that programs attach to.
#[derive(Debug)]
pub struct Node {
    fd: OwnedFd,
    id: u64,
}

impl Node {
    fn open(folder: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd, id: id(folder)? })
    }

    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Tree {
    /// Finds the v2 mount (plain or hybrid) and the attach point below it, which is made unless it is `/`.
    ///
    /// # Errors
    /// No cgroup v2; a path with `..`; a cgroup that cannot be made or opened.
    pub fn open(attach: &str) -> Result<Self, FenceError> {
        let mount = find_mount()?;
        let root = mount.join(relative(attach).ok_or_else(|| FenceError::AttachPath(attach.into()))?);
        let fault = |source| FenceError::Cgroup { path: root.clone(), source };
        std::fs::create_dir_all(&root).map_err(fault)?;
        let node = Node::open(&root).map_err(fault)?;
        Ok(Self { mount, root, node })
    }

    /// Is the attach point there already? [`Tree::open`] would make it.
    #[must_use]
    pub fn is_there(attach: &str) -> bool {
        find_mount().is_ok_and(|mount| relative(attach).is_some_and(|path| mount.join(path).is_dir()))
    }

    /// Folder of the attach point.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the v2 hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Id of the attach point.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.node.id
    }

    /// The attach point itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The cgroup in which every agent of this tree has its own.
    pub(super) fn agents(&self) -> Result<Node, FenceError> {
        let path = self.make(AGENTS)?;
        Node::open(&path).map_err(|source| FenceError::Cgroup { path, source })
    }

    /// Makes a cgroup below the attach point and returns its folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(&self, path: &str) -> Result<PathBuf, FenceError> {
        let path = self.root.join(path);
        std::fs::create_dir_all(&path).map_err(|source| FenceError::Cgroup { path: path.clone(), source })?;
        Ok(path)
    }

    /// Path below the attach point, without a leading `/`; `None` outside it.
    #[must_use]
    pub fn below(&self, folder: &Path) -> Option<String> {
        folder.strip_prefix(&self.root).ok().map(|path| path.to_string_lossy().into_owned())
    }

    /// Returns when every cgroup whose making has begun can be seen: the kernel makes them one at a time, so it has
    /// made all before one of ours.
    ///
    /// # Errors
    /// Ours cannot be made.
    pub(super) fn settle(&self) -> Result<(), FenceError> {
        let own = self.make(&format!("{AGENTS}/{}-look", std::process::id()))?;
        std::fs::remove_dir(&own).map_err(|source| FenceError::Cgroup { path: own, source })
    }

    /// Folder of the cgroup with this id; `None` when it is gone.
    #[must_use]
    pub fn folder_of(&self, id: u64) -> Option<PathBuf> {
        let fd = open_by_id(self.node.as_fd(), id)?;
        use std::os::fd::AsRawFd;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        path.starts_with(&self.mount).then_some(path)
    }
}

/// The agent's own cgroup: the one the fence lets through.
#[derive(Debug)]
pub(super) struct Own {
    id: u64,
}

impl Own {
    /// Makes `weir.agent/PID`, moves this process in, and sweeps what dead agents left.
    pub(super) fn enter(tree: &Tree) -> Result<Self, FenceError> {
        let parent = tree.make(AGENTS)?;
        let own = tree.make(&format!("{AGENTS}/{}", std::process::id()))?;
        let fault = |source| FenceError::Cgroup { path: own.clone(), source };
        std::fs::write(own.join("cgroup.procs"), "0").map_err(fault)?;
        sweep(&parent);
        Ok(Self { id: id(&own).map_err(fault)? })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

/// Removes the children that hold no process. The kernel refuses to remove the others.
pub fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Populated: somebody lives there.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Id of a cgroup, as the kernel programs see it: its inode number (64-bit kernfs).
///
/// # Errors
/// No such cgroup.
pub fn id(folder: &Path) -> io::Result<u64> {
    std::fs::metadata(folder).map(|found| found.ino())
}

fn relative(attach: &str) -> Option<PathBuf> {
    let path = Path::new(attach);
    let is_plain = |part: &Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.components()
        .all(|part| is_plain(&part))
        .then(|| path.components().filter(|part| matches!(part, Component::Normal(_))).collect())
}

/// The first cgroup2 in `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn find_mount() -> Result<PathBuf, FenceError> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(|_| FenceError::NoCgroup2)?;
    table.lines().find_map(mount_point).ok_or(FenceError::NoCgroup2)
}

fn mount_point(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    (kind.split(' ').next()? == "cgroup2").then_some(())?;
    mount.split(' ').nth(4).map(PathBuf::from)
}

fn open_by_id(mount: BorrowedFd<'_>, id: u64) -> Option<OwnedFd> {
    use std::os::fd::{AsRawFd, FromRawFd};
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    // include/linux/exportfs.h: a kernfs id alone.
    const FILEID_KERNFS: i32 = 0xfe;
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    // SAFETY: the handle is valid for the length it states; the kernel returns a new descriptor or an error.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        );
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Below the attach point: where the agents are.
const AGENTS: &str = "weir.agent";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attach_paths_stay_below_the_mount() {
        assert_eq!(relative("/"), Some(PathBuf::new()));
        assert_eq!(relative("/a/b"), Some("a/b".into()));
        assert_eq!(relative("weir-test"), Some("weir-test".into()));
        assert_eq!(relative("/a/../b"), None);
    }

    #[test]
    fn the_hybrid_mount_is_found() {
        let v1 = "36 25 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        let v2 = "45 25 0:40 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mount_point(v1), None);
        assert_eq!(mount_point(v2), Some("/sys/fs/cgroup/unified".into()));
    }
}
