//! `weir audit verify`: computes every hash again, from the ledger, an export, or ClickHouse.
//! It refuses to go on after the first bad record: it names it and exits with 1.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use weir_core::audit::chain::{self, Head};
use weir_core::audit::verify::{Break, Checker, Proof};

use super::export::{Line, Opening};
use super::{Common, PATIENCE};
use crate::config::Config;
use crate::ledger::outbox::Outbox;
use crate::ledger::store::{self, Kept, Store};
use crate::ledger::{self, LedgerError, Reading};
use crate::ship::client;
use crate::ship::row::AuditRow;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prove an export instead of the ledger.
    #[arg(long, conflicts_with = "clickhouse")]
    file: Option<PathBuf>,
    /// Prove this node's rows in ClickHouse, and that it has what it confirmed.
    #[arg(long)]
    clickhouse: bool,
    /// A head noted earlier, as `verify` prints it: the trail must still hold it.
    #[arg(long, value_name = "EPOCH:SEQ:HASH", value_parser = head)]
    checkpoint: Option<Head>,
}

/// Why a trail is not proved.
#[derive(Debug, thiserror::Error)]
enum Refuted {
    #[error("{0}")]
    Break(#[from] Break),
    #[error("epoch {epoch}, seq {seq}: {flaw}")]
    At { epoch: u64, seq: u64, flaw: String },
    #[error("{0:#}")]
    Unreadable(#[from] anyhow::Error),
}

impl From<LedgerError> for Refuted {
    fn from(fault: LedgerError) -> Self {
        Refuted::Unreadable(fault.into())
    }
}

pub(super) fn run(common: &Common, args: &Args) -> anyhow::Result<ExitCode> {
    let proved = match &args.file {
        Some(path) => file(path, args),
        None if args.clickhouse => server(&Config::load(&common.config)?, args),
        None => embedded(&Config::load(&common.config)?.audit.dir, args),
    };
    match proved {
        Ok(proof) => {
            report(&proof, common.json);
            Ok(ExitCode::SUCCESS)
        }
        Err(Refuted::Unreadable(fault)) => Err(fault),
        Err(refuted) => {
            refute(&refuted, common.json);
            Ok(ExitCode::from(1))
        }
    }
}

fn checker(args: &Args, after: Option<Head>) -> Checker {
    let checker = after.map_or_else(Checker::anywhere, Checker::after);
    args.checkpoint.map_or(checker.clone(), |point| checker.with_checkpoint(point))
}

fn embedded(dir: &Path, args: &Args) -> Result<Proof, Refuted> {
    columns_are_computed(dir)?;
    let mut walk = checker(args, None);
    ledger::watch(dir, |reading| {
        match reading {
            Reading::Begins(anchor) => walk = checker(args, Some(anchor)),
            Reading::Record(row) => drop(walk.check(&row.entry())?),
            Reading::Differs(head) => return Err(at(&head, "store and journal differ")),
            Reading::Torn(head) => {
                let next = Head { seq: head.seq + 1, ..head };
                return Err(at(&next, "the journal is torn or altered here"));
            }
        }
        Ok(())
    })?;
    Ok(walk.finish()?)
}

/// The store computes its columns from `raw`; a store whose table says otherwise shows something else.
fn columns_are_computed(dir: &Path) -> Result<(), Refuted> {
    if !store::path(dir).exists() {
        ledger::catch_up(dir, PATIENCE)?;
    }
    let store = Store::read(dir)?;
    if store::shows_records(store.connection()).context("the store cannot be read")? {
        return Ok(());
    }
    Err(at(
        &Head::GENESIS,
        "the store's view `audit` was redefined: its columns need not be those of the records",
    ))
}

fn file(path: &Path, args: &Args) -> Result<Proof, Refuted> {
    let name = || format!("{}", path.display());
    let source = std::fs::File::open(path).with_context(name)?;
    let mut lines = std::io::BufReader::new(source).lines();
    let first = lines.next().transpose().with_context(name)?.unwrap_or_default();
    let opening: Opening =
        serde_json::from_str(&first).with_context(|| format!("{} is no export", path.display()))?;
    let head = opening.head().with_context(|| format!("{} is no export", path.display()))?;
    let mut walk = checker(args, Some(head));
    for line in lines {
        let line = line.with_context(name)?;
        let stands = walk.head().unwrap_or(head);
        let parsed: Line = serde_json::from_str(&line)
            .map_err(|_| at(&Head { seq: stands.seq + 1, ..stands }, "the line is no exported record"))?;
        walk.check(&Kept::from(parsed).entry())?;
    }
    Ok(walk.finish()?)
}

fn server(config: &Config, args: &Args) -> Result<Proof, Refuted> {
    let settings = config.audit.clickhouse.as_ref().context("audit.clickhouse is not configured")?;
    let client = client::connect(settings, true).map_err(anyhow::Error::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for the connection")?;
    let confirmed = confirmed(&config.audit.dir)?;
    runtime.block_on(async {
        let sql = "SELECT ?fields FROM audit WHERE node = ? ORDER BY epoch, seq, hash";
        let mut rows = client.query(sql).bind(&config.node).fetch::<AuditRow>().context("ClickHouse")?;
        let mut walk: Option<Checker> = None;
        let mut last: Option<Kept> = None;
        while let Some(row) = rows.next().await.context("ClickHouse")? {
            let kept = row.kept();
            if last.as_ref() == Some(&kept) {
                continue;
            }
            let walk = walk.get_or_insert_with(|| {
                let start = checker(args, (kept.seq == 1).then_some(Head::GENESIS));
                confirmed.map_or(start.clone(), |point| start.with_checkpoint(point))
            });
            walk.check(&kept.entry())?;
            let head = kept.head();
            let expected =
                AuditRow::of(kept.clone()).map_err(|_| at(&head, "its bytes are no audit record"))?;
            if expected != row {
                return Err(at(&head, "its columns are not those of its record"));
            }
            last = Some(kept);
        }
        match (walk, confirmed) {
            (Some(walk), _) => Ok(walk.finish()?),
            (None, Some(point)) => Err(at(&point, "ClickHouse confirmed this record and has none")),
            (None, None) => Ok(Proof::default()),
        }
    })
}

/// The newest record that ClickHouse has confirmed, as the ledger holds it.
fn confirmed(dir: &Path) -> Result<Option<Head>, Refuted> {
    let outbox = Outbox::read(dir)?;
    Ok(outbox.confirmed_head().context("the store cannot be read")?)
}

fn at(head: &Head, flaw: &str) -> Refuted {
    Refuted::At { epoch: head.epoch, seq: head.seq, flaw: flaw.into() }
}

fn report(proof: &Proof, json: bool) {
    let head = proof.head.map(|head| format!("{}:{}:{}", head.epoch, head.seq, chain::hex(&head.hash)));
    if json {
        let line = serde_json::json!({
            "ok": true, "records": proof.records, "epochs": proof.epochs, "losses": proof.losses,
            "first_seq": proof.first_seq, "head": head,
        });
        println!("{line}");
        return;
    }
    println!(
        "{} records from seq {} · {} epochs · 0 gaps · {} losses reported by the ledger itself",
        proof.records, proof.first_seq, proof.epochs, proof.losses
    );
    if let Some(head) = head {
        println!("head {head}");
    }
}

fn refute(refuted: &Refuted, json: bool) {
    let (epoch, seq, flaw) = match refuted {
        Refuted::Break(flaw) => (flaw.epoch, flaw.seq, flaw.flaw.to_string()),
        Refuted::At { epoch, seq, flaw } => (*epoch, *seq, flaw.clone()),
        Refuted::Unreadable(fault) => (0, 0, format!("{fault:#}")),
    };
    if json {
        println!("{}", serde_json::json!({"ok": false, "epoch": epoch, "seq": seq, "flaw": flaw}));
    } else {
        println!("NOT PROVED: first bad record: epoch {epoch}, seq {seq}: {flaw}");
    }
}

/// `EPOCH:SEQ:HASH`.
fn head(text: &str) -> Result<Head, String> {
    let mut parts = text.split(':');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
    let (epoch, seq) = (number(), number());
    match (epoch, seq, parts.next().and_then(chain::digest), parts.next()) {
        (Some(epoch), Some(seq), Some(hash), None) => Ok(Head { epoch, seq, hash }),
        (_, _, _, _) => Err("write it as verify prints it: EPOCH:SEQ:HASH".into()),
    }
}
