//! Strict records: one thread puts everything written so far on the disk and answers all who wait for it.
//! It refuses to say yes after a failed fdatasync, even if a later one succeeds.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_core::audit::Receipt;

use super::Shared;
use super::tail::{Unsynced, Waiter};

/// Body of the thread; ends when the ledger closes and nobody waits.
pub(super) fn run(shared: &Arc<Shared>) {
    while let Some((waiters, round)) = next(shared) {
        let outcome = put(&shared.dir, &round);
        let fault = outcome.err().map(|fault| format!("audit_full: the disk refused a sync: {fault}"));
        if let Ok(mut tail) = shared.tail.lock() {
            match &fault {
                None => tail.synced(&round),
                Some(fault) => tail.distrust(fault.clone()),
            }
        }
        if fault.is_some() {
            shared.wake_fold();
        }
        for waiter in waiters {
            let answer = fault.clone().map_or_else(|| Ok(Receipt::issue(waiter.seq)), Err);
            // The session may be gone; its record stays.
            let _ = waiter.answer.send(answer);
        }
    }
}

fn next(shared: &Shared) -> Option<(Vec<Waiter>, Unsynced)> {
    let mut tail = shared.tail.lock().ok()?;
    while tail.waiters.is_empty() {
        if shared.stop.load(Ordering::Acquire) {
            return None;
        }
        tail.sync_idle = true;
        tail = shared.wake_sync.wait(tail).ok()?;
    }
    tail.sync_idle = false;
    Some((std::mem::take(&mut tail.waiters), tail.unsynced()))
}

fn put(dir: &Path, round: &Unsynced) -> io::Result<()> {
    for file in round.closed.iter().chain([&round.open]) {
        file.sync_data()?;
    }
    if round.unlisted { std::fs::File::open(dir)?.sync_all() } else { Ok(()) }
}
