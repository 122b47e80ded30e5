//! Programs of others on the hooks that turn connections: one that runs before ours changes what we record, one that runs
//! after ours changes where it goes. It refuses to judge them: it names them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Fence, load, sys};

/// Hooks that can change a destination.
const HOOKS: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];

/// A program that is not the fence's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    pub hook: &'static str,
    /// As `bpftool prog show id N` takes it.
    pub program: u32,
}

/// A hook with its attach type, and the id of the fence's own program there.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    name: &'static str,
    attach_type: u32,
    own: u32,
}

impl Fence {
    /// The hooks that can change a destination.
    ///
    /// # Errors
    /// A pin is gone.
    pub fn turning_hooks(&self) -> io::Result<Vec<Hook>> {
        let hook = |name: &'static str| {
            let attach_type = load::attach_type(name).ok_or(io::ErrorKind::NotFound)?;
            let own = sys::link_program(sys::open_pin(&self.pins.folder().join(name))?.as_fd())?;
            Ok(Hook { name, attach_type, own })
        };
        HOOKS.into_iter().map(hook).collect()
    }
}

/// Programs of others at these hooks that run for tasks of this cgroup, wherever on its path they are attached.
///
/// # Errors
/// The cgroup is gone, or the kernel does not tell.
pub fn neighbours(hooks: &[Hook], cgroup: &Path) -> io::Result<BTreeSet<Neighbour>> {
    let cgroup = rustix::fs::open(cgroup, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut found = BTreeSet::new();
    for hook in hooks {
        let effective = sys::programs(cgroup.as_fd(), hook.attach_type)?;
        let others = effective.into_iter().filter(|program| *program != hook.own);
        found.extend(others.map(|program| Neighbour { hook: hook.name, program }));
    }
    Ok(found)
}
