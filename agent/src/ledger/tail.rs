//! The writing end of the journal: gives a record its seq and hash and puts it behind the last one.
//! It refuses when the bytes cannot be written, and tries again with the next record: room heals it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::{collections::VecDeque, fmt};

use tokio::sync::oneshot;
use weir_core::audit::chain::{self, Head};
use weir_core::audit::{Decision, Kind, Receipt, Record, verify};

use super::journal::{self, FRAME_HEAD, Header, SEGMENT_BYTES};

/// What appenders share, under one short lock.
#[derive(Debug)]
pub(super) struct Tail {
    dir: PathBuf,
    node: String,
    epoch: u64,
    segment_bytes: u64,
    max_bytes: u64,
    pub(super) head: Head,
    file: Arc<File>,
    /// End of the newest whole frame of the newest segment.
    offset: u64,
    /// Segments not yet folded, oldest first; the last is being written.
    segments: VecDeque<Segment>,
    /// Older segments that hold records not yet known to be on the disk.
    unsynced: Vec<Arc<File>>,
    /// A segment's name is not yet known to be on the disk.
    unlisted: bool,
    pub(super) waiters: Vec<Waiter>,
    /// Why nothing may be appended until the fold has caught up.
    fault: Option<String>,
    /// Records refused since the last one that was written.
    refused: u64,
    pub(super) sync_idle: bool,
    pub(super) fold_idle: bool,
    /// Frames behind `offset` that wait for company: outcomes.
    unwritten: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
}

/// A strict record that waits for the disk.
pub(super) struct Waiter {
    pub(super) seq: u64,
    pub(super) answer: oneshot::Sender<Result<Receipt, String>>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("seq", &self.seq).finish()
    }
}

/// What the fold may read now.
#[derive(Debug)]
pub(super) struct Readable {
    pub(super) path: PathBuf,
    /// End of the whole frames.
    pub(super) limit: u64,
    /// Records are still being added to it.
    pub(super) open: bool,
}

/// What one fdatasync round must cover.
#[derive(Debug)]
pub(super) struct Unsynced {
    /// Nothing is added to these any more.
    pub(super) closed: Vec<Arc<File>>,
    pub(super) open: Arc<File>,
    pub(super) unlisted: bool,
}

impl Tail {
    /// Begins an epoch behind `head` with a segment of its own.
    pub(super) fn begin(
        dir: PathBuf,
        node: String,
        epoch: u64,
        head: Head,
        max_bytes: u64,
    ) -> io::Result<Tail> {
        let header = Header { node: node.clone(), epoch, first: head.seq + 1, prev: head.hash };
        let (file, path, offset) = journal::create(&dir, &header)?;
        let file = Arc::new(file);
        Ok(Tail {
            dir,
            node,
            epoch,
            segment_bytes: SEGMENT_BYTES.min(max_bytes / 4),
            max_bytes,
            head,
            file: Arc::clone(&file),
            offset,
            segments: VecDeque::from([Segment { path, file, bytes: offset }]),
            unsynced: Vec::new(),
            unlisted: true,
            waiters: Vec::new(),
            fault: None,
            refused: 0,
            sync_idle: false,
            fold_idle: false,
            unwritten: Vec::with_capacity(LAG_BYTES),
        })
    }

    /// Appends one encoded record; `stored` are the bytes that the store takes. With `lags` it may wait for the next
    /// record, or for [`Tail::flush`]. Returns its seq.
    pub(super) fn append(&mut self, raw: &[u8], lags: bool, stored: u64) -> Result<u64, String> {
        let written = self.write(raw, lags, stored);
        if written.is_err() {
            self.refused += 1;
        } else if self.refused > 0 {
            self.report(stored);
        }
        written
    }

    fn write(&mut self, raw: &[u8], lags: bool, stored: u64) -> Result<u64, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let length = (FRAME_HEAD + raw.len()) as u64;
        let waiting = self.unwritten.len();
        let used = self.journal_bytes().saturating_add(stored).saturating_add(waiting as u64);
        if used.saturating_add(length) > self.max_bytes {
            return Err(format!("audit_full: the ledger takes {used} of {} bytes", self.max_bytes));
        }
        let end = self.offset.saturating_add(waiting as u64);
        if end.saturating_add(length) > self.segment_bytes && end > SMALLEST_SEGMENT {
            self.flush().map_err(unwritable)?;
            self.roll().map_err(|fault| format!("audit_full: no new journal segment: {fault}"))?;
        }
        let waiting = self.unwritten.len();
        let seq = self.head.seq + 1;
        let hash = chain::link(&self.node, self.epoch, seq, &self.head.hash, raw);
        journal::frame(&mut self.unwritten, seq, &hash, raw);
        if !lags || self.unwritten.len() >= LAG_BYTES {
            self.flush().map_err(|fault| {
                // Those that waited go on waiting; this one is not in the ledger.
                self.unwritten.truncate(waiting);
                unwritable(fault)
            })?;
        }
        self.head = Head { epoch: self.epoch, seq, hash };
        Ok(seq)
    }

    /// Writes the records that wait.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        if let Err(fault) = self.file.write_all_at(&self.unwritten, self.offset) {
            // What was half written lies behind the end: the next try overwrites it, and a reader takes it for torn.
            let _ = self.file.set_len(self.offset);
            return Err(fault);
        }
        self.offset += self.unwritten.len() as u64;
        self.unwritten.clear();
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes = self.offset;
        }
        Ok(())
    }

    /// Records that acts were refused meanwhile. If this cannot be written either, the count stays for the next time.
    fn report(&mut self, stored: u64) {
        let mut raw = Vec::new();
        if chain::encode(&refusals_row(self.refused), &mut raw).is_ok()
            && self.write(&raw, false, stored).is_ok()
        {
            self.refused = 0;
        }
    }

    /// Goes on in a new segment.
    fn roll(&mut self) -> io::Result<()> {
        let header = Header {
            node: self.node.clone(),
            epoch: self.epoch,
            first: self.head.seq + 1,
            prev: self.head.hash,
        };
        let (file, path, offset) = journal::create(&self.dir, &header)?;
        let file = Arc::new(file);
        self.unsynced.push(std::mem::replace(&mut self.file, Arc::clone(&file)));
        self.unlisted = true;
        self.offset = offset;
        self.segments.push_back(Segment { path, file, bytes: offset });
        Ok(())
    }

    pub(super) fn journal_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The oldest segment that is not folded.
    pub(super) fn readable(&self) -> Option<Readable> {
        let segment = self.segments.front()?;
        Some(Readable { path: segment.path.clone(), limit: segment.bytes, open: self.segments.len() == 1 })
    }

    /// The oldest segment is in the store: forget it. The one being written stays, as the witness of the store's end.
    pub(super) fn folded(&mut self) -> Option<PathBuf> {
        if self.segments.len() < 2 {
            return None;
        }
        let segment = self.segments.pop_front()?;
        // The store has it on the disk: no strict record needs to wait for it any more.
        self.unsynced.retain(|file| !Arc::ptr_eq(file, &segment.file));
        Some(segment.path)
    }

    pub(super) fn unsynced(&self) -> Unsynced {
        Unsynced { closed: self.unsynced.clone(), open: Arc::clone(&self.file), unlisted: self.unlisted }
    }

    /// A round of fdatasync went well.
    pub(super) fn synced(&mut self, round: &Unsynced) {
        self.unsynced.retain(|file| !round.closed.iter().any(|done| Arc::ptr_eq(file, done)));
        // A segment made during the round is not covered by it.
        self.unlisted &= !(round.unlisted && Arc::ptr_eq(&self.file, &round.open));
    }

    /// A round failed: the kernel may have dropped pages it could not write, so nothing is trusted to this segment
    /// until all of it is in the store.
    pub(super) fn distrust(&mut self, fault: String) {
        self.fault = Some(fault);
    }

    /// Everything written is in the store (which syncs itself): a fresh segment ends the fault.
    pub(super) fn heal(&mut self, stored_seq: u64) {
        if self.fault.is_some() && self.head.seq == stored_seq && self.roll().is_ok() {
            self.unsynced.clear();
            self.fault = None;
        }
    }
}

pub(super) fn unwritable(fault: io::Error) -> String {
    format!("audit_full: the journal cannot be written: {fault}")
}

/// The report on records that could not be written.
pub(super) fn refusals_row(refused: u64) -> Record {
    ledger_row(format!("{refused} records could not be written; their acts were refused"))
}

/// The ledger's report on itself.
pub(super) fn ledger_row(reason: String) -> Record {
    Record {
        ts: super::wall_ns(),
        kind: Kind::Admin,
        effects: vec![verify::LEDGER.into()],
        decision: Decision::Failed,
        reason,
        ..Record::default()
    }
}

/// Records that wait are written at the latest when they take this much.
pub(super) const LAG_BYTES: usize = 32 * 1024;
/// A segment takes at least this much, however small the ledger may be.
const SMALLEST_SEGMENT: u64 = 64 * 1024;
