//! The embedded store: SQLite holding every record that left the journal, readable by any `sqlite3`.
//! It refuses to compute what it keeps: columns are views into the bytes that were hashed.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use weir_core::audit::chain::{self, Head};
use weir_core::audit::verify::Entry;

use super::LedgerError;

/// Path of the store below the ledger's folder.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join("audit.sqlite")
}

/// A connection to the store. One thread folds into it, one ships from it; readers open their own.
#[derive(Debug)]
pub struct Store {
    db: Connection,
}

/// A row of the chain as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub node: String,
    pub epoch: u64,
    pub seq: u64,
    pub prev_hash: String,
    pub hash: String,
    pub raw: String,
}

impl Kept {
    /// The same row for the checker. A hash that is no hash becomes zeros, which no chain continues.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            node: &self.node,
            epoch: self.epoch,
            seq: self.seq,
            prev: chain::digest(&self.prev_hash).unwrap_or_default(),
            hash: chain::digest(&self.hash).unwrap_or_default(),
            raw: self.raw.as_bytes(),
        }
    }

    #[must_use]
    pub fn head(&self) -> Head {
        let entry = self.entry();
        Head { epoch: entry.epoch, seq: entry.seq, hash: entry.hash }
    }
}

impl Store {
    /// Opens for writing, and makes tables and views where they are missing.
    ///
    /// # Errors
    /// The file cannot be made, or is no store.
    pub fn open(dir: &Path) -> Result<Store, LedgerError> {
        let fault = |source| LedgerError::Store { path: path(dir), source };
        let db = Connection::open(path(dir)).map_err(fault)?;
        prepare(&db).map_err(fault)?;
        Ok(Store { db })
    }

    /// Opens for reading only; the agent may go on writing meanwhile.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn read(dir: &Path) -> Result<Store, LedgerError> {
        let fault = |source| LedgerError::Store { path: path(dir), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path(dir), flags).map_err(fault)?;
        db.busy_timeout(BUSY).map_err(fault)?;
        Ok(Store { db })
    }

    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.db
    }

    /// For authorisers and progress limits of a reader.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.db
    }

    /// The newest row; without rows what retention removed last; else genesis.
    pub(super) fn head(&self) -> rusqlite::Result<Head> {
        let newest = self
            .db
            .prepare_cached(&format!("{KEPT} ORDER BY seq DESC LIMIT 1"))?
            .query_row([], kept)
            .optional()?;
        newest.map_or_else(|| self.anchor(), |row| Ok(row.head()))
    }

    /// The newest record that retention removed; genesis if it removed none.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn anchor(&self) -> rusqlite::Result<Head> {
        let text: Option<String> = self
            .db
            .query_row("SELECT value FROM meta WHERE name = 'anchor'", [], |row| row.get(0))
            .optional()?;
        let Some(text) = text else { return Ok(Head::GENESIS) };
        let mut words = text.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (epoch, seq) = (number(), number());
        match (epoch, seq, words.next().and_then(chain::digest)) {
            (Some(epoch), Some(seq), Some(hash)) => Ok(Head { epoch, seq, hash }),
            (_, _, _) => Err(rusqlite::Error::InvalidQuery),
        }
    }

    /// Unique to this ledger: tokens of batches begin with it.
    pub(super) fn ledger_id(&self) -> rusqlite::Result<String> {
        self.db.query_row("SELECT value FROM meta WHERE name = 'ledger'", [], |row| row.get(0))
    }

    /// Begins a group of inserts; dropped without `commit` it leaves nothing.
    pub(super) fn begin(&mut self) -> rusqlite::Result<Group<'_>> {
        Ok(Group { transaction: self.db.transaction()? })
    }

    /// Rows in order from `after` on, exclusive.
    ///
    /// # Errors
    /// Those of SQLite and of `each`.
    pub fn walk<E: From<rusqlite::Error>>(
        &self,
        after: u64,
        mut each: impl FnMut(Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut query = self.db.prepare_cached(&format!("{KEPT} WHERE seq > ?1 ORDER BY seq"))?;
        for row in query.query_map([after], kept)? {
            each(row?)?;
        }
        Ok(())
    }

    /// The newest seq; 0 for an empty store.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn newest(&self) -> rusqlite::Result<u64> {
        self.head().map(|head| head.seq)
    }

    /// Hashes of what the newest `count` records say.
    pub(super) fn newest_raws(&self, count: u64, hashes: &RandomState) -> rusqlite::Result<HashSet<u64>> {
        let mut query = self.db.prepare_cached("SELECT raw FROM record ORDER BY seq DESC LIMIT ?1")?;
        let raws = query.query_map([count], |row| row.get::<_, String>(0))?;
        raws.map(|raw| raw.map(|raw| hashes.hash_one(raw.into_bytes()))).collect()
    }

    /// Bytes of the file, free pages included.
    pub(super) fn bytes(&self) -> rusqlite::Result<u64> {
        let pages: u64 = self.db.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let size: u64 = self.db.pragma_query_value(None, "page_size", |row| row.get(0))?;
        Ok(pages.saturating_mul(size))
    }

    /// Deletes at most `most` of the oldest rows that are older than `cutoff` (ns since 1970) and not above `upto`;
    /// keeps the newest of them as the anchor. The newest row of all stays. Returns how many went.
    pub(super) fn expire(&mut self, cutoff: u64, upto: u64, most: u64) -> rusqlite::Result<u64> {
        let newest = self.newest()?;
        let transaction = self.db.transaction()?;
        let mut last: Option<Head> = None;
        let mut gone = 0;
        {
            let mut query =
                transaction.prepare_cached(&format!("{KEPT} WHERE seq <= ?1 ORDER BY seq LIMIT ?2"))?;
            for row in query.query_map(params![upto.min(newest.saturating_sub(1)), most], kept)? {
                let row = row?;
                if written(&row.raw) >= cutoff {
                    break;
                }
                last = Some(row.head());
                gone += 1;
            }
        }
        if let Some(anchor) = last {
            transaction.execute("DELETE FROM record WHERE seq <= ?1", [anchor.seq])?;
            let text = format!("{} {} {}", anchor.epoch, anchor.seq, chain::hex(&anchor.hash));
            transaction.execute("INSERT OR REPLACE INTO meta VALUES ('anchor', ?1)", [text])?;
            transaction.commit()?;
            self.db.execute_batch("PRAGMA incremental_vacuum(4096)")?;
        }
        Ok(gone)
    }
}

/// Inserts that become durable together.
pub(super) struct Group<'a> {
    transaction: Transaction<'a>,
}

impl Group<'_> {
    pub(super) fn insert(&self, entry: &Entry<'_>) -> rusqlite::Result<()> {
        let raw = std::str::from_utf8(entry.raw).map_err(|fault| rusqlite::Error::Utf8Error(5, fault))?;
        self.transaction
            .prepare_cached(
                "INSERT INTO record (seq, epoch, node, prev_hash, hash, raw) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                entry.seq,
                entry.epoch,
                entry.node,
                chain::hex(&entry.prev),
                chain::hex(&entry.hash),
                raw
            ])
            .map(|_| ())
    }

    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.transaction.commit()
    }
}

/// Whether `audit` is computed from the records as this build defines it. A store whose table or view was redefined
/// may show other columns than those that were hashed.
///
/// # Errors
/// Those of SQLite.
pub fn shows_records(db: &Connection) -> rusqlite::Result<bool> {
    let mut query = db.prepare("SELECT sql FROM sqlite_master WHERE name = ?1")?;
    for name in ["record", "audit"] {
        let sql: Option<String> = query.query_row([name], |row| row.get(0)).optional()?;
        // SQLite keeps a statement as it was written, without IF NOT EXISTS.
        let body = sql.as_deref().and_then(|sql| sql.split_once(name)).map(|(_, body)| body);
        if !body.is_some_and(|body| body.len() > 40 && SCHEMA.contains(&format!("EXISTS {name}{body};"))) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    // Before the first table, or it has no effect.
    db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216;")?;
    db.execute_batch(&format!("BEGIN IMMEDIATE; {}{SCHEMA}; COMMIT;", forget_views(db)?))?;
    db.execute(
        "INSERT OR IGNORE INTO meta VALUES ('ledger', lower(hex(randomblob(16)))), ('version', '1')",
        [],
    )?;
    Ok(())
}

/// Drops the views that another version defined otherwise: they hold no data, and are made anew.
fn forget_views(db: &Connection) -> rusqlite::Result<String> {
    let mut query = db.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'view'")?;
    let views = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut drops = String::new();
    for view in views {
        let (name, sql) = view?;
        let ours = SCHEMA.contains(&format!("CREATE VIEW IF NOT EXISTS {name} AS"));
        let same =
            sql.split_once(&name).is_some_and(|(_, body)| SCHEMA.contains(&format!("EXISTS {name}{body};")));
        if ours && !same {
            drops.push_str(&format!("DROP VIEW IF EXISTS {name}; "));
        }
    }
    Ok(drops)
}

pub(super) fn kept(row: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept {
        node: row.get(0)?,
        epoch: row.get(1)?,
        seq: row.get(2)?,
        prev_hash: row.get(3)?,
        hash: row.get(4)?,
        raw: row.get(5)?,
    })
}

/// `ts` of an encoded record; unreadable ones count as new, so that retention never removes what it cannot read.
fn written(raw: &str) -> u64 {
    #[derive(serde::Deserialize)]
    struct Stamp {
        ts: u64,
    }
    serde_json::from_str::<Stamp>(raw).map_or(u64::MAX, |stamp| stamp.ts)
}

const SCHEMA: &str = include_str!("schema.sql");
const KEPT: &str = "SELECT node, epoch, seq, prev_hash, hash, raw FROM record";
/// Writers wait for each other this long; each holds the lock for milliseconds.
const BUSY: Duration = Duration::from_secs(10);
