//! Results on their way back: rows and COPY rows masked or passed, completions counted, names taken over.
//! It refuses a result it cannot mask: the connection ends before a single cell of it is shown.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::deny::Pill;
use super::ledger::{Copy, Expect, Rows};
use super::names::{Described, Portal, Prepared, Source};
use super::reply::{Fate, UNEXPECTED, too_large};
use super::{Conversation, Turn, scrub};
use crate::action::{Effect, Named};
use crate::limits::PG_ROW_BYTES;
use crate::wire::postgres::{Header, Violation, backend, copy, message};

impl Conversation {
    pub(super) fn data_row(
        &mut self,
        turn: &mut Turn<'_>,
        header: Header,
        body: Option<&[u8]>,
    ) -> Result<Fate, Violation> {
        let results = match self.ledger.front() {
            Some(Expect::Query(results) | Expect::Execute(results)) if results.pill.is_none() => results,
            Some(Expect::Catalog) => return Ok(self.catalog_row(header, body)),
            _ => return Err(UNEXPECTED),
        };
        let Rows::Masked(layout) = &results.rows else {
            results.count += 1;
            results.bytes += header.whole() as u64;
            return Ok(Fate::Pass);
        };
        if header.body > PG_ROW_BYTES {
            self.severed = Some(too_large("a row"));
            return Ok(Fate::Drop);
        }
        let Some(body) = body else { return Ok(Fate::More) };
        results.count += 1;
        results.bytes += header.whole() as u64;
        let changed = layout.row(body, turn.host.mask_key(), &mut self.scratch, &mut results.masked)?;
        Ok(if changed { Fate::Replace } else { Fate::Pass })
    }

    fn catalog_row(&mut self, header: Header, body: Option<&[u8]>) -> Fate {
        if header.body > PG_ROW_BYTES {
            self.catalog.row(&[]);
            return Fate::Drop;
        }
        let Some(body) = body else { return Fate::More };
        self.catalog.row(body);
        Fate::Drop
    }

    /// RowDescription of a simple query: which cells of the rows that follow are masked.
    pub(super) fn row_description(&mut self, turn: &mut Turn<'_>, body: &[u8]) -> Result<Fate, Violation> {
        let Some(Expect::Query(results)) = self.ledger.front() else { return Err(UNEXPECTED) };
        results.rows = Rows::Plain;
        let (completed, number) = (results.completed, results.deed);
        let Some(deed) = number.and_then(|number| self.deeds.get(&number)) else { return Ok(Fate::Pass) };
        if deed.plan.response.is_empty() {
            return Ok(Fate::Pass);
        }
        let columns = backend::row_description(body)?;
        let (plan, statements) = (deed.plan.clone(), deed.statements.clone());
        let catalog = self.catalog.catalog().is_some();
        let layout = self.with_view(turn, &plan, catalog, |view| {
            view.layout(statements.get(completed), &columns, |index| {
                columns.get(index).map_or(0, |column| column.format)
            })
        });
        match layout {
            Ok(rows) => {
                if let Some(Expect::Query(results)) = self.ledger.front() {
                    results.rows = rows;
                }
            }
            Err(obstacle) => {
                self.severed = Some(Pill::denied(&obstacle.message));
                return Ok(Fate::Drop);
            }
        }
        let renamed = self
            .guard
            .as_ref()
            .is_some_and(|masks| scrub::names(masks, turn.host.mask_key(), &columns, &mut self.scratch.out));
        Ok(if renamed { Fate::Replace } else { Fate::Pass })
    }

    /// CommandComplete, EmptyQueryResponse, PortalSuspended.
    pub(super) fn complete(&mut self, turn: &mut Turn<'_>, tag: u8, body: &[u8]) -> Result<Fate, Violation> {
        let (index, number, whole) = match self.ledger.front() {
            Some(Expect::Catalog) => {
                if tag == b'C' {
                    self.catalog.complete();
                }
                return Ok(Fate::Drop);
            }
            Some(Expect::Query(results)) if results.pill.is_none() && tag != b's' => {
                results.completed += 1;
                (results.completed - 1, results.deed, false)
            }
            Some(Expect::Execute(results)) if results.pill.is_none() => (0, results.deed, true),
            _ => return Err(UNEXPECTED),
        };
        self.tally();
        if whole {
            self.ledger.pop();
        } else if let Some(Expect::Query(results)) = self.ledger.front() {
            results.rows = Rows::Plain;
        }
        if tag == b's' {
            return Ok(Fate::Pass);
        }
        let counted = changed_rows(body);
        if let Some(number) = number {
            if let Some(deed) = self.deeds.get_mut(&number) {
                deed.rows += counted;
            }
            self.take_names(turn, number, index, body);
            if whole {
                self.close_deed(turn, number, "", "");
            }
        }
        Ok(Fate::Pass)
    }

    /// Moves what was counted on the front entry to its act.
    pub(super) fn tally(&mut self) {
        let Some(results) = self.ledger.front().and_then(Expect::results) else { return };
        let Some(number) = results.deed else { return };
        let (rows, bytes) = (core::mem::take(&mut results.count), core::mem::take(&mut results.bytes));
        let masked = core::mem::take(&mut results.masked);
        let layout = match &results.rows {
            Rows::Masked(layout) => Some(layout.clone()),
            Rows::Plain => None,
        };
        let Some(deed) = self.deeds.get_mut(&number) else { return };
        deed.rows += rows;
        deed.bytes_down += bytes;
        for (class, count) in masked {
            *deed.masked.entry(class).or_default() += count;
        }
        for cell in layout.iter().flat_map(|layout| &layout.cells).filter(|cell| cell.rule.is_some()) {
            if !deed.columns.contains(&cell.name) {
                deed.columns.push(cell.name.clone());
            }
        }
    }

    /// A statement that gives or takes names has succeeded.
    fn take_names(&mut self, turn: &mut Turn<'_>, number: u64, index: usize, tag: &[u8]) {
        if matches!(tag, b"DEALLOCATE ALL\0" | b"DISCARD ALL\0") {
            for number in self.names.forget_statements() {
                self.drop_deed(turn, number, "", "prepared, never run");
            }
        }
        let Some(statement) = self.deeds.get(&number).and_then(|deed| deed.statements.get(index)) else {
            return;
        };
        let Some(named) = statement.named.clone() else { return };
        let source = Source { text: statement.text.as_bytes().into(), ..self.source(b"") };
        match named {
            Named::Prepare(name) if !self.names.is_full() => {
                let serial = self.names.serial();
                let prepared = Prepared { serial, source, fresh: None, described: Described::No };
                self.names.put_statement(name.as_bytes(), Some(prepared));
            }
            Named::Declare(name) if !self.names.is_full() => {
                let hold = statement.text.to_ascii_lowercase().contains("hold");
                let statements = Arc::new(Vec::from([statement.clone()]));
                let portal = Portal { deed: None, source, statements, rows: Rows::Plain, hold };
                self.names.put_portal(name.as_bytes(), Some(portal));
            }
            Named::Deallocate(Some(name)) => {
                self.names.put_statement(name.as_bytes(), None);
            }
            Named::Close(Some(name)) => {
                self.names.put_portal(name.as_bytes(), None);
            }
            // ALL is told by the command tag above; a name that is not remembered is not known.
            Named::Prepare(_)
            | Named::Declare(_)
            | Named::Deallocate(None)
            | Named::Close(None)
            | Named::Execute(_)
            | Named::Fetch(_) => {}
        }
    }

    pub(super) fn copy(&mut self, turn: &mut Turn<'_>, tag: u8, body: &[u8]) -> Result<Fate, Violation> {
        let results = match self.ledger.front() {
            Some(Expect::Query(results) | Expect::Execute(results)) if results.pill.is_none() => results,
            _ => return Err(UNEXPECTED),
        };
        let number = results.deed;
        match tag {
            b'G' => {
                let copies = number
                    .and_then(|number| self.deeds.get(&number))
                    .is_some_and(|deed| deed.statements.iter().any(|each| each.effects.has(Effect::CopyIn)));
                if !copies {
                    return Err(Violation::Field(
                        "COPY data was asked for by a statement that copies nothing",
                    ));
                }
                results.copy = Copy::In;
                self.copying = !self.ledger.begin_copy_in();
            }
            b'H' => {
                results.copy = Copy::Out;
                let masks = number.and_then(|number| self.deeds.get(&number)).is_some_and(|deed| deed.masks);
                if masks && !copy::is_text(body)? {
                    self.severed = Some(Pill::denied("COPY in binary format cannot be masked"));
                    return Ok(Fate::Drop);
                }
            }
            b'c' => results.copy = Copy::None,
            _ => {
                self.severed = Some(Pill::denied("replication carries whole tables unseen and is refused"));
                return Ok(Fate::Drop);
            }
        }
        let _ = turn;
        Ok(Fate::Pass)
    }

    /// A row of COPY TO STDOUT: where masks apply it is searched for protected values.
    pub(super) fn copy_row(
        &mut self,
        turn: &mut Turn<'_>,
        header: Header,
        body: Option<&[u8]>,
    ) -> Result<Fate, Violation> {
        let results = match self.ledger.front() {
            Some(Expect::Query(results) | Expect::Execute(results)) if results.copy == Copy::Out => results,
            _ => return Err(UNEXPECTED),
        };
        let masks = results.deed.and_then(|number| self.deeds.get(&number)).is_some_and(|deed| deed.masks);
        if !masks {
            results.bytes += header.whole() as u64;
            return Ok(Fate::Pass);
        }
        if header.body > PG_ROW_BYTES {
            self.severed = Some(too_large("a COPY row"));
            return Ok(Fate::Drop);
        }
        let Some(body) = body else { return Ok(Fate::More) };
        results.bytes += header.whole() as u64;
        let Some(masks) = &self.guard else { return Ok(Fate::Pass) };
        let Some((masked, classes)) = masks.scrub_counted(body, turn.host.mask_key()) else {
            return Ok(Fate::Pass);
        };
        for class in classes {
            *results.masked.entry(class).or_default() += 1;
        }
        self.scratch.out.clear();
        message(&mut self.scratch.out, b'd', |out| out.extend_from_slice(&masked));
        Ok(Fate::Replace)
    }
}

/// The count in a command tag: `SELECT` counts rows that passed as rows already, the others say what they changed.
fn changed_rows(body: &[u8]) -> u64 {
    let tag = String::from_utf8_lossy(body.split_last().map_or(&[], |(_, tag)| tag));
    let mut words = tag.split(' ');
    match words.next() {
        Some("INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY" | "MOVE") => {
            words.next_back().and_then(|count| count.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}
