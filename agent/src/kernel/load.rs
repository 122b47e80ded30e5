//! The object into the kernel: load all programs first, then attach each one or swap it into the link that an earlier
//! agent pinned. It refuses to detach before it has attached.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::programs::Program;

use super::cgroup::Node;
use super::feature::Feature;
use super::{FenceError, Tree, birth, btf, logs, sys, unix};

/// Every program with its attach type (`enum bpf_attach_type`), in the order in which they attach: the wall first.
const PROGRAMS: [(&str, u32); 14] = [
    ("egress", EGRESS),
    ("sock_create", 2),
    ("sock_release", 34),
    (HANDOVER, 3),
    ("post_bind4", 12),
    ("post_bind6", 13),
    // Answers are shown from their servers before questions are turned.
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("connect4", 10),
    ("connect6", 11),
];

/// The one program that concerns the agents' own sockets; it attaches where they are born.
const HANDOVER: &str = "handover";
/// Run before programs of child cgroups (kernel 6.15): a child's rewrite would falsify the record.
pub(super) const BPF_F_PREORDER: u32 = 1 << 6;
/// `BPF_CGROUP_INET_EGRESS`.
pub(super) const EGRESS: u32 = 1;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf.o"));

/// Loads maps (or opens their pins) and programs; attaches nothing.
pub(super) fn load(folder: &Path) -> Result<aya::Ebpf, FenceError> {
    load_with(Some(folder))
}

/// Loads the same with maps of their own, which go with what is returned.
pub(super) fn try_out() -> Result<aya::Ebpf, FenceError> {
    load_with(None)
}

fn load_with(folder: Option<&Path>) -> Result<aya::Ebpf, FenceError> {
    let (task, cgroup) = btf::of_this_kernel()?;
    let set_retval = u32::from(Feature::Errno.is_there().unwrap_or(false));
    let level = logs::level();
    let mut loader = aya::EbpfLoader::new();
    loader
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("TASK_GROUP_LEADER", &task.group_leader, true)
        .override_global("TASK_START_BOOTTIME", &task.start_boottime, true)
        .override_global("AYA_LOG_LEVEL", &level, true);
    let cgroup = birth::globals(cgroup);
    for (name, offset) in &cgroup {
        loader.override_global(name, offset, true);
    }
    if let Some(folder) = folder {
        for name in weir_ebpf::map::PINNED {
            loader.map_pin_path(name, folder.join(name));
        }
    }
    let mut object = loader.load(OBJECT).map_err(|fault| FenceError::Object(chain(&fault)))?;
    for (name, _) in PROGRAMS {
        let program = object.program_mut(name).ok_or_else(|| missing(name))?;
        let done = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSkb(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => return Err(missing(name)),
        };
        done.map_err(|fault| FenceError::Program { program: name.into(), message: chain(&fault) })?;
    }
    Ok(object)
}

/// Attaches every program by a pinned link, or swaps it into the link pinned there. Returns the layers that this kernel
/// does not have.
pub(super) fn attach(
    object: &mut aya::Ebpf,
    folder: &Path,
    tree: &Tree,
) -> Result<Vec<&'static str>, FenceError> {
    attach_hooks(object, folder, tree)?;
    let mut missing = Vec::new();
    if let Err(fault) = birth::attach(object, folder) {
        tracing::warn!(%fault, "no hook for new cgroups: they are labelled only while the agent lives, and a moment late");
        missing.push(Feature::Birth.layer());
    }
    if let Err(fault) = attach_unix(folder, tree) {
        tracing::warn!(%fault, "no hooks for unix sockets (kernel 6.7): local databases are reachable past the fence");
        missing.push(Feature::Unix.layer());
    }
    Ok(missing)
}

pub(super) fn attach_unix(folder: &Path, tree: &Tree) -> std::io::Result<()> {
    unix::attach(OBJECT, folder, tree)
}

/// Is this the name of a program on a cgroup's hook, and of its pin?
pub(super) fn is_hook(name: &str) -> bool {
    PROGRAMS.iter().chain(&unix::HOOKS).any(|(hook, _)| *hook == name)
}

/// The attach type of one of [`PROGRAMS`].
pub(super) fn attach_type(hook: &str) -> Option<u32> {
    PROGRAMS.iter().find(|(name, _)| *name == hook).map(|(_, attach_type)| *attach_type)
}

/// The programs that no fence can do without: at the tree's root, and `handover` at the agents' cgroup.
pub(super) fn attach_hooks(object: &aya::Ebpf, folder: &Path, tree: &Tree) -> Result<(), FenceError> {
    let mut fresh = Vec::new();
    let agents = tree.agents()?;
    for (name, attach_type) in PROGRAMS {
        let at = if name == HANDOVER { &agents } else { tree.node() };
        let fault = |source: std::io::Error| FenceError::Program {
            program: name.into(),
            message: source.to_string(),
        };
        let program = object.program(name).ok_or_else(|| missing(name))?;
        let fd = program.fd().map_err(|fault| FenceError::Object(chain(&fault)))?.as_fd();
        let pin = folder.join(name);
        match attach_one(fd, attach_type, &pin, at) {
            Ok(true) => fresh.push(pin),
            Ok(false) => {}
            Err(source) => {
                // Half a fence would be worse than none: take back what this call attached.
                for pin in fresh {
                    let _ = std::fs::remove_file(pin);
                }
                return Err(fault(source));
            }
        }
    }
    Ok(())
}

/// True when a new link was made, false when a pinned one was taken over.
pub(super) fn attach_one(
    program: BorrowedFd<'_>,
    attach_type: u32,
    pin: &Path,
    at: &Node,
) -> std::io::Result<bool> {
    if let Ok(link) = sys::open_pin(pin) {
        // A link whose cgroup was removed, or that hangs elsewhere, is replaced: new first, then the old one goes.
        if sys::link_cgroup(link.as_fd())? == at.id() && sys::link_update(link.as_fd(), program).is_ok() {
            return Ok(false);
        }
        let fresh = link_create(program, attach_type, at)?;
        std::fs::remove_file(pin)?;
        sys::pin(fresh.as_fd(), pin)?;
        return Ok(true);
    }
    let link = link_create(program, attach_type, at)?;
    sys::pin(link.as_fd(), pin)?;
    Ok(true)
}

fn link_create(
    program: BorrowedFd<'_>,
    attach_type: u32,
    at: &Node,
) -> std::io::Result<std::os::fd::OwnedFd> {
    sys::link_create(program, at.as_fd(), attach_type, BPF_F_PREORDER)
        .or_else(|_| sys::link_create(program, at.as_fd(), attach_type, 0))
}

fn missing(name: &str) -> FenceError {
    FenceError::Object(format!("program {name} is missing or of another kind"))
}

pub(super) fn chain(fault: &dyn std::error::Error) -> String {
    let mut text = fault.to_string();
    let mut next = fault.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
