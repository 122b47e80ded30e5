//! The audit record: the list of fields, and the receipt that proves a record was appended before its act.
//! It refuses to hold payload: statements and paths arrive here already masked.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::identity::Identity;

pub mod chain;
mod encode;
pub mod shape;
pub mod verify;

/// One audit row. Empty fields are left out of the encoded form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// Wall clock at the agent, nanoseconds since 1970 UTC.
    pub ts: u64,
    pub kind: Kind,
    /// One connection of a workload: 32 lower-case hex digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    /// One act: `<session_id>-<n>`; shared by its verdict and its outcome.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// human, service, ci, agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity_class: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub pid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_time: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exe: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exe_sha256: String,
    pub uid: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dst_ip: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub dst_port: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// Name of the policy file that applies (`policy: NAME`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// SQL text with literals of protected classes masked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub statement: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// HTTP status, or SQLSTATE of an error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub tokens_in: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tokens_out: u64,
    pub decision: Decision,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_commit: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_sha: String,
    /// Class → values masked.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub masked: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// Bytes of the act from the workload, and back to it.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_up: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_down: u64,
    /// Bytes of the workload's own that were sent to the server, as plaintext. On an outcome: the act's; 0 for a denied
    /// one. On a connection's closing row: all of them, those that belong to no act (start-up, login, framing) included;
    /// so the acts' are part of it, and are not to be added to it.
    #[serde(skip_serializing_if = "is_zero")]
    pub upstream_bytes: u64,
    /// On a connection's closing row: what weir itself put on the wire to the server beside `upstream_bytes`: TLS, its own
    /// login and catalog queries, what stands in place of denied statements, header fields that it put in. The sum of
    /// both is what was written to the TCP sockets towards the server.
    #[serde(skip_serializing_if = "is_zero")]
    pub weir_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub duration_us: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub overhead_us: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub approval_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub approver: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ticket: String,
    pub durability: Durability,
}

impl Record {
    /// A row about something on this connection: who, where to, when; the caller adds what.
    #[must_use]
    pub fn about(identity: &Identity, destination: &Destination, session_id: &str, ts: u64) -> Record {
        let process = &identity.process;
        Record {
            ts,
            session_id: session_id.into(),
            workload: identity.workload.clone(),
            owner: identity.owner.clone(),
            user: identity.user.clone(),
            groups: identity.groups.clone(),
            identity_class: identity.class.name().into(),
            pid: process.pid.into(),
            start_time: process.start_time,
            exe: process.exe.clone(),
            exe_sha256: process.exe_sha256.clone(),
            uid: process.uid.into(),
            cgroup: process.cgroup.clone(),
            container: process.container.clone(),
            dst_ip: destination.ip().to_string(),
            dst_port: destination.port().into(),
            host: destination.host().unwrap_or_default().into(),
            ..Record::default()
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// What a row reports. An act has a `verdict` before it and an `outcome` after it, joined by `request_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Verdict,
    Outcome,
    /// Opening or end of a connection.
    Connection,
    /// A name that was looked up, or refused to be.
    Dns,
    Approval,
    /// Start, stop, policy change, detach: acts on weir itself.
    Admin,
}

/// What weir decided about the act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    #[default]
    Allowed,
    /// Admitted, and at least one mask applies (verdict) or was applied (outcome).
    Masked,
    Denied,
    /// Waiting for an approval.
    Held,
    Approved,
    /// Nobody answered in time: refused.
    Expired,
    /// Monitor mode: would have been denied, masked, held.
    WouldDeny,
    WouldMask,
    WouldHold,
    /// Refused because weir or its host failed (ledger full, look-up failed …), not because of a rule.
    Failed,
}

/// When a record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// In the page cache: survives the death of the agent, not a power cut.
    #[default]
    Fast,
    /// On the disk (fdatasync): survives a power cut.
    Strict,
}

/// Proof that a record was appended to the ledger with the durability it asked for. Neither `Clone` nor `Copy`:
/// one receipt clears one act. Issued only by the ledger at the rim (`cargo xtask tidy` holds the call sites).
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    sequence: u64,
}

impl Receipt {
    /// For implementations of [`crate::session::Host::append`] only, after the record is as durable as it asked.
    #[must_use]
    pub fn issue(sequence: u64) -> Self {
        Self { sequence }
    }

    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}
