//! Journal → store: one thread moves records on, deletes segments that are wholly in the store, and applies retention.
//! It refuses to skip: a record that does not continue the chain stops it, and with it every new act.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::journal::{Cursor, Step};
use super::store::Store;
use super::{Shared, outbox, wall_ns};

/// The state of the folding thread.
#[derive(Debug)]
pub(super) struct Fold {
    shared: Arc<Shared>,
    store: Store,
    cursor: Option<(PathBuf, Cursor)>,
    retention: Duration,
    /// Rows may go only after ClickHouse has them.
    ships: bool,
    swept: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
enum FoldError {
    #[error("the store cannot be written: {0}")]
    Store(#[from] rusqlite::Error),
    #[error("the journal cannot be read or written: {0}")]
    Journal(#[from] std::io::Error),
    #[error("the journal is damaged behind seq {0}; restart the agent to set the damaged part aside")]
    Damaged(u64),
}

impl Fold {
    pub(super) fn new(shared: Arc<Shared>, store: Store, retention: Duration, ships: bool) -> Fold {
        Fold { shared, store, cursor: None, retention, ships, swept: None }
    }

    /// Body of the thread; ends when the ledger closes and all is in the store, or cannot be.
    pub(super) fn run(mut self) {
        loop {
            match self.step() {
                Ok(0) => {
                    self.sweep();
                    if self.shared.stop.load(Ordering::Acquire) && self.caught_up() {
                        return;
                    }
                    self.rest();
                }
                Ok(rows) => {
                    self.shared.fold_fault(None);
                    // A commit costs the same for one row as for a thousand: small groups wait for company.
                    if rows < GROUP_ROWS && !self.shared.stop.load(Ordering::Acquire) {
                        std::thread::sleep(GATHER);
                    }
                }
                Err(fault) => {
                    self.cursor = None;
                    if let (FoldError::Damaged(_), Ok(mut tail)) = (&fault, self.shared.tail.lock()) {
                        tail.distrust(fault.to_string());
                    }
                    self.shared.fold_fault(Some(fault.to_string()));
                    if self.shared.stop.load(Ordering::Acquire) {
                        return;
                    }
                    std::thread::park_timeout(RETRY);
                }
            }
        }
    }

    /// Moves at most [`GROUP_ROWS`] records on. Returns how many.
    fn step(&mut self) -> Result<usize, FoldError> {
        let readable = {
            let Ok(mut tail) = self.shared.tail.lock() else { return Ok(0) };
            tail.flush()?;
            tail.readable()
        };
        let Some(readable) = readable else { return Ok(0) };
        let stored = self.shared.stored.load(Ordering::Acquire);
        let cursor = match self.cursor.take_if(|(path, _)| *path == readable.path) {
            Some((_, cursor)) => cursor,
            None => Cursor::open(&readable.path)?.ok_or(FoldError::Damaged(stored))?,
        };
        let (_, cursor) = self.cursor.insert((readable.path, cursor));
        let group = self.store.begin()?;
        let mut rows = 0;
        while rows < GROUP_ROWS {
            match cursor.step(readable.limit)? {
                Step::Entry(entry) if entry.seq <= stored => {}
                Step::Entry(entry) => {
                    group.insert(&entry)?;
                    rows += 1;
                }
                Step::End => break,
                Step::Torn => return Err(FoldError::Damaged(cursor.head.seq)),
            }
        }
        let (reached, finished) = (cursor.head.seq, cursor.offset >= readable.limit);
        if rows > 0 {
            group.commit()?;
            self.shared.stored.store(reached.max(stored), Ordering::Release);
            let _ = self.store.bytes().map(|bytes| self.shared.store_bytes.store(bytes, Ordering::Relaxed));
        } else {
            drop(group);
        }
        if finished && !readable.open {
            self.release()?;
            return Ok(rows.max(1));
        }
        Ok(rows)
    }

    /// The segment is wholly in the store.
    fn release(&mut self) -> Result<(), FoldError> {
        self.cursor = None;
        let path = self.shared.tail.lock().ok().and_then(|mut tail| tail.folded());
        path.map_or(Ok(()), |path| Ok(std::fs::remove_file(path)?))
    }

    fn caught_up(&self) -> bool {
        let stored = self.shared.stored.load(Ordering::Acquire);
        self.shared.tail.lock().map_or(true, |tail| tail.head.seq <= stored)
    }

    /// Sleeps until there is something to fold, then a little longer so that records come in groups.
    fn rest(&mut self) {
        let stored = self.shared.stored.load(Ordering::Acquire);
        {
            let Ok(mut tail) = self.shared.tail.lock() else { return };
            tail.heal(stored);
            if tail.head.seq > stored {
                return;
            }
            tail.fold_idle = true;
        }
        std::thread::park_timeout(SWEEP_EVERY);
        if !self.shared.stop.load(Ordering::Acquire) {
            std::thread::sleep(GATHER);
        }
    }

    /// Retention, at most once in [`SWEEP_EVERY`]. A failure is tried again with the next round.
    fn sweep(&mut self) {
        if self.swept.is_some_and(|at| at.elapsed() < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(Instant::now());
        let age = u64::try_from(self.retention.as_nanos()).unwrap_or(u64::MAX);
        let upto = if self.ships { outbox::confirmed(self.store.connection()) } else { Ok(u64::MAX) };
        let expired =
            upto.and_then(|upto| self.store.expire(wall_ns().saturating_sub(age), upto, EXPIRE_ROWS));
        match expired {
            Ok(EXPIRE_ROWS) => self.swept = None,
            Ok(_) => {}
            Err(fault) => self.shared.fold_fault(Some(format!("retention cannot delete: {fault}"))),
        }
        let _ = self.store.bytes().map(|bytes| self.shared.store_bytes.store(bytes, Ordering::Relaxed));
    }
}

/// Rows of one transaction: beyond this a sync is no longer what it costs.
const GROUP_ROWS: usize = 4096;
/// Rows that one transaction of retention deletes.
const EXPIRE_ROWS: u64 = 10_000;
/// The first record after a pause waits this long for company.
const GATHER: Duration = Duration::from_millis(20);
/// A store that cannot be written is tried again after this long.
const RETRY: Duration = Duration::from_millis(250);
const SWEEP_EVERY: Duration = Duration::from_secs(10);
