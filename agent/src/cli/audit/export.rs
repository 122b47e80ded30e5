//! `weir audit export`: the whole trail in a file of JSON lines that proves itself.
//! It refuses to export a trail that does not hold.
//!
//! First line `{"export":"weir/audit/1","after":{…}}`: the head before the first record. Then a line a record:
//! `node`, `epoch`, `seq`, `prev_hash`, `hash` and `raw`, the exact bytes that were hashed.

use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use weir_core::audit::chain::{self, Head};
use weir_core::audit::verify::Checker;

use super::Common;
use crate::config::Config;
use crate::ledger::store::Kept;
use crate::ledger::{self, Reading};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to write; must not exist.
    #[arg(long)]
    out: PathBuf,
}

/// First line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opening {
    export: String,
    after: Point,
}

/// A head, written down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Point {
    epoch: u64,
    seq: u64,
    hash: String,
}

/// Any other line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    node: String,
    epoch: u64,
    seq: u64,
    prev_hash: String,
    hash: String,
    raw: String,
}

impl Opening {
    fn after(head: &Head) -> Opening {
        let after = Point { epoch: head.epoch, seq: head.seq, hash: chain::hex(&head.hash) };
        Opening { export: FORMAT.into(), after }
    }

    /// The head before the first record; `None` if this is no export of ours.
    pub(super) fn head(&self) -> Option<Head> {
        let hash = chain::digest(&self.after.hash)?;
        (self.export == FORMAT).then_some(Head { epoch: self.after.epoch, seq: self.after.seq, hash })
    }
}

impl From<Kept> for Line {
    fn from(kept: Kept) -> Line {
        let Kept { node, epoch, seq, prev_hash, hash, raw } = kept;
        Line { node, epoch, seq, prev_hash, hash, raw }
    }
}

impl From<Line> for Kept {
    fn from(line: Line) -> Kept {
        let Line { node, epoch, seq, prev_hash, hash, raw } = line;
        Kept { node, epoch, seq, prev_hash, hash, raw }
    }
}

pub(super) fn run(common: &Common, args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&args.out)?;
    let mut out = BufWriter::new(file);
    let mut checker = Checker::anywhere();
    ledger::watch(&config.audit.dir, |reading| {
        match reading {
            Reading::Begins(head) => {
                checker = Checker::after(head);
                serde_json::to_writer(&mut out, &Opening::after(&head))?;
            }
            Reading::Record(row) => {
                checker.check(&row.entry())?;
                serde_json::to_writer(&mut out, &Line::from(row))?;
            }
            Reading::Torn(head) | Reading::Differs(head) => {
                anyhow::bail!("the journal is damaged after seq {}: run `weir audit verify`", head.seq);
            }
        }
        Ok(out.write_all(b"\n")?)
    })?;
    let proof = checker.finish()?;
    out.into_inner()?.sync_all()?;
    if common.json {
        println!("{}", serde_json::json!({"records": proof.records, "file": args.out}));
    } else {
        println!("{} records in {}", proof.records, args.out.display());
    }
    Ok(ExitCode::SUCCESS)
}

const FORMAT: &str = "weir/audit/1";
