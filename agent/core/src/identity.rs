//! Who acts: the verified principal behind a connection. It never trusts a process name, and it is never empty.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// The identity floor (workload, owner, process) that every audit row carries, plus the bound user where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the workload label that the kernel found for the connecting task or its socket.
    pub workload: String,
    /// Person who answers for the workload (`workloads[].owner`).
    pub owner: String,
    /// Verified person or service behind the process; empty when none is bound.
    pub user: String,
    /// Groups of `user`, from the configuration or the verified token.
    pub groups: Vec<String>,
    pub class: Class,
    pub process: Process,
}

/// What kind of principal acts, as the audit reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    Human,
    Service,
    Ci,
    Agent,
}

impl Class {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Human => "human",
            Class::Service => "service",
            Class::Ci => "ci",
            Class::Agent => "agent",
        }
    }
}

/// The process that called `connect`, as the kernel recorded it at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot at which the process started; with `pid` a stable key.
    pub start_time: u64,
    pub uid: u32,
    /// Path of the executable as `/proc/PID/exe` showed it; empty when the process was gone.
    pub exe: String,
    /// SHA-256 of that executable, lower-case hex; empty when it could not be read.
    pub exe_sha256: String,
    /// Path of the cgroup below the fence's attach point.
    pub cgroup: String,
    /// Container id, where the cgroup path names one.
    pub container: String,
}
