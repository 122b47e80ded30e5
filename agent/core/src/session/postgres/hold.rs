//! A held message: the question, the wait, the answer. The message itself stays unread in the workload's stream.
//! It refuses an answer for other bytes, and a silence beyond the rule's time is a no.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

use sha2::{Digest, Sha256};

use super::act::{Decided, Head};
use super::deny::{self, Pill};
use super::judge::Ruled;
use super::record::Entry;
use super::{Conversation, Turn, Wait};
use crate::action::Effects;
use crate::approval::{Answer, Question};
use crate::audit::{Decision, Kind};
use crate::limits::QUESTION_BYTES;
use crate::session::Appended;

#[derive(Debug)]
pub struct Held {
    pub decided: Decided,
    pub question: Question,
    /// Monotonic nanoseconds.
    pub deadline: u64,
}

/// The digest that binds an answer to the bytes: of the prepared text, where there is one, and of the message.
pub fn digest(prepared: &[u8], message: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update((prepared.len() as u64).to_be_bytes());
    digest.update(prepared);
    digest.update(message);
    digest.finalize().into()
}

impl Conversation {
    /// Puts the question, and tells the user why nothing happens.
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>, decided: Decided) {
        let Ruled::Ask(approval) = &decided.ruling.verdict else { return };
        let approval = approval.clone();
        let request = self.scribe.request(decided.number);
        let question = Question {
            id: Question::id_of(&request),
            request_id: request,
            digest: decided.digest,
            rule: decided.ruling.rule.clone(),
            message: approval.message.clone(),
            by: approval.by.clone(),
            summary: summary(&decided),
            effects: decided
                .statements
                .iter()
                .fold(Effects::NONE, |set, statement| set.union(statement.effects))
                .iter()
                .map(|effect| effect.name().to_string())
                .collect(),
            relations: decided
                .statements
                .iter()
                .flat_map(|statement| &statement.relations)
                .map(|relation| relation.name.clone())
                .collect(),
            asked_ns: turn.now.wall_ns,
            expires_ns: turn.now.wall_ns.saturating_add(approval.within_ns),
        };
        self.scratch.out.clear();
        deny::notice(
            &mut self.scratch.out,
            &format!("waiting for approval {} by {}", question.id, question.by.join(", ")),
            &approval.message,
        );
        turn.out.to_workload.own(&self.scratch.out);
        turn.out.ask = Some(question.clone());
        let deadline = turn.now.mono_ns.saturating_add(approval.within_ns);
        self.head = Head::Held(Box::new(Held { decided, question, deadline }));
        self.waiting = Some(Wait::Ruling);
    }

    pub(super) fn answered(&mut self, turn: &mut Turn<'_>, answer: &Answer) -> usize {
        let Head::Held(held) = &self.head else { return 0 };
        if answer.id != held.question.id || answer.digest != held.question.digest {
            return 0;
        }
        let permit = turn.rules.grant(&held.question, answer);
        let (decision, verdict) = match permit {
            Some(permit) => (Decision::Approved, Ruled::Allow(permit)),
            None if answer.approver == "timeout" => (Decision::Expired, expired()),
            None => (
                Decision::Denied,
                Ruled::Deny(Pill::denied(&format!("approval {} was refused: {}", answer.id, answer.reason))),
            ),
        };
        self.conclude(turn, decision, verdict, &answer.approver, &answer.reason);
        0
    }

    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) -> usize {
        if self.head.deadline().is_some_and(|deadline| turn.now.mono_ns >= deadline) {
            turn.out.withdraw = true;
            self.conclude(turn, Decision::Expired, expired(), "timeout", "nobody answered in time");
        }
        0
    }

    /// The client is gone, or the server will not run it any more: the question is moot.
    pub(super) fn withdraw(&mut self, turn: &mut Turn<'_>) {
        if let Head::Held(_) = self.head {
            turn.out.withdraw = true;
            let moot = Ruled::Deny(Pill::new(deny::EXPIRED, "the statement was withdrawn"));
            self.conclude(turn, Decision::Expired, moot, "", "withdrawn");
        }
    }

    /// Records the answer; its receipt, not the one of the question, opens the act.
    fn conclude(
        &mut self,
        turn: &mut Turn<'_>,
        decision: Decision,
        verdict: Ruled,
        approver: &str,
        reason: &str,
    ) {
        let Head::Held(held) = core::mem::replace(&mut self.head, Head::Fresh) else { return };
        let Held { mut decided, question, .. } = *held;
        decided.ruling.verdict = verdict;
        decided.receipt = None;
        let entry = Entry {
            number: decided.number,
            kind: Kind::Verdict,
            decision,
            target: &decided.ruling.target,
            rule: &decided.ruling.rule,
            reason,
            statements: &decided.statements,
            bytes_up: decided.bytes_up,
            durability: decided.ruling.durability,
            approval: &question.id,
            approver,
        };
        let record = self.scribe.entry(turn.now, &turn.rules, &entry);
        match turn.host.append(record) {
            Appended::Done(receipt) => decided.receipt = Some(receipt),
            Appended::Waiting => {
                self.head = Head::Recording(Box::new(decided));
                return;
            }
            Appended::Refused(_) => decided.refuse_unrecorded(),
        }
        self.head = Head::Settled(Box::new(decided));
    }
}

fn expired() -> Ruled {
    Ruled::Deny(Pill::new(deny::EXPIRED, "approval timed out"))
}

/// The statements, with control characters escaped so that an approver's terminal shows what is there.
fn summary(decided: &Decided) -> String {
    let mut summary = String::new();
    for statement in decided.statements.iter() {
        if !summary.is_empty() {
            summary.push_str("; ");
        }
        for letter in statement.text.chars() {
            if letter.is_control() || is_invisible(letter) {
                summary.extend(letter.escape_unicode());
            } else {
                summary.push(letter);
            }
            if summary.len() > QUESTION_BYTES {
                let end = summary.floor_char_boundary(QUESTION_BYTES);
                summary.truncate(end);
                summary.push('…');
                return summary;
            }
        }
    }
    summary
}

/// Letters that change how the rest is shown: direction marks, zero-width letters.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
