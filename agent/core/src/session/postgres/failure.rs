//! Errors of the server: whose they are, what they undo, and what the client reads in their place.
//! It refuses to let an error end more than the server ended: names get back what they meant, in reverse order.

use alloc::string::String;

use super::ledger::Expect;
use super::names::Described;
use super::reply::{Fate, UNEXPECTED};
use super::{Conversation, Turn, scrub};
use crate::wire::postgres::{Violation, backend};

impl Conversation {
    pub(super) fn error(&mut self, turn: &mut Turn<'_>, body: &[u8]) -> Result<Fate, Violation> {
        let fatal = backend::ends_connection(body);
        let exposed = self.looks_at_masked(turn);
        let plain = match &self.guard {
            Some(masks)
                if scrub::error(masks, turn.host.mask_key(), b'E', body, exposed, &mut self.scratch.out) =>
            {
                Fate::Replace
            }
            Some(_) | None => Fate::Pass,
        };
        if fatal {
            return Ok(plain);
        }
        let code = String::from_utf8_lossy(backend::error_field(body, b'C')).into_owned();
        self.copying = false;
        self.flushed = false;
        let Some(front) = self.ledger.front() else { return Err(UNEXPECTED) };
        let skips = front.skips_on_error();
        let pill = match front {
            Expect::Catalog => return Ok(Fate::Drop),
            Expect::Parse { pill, .. } | Expect::Bind { pill, .. } | Expect::Describe { pill, .. } => {
                pill.take()
            }
            Expect::Query(results) | Expect::Execute(results) | Expect::Call(results) => results.pill.take(),
            Expect::Close { .. } | Expect::Sync | Expect::CopyEnd => None,
        };
        let number = match front {
            Expect::Parse { deed, .. } | Expect::Bind { deed, .. } => *deed,
            Expect::Query(results) | Expect::Execute(results) | Expect::Call(results) => results.deed,
            Expect::Describe { .. }
            | Expect::Close { .. }
            | Expect::Sync
            | Expect::CopyEnd
            | Expect::Catalog => None,
        };
        self.tally();
        if let Some(number) = number {
            self.close_deed(turn, number, &code, "");
        }
        if skips {
            self.skip(turn);
        }
        match pill {
            Some(pill) => {
                self.scratch.out.clear();
                pill.write(&mut self.scratch.out);
                Ok(Fate::Replace)
            }
            None => Ok(plain),
        }
    }

    /// The server discards everything up to the next Sync: names get back what they meant.
    fn skip(&mut self, turn: &mut Turn<'_>) {
        let (dropped, synced) = self.ledger.skip();
        self.skipping = !synced;
        for expect in dropped.into_iter().rev() {
            let number = match expect {
                Expect::Parse { name, before, deed, .. } => {
                    self.names.put_statement(&name, before);
                    deed
                }
                Expect::Bind { name, before, deed, .. } => {
                    self.names.put_portal(&name, before);
                    deed
                }
                Expect::Close { name, statement, portal } => {
                    if statement.is_some() {
                        self.names.put_statement(&name, statement);
                    }
                    if portal.is_some() {
                        self.names.put_portal(&name, portal);
                    }
                    None
                }
                Expect::Describe { name, serial, own, .. } => {
                    if own
                        && let Some(prepared) = self.names.statement_mut(&name)
                        && prepared.serial == serial
                    {
                        prepared.described = Described::No;
                    }
                    None
                }
                Expect::Execute(results) | Expect::Query(results) | Expect::Call(results) => results.deed,
                Expect::Sync | Expect::CopyEnd | Expect::Catalog => None,
            };
            if let Some(number) = number {
                self.close_deed(turn, number, "", "skipped after an error");
            }
        }
        if self.skipping {
            self.withdraw(turn);
        }
    }
}
