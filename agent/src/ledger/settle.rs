//! After a stop of any kind: what the journal still holds goes to the store, and what is torn is set aside.
//! It refuses to drop bytes: whatever does not continue the chain is kept in a file and named in the trail.

use std::path::{Path, PathBuf};

use weir_core::audit::chain::Head;

use super::LedgerError;
use super::journal::{self, Cursor, Step};
use super::store::Store;

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
            let aside = path.with_extension(format!("torn-{}", super::wall_ns()));
            std::fs::rename(&path, &aside).map_err(file_fault)?;
            let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
            settled.damage.push(format!("{reason}; set aside in {name}"));
        } else {
            settled.damage.push(reason);
        }
    }
    Ok(settled)
}

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
