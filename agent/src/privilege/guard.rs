//! The guard around a command of `weir run`: what the kernel's cgroup hooks cannot see is refused by seccomp, and no
//! program gains privileges by exec. It refuses by errno, so that programs fall back instead of dying.

use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// Filters that are ready to be set; made before `fork`, since nothing may allocate between it and `exec`.
#[derive(Debug)]
pub struct Guard {
    programs: [BpfProgram; 3],
}

impl Guard {
    /// # Errors
    /// A filter cannot be compiled for this processor.
    pub fn new() -> io::Result<Self> {
        let programs = [
            foreign_numbers(),
            compile(families().map_err(io::Error::other)?, libc::EAFNOSUPPORT)?,
            compile(calls().map_err(io::Error::other)?, libc::EPERM)?,
        ];
        Ok(Self { programs })
    }

    /// Sets no_new_privs and the filters for the calling thread and all that it starts, for good.
    ///
    /// # Errors
    /// The kernel has no seccomp.
    pub fn set(&self) -> io::Result<()> {
        // Sets no_new_privs too.
        self.programs.iter().try_for_each(|program| {
            apply_filter(program).map_err(|_| io::Error::from(io::ErrorKind::PermissionDenied))
        })
    }
}

/// Calls by number, each with what must hold for it; nothing is always.
pub(super) type Rules = Vec<(i64, Vec<SeccompRule>)>;

/// Answers the calls that are listed with an error, and lets the others through.
pub(super) fn compile(rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        target()?,
    );
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

pub(super) fn target() -> io::Result<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)
}

/// Families in which a socket may be made. The cgroup hooks judge IPv4 and IPv6; unix sockets stay on the host; netlink
/// is how resolvers ask for interfaces. Whatever else there is (AF_PACKET, AF_VSOCK, AF_XDP, AF_ALG, TIPC, SMC, …) leads
/// past the hooks.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

fn families() -> Result<Rules, seccompiler::BackendError> {
    let other: Result<Vec<_>, _> = FAMILIES
        .iter()
        .map(|family| {
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family.unsigned_abs().into())
        })
        .collect();
    // All conditions of one rule hold together: none of the families above.
    Ok(vec![(libc::SYS_socket, vec![SeccompRule::new(other?)?])])
}

/// Calls that no workload needs and that lead round the fence.
fn calls() -> Result<Rules, seccompiler::BackendError> {
    let attaching = [libc::PTRACE_ATTACH, libc::PTRACE_SEIZE].map(|request| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request.into())
            .and_then(|condition| SeccompRule::new(vec![condition]))
    });
    let mut rules: Rules = [
        // It makes sockets of any family without the system call that is judged above.
        libc::SYS_io_uring_setup,
        // Taking an unlabelled process's socket, or writing into its memory.
        libc::SYS_pidfd_getfd,
        libc::SYS_process_vm_writev,
        // The kernel asks a helper outside the cgroup, which looks names up.
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        // Programs and maps beside the fence's.
        libc::SYS_bpf,
    ]
    .map(|call| (call, Vec::new()))
    .into();
    // A debugger may start its own children (PTRACE_TRACEME), not take somebody else's process over.
    rules.push((libc::SYS_ptrace, attaching.into_iter().collect::<Result<_, _>>()?));
    Ok(rules)
}

/// x32 calls have numbers of their own, which no rule above names (seccomp(2)): they do not exist here. Other
/// architectures' calls (32-bit) are killed by the compiled filters themselves.
pub(super) fn foreign_numbers() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    let instruction = |code, jt, k| sock_filter { code, jt, jf: 0, k };
    vec![
        instruction(LOAD_NUMBER, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 1, X32),
        instruction(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        instruction(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set on a thread of its own: filters cannot be taken back.
    fn guarded<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                Guard::new().unwrap().set().unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    fn socket(family: i32) -> Option<i32> {
        use socket2::{Domain, Socket, Type};
        Socket::new(Domain::from(family), Type::DGRAM, None).err().and_then(|fault| fault.raw_os_error())
    }

    #[test]
    fn only_families_that_the_fence_sees_can_be_opened() {
        let seen = guarded(|| {
            (0..50).filter(|family| socket(*family) != Some(libc::EAFNOSUPPORT)).collect::<Vec<_>>()
        });
        assert_eq!(seen, FAMILIES, "and the rest are refused before the kernel looks for them");
        let free: Vec<i32> = (0..50).filter(|family| socket(*family).is_none()).collect();
        assert!(free.len() > FAMILIES.len() - 1, "without the guard: {free:?}");
    }

    #[test]
    fn nothing_gains_privileges_and_io_uring_is_gone() {
        let (status, ring) = guarded(|| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let mut parameters = [0_u8; 120];
            // SAFETY: the block is as large as `struct io_uring_params`; the call is refused before it is read.
            let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
            (status, (ring, io::Error::last_os_error().raw_os_error()))
        });
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp_filters:\t3"), "{status}");
        assert_eq!(ring, (-1, Some(libc::EPERM)));
    }
}
