//! Programs of others on the hooks that turn connections: one that runs before ours changes what we record, one that runs
//! after ours changes where it goes. It refuses to judge them: it names them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Fence, sys};

/// Hooks that can change a destination, with their attach types (`enum bpf_attach_type`).
const HOOKS: [(&str, u32); 4] = [("connect4", 10), ("connect6", 11), ("sendmsg4", 14), ("sendmsg6", 15)];

/// A program that is not the fence's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    pub hook: &'static str,
    /// As `bpftool prog show id N` takes it.
    pub program: u32,
}

impl Fence {
    /// Programs of others that run for tasks of this cgroup, wherever on its path they are attached.
    ///
    /// # Errors
    /// The cgroup is gone, or the kernel does not tell.
    pub fn neighbours(&self, cgroup: &Path) -> io::Result<BTreeSet<Neighbour>> {
        let cgroup = rustix::fs::open(cgroup, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut found = BTreeSet::new();
        for (hook, attach_type) in HOOKS {
            let own = sys::link_program(sys::open_pin(&self.pins.folder().join(hook))?.as_fd())?;
            let effective = sys::programs(cgroup.as_fd(), attach_type)?;
            let others = effective.into_iter().filter(|program| *program != own);
            found.extend(others.map(|program| Neighbour { hook, program }));
        }
        Ok(found)
    }
}
