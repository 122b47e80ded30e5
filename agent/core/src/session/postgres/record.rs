//! The audit rows of one connection: what is the same in all of them is filled in once, the rest for each act.
//! It refuses raw texts: a statement enters a row with the values of protected classes taken out.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::judge::{Rules, same};
use crate::action::{Effects, Statement};
use crate::audit::{Decision, Durability, Kind, Record};
use crate::detect::{ClassId, Finding};
use crate::limits::AUDIT_TEXT_BYTES;
use crate::policy::MaskPlan;
use crate::session::{Act, Now, Opening};

/// An act under way: its witness, and what its closing row will say.
#[derive(Debug)]
pub struct Deed {
    pub act: Option<Act>,
    pub rules: Arc<dyn Rules>,
    pub statements: Arc<Vec<Statement>>,
    pub plan: Arc<MaskPlan>,
    /// The plan masks something in what comes back.
    pub masks: bool,
    pub rule: Arc<str>,
    pub target: Arc<str>,
    pub started: u64,
    pub rows: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub masked: BTreeMap<ClassId, u64>,
    pub columns: Vec<String>,
    /// The closing row is written.
    pub closed: bool,
}

/// Makes rows. `record` keeps the fields of the connection between rows.
#[derive(Debug)]
pub struct Scribe {
    record: Record,
    numbers: u64,
    policy: Option<Arc<dyn Rules>>,
    found: Vec<Finding>,
}

/// What a verdict row says beside the connection's own fields.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub number: u64,
    pub kind: Kind,
    pub decision: Decision,
    pub target: &'a str,
    pub rule: &'a str,
    pub reason: &'a str,
    pub statements: &'a [Statement],
    pub bytes_up: u64,
    pub durability: Durability,
    pub approval: &'a str,
    pub approver: &'a str,
}

impl Scribe {
    pub fn new(opening: &Opening) -> Self {
        let mut record = Record::about(&opening.identity, &opening.destination, &opening.session_id, 0);
        record.protocol.push_str("postgres");
        Self { record, numbers: 0, policy: None, found: Vec::new() }
    }

    /// The number of a new act.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn request(&self, number: u64) -> String {
        format!("{}-{number}", self.record.session_id)
    }

    /// A row about an act that has not run: its verdict, or the answer to its question.
    pub fn entry(&mut self, now: Now, rules: &Arc<dyn Rules>, entry: &Entry<'_>) -> &Record {
        self.begin(now, rules, entry.number, entry.kind, entry.decision);
        let record = &mut self.record;
        record.target.push_str(entry.target);
        record.rule.push_str(entry.rule);
        record.reason.push_str(entry.reason);
        record.approval_id.push_str(entry.approval);
        record.approver.push_str(entry.approver);
        record.bytes_up = entry.bytes_up;
        record.durability = entry.durability;
        let effects = entry.statements.iter().fold(Effects::NONE, |set, each| set.union(each.effects));
        record.effects.extend(effects.iter().map(|effect| effect.name().to_string()));
        for relation in entry.statements.iter().flat_map(|statement| &statement.relations) {
            let name = match &relation.schema {
                Some(schema) => format!("{schema}.{}", relation.name),
                None => relation.name.clone(),
            };
            if !record.relations.contains(&name) {
                record.relations.push(name);
            }
        }
        let mut text = String::new();
        for statement in entry.statements {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&statement.text);
            if text.len() > 2 * AUDIT_TEXT_BYTES {
                break;
            }
        }
        self.record.statement = masked_text(rules.as_ref(), &text, &mut self.found);
        &self.record
    }

    /// The closing row of an act.
    pub fn outcome(&mut self, now: Now, number: u64, deed: &Deed, status: &str, reason: &str) -> &Record {
        let decision = if deed.masked.is_empty() { Decision::Allowed } else { Decision::Masked };
        self.begin(now, &deed.rules, number, Kind::Outcome, decision);
        let record = &mut self.record;
        record.target.push_str(&deed.target);
        record.rule.push_str(&deed.rule);
        record.status.push_str(status);
        record.reason.push_str(reason);
        record.rows = deed.rows;
        record.bytes_up = deed.bytes_up;
        record.upstream_bytes = deed.bytes_up;
        record.bytes_down = deed.bytes_down;
        record.duration_us = now.mono_ns.saturating_sub(deed.started) / 1_000;
        record.columns.extend(deed.columns.iter().cloned());
        for (class, count) in &deed.masked {
            record.masked.insert(deed.rules.class_name(*class).to_string(), *count);
        }
        record
    }

    fn begin(&mut self, now: Now, rules: &Arc<dyn Rules>, number: u64, kind: Kind, decision: Decision) {
        let request = self.request(number);
        if self.policy.as_ref().is_none_or(|policy| !same(policy, rules)) {
            self.policy = Some(rules.clone());
            self.record.policy_commit = rules.commit().to_string();
            self.record.policy_sha = rules.sha().to_string();
        }
        let record = &mut self.record;
        record.ts = now.wall_ns;
        record.kind = kind;
        record.decision = decision;
        record.request_id = request;
        record.durability = Durability::Fast;
        for text in [
            &mut record.target,
            &mut record.rule,
            &mut record.reason,
            &mut record.statement,
            &mut record.status,
            &mut record.approval_id,
            &mut record.approver,
        ] {
            text.clear();
        }
        for list in [&mut record.effects, &mut record.relations, &mut record.columns] {
            list.clear();
        }
        record.masked.clear();
        (record.rows, record.bytes_up, record.bytes_down) = (0, 0, 0);
        (record.upstream_bytes, record.duration_us) = (0, 0);
    }
}

/// The text with every value of a protected class replaced by `[CLASS]`, cut at the audit's bound.
pub fn masked_text(rules: &dyn Rules, text: &str, found: &mut Vec<Finding>) -> String {
    // A value that the cut would halve is still found: more than what is kept is searched.
    let window = prefix(text, 2 * AUDIT_TEXT_BYTES);
    found.clear();
    rules.find(window.as_bytes(), rules.classes(), found);
    let mut kept = String::with_capacity(window.len().min(AUDIT_TEXT_BYTES) + 16);
    let mut from = 0;
    for finding in found.iter() {
        kept.push_str(window.get(from..finding.start).unwrap_or_default());
        kept.push('[');
        kept.push_str(&rules.class_name(finding.class).to_ascii_uppercase());
        kept.push(']');
        from = finding.end;
    }
    kept.push_str(window.get(from..).unwrap_or_default());
    if kept.len() > AUDIT_TEXT_BYTES || window.len() < text.len() {
        let end = prefix(&kept, AUDIT_TEXT_BYTES).len();
        kept.truncate(end);
        kept.push('…');
    }
    kept
}

fn prefix(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}
