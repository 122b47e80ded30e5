//! Why there is no fence. It refuses to leave anybody without a next step.

use std::path::PathBuf;

/// Why there is no fence. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    #[error("no cgroup v2 hierarchy is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup`)")]
    NoCgroup2,
    #[error("cgroup {path}: {source}")]
    Cgroup { path: PathBuf, source: std::io::Error },
    #[error("fence.attach {0:?}: write a path below the cgroup v2 mount, without `..`")]
    AttachPath(String),
    #[error(
        "not allowed to load kernel programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON ({0}); `weir check` says more"
    )]
    Privileges(String),
    #[error("this kernel has no BTF (/sys/kernel/btf/vmlinux: {0}): it needs CONFIG_DEBUG_INFO_BTF")]
    NoBtf(String),
    #[error("no bpffs at {path}: {source}. Mount one (`mount -t bpf bpf {path}`)")]
    NoBpffs { path: PathBuf, source: std::io::Error },
    #[error("another agent holds {0}: give each agent its own fence.bpffs")]
    Held(PathBuf),
    #[error(
        "this kernel ({release}) cannot hold the fence, it lacks {lacks}: boot Linux 5.15 or newer; `weir check` says more"
    )]
    Kernel { release: String, lacks: String },
    #[error("workload {workload}: unix socket {path:?}: write a path of 1 to {most} bytes", most = weir_ebpf::SOCKET_PATH_BYTES)]
    SocketPath { workload: String, path: PathBuf },
    #[error(
        "workload {0:?} lists unix sockets, which this kernel cannot hold it to: boot Linux 6.7 or newer, or take `unix` away"
    )]
    NoUnix(String),
    #[error("fence.require: {0:?} is no layer; there are {layers}", layers = super::LAYERS.join(", "))]
    UnknownLayer(String),
    #[error(
        "fence.require: this kernel has no layer {0:?}, so the agent does not start; `weir check` says what it needs"
    )]
    Required(String),
    #[error("kernel program {program}: {message}")]
    Program { program: String, message: String },
    #[error("kernel object: {0}")]
    Object(String),
    #[error("kernel map {map}: {source}")]
    Map { map: &'static str, source: std::io::Error },
    #[error("no fence is up at {0}: start `weir agent`")]
    Down(PathBuf),
}
