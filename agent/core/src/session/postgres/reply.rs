//! The server's messages, one after the other: matched with what was asked, passed in whole runs, changed only where a mask
//! or a pill says so.
//! It refuses replies that nobody asked for, and buffers nothing that it does not have to change.

use alloc::format;
use alloc::string::ToString;

use super::catalog::Finished;
use super::deny;
use super::ledger::Expect;
use super::names::Described;
use super::{Conversation, Rest, Turn, scrub};
use crate::limits::PG_ROW_BYTES;
use crate::wire::postgres::backend::Status;
use crate::wire::postgres::{HEADER_BYTES, Header, Violation, backend, header};

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// As it is; it need not be complete.
    Pass,
    /// Nobody sees it; it need not be complete.
    Drop,
    /// The scratch buffer takes its place.
    Replace,
    /// It must be complete first.
    More,
}

impl Conversation {
    pub(super) fn replies(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        // Start of the bytes that go on unchanged and were not handed over yet.
        let mut run = 0;
        while turn.out.close.is_none() {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.server_rest {
                Rest::Pass(left, _) => {
                    let chunk = left.min(rest.len());
                    taken += chunk;
                    self.server_rest = if left > chunk { Rest::Pass(left - chunk, 0) } else { Rest::None };
                    continue;
                }
                Rest::Drop(left) => {
                    turn.out.to_workload.relay(bytes.get(run..taken).unwrap_or_default());
                    let chunk = left.min(rest.len());
                    taken += chunk;
                    run = taken;
                    self.server_rest = if left > chunk { Rest::Drop(left - chunk) } else { Rest::None };
                    continue;
                }
                Rest::None => {}
            }
            let header = match header(rest, backend::bound) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(violation) => {
                    turn.out.to_workload.relay(bytes.get(run..taken).unwrap_or_default());
                    self.server_violation(turn, violation);
                    return bytes.len();
                }
            };
            let body = rest.get(HEADER_BYTES..header.whole());
            let fate = match self.reply(turn, header, body) {
                Ok(fate) => fate,
                Err(violation) => {
                    turn.out.to_workload.relay(bytes.get(run..taken).unwrap_or_default());
                    self.server_violation(turn, violation);
                    return bytes.len();
                }
            };
            match fate {
                Fate::Pass => self.server_rest = Rest::Pass(header.whole(), 0),
                Fate::Drop => self.server_rest = Rest::Drop(header.whole()),
                Fate::More => break,
                Fate::Replace => {
                    turn.out.to_workload.relay(bytes.get(run..taken).unwrap_or_default());
                    turn.out.to_workload.relay(&self.scratch.out);
                    taken += header.whole();
                    run = taken;
                }
            }
            if let Some(pill) = self.severed.take() {
                turn.out.to_workload.relay(bytes.get(run..taken).unwrap_or_default());
                self.fatal(turn, pill.code(), pill.message());
                return bytes.len();
            }
        }
        turn.out.to_workload.relay(bytes.get(run..taken).unwrap_or_default());
        if self.gone && turn.out.close.is_none() && self.ledger.is_empty() {
            self.end(turn, crate::session::Close::Finish);
        }
        taken
    }

    fn reply(&mut self, turn: &mut Turn<'_>, header: Header, body: Option<&[u8]>) -> Result<Fate, Violation> {
        match header.tag {
            b'D' => return self.data_row(turn, header, body),
            b'd' => return self.copy_row(turn, header, body),
            _ => {}
        }
        let Some(body) = body else {
            return if header.body > PG_ROW_BYTES { Err(Violation::TooLong) } else { Ok(Fate::More) };
        };
        match header.tag {
            b'1' => self.parse_complete(turn),
            b'2' => self.bind_complete(turn),
            b'3' => self.close_complete(turn),
            b't' | b'T' | b'n' => self.description(turn, header.tag, body),
            b'C' | b'I' | b's' => self.complete(turn, header.tag, body),
            b'G' | b'H' | b'c' | b'W' => self.copy(turn, header.tag, body),
            b'V' => self.call_result(turn, header),
            b'E' => self.error(turn, body),
            b'Z' => self.ready(turn, body),
            b'N' => Ok(self.notice(turn, body)),
            b'A' => Ok(match &self.guard {
                Some(masks)
                    if scrub::notification(masks, turn.host.mask_key(), body, &mut self.scratch.out)? =>
                {
                    Fate::Replace
                }
                Some(_) | None => Fate::Pass,
            }),
            b'S' => {
                let (name, value) = backend::parameter_status(body)?;
                self.settings.report(name, value);
                Ok(match &self.guard {
                    Some(masks)
                        if scrub::parameter(
                            masks,
                            turn.host.mask_key(),
                            name,
                            value,
                            &mut self.scratch.out,
                        ) =>
                    {
                        Fate::Replace
                    }
                    Some(_) | None => Fate::Pass,
                })
            }
            _ => Err(Violation::Tag),
        }
    }

    /// A notice passes, with its values masked, unless it is about weir's own question.
    fn notice(&mut self, turn: &Turn<'_>, body: &[u8]) -> Fate {
        if let Some(Expect::Catalog) = self.ledger.front() {
            return Fate::Drop;
        }
        let exposed = self.looks_at_masked(turn);
        match &self.guard {
            Some(masks)
                if scrub::error(masks, turn.host.mask_key(), b'N', body, exposed, &mut self.scratch.out) =>
            {
                Fate::Replace
            }
            Some(_) | None => Fate::Pass,
        }
    }

    fn parse_complete(&mut self, turn: &mut Turn<'_>) -> Result<Fate, Violation> {
        if let Some(Expect::Catalog) = self.ledger.front() {
            return Ok(Fate::Drop);
        }
        match self.ledger.pop() {
            Some(Expect::Parse { before, pill: None, .. }) => {
                if let Some(number) = before.and_then(|before| before.fresh) {
                    self.drop_deed(turn, number, "", "prepared, never run");
                }
                Ok(Fate::Pass)
            }
            _ => Err(UNEXPECTED),
        }
    }

    fn bind_complete(&mut self, turn: &mut Turn<'_>) -> Result<Fate, Violation> {
        if let Some(Expect::Catalog) = self.ledger.front() {
            return Ok(Fate::Drop);
        }
        match self.ledger.pop() {
            Some(Expect::Bind { before, pill: None, .. }) => {
                if let Some(number) = before.and_then(|before| before.deed) {
                    self.drop_deed(turn, number, "", "portal replaced");
                }
                Ok(Fate::Pass)
            }
            _ => Err(UNEXPECTED),
        }
    }

    fn close_complete(&mut self, turn: &mut Turn<'_>) -> Result<Fate, Violation> {
        if let Some(Expect::Catalog) = self.ledger.front() {
            return Ok(Fate::Drop);
        }
        match self.ledger.pop() {
            Some(Expect::Close { statement, portal, .. }) => {
                let statement = statement.and_then(|prepared| prepared.fresh);
                for number in statement.into_iter().chain(portal.and_then(|portal| portal.deed)) {
                    self.drop_deed(turn, number, "", "closed");
                }
                Ok(Fate::Pass)
            }
            _ => Err(UNEXPECTED),
        }
    }

    /// ParameterDescription, RowDescription, NoData.
    fn description(&mut self, turn: &mut Turn<'_>, tag: u8, body: &[u8]) -> Result<Fate, Violation> {
        let own = match self.ledger.front() {
            Some(Expect::Describe { own, pill: None, .. }) => *own,
            Some(Expect::Query(_)) if tag == b'T' => return self.row_description(turn, body),
            Some(Expect::Catalog) => return Ok(Fate::Drop),
            _ => return Err(UNEXPECTED),
        };
        if tag == b't' {
            return Ok(if own { Fate::Drop } else { Fate::Pass });
        }
        let Some(Expect::Describe { name, serial, .. }) = self.ledger.pop() else { return Err(UNEXPECTED) };
        let columns = if tag == b'T' { Some(backend::row_description(body)?) } else { None };
        let masked = match (&columns, &self.guard) {
            (Some(columns), Some(masks)) if !own => {
                scrub::names(masks, turn.host.mask_key(), columns, &mut self.scratch.out)
            }
            _ => false,
        };
        if serial != 0
            && let Some(prepared) = self.names.statement_mut(&name)
            && prepared.serial == serial
        {
            prepared.described = match columns {
                Some(columns) => Described::Columns(alloc::sync::Arc::new(columns)),
                None => Described::Nothing,
            };
        }
        Ok(match (own, masked) {
            (true, _) => Fate::Drop,
            (false, true) => Fate::Replace,
            (false, false) => Fate::Pass,
        })
    }

    fn call_result(&mut self, turn: &mut Turn<'_>, header: Header) -> Result<Fate, Violation> {
        match self.ledger.front() {
            Some(Expect::Call(results)) if results.pill.is_none() => {
                let number = results.deed;
                if let Some(number) = number {
                    if let Some(deed) = self.deeds.get_mut(&number) {
                        deed.bytes_down += header.whole() as u64;
                    }
                    self.drop_deed(turn, number, "", "");
                }
                Ok(Fate::Pass)
            }
            _ => Err(UNEXPECTED),
        }
    }

    fn ready(&mut self, turn: &mut Turn<'_>, body: &[u8]) -> Result<Fate, Violation> {
        let status = backend::ready(body)?;
        let fate = match self.ledger.pop() {
            Some(Expect::Catalog) => {
                let address = self.opening.destination.address().to_string();
                let place = [address.as_bytes(), self.startup.database.as_bytes()];
                if self.catalog.finish(turn.host, &place) == Finished::Unknown {
                    self.ask_catalog(turn, true);
                    Fate::Drop
                } else if self.opened {
                    Fate::Drop
                } else {
                    self.opened = true;
                    self.scratch.out.clear();
                    backend::write_ready(&mut self.scratch.out, status);
                    Fate::Replace
                }
            }
            Some(Expect::Query(results) | Expect::Call(results)) => {
                if let Some(number) = results.deed {
                    self.drop_deed(turn, number, "", "");
                }
                Fate::Pass
            }
            Some(Expect::Sync) => Fate::Pass,
            _ => return Err(UNEXPECTED),
        };
        self.status = status;
        if self.ledger.is_empty() {
            self.settle(turn);
        }
        Ok(fate)
    }

    /// Nothing is under way: what may have changed is looked at again, and what ended with the transaction is dropped.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        if self.settings.uncertain {
            self.settings.uncertain = false;
            self.catalog.stale = true;
            self.unsettled = true;
        }
        if self.status == Status::Idle {
            // A rollback takes back what was set and made.
            self.catalog.stale |= self.unsettled;
            self.unsettled = false;
            for number in self.names.end_transaction() {
                self.drop_deed(turn, number, "", "portal ended with its transaction");
            }
        }
    }

    /// The first message of the workload waits for an answer that is still owed.
    pub(super) fn owes_answer(&self) -> bool {
        if self.catalog.is_reading() || self.ledger.is_full() {
            return true;
        }
        let described = self.ledger.iter().any(|expect| matches!(expect, Expect::Describe { own: true, .. }));
        described || (!self.ledger.is_empty() && self.ledger.drains())
    }
}

/// A reply that does not fit what was asked.
pub const UNEXPECTED: Violation = Violation::Field("a reply that was not asked for");

/// Text for a cut result.
pub fn too_large(what: &str) -> deny::Pill {
    deny::Pill::new(deny::LIMIT, &format!("{what} with masked values is larger than {PG_ROW_BYTES} bytes"))
}
