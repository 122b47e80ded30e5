//! The ledger against what hosts do to it: kill -9 of the writer, and a disk without room.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir::config::Audit;
use weir::ledger::{Appending, Ledger, LedgerError, Reading, watch};
use weir_core::audit::verify::{Checker, Proof};
use weir_core::audit::{Durability, Record};

fn config(dir: &Path) -> Audit {
    Audit { dir: dir.into(), retention: Duration::from_secs(86_400), max_bytes: 1 << 30, clickhouse: None }
}

/// Walks the whole trail; hands each record to `each` with its seq.
fn prove(dir: &Path, mut each: impl FnMut(u64, Record)) -> Result<Proof, String> {
    let mut checker = Checker::anywhere();
    let walked = watch(dir, |reading| {
        match reading {
            Reading::Begins(head) => checker = Checker::after(head),
            Reading::Record(row) => match checker.check(&row.entry()) {
                Ok(record) => each(row.seq, record),
                Err(flaw) => return Err(LedgerError::Refused(flaw.to_string())),
            },
            torn => return Err(LedgerError::Refused(format!("{torn:?}"))),
        }
        Ok(())
    });
    walked.map_err(|fault| fault.to_string())?;
    checker.finish().map_err(|flaw| flaw.to_string())
}

const CHILD: &str = "WEIR_TEST_LEDGER";

/// The writer that is killed: prints `seq rows` only after it holds the receipt. Runs only as a child of the test below.
#[test]
fn writer() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let ledger = Ledger::open(&config(Path::new(&dir)), "web-1").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let ledger = &ledger;
            scope.spawn(move || {
                for n in 0_u64.. {
                    let rows = n * 2 + thread;
                    let durability = if n % 50 == 0 { Durability::Strict } else { Durability::Fast };
                    let record = Record { rows, durability, workload: "w".repeat(200), ..Record::default() };
                    let receipt = match ledger.append(&record) {
                        Appending::Done(receipt) => receipt,
                        Appending::Waiting(pending) => pending.wait().unwrap(),
                        Appending::Refused(reason) => panic!("{reason}"),
                    };
                    // One write for a line, so that lines of two threads do not mix.
                    let line = format!("+{} {rows}\n", receipt.sequence());
                    std::io::stderr().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

#[test]
fn no_kill_loses_an_acknowledged_record() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(CHILD, dir.path())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (begun, begins) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .filter_map(|line| {
                    let (seq, rows) = line.strip_prefix('+')?.split_once(' ')?;
                    let _ = begun.send(());
                    Some((seq.parse::<u64>().ok()?, rows.parse::<u64>().ok()?))
                })
                .collect::<Vec<_>>()
        });
        begins.recv_timeout(Duration::from_secs(30)).unwrap();
        std::thread::sleep(Duration::from_millis(round * 23 % 170));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = reader.join().unwrap();
        // The newest line may be cut by the kill, so the last number may be short.
        let whole = told.len().saturating_sub(1);
        acknowledged.extend(told.into_iter().take(whole));
    }
    // A last start cuts what the last kill tore.
    drop(Ledger::open(&config(dir.path()), "web-1").unwrap());
    let mut found = BTreeMap::new();
    let proof = prove(dir.path(), |seq, record| {
        found.insert(seq, record.rows);
    })
    .unwrap();
    assert!(acknowledged.len() > 2_000, "{} acknowledged", acknowledged.len());
    for (seq, rows) in &acknowledged {
        assert_eq!(found.get(seq), Some(rows), "seq {seq}");
    }
    assert!(proof.epochs == 21, "{proof:?}");
    println!("{} acknowledged, {} found, {} epochs", acknowledged.len(), proof.records, proof.epochs);
}

/// A file system of one megabyte.
struct Tiny(TempDir);

impl Tiny {
    fn mount() -> Option<Tiny> {
        let dir = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Tiny(dir))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_and_room_heals_it() {
    let Some(tiny) = Tiny::mount() else {
        println!("skipped: mounting a tmpfs needs root");
        return;
    };
    let ballast = tiny.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 400 * 1024]).unwrap();
    let dir = tiny.0.path().join("ledger");
    let ledger = Ledger::open(&config(&dir), "web-1").unwrap();
    let (mut written, deadline) = (0, Instant::now() + Duration::from_secs(30));
    let reason = loop {
        let record = Record { statement: "x".repeat(500), ..Record::default() };
        match ledger.append(&record) {
            Appending::Done(_) => written += 1,
            Appending::Waiting(_) => unreachable!("fast"),
            Appending::Refused(reason) => break reason,
        }
        assert!(Instant::now() < deadline, "the disk never filled");
    };
    assert!(reason.starts_with("audit_full"), "{reason}");
    for _ in 0..10 {
        assert!(matches!(
            ledger.append(&Record { statement: "x".repeat(4000), ..Record::default() }),
            Appending::Refused(_)
        ));
    }
    std::fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    let last = loop {
        match ledger.append(&Record { durability: Durability::Strict, ..Record::default() }) {
            Appending::Waiting(pending) => break pending.wait().unwrap().sequence(),
            Appending::Done(_) | Appending::Refused(_) => {
                assert!(freed.elapsed() < Duration::from_secs(5), "{:?}", ledger.status());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    };
    drop(ledger);
    let mut records = 0;
    let mut newest = 0;
    let proof = prove(&dir, |seq, record| {
        records += u64::from(!record.statement.is_empty());
        newest = seq;
    })
    .unwrap();
    assert_eq!((records, proof.losses), (written, 1));
    assert!(newest >= last);
}
