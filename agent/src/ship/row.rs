//! A row of ClickHouse's table `audit`: the record's columns beside the bytes they were computed from.
//! It refuses to hold anything that is not in `raw` or the chain.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use weir_core::audit::Record;

use crate::ledger::store::Kept;

/// Columns in the order of `schema.sql`; `ts` is nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct AuditRow {
    pub ts: i64,
    pub node: String,
    pub epoch: u64,
    pub seq: u64,
    pub prev_hash: String,
    pub hash: String,
    pub kind: String,
    pub session_id: String,
    pub request_id: String,
    pub workload: String,
    pub owner: String,
    pub user: String,
    pub groups: Vec<String>,
    pub identity_class: String,
    pub pid: u64,
    pub start_time: u64,
    pub exe: String,
    pub exe_sha256: String,
    pub uid: u64,
    pub cgroup: String,
    pub container: String,
    pub dst_ip: String,
    pub dst_port: u64,
    pub host: String,
    pub protocol: String,
    pub target: String,
    pub effects: Vec<String>,
    pub relations: Vec<String>,
    pub columns: Vec<String>,
    pub statement: String,
    pub method: String,
    pub path: String,
    pub status: String,
    pub model: String,
    pub tokens_in: u64,
    pub tokens_out: u64,
    pub decision: String,
    pub rule: String,
    pub reason: String,
    pub policy_commit: String,
    pub policy_sha: String,
    pub masked: Vec<(String, u64)>,
    pub rows: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub upstream_bytes: u64,
    pub weir_bytes: u64,
    pub duration_us: u64,
    pub overhead_us: u64,
    pub approval_id: String,
    pub approver: String,
    pub ticket: String,
    pub durability: String,
    pub raw: String,
}

impl AuditRow {
    /// Computes the columns of a kept record.
    ///
    /// # Errors
    /// `raw` is no record.
    pub fn of(kept: Kept) -> Result<AuditRow, serde_json::Error> {
        let record: Record = serde_json::from_str(&kept.raw)?;
        Ok(AuditRow {
            ts: i64::try_from(record.ts).unwrap_or(i64::MAX),
            node: kept.node,
            epoch: kept.epoch,
            seq: kept.seq,
            prev_hash: kept.prev_hash,
            hash: kept.hash,
            kind: name(record.kind)?,
            session_id: record.session_id,
            request_id: record.request_id,
            workload: record.workload,
            owner: record.owner,
            user: record.user,
            groups: record.groups,
            identity_class: record.identity_class,
            pid: record.pid,
            start_time: record.start_time,
            exe: record.exe,
            exe_sha256: record.exe_sha256,
            uid: record.uid,
            cgroup: record.cgroup,
            container: record.container,
            dst_ip: record.dst_ip,
            dst_port: record.dst_port,
            host: record.host,
            protocol: record.protocol,
            target: record.target,
            effects: record.effects,
            relations: record.relations,
            columns: record.columns,
            statement: record.statement,
            method: record.method,
            path: record.path,
            status: record.status,
            model: record.model,
            tokens_in: record.tokens_in,
            tokens_out: record.tokens_out,
            decision: name(record.decision)?,
            rule: record.rule,
            reason: record.reason,
            policy_commit: record.policy_commit,
            policy_sha: record.policy_sha,
            masked: record.masked.into_iter().collect(),
            rows: record.rows,
            bytes_up: record.bytes_up,
            bytes_down: record.bytes_down,
            upstream_bytes: record.upstream_bytes,
            weir_bytes: record.weir_bytes,
            duration_us: record.duration_us,
            overhead_us: record.overhead_us,
            approval_id: record.approval_id,
            approver: record.approver,
            ticket: record.ticket,
            durability: name(record.durability)?,
            raw: kept.raw,
        })
    }

    /// The chain's part of the row.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            node: self.node.clone(),
            epoch: self.epoch,
            seq: self.seq,
            prev_hash: self.prev_hash.clone(),
            hash: self.hash.clone(),
            raw: self.raw.clone(),
        }
    }
}

/// The name of a unit variant, as the record spells it.
fn name(variant: impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_value(variant).map(|value| value.as_str().unwrap_or_default().to_owned())
}
