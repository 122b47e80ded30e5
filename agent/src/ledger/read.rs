//! The ledger for those who only read: whole trail in order (store, then journal), and "everything written so far".
//! It refuses to answer from a store that lags: it waits for a live agent, or folds itself when none is alive.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir_core::audit::chain::{self, Head};
use weir_core::audit::verify::Entry;

use super::journal::{self, Cursor, Step};
use super::store::{Kept, Store};
use super::{LedgerError, lock, moved, settle, store};

/// Makes the store hold every record that was written when this was called.
///
/// # Errors
/// A live agent does not keep up; no agent is alive and the store cannot be written.
pub fn catch_up(dir: &Path, patience: Duration) -> Result<(), LedgerError> {
    let deadline = Instant::now() + patience;
    let file_fault = |source| LedgerError::File { path: dir.into(), source };
    let written: Vec<_> = moved::intakes(dir)
        .map_err(file_fault)?
        .into_iter()
        .filter_map(|path| std::fs::metadata(&path).ok().map(|facts| (path, facts.len())))
        .collect();
    // An intake that is gone is in the journal, and so is what is written down as moved there.
    let is_moved =
        |(path, bytes): &(PathBuf, u64)| moved::drained(path).map_or(!path.exists(), |at| at >= *bytes);
    let mut end = 0;
    loop {
        let all_moved = written.iter().all(is_moved);
        if all_moved && end == 0 {
            end = journal_end(dir)?;
        }
        match lock::Lock::take(dir) {
            Ok(_lock) => {
                settle::settle(dir, &mut Store::open(dir)?, false)?;
                return Ok(());
            }
            Err(LedgerError::Busy { .. }) => {}
            Err(fault) => return Err(fault),
        }
        // A starting agent may not have made the store yet.
        let newest = Store::read(dir).and_then(|store| {
            store.newest().map_err(|source| LedgerError::Store { path: store::path(dir), source })
        });
        match newest {
            Ok(newest) if all_moved && newest >= end => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(_) => return Err(LedgerError::Behind { seq: end, seconds: patience.as_secs() }),
            Err(fault) => return Err(fault),
        }
    }
}

/// Seq of the newest whole record of the journal; 0 if it holds none.
pub(super) fn journal_end(dir: &Path) -> Result<u64, LedgerError> {
    let paths = journal::segments(dir).map_err(|source| LedgerError::File { path: dir.into(), source })?;
    for path in paths.iter().rev() {
        let fault = |source| LedgerError::File { path: path.clone(), source };
        let mut cursor = match Cursor::open(path) {
            Ok(Some(cursor)) => cursor,
            // Torn, or folded and deleted meanwhile.
            Ok(None) => continue,
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(fault(source)),
        };
        let limit = cursor.length().map_err(fault)?;
        while let Step::Entry(_) = cursor.step(limit).map_err(fault)? {}
        return Ok(cursor.head.seq);
    }
    Ok(0)
}

/// One record of the trail, and what follows the last one.
#[derive(Debug)]
pub enum Reading {
    /// First of all: what came before the first record (genesis, or what retention removed last).
    Begins(Head),
    Record(Kept),
    /// A record that store and journal both hold, but not the same.
    Differs(Head),
    /// Bytes of the journal after this head that continue nothing.
    Torn(Head),
}

/// Walks everything there is, in order: the store from its anchor, then what the journal holds beyond it; records that
/// both hold are compared.
///
/// # Errors
/// Those of files, of SQLite, and of `each`.
pub fn watch<E: From<LedgerError>>(
    dir: &Path,
    mut each: impl FnMut(Reading) -> Result<(), E>,
) -> Result<(), E> {
    let store_fault = |source| LedgerError::Store { path: store::path(dir), source };
    let file_fault = |source| LedgerError::File { path: dir.into(), source };
    let live = matches!(lock::Lock::take(dir), Err(LedgerError::Busy { .. }));
    // Segments first: what is folded and deleted after this is in the store's snapshot, which is taken later.
    let mut cursors = Vec::new();
    for path in journal::segments(dir).map_err(file_fault)? {
        match Cursor::open(&path) {
            Ok(cursor) => cursors.push(cursor),
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(LedgerError::File { path, source }.into()),
        }
    }
    let from = cursors.iter().flatten().map(|cursor| cursor.header.first).min().unwrap_or(u64::MAX);
    let store = Store::read(dir)?;
    let mut head = store.anchor().map_err(store_fault)?;
    each(Reading::Begins(head))?;
    let mut shared = std::collections::BTreeMap::new();
    store
        .walk(0, |row| {
            head = row.head();
            if row.seq.saturating_add(1) >= from {
                shared.insert(row.seq, head.hash);
            }
            each(Reading::Record(row)).map_err(Walk::Each)
        })
        .map_err(|fault| match fault {
            Walk::Each(fault) => fault,
            Walk::Store(source) => store_fault(source).into(),
        })?;
    for cursor in cursors {
        let Some(cursor) = cursor else {
            // A live agent may be making this segment right now.
            return if live { Ok(()) } else { each(Reading::Torn(head)) };
        };
        head = match segment(cursor, head, live, &shared, &mut each)? {
            Some(head) => head,
            None => return Ok(()),
        };
    }
    Ok(())
}

/// Walks one segment; `None` when the trail ends inside it.
fn segment<E: From<LedgerError>>(
    mut cursor: Cursor,
    mut head: Head,
    live: bool,
    stored: &std::collections::BTreeMap<u64, chain::Digest>,
    each: &mut impl FnMut(Reading) -> Result<(), E>,
) -> Result<Option<Head>, E> {
    let fault = |source| LedgerError::File { path: "journal".into(), source };
    let mut patience = if live { LIVE_TRIES } else { 0 };
    loop {
        let limit = cursor.length().map_err(fault)?;
        // The header's own claim, and every record that the store holds too, must agree with the store.
        let here = cursor.head;
        let known = stored.get(&here.seq).or((here.seq == head.seq).then_some(&head.hash));
        if known.is_some_and(|hash| *hash != here.hash) {
            each(Reading::Differs(here))?;
            return Ok(None);
        }
        match cursor.step(limit).map_err(fault)? {
            Step::Entry(entry) if entry.seq <= head.seq => {}
            Step::Entry(entry) => {
                head = Head { epoch: entry.epoch, seq: entry.seq, hash: entry.hash };
                each(Reading::Record(keep(&entry)))?;
            }
            Step::End => return Ok(Some(head)),
            // A live agent may be in the middle of writing it.
            Step::Torn if patience > 0 => {
                patience -= 1;
                std::thread::sleep(POLL);
            }
            Step::Torn => {
                each(Reading::Torn(head))?;
                return Ok(None);
            }
        }
    }
}

fn keep(entry: &Entry<'_>) -> Kept {
    Kept {
        node: entry.node.into(),
        epoch: entry.epoch,
        seq: entry.seq,
        prev_hash: chain::hex(&entry.prev),
        hash: chain::hex(&entry.hash),
        raw: String::from_utf8_lossy(entry.raw).into_owned(),
    }
}

enum Walk<E> {
    Each(E),
    Store(rusqlite::Error),
}

impl<E> From<rusqlite::Error> for Walk<E> {
    fn from(source: rusqlite::Error) -> Self {
        Walk::Store(source)
    }
}

const POLL: Duration = Duration::from_millis(10);
/// A frame is written by one call; half a second is far more than it takes.
const LIVE_TRIES: u32 = 50;
