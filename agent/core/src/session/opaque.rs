//! One connection that weir does not understand and a rule lets through (`opaque: allow`): relayed, metered, recorded.
//! It refuses to relay without that rule, also when the rule goes away later, and before the verdict's record is written.

use alloc::format;
use alloc::string::String;

use super::http::record::Log;
use super::{Act, Appended, Close, Host, Input, Now, Opening, Outbox};
use crate::action::{Context, Protocol};
use crate::audit::{Decision, Durability, Kind, Receipt};
use crate::limits::QUEUE_BYTES;
use crate::policy::{ConnectionJudgement, Policy, Verdict};

#[cfg(test)]
mod tests;

/// A metered passage. It begins with its first input, whichever side that comes from.
#[derive(Debug)]
pub struct Conversation {
    opening: Opening,
    spoken: Protocol,
    log: Log,
    state: State,
    decision: Decision,
    up: u64,
    down: u64,
    started: u64,
    workload_closed: bool,
    server_closed: bool,
}

#[derive(Debug)]
enum State {
    Fresh(ConnectionJudgement),
    /// The verdict is not on the disk yet.
    Waiting(crate::policy::Permit),
    Open(Act),
    Ended,
}

impl Conversation {
    #[must_use]
    pub fn new(opening: Opening, judgement: ConnectionJudgement, spoken: Protocol) -> Self {
        let mut log = Log::new(&opening, "opaque");
        let record = log.record();
        record.request_id = format!("{}-1", opening.session_id);
        record.target = String::from(&*judgement.target);
        record.rule = String::from(&*judgement.rule);
        Self {
            opening,
            spoken,
            log,
            state: State::Fresh(judgement),
            decision: Decision::Allowed,
            up: 0,
            down: 0,
            started: 0,
            workload_closed: false,
            server_closed: false,
        }
    }

    pub fn handle(&mut self, now: Now, input: Input<'_>, host: &mut dyn Host, out: &mut Outbox) -> usize {
        let fresh = matches!(self.state, State::Fresh(_));
        if fresh || matches!(input, Input::Policy) {
            let policy = host.policy();
            self.reconsider(&policy, now, host, out);
            if fresh {
                let record = self.log.record();
                record.policy_commit = String::from(policy.commit());
                record.policy_sha = String::from(policy.sha());
            }
        }
        self.advance(now, input, host, out)
    }

    /// Judges the connection by the policy in force: what it does not let through any more ends here, unsent bytes and all.
    fn reconsider(&mut self, policy: &Policy, now: Now, host: &mut dyn Host, out: &mut Outbox) {
        let Some(judgement) = self.refused_by(policy, now) else { return };
        match &mut self.state {
            // It changed since the connection was judged: `begin` refuses.
            State::Fresh(judged) => *judged = judgement,
            State::Waiting(_) | State::Open(_) => {
                let why = match &judgement.verdict {
                    Verdict::Deny { message } => message,
                    Verdict::Allow(_) | Verdict::Approve(_) => {
                        "no rule lets the connection pass unread any more"
                    }
                };
                let record = self.log.record();
                record.reason = format!("the policy has changed: {why}");
                record.rule = String::from(&*judgement.rule);
                record.target = String::from(&*judgement.target);
                record.policy_commit = String::from(policy.commit());
                record.policy_sha = String::from(policy.sha());
                self.decision = Decision::Denied;
                out.to_server.discard();
                out.to_workload.discard();
                self.close(now, host, out);
                out.close = Some(Close::Reset);
            }
            State::Ended => {}
        }
    }

    /// The judgement that refuses the passage. One that weir could read passes unread only where no rule wants to read it.
    fn refused_by(&self, policy: &Policy, now: Now) -> Option<ConnectionJudgement> {
        let judge = |protocol| {
            policy.connection(&Context {
                identity: &self.opening.identity,
                destination: &self.opening.destination,
                protocol,
                database: "",
                login: "",
                wall_ns: now.wall_ns,
            })
        };
        let mut judgement = judge(Protocol::Opaque);
        if self.spoken != Protocol::Opaque {
            judgement.opaque &= judge(self.spoken).passes_unread();
        }
        (!judgement.passes_opaque()).then_some(judgement)
    }

    fn advance(&mut self, now: Now, input: Input<'_>, host: &mut dyn Host, out: &mut Outbox) -> usize {
        self.begin(now, host, out);
        let taken = match input {
            Input::Workload(bytes) => self.relay(bytes, out, true),
            Input::Server(bytes) => self.relay(bytes, out, false),
            Input::WorkloadClosed => {
                self.workload_closed = true;
                0
            }
            Input::ServerClosed => {
                self.server_closed = true;
                0
            }
            Input::Recorded(result) => {
                self.recorded(result, out);
                0
            }
            Input::Cut => {
                if let State::Open(_) = &self.state {
                    self.log.record().reason.clear();
                    out.to_server.discard();
                    self.close(now, host, out);
                }
                self.state = State::Ended;
                0
            }
            Input::Answered(_) | Input::LoggedIn(_) | Input::Tick | Input::Policy => 0,
        };
        self.settle(now, host, out);
        taken
    }

    /// The verdict, before the first byte.
    fn begin(&mut self, now: Now, host: &mut dyn Host, out: &mut Outbox) {
        let judgement = match core::mem::replace(&mut self.state, State::Ended) {
            State::Fresh(judgement) => judgement,
            other => {
                self.state = other;
                return;
            }
        };
        self.started = now.mono_ns;
        let (permit, reason) = match judgement.verdict {
            Verdict::Allow(permit) if judgement.opaque => (Some(permit), String::new()),
            Verdict::Allow(_) => {
                (None, String::from("no rule lets a protocol pass that weir does not speak"))
            }
            Verdict::Deny { message } => (None, String::from(&*message)),
            Verdict::Approve(_) => (None, String::from("a connection cannot wait for an approval")),
        };
        self.decision = match (&permit, judgement.would) {
            (None, _) => Decision::Denied,
            (Some(_), None) => Decision::Allowed,
            (Some(_), Some(would)) => {
                self.log.record().rule = String::from(&*would.rule);
                would.decision
            }
        };
        let record = self.log.record();
        record.ts = now.wall_ns;
        record.kind = Kind::Verdict;
        record.decision = self.decision;
        record.reason = reason;
        record.durability = judgement.durability;
        match (host.append(record), permit) {
            (Appended::Done(receipt), Some(permit)) => self.state = State::Open(Act::open(permit, receipt)),
            (Appended::Waiting, Some(permit)) => self.state = State::Waiting(permit),
            (Appended::Refused(_), _) | (_, None) => out.close = Some(Close::Reset),
        }
    }

    fn recorded(&mut self, result: Result<Receipt, String>, out: &mut Outbox) {
        match (core::mem::replace(&mut self.state, State::Ended), result) {
            (State::Waiting(permit), Ok(receipt)) => self.state = State::Open(Act::open(permit, receipt)),
            (State::Waiting(_), Err(_)) => out.close = Some(Close::Reset),
            (other @ (State::Fresh(_) | State::Open(_) | State::Ended), _) => self.state = other,
        }
    }

    /// Passes bytes on while the other side takes them.
    fn relay(&mut self, bytes: &[u8], out: &mut Outbox, up: bool) -> usize {
        let act = match &self.state {
            State::Open(act) => act,
            State::Ended => return bytes.len(),
            State::Fresh(_) | State::Waiting(_) => return 0,
        };
        let queued = if up { out.to_server.as_slice().len() } else { out.to_workload.as_slice().len() };
        if queued >= QUEUE_BYTES {
            return 0;
        }
        if up {
            self.up += bytes.len() as u64;
            out.to_server.opaque(act, bytes);
        } else {
            self.down += bytes.len() as u64;
            out.to_workload.relay(bytes);
        }
        bytes.len()
    }

    /// Half-close, the closing record, and which side to read.
    fn settle(&mut self, now: Now, host: &mut dyn Host, out: &mut Outbox) {
        let waiting = matches!(self.state, State::Waiting(_));
        if let State::Open(_) = &self.state {
            out.dial = true;
            out.finish_server = self.workload_closed;
            out.finish_workload = self.server_closed;
            if self.workload_closed && self.server_closed {
                self.log.record().reason.clear();
                self.close(now, host, out);
            }
        }
        out.pause_workload = waiting || out.to_server.as_slice().len() >= QUEUE_BYTES;
        out.pause_server = waiting || out.to_workload.as_slice().len() >= QUEUE_BYTES;
    }

    fn close(&mut self, now: Now, host: &mut dyn Host, out: &mut Outbox) {
        self.state = State::Ended;
        let record = self.log.record();
        record.ts = now.wall_ns;
        record.kind = Kind::Outcome;
        record.decision = self.decision;
        record.durability = Durability::Fast;
        (record.bytes_up, record.bytes_down) = (self.up, self.down);
        // What still waits goes out before the end.
        record.upstream_bytes = out.to_server.workload_sent() + out.to_server.len() as u64;
        record.duration_us = now.mono_ns.saturating_sub(self.started) / 1_000;
        // The passage is over whatever the ledger says.
        let _ = host.append(record);
        out.close = Some(Close::Finish);
    }
}
