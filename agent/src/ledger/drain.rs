//! Intakes → journal: one thread gives the records of the relaying process their place in the chain.
//! It refuses to skip: what is no record is set aside and named in the trail, once nobody can be writing it any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_core::audit::chain::RECORD_BYTES;
use weir_core::audit::shape::Shape;
use weir_core::audit::{Durability, Kind};

use super::Appending;
use super::intake::{FRAME_HEAD, Front, PAUSE, front};
use super::journal::{Header, read_at_most};
use super::moved::{self, EXTENSION, drained_path, set_drained};
use super::tail::ledger_row;

/// The reading end of all intakes.
#[derive(Debug)]
pub(super) struct Drain {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    node: String,
    epoch: u64,
    ledger: Arc<super::Shared>,
    open: Mutex<Vec<Open>>,
    /// Of the newest file.
    number: AtomicU64,
    thread: OnceLock<Thread>,
    stop: AtomicBool,
    /// Why records are not moved on.
    fault: watch::Sender<Option<String>>,
    /// The newest writer that left what is no record of its own; 0 for none.
    forged: watch::Sender<u64>,
}

/// One file that may still hold records, oldest first.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: Arc<File>,
    /// Holds how much of it the journal has.
    at: File,
    /// Where its first record begins.
    header: u64,
    /// Bytes that were given to the journal, and those of them that are known to be in it.
    offset: u64,
    marked: u64,
    /// A record among those in between wants to be on the disk.
    is_strict: bool,
    is_over: bool,
    writer: u64,
    /// Nobody writes to it any more.
    is_closed: bool,
    /// Since when something that is no record stands at its front.
    damaged: Option<Instant>,
}

impl Drain {
    pub(super) fn start(
        dir: PathBuf,
        node: String,
        epoch: u64,
        ledger: Arc<super::Shared>,
    ) -> io::Result<Drain> {
        let shared = Arc::new(Shared {
            dir,
            node,
            epoch,
            ledger,
            open: Mutex::default(),
            number: AtomicU64::new(0),
            thread: OnceLock::new(),
            stop: AtomicBool::new(false),
            fault: watch::Sender::new(None),
            forged: watch::Sender::new(0),
        });
        let of = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("ledger-drain".into()).spawn(move || of.run())?;
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Drain { shared, thread: Some(thread) })
    }

    /// A new file for `writer`, whose earlier ones end with its first record. Its name is on the disk.
    pub(super) fn intake(&self, writer: u64) -> io::Result<File> {
        let shared = &*self.shared;
        if shared.lock().iter().filter(|one| one.writer == writer).count() >= OPEN_EACH {
            return Err(io::Error::other("its earlier intakes are not in the journal yet"));
        }
        let (epoch, number) = (shared.epoch, shared.number.fetch_add(1, Ordering::Relaxed) + 1);
        let path = shared.dir.join(format!("{epoch}-{number:010}.{EXTENSION}"));
        let header = Header { node: shared.node.clone(), epoch, first: number, prev: [0; 32] }.encode();
        let made = || {
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all_at(&header, 0)?;
            set_drained(&path, header.len() as u64)?;
            File::open(drained_path(&path))?.sync_all()?;
            File::open(&shared.dir)?.sync_all()
        };
        made().inspect_err(|_| {
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(drained_path(&path));
        })?;
        // Whoever writes can neither read it nor change what it has written.
        let writing = File::options().append(true).open(&path)?;
        let open = Open {
            file: Arc::new(File::open(&path)?),
            at: File::options().write(true).open(drained_path(&path))?,
            path,
            header: header.len() as u64,
            offset: header.len() as u64,
            marked: header.len() as u64,
            is_strict: false,
            is_over: false,
            writer,
            is_closed: false,
            damaged: None,
        };
        shared.lock().push(open);
        Ok(writing)
    }

    /// The writer is gone: what its files hold is all there will be.
    pub(super) fn close(&self, writer: u64) {
        self.shared.lock().iter_mut().filter(|one| one.writer == writer).for_each(|one| one.is_closed = true);
        self.look();
    }

    /// Something was written.
    pub(super) fn look(&self) {
        if let Some(thread) = self.shared.thread.get() {
            thread.unpark();
        }
    }

    pub(super) fn forgers(&self) -> watch::Receiver<u64> {
        self.shared.forged.subscribe()
    }

    pub(super) fn faults(&self) -> watch::Receiver<Option<String>> {
        self.shared.fault.subscribe()
    }
}

impl Open {
    fn has_more(&self) -> bool {
        self.file.metadata().is_ok_and(|facts| facts.len() > self.offset)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.look();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut moved_at = Instant::now();
        loop {
            let stop = self.stop.load(Ordering::Acquire);
            match self.step() {
                Ok(true) => moved_at = Instant::now(),
                Ok(false) if stop => return,
                Ok(false) => {
                    self.told(None);
                    // Longer than the pause after which a writer tells, so that nothing falls between.
                    std::thread::park_timeout(if moved_at.elapsed() < 2 * PAUSE { OFTEN } else { SELDOM });
                }
                Err(fault) => {
                    self.told(Some(fault));
                    if stop {
                        return;
                    }
                    std::thread::park_timeout(RETRY);
                }
            }
        }
    }

    fn told(&self, fault: Option<String>) {
        self.fault.send_if_modified(|known| {
            let changed = *known != fault;
            if changed && let Some(fault) = &fault {
                tracing::error!("ledger: {fault}");
            }
            *known = fault;
            changed
        });
    }

    /// One look at every file. Returns whether records came.
    fn step(&self) -> Result<bool, String> {
        let count = self.lock().len();
        let (mut moved, mut fault) = (false, None);
        for at in 0..count {
            match self.one(at) {
                Ok(some) => moved |= some,
                Err(why) => fault = Some(why),
            }
        }
        self.settle()?;
        fault.map_or(Ok(moved), Err)
    }

    /// Gives the records of one file to the journal. Returns whether there were any.
    fn one(&self, at: usize) -> Result<bool, String> {
        let (file, path, mut offset, ended, damaged, writer) = {
            let open = self.lock();
            let Some(one) = open.get(at) else { return Ok(false) };
            // A writer that has begun another file has left this one.
            let left = open
                .iter()
                .skip(at + 1)
                .any(|later| later.writer == one.writer && (later.offset > later.header || later.has_more()));
            (
                Arc::clone(&one.file),
                one.path.clone(),
                one.offset,
                one.is_closed || left,
                one.damaged,
                one.writer,
            )
        };
        let batch = BUFFER
            .with_borrow_mut(|buffer| read(&file, offset, buffer))
            .map_err(|fault| format!("{}: {fault}", path.display()))?;
        let (mut is_strict, mut fault) = (false, None);
        let mut forged = false;
        for frame in &batch.frames {
            if !is_the_relays(&frame.raw) {
                forged = true;
                break;
            }
            if let Appending::Refused(why) = self.ledger.append_raw(&frame.raw, true, Durability::Fast) {
                fault = Some(why);
                break;
            }
            offset += (FRAME_HEAD + frame.raw.len()) as u64;
            is_strict |= frame.strict;
        }
        if forged {
            // Nothing after it is believed, and nobody who writes such things goes on.
            self.set_aside(&path, offset)?;
            self.forged.send_replace(writer);
            offset = file.metadata().map_or(offset, |facts| facts.len());
        }
        let is_over = batch.frames.is_empty() && ended;
        let since = damaged.unwrap_or_else(Instant::now);
        let is_torn = batch.rest > 0 && (is_over || batch.is_damaged && since.elapsed() > TORN);
        if is_torn && fault.is_none() {
            self.set_aside(&path, offset)?;
            offset += batch.rest as u64;
        }
        if let Some(one) = self.lock().get_mut(at) {
            one.offset = offset;
            one.is_strict |= is_strict;
            one.is_over = is_over && fault.is_none();
            one.damaged = (batch.is_damaged && !is_torn).then_some(since);
        }
        fault.map_or(Ok(!batch.frames.is_empty()), Err)
    }

    /// What was given to the journal is written, and then written down.
    fn settle(&self) -> Result<(), String> {
        self.ledger.flush_all()?;
        let mut open = self.lock();
        if open.iter().any(|one| one.is_strict) {
            drop(open);
            self.ledger.sync_all()?;
            open = self.lock();
            open.iter_mut().for_each(|one| one.is_strict = false);
        }
        for one in open.iter_mut().filter(|one| one.offset != one.marked) {
            let bytes = one.offset.to_be_bytes();
            one.at.write_all_at(&bytes, 0).map_err(|fault| format!("{}: {fault}", one.path.display()))?;
            one.marked = one.offset;
        }
        open.retain(|one| {
            if one.is_over {
                let _ = std::fs::remove_file(&one.path);
                let _ = std::fs::remove_file(drained_path(&one.path));
            }
            !one.is_over
        });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_aside(&self, path: &Path, offset: u64) -> Result<(), String> {
        let fault = |fault: io::Error| format!("{}: {fault}", path.display());
        let left = std::fs::metadata(path).map_err(fault)?.len().saturating_sub(offset);
        let row = ledger_row(moved::set_aside(path, left).map_err(fault)?);
        match self.ledger.append(&row) {
            Appending::Refused(why) => Err(why),
            Appending::Done(_) | Appending::Waiting(_) => Ok(()),
        }
    }
}

/// Whether these bytes are a record, and of a kind that the relaying process writes: it has no say about the agent, but
/// for its own losses.
pub(super) fn is_the_relays(raw: &[u8]) -> bool {
    Shape::of(raw).is_some_and(|shape| shape.kind != Kind::Admin || shape.is_loss)
}

/// A record as it lies in an intake.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) raw: Vec<u8>,
    pub(super) strict: bool,
}

/// Whole records from an offset on.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) frames: Vec<Frame>,
    /// Bytes behind them.
    rest: usize,
    /// What stands behind them is no record, and cannot become one.
    is_damaged: bool,
}

pub(super) fn read(file: &File, offset: u64, bytes: &mut Vec<u8>) -> io::Result<Batch> {
    if bytes.len() < BATCH_BYTES {
        bytes.resize(BATCH_BYTES, 0);
    }
    let mut got = read_at_most(file, bytes, offset)?;
    if matches!(front(bytes.get(..got).unwrap_or_default()), Front::Short) && got == bytes.len() {
        bytes.resize(RECORD_BYTES + FRAME_HEAD, 0);
        got = read_at_most(file, bytes, offset)?;
    }
    let mut batch = Batch { frames: Vec::new(), rest: 0, is_damaged: false };
    let mut rest = bytes.get(..got).unwrap_or_default();
    loop {
        match front(rest) {
            Front::Frame { raw, strict } => {
                batch.frames.push(Frame { raw: raw.to_vec(), strict });
                rest = rest.get(FRAME_HEAD + raw.len()..).unwrap_or_default();
            }
            Front::Short => break,
            Front::Damaged => {
                batch.is_damaged = batch.frames.is_empty();
                break;
            }
        }
    }
    batch.rest = rest.len();
    Ok(batch)
}

/// Intakes that one writer may have: the one it writes, the next, and some that are being moved on.
const OPEN_EACH: usize = 8;
thread_local! {
    /// One buffer for all looks.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Read at once: so many records have one write and one look at the disk in common.
const BATCH_BYTES: usize = 256 * 1024;
/// While records come.
const OFTEN: Duration = Duration::from_millis(5);
/// When none do: the writer tells.
const SELDOM: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(50);
/// A frame is written by one call; after this long half of one is damage.
const TORN: Duration = Duration::from_secs(1);
