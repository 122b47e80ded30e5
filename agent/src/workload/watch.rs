//! New cgroups, as they are made: inotify on every folder below the attach point. A lost event is answered by a walk
//! over the whole tree. It refuses to forget: a cgroup that nobody reported is found by the next walk.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::Workloads;
use crate::kernel::{Fence, FenceError, cgroup};

/// A watched cgroup; its id is kept because a removed folder has none to ask for.
#[derive(Debug)]
struct Watched {
    folder: PathBuf,
    id: u64,
}

/// A watch over the cgroup tree. It ends with the process.
#[derive(Debug)]
pub struct Watch {
    workloads: Arc<Workloads>,
    fence: Arc<Fence>,
    events: OwnedFd,
    folders: HashMap<i32, Watched>,
}

impl Watch {
    /// Labels what is there, and from now on what appears, on a thread of its own.
    ///
    /// # Errors
    /// inotify is not to be had; a label cannot be set.
    pub fn start(workloads: Arc<Workloads>, fence: Arc<Fence>) -> Result<(), FenceError> {
        let root = fence.tree().root().to_owned();
        let fault = |source: std::io::Error| FenceError::Cgroup { path: root.clone(), source };
        let events = inotify::init(CreateFlags::CLOEXEC).map_err(|errno| fault(errno.into()))?;
        let mut watch = Self { workloads, fence, events, folders: HashMap::new() };
        watch.workloads.apply(&watch.fence)?;
        watch.add(&root);
        // What was made between the two walks is labelled by the second.
        watch.workloads.apply(&watch.fence)?;
        std::thread::Builder::new().name("workloads".into()).spawn(move || watch.run()).map_err(fault)?;
        Ok(())
    }

    fn run(mut self) {
        loop {
            match self.next() {
                Ok(()) => {}
                Err(fault) => {
                    tracing::error!(%fault, "the cgroup watch failed; it starts anew");
                    std::thread::sleep(REST);
                    self.walk_again();
                }
            }
        }
    }

    /// Waits for events and answers them.
    fn next(&mut self) -> std::io::Result<()> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8 * 1024];
        let mut seen = Vec::new();
        {
            let mut reader = inotify::Reader::new(&self.events, &mut buffer);
            loop {
                let event = reader.next()?;
                seen.push((event.wd(), event.events(), event.file_name().map(CStr::to_owned)));
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        for (folder, kind, name) in seen {
            if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.walk_again();
            } else if kind.contains(ReadFlags::IGNORED) {
                self.disappeared(folder);
            } else if let (Some(parent), Some(name)) = (self.folders.get(&folder), name) {
                let path = parent.folder.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                self.appeared(&path);
            }
        }
        Ok(())
    }

    /// Labels the new cgroup, watches it, and does the same for children that came before the watch.
    fn appeared(&mut self, folder: &Path) {
        let mut found = Vec::new();
        if let Err(fault) = self.workloads.appeared(&self.fence, folder) {
            tracing::error!(%fault, cgroup = %folder.display(), "a new cgroup could not be labelled");
        }
        self.add_one(folder);
        walk(folder, &mut |child| found.push(child.to_owned()));
        for child in found.iter().skip(1) {
            if let Err(fault) = self.workloads.appeared(&self.fence, child) {
                tracing::error!(%fault, cgroup = %child.display(), "a new cgroup could not be labelled");
            }
            self.add_one(child);
        }
    }

    /// The kernel never gives an id again, but the map of labels has an end.
    fn disappeared(&mut self, number: i32) {
        let Some(gone) = self.folders.remove(&number) else { return };
        if let Err(fault) = self.fence.unlabel(gone.id) {
            tracing::warn!(%fault, cgroup = %gone.folder.display(), "the label of a removed cgroup stays");
        }
    }

    fn walk_again(&mut self) {
        let root = self.fence.tree().root().to_owned();
        self.add(&root);
        if let Err(fault) = self.workloads.apply(&self.fence) {
            tracing::error!(%fault, "cgroups could not be labelled");
        }
    }

    fn add(&mut self, root: &Path) {
        let mut found = Vec::new();
        walk(root, &mut |folder| found.push(folder.to_owned()));
        for folder in found {
            self.add_one(&folder);
        }
    }

    fn add_one(&mut self, folder: &Path) {
        // Both fail for a folder that is gone again, which needs no watch.
        let Ok(id) = cgroup::id(folder) else { return };
        if let Ok(number) = inotify::add_watch(&self.events, folder, WatchFlags::CREATE | WatchFlags::ONLYDIR) {
            self.folders.insert(number, Watched { folder: folder.to_owned(), id });
        }
    }
}

/// Calls `visit` for the folder and all folders below it, parents first.
pub(super) fn walk(root: &Path, visit: &mut dyn FnMut(&Path)) {
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        visit(&folder);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        waiting.extend(entries.flatten().filter(is_folder).map(|entry| entry.path()));
    }
}

/// Rest after a failed read, so that the thread does not spin.
const REST: std::time::Duration = std::time::Duration::from_secs(1);
