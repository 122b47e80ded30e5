//! After a stop of any kind: what the journal still holds goes to the store, and what is torn is set aside.
//! It refuses to drop bytes: whatever does not continue the chain is kept in a file and named in the trail.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};

use weir_core::audit::chain::{self, Head};
use weir_core::audit::verify::Entry;

use super::LedgerError;
use super::intake::FRAME_HEAD;
use super::journal::{self, Cursor, Step};
use super::store::Store;
use super::{drain, moved};

/// Where the next epoch begins.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) head: Head,
    /// One sentence for each part that was set aside.
    pub(super) damage: Vec<String>,
    /// Segments that are wholly in the store now.
    pub(super) done: Vec<PathBuf>,
}

/// Folds what the journal holds. With `cut` (an agent starts) torn parts are set aside; without (somebody reads while
/// no agent is alive) they stay as they are. The caller holds the lock.
pub(super) fn settle(dir: &Path, store: &mut Store, cut: bool) -> Result<Settled, LedgerError> {
    let store_path = super::store::path(dir);
    let fault = |source| LedgerError::Store { path: store_path.clone(), source };
    let head = store.head().map_err(fault)?;
    let mut settled = Settled { head, damage: Vec::new(), done: Vec::new() };
    let paths = journal::segments(dir).map_err(|source| LedgerError::File { path: dir.into(), source })?;
    for path in paths {
        let file_fault = |source| LedgerError::File { path: path.clone(), source };
        let sound = if settled.damage.is_empty() {
            fold(&path, store, &mut settled.head)?
        } else {
            Sound::Upto(0, "it follows a damaged part")
        };
        let Sound::Upto(offset, why) = sound else {
            settled.done.push(path);
            continue;
        };
        let length = std::fs::metadata(&path).map_err(file_fault)?.len();
        let reason =
            format!("{} bytes of the journal after seq {}: {why}", length - offset, settled.head.seq);
        if cut {
            let name = journal::set_aside(&path, |from, to| std::fs::rename(from, to)).map_err(file_fault)?;
            settled.damage.push(format!("{reason}; set aside in {name}"));
        } else {
            settled.damage.push(reason);
        }
    }
    for path in moved::intakes(dir).map_err(|source| LedgerError::File { path: dir.into(), source })? {
        intake(&path, store, &mut settled, cut)?;
    }
    Ok(settled)
}

/// Gives the store what no agent has moved on from an intake. A record that the agent was moving when it died may be in
/// both: it is taken once.
fn intake(path: &Path, store: &mut Store, settled: &mut Settled, cut: bool) -> Result<(), LedgerError> {
    let file_fault = |source| LedgerError::File { path: path.into(), source };
    let store_fault = |source| LedgerError::Store { path: path.with_file_name("audit.sqlite"), source };
    let file = std::fs::File::open(path).map_err(file_fault)?;
    let header = journal::header(&file).map_err(file_fault)?;
    let mut offset = match (moved::drained(path), &header) {
        // After a power cut it may say less than was so: what was moved since is known by its bytes.
        (moved, Some((_, length))) => moved.unwrap_or(0).max(*length as u64),
        (_, None) => 0,
    };
    if let Some((header, _)) = &header {
        let hashes = RandomState::new();
        let known = store.newest_raws(MAYBE_TWICE, &hashes).map_err(store_fault)?;
        let (mut sound, mut buffer) = (true, Vec::new());
        while sound {
            let batch = drain::read(&file, offset, &mut buffer).map_err(file_fault)?;
            if batch.frames.is_empty() {
                break;
            }
            let group = store.begin().map_err(store_fault)?;
            for frame in &batch.frames {
                if !drain::is_the_relays(&frame.raw) {
                    sound = false;
                    break;
                }
                offset += (FRAME_HEAD + frame.raw.len()) as u64;
                if known.contains(&hashes.hash_one(&frame.raw)) {
                    continue;
                }
                let head = &mut settled.head;
                let (epoch, seq, prev) = (header.epoch.max(head.epoch), head.seq + 1, head.hash);
                let hash = chain::link(&header.node, epoch, seq, &prev, &frame.raw);
                let entry = Entry { node: &header.node, epoch, seq, prev, hash, raw: &frame.raw };
                group.insert(&entry).map_err(store_fault)?;
                *head = Head { epoch, seq, hash };
            }
            group.commit().map_err(store_fault)?;
            moved::set_drained(path, offset).map_err(file_fault)?;
        }
    }
    let left = file.metadata().map_err(file_fault)?.len().saturating_sub(offset);
    if left > 0 && cut {
        settled.damage.push(moved::set_aside(path, left).map_err(file_fault)?);
    }
    settled.done.push(path.into());
    settled.done.push(moved::drained_path(path));
    Ok(())
}

/// A record that was given to the journal and not written down as such is among so many of the newest: more than an
/// intake holds.
const MAYBE_TWICE: u64 = 65_536;

enum Sound {
    Whole,
    /// Good up to this offset, and why not beyond.
    Upto(u64, &'static str),
}

/// Folds one segment as far as it continues `head`.
fn fold(path: &Path, store: &mut Store, head: &mut Head) -> Result<Sound, LedgerError> {
    let file_fault = |source| LedgerError::File { path: path.into(), source };
    let store_fault = |source| LedgerError::Store { path: path.with_file_name("audit.sqlite"), source };
    let Some(mut cursor) = Cursor::open(path).map_err(file_fault)? else {
        return Ok(Sound::Upto(0, "the segment's header is torn"));
    };
    let limit = cursor.length().map_err(file_fault)?;
    if cursor.header.first > head.seq.saturating_add(1) {
        return Ok(Sound::Upto(0, "records before it are missing"));
    }
    let group = store.begin().map_err(store_fault)?;
    let sound = loop {
        let before = (cursor.head, cursor.offset);
        if before.0.seq == head.seq && before.0.hash != head.hash {
            break Sound::Upto(before.1, "it does not continue the store");
        }
        match cursor.step(limit).map_err(file_fault)? {
            Step::Entry(entry) if entry.seq <= head.seq => {}
            Step::Entry(entry) => {
                group.insert(&entry).map_err(store_fault)?;
                *head = Head { epoch: entry.epoch, seq: entry.seq, hash: entry.hash };
            }
            Step::End => break Sound::Whole,
            Step::Torn => break Sound::Upto(before.1, "torn, or altered"),
        }
    };
    group.commit().map_err(store_fault)?;
    Ok(sound)
}
