//! An intake: the file in which the relaying process leaves its records, and to which it can only append. The keeper moves
//! them into the journal, where they get their place in the chain. It refuses to say "written" before it is: `fast` is
//! in the page cache, `strict` is on the disk.
//!
//! ```text
//! file  NAME = <epoch>-<number, 10 digits>.intake     NAME.at: how many bytes of it the journal holds, u64
//!   header: as a segment's (see `journal`), the number in place of the first seq
//!   frame*: len(raw) u32 · strict u8 · CRC-32 of raw u32 · raw      integers big-endian
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use weir_core::audit::chain::{self, RECORD_BYTES};
use weir_core::audit::{Durability, Receipt, Record};

use super::tail::{LAG_BYTES, Waiter, refusals_row};
use super::{Appending, Pending, encoded};

/// The writing end. Share it behind an `Arc`; dropping it writes what lags.
#[derive(Debug)]
pub struct Intake {
    shared: Arc<Shared>,
    syncing: Option<JoinHandle<()>>,
}

/// What the writer wants of whoever gave it the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Something was written after a pause.
    Look,
    /// An empty file to go on in.
    Spare,
}

struct Shared {
    state: Mutex<State>,
    wake_sync: Condvar,
    want: Box<dyn Fn(Want) + Send + Sync>,
}

#[derive(Debug)]
struct State {
    file: Arc<File>,
    bytes: u64,
    /// The next file; it was made while there was room for it.
    spare: Option<File>,
    /// When it was asked for.
    asked: Option<Instant>,
    /// A frame was written in part, or a sync failed: nothing more goes into this file.
    is_spoilt: bool,
    /// Frames that wait for company: outcomes.
    unwritten: Vec<u8>,
    seq: u64,
    /// Why the keeper cannot move records on; acts are refused meanwhile.
    fault: Option<String>,
    refused: u64,
    wrote: Instant,
    /// Files before this one that hold records not yet known to be on the disk.
    unsynced: Vec<Arc<File>>,
    waiters: Vec<Waiter>,
    stop: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Intake {
    /// Writes to `file`, which was made by [`super::Ledger::intake`]; `want` must not block.
    ///
    /// # Errors
    /// The thread for strict records cannot be started.
    pub fn new(file: File, want: impl Fn(Want) + Send + Sync + 'static) -> io::Result<Intake> {
        let state = State {
            file: Arc::new(file),
            bytes: 0,
            spare: None,
            asked: Some(Instant::now()),
            is_spoilt: false,
            unwritten: Vec::with_capacity(LAG_BYTES),
            seq: 0,
            fault: None,
            refused: 0,
            wrote: Instant::now(),
            unsynced: Vec::new(),
            waiters: Vec::new(),
            stop: false,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), wake_sync: Condvar::new(), want: Box::new(want) });
        (shared.want)(Want::Spare);
        let of = Arc::clone(&shared);
        let syncing = std::thread::Builder::new().name("intake-sync".into()).spawn(move || sync(&of))?;
        Ok(Intake { shared, syncing: Some(syncing) })
    }

    /// The next file.
    pub fn spare(&self, file: File) {
        if let Ok(mut state) = self.shared.state.lock() {
            state.spare = Some(file);
        }
    }

    /// What keeps the keeper from moving records on, if anything does.
    pub fn fault(&self, fault: Option<String>) {
        if let Ok(mut state) = self.shared.state.lock() {
            state.fault = fault;
        }
    }

    /// As [`super::Ledger::append`].
    pub fn append(&self, record: &Record) -> Appending {
        encoded(record, |raw, lags| self.append_raw(raw, lags, record.durability))
    }

    /// As [`super::Ledger::flush`].
    pub fn flush(&self) {
        if let Ok(mut state) = self.shared.state.lock() {
            let waited = !state.unwritten.is_empty();
            if state.flush().is_ok() && waited {
                self.tell(&mut state);
            }
        }
    }

    fn append_raw(&self, raw: &[u8], lags: bool, durability: Durability) -> Appending {
        let Ok(mut state) = self.shared.state.lock() else {
            return Appending::Refused("the ledger failed in another thread".into());
        };
        if let Err(reason) = state.append(raw, lags, durability == Durability::Strict) {
            self.want_spare(&mut state);
            return Appending::Refused(reason);
        }
        let seq = state.seq;
        if !lags {
            self.tell(&mut state);
        }
        match durability {
            Durability::Fast => Appending::Done(Receipt::issue(seq)),
            Durability::Strict => {
                let (answer, pending) = oneshot::channel();
                state.waiters.push(Waiter { seq, answer });
                self.shared.wake_sync.notify_one();
                Appending::Waiting(Pending(pending))
            }
        }
    }

    /// The keeper looks often while records come, and waits to be told after a pause.
    fn tell(&self, state: &mut State) {
        let now = Instant::now();
        if now.duration_since(state.wrote) > PAUSE {
            (self.shared.want)(Want::Look);
        }
        state.wrote = now;
        self.want_spare(state);
    }

    /// Asks for the next file, now and then until there is one.
    fn want_spare(&self, state: &mut State) {
        let is_needed = state.spare.is_none() && (state.is_spoilt || state.bytes > INTAKE_BYTES / 2);
        if is_needed && state.asked.is_none_or(|asked| asked.elapsed() > PAUSE) {
            state.asked = Some(Instant::now());
            (self.shared.want)(Want::Spare);
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.flush();
        if let Ok(mut state) = self.shared.state.lock() {
            state.stop = true;
        }
        self.shared.wake_sync.notify_one();
        if let Some(thread) = self.syncing.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn append(&mut self, raw: &[u8], lags: bool, strict: bool) -> Result<(), String> {
        let written = self.write(raw, lags, strict);
        if written.is_err() {
            self.refused += 1;
        } else if self.refused > 0 {
            let mut report = Vec::new();
            if chain::encode(&refusals_row(self.refused), &mut report).is_ok()
                && self.write(&report, false, false).is_ok()
            {
                self.refused = 0;
            }
        }
        written
    }

    fn write(&mut self, raw: &[u8], lags: bool, strict: bool) -> Result<(), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let before = self.unwritten.len();
        frame(&mut self.unwritten, raw, strict);
        let length = self.unwritten.len() - before;
        if !lags || self.unwritten.len() >= LAG_BYTES {
            self.flush().map_err(|fault| {
                // Those that waited go on waiting; this one is not in the ledger.
                self.unwritten.truncate(self.unwritten.len() - length);
                format!("audit_full: the record cannot be written: {fault}")
            })?;
        }
        self.seq += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        if (self.is_spoilt || self.bytes >= INTAKE_BYTES)
            && let Some(next) = self.spare.take()
        {
            self.unsynced.push(std::mem::replace(&mut self.file, Arc::new(next)));
            (self.bytes, self.is_spoilt) = (0, false);
        }
        if self.is_spoilt {
            return Err(io::Error::other("the file is spoilt, and there is no other yet"));
        }
        let mut written = 0;
        let fault = loop {
            match (&*self.file).write(self.unwritten.get(written..).unwrap_or_default()) {
                Ok(count) => {
                    written += count;
                    if count == 0 || written == self.unwritten.len() {
                        break None;
                    }
                }
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                Err(fault) => break Some(fault),
            }
        };
        self.bytes += written as u64;
        let whole = whole_frames(&self.unwritten, written);
        self.unwritten.drain(..whole);
        self.is_spoilt = whole != written;
        fault.map_or(Ok(()), Err)
    }
}

/// Body of the thread for strict records: one fdatasync for all who wait.
fn sync(shared: &Shared) {
    loop {
        let (waiters, files) = {
            let Ok(mut state) = shared.state.lock() else { return };
            while state.waiters.is_empty() {
                if state.stop {
                    return;
                }
                let Ok(woken) = shared.wake_sync.wait(state) else { return };
                state = woken;
            }
            let mut files = std::mem::take(&mut state.unsynced);
            files.push(Arc::clone(&state.file));
            (std::mem::take(&mut state.waiters), files)
        };
        let fault = files.iter().find_map(|file| file.sync_data().err());
        let fault = fault.map(|fault| format!("audit_full: the disk refused a sync: {fault}"));
        if fault.is_some()
            && let Ok(mut state) = shared.state.lock()
        {
            // The kernel may have dropped pages that it could not write.
            state.is_spoilt = true;
        }
        for waiter in waiters {
            let answer = fault.clone().map_or_else(|| Ok(Receipt::issue(waiter.seq)), Err);
            let _ = waiter.answer.send(answer);
        }
    }
}

fn frame(frames: &mut Vec<u8>, raw: &[u8], strict: bool) {
    frames.extend_from_slice(&(raw.len() as u32).to_be_bytes());
    frames.push(u8::from(strict));
    frames.extend_from_slice(&crc32fast::hash(raw).to_be_bytes());
    frames.extend_from_slice(raw);
}

/// Bytes of the frames that lie wholly below `end`.
fn whole_frames(frames: &[u8], end: usize) -> usize {
    let mut at = 0;
    while let Some((length, _)) = frames.get(at..).and_then(<[u8]>::split_first_chunk::<4>) {
        let next = at + FRAME_HEAD + u32::from_be_bytes(*length) as usize;
        if next > end {
            break;
        }
        at = next;
    }
    at
}

/// What stands at the front of some bytes of an intake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Front<'a> {
    Frame {
        raw: &'a [u8],
        strict: bool,
    },
    /// More bytes are needed to tell.
    Short,
    /// This is no frame.
    Damaged,
}

pub(super) fn front(bytes: &[u8]) -> Front<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Front::Short };
    let length = u32::from_be_bytes(*length) as usize;
    if length > RECORD_BYTES {
        return Front::Damaged;
    }
    let Some((&strict, rest)) = rest.split_first() else { return Front::Short };
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Front::Short };
    let Some(raw) = rest.get(..length) else { return Front::Short };
    if strict > 1 || crc32fast::hash(raw) != u32::from_be_bytes(*sum) {
        return Front::Damaged;
    }
    Front::Frame { raw, strict: strict == 1 }
}

pub(super) const FRAME_HEAD: usize = 4 + 1 + 4;
/// The next file is taken beyond this, once there is one.
pub(super) const INTAKE_BYTES: u64 = 16 << 20;
/// After a pause this long the keeper is told; it goes on looking for longer than that.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
