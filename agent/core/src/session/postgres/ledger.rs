//! The replies a server still owes, in the order in which it owes them.
//! It refuses to guess: a reply that does not fit the front entry is the server's violation.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::deny::Pill;
use super::mask::{Counts, Layout};
use super::names::{Name, Portal, Prepared};
use crate::limits::PG_LEDGER;

/// One message that the server will answer.
#[derive(Debug)]
pub enum Expect {
    /// Results, then ReadyForQuery.
    Query(Results),
    /// ParseComplete. `before` is what the name meant until now; an error brings it back.
    Parse {
        name: Name,
        before: Option<Prepared>,
        deed: Option<u64>,
        pill: Option<Pill>,
    },
    Bind {
        name: Name,
        before: Option<Portal>,
        deed: Option<u64>,
        pill: Option<Pill>,
    },
    /// ParameterDescription (statements only), then RowDescription or NoData. `own`: weir asked, the client does not see it.
    Describe {
        name: Name,
        serial: u64,
        own: bool,
        pill: Option<Pill>,
    },
    /// Results without RowDescription.
    Execute(Results),
    /// CloseComplete.
    Close {
        name: Name,
        statement: Option<Prepared>,
        portal: Option<Portal>,
    },
    /// ReadyForQuery.
    Sync,
    /// FunctionCallResponse, then ReadyForQuery.
    Call(Results),
    /// The client ended its COPY data here; no reply.
    CopyEnd,
    /// weir's own reading of the catalog, up to and with its ReadyForQuery.
    Catalog,
}

/// Where the results of one message stand.
#[derive(Debug, Default)]
pub struct Results {
    /// The open act; `None` for a pill.
    pub deed: Option<u64>,
    pub pill: Option<Pill>,
    /// Statements of the message completed so far.
    pub completed: usize,
    pub rows: Rows,
    pub copy: Copy,
    /// Rows, bytes and masked values since the last tally.
    pub count: u64,
    pub bytes: u64,
    pub masked: Counts,
}

/// What becomes of the rows at hand.
#[derive(Debug, Clone, Default)]
pub enum Rows {
    /// Nothing protected in them.
    #[default]
    Plain,
    Masked(Arc<Layout>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Copy {
    #[default]
    None,
    In,
    Out,
}

impl Expect {
    /// Belongs to the extended protocol: an error here makes the server discard up to Sync.
    pub fn skips_on_error(&self) -> bool {
        match self {
            Expect::Parse { .. }
            | Expect::Bind { .. }
            | Expect::Describe { .. }
            | Expect::Execute(_)
            | Expect::Close { .. } => true,
            Expect::Query(_) | Expect::Sync | Expect::Call(_) | Expect::CopyEnd | Expect::Catalog => false,
        }
    }

    pub fn results(&mut self) -> Option<&mut Results> {
        match self {
            Expect::Query(results) | Expect::Execute(results) | Expect::Call(results) => Some(results),
            Expect::Parse { .. }
            | Expect::Bind { .. }
            | Expect::Describe { .. }
            | Expect::Close { .. }
            | Expect::Sync
            | Expect::CopyEnd
            | Expect::Catalog => None,
        }
    }
}

/// The queue itself.
#[derive(Debug, Default)]
pub struct Ledger {
    queue: VecDeque<Expect>,
}

impl Ledger {
    pub fn push(&mut self, expect: Expect) {
        self.queue.push_back(expect);
    }

    /// No more messages may be sent until replies come in.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= PG_LEDGER
    }

    pub fn is_empty(&self) -> bool {
        self.queue.iter().all(|expect| matches!(expect, Expect::CopyEnd))
    }

    /// The server will answer everything without another message from the client.
    pub fn drains(&self) -> bool {
        match self.queue.iter().rev().find(|expect| !matches!(expect, Expect::CopyEnd)) {
            None | Some(Expect::Sync | Expect::Catalog) => true,
            Some(Expect::Query(results) | Expect::Call(results)) => results.copy != Copy::In,
            Some(_) => false,
        }
    }

    /// The entry that the next reply is for.
    pub fn front(&mut self) -> Option<&mut Expect> {
        while let Some(Expect::CopyEnd) = self.queue.front() {
            self.queue.pop_front();
        }
        self.queue.front_mut()
    }

    pub fn pop(&mut self) -> Option<Expect> {
        self.front();
        self.queue.pop_front()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Expect> {
        self.queue.iter()
    }

    /// After an error in the extended protocol: takes out everything up to the next Sync. `true` when that Sync was
    /// already sent, `false` when the server will go on discarding.
    pub fn skip(&mut self) -> (VecDeque<Expect>, bool) {
        let sync = self.queue.iter().position(|expect| matches!(expect, Expect::Sync));
        let rest = self.queue.split_off(sync.unwrap_or(self.queue.len()));
        (core::mem::replace(&mut self.queue, rest), sync.is_some())
    }

    /// COPY data is expected: the server ignores every Sync that was sent before the data's end. `true` when the data's
    /// end was sent already.
    pub fn begin_copy_in(&mut self) -> bool {
        let end = self.queue.iter().position(|expect| matches!(expect, Expect::CopyEnd));
        let mut index = 0;
        let limit = end.unwrap_or(self.queue.len());
        self.queue.retain(|expect| {
            index += 1;
            index > limit || !matches!(expect, Expect::Sync)
        });
        end.is_some()
    }
}
