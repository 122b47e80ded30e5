//! Opaque passage: the record comes first, half-close is kept, the closing row carries the counts.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::*;
use crate::approval::{Answer, Question};
use crate::audit::Record;
use crate::destination::Destination;
use crate::identity::{Class, Identity, Process};
use crate::mask::Key;
use crate::policy::{Permit, Policy, SecretName, TargetTls};
use crate::sql::Grammar;

#[derive(Default)]
struct Ledger(Vec<Record>, bool, Option<Arc<Policy>>);

impl Host for Ledger {
    fn append(&mut self, record: &Record) -> Appended {
        if self.1 {
            return Appended::Refused(String::from("full"));
        }
        self.0.push(record.clone());
        match record.durability {
            Durability::Fast => Appended::Done(Receipt::issue(1)),
            Durability::Strict => Appended::Waiting,
        }
    }
    fn secret(&mut self, _: &SecretName) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        unreachable!("opaque passage has no secrets")
    }
    fn grammar(&self) -> &dyn Grammar {
        unreachable!("opaque passage has no grammar")
    }
    fn policy(&self) -> Arc<Policy> {
        Arc::clone(self.2.as_ref().expect("a policy"))
    }
    fn mask_key(&self) -> &Key {
        unreachable!("opaque passage has no masks")
    }
}

fn permit() -> Permit {
    let question = Question {
        id: String::new(),
        request_id: String::new(),
        digest: [0; 32],
        rule: Arc::from(""),
        message: Arc::from(""),
        by: Vec::new(),
        summary: String::new(),
        effects: Vec::new(),
        relations: Vec::new(),
        asked_ns: 0,
        expires_ns: 0,
    };
    let answer = Answer {
        id: String::new(),
        digest: [0; 32],
        granted: true,
        approver: String::new(),
        reason: String::new(),
    };
    Policy::grant(&question, &answer).unwrap()
}

fn conversation(verdict: Verdict, opaque: bool, durability: Durability) -> Conversation {
    conversation_as(Protocol::Opaque, verdict, opaque, durability)
}

fn conversation_as(spoken: Protocol, verdict: Verdict, opaque: bool, durability: Durability) -> Conversation {
    let identity = Identity {
        workload: String::from("tests"),
        owner: String::new(),
        user: String::new(),
        groups: Vec::new(),
        class: Class::Service,
        process: Process::default(),
    };
    let address: SocketAddr = "10.0.0.1:6379".parse().unwrap();
    let opening = Opening {
        session_id: Arc::from("5e55"),
        identity: Arc::new(identity),
        destination: Destination::new(address),
        tls: false,
        login: None,
    };
    let judgement = ConnectionJudgement {
        stands_for: Vec::new(),
        verdict,
        target: Arc::from("redis"),
        rule: Arc::from("cache"),
        opaque,
        needs_name: false,
        terminate_tls: false,
        tls: TargetTls::default(),
        login: None,
        durability,
        would: None,
    };
    Conversation::new(opening, judgement, spoken)
}

fn at(mono_ns: u64) -> Now {
    Now { wall_ns: mono_ns, mono_ns }
}

#[test]
fn bytes_pass_metered_and_half_close_is_kept() {
    let mut passage = conversation(Verdict::Allow(permit()), true, Durability::Fast);
    let (mut ledger, mut out) = (Ledger::default(), Outbox::default());
    assert_eq!(passage.advance(at(0), Input::Workload(b"PING\r\n"), &mut ledger, &mut out), 6);
    assert_eq!(out.to_server.as_slice(), b"PING\r\n");
    assert_eq!((ledger.0[0].kind, ledger.0[0].rule.as_str()), (Kind::Verdict, "cache"));
    passage.advance(at(1), Input::WorkloadClosed, &mut ledger, &mut out);
    assert!(out.finish_server && !out.finish_workload && out.close.is_none());
    assert_eq!(passage.advance(at(2), Input::Server(b"+PONG\r\n"), &mut ledger, &mut out), 7);
    assert_eq!(out.to_workload.as_slice(), b"+PONG\r\n");
    passage.advance(at(5_000), Input::ServerClosed, &mut ledger, &mut out);
    assert_eq!(out.close, Some(Close::Finish));
    let end = &ledger.0[1];
    assert_eq!(
        (end.kind, end.bytes_up, end.bytes_down, end.upstream_bytes, end.duration_us),
        (Kind::Outcome, 6, 7, 6, 5)
    );
    assert_eq!(end.request_id, ledger.0[0].request_id);
}

#[test]
fn nothing_passes_before_the_record_or_without_the_rule() {
    let mut passage = conversation(Verdict::Allow(permit()), true, Durability::Strict);
    let (mut ledger, mut out) = (Ledger::default(), Outbox::default());
    assert_eq!(passage.advance(at(0), Input::Server(b"hello"), &mut ledger, &mut out), 0);
    assert!(out.to_workload.is_empty() && out.pause_server && out.pause_workload);
    passage.advance(at(0), Input::Recorded(Ok(Receipt::issue(1))), &mut ledger, &mut out);
    assert!(!out.pause_server);
    assert_eq!(passage.advance(at(0), Input::Server(b"hello"), &mut ledger, &mut out), 5);

    let message: Arc<str> = Arc::from("no");
    for (verdict, opaque, full) in [
        (Verdict::Allow(permit()), false, false),
        (Verdict::Deny { message }, true, false),
        (Verdict::Allow(permit()), true, true),
    ] {
        let mut passage = conversation(verdict, opaque, Durability::Fast);
        let (mut ledger, mut out) = (Ledger(Vec::new(), full, None), Outbox::default());
        passage.advance(at(0), Input::Workload(b"PING"), &mut ledger, &mut out);
        passage.advance(at(0), Input::Server(b"+PONG"), &mut ledger, &mut out);
        assert!(out.to_server.is_empty() && out.to_workload.is_empty());
        assert_eq!(out.close, Some(Close::Reset));
    }
}

/// A policy for the server of these tests with these rules.
fn rules(rules: serde_json::Value) -> Option<Arc<Policy>> {
    let file = serde_json::json!({"policy": "redis", "target": {"host": "10.0.0.1"}, "rules": rules});
    Some(Arc::new(crate::policy::tests::policy(&[file])))
}

fn passing() -> serde_json::Value {
    serde_json::json!({"name": "cache", "match": {"dst": {"port": [6379]}}, "then": {"opaque": "allow"}})
}

#[test]
fn a_passage_ends_when_no_rule_lets_it_pass_any_more() {
    let mut passage = conversation(Verdict::Allow(permit()), true, Durability::Fast);
    let (mut ledger, mut out) =
        (Ledger(Vec::new(), false, rules(serde_json::json!([passing()]))), Outbox::default());
    assert_eq!(passage.handle(at(0), Input::Workload(b"PING"), &mut ledger, &mut out), 4);
    let other =
        serde_json::json!({"name": "other", "match": {"dst": {"port": [1]}}, "then": {"opaque": "allow"}});
    ledger.2 = rules(serde_json::json!([other, passing()]));
    passage.handle(at(1), Input::Policy, &mut ledger, &mut out);
    assert_eq!((out.close, out.to_server.as_slice(), ledger.0.len()), (None, &b"PING"[..], 1));

    ledger.2 = rules(serde_json::json!([other]));
    passage.handle(at(2_000), Input::Policy, &mut ledger, &mut out);
    assert_eq!((out.close, out.to_server.is_empty()), (Some(Close::Reset), true));
    let end = &ledger.0[1];
    assert_eq!(
        (end.kind, end.decision, end.bytes_up, end.duration_us),
        (Kind::Outcome, Decision::Denied, 4, 2)
    );
    assert!(end.reason.starts_with("the policy has changed: "), "{}", end.reason);
    passage.handle(at(3), Input::Workload(b"PING"), &mut ledger, &mut out);
    passage.handle(at(3), Input::Cut, &mut ledger, &mut out);
    assert_eq!((out.to_server.is_empty(), ledger.0.len()), (true, 2), "it is over");
}

#[test]
fn a_change_before_the_first_byte_counts_too() {
    let deny = serde_json::json!({"name": "closed", "match": {}, "then": {"deny": "closed today"}});
    for durability in [Durability::Fast, Durability::Strict] {
        // Between the judgement and the session.
        let mut passage = conversation(Verdict::Allow(permit()), true, durability);
        let policy = rules(serde_json::json!([passing(), deny]));
        let (mut ledger, mut out) = (Ledger(Vec::new(), false, policy), Outbox::default());
        passage.handle(at(0), Input::Workload(b"PING"), &mut ledger, &mut out);
        assert_eq!((out.close, out.to_server.is_empty()), (Some(Close::Reset), true));
        assert_eq!((ledger.0[0].decision, ledger.0[0].reason.as_str()), (Decision::Denied, "closed today"));
    }
    // While the verdict is on its way to the disk.
    let mut passage = conversation(Verdict::Allow(permit()), true, Durability::Strict);
    let (mut ledger, mut out) =
        (Ledger(Vec::new(), false, rules(serde_json::json!([passing()]))), Outbox::default());
    passage.handle(at(0), Input::Workload(b"PING"), &mut ledger, &mut out);
    ledger.2 = rules(serde_json::json!([deny]));
    passage.handle(at(1), Input::Policy, &mut ledger, &mut out);
    passage.handle(at(2), Input::Recorded(Ok(Receipt::issue(1))), &mut ledger, &mut out);
    passage.handle(at(3), Input::Workload(b"PING"), &mut ledger, &mut out);
    assert_eq!((out.close, out.to_server.is_empty()), (Some(Close::Reset), true));
}

#[test]
fn a_passage_that_could_be_read_ends_when_a_rule_wants_to_read_it() {
    let reading = serde_json::json!({"name": "web", "match": {"http": {"method": ["GET"]}}, "then": "allow"});
    for (spoken, close) in [(Protocol::Opaque, None), (Protocol::Tls, Some(Close::Reset))] {
        let mut passage = conversation_as(spoken, Verdict::Allow(permit()), true, Durability::Fast);
        let (mut ledger, mut out) =
            (Ledger(Vec::new(), false, rules(serde_json::json!([passing()]))), Outbox::default());
        passage.handle(at(0), Input::Workload(b"PING"), &mut ledger, &mut out);
        assert_eq!(out.close, None, "{spoken:?}");
        ledger.2 = Some(Arc::new(crate::policy::tests::policy(&[
            serde_json::json!({"policy": "redis", "target": {"host": "10.0.0.1"}, "rules": [passing()]}),
            serde_json::json!({"policy": "web", "target": {"protocol": "http", "host": "10.0.0.1"}, "rules": [reading]}),
        ])));
        passage.handle(at(1), Input::Policy, &mut ledger, &mut out);
        assert_eq!(out.close, close, "{spoken:?}");
    }
}
