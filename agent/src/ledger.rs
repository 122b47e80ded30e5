//! The durable log: a journal, folded into a store that answers SQL. The relaying process hands its records in by an
//! intake; it can neither read nor change what is written.
//! It refuses to say "written" before it is: `fast` is in the page cache, `strict` is on the disk.
//!
//! ```text
//! relay ──► intake ──► drain ─┐
//! keeper ─────────► append ───┴─► journal (segments) ──► fold ──► store (SQLite: audit, batch, views) ──► ship
//!                                    │ strict: sync thread, one fdatasync for all who wait
//! ```

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use weir_core::audit::chain::{self, Head};
use weir_core::audit::{Durability, Kind, Receipt, Record};

use crate::config;

mod drain;
mod error;
mod fold;
mod intake;
mod journal;
mod lock;
mod moved;
pub mod outbox;
mod read;
mod settle;
pub mod store;
mod sync;
mod tail;

pub use error::LedgerError;
pub use intake::{Intake, Want};
pub use read::{Reading, catch_up, watch};

/// The ledger of one agent. Share it behind an `Arc`; dropping it folds what is left and stops its threads.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    /// Goes first: what it holds belongs in the journal.
    drain: Option<drain::Drain>,
    threads: Vec<JoinHandle<()>>,
    _lock: lock::Lock,
}

/// The answer to an append.
#[derive(Debug)]
pub enum Appending {
    /// As durable as it asked.
    Done(Receipt),
    /// The disk is working; the receipt comes from there.
    Waiting(Pending),
    /// Not written, and why; the act must be refused.
    Refused(String),
}

/// A strict record on its way to the disk: await it, or [`Pending::wait`] on a thread that may block.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Receipt, String>>);

/// How the ledger stands, for `weir status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    pub epoch: u64,
    /// Newest record written, and newest record in the store.
    pub seq: u64,
    pub stored_seq: u64,
    pub journal_bytes: u64,
    pub store_bytes: u64,
    pub max_bytes: u64,
    /// Records refused since the last one that could be written.
    pub refused: u64,
    pub fault: Option<String>,
}

/// What the ledger's threads share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    max_bytes: u64,
    tail: Mutex<tail::Tail>,
    wake_sync: Condvar,
    folder: OnceLock<Thread>,
    stop: AtomicBool,
    /// Newest seq in the store, and the store's bytes.
    stored: AtomicU64,
    store_bytes: AtomicU64,
    fold_fault: Mutex<Option<String>>,
}

impl Ledger {
    /// Takes the ledger over: folds what the last agent left, sets torn parts aside, and begins an epoch whose first
    /// record names the head it continues.
    ///
    /// # Errors
    /// Another agent writes it; the folder or the disk cannot be used.
    pub fn open(config: &config::Audit, node: &str) -> Result<Ledger, LedgerError> {
        if node.len() > journal::NODE_BYTES {
            return Err(LedgerError::Node(node.len()));
        }
        let dir = config.dir.clone();
        let file_fault = |source| LedgerError::File { path: config.dir.clone(), source };
        make_private(&dir).map_err(file_fault)?;
        let lock = take_over(&dir)?;
        let mut store = store::Store::open(&dir)?;
        let settled = settle::settle(&dir, &mut store, true)?;
        let epoch = (wall_ns() / 1_000).max(settled.head.epoch.saturating_add(1));
        let tail = tail::Tail::begin(dir.clone(), node.into(), epoch, settled.head, config.max_bytes)
            .map_err(file_fault)?;
        let shared = Arc::new(Shared {
            dir,
            max_bytes: config.max_bytes,
            tail: Mutex::new(tail),
            wake_sync: Condvar::new(),
            folder: OnceLock::new(),
            stop: AtomicBool::new(false),
            stored: AtomicU64::new(settled.head.seq),
            store_bytes: AtomicU64::new(store.bytes().unwrap_or(0)),
            fold_fault: Mutex::new(None),
        });
        let mut ledger = Ledger { shared, drain: None, threads: Vec::new(), _lock: lock };
        ledger.start(store, config)?;
        ledger.boot(&settled)?;
        let drain = drain::Drain::start(config.dir.clone(), node.into(), epoch, Arc::clone(&ledger.shared))
            .map_err(file_fault)?;
        ledger.drain = Some(drain);
        for path in settled.done {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LedgerError::File { path, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(ledger)
    }

    fn start(&mut self, store: store::Store, config: &config::Audit) -> Result<(), LedgerError> {
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(body)
                .map_err(|source| LedgerError::File { path: config.dir.clone(), source })
        };
        let shared = Arc::clone(&self.shared);
        self.threads.push(spawn("ledger-sync", Box::new(move || sync::run(&shared)))?);
        let fold =
            fold::Fold::new(Arc::clone(&self.shared), store, config.retention, config.clickhouse.is_some());
        let folding = spawn("ledger-fold", Box::new(move || fold.run()))?;
        let _ = self.shared.folder.set(folding.thread().clone());
        self.threads.push(folding);
        Ok(())
    }

    /// The first records of the epoch, on the disk before anything else happens.
    fn boot(&self, settled: &settle::Settled) -> Result<(), LedgerError> {
        let damage = settled.damage.iter().map(|reason| tail::ledger_row(reason.clone()));
        for mut record in std::iter::once(chain::boot(wall_ns(), &settled.head)).chain(damage) {
            record.durability = Durability::Strict;
            let written = match self.append(&record) {
                Appending::Done(_) => Ok(()),
                Appending::Waiting(pending) => pending.wait().map(|_| ()),
                Appending::Refused(reason) => Err(reason),
            };
            written.map_err(LedgerError::Refused)?;
        }
        Ok(())
    }

    /// Appends a record as durably as `record.durability` asks. The calling thread writes: about 2 µs. An outcome, which
    /// no act waits for, may lag: it is written with the next record, or by [`Ledger::flush`].
    pub fn append(&self, record: &Record) -> Appending {
        self.shared.append(record)
    }

    /// Writes what lags. What cannot be written goes on waiting, and the next verdict, which cannot be written either, is
    /// refused.
    pub fn flush(&self) {
        let _ = self.shared.flush_all();
    }

    /// A file in which `writer` leaves its records from now on; see [`Intake`].
    ///
    /// # Errors
    /// It cannot be made.
    pub fn intake(&self, writer: u64) -> std::io::Result<std::fs::File> {
        self.drain.as_ref().ok_or(std::io::ErrorKind::NotConnected)?.intake(writer)
    }

    /// The writer is gone: what its files hold is all there will be.
    pub fn close_intakes(&self, writer: u64) {
        if let Some(drain) = &self.drain {
            drain.close(writer);
        }
    }

    /// A writer says that there is something in its file.
    pub fn look(&self) {
        if let Some(drain) = &self.drain {
            drain.look();
        }
    }

    /// The newest writer that left what is no record of its own, whenever that changes.
    #[must_use]
    pub fn forgers(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.drain.as_ref().map(drain::Drain::forgers)
    }

    /// Why records of writers cannot be moved on, whenever that changes.
    #[must_use]
    pub fn faults(&self) -> Option<tokio::sync::watch::Receiver<Option<String>>> {
        self.drain.as_ref().map(drain::Drain::faults)
    }

    /// The newest record.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.shared.tail.lock().ok().map(|tail| tail.head)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &*self.shared;
        let fold_fault = shared.fold_fault.lock().ok().and_then(|fault| fault.clone());
        let tail = shared.tail.lock().ok();
        let tail = tail.as_deref();
        Status {
            epoch: tail.map_or(0, |tail| tail.head.epoch),
            seq: tail.map_or(0, |tail| tail.head.seq),
            stored_seq: shared.stored.load(Ordering::Acquire),
            journal_bytes: tail.map_or(0, tail::Tail::journal_bytes),
            store_bytes: shared.store_bytes.load(Ordering::Relaxed),
            max_bytes: shared.max_bytes,
            refused: tail.map_or(0, tail::Tail::refused),
            fault: tail.and_then(|tail| tail.fault().map(str::to_owned)).or(fold_fault),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        drop(self.drain.take());
        self.shared.stop.store(true, Ordering::Release);
        // Taking the lock first closes the gap between the sync thread's look at `stop` and its sleep.
        drop(self.shared.tail.lock());
        self.shared.wake_sync.notify_one();
        self.shared.wake_fold();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn append(&self, record: &Record) -> Appending {
        encoded(record, |raw, lags| self.append_raw(raw, lags, record.durability))
    }

    fn append_raw(&self, raw: &[u8], lags: bool, durability: Durability) -> Appending {
        let Ok(mut tail) = self.tail.lock() else {
            return Appending::Refused("the ledger failed in another thread".into());
        };
        let seq = match tail.append(raw, lags, self.store_bytes.load(Ordering::Relaxed)) {
            Ok(seq) => seq,
            Err(reason) => return Appending::Refused(reason),
        };
        let wake_fold = std::mem::take(&mut tail.fold_idle);
        let appending = match durability {
            Durability::Fast => {
                drop(tail);
                Appending::Done(Receipt::issue(seq))
            }
            Durability::Strict => {
                let (answer, pending) = oneshot::channel();
                tail.waiters.push(tail::Waiter { seq, answer });
                let wake_sync = std::mem::take(&mut tail.sync_idle);
                drop(tail);
                if wake_sync {
                    self.wake_sync.notify_one();
                }
                Appending::Waiting(Pending(pending))
            }
        };
        if wake_fold {
            self.wake_fold();
        }
        appending
    }

    fn flush_all(&self) -> Result<(), String> {
        let mut tail = self.tail.lock().map_err(|_| "the ledger failed in another thread")?;
        tail.flush().map_err(tail::unwritable)
    }

    /// Puts everything written so far on the disk.
    fn sync_all(&self) -> Result<(), String> {
        let (answer, pending) = oneshot::channel();
        {
            let mut tail = self.tail.lock().map_err(|_| "the ledger failed in another thread")?;
            let seq = tail.head.seq;
            tail.waiters.push(tail::Waiter { seq, answer });
        }
        self.wake_sync.notify_one();
        Pending(pending).wait().map(drop)
    }

    fn wake_fold(&self) {
        if let Some(thread) = self.folder.get() {
            thread.unpark();
        }
    }

    fn fold_fault(&self, fault: Option<String>) {
        if let Ok(mut known) = self.fold_fault.lock()
            && *known != fault
        {
            if let Some(fault) = &fault {
                tracing::error!("ledger: {fault}");
            }
            *known = fault;
        }
    }
}

impl Future for Pending {
    type Output = Result<Receipt, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(CLOSED.into())))
    }
}

impl Pending {
    /// Blocks the thread; not for async code.
    ///
    /// # Errors
    /// The record is not on the disk, and why.
    pub fn wait(self) -> Result<Receipt, String> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(CLOSED.into()))
    }
}

/// Hands a record's bytes to `append`, and whether they may wait for company.
fn encoded(record: &Record, append: impl FnOnce(&[u8], bool) -> Appending) -> Appending {
    RAW.with_borrow_mut(|raw| match chain::encode(record, raw) {
        Ok(()) => append(raw, record.kind == Kind::Outcome && record.durability == Durability::Fast),
        Err(fault) => Appending::Refused(fault.to_string()),
    })
}

/// Takes the lock; a reader that folds for itself holds it for moments, so the first refusals do not count.
fn take_over(dir: &Path) -> Result<lock::Lock, LedgerError> {
    for _ in 0..20 {
        match lock::Lock::take(dir) {
            Err(LedgerError::Busy { .. }) => std::thread::sleep(Duration::from_millis(50)),
            taken => return taken,
        }
    }
    lock::Lock::take(dir)
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Nanoseconds since 1970.
pub(crate) fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

thread_local! {
    /// The record being encoded: one buffer a thread, not one a record.
    static RAW: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

const CLOSED: &str = "the ledger was closed";

#[cfg(test)]
mod tests;
