//! What `weir status` reports, gathered from the parts of a running agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::Agent;
use crate::coverage::Coverage;
use crate::kernel;
use crate::lane::message::Confined;

/// One moment of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    /// Layers of the fence that are live, then those this kernel could not have.
    pub layers: Vec<String>,
    pub layers_missing: Vec<String>,
    /// Why the fence is not whole, while that is so.
    pub fence_fault: Option<String>,
    /// Programs of somebody else's on the hooks that turn connections.
    pub foreign_programs: Vec<String>,
    /// Ways out that no layer covers yet; see THREATS.md.
    pub not_covered: Vec<String>,
    pub workloads: Vec<String>,
    pub connections: u64,
    /// The process that reads what workloads and servers say, and how it is confined.
    pub relay: Confined,
    /// Network namespaces served beside the agent's own.
    pub namespaces: u64,
    /// What the kernel programs counted since the fence was raised.
    pub fence: BTreeMap<String, u64>,
    /// Connections turned, and what became of them.
    pub coverage: Coverage,
    /// The account did not add up at the last look.
    pub coverage_differs: bool,
    pub policy: PolicyStatus,
    pub ledger: LedgerStatus,
    /// Absent where no ClickHouse is configured.
    pub clickhouse: Option<ClickHouseStatus>,
    pub approvals_open: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    pub commit: String,
    pub sha256: String,
    /// Why the newest files on disk are not in force; the last good bundle is.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    pub epoch: u64,
    pub seq: u64,
    pub stored_seq: u64,
    pub bytes: u64,
    pub max_bytes: u64,
    /// Why records cannot be written, while that is so: every act is refused.
    pub fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickHouseStatus {
    pub url: String,
    pub lag_rows: u64,
    pub last_error: Option<String>,
}

impl Status {
    #[must_use]
    pub fn of(agent: &Agent) -> Status {
        let half = agent.relays.now();
        let (commit, sha256) = half.as_ref().map(|half| half.in_force()).unwrap_or_default();
        let ledger = agent.ledger.status();
        Status {
            node: agent.config.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: agent.started.elapsed().as_secs(),
            layers: kernel::LAYERS
                .iter()
                .filter(|layer| !agent.fence.missing_layers().contains(layer))
                .map(|layer| (*layer).to_owned())
                .collect(),
            layers_missing: agent.fence.missing_layers().iter().map(|layer| (*layer).to_owned()).collect(),
            fence_fault: agent.neighbours.fault(),
            foreign_programs: agent.neighbours.told(),
            not_covered: NOT_COVERED.iter().map(|way| (*way).to_owned()).collect(),
            workloads: agent.config.workloads.iter().map(|workload| workload.name.clone()).collect(),
            connections: agent.connections.load(std::sync::atomic::Ordering::Relaxed),
            relay: half.map(|half| half.confined()).unwrap_or_default(),
            namespaces: agent.namespaces.count() as u64,
            fence: agent
                .fence
                .counters()
                .unwrap_or_default()
                .into_iter()
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            coverage: Coverage::of(agent).unwrap_or_default(),
            coverage_differs: agent.taken.differs(),
            policy: PolicyStatus { commit, sha256, problems: agent.policy_problems() },
            ledger: LedgerStatus {
                epoch: ledger.epoch,
                seq: ledger.seq,
                stored_seq: ledger.stored_seq,
                bytes: ledger.journal_bytes + ledger.store_bytes,
                max_bytes: ledger.max_bytes,
                fault: ledger.fault,
            },
            clickhouse: agent.clickhouse(),
            approvals_open: agent.desk.list().len() as u64,
        }
    }
}

/// Said aloud until something covers it; each is a row of THREATS.md.
const NOT_COVERED: &[&str] = &[
    "AF_PACKET, AF_VSOCK and other families in units of your own: RestrictAddressFamilies= (weir run does it)",
    "connected sockets passed in from unlabelled processes, until the sweep finds them (1 s)",
    "unix sockets other than PostgreSQL's, unless the workload lists those it may reach",
    "names looked up through local services (resolved's and nscd's sockets); data in names, below the rate of look-ups",
    "being called: answers on connections that came from outside, unless the workload has inbound: deny",
];
