//! The ledger as its callers see it: appends, restarts, folding, refusals.

use std::os::unix::fs::FileExt;

use tempfile::TempDir;
use weir_core::audit::verify::{Break, Checker, Proof};
use weir_core::audit::{Decision, Kind};

use super::*;

pub(super) fn config(dir: &Path) -> config::Audit {
    config::Audit {
        dir: dir.into(),
        retention: Duration::from_secs(86_400),
        max_bytes: 1 << 30,
        clickhouse: None,
    }
}

pub(super) fn record(n: u64) -> Record {
    Record { ts: wall_ns(), rows: n, workload: "payments".into(), ..Record::default() }
}

fn strict(n: u64) -> Record {
    Record { durability: Durability::Strict, ..record(n) }
}

fn seq(appending: Appending) -> u64 {
    match appending {
        Appending::Done(receipt) => receipt.sequence(),
        Appending::Waiting(pending) => pending.wait().unwrap().sequence(),
        Appending::Refused(reason) => panic!("{reason}"),
    }
}

/// A trail that does not hold, or cannot be read.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
enum Found {
    Break(Break),
    Torn(u64),
    Differs(u64),
    Unreadable(String),
}

impl From<LedgerError> for Found {
    fn from(fault: LedgerError) -> Self {
        Found::Unreadable(fault.to_string())
    }
}

fn prove(dir: &Path) -> Result<(Proof, Vec<Record>), Found> {
    let (mut checker, mut records) = (Checker::anywhere(), Vec::new());
    watch(dir, |reading| {
        match reading {
            Reading::Begins(head) => checker = Checker::after(head),
            Reading::Record(row) => records.push(checker.check(&row.entry()).map_err(Found::Break)?),
            Reading::Torn(head) => return Err(Found::Torn(head.seq)),
            Reading::Differs(head) => return Err(Found::Differs(head.seq)),
        }
        Ok(())
    })?;
    Ok((checker.finish().map_err(Found::Break)?, records))
}

fn journal_file(dir: &Path) -> PathBuf {
    journal::segments(dir).unwrap().pop().unwrap()
}

#[test]
fn records_of_two_starts_make_one_trail() {
    let dir = TempDir::new().unwrap();
    for start in 0..2_u64 {
        let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
        assert_eq!(seq(ledger.append(&record(1))), start * 3 + 2);
        assert_eq!(seq(ledger.append(&strict(2))), start * 3 + 3);
    }
    let (proof, records) = prove(dir.path()).unwrap();
    assert_eq!((proof.records, proof.epochs, proof.losses), (6, 2, 0));
    assert!(records[3].reason.contains("at seq 3 hash"), "{}", records[3].reason);
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let _first = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let fault = Ledger::open(&config(dir.path()), "web-1").unwrap_err().to_string();
    assert!(fault.contains(&std::process::id().to_string()), "{fault}");
}

#[test]
fn readers_see_everything_while_the_agent_lives_and_after() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let mut last = 0;
    for round in 0..5 {
        for n in 0..200 {
            last = seq(ledger.append(&record(round * 200 + n)));
        }
        catch_up(dir.path(), Duration::from_secs(10)).unwrap();
        assert!(Store::read(dir.path()).unwrap().newest().unwrap() >= last);
    }
    assert_eq!(prove(dir.path()).unwrap().0.records, last);
}

use store::Store;

#[test]
fn a_torn_tail_is_cut_kept_and_named() {
    let dir = TempDir::new().unwrap();
    drop(Ledger::open(&config(dir.path()), "web-1").unwrap());
    let path = journal_file(dir.path());
    let length = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[7; 90], length).unwrap();
    assert!(matches!(prove(dir.path()), Err(Found::Torn(1))));
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    assert_eq!(seq(ledger.append(&record(1))), 4);
    drop(ledger);
    let (proof, records) = prove(dir.path()).unwrap();
    assert_eq!((proof.records, proof.losses), (4, 1));
    assert!(records[2].reason.starts_with("90 bytes of the journal after seq 1"), "{}", records[2].reason);
    let kept = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().to_string_lossy().contains("torn-"))
        .count();
    assert_eq!(kept, 1);
}

#[test]
fn records_that_only_the_journal_holds_survive() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    for n in 0..50 {
        seq(ledger.append(&record(n)));
    }
    drop(ledger);
    // As if the store had never been folded into: the journal alone has the records.
    for name in ["audit.sqlite", "audit.sqlite-wal", "audit.sqlite-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    catch_up(dir.path(), Duration::from_secs(1)).unwrap();
    assert_eq!(prove(dir.path()).unwrap().0.records, 51);
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    assert_eq!(ledger.status().seq, 52);
}

#[test]
fn a_cut_end_of_the_store_shows_by_the_journal() {
    let dir = TempDir::new().unwrap();
    for _ in 0..2 {
        let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
        (0..10).for_each(|n| drop(ledger.append(&record(n))));
    }
    let store = Store::open(dir.path()).unwrap();
    store.connection().execute("DELETE FROM record WHERE seq > 5", []).unwrap();
    assert!(matches!(prove(dir.path()), Err(Found::Break(Break { seq: 6, .. }))));
    drop(store);
    // The next start does not hide it either.
    drop(Ledger::open(&config(dir.path()), "web-1").unwrap());
    assert_eq!(prove(dir.path()).unwrap().0.losses, 1);
}

#[test]
fn any_flipped_byte_is_found() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    (0..6).for_each(|n| drop(ledger.append(&record(n))));
    drop(ledger);
    assert_eq!(prove(dir.path()).unwrap().0.records, 7);
    let path = journal_file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(prove(dir.path()).is_err(), "byte {at} of the journal");
    }
    std::fs::write(&path, &whole).unwrap();
    let store = Store::open(dir.path()).unwrap();
    for column in ["node", "prev_hash", "hash", "raw", "epoch", "seq"] {
        store.connection().execute_batch("SAVEPOINT flip").unwrap();
        let changed = match column {
            "epoch" => "epoch + 1",
            "seq" => "seq + 100",
            "hash" | "prev_hash" => "replace(replace(COL, '0', '1'), '2', '3')",
            _ => "COL || ' '",
        };
        let sql = format!("UPDATE record SET {column} = {} WHERE seq = 3", changed.replace("COL", column));
        store.connection().execute(&sql, []).unwrap();
        let mut checker = Checker::after(Head::GENESIS);
        let mut found = None;
        store
            .walk(0, |row| {
                if let Err(flaw) = checker.check(&row.entry()) {
                    found = found.or(Some(flaw.seq));
                }
                Ok::<(), rusqlite::Error>(())
            })
            .unwrap();
        assert_eq!(found, Some(3), "{column}");
        store.connection().execute_batch("ROLLBACK TO flip; RELEASE flip").unwrap();
    }
}

#[test]
fn a_full_ledger_refuses_and_retention_frees_it() {
    let dir = TempDir::new().unwrap();
    let small = config::Audit { max_bytes: 600_000, ..config(dir.path()) };
    let ledger = Ledger::open(&small, "web-1").unwrap();
    let mut written = 1;
    let reason = loop {
        match ledger.append(&Record { ts: 1, statement: "x".repeat(1000), ..record(1) }) {
            Appending::Done(_) => written += 1,
            Appending::Waiting(_) => unreachable!("fast"),
            Appending::Refused(reason) => break reason,
        }
    };
    assert!(reason.starts_with("audit_full"), "{reason}");
    assert!(written > 50);
    drop(ledger);
    // With no retention the next start removes all but the newest row.
    let now = config::Audit { max_bytes: 4 << 20, retention: Duration::ZERO, ..small };
    let ledger = Ledger::open(&now, "web-1").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while Store::read(dir.path()).unwrap().anchor().unwrap() == Head::GENESIS {
        assert!(std::time::Instant::now() < deadline, "{:?}", ledger.status());
        std::thread::sleep(Duration::from_millis(20));
    }
    seq(ledger.append(&record(2)));
    drop(ledger);
    let (proof, _) = prove(dir.path()).unwrap();
    assert!(proof.first_seq > 1 && proof.records < 20, "{proof:?}");
}

#[test]
fn a_record_beyond_the_bound_is_refused_alone() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let long = Record { statement: "x".repeat(chain::RECORD_BYTES), ..Record::default() };
    assert!(matches!(ledger.append(&long), Appending::Refused(_)));
    seq(ledger.append(&record(1)));
}

#[test]
fn threads_share_one_chain_and_segments_roll() {
    let dir = TempDir::new().unwrap();
    let small = config::Audit { max_bytes: 64 << 20, ..config(dir.path()) };
    let ledger = Ledger::open(&small, "web-1").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0..3_000 {
                    let text = Record { statement: "s".repeat(2_000), ..record(n) };
                    match n % 100 == thread {
                        true => seq(ledger.append(&Record { durability: Durability::Strict, ..text })),
                        false => seq(ledger.append(&text)),
                    };
                }
            });
        }
    });
    assert_eq!(ledger.status().refused, 0);
    drop(ledger);
    assert_eq!(prove(dir.path()).unwrap().0.records, 12_001);
    assert_eq!(journal::segments(dir.path()).unwrap().len(), 1, "folded segments go");
}

#[test]
fn after_a_failed_sync_nothing_passes_until_the_store_has_all() {
    let dir = TempDir::new().unwrap();
    let mut tail = tail::Tail::begin(dir.path().into(), "n".into(), 1, Head::GENESIS, 1 << 30).unwrap();
    let mut raw = Vec::new();
    chain::encode(&record(1), &mut raw).unwrap();
    assert_eq!(tail.append(&raw, false, 0), Ok(1));
    tail.distrust("the disk refused".into());
    assert_eq!(tail.append(&raw, false, 0), Err("the disk refused".into()));
    tail.heal(0);
    assert!(tail.append(&raw, false, 0).is_err(), "seq 1 is not in the store");
    tail.heal(1);
    assert_eq!(tail.append(&raw, false, 0), Ok(2));
    // The refusals are told right behind the first record that passed.
    assert_eq!((tail.head.seq, tail.refused()), (3, 0));
}

#[test]
fn an_outcome_lags_until_the_next_record_or_a_flush() {
    let dir = TempDir::new().unwrap();
    let mut tail = tail::Tail::begin(dir.path().into(), "n".into(), 1, Head::GENESIS, 1 << 30).unwrap();
    let mut raw = Vec::new();
    chain::encode(&record(1), &mut raw).unwrap();
    let written = || read::journal_end(dir.path()).unwrap();
    assert_eq!((tail.append(&raw, true, 0), written()), (Ok(1), 0));
    assert_eq!((tail.append(&raw, false, 0), written()), (Ok(2), 2));
    assert_eq!((tail.append(&raw, true, 0), written()), (Ok(3), 2));
    tail.flush().unwrap();
    assert_eq!(written(), 3);
    // What lags does not pile up.
    while tail.head.seq - written() < 1000 && written() == 3 {
        tail.append(&raw, true, 0).unwrap();
    }
    assert_eq!(written(), tail.head.seq);
}

#[test]
fn the_views_answer() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let verdict = Record {
        request_id: "r-1".into(),
        host: "db".into(),
        groups: vec!["dba".into()],
        decision: Decision::Masked,
        ..record(0)
    };
    let masked = [("email".to_owned(), 3)].into();
    let outcome = Record { kind: Kind::Outcome, masked, rows: 9, status: "00000".into(), ..verdict.clone() };
    let denied = Record { request_id: "r-2".into(), decision: Decision::Denied, ..verdict.clone() };
    for record in [&verdict, &outcome, &denied] {
        seq(ledger.append(record));
    }
    drop(ledger);
    let store = Store::read(dir.path()).unwrap();
    let ask = |sql: &str| -> Vec<String> {
        let mut query = store.connection().prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(
        ask("SELECT request_id || ' ' || rows || status FROM acts ORDER BY seq"),
        ["r-1 900000", "r-2 0"]
    );
    assert_eq!(ask("SELECT request_id FROM denials"), ["r-2"]);
    assert_eq!(ask("SELECT class || hidden FROM masks"), ["email3"]);
    assert_eq!(ask("SELECT host || acts || denied FROM destinations"), ["db21"]);
    assert_eq!(ask("SELECT workload || acts FROM workloads"), ["payments2"]);
    assert_eq!(ask("SELECT groups FROM audit WHERE seq = 2"), [r#"["dba"]"#]);
    assert_eq!(ask("SELECT json_extract(effects, '$[0]') FROM admin"), ["boot"]);
    assert!(ask("SELECT request_id FROM approvals UNION ALL SELECT request_id FROM would").is_empty());
    assert!(store::shows_records(store.connection()).unwrap());
}

/// A store that an earlier version made shows the columns of this one, and its rows have them.
#[test]
fn views_of_an_earlier_version_are_made_anew() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    let closed = Record { kind: Kind::Connection, upstream_bytes: 5, ..record(1) };
    seq(ledger.append(&closed));
    drop(ledger);
    let db = rusqlite::Connection::open(store::path(dir.path())).unwrap();
    db.execute_batch(
        "DROP VIEW connections; DROP VIEW audit;
         CREATE VIEW audit AS SELECT seq, epoch, node, prev_hash, hash, raw, raw ->> 'kind' AS kind FROM record;
         CREATE VIEW own AS SELECT seq FROM record;",
    )
    .unwrap();
    assert!(!store::shows_records(&db).unwrap());
    drop(db);

    let ledger = Ledger::open(&config(dir.path()), "web-1").unwrap();
    seq(ledger.append(&Record { weir_bytes: 7, ..closed }));
    drop(ledger);
    let store = Store::read(dir.path()).unwrap();
    assert!(store::shows_records(store.connection()).unwrap());
    let mut query =
        store.connection().prepare("SELECT weir_bytes, wire_bytes FROM connections ORDER BY seq").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(rows.map(Result::unwrap).collect::<Vec<(u64, u64)>>(), [(0, 5), (7, 12)]);
    // What somebody else made beside them is left alone.
    store.connection().prepare("SELECT seq FROM own").unwrap();
}
