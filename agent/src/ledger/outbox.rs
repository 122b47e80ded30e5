//! The outbox: which rows go to ClickHouse together, decided and stored before the first try.
//! It refuses to re-cut: a batch that was not confirmed is sent again with the same rows and the same token.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use weir_core::audit::chain::Head;

use super::LedgerError;
use super::store::{self, Kept, Store};

/// Rows of one batch: one block of ClickHouse (1,048,449 rows) by far, so that one token covers it whole.
pub const BATCH_ROWS: u64 = 100_000;
/// Bytes of raw records of one batch.
pub const BATCH_BYTES: u64 = 64 << 20;

/// A batch with its borders, both inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub from: u64,
    pub to: u64,
    pub token: String,
}

/// The shipper's connection to the store.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    ledger: String,
}

impl Outbox {
    /// # Errors
    /// The store cannot be opened.
    pub fn open(dir: &Path) -> Result<Outbox, LedgerError> {
        let store = Store::open(dir)?;
        let fault = |source| LedgerError::Store { path: store::path(dir), source };
        let ledger = store.ledger_id().map_err(fault)?;
        Ok(Outbox { store, ledger })
    }

    /// Opens for reading only.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn read(dir: &Path) -> Result<Outbox, LedgerError> {
        let store = Store::read(dir)?;
        let fault = |source| LedgerError::Store { path: store::path(dir), source };
        let ledger = store.ledger_id().map_err(fault)?;
        Ok(Outbox { store, ledger })
    }

    /// The batch to send: the one that is not confirmed, else a new one, stored before this returns. `None` when all
    /// rows are confirmed.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn next(&self) -> rusqlite::Result<Option<Batch>> {
        let db = self.store.connection();
        let open = db
            .prepare_cached(
                "SELECT from_seq, to_seq, token FROM batch WHERE confirmed = 0 ORDER BY from_seq LIMIT 1",
            )?
            .query_row([], |row| Ok(Batch { from: row.get(0)?, to: row.get(1)?, token: row.get(2)? }))
            .optional()?;
        if open.is_some() {
            return Ok(open);
        }
        let after = confirmed(db)?;
        let Some((from, to)) = self.border(after)? else { return Ok(None) };
        let batch = Batch { from, to, token: format!("{}:{from}-{to}", self.ledger) };
        db.execute(
            "INSERT INTO batch (from_seq, to_seq, token) VALUES (?1, ?2, ?3)",
            params![from, to, batch.token],
        )?;
        Ok(Some(batch))
    }

    /// First and last seq behind `after` that fit into one batch.
    fn border(&self, after: u64) -> rusqlite::Result<Option<(u64, u64)>> {
        let mut query = self.store.connection().prepare_cached(
            "SELECT seq, octet_length(raw) FROM record WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let mut border: Option<(u64, u64)> = None;
        let mut bytes = 0_u64;
        for row in query.query_map(params![after, BATCH_ROWS], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (seq, length): (u64, u64) = row?;
            bytes = bytes.saturating_add(length);
            if border.is_some() && bytes > BATCH_BYTES {
                break;
            }
            border = Some((border.map_or(seq, |(from, _)| from), seq));
        }
        Ok(border)
    }

    /// The rows of a batch, in order.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn rows(&self, batch: &Batch) -> rusqlite::Result<Vec<Kept>> {
        let mut rows = Vec::new();
        let mut query = self.store.connection().prepare_cached(
            "SELECT node, epoch, seq, prev_hash, hash, raw FROM record WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq",
        )?;
        for row in query.query_map(params![batch.from, batch.to], store::kept)? {
            rows.push(row?);
        }
        Ok(rows)
    }

    /// ClickHouse said yes.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn confirm(&self, batch: &Batch) -> rusqlite::Result<()> {
        let db = self.store.connection();
        db.execute("UPDATE batch SET confirmed = 1 WHERE from_seq = ?1", [batch.from])?;
        // Only the newest confirmed border matters.
        db.execute("DELETE FROM batch WHERE confirmed = 1 AND to_seq < ?1", [batch.from])?;
        Ok(())
    }

    /// The newest record that ClickHouse confirmed; `None` if it confirmed none, or retention has removed it since.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn confirmed_head(&self) -> rusqlite::Result<Option<Head>> {
        let seq = confirmed(self.store.connection())?;
        let row = self
            .store
            .connection()
            .prepare_cached("SELECT node, epoch, seq, prev_hash, hash, raw FROM record WHERE seq = ?1")?
            .query_row([seq], store::kept)
            .optional()?;
        Ok(row.map(|row| row.head()))
    }

    /// (newest seq in the store, newest seq confirmed by ClickHouse).
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn progress(&self) -> rusqlite::Result<(u64, u64)> {
        Ok((self.store.newest()?, confirmed(self.store.connection())?))
    }
}

/// The newest seq that ClickHouse has.
pub(super) fn confirmed(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT coalesce(max(to_seq), 0) FROM batch WHERE confirmed = 1", [], |row| row.get(0))
}
