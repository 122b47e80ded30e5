//! `weir audit tail`: the newest records, one a line; `-f` goes on. It refuses to show what is not stored.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use weir_core::audit::Record;

use super::sheet::printable;
use super::{Common, PATIENCE};
use crate::config::Config;
use crate::ledger::store::{Kept, Store};
use crate::ledger::{self, LedgerError, store};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on as records come.
    #[arg(short, long)]
    follow: bool,
    /// Records to begin with.
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: u64,
}

pub(super) fn run(common: &Common, args: &Args) -> anyhow::Result<ExitCode> {
    let dir = Config::load(&common.config)?.audit.dir;
    ledger::catch_up(&dir, PATIENCE)?;
    let store = Store::read(&dir)?;
    let fault = |source| LedgerError::Store { path: store::path(&dir), source };
    let mut seen = store.newest().map_err(fault)?.saturating_sub(args.lines);
    loop {
        store.walk(seen, |row| {
            seen = row.seq;
            print(&row, common.json)
        })?;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}

fn print(row: &Kept, json: bool) -> anyhow::Result<()> {
    let line = if json { object(row) } else { sentence(row)? };
    match writeln!(io::stdout(), "{line}") {
        // `weir audit tail | head` ends so.
        Err(gone) if gone.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => Ok(done?),
    }
}

/// The record with its place in the chain in front.
fn object(row: &Kept) -> String {
    let node = serde_json::Value::from(row.node.as_str());
    let rest = row.raw.strip_prefix('{').unwrap_or("}");
    format!("{{\"seq\":{},\"epoch\":{},\"node\":{node},\"hash\":\"{}\",{rest}", row.seq, row.epoch, row.hash)
}

fn sentence(row: &Kept) -> anyhow::Result<String> {
    let record: Record = serde_json::from_str(&row.raw)?;
    let time = jiff::Timestamp::from_nanosecond(record.ts.into())?;
    let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let place = match (record.host.as_str(), record.dst_ip.as_str()) {
        ("", "") => String::new(),
        ("", address) => format!("{address}:{}", record.dst_port),
        (host, _) => format!("{host}:{}", record.dst_port),
    };
    let act = match (record.statement.as_str(), record.method.as_str()) {
        ("", "") => record.effects.join(","),
        ("", method) => format!("{method} {}", record.path),
        (statement, _) => statement.to_owned(),
    };
    let words = [
        format!("{time:.3}"),
        row.seq.to_string(),
        name(serde_json::to_value(record.kind)?),
        name(serde_json::to_value(record.decision)?),
        record.workload,
        place,
        act,
        record.rule,
        record.reason,
    ];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    Ok(printable(&words.join("  ")))
}

const POLL: Duration = Duration::from_millis(200);
