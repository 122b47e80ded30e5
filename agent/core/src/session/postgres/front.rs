//! The workload's messages, one after the other: what needs a verdict gets one, the rest is framing.
//! It refuses to read on while a message waits, and names that only weir may use.

use alloc::format;
use alloc::string::ToString;

use super::act::{Decided, Head};
use super::deny::{self, Pill};
use super::ledger::{Expect, Results};
use super::statement::{Known, unknown};
use super::{Close, Conversation, Rest, Turn, Wait, hold};
use crate::action::{Effect, Effects, Function, Statement};
use crate::limits::PG_JUDGED_BYTES;
use crate::wire::postgres::frontend::{self, Front};
use crate::wire::postgres::{Header, Violation, header};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Done,
    /// Not consumed: it is looked at again when something else has happened.
    Wait,
}

impl Conversation {
    pub(super) fn front(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        self.waiting = None;
        while turn.out.close.is_none() {
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.client_rest != Rest::None {
                taken += self.pass_on(turn, rest);
                if rest.is_empty() {
                    break;
                }
                continue;
            }
            let header = match header(rest, frontend::bound) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(violation) => {
                    self.client_violation(turn, violation);
                    break;
                }
            };
            if self.ledger.is_full() {
                self.waiting = Some(Wait::Replies);
                break;
            }
            if header.tag == b'd' {
                self.copy_chunk(header);
                continue;
            }
            if header.body > PG_JUDGED_BYTES {
                self.too_long(turn, header);
                continue;
            }
            let Some(message) = rest.get(..header.whole()) else { break };
            match self.front_message(turn, header.tag, message) {
                Ok(Step::Done) => {
                    taken += message.len();
                    self.refreshed = false;
                    self.flushed = false;
                }
                Ok(Step::Wait) => {
                    self.waiting = Some(if self.head.is_waiting() { Wait::Ruling } else { Wait::Replies });
                    break;
                }
                Err(violation) => {
                    self.client_violation(turn, violation);
                    break;
                }
            }
        }
        if turn.out.close.is_some() { bytes.len() } else { taken }
    }

    fn front_message(&mut self, turn: &mut Turn<'_>, tag: u8, message: &[u8]) -> Result<Step, Violation> {
        let front = frontend::parse(tag, message.get(5..).unwrap_or_default())?;
        if self.skipping && !matches!(front, Front::Sync | Front::Terminate) {
            // The server would discard it unread.
            self.withdraw(turn);
            return Ok(if let Head::Recording(_) = self.head {
                Step::Wait
            } else {
                self.head = Head::Fresh;
                Step::Done
            });
        }
        let copies = matches!(
            front,
            Front::CopyDone | Front::CopyFail | Front::Flush | Front::Sync | Front::Terminate
        );
        if self.copying && !copies {
            return Err(Violation::Field("only COPY data may be sent now"));
        }
        if let Some(step) = self.settled(turn, &front, message) {
            return Ok(step);
        }
        Ok(match front {
            Front::Query { text } => self.query(turn, &front, text, message),
            Front::Parse { name, text } => self.parse(turn, &front, name, text, message),
            Front::Bind(bind) => self.bind(turn, &front, &bind, message),
            Front::Execute { portal } => self.execute(turn, &front, portal, message),
            Front::FunctionCall { function } => {
                let known =
                    Known { statements: alloc::sync::Arc::new([call(function)].into()), catalog: None };
                self.decided(turn, known, &front, message, b"")
            }
            Front::Describe { what, name } => self.describe(turn, &front, what, name, message),
            Front::Close { what, name } => self.close_name(turn, what, name, message),
            Front::CopyDone | Front::CopyFail | Front::Flush | Front::Sync | Front::Terminate => {
                self.framing(turn, &front, message)
            }
        })
    }

    /// A message that was ruled on before and comes by again.
    fn settled(&mut self, turn: &mut Turn<'_>, front: &Front<'_>, message: &[u8]) -> Option<Step> {
        match core::mem::replace(&mut self.head, Head::Fresh) {
            Head::Fresh => None,
            Head::Settled(mut decided) => {
                if decided.digest != [0; 32] && decided.digest != self.digest(front, message) {
                    let pill = Pill::denied("the bytes are not those that were approved");
                    decided.ruling.refuse(decided.ruling.rule.clone(), pill);
                }
                self.carry_out(turn, front, message, *decided);
                Some(Step::Done)
            }
            waiting @ (Head::Recording(_) | Head::Held(_)) => {
                self.head = waiting;
                Some(Step::Wait)
            }
        }
    }

    fn digest(&self, front: &Front<'_>, message: &[u8]) -> [u8; 32] {
        let prepared = match front {
            Front::Bind(bind) => self.names.statement(bind.statement).map(|prepared| &*prepared.source.text),
            Front::Execute { portal } => self.names.portal(portal).map(|portal| &*portal.source.text),
            _ => None,
        };
        hold::digest(prepared.unwrap_or_default(), message)
    }

    /// Rules on what the message does, records it, and carries it out.
    pub(super) fn decided(
        &mut self,
        turn: &mut Turn<'_>,
        known: Known,
        front: &Front<'_>,
        message: &[u8],
        name: &[u8],
    ) -> Step {
        let Some(mut decided) = self.rule(turn, known, message) else {
            // Nothing but comments and white space: the server is sent the same nothing, without the comments.
            return self.nothing(turn, front);
        };
        if name.first() == Some(&deny::RESERVED) {
            decided.ruling.refuse("default".into(), Pill::denied(super::extended::RESERVED_NAME));
        }
        self.finish(turn, decided, front, message)
    }

    pub(super) fn finish(
        &mut self,
        turn: &mut Turn<'_>,
        mut decided: Decided,
        front: &Front<'_>,
        message: &[u8],
    ) -> Step {
        decided.prepares = matches!(front, Front::Parse { .. });
        if decided.asks() {
            decided.digest = self.digest(front, message);
        }
        self.witness(turn, decided, front, message)
    }

    fn query(&mut self, turn: &mut Turn<'_>, front: &Front<'_>, text: &[u8], message: &[u8]) -> Step {
        let source = self.source(text);
        match self.analyse(turn, &source) {
            Some(known) => self.decided(turn, known, front, message, b""),
            None => Step::Wait,
        }
    }

    /// An empty statement needs no verdict; weir sends its own.
    pub(super) fn nothing(&mut self, turn: &mut Turn<'_>, front: &Front<'_>) -> Step {
        self.scratch.out.clear();
        match front {
            Front::Parse { name, text } if name.first() != Some(&deny::RESERVED) => {
                frontend::parse_message(&mut self.scratch.out, name, b"");
                turn.out.to_server.own(&self.scratch.out);
                self.parsed(turn, name, text, None, false);
            }
            Front::Bind(_) | Front::Parse { .. } | Front::Execute { .. } => {
                return self.refuse(turn, front, Pill::denied("an empty statement is not run by name"));
            }
            _ => {
                frontend::query(&mut self.scratch.out, b"");
                turn.out.to_server.own(&self.scratch.out);
                self.queried(turn, Results::default());
            }
        }
        Step::Done
    }

    fn framing(&mut self, turn: &mut Turn<'_>, front: &Front<'_>, message: &[u8]) -> Step {
        match front {
            Front::Sync => {
                turn.out.to_server.framing(message);
                if !self.copying {
                    self.skipping = false;
                    self.unsynced = false;
                    self.ledger.push(Expect::Sync);
                }
            }
            Front::Flush => turn.out.to_server.framing(message),
            Front::Terminate => {
                turn.out.to_server.framing(message);
                self.end(turn, Close::Finish);
            }
            Front::CopyDone | Front::CopyFail => {
                let number = self.copy_deed();
                if let Some(act) =
                    number.and_then(|number| self.deeds.get(&number)).and_then(|deed| deed.act.as_ref())
                {
                    turn.out.to_server.clear(act, message);
                    self.copying = false;
                    self.ledger.push(Expect::CopyEnd);
                }
            }
            Front::Query { .. }
            | Front::Parse { .. }
            | Front::Bind(_)
            | Front::Describe { .. }
            | Front::Execute { .. }
            | Front::Close { .. }
            | Front::FunctionCall { .. } => {}
        }
        Step::Done
    }

    /// The act that COPY data belongs to: the last one sent that copies in and has not ended.
    fn copy_deed(&self) -> Option<u64> {
        for expect in self.ledger.iter().rev() {
            match expect {
                Expect::CopyEnd => return None,
                Expect::Query(results) | Expect::Execute(results) => {
                    let number = results.deed?;
                    let deed = self.deeds.get(&number)?;
                    let copies = deed.statements.iter().any(|each| each.effects.has(Effect::CopyIn));
                    return copies.then_some(number);
                }
                Expect::Sync | Expect::Catalog => {}
                Expect::Parse { .. }
                | Expect::Bind { .. }
                | Expect::Describe { .. }
                | Expect::Close { .. }
                | Expect::Call(_) => return None,
            }
        }
        None
    }

    /// CopyData outside a COPY is ignored by the server, so it stays here.
    fn copy_chunk(&mut self, header: Header) {
        self.client_rest = match self.copy_deed() {
            Some(number) if !self.skipping => Rest::Pass(header.whole(), number),
            Some(_) | None => Rest::Drop(header.whole()),
        };
    }

    fn pass_on(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        let (left, number) = match self.client_rest {
            Rest::None => return 0,
            Rest::Drop(left) => (left, None),
            Rest::Pass(left, number) => (left, Some(number)),
        };
        let chunk = bytes.get(..left.min(bytes.len())).unwrap_or_default();
        if let Some(deed) = number.and_then(|number| self.deeds.get_mut(&number))
            && let Some(act) = &deed.act
        {
            turn.out.to_server.clear(act, chunk);
            deed.bytes_up += chunk.len() as u64;
        }
        let left = left - chunk.len();
        self.client_rest = match (left, number) {
            (0, _) => Rest::None,
            (left, None) => Rest::Drop(left),
            (left, Some(number)) => Rest::Pass(left, number),
        };
        chunk.len()
    }

    /// A message too long to be judged is dropped, and a pill takes its place.
    fn too_long(&mut self, turn: &mut Turn<'_>, header: Header) {
        self.client_rest = Rest::Drop(header.whole());
        if self.skipping {
            return;
        }
        let front = match header.tag {
            b'P' => Front::Parse { name: b"", text: b"" },
            b'B' => match frontend::parse(b'B', &[0; 8]) {
                Ok(front) => front,
                Err(violation) => return self.client_violation(turn, violation),
            },
            b'F' => Front::FunctionCall { function: 0 },
            _ => Front::Query { text: b"" },
        };
        let pill =
            Pill::new(deny::LIMIT, &format!("statements longer than {PG_JUDGED_BYTES} bytes are refused"));
        self.refuse(turn, &front, pill);
    }

    /// Refuses for a reason that is no rule's: it is recorded like any denial.
    pub(super) fn refuse(&mut self, turn: &mut Turn<'_>, front: &Front<'_>, pill: Pill) -> Step {
        let number = self.scribe.number();
        let statement = Statement { text: "(not read)".to_string(), ..unknown("") };
        let entry = super::record::Entry {
            number,
            kind: crate::audit::Kind::Verdict,
            decision: crate::audit::Decision::Denied,
            target: "",
            rule: "default",
            reason: pill.message(),
            statements: &[statement],
            bytes_up: 0,
            durability: crate::audit::Durability::Fast,
            approval: "",
            approver: "",
        };
        let record = self.scribe.entry(turn.now, &turn.rules, &entry);
        // Nothing leaves for the server, so nothing waits for this row.
        let _ = turn.host.append(record);
        self.poison(turn, front, "default", number, pill);
        Step::Done
    }
}

/// A fastpath call names a function by number only: weir cannot tell what it does.
fn call(function: u32) -> Statement {
    Statement {
        effects: Effects::of(&[Effect::Call]),
        functions: [Function { schema: None, name: format!("oid {function}"), safe: false }].into(),
        opaque: true,
        text: format!("function call {function}"),
        ..Statement::default()
    }
}
