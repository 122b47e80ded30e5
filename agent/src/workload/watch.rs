//! New cgroups, as they are made: inotify on every folder below the attach point. The kernel programs label most of them
//! themselves; this is the net below. A lost event is answered by a walk over the whole tree. It refuses to forget: a cgroup that nobody reported is found by the next walk.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::pipe::PipeFlags;

use super::Workloads;
use crate::kernel::{Fence, FenceError, cgroup};

/// A watched cgroup; its id is kept because a removed folder has none to ask for.
#[derive(Debug)]
struct Watched {
    folder: PathBuf,
    id: u64,
}

/// A watch over the cgroup tree, on a thread of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    thread: Option<JoinHandle<()>>,
    /// Its closing ends the thread.
    open: Option<OwnedFd>,
}

#[derive(Debug)]
struct Watcher {
    workloads: Arc<Workloads>,
    fence: Arc<Fence>,
    events: OwnedFd,
    /// Hung up when the watch is dropped.
    end: OwnedFd,
    folders: HashMap<i32, Watched>,
}

impl Watch {
    /// Labels what is there, and from now on what appears.
    ///
    /// # Errors
    /// inotify is not to be had; a label cannot be set.
    pub fn start(workloads: Arc<Workloads>, fence: Arc<Fence>) -> Result<Self, FenceError> {
        let root = fence.tree().root().to_owned();
        let fault = |source: std::io::Error| FenceError::Cgroup { path: root.clone(), source };
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|errno| fault(errno.into()))?;
        let (end, open) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fault(errno.into()))?;
        for (pattern, why) in workloads.beyond_kernel() {
            tracing::warn!(%pattern, why, "new cgroups of this pattern are labelled only while the agent lives");
        }
        let mut watcher = Watcher { workloads, fence, events, end, folders: HashMap::new() };
        watcher.workloads.apply(&watcher.fence)?;
        watcher.add(&root);
        // What was made between the two walks is labelled by the second.
        watcher.workloads.apply(&watcher.fence)?;
        let thread = std::thread::Builder::new().name("workloads".into()).spawn(move || watcher.run());
        Ok(Self { thread: Some(thread.map_err(fault)?), open: Some(open) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.open.take());
        if let Some(thread) = self.thread.take() {
            // It panics only by a mistake of ours, which it has printed.
            let _ = thread.join();
        }
    }
}

impl Watcher {
    fn run(mut self) {
        loop {
            match self.wait().and_then(|more| if more { self.next().map(|()| true) } else { Ok(false) }) {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => {
                    tracing::error!(%fault, "the cgroup watch failed; it starts anew");
                    std::thread::sleep(REST);
                    self.walk_again();
                }
            }
        }
    }

    /// Waits for events; false at the end.
    fn wait(&self) -> std::io::Result<bool> {
        let mut sources =
            [PollFd::new(&self.events, PollFlags::IN), PollFd::new(&self.end, PollFlags::empty())];
        match rustix::event::poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(sources[1].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads events and answers them.
    fn next(&mut self) -> std::io::Result<()> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8 * 1024];
        let mut seen = Vec::new();
        {
            let mut reader = inotify::Reader::new(&self.events, &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                    Err(errno) => return Err(errno.into()),
                };
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
        if let Err(fault) = self.workloads.disappeared(&self.fence, gone.id) {
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
        if let Ok(number) = inotify::add_watch(&self.events, folder, WatchFlags::CREATE | WatchFlags::ONLYDIR)
        {
            self.folders.insert(number, Watched { folder: folder.to_owned(), id });
        }
    }
}

/// Calls `visit` for the folder and all folders below it, parents first.
pub fn walk(root: &Path, visit: &mut dyn FnMut(&Path)) {
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
