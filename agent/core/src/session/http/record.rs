//! The audit rows of an HTTP connection: one record kept per connection and filled anew for each act.
//! It refuses payload: paths and queries come here with protected values masked.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use super::exchange::Exchange;
use super::judge::Judge;
use crate::audit::{Decision, Durability, Kind, Record};
use crate::detect::{ClassSet, Finding};
use crate::limits::AUDIT_TEXT_BYTES;
use crate::session::{Appended, Host, Now, Opening};

/// Writes this connection's records.
#[derive(Debug)]
pub(in crate::session) struct Log {
    record: Record,
}

impl Log {
    pub(in crate::session) fn new(opening: &Opening, protocol: &str) -> Self {
        let mut record = Record::about(&opening.identity, &opening.destination, &opening.session_id, 0);
        record.protocol = protocol.into();
        Self { record }
    }

    /// The record of this connection, for sessions that fill it themselves.
    pub(in crate::session) fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// What was decided, before anything of the act leaves.
    pub(super) fn verdict(
        &mut self,
        now: Now,
        host: &mut dyn Host,
        exchange: &Exchange,
        (kind, decision, reason, durability): (Kind, Decision, &str, Durability),
    ) -> Appended {
        self.describe(now, exchange);
        let record = &mut self.record;
        record.kind = kind;
        record.decision = decision;
        record.durability = durability;
        replace(&mut record.reason, reason);
        record.status.clear();
        (record.bytes_down, record.upstream_bytes, record.duration_us, record.overhead_us) = (0, 0, 0, 0);
        host.append(record)
    }

    /// What became of it.
    pub(super) fn outcome(
        &mut self,
        now: Now,
        host: &mut dyn Host,
        exchange: &Exchange,
        reason: &str,
    ) -> Appended {
        self.describe(now, exchange);
        let record = &mut self.record;
        record.kind = Kind::Outcome;
        record.decision = match exchange.decision {
            Decision::Allowed if !exchange.masked.0.is_empty() => Decision::Masked,
            decision => decision,
        };
        record.durability = Durability::Fast;
        replace(&mut record.reason, reason);
        record.status.clear();
        if exchange.status != 0 {
            // Writing to a String cannot fail.
            let _ = write!(record.status, "{}", exchange.status);
        }
        record.bytes_down = exchange.bytes_down;
        record.upstream_bytes = exchange.upstream_bytes;
        record.duration_us = now.mono_ns.saturating_sub(exchange.started) / 1_000;
        record.overhead_us = exchange.released.saturating_sub(exchange.ready) / 1_000;
        host.append(record)
    }

    fn describe(&mut self, now: Now, exchange: &Exchange) {
        let record = &mut self.record;
        record.ts = now.wall_ns;
        replace(&mut record.request_id, &exchange.id);
        replace(&mut record.method, cut(&exchange.method));
        replace(&mut record.host, &exchange.host);
        replace(&mut record.path, &exchange.shown);
        replace(&mut record.target, &exchange.target);
        replace(&mut record.rule, &exchange.rule);
        replace(&mut record.policy_commit, exchange.judge.commit());
        replace(&mut record.policy_sha, exchange.judge.sha());
        replace(&mut record.approval_id, &exchange.approval_id);
        replace(&mut record.approver, &exchange.approver);
        record.bytes_up = exchange.bytes_up;
        record.masked.clear();
        for (class, count) in &exchange.masked.0 {
            record.masked.insert(exchange.judge.class_name(*class).into(), *count);
        }
    }
}

/// Path and query for a row, as sent; protected values become `[CLASS]`, and the whole is cut to its limit.
pub(super) fn shown(classes: &ClassSet, exchange: &Exchange) -> String {
    let (judge, query) = (&*exchange.judge, exchange.query.as_str());
    let path = exchange.sent_path();
    let mut text = String::with_capacity(path.len() + query.len() + 1);
    // What is looked at is what the server may read; what shows nothing is kept as it was sent.
    match exchange.path_texts().find_map(|plain| veil(judge, classes, &String::from_utf8_lossy(&plain))) {
        Some(veiled) => text.push_str(&veiled),
        None => text.push_str(path),
    }
    if !query.is_empty() {
        text.push('?');
        for (index, pair) in query.split('&').enumerate() {
            if index > 0 {
                text.push('&');
            }
            match super::form::decode(pair.as_bytes()).and_then(|plain| veil(judge, classes, &plain)) {
                Some(veiled) => text.push_str(&veiled),
                None => text.push_str(pair),
            }
        }
    }
    if text.len() > AUDIT_TEXT_BYTES {
        let kept = cut(&text).len();
        text.truncate(kept);
        text.push('…');
    }
    text
}

/// How servers may read a path that was sent in another form, for an approver; empty where there is nothing to add.
pub(super) fn read_as(classes: &ClassSet, exchange: &Exchange) -> String {
    let mut text = String::new();
    if exchange.sent_path.is_empty() && exchange.other_paths.is_empty() {
        return text;
    }
    for path in core::iter::once(&exchange.path).chain(&exchange.other_paths) {
        text.push_str(if text.is_empty() { " (read as " } else { " or " });
        match veil(&*exchange.judge, classes, path) {
            Some(veiled) => text.push_str(&veiled),
            None => text.push_str(path),
        }
    }
    text.push(')');
    text
}

/// `None`: nothing protected was found.
fn veil(judge: &dyn Judge, classes: &ClassSet, text: &str) -> Option<String> {
    if classes.0.is_empty() {
        return None;
    }
    let mut found: Vec<Finding> = Vec::new();
    judge.find(text.as_bytes(), classes, &mut found);
    if found.is_empty() {
        return None;
    }
    let mut veiled = String::with_capacity(text.len());
    let mut at = 0;
    for finding in found {
        veiled.push_str(text.get(at..finding.start).unwrap_or_default());
        veiled.push('[');
        veiled.extend(judge.class_name(finding.class).chars().flat_map(char::to_uppercase));
        veiled.push(']');
        at = finding.end;
    }
    veiled.push_str(text.get(at..).unwrap_or_default());
    Some(veiled)
}

fn cut(text: &str) -> &str {
    if text.len() <= AUDIT_TEXT_BYTES {
        return text;
    }
    let end = (0..=AUDIT_TEXT_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Keeps the allocation of the last act.
fn replace(field: &mut String, value: &str) {
    field.clear();
    field.push_str(value);
}
