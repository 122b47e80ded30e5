//! The ledger and a real ClickHouse engine: every row arrives once, whatever dies on the way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir::config::{Audit, ClickHouse};
use weir::coverage::Coverage;
use weir::ledger::outbox::Outbox;
use weir::ledger::store::Store;
use weir::ledger::{Appending, Ledger};
use weir::ship::Shipper;
use weir::ship::row::AuditRow;
use weir_core::audit::chain::Head;
use weir_core::audit::verify::Checker;
use weir_core::audit::{Decision, Kind, Record};

fn config(dir: &Path, url: &str, password_file: Option<PathBuf>) -> Audit {
    let clickhouse =
        ClickHouse { url: url.into(), database: "weir".into(), user: "weir_writer".into(), password_file };
    Audit {
        dir: dir.into(),
        retention: Duration::from_secs(86_400),
        max_bytes: 1 << 30,
        clickhouse: Some(clickhouse),
    }
}

fn append(ledger: &Ledger, from: u64, count: u64) {
    for n in from..from + count {
        let record = Record {
            ts: 1_800_000_000_000_000_000 + n,
            kind: if n % 2 == 0 { Kind::Verdict } else { Kind::Outcome },
            request_id: format!("r-{}", n / 2),
            workload: "payments".into(),
            host: "db".into(),
            groups: vec!["dba".into(), "o'brien\u{0}\\".into()],
            masked: [("email".to_owned(), n)].into(),
            statement: "SELECT 1".repeat(10),
            decision: Decision::Masked,
            rows: n,
            ..Record::default()
        };
        assert!(matches!(ledger.append(&record), Appending::Done(_)));
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ask<T>(url: &str, sql: &str) -> Vec<T>
where
    T: clickhouse::RowOwned + clickhouse::RowRead,
{
    let client = clickhouse::Client::default().with_url(url).with_database("weir");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.query(sql).fetch_all::<T>()).unwrap()
}

fn caught_up(shipper: &Shipper, ledger: &Ledger) -> bool {
    shipper.status().shipped_seq == ledger.status().seq
}

#[test]
fn every_row_arrives_once_though_engine_and_shipper_die() {
    let mut server = weir_clickhouse::start().unwrap();
    let dir = TempDir::new().unwrap();
    let config = config(dir.path(), &server.url, None);
    let settings = config.clickhouse.as_ref().unwrap();
    let ledger = Ledger::open(&config, "web-1").unwrap();
    let mut shipper = Shipper::start(dir.path(), settings).unwrap();
    for round in 0..6 {
        append(&ledger, round * 5_000, 5_000);
        std::thread::sleep(Duration::from_millis(150 * round));
        server.kill().unwrap();
        append(&ledger, 30_000 + round * 100, 100);
        if round % 2 == 0 {
            drop(shipper);
            shipper = Shipper::start(dir.path(), settings).unwrap();
        }
        until("the outage shows", || shipper.status().last_error.is_some());
        assert!(!shipper.status().permanent, "{:?}", shipper.status());
        server.resume().unwrap();
    }
    until("ClickHouse has everything", || caught_up(&shipper, &ledger));
    let written = ledger.status().seq;
    assert_eq!(ask::<u64>(&server.url, "SELECT count() FROM audit"), [written]);
    assert_eq!(ask::<u64>(&server.url, "SELECT uniqExact(seq) FROM audit"), [written]);

    // As if the last answer had been lost: the same batch goes again, and changes nothing.
    drop(shipper);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.connection().execute("UPDATE batch SET confirmed = 0", []).unwrap(), 1);
    let outbox = Outbox::open(dir.path()).unwrap();
    assert_eq!(outbox.next().unwrap(), outbox.next().unwrap());
    let shipper = Shipper::start(dir.path(), settings).unwrap();
    until("the batch is confirmed again", || caught_up(&shipper, &ledger));
    assert_eq!(ask::<u64>(&server.url, "SELECT count() FROM audit"), [written]);

    // What arrived is the trail, column by column.
    let rows = ask::<AuditRow>(&server.url, "SELECT ?fields FROM audit ORDER BY node, epoch, seq");
    let mut checker = Checker::after(Head::GENESIS);
    for row in &rows {
        let kept = row.kept();
        checker.check(&kept.entry()).unwrap();
        assert_eq!(*row, AuditRow::of(kept).unwrap());
    }
    assert_eq!(checker.finish().unwrap().head, ledger.head());
    let acts = ask::<u64>(&server.url, "SELECT count() FROM acts WHERE outcome_seq > seq");
    assert_eq!(acts, [15_300]);
    for view in [
        "denials",
        "approvals",
        "masks",
        "destinations",
        "workloads",
        "admin",
        "coverage",
        "lookups",
        "would",
        "connections",
    ] {
        ask::<u64>(&server.url, &format!("SELECT count() FROM {view}"));
    }
}

#[test]
fn coverage_is_columns_here_and_there() {
    let server = weir_clickhouse::start().unwrap();
    let dir = TempDir::new().unwrap();
    let config = config(dir.path(), &server.url, None);
    let ledger = Ledger::open(&config, "web-1").unwrap();
    let now =
        Coverage { turned: 30, published: 21, handed: 12, accepted: 9, aborted: 5, in_handshake: 2, lost: 8 };
    let row =
        Record { kind: Kind::Admin, method: "coverage".into(), reason: now.to_string(), ..Record::default() };
    assert!(matches!(ledger.append(&row), Appending::Done(_)));
    let shipper = Shipper::start(dir.path(), config.clickhouse.as_ref().unwrap()).unwrap();
    until("everything arrives", || caught_up(&shipper, &ledger));
    let fields = "turned, published, handed, accepted, aborted, in_handshake, waiting, lost, unexplained";
    let there = format!("SELECT arrayJoin([{fields}]) FROM coverage");
    let told = [30, 21, 12, 9, 5, 2, 3, 8, 2];
    assert_eq!(ask::<u64>(&server.url, &there), told);
    drop((shipper, ledger));
    let store = Store::open(dir.path()).unwrap();
    let here = store
        .connection()
        .query_row(&format!("SELECT {fields} FROM coverage"), [], |row| {
            (0..told.len()).map(|at| row.get::<_, u64>(at)).collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
    assert_eq!(here, told);
}

#[test]
fn a_table_of_an_earlier_version_gets_its_column() {
    let server = weir_clickhouse::start().unwrap();
    let dir = TempDir::new().unwrap();
    let config = config(dir.path(), &server.url, None);
    let earlier = include_str!("../src/ship/schema.sql").replacen("  weir_bytes UInt64,\n", "", 1);
    let client = clickhouse::Client::default().with_url(&server.url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.query("CREATE DATABASE weir").execute()).unwrap();
    let table = earlier.split(";\n").next().unwrap();
    runtime.block_on(client.with_database("weir").query_raw(table).execute()).unwrap();

    let ledger = Ledger::open(&config, "web-1").unwrap();
    let closed = Record { kind: Kind::Connection, upstream_bytes: 5, weir_bytes: 7, ..Record::default() };
    assert!(matches!(ledger.append(&closed), Appending::Done(_)));
    let shipper = Shipper::start(dir.path(), config.clickhouse.as_ref().unwrap()).unwrap();
    until("everything arrives", || caught_up(&shipper, &ledger));
    assert_eq!(ask::<u64>(&server.url, "SELECT wire_bytes FROM connections"), [12]);
}

#[test]
fn a_wrong_password_is_told_and_loses_nothing() {
    let server = weir_clickhouse::start_with_password("right").unwrap();
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("ch.pw");
    std::fs::write(&secret, "wrong\n").unwrap();
    let config = config(&dir.path().join("ledger"), &server.url, Some(secret.clone()));
    let settings = config.clickhouse.as_ref().unwrap();
    let ledger = Ledger::open(&config, "web-1").unwrap();
    append(&ledger, 0, 10);
    let shipper = Shipper::start(&config.dir, settings).unwrap();
    until("the refusal shows", || shipper.status().permanent);
    let fault = shipper.status().last_error.unwrap();
    assert!(fault.contains("516"), "{fault}");
    drop(shipper);
    std::fs::write(&secret, "right\n").unwrap();
    let shipper = Shipper::start(&config.dir, settings).unwrap();
    until("everything arrives", || caught_up(&shipper, &ledger));
    assert_eq!(shipper.status().last_error, None);
}
