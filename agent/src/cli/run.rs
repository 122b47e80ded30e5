//! `weir run --workload NAME -- CMD …`: a command in a labelled cgroup of its own, labelled before its first instruction.
//! It refuses to start anything that the fence would not hold: exit 125 without a live agent.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::{Context, bail};
use rustix::fs::OFlags;

use super::Common;
use crate::config::Config;
use crate::control::Request;
use crate::control::client::Client;
use crate::kernel::{Pins, Tree, bpffs, cgroup, netns_cookie};
use crate::privilege::guard::Guard;
use crate::workload::{label, run_cgroup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workload of the configuration whose label and policies the command gets.
    #[arg(long)]
    workload: String,
    /// Run as this user (name or uid), with its primary group and no others.
    #[arg(long, alias = "uid")]
    user: Option<String>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// The command was not started.
const REFUSED: u8 = 125;

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    match start(common, &args) {
        Ok((child, home)) => {
            let status = wait(child)?;
            // Children that outlive the command keep their cgroup and their label; a later run sweeps it.
            let _ = std::fs::remove_dir(home);
            Ok(ExitCode::from(code(status)))
        }
        Err(fault) => {
            eprintln!("weir run: {fault:#}");
            Ok(ExitCode::from(REFUSED))
        }
    }
}

fn start(common: &Common, args: &Args) -> anyhow::Result<(Child, PathBuf)> {
    let config = Config::load(&common.config)?;
    if !config.workloads.iter().any(|workload| workload.name == args.workload) {
        bail!("{} has no workload {:?}: add it under `workloads`", common.config.display(), args.workload);
    }
    let tree = Tree::open(&config.fence.attach)?;
    let user = args.user.as_deref().map(User::find).transpose()?;
    refuse_sockets()?;
    let parent = labelled_parent(&config, &tree, &args.workload)?;
    cgroup::sweep(&parent);
    let home = parent.join(std::process::id().to_string());
    std::fs::create_dir(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let started = spawn(&config, args, user, &home);
    if started.is_err() {
        let _ = std::fs::remove_dir(&home);
    }
    Ok((started?, home))
}

/// The workload's cgroup, proved to be labelled by a living agent: what is made below it is born labelled.
fn labelled_parent(config: &Config, tree: &Tree, name: &str) -> anyhow::Result<PathBuf> {
    let pins = Pins::open(&bpffs::folder(&config.fence.bpffs))?;
    if !pins.is_alive()? {
        bail!("the fence is up but its agent is dead: start `weir agent`");
    }
    serve_here(config, &pins)?;
    let parent = tree.root().join(run_cgroup(name));
    let id = cgroup::id(&parent).ok();
    let found = id.map(|id| pins.labels.lookup(&id)).transpose()?.flatten();
    if found != Some(label(name)) {
        bail!("the agent has not labelled {name:?}: was it started with another configuration?");
    }
    Ok(parent)
}

/// In a network namespace of its own the command's first connection would be refused: the agent is told beforehand.
fn serve_here(config: &Config, pins: &Pins) -> anyhow::Result<()> {
    let here = netns_cookie(&std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?)?;
    if pins.listeners.lookup(&here)?.is_some() {
        return Ok(());
    }
    Client::connect(&config.control)?.ask(&Request::Serve)?;
    if pins.listeners.lookup(&here)?.is_none() {
        bail!("the agent cannot listen in this network namespace; see its log");
    }
    Ok(())
}

fn spawn(config: &Config, args: &Args, user: Option<User>, home: &Path) -> anyhow::Result<Child> {
    let Some((program, arguments)) = args.command.split_first() else { bail!("name a command after `--`") };
    let procs = home.join("cgroup.procs");
    let procs = rustix::fs::open(&procs, OFlags::WRONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .with_context(|| procs.display().to_string())?;
    let mut command = Command::new(program);
    command.args(arguments).envs(trust(&config.tls.dir));
    let mask = SignalMask::block()?;
    let guard = Guard::new().context("the guard around the command")?;
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::io::write(&procs, b"0")?;
            close_inherited()?;
            if let Some(user) = user {
                user.become_it()?;
            }
            guard.set()?;
            mask.restore()
        });
    }
    command.spawn().with_context(|| format!("cannot start {}", Path::new(program).display()))
}

/// Variables by which TLS libraries find the CA that signs what weir terminates. What is not there is not set.
fn trust(tls: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut variables = Vec::new();
    let bundle = tls.join("bundle.pem");
    if bundle.is_file() {
        variables.extend(BUNDLE_VARIABLES.map(|name| (name, bundle.clone())));
    }
    let authority = tls.join("ca.pem");
    if authority.is_file() {
        // Node adds it to its own list; the others replace theirs.
        variables.push(("NODE_EXTRA_CA_CERTS", authority));
    }
    variables
}

/// OpenSSL, Python (requests, pip, httplib2), curl, AWS SDKs, git, gRPC, cargo, Deno, Nix, the Google Cloud SDK, libpq.
const BUNDLE_VARIABLES: [&str; 13] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "PGSSLROOTCERT",
];

/// An Internet socket as standard input or output is a connection that never passed the fence.
fn refuse_sockets() -> anyhow::Result<()> {
    for fd in 0..=2 {
        let (mut domain, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: four bytes for a value of four bytes; a descriptor that is no socket is an error.
        let failed = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut length)
        };
        if failed == 0 && domain != libc::AF_UNIX {
            bail!("descriptor {fd} is a network socket, which would pass the fence: redirect it");
        }
    }
    Ok(())
}

/// Closes everything above standard error at exec: an inherited socket was born outside the fence.
fn close_inherited() -> io::Result<()> {
    // SAFETY: marks descriptors; the Rust side's own pipe of `spawn` is close-on-exec already.
    let failed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn find(text: &str) -> anyhow::Result<Self> {
        let name = CString::new(text).context("a user name without NUL")?;
        // SAFETY: the name ends with NUL; the entry is copied before another call can change it, on one thread.
        let entry = unsafe {
            match text.parse::<u32>() {
                Ok(uid) => libc::getpwuid(uid).as_ref(),
                Err(_) => libc::getpwnam(name.as_ptr()).as_ref(),
            }
        };
        match (entry, text.parse::<u32>()) {
            (Some(entry), _) => Ok(Self { uid: entry.pw_uid, gid: entry.pw_gid }),
            (None, Ok(uid)) => Ok(Self { uid, gid: uid }),
            (None, Err(_)) => bail!("no user {text:?} on this host"),
        }
    }

    fn become_it(self) -> io::Result<()> {
        // SAFETY: plain system calls; groups first, while we still may.
        let failed = unsafe {
            libc::setgroups(0, std::ptr::null()) != 0
                || libc::setgid(self.gid) != 0
                || libc::setuid(self.uid) != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Signals that are passed on to the command. They are blocked here and taken one by one.
const FORWARDED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGCONT,
];

/// The mask before the forwarded signals were blocked; the command gets it back.
#[derive(Clone, Copy)]
struct SignalMask(libc::sigset_t);

impl SignalMask {
    fn block() -> io::Result<Self> {
        let wanted = set_of(&[&FORWARDED[..], &[libc::SIGCHLD]].concat());
        // SAFETY: both sets are valid.
        unsafe {
            let mut before = std::mem::zeroed();
            match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const wanted, &raw mut before) {
                0 => Ok(Self(before)),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    fn restore(&self) -> io::Result<()> {
        // SAFETY: the set is valid.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an empty set is made before signals are added to it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Passes signals on until the command has ended.
fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let set = set_of(&[&FORWARDED[..], &[libc::SIGCHLD]].concat());
    // A signalfd is readable when one of the blocked signals is pending.
    // SAFETY: the set is valid; the kernel returns a new descriptor.
    let signals = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    if signals < 0 {
        return child.wait();
    }
    // SAFETY: new and ours.
    let signals = unsafe { OwnedFd::from_raw_fd(signals) };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        // SAFETY: any bit pattern is a signalfd_siginfo, and the read is as long as the value.
        let found = unsafe {
            let mut found: libc::signalfd_siginfo = std::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            let count = libc::read(signals.as_raw_fd(), (&raw mut found).cast(), size);
            (count == size as isize).then_some(found)
        };
        let Some(found) = found else { continue };
        let signal = found.ssi_signo as i32;
        // The terminal sends its signals to the whole foreground group, the command included.
        let from_terminal = found.ssi_code == libc::SI_KERNEL;
        if signal != libc::SIGCHLD && !from_terminal {
            // SAFETY: a plain system call on a child that is not yet reaped, so the id is still its own.
            unsafe { libc::kill(child.id() as i32, signal) };
        }
    }
}

/// As shells report it: 128 and the signal for a killed command.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
