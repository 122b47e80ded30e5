//! What this kernel offers the fence, found by asking it: programs of two instructions that are loaded and dropped, and
//! calls that must fail. It refuses to compare version numbers, since distributions backport, and attaches nothing.

use std::io;
use std::os::fd::AsFd;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};

use super::load::{BPF_F_PREORDER, EGRESS};
use super::unix::{CGROUP_SOCK_ADDR, UNIX_CONNECT};
use super::{FenceError, diag, sys};

/// Something that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The network namespace of a connection, in all hooks and for sockets (Linux 5.15). Without it there is no fence.
    NetnsCookie,
    /// Tracepoints of cgroups that a program may follow, and types that show how (`CONFIG_TRACEPOINTS`, BTF).
    Birth,
    /// Refusals with an error of their own (Linux 5.18).
    Errno,
    /// A hook for `connect` of unix sockets (Linux 6.7).
    Unix,
    /// Running before programs of child cgroups (Linux 6.15).
    Preorder,
    /// Ending a connection that is open (`CONFIG_INET_DIAG_DESTROY`).
    Destroy,
}

impl Feature {
    pub const ALL: [Feature; 6] = [
        Feature::NetnsCookie,
        Feature::Birth,
        Feature::Errno,
        Feature::Unix,
        Feature::Preorder,
        Feature::Destroy,
    ];

    /// As `weir status` names the layer that is missing without it.
    #[must_use]
    pub fn layer(self) -> &'static str {
        match self {
            Feature::NetnsCookie => "netns",
            Feature::Birth => "birth",
            Feature::Errno => "errno",
            Feature::Unix => "unix",
            Feature::Preorder => "preorder",
            Feature::Destroy => "sweep",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Feature::NetnsCookie => "network namespaces in socket hooks",
            Feature::Birth => "labels of new cgroups",
            Feature::Errno => "errors of refusals",
            Feature::Unix => "unix sockets",
            Feature::Preorder => "order of hooks",
            Feature::Destroy => "ending connections",
        }
    }

    /// Is there no fence without it?
    #[must_use]
    pub fn is_needed(self) -> bool {
        self == Feature::NetnsCookie
    }

    /// Does this kernel have it?
    ///
    /// # Errors
    /// This process may not ask: it needs CAP_BPF and CAP_NET_ADMIN.
    pub fn is_there(self) -> io::Result<bool> {
        match self {
            Feature::NetnsCookie => {
                Ok(has_cookie_option()?
                    && offers(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie)?)
            }
            Feature::Birth => {
                let shown = super::btf::of_this_kernel().is_ok_and(|(_, cgroup)| cgroup.is_some());
                Ok(shown && is_known(load(RAW_TRACEPOINT, 0))?)
            }
            Feature::Errno => offers(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval),
            Feature::Unix => is_known(load(CGROUP_SOCK_ADDR, UNIX_CONNECT)),
            Feature::Preorder => {
                let program = load(CGROUP_SKB, EGRESS)?;
                // Flags are judged before the target, which is no cgroup here: nothing can be attached.
                let refused = sys::link_create(program.as_fd(), program.as_fd(), EGRESS, BPF_F_PREORDER);
                Ok(refused.is_err_and(|fault| fault.raw_os_error() == Some(libc::EBADF)))
            }
            Feature::Destroy => diag::can_destroy(),
        }
    }
}

/// Layers that a fence on this kernel will have to do without.
///
/// # Errors
/// [`FenceError::Kernel`] when it lacks what no fence can do without.
pub(super) fn layers_missing() -> Result<Vec<&'static str>, FenceError> {
    let mut layers = Vec::new();
    for feature in Feature::ALL {
        let is_there = feature.is_there();
        match (feature.is_needed(), is_there) {
            (_, Ok(true)) => {}
            (false, Ok(false) | Err(_)) => layers.push(feature.layer()),
            (true, Ok(false)) => {
                let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
                return Err(FenceError::Kernel {
                    release: release.trim().into(),
                    lacks: feature.text().into(),
                });
            }
            (true, Err(fault)) => return Err(FenceError::Object(format!("{}: {fault}", feature.text()))),
        }
    }
    Ok(layers)
}

fn offers(kind: ProgramType, helper: BpfHelper) -> io::Result<bool> {
    is_helper_supported(kind, helper).map_err(io::Error::other)
}

fn has_cookie_option() -> io::Result<bool> {
    match super::netns_cookie(&std::net::UdpSocket::bind("127.0.0.1:0")?) {
        Ok(_) => Ok(true),
        Err(fault) if fault.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// A program that lets everything pass.
fn load(program_type: u32, attach_type: u32) -> io::Result<std::os::fd::OwnedFd> {
    // r0 = 1; exit
    let code = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    sys::program_load(&code, c"GPL", program_type, attach_type)
}

/// An attach type that the kernel does not know is an invalid argument.
fn is_known<T>(loaded: io::Result<T>) -> io::Result<bool> {
    match loaded {
        Ok(_) => Ok(true),
        Err(fault) if fault.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const RAW_TRACEPOINT: u32 = 17;
/// `BPF_PROG_TYPE_CGROUP_SKB`.
const CGROUP_SKB: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_answers_about_every_feature() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for feature in Feature::ALL {
            // What it answers is this kernel's affair; that it answers is ours.
            feature.is_there().unwrap_or_else(|fault| panic!("{feature:?}: {fault}"));
        }
    }

    #[test]
    fn only_what_the_kernel_calls_invalid_is_absent() {
        assert!(!is_known::<()>(Err(io::Error::from_raw_os_error(libc::EINVAL))).unwrap());
        assert!(is_known::<()>(Err(io::Error::from_raw_os_error(libc::EPERM))).is_err());
        assert!(is_known(Ok(())).unwrap());
    }
}
