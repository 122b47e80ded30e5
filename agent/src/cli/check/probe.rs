//! The looks at the host, one function a thing, each answering with its own row.
//! They refuse to guess: what cannot be read is reported as not readable.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Row;
use crate::cli::ca::is_trusted;
use crate::config::Config;
use crate::kernel::capability;
use crate::privilege::confine;
use crate::tls::CaFacts;

/// What does not hang on the configuration.
pub(super) fn host() -> Vec<Row> {
    let mut rows = vec![
        root(),
        kernel(&read("/proc/sys/kernel/osrelease")),
        btf(),
        cgroup(&read("/proc/self/mountinfo")),
    ];
    rows.extend(super::features::rows());
    rows.extend(capabilities(&read("/proc/self/status")));
    rows.extend([
        unprivileged_bpf(),
        landlock(confine::landlock_version()),
        clock(SystemTime::now()),
        resolvers(&read("/etc/resolv.conf")),
        ports(),
    ]);
    rows
}

/// What the configuration names.
pub(super) fn configured(config: &Config) -> Vec<Row> {
    vec![
        bpffs(
            &config.fence.bpffs,
            &read("/proc/self/mountinfo"),
            &read("/proc/filesystems"),
            capability::has(capability::held(&read("/proc/self/status")), SYS_ADMIN),
        ),
        attach_point(&config.fence.attach, &read("/proc/self/mountinfo")),
        ca(config),
        policies(&config.policies),
        ledger(&config.audit.dir),
        secrets(config),
        free_port(config.fence.port),
    ]
}

fn root() -> Row {
    match rustix::process::geteuid().is_root() {
        true => Row::good("user", "root"),
        false => Row::less(
            "user",
            format!("uid {}", rustix::process::geteuid().as_raw()),
            "reading the CA's key, secrets and other users' executables",
            "run as root; weir drops what it does not need",
        ),
    }
}

/// The version decides nothing: distributions backport. What it has to have is looked at by itself.
fn kernel(release: &str) -> Row {
    match release {
        "" => {
            Row::missing("kernel", "version not readable", "the fence", "is this Linux with /proc mounted?")
        }
        _ => Row::good("kernel", release),
    }
}

fn btf() -> Row {
    let path = "/sys/kernel/btf/vmlinux";
    match fs::metadata(path) {
        Ok(facts) => Row::good("kernel: types (BTF)", format!("{path}, {} KiB", facts.len() / 1024)),
        Err(_) => Row::missing(
            "kernel: types (BTF)",
            format!("no {path}"),
            "the fence: process and cgroup facts at connect",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF",
        ),
    }
}

fn cgroup(mounts: &str) -> Row {
    match mount_of(mounts, "cgroup2") {
        Some(at) => Row::good("cgroup v2", at),
        None => Row::missing(
            "cgroup v2",
            "not mounted",
            "the fence: workloads are found by cgroup",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

/// By the effective set of this process; the service needs the same.
fn capabilities(status: &str) -> Vec<Row> {
    let held = capability::held(status);
    let one = |what, bit: u32, essential: bool, lost| {
        let give = "run as root, or grant it (AmbientCapabilities= in the unit)";
        match (capability::has(held, bit), essential) {
            (true, _) => Row::good(what, "held"),
            (false, true) => Row::missing(what, "not held", lost, give),
            (false, false) => Row::less(what, "not held", lost, give),
        }
    };
    // Bits: linux/capability.h.
    vec![
        one("CAP_BPF", 39, true, "loading the fence"),
        one("CAP_NET_ADMIN", 12, true, "attaching the fence; marks on upstream sockets"),
        one("CAP_PERFMON", 38, true, "the verifier refuses programs that read kernel types"),
        one("CAP_SETUID", 7, true, "the relaying process's own user: the agent does not start"),
        one("CAP_SETGID", 6, true, "the same, its group"),
        one("CAP_KILL", 5, false, "ending a relaying process that hangs"),
        one(
            "CAP_SYS_ADMIN",
            SYS_ADMIN,
            false,
            "listeners inside containers' network namespaces; mounting bpffs",
        ),
        one("CAP_SYS_PTRACE", 19, false, "hashing executables of other users' processes"),
    ]
}

fn unprivileged_bpf() -> Row {
    let found = read("/proc/sys/kernel/unprivileged_bpf_disabled");
    match found.as_str() {
        "1" | "2" => Row::good("unprivileged bpf()", format!("off ({found})")),
        _ => Row::less(
            "unprivileged bpf()",
            if found.is_empty() { "not readable".into() } else { format!("on ({found})") },
            "a workload may load programs of its own",
            "sysctl kernel.unprivileged_bpf_disabled=1",
        ),
    }
}

fn landlock(version: u32) -> Row {
    match version {
        0 => Row::less(
            "landlock",
            "the kernel does not have it, or it is not in `lsm=`",
            "the second of two locks on the relaying process's way to files and ports; seccomp is the other",
            "boot Linux 5.13 or newer with landlock among its security modules",
        ),
        version => Row::good("landlock", format!("version {version}")),
    }
}

fn clock(now: SystemTime) -> Row {
    let built = SystemTime::UNIX_EPOCH + Duration::from_secs(BUILT_AFTER);
    let shown = jiff::Timestamp::try_from(now).map_or_else(|_| "?".into(), |now| now.to_string());
    if now < built {
        return Row::missing(
            "clock",
            format!("{shown}, before weir was written"),
            "certificates fail, audit times lie",
            "set the clock; run an NTP client",
        );
    }
    Row::good("clock", shown)
}

fn resolvers(text: &str) -> Row {
    let servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .collect();
    if servers.is_empty() {
        return Row::less(
            "DNS servers",
            "none in /etc/resolv.conf",
            "host names in policies cannot be tied to addresses by look-up",
            "name a server, or write policies with addresses",
        );
    }
    Row::good("DNS servers", servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

fn ports() -> Row {
    let range = read("/proc/sys/net/ipv4/ip_local_port_range");
    let ends: Vec<u32> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
    match ends.as_slice() {
        [low, high] if high.saturating_sub(*low) >= 10_000 => {
            Row::good("local ports", format!("{low} to {high}"))
        }
        [low, high] => Row::less(
            "local ports",
            format!("{low} to {high}"),
            "many connections at once to one server",
            "sysctl net.ipv4.ip_local_port_range='32768 60999'",
        ),
        _ => Row::less("local ports", "range not readable", "nothing known", "mount /proc"),
    }
}

fn bpffs(path: &Path, mounts: &str, kinds: &str, can_mount: bool) -> Row {
    let shown = path.display();
    if mounts.lines().filter_map(|line| mount(line, "bpf")).any(|at| path.starts_with(at)) {
        return Row::good("bpffs", shown.to_string());
    }
    let lost = "pins: without them a dead agent opens the fence, so no agent starts";
    if !kinds.split_whitespace().any(|kind| kind == "bpf") {
        return Row::missing(
            "bpffs",
            "the kernel has no such file system",
            lost,
            "use a kernel built with CONFIG_BPF_SYSCALL",
        );
    }
    let mend = format!("mount one: mkdir -p {shown} && mount -t bpf bpf {shown}");
    if !can_mount {
        return Row::missing(
            "bpffs",
            format!("none at {shown}, and this process may not mount one"),
            lost,
            mend,
        );
    }
    let nearest = nearest(path);
    if !path.is_dir() && rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_err() {
        let found = format!("none at {shown}, and {} is not writable", nearest.display());
        return Row::missing("bpffs", found, lost, mend);
    }
    Row::good("bpffs", format!("none at {shown}; the agent mounts one"))
}

/// The deepest folder on this path that is there.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(path)
}

fn attach_point(attach: &str, mounts: &str) -> Row {
    let Some(mounted) = mount_of(mounts, "cgroup2") else {
        return Row::missing("fence.attach", "no cgroup v2", "the fence", "see cgroup v2 above");
    };
    let path = Path::new(&mounted).join(attach.trim_start_matches('/'));
    let found = if path.is_dir() { "" } else { "; the agent makes it" };
    Row::good("fence.attach", format!("{}{found}", path.display()))
}

fn ca(config: &Config) -> Row {
    let Ok(facts) = CaFacts::read(&config.tls.dir) else {
        return Row::less(
            "host CA",
            format!("none in {} yet", config.tls.dir.display()),
            "clients will refuse TLS that policies must read",
            "`weir ca install`",
        );
    };
    if SystemTime::now() >= facts.not_after {
        return Row::missing(
            "host CA",
            "expired",
            "TLS that policies must read",
            "move it away, then `weir ca install`",
        );
    }
    if is_trusted(&facts) {
        return Row::good("host CA", "made, and trusted by this host");
    }
    Row::less(
        "host CA",
        "made, not in this host's roots",
        "clients refuse TLS that policies must read",
        "`weir ca install`",
    )
}

fn policies(dir: &Path) -> Row {
    let is_policy = |name: &str| name.ends_with(".yaml") && !name.ends_with("_test.yaml");
    let count = match fs::read_dir(dir) {
        Ok(entries) => {
            entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_policy)).count()
        }
        Err(fault) => {
            return Row::missing(
                "policies",
                format!("{}: {fault}", dir.display()),
                "everything: the agent does not start",
                "make the folder and put policies in",
            );
        }
    };
    match count {
        0 => Row::less(
            "policies",
            format!("{} is empty", dir.display()),
            "every labelled connection is denied",
            "add one",
        ),
        _ => Row::good(
            "policies",
            format!("{count} file(s) in {}; `weir policy check` judges them", dir.display()),
        ),
    }
}

fn ledger(dir: &Path) -> Row {
    let nearest = nearest(dir);
    let lost = "everything: what cannot be recorded is refused";
    if rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).is_err() {
        return Row::missing(
            "audit.dir",
            format!("{} is not writable", nearest.display()),
            lost,
            "chown it, or run as root",
        );
    }
    let Ok(space) = rustix::fs::statvfs(nearest) else {
        return Row::missing(
            "audit.dir",
            format!("{} cannot be asked for space", nearest.display()),
            lost,
            "check the disk",
        );
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
    if free < FREE_MIB {
        return Row::missing(
            "audit.dir",
            format!("{free} MiB free"),
            lost,
            format!("free {FREE_MIB} MiB or move the ledger"),
        );
    }
    Row::good("audit.dir", format!("{}, {free} MiB free", dir.display()))
}

fn secrets(config: &Config) -> Row {
    match crate::credential::Secrets::load(&config.secrets) {
        Ok(_) => Row::good("secrets", format!("{} provider(s)", config.secrets.len())),
        Err(reason) => Row::missing("secrets", reason, "the agent does not start", "mend the file"),
    }
}

fn free_port(port: u16) -> Row {
    if port == 0 {
        return Row::good("fence.port", "any free one");
    }
    match TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))) {
        Ok(_) => Row::good("fence.port", format!("{port} is free")),
        Err(fault) => Row::less(
            "fence.port",
            format!("{port}: {fault}"),
            "this agent's listener, unless it is this agent that holds it",
            "stop what holds it, or choose another",
        ),
    }
}

/// Where the first file system of this type is mounted (proc(5), mountinfo: type is the first field after ` - `).
fn mount_of(mounts: &str, kind: &str) -> Option<String> {
    mounts.lines().find_map(|line| mount(line, kind)).map(str::to_owned)
}

fn mount<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    let (before, after) = line.split_once(" - ")?;
    (after.split(' ').next()? == kind).then(|| before.split(' ').nth(4))?
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

/// linux/capability.h.
const SYS_ADMIN: u32 = 21;
/// 2026-01-01: weir did not exist before, so a clock that says so is wrong.
const BUILT_AFTER: u64 = 1_767_225_600;
/// The ledger needs room for a first segment and its store.
const FREE_MIB: u64 = 256;

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn mounts_are_found_by_type() {
        let mounts = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n\
                      31 23 0:28 / /sys/fs/bpf rw shared:5 - bpf bpf rw,mode=700\n";
        assert_eq!(mount_of(mounts, "cgroup2").as_deref(), Some("/sys/fs/cgroup"));
        let state = |path: &str, kinds, can_mount| bpffs(Path::new(path), mounts, kinds, can_mount).state;
        assert_eq!(state("/sys/fs/bpf/weir", "", false), State::Good, "it is there");
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("not/there").display().to_string();
        assert_eq!(state(&absent, "nodev\tbpf\n", true), State::Good);
        assert_eq!(state(&absent, "nodev\tproc\n", true), State::Missing);
        assert_eq!(state(&absent, "nodev\tbpf\n", false), State::Missing);
        assert_eq!(cgroup("").state, State::Missing);
        assert_eq!(mount_of("garbage - ", "bpf"), None);
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let all = capabilities("CapPrm:\t0\nCapEff:\t000001ffffffffff\n");
        assert!(all.iter().all(|row| row.state == State::Good));
        let none = capabilities("CapEff:\t0000000000000000\n");
        assert_eq!(none.iter().filter(|row| row.state == State::Missing).count(), 5);
        assert!(none.iter().all(|row| !row.lost.is_empty() && !row.mend.is_empty()));
    }

    #[test]
    fn a_kernel_without_landlock_is_named() {
        assert_eq!((landlock(0).state, landlock(4).state), (State::Less, State::Good));
    }

    #[test]
    fn a_clock_before_weir_and_a_host_without_dns_are_named() {
        assert_eq!(clock(SystemTime::UNIX_EPOCH).state, State::Missing);
        assert_eq!(clock(SystemTime::now()).state, State::Good);
        assert_eq!(resolvers("# none\nsearch x\n").state, State::Less);
        assert_eq!(resolvers("nameserver 127.0.0.53\nnameserver fe80::1%2\n").state, State::Good);
    }
}
