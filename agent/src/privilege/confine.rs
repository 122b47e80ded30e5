//! What the relaying process gives up for good before it reads a byte of a workload's: root, every capability, every
//! file, every new socket, and all system calls but those listed here. It refuses to go on with less confinement than the
//! kernel has.

use std::io;

use anyhow::Context;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr, Scope,
};
use rustix::process::{
    DumpableBehavior, Gid, Pid, Resource, Rlimit, Signal, Uid, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use super::guard::{Rules, compile, foreign_numbers, target};
use crate::lane::message::Confined;

/// The user of the relaying process where /etc/passwd has none by [`USER`]: a number that neither people, packages nor
/// systemd's dynamic users are given.
pub const UID: u32 = 61_010;
/// Give this user no other process, no file and no shell.
pub const USER: &str = "weir-relay";

/// Gives it all up. Call it while one thread runs.
///
/// # Errors
/// The kernel refuses a step, or this process may not change its user (CAP_SETUID, CAP_SETGID).
pub fn for_good() -> anyhow::Result<Confined> {
    let keeper = getppid();
    // The first look at a clock finds the kernel's page for it, in ways that differ between kernels; the rest are only reads.
    let _ = crate::kernel::monotonic_ns();
    let (uid, gid) = user(&std::fs::read_to_string("/etc/passwd").unwrap_or_default());
    // Killed before the keeper when memory runs out: it is replaced. Whoever has no such file has no such order.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[]).context("leaving the keeper's groups (CAP_SETGID)")?;
    set_thread_res_gid(gid, gid, gid).context("leaving the keeper's group (CAP_SETGID)")?;
    set_thread_res_uid(uid, uid, uid).context("becoming another user (CAP_SETUID)")?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    set_no_new_privs(true)?;
    // After the user has changed, which sets both anew: no core, no look from outside, no life without the keeper.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != keeper || keeper == Some(Pid::INIT) && !is_init_our_keeper() {
        anyhow::bail!("the keeper has ended meanwhile");
    }
    let landlock = no_files_no_ports()?;
    let left = capabilities(None)?;
    let left = left.effective | left.permitted | left.inheritable;
    let confined = Confined {
        pid: std::process::id(),
        uid: rustix::process::geteuid().as_raw(),
        capabilities: left.bits().count_ones(),
        system_calls: (CALLS.len() + REFUSED.len()) as u32,
        landlock,
    };
    // Its name in ps(1); the program itself is the agent's.
    rustix::thread::set_name(c"weir-relay")?;
    few_calls().context("seccomp")?;
    Ok(confined)
}

/// In a container the keeper may be process 1.
fn is_init_our_keeper() -> bool {
    let of = |pid: &str| std::fs::metadata(format!("/proc/{pid}/exe")).ok();
    use std::os::unix::fs::MetadataExt;
    of("1")
        .zip(of("self"))
        .is_some_and(|(keeper, own)| (keeper.dev(), keeper.ino()) == (own.dev(), own.ino()))
}

/// Numbers of [`USER`] and its group, from the text of passwd(5).
fn user(passwd: &str) -> (u32, u32) {
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(USER)).then_some(())?;
        let mut number = || fields.next().and_then(|field| field.parse::<u32>().ok());
        let _password = number();
        Some((number()?, number()?))
    });
    found.filter(|(uid, _)| *uid != 0).unwrap_or((UID, UID))
}

/// Version of landlock that this kernel offers; 0 for none.
#[must_use]
pub fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: asked for its version, the call takes neither attributes nor their size.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// landlock(7) without a single rule: no path, no TCP port, no signal and no abstract socket outside. Returns the version
/// that holds; an older kernel has less of it, and none before 5.13.
fn no_files_no_ports() -> anyhow::Result<u32> {
    let newest = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(newest)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        .context("landlock")?;
    let status = ruleset.restrict_self().context("landlock")?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    })
}

/// All that the relaying process may ask of the kernel, each with its reason. What is neither here nor in [`REFUSED`] ends
/// the process: it is no longer ours then.
const CALLS: &[(i64, &str)] = &[
    // Connections, lanes and the intake: all of them are handed in, and none is made here.
    (libc::SYS_read, "connections, wake-ups of the runtime"),
    (libc::SYS_write, "connections, the intake, the log on standard error"),
    (libc::SYS_readv, "connections"),
    (libc::SYS_writev, "connections: several buffers with one call"),
    (libc::SYS_recvfrom, "connections"),
    (libc::SYS_sendto, "connections and lanes (only to where the socket is connected)"),
    (libc::SYS_recvmsg, "lanes with their descriptors, DNS questions with their addresses"),
    (libc::SYS_shutdown, "half-close"),
    (libc::SYS_getsockopt, "errors of connections; the network namespace of DNS sockets"),
    (libc::SYS_setsockopt, "whether writing is delayed, and whether closing is a reset (only these)"),
    (libc::SYS_getsockname, "addresses of DNS sockets"),
    (libc::SYS_getpeername, "addresses of connections"),
    (libc::SYS_close, "what has ended"),
    (libc::SYS_fcntl, "descriptors that come by a lane (only reading flags, duplicating, closing at exec)"),
    (libc::SYS_ioctl, "descriptors that come by a lane (only making them not block)"),
    (libc::SYS_pread64, "sealed files: policies"),
    (libc::SYS_fdatasync, "strict records"),
    // Waiting.
    (libc::SYS_epoll_create1, "the runtime of a thread"),
    (libc::SYS_epoll_ctl, "watching a descriptor"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "waiting for descriptors"),
    (libc::SYS_epoll_pwait, "the same"),
    (libc::SYS_epoll_pwait2, "the same, in nanoseconds"),
    (libc::SYS_eventfd2, "wake-ups of the runtime"),
    (libc::SYS_futex, "locks"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "sockets that the standard library waits for"),
    (libc::SYS_sched_yield, "locks"),
    (libc::SYS_clock_nanosleep, "resting after a failed receive"),
    (libc::SYS_restart_syscall, "a wait that was interrupted"),
    // Clocks, where the kernel gives no faster way.
    (libc::SYS_clock_gettime, "clocks"),
    (libc::SYS_getrandom, "keys, session ids, DNS ids"),
    // Memory; nothing that can be executed.
    (libc::SYS_mmap, "memory, stacks (never executable)"),
    (libc::SYS_mprotect, "guard pages (never executable)"),
    (libc::SYS_munmap, "giving memory back"),
    (libc::SYS_mremap, "growing buffers"),
    (libc::SYS_madvise, "giving memory back"),
    (libc::SYS_brk, "memory"),
    // Threads of this process; no process can be made.
    (libc::SYS_clone3, "ENOSYS, so that the C library takes clone, whose flags can be judged"),
    (libc::SYS_clone, "threads (only with CLONE_THREAD)"),
    (libc::SYS_set_robust_list, "a thread's beginning"),
    (libc::SYS_rseq, "a thread's beginning"),
    (
        libc::SYS_prctl,
        "names of threads and memory; what the kernel told the process at its start (only that)",
    ),
    (libc::SYS_sigaltstack, "a thread's stack for overflows"),
    (libc::SYS_rt_sigprocmask, "a thread's beginning and end"),
    (libc::SYS_rt_sigaction, "an abort's way"),
    (libc::SYS_rt_sigreturn, "the way back from a signal"),
    (libc::SYS_sched_getaffinity, "how many cores there are"),
    (libc::SYS_gettid, "an abort's way"),
    (libc::SYS_getpid, "an abort's way"),
    (libc::SYS_tgkill, "an abort's way"),
    (libc::SYS_exit, "a thread's end"),
    (libc::SYS_exit_group, "the process's end"),
];

/// What is answered with EACCES: libraries look for files now and then and do without.
const REFUSED: &[(i64, &str)] = &[
    (libc::SYS_openat, "files that libraries look for"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "the same"),
    (libc::SYS_getcwd, "a panic's words name files below it"),
    (libc::SYS_statx, "the same as openat"),
    (libc::SYS_newfstatat, "the same"),
    (libc::SYS_fstat, "the same"),
];

fn few_calls() -> anyhow::Result<()> {
    let mut rules = uses(CALLS.iter().chain(REFUSED));
    for (call, narrow) in narrowed()? {
        rules.retain(|(other, _)| *other != call);
        rules.push((call, narrow));
    }
    let (other, listed) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let allowed = SeccompFilter::new(rules.into_iter().collect(), other, listed, target()?)?;
    let allowed = BpfProgram::try_from(allowed)?;
    let refused = compile(uses(REFUSED), libc::EACCES)?;
    let unknown = compile(vec![(libc::SYS_clone3, Vec::new())], libc::ENOSYS)?;
    // Of several filters the strictest answer counts. The list itself comes last: it has no way to set another.
    for program in [&foreign_numbers(), &refused, &unknown, &allowed] {
        apply_filter(program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// All uses of these calls.
fn uses<'a>(calls: impl IntoIterator<Item = &'a (i64, &'a str)>) -> Rules {
    calls.into_iter().map(|(call, _)| (*call, Vec::new())).collect()
}

/// Calls of which only some uses are let through.
fn narrowed() -> anyhow::Result<Rules> {
    let one = |argument: u8, op: SeccompCmpOp, value: u64| -> anyhow::Result<SeccompRule> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    let not_executable = || one(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    let among = |argument: u8, values: &[i32]| -> anyhow::Result<Vec<SeccompRule>> {
        values.iter().map(|value| one(argument, SeccompCmpOp::Eq, value.unsigned_abs().into())).collect()
    };
    let threads = libc::CLONE_THREAD as u64;
    // A pointer is compared whole: an address of which half is zero is one.
    let nowhere_else = SeccompRule::new(vec![
        SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?,
        SeccompCondition::new(5, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?,
    ])?;
    let option = |level: i32, name: i32| -> anyhow::Result<SeccompRule> {
        let equal = |argument: u8, value: i32| {
            let value = value.unsigned_abs().into();
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        };
        Ok(SeccompRule::new(vec![equal(1, level)?, equal(2, name)?])?)
    };
    let options =
        vec![option(libc::SOL_SOCKET, libc::SO_LINGER)?, option(libc::IPPROTO_TCP, libc::TCP_NODELAY)?];
    Ok(vec![
        (libc::SYS_mmap, vec![not_executable()?]),
        (libc::SYS_mprotect, vec![not_executable()?]),
        (libc::SYS_clone, vec![one(0, SeccompCmpOp::MaskedEq(threads), threads)?]),
        (libc::SYS_sendto, vec![nowhere_else]),
        (libc::SYS_setsockopt, options),
        (libc::SYS_prctl, among(0, &[libc::PR_SET_NAME, PR_SET_VMA, PR_GET_AUXV])?),
        (libc::SYS_ioctl, among(1, &[libc::FIONBIO as i32])?),
        // Not F_SETFL: the intake stays one that can only be appended to.
        (
            libc::SYS_fcntl,
            among(
                1,
                &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC, libc::F_GET_SEALS],
            )?,
        ),
    ])
}

/// Names for memory, which the C library gives where the kernel takes them (linux/prctl.h).
const PR_SET_VMA: i32 = 0x5356_4d41;
/// getauxval(3) without the C library: the page size and the like.
const PR_GET_AUXV: i32 = 0x4155_5856;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_looked_up_and_never_root() {
        assert_eq!(user("root:x:0:0::/:/bin/sh\nweir-relay:x:998:997::/:/usr/sbin/nologin\n"), (998, 997));
        assert_eq!(user("weir-relay:x:0:0::/:/bin/sh\n"), (UID, UID));
        assert_eq!(user(""), (UID, UID));
    }

    #[test]
    fn every_call_is_listed_once() {
        let mut numbers: Vec<i64> = CALLS.iter().chain(REFUSED).map(|(call, _)| *call).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CALLS.len() + REFUSED.len());
        for forbidden in
            [libc::SYS_socket, libc::SYS_connect, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_bpf]
        {
            assert!(!numbers.contains(&forbidden));
        }
    }

    /// Whether it worked.
    type Act = fn() -> bool;

    /// Acts that a parser which is not ours any more would like to do, and what becomes of each.
    const ACTS: &[(&str, Act)] = &[
        ("nothing", || true),
        ("socket", || std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("exec", || std::process::Command::new("/bin/true").status().is_ok()),
        ("executable memory", || {
            // SAFETY: a new mapping that nothing else uses.
            let page = unsafe {
                let (read, execute) = (libc::PROT_READ, libc::PROT_EXEC);
                let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), 4096, read | execute, private, -1, 0)
            };
            page != libc::MAP_FAILED
        }),
        // SAFETY: the request has no pointer that the kernel reads.
        ("ptrace", || unsafe { libc::ptrace(libc::PTRACE_ATTACH, 1, 0, 0) } == 0),
        // SAFETY: it only cuts a descriptor's file.
        ("cut a file", || unsafe { libc::ftruncate(1, 0) } == 0),
        // SAFETY: it only sets flags of a descriptor.
        ("write elsewhere in a file", || unsafe { libc::fcntl(1, libc::F_SETFL, 0) } == 0),
        ("look at a file", || std::fs::metadata("/etc/hostname").is_ok()),
        ("open a file", || std::fs::File::open("/etc/hostname").is_ok()),
        ("send elsewhere", || {
            // SAFETY: an all-zero address is a valid one.
            let to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            let size = size_of_val(&to) as libc::socklen_t;
            // SAFETY: the address is as long as is said.
            unsafe { libc::sendto(1, (&raw const to).cast(), 1, 0, (&raw const to).cast(), size) >= 0 }
        }),
        ("send a signal", || rustix::process::kill_process(Pid::INIT, Signal::CONT).is_ok()),
    ];

    /// Run by the test below, in a process of its own.
    #[test]
    fn act_confined() {
        let Ok(wanted) = std::env::var("WEIR_CONFINED_ACT") else { return };
        let (_, act) = ACTS.iter().find(|(name, _)| *name == wanted).unwrap();
        // The harness has threads; what counts is the one that acts.
        let confined = for_good().unwrap();
        assert_eq!((confined.uid, confined.capabilities), (UID, 0));
        std::process::exit(if act() { 10 } else { 11 });
    }

    #[test]
    fn a_confined_process_can_do_its_work_and_nothing_else() {
        use std::os::unix::process::ExitStatusExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let ended = |name: &str| {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "privilege::confine::tests::act_confined", "--nocapture"]);
            child.env("WEIR_CONFINED_ACT", name).stdout(std::process::Stdio::null()).status().unwrap()
        };
        for (name, act) in ACTS {
            let ended = ended(name);
            match *name {
                "nothing" => assert_eq!(ended.code(), Some(10), "the positive control"),
                "open a file" | "look at a file" => assert_eq!(ended.code(), Some(11), "{name}: {ended:?}"),
                _ => assert_eq!(ended.signal(), Some(libc::SIGSYS), "{name}: {ended:?}"),
            }
            let is_harmless = ["socket", "exec", "executable memory", "open a file"].contains(name);
            assert!(!is_harmless || act(), "{name}: unconfined it works");
        }
    }
}
