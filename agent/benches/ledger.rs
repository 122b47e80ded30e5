//! What a record costs: fast and strict appends, the fold, and shipping to a real ClickHouse engine.
//! It refuses to average away contention: one and two threads are measured apart.

use std::time::{Duration, Instant};

use rustix::time::ClockId;
use weir::config::{Audit, ClickHouse};
use weir::ledger::{Appending, Ledger};
use weir::ship::Shipper;
use weir_core::audit::{Decision, Durability, Record};

fn main() {
    let dir = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
    let clickhouse = std::env::args().any(|arg| arg == "ship").then(|| weir_clickhouse::start().unwrap());
    let settings = clickhouse.as_ref().map(|server| ClickHouse {
        url: server.url.clone(),
        database: "weir".into(),
        user: "default".into(),
        password_file: None,
    });
    let config = Audit {
        dir: dir.clone(),
        retention: Duration::from_secs(86_400),
        max_bytes: 8 << 30,
        clickhouse: settings.clone(),
    };
    let ledger = Ledger::open(&config, "web-1").unwrap();
    println!("record: {} bytes", serde_json::to_vec(&record(Durability::Fast)).unwrap().len());
    for threads in [1, 2] {
        fast(&ledger, threads);
    }
    for waiting in [1, 16, 256] {
        strict(&ledger, waiting);
    }
    if let Some(settings) = settings {
        let begun = Instant::now();
        let shipper = Shipper::start(&dir, &settings).unwrap();
        let rows = ledger.status().seq;
        while shipper.status().shipped_seq < rows {
            assert!(begun.elapsed() < Duration::from_secs(300), "{:?}", shipper.status());
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = begun.elapsed();
        println!("shipped: {rows} rows in {took:.2?}: {:.0}/s", rows as f64 / took.as_secs_f64());
    }
    drop(ledger);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn fast(ledger: &Ledger, threads: u64) {
    const EACH: u64 = 100_000;
    let begun = Instant::now();
    let before = cpu(ClockId::ProcessCPUTime);
    let spent: f64 = std::thread::scope(|scope| {
        let append = || {
            let record = record(Durability::Fast);
            for _ in 0..EACH {
                assert!(matches!(ledger.append(&record), Appending::Done(_)));
            }
            cpu(ClockId::ThreadCPUTime)
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(append)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let (count, took) = ((threads * EACH) as f64, begun.elapsed().as_secs_f64());
    println!(
        "fast, {threads} thread(s): {:.2} µs of CPU a record, {:.0} records/s",
        spent * 1e6 / count,
        count / took
    );
    let newest = ledger.status().seq;
    while ledger.status().stored_seq < newest {
        std::thread::sleep(Duration::from_millis(20));
    }
    let folding = cpu(ClockId::ProcessCPUTime) - before - spent;
    println!("  fold: {:.2} µs of CPU a record", folding * 1e6 / count);
}

/// Seconds of CPU time: other work on the machine does not count.
fn cpu(clock: ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn strict(ledger: &Ledger, waiting: usize) {
    let record = record(Durability::Strict);
    let begun = Instant::now();
    let mut count = 0_u64;
    let mut queue = std::collections::VecDeque::new();
    while begun.elapsed() < Duration::from_secs(2) {
        while queue.len() < waiting {
            match ledger.append(&record) {
                Appending::Waiting(pending) => queue.push_back(pending),
                other => panic!("{other:?}"),
            }
        }
        queue.pop_front().unwrap().wait().unwrap();
        count += 1;
    }
    let took = begun.elapsed().as_secs_f64();
    println!(
        "strict, {waiting} waiting: {:.0}/s, {:.2} ms each",
        count as f64 / took,
        took * 1e3 * waiting as f64 / count as f64
    );
}

fn record(durability: Durability) -> Record {
    Record {
        ts: 1_800_000_000_000_000_000,
        session_id: "0123456789abcdef0123456789abcdef".into(),
        request_id: "0123456789abcdef0123456789abcdef-1".into(),
        workload: "payments".into(),
        owner: "alice@acme.example".into(),
        identity_class: "service".into(),
        pid: 4242,
        start_time: 123_456_789,
        exe: "/usr/bin/payments".into(),
        exe_sha256: "0".repeat(64),
        cgroup: "system.slice/payments.service".into(),
        dst_ip: "10.0.0.5".into(),
        dst_port: 5432,
        host: "db.internal".into(),
        protocol: "postgres".into(),
        target: "orders".into(),
        effects: vec!["read".into()],
        relations: vec!["public.orders".into()],
        columns: vec!["public.orders.id".into(), "public.orders.total".into()],
        statement: "SELECT id, total FROM orders WHERE customer = $1".into(),
        decision: Decision::Allowed,
        rule: "read-orders".into(),
        policy_commit: "0123456789abcdef0123456789abcdef01234567".into(),
        durability,
        ..Record::default()
    }
}
