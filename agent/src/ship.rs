//! Ledger → ClickHouse: batches whose borders and token are stored before the first try; a retry is the same batch.
//! It refuses to drop or re-cut: an error of any kind leaves the batch where it is, and is told.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use clickhouse::Client;
use tokio::sync::watch;

use crate::config;
use crate::ledger::LedgerError;
use crate::ledger::outbox::{Batch, Outbox};

pub(crate) mod client;
pub mod row;

use row::AuditRow;

/// The shipping thread; dropping it stops after the try in flight.
#[derive(Debug)]
pub struct Shipper {
    status: Arc<Mutex<Status>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// How far ClickHouse is, for `weir status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Status {
    /// Newest seq that ClickHouse confirmed.
    pub shipped_seq: u64,
    /// Rows of the store that it has not confirmed.
    pub lag_rows: u64,
    pub last_error: Option<String>,
    /// The error needs a person (credentials, missing table, rights); it is tried again all the same.
    pub permanent: bool,
}

/// Shipping cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error("audit.clickhouse.database {0:?}: use letters, digits and '_'")]
    Database(String),
    #[error("audit.clickhouse.password_file {path}: {source}")]
    Password { path: PathBuf, source: std::io::Error },
    #[error("the host's certificate authorities cannot be read: {0}")]
    Roots(String),
    #[error("the shipping thread cannot start: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Shipper {
    /// Starts shipping from the ledger in `dir`, which must be open in this process.
    ///
    /// # Errors
    /// A configuration that cannot work; ClickHouse being away is none.
    pub fn start(dir: &std::path::Path, config: &config::ClickHouse) -> Result<Shipper, ShipError> {
        let (stop, stopped) = watch::channel(false);
        let status = Arc::new(Mutex::new(Status::default()));
        let lane = Lane {
            outbox: Outbox::open(dir)?,
            server: client::connect(config, false)?,
            client: client::connect(config, true)?,
            database: config.database.clone(),
            status: Arc::clone(&status),
            stopped,
            doubted: false,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ShipError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("ship".into())
            .spawn(move || runtime.block_on(lane.run()))
            .map_err(ShipError::Thread)?;
        Ok(Shipper { status, stop, thread: Some(thread) })
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().map(|status| status.clone()).unwrap_or_default()
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Lane {
    outbox: Outbox,
    /// Without a database, to make it.
    server: Client,
    client: Client,
    database: String,
    status: Arc<Mutex<Status>>,
    stopped: watch::Receiver<bool>,
    /// The last try failed in a way that waiting does not mend.
    doubted: bool,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("ClickHouse: {0}")]
    Server(#[from] clickhouse::error::Error),
    #[error("the store: {0}")]
    Store(#[from] rusqlite::Error),
    #[error("row {0} of the store holds no record; see `weir audit verify`")]
    Row(u64),
    #[error("rows {0} to {1} of the store are not all there; see `weir audit verify`")]
    Missing(u64, u64),
}

impl Lane {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut made = false;
        while !*self.stopped.borrow() {
            let shipped = match made {
                true => self.ship().await,
                false => self.make().await.map(|()| {
                    made = true;
                    true
                }),
            };
            self.tell(&shipped);
            let pause = match shipped {
                Ok(true) => Duration::ZERO,
                Ok(false) => EVERY,
                Err(fault) => {
                    tracing::warn!("ship: {fault}");
                    // A table that was dropped is made again.
                    made = !fault.permanent();
                    wait = (wait * 2).min(LONGEST_WAIT);
                    wait
                }
            };
            if matches!(pause, Duration::ZERO | EVERY) {
                wait = FIRST_WAIT;
            }
            let _ = tokio::time::timeout(pause, self.stopped.changed()).await;
        }
    }

    /// Makes database, tables and views where the user may; where not, they are there or the insert says so.
    async fn make(&self) -> Result<(), Fault> {
        let database = format!("CREATE DATABASE IF NOT EXISTS `{}`", self.database);
        let statements = SCHEMA.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
        let mut done = self.server.query(&database).execute().await;
        for statement in statements {
            match done {
                Err(fault) if denied(&fault) => return Ok(()),
                Err(fault) => return Err(fault.into()),
                Ok(()) => done = self.client.query_raw(statement).execute().await,
            }
        }
        match done {
            Err(fault) if !denied(&fault) => Err(fault.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Sends one batch. `false`: nothing to send.
    async fn ship(&self) -> Result<bool, Fault> {
        let Some(batch) = self.outbox.next()? else { return Ok(false) };
        self.insert(&batch).await?;
        self.outbox.confirm(&batch)?;
        // Below this the rows of a second wait for each other.
        Ok(batch.to - batch.from >= SMALL_BATCH)
    }

    async fn insert(&self, batch: &Batch) -> Result<(), Fault> {
        let rows = self.outbox.rows(batch)?;
        if rows.len() as u64 != batch.to - batch.from + 1 {
            return Err(Fault::Missing(batch.from, batch.to));
        }
        let mut insert = self
            .client
            .insert::<AuditRow>("audit")
            .await?
            // Servers since 26.2 insert asynchronously unless told not to; "yes" must mean "stored".
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", &batch.token)
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
            .with_timeouts(Some(SEND), Some(FINISH));
        for row in rows {
            let seq = row.seq;
            insert.write(&AuditRow::of(row).map_err(|_| Fault::Row(seq))?).await?;
        }
        Ok(insert.end().await?)
    }

    /// A server that dies in the middle of an answer may look as if it did not know the table; only what says so twice
    /// running needs a person.
    fn tell(&mut self, shipped: &Result<bool, Fault>) {
        let progress = self.outbox.progress();
        let Ok(mut status) = self.status.lock() else { return };
        if let Ok((newest, confirmed)) = progress {
            status.shipped_seq = confirmed;
            status.lag_rows = newest.saturating_sub(confirmed);
        }
        status.last_error = shipped.as_ref().err().map(Fault::to_string);
        let permanent = shipped.as_ref().err().is_some_and(Fault::permanent);
        let again = std::mem::replace(&mut self.doubted, permanent);
        status.permanent = permanent && again;
    }
}

impl Fault {
    fn permanent(&self) -> bool {
        match self {
            Fault::Server(fault) => client::permanent(fault),
            Fault::Store(_) => false,
            Fault::Row(_) | Fault::Missing(_, _) => true,
        }
    }
}

/// The user may not make things (ClickHouse code 497).
fn denied(fault: &clickhouse::error::Error) -> bool {
    fault.to_string().contains("Code: 497")
}

const SCHEMA: &str = include_str!("ship/schema.sql");
/// Rows wait at most this long for company.
const EVERY: Duration = Duration::from_secs(1);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A larger batch means that the shipper lags: the next one follows at once.
const SMALL_BATCH: u64 = 10_000;
/// One write to the socket, and the server's answer to a whole batch.
const SEND: Duration = Duration::from_secs(30);
const FINISH: Duration = Duration::from_secs(120);
