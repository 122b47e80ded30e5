//! Acts that wait: for their record, and for a human. The question is bound to the exact bytes that would be sent.
//! It refuses an answer for other bytes, and sends nothing when nobody answers in time.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::deny::Refusal;
use super::edit::{self, Sink};
use super::exchange::{Exchange, Unread};
use super::release::{Outgoing, Payload};
use super::request::Upload;
use super::verdict::Terms;
use super::{Conversation, Waiting, Wake, record};
use crate::approval::{Answer, Question};
use crate::audit::{Decision, Durability, Kind};
use crate::limits::QUESTION_BYTES;
use crate::policy::{Approval, Inject, Permit, Policy};
use crate::session::Appended;
use crate::wire::http1::RequestHead;

/// An act with everything it needs to leave later.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) exchange: Exchange,
    pub(super) head: Vec<u8>,
    pub(super) outgoing: Outgoing,
    pub(super) terms: Terms,
    pub(super) permit: Option<Permit>,
    question: Option<Question>,
    /// Monotonic nanoseconds.
    pub(super) deadline: u64,
    unread: Unread,
}

impl Held {
    pub(super) fn new(
        exchange: Exchange,
        head: &RequestHead<'_>,
        outgoing: Outgoing,
        injects: Vec<Arc<Inject>>,
        durability: Durability,
    ) -> Self {
        Self {
            unread: outgoing.unread(head),
            head: head.bytes().to_vec(),
            exchange,
            outgoing,
            terms: Terms { injects, durability },
            permit: None,
            question: None,
            deadline: u64::MAX,
        }
    }

    pub(super) fn unread(&self) -> Unread {
        self.unread
    }

    /// SHA-256 of head and body as they will be sent; credentials go in later and are not part of what is approved.
    fn digest(&self) -> Option<[u8; 32]> {
        let head = RequestHead::parse(&self.head).ok()?;
        let mut digest = Digesting(Sha256::new());
        edit::request(&head, &self.outgoing.edits(&self.exchange, &head), &mut digest);
        match &self.outgoing.body {
            Payload::Raw(body) | Payload::Masked(body) => digest.0.update(body),
            Payload::Stream => {}
        }
        Some(digest.0.finalize().into())
    }
}

impl Conversation {
    /// Records that the act is held; the question follows the record.
    pub(super) fn hold(&mut self, wake: &mut Wake<'_>, mut held: Held, approval: &Approval) {
        let Some(digest) = held.digest() else {
            let refusal = Refusal::failed(&held.exchange.rule, "the request cannot be held");
            return self.refuse(wake, held.exchange, held.unread, refusal, held.terms.durability);
        };
        // The classes are those of the request that was described last: this one.
        let read_as = self
            .classes
            .as_ref()
            .map(|(_, classes)| record::read_as(classes, &held.exchange))
            .unwrap_or_default();
        let exchange = &mut held.exchange;
        exchange.approval_id = Question::id_of(&exchange.id);
        exchange.decision = Decision::Held;
        held.deadline = wake.now.mono_ns.saturating_add(approval.within_ns);
        held.question = Some(Question {
            id: exchange.approval_id.clone(),
            request_id: exchange.id.clone(),
            digest,
            rule: exchange.rule.clone(),
            message: approval.message.clone(),
            by: approval.by.clone(),
            summary: summary(exchange, &read_as),
            effects: Vec::new(),
            relations: Vec::new(),
            asked_ns: wake.now.wall_ns,
            expires_ns: wake.now.wall_ns.saturating_add(approval.within_ns),
        });
        let verdict = (Kind::Approval, Decision::Held, &*approval.message, held.terms.durability);
        match self.log.verdict(wake.now, wake.host, exchange, verdict) {
            Appended::Done(_) => self.ask(wake, Box::new(held)),
            Appended::Waiting => self.waiting = Some(Waiting::Ask(Box::new(held))),
            Appended::Refused(_) => self.answer(held.exchange, held.unread, Refusal::ledger()),
        }
    }

    /// Puts the question to the desk.
    pub(super) fn ask(&mut self, wake: &mut Wake<'_>, held: Box<Held>) {
        if self.workload_closed {
            return self.abandon(wake, *held);
        }
        if self.server_closed {
            return self.server_left(wake, *held);
        }
        wake.out.ask = held.question.clone();
        self.upload = Upload::Asking(held);
    }

    /// The desk has answered.
    pub(super) fn answered(&mut self, wake: &mut Wake<'_>, answer: &Answer) {
        let Upload::Asking(held) = &self.upload else { return };
        let Some(question) = &held.question else { return };
        // An answer to another question, or for other bytes: the act stays held.
        if answer.id != question.id || answer.digest != question.digest {
            return;
        }
        let permit = Policy::grant(question, answer);
        let Some(mut held) = self.take_held() else { return };
        held.exchange.approver.clone_from(&answer.approver);
        let Some(permit) = permit else {
            let refusal = if answer.approver == "timeout" {
                Refusal::expired(&held.exchange.rule)
            } else {
                Refusal::denied(&held.exchange.rule, "an approver refused this request")
            };
            return self.refuse(wake, held.exchange, held.unread, refusal, held.terms.durability);
        };
        held.exchange.decision = Decision::Approved;
        let verdict = (Kind::Verdict, Decision::Approved, answer.reason.as_str(), held.terms.durability);
        let appended = self.log.verdict(wake.now, wake.host, &held.exchange, verdict);
        held.permit = Some(permit);
        match appended {
            Appended::Done(receipt) => self.release_held(wake, held, receipt),
            Appended::Waiting => self.waiting = Some(Waiting::Release(Box::new(held))),
            Appended::Refused(_) => self.answer(held.exchange, held.unread, Refusal::ledger()),
        }
    }

    /// Refuses a held act whose time is over.
    pub(super) fn expire(&mut self, wake: &mut Wake<'_>) {
        let Some(held) = self.take_held() else { return };
        wake.out.withdraw = true;
        let refusal = Refusal::expired(&held.exchange.rule);
        self.refuse(wake, held.exchange, held.unread, refusal, held.terms.durability);
    }

    /// The workload went away while its act was held: the question is moot.
    pub(super) fn abandon(&mut self, wake: &mut Wake<'_>, held: Held) {
        wake.out.withdraw = true;
        let refusal =
            Refusal::denied(&held.exchange.rule, "the workload went away while the request was held");
        self.refuse(wake, held.exchange, Unread::nothing(false), refusal, held.terms.durability);
    }

    /// The server went away while an act was held: nobody need answer any more.
    pub(super) fn server_left(&mut self, wake: &mut Wake<'_>, held: Held) {
        wake.out.withdraw = true;
        let refusal = Refusal::bad_gateway("the server closed the connection while the request was held");
        self.refuse(wake, held.exchange, Unread::nothing(false), refusal, held.terms.durability);
    }

    fn take_held(&mut self) -> Option<Held> {
        match core::mem::take(&mut self.upload) {
            Upload::Asking(held) => Some(*held),
            other => {
                self.upload = other;
                None
            }
        }
    }
}

/// The act in words. Paths are URI characters or decoded text: control characters are escaped.
fn summary(exchange: &Exchange, read_as: &str) -> String {
    let mut text = String::new();
    for character in [&exchange.method, " ", &exchange.host, &exchange.shown, read_as]
        .into_iter()
        .flat_map(|part| part.chars())
    {
        if text.len() >= QUESTION_BYTES {
            break;
        }
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

struct Digesting(Sha256);

impl Sink for Digesting {
    fn relay(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn own(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
