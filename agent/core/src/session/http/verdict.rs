//! From a described act to its verdict: judge, mask what goes out, record, then release, ask or refuse.
//! It refuses to release an act whose masks could not be applied.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::body::{Gather, Masker, media, readable};
use super::deny::Refusal;
use super::exchange::{Exchange, Unread};
use super::hold::Held;
use super::release::{Outgoing, Payload};
use super::{Conversation, Waiting, Wake};
use crate::action::Action;
use crate::audit::{Decision, Durability, Kind};
use crate::policy::{Inject, Judgement, Verdict};
use crate::session::{Act, Appended};
use crate::wire::http1::{Framing, RequestHead};

impl Conversation {
    /// Judges an act and acts on the judgement. `gathered` is its whole body, where a rule had to see it.
    pub(super) fn weigh(
        &mut self,
        wake: &mut Wake<'_>,
        mut exchange: Exchange,
        head: &RequestHead<'_>,
        gathered: Option<Gather>,
        judgement: Option<Judgement>,
    ) {
        let empty = head.framing == Framing::Empty;
        let judgement = judgement.unwrap_or_else(|| {
            let body = gathered.as_ref().map(Gather::content).or(empty.then_some(&[]));
            exchange.judge.judge(&self.context(wake), &Action::Http(&exchange.request(body)))
        });
        exchange.target = judgement.target.clone();
        exchange.rule = judgement.rule.clone();
        exchange.masks = judgement.masks.clone();
        exchange.hold_response = exchange.judge_response || !judgement.masks.response.is_empty();
        let whole = empty || gathered.is_some();
        let needs_whole = match &judgement.verdict {
            Verdict::Deny { message } => {
                let unread = if whole { Unread::nothing(head.persistent) } else { Unread::body_of(head) };
                let refusal = Refusal::denied(&judgement.rule, message);
                return self.refuse(wake, exchange, unread, refusal, judgement.durability);
            }
            Verdict::Approve(_) => true,
            Verdict::Allow(_) => !judgement.masks.request.is_empty(),
        };
        if needs_whole && !whole {
            let durability = judgement.durability;
            return self.begin_gather(wake, exchange, head, Some(judgement), durability);
        }
        if head.method == "TRACE" && !judgement.injects.is_empty() {
            let refusal = Refusal::refused(403, &judgement.rule, "TRACE would show an injected credential");
            return self.refuse(
                wake,
                exchange,
                Unread::nothing(head.persistent),
                refusal,
                judgement.durability,
            );
        }
        match masked(wake, &mut exchange, head, gathered, &judgement) {
            Ok(outgoing) => self.conclude(wake, exchange, head, outgoing, judgement),
            Err(message) => {
                let refusal = Refusal::refused(403, &judgement.rule, message);
                let unread = Unread::nothing(head.persistent);
                self.refuse(wake, exchange, unread, refusal, judgement.durability);
            }
        }
    }

    /// The verdict is known and the bytes are ready: record it, then release or ask.
    fn conclude(
        &mut self,
        wake: &mut Wake<'_>,
        mut exchange: Exchange,
        head: &RequestHead<'_>,
        outgoing: Outgoing,
        judgement: Judgement,
    ) {
        let Judgement { verdict, injects, durability, would, .. } = judgement;
        let permit = match verdict {
            Verdict::Allow(permit) => permit,
            Verdict::Approve(approval) => {
                let held = Held::new(exchange, head, outgoing, injects, durability);
                return self.hold(wake, held, &approval);
            }
            // Answered in `weigh`.
            Verdict::Deny { message } => {
                let refusal = Refusal::denied(&exchange.rule, &message);
                return self.refuse(wake, exchange, Unread::nothing(false), refusal, durability);
            }
        };
        let mut reason = String::new();
        exchange.decision = match would {
            Some(would) => {
                reason = String::from("monitor mode");
                exchange.rule = would.rule;
                would.decision
            }
            None if exchange.masks.request.is_empty() && exchange.masks.response.is_empty() => {
                Decision::Allowed
            }
            None => Decision::Masked,
        };
        let verdict = (Kind::Verdict, exchange.decision, reason.as_str(), durability);
        match self.log.verdict(wake.now, wake.host, &exchange, verdict) {
            Appended::Done(receipt) => {
                let act = Act::open(permit, receipt);
                self.release(wake, exchange, head, outgoing, &injects, act);
            }
            Appended::Waiting => {
                let mut held = Held::new(exchange, head, outgoing, injects, durability);
                held.permit = Some(permit);
                self.waiting = Some(Waiting::Release(Box::new(held)));
            }
            Appended::Refused(_) => {
                let unread = outgoing.unread(head);
                self.answer(exchange, unread, Refusal::ledger());
            }
        }
    }
}

/// Applies the request masks of a judgement to query and body.
fn masked(
    wake: &mut Wake<'_>,
    exchange: &mut Exchange,
    head: &RequestHead<'_>,
    gathered: Option<Gather>,
    judgement: &Judgement,
) -> Result<Outgoing, &'static str> {
    let rules = &judgement.masks.request;
    if rules.is_empty() {
        let body = gathered.map_or(Payload::Stream, |gather| Payload::Raw(gather.into_raw()));
        return Ok(Outgoing { line: None, body });
    }
    let texts: Vec<_> = exchange.path_texts().map(alloc::borrow::Cow::into_owned).collect();
    let mut masker = Masker::new(&*exchange.judge, wake.host.mask_key(), rules, &mut exchange.masked);
    for text in &texts {
        if masker.text(text)?.is_some() {
            return Err("the path holds a protected value, which cannot be masked there");
        }
    }
    let line = match masker.form(exchange.query.as_bytes())? {
        Some(query) if !exchange.query.is_empty() => Some(with_query(head.line(), &query)),
        Some(_) | None => None,
    };
    let body = match gathered {
        None => Payload::Stream,
        Some(gather) if gather.content().is_empty() => Payload::Raw(gather.into_raw()),
        Some(gather) => {
            readable(head.content_type, head.encoded)?;
            match masker.body(media(head.content_type)?, gather.content())? {
                Some(body) => Payload::Masked(body),
                None => Payload::Raw(gather.into_raw()),
            }
        }
    };
    Ok(Outgoing { line, body })
}

/// The request line with another query.
fn with_query(line: &[u8], query: &[u8]) -> Vec<u8> {
    let mark = line.iter().position(|byte| *byte == b'?').map_or(line.len(), |at| at + 1);
    let version = line.iter().rposition(|byte| *byte == b' ').unwrap_or(line.len());
    let (before, after) = (line.get(..mark).unwrap_or_default(), line.get(version..).unwrap_or_default());
    [before, query, after].concat()
}

/// How long a record must last and the credentials that go in: carried while an act is held.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) injects: Vec<alloc::sync::Arc<Inject>>,
    pub(super) durability: Durability,
}
