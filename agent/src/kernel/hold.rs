//! The pins while an agent lives: each is held open, so that removing it opens nothing, and is put back. It refuses to
//! leave the fence with a hole: what cannot be put back is an error at every look.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Feature, Fence, FenceError, bpffs, load, sys};

/// Every pin of the fence, by its name.
#[derive(Debug)]
pub(super) struct Held(Mutex<Vec<(OsString, OwnedFd)>>);

impl Held {
    /// Holds what is pinned now.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(open_all(folder)?)))
    }

    /// Lifts the fence. What could not be removed is still held, and so the rest is put back.
    pub(super) fn lift(&self, folder: &Path) -> Result<(), FenceError> {
        let mut held = self.lock();
        super::lift(folder)?;
        held.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(OsString, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fence {
    /// Puts back what somebody has removed: pins, and programs that were taken off their hooks. Returns its names.
    ///
    /// # Errors
    /// It cannot be put back. Without a pin, the fence opens when this agent ends.
    pub fn hold(&self) -> Result<BTreeSet<String>, FenceError> {
        let folder = self.pins.folder();
        let fault = |source| FenceError::NoBpffs { path: folder.into(), source };
        let mut held = self.held.lock();
        let mut lost = BTreeSet::new();
        if held.is_empty() {
            return Ok(lost);
        }
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !bpffs::is_same(&lock, folder) {
            // The lock is on a folder that is gone.
            bpffs::make(folder).map_err(fault)?;
            *lock = bpffs::lock(folder)?;
        }
        drop(lock);
        for (name, object) in &*held {
            let pin = folder.join(name);
            if !pin.exists() {
                sys::pin(object.as_fd(), &pin).map_err(fault)?;
                lost.insert(name.to_string_lossy().into_owned());
            }
        }
        let off = |(name, link): &(OsString, OwnedFd)| {
            let name = name.to_str().filter(|name| load::is_hook(name))?;
            // Of a link that was taken off, and of one whose cgroup is gone.
            sys::link_cgroup(link.as_fd()).is_ok_and(|cgroup| cgroup == 0).then(|| name.to_owned())
        };
        let off: Vec<String> = held.iter().filter_map(off).collect();
        if !off.is_empty() {
            let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
            load::attach_hooks(&object, folder, &self.tree)?;
            if !self.missing.contains(&Feature::Unix.layer()) {
                load::attach_unix(folder, &self.tree).map_err(fault)?;
            }
            *held = open_all(folder).map_err(fault)?;
            lost.extend(off);
        }
        Ok(lost)
    }
}

fn open_all(folder: &Path) -> io::Result<Vec<(OsString, OwnedFd)>> {
    let pins = std::fs::read_dir(folder)?;
    pins.map(|pin| pin.and_then(|pin| Ok((pin.file_name(), sys::open_pin(&pin.path())?)))).collect()
}
