//! `weir audit query SQL`: read-only SQL over everything written so far, in the embedded store or in ClickHouse.
//! It refuses statements that write, run beyond their time, or reach outside the store.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use serde_json::Value;

use super::sheet::Sheet;
use super::{Common, PATIENCE};
use crate::config::Config;
use crate::ledger::{self, store::Store};
use crate::ship::client;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    sql: String,
    /// Ask the ClickHouse server of the configuration instead of the embedded store.
    #[arg(long)]
    clickhouse: bool,
    /// Most rows to print.
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// Seconds a query may run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(super) fn run(common: &Common, args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let more = if args.clickhouse {
        server(&config, args, common.json)?
    } else {
        embedded(&config, args, common.json)?
    };
    if more {
        eprintln!("weir: cut after {} rows; --limit prints more", args.limit);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether there were more rows than the limit.
fn embedded(config: &Config, args: &Args, json: bool) -> anyhow::Result<bool> {
    ledger::catch_up(&config.audit.dir, PATIENCE)?;
    let mut store = Store::read(&config.audit.dir)?;
    let db = store.connection_mut();
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    db.authorizer(Some(readable))?;
    db.progress_handler(10_000, Some(move || Instant::now() > deadline))?;
    let mut query = db.prepare(&args.sql).context("the query was refused")?;
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let mut sheet = Sheet::new(names.clone(), json);
    let mut rows = query.query([])?;
    let mut printed = 0;
    while let Some(row) = rows.next().context("the query was stopped")? {
        if printed == args.limit {
            sheet.finish()?;
            return Ok(true);
        }
        let values: Result<Vec<Value>, _> = names
            .iter()
            .enumerate()
            .map(|(index, name)| row.get_ref(index).map(|value| json_value(name, value)))
            .collect();
        sheet.row(&values?)?;
        printed += 1;
    }
    sheet.finish()?;
    Ok(false)
}

/// Reading tables and calling functions; everything else is denied. SQLite's own list of actions grows, so what is not
/// named here is denied.
fn readable(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if function_name != "load_extension" => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

/// Lists and maps are JSON text in the store; they print as what they are, as ClickHouse prints them.
fn json_value(name: &str, value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Blob(bytes) => weir_core::audit::chain::hex(bytes).into(),
        ValueRef::Text(bytes) => {
            let nested = NESTED.contains(&name).then(|| serde_json::from_slice(bytes).ok()).flatten();
            nested.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned().into())
        }
    }
}

fn server(config: &Config, args: &Args, json: bool) -> anyhow::Result<bool> {
    let settings = config.audit.clickhouse.as_ref().context("audit.clickhouse is not configured")?;
    let client = client::connect(settings, true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cursor = client
            .query_raw(&args.sql)
            .with_setting("readonly", "2")
            .with_setting("max_execution_time", args.seconds.to_string())
            .with_setting("output_format_json_quote_64bit_integers", "0")
            .fetch_bytes("JSONCompactEachRowWithNames")?;
        let mut lines = Lines { cursor, pending: Vec::new() };
        let Some(names) = lines.next().await? else { return Ok(false) };
        let mut sheet = Sheet::new(serde_json::from_slice(&names)?, json);
        let mut printed = 0;
        while let Some(line) = lines.next().await? {
            if printed == args.limit {
                sheet.finish()?;
                return Ok(true);
            }
            sheet.row(&serde_json::from_slice::<Vec<Value>>(&line)?)?;
            printed += 1;
        }
        sheet.finish()?;
        Ok(false)
    })
}

/// The answer of ClickHouse, line by line.
struct Lines {
    cursor: clickhouse::query::BytesCursor,
    pending: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.pending, rest)));
            }
            match self.cursor.next().await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None if self.pending.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.pending))),
            }
        }
    }
}

const NESTED: [&str; 5] = ["groups", "effects", "relations", "columns", "masked"];
