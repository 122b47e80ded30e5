//! `weir audit` as its users run it: the binary, its output and its exit codes.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use weir::config::Config;
use weir::ledger::store::Store;
use weir::ledger::{Appending, Ledger};
use weir::ship::Shipper;
use weir_core::audit::{Decision, Durability, Kind, Record};

struct Host {
    dir: TempDir,
    config: PathBuf,
}

impl Host {
    fn new(clickhouse: &str) -> Host {
        let dir = TempDir::new().unwrap();
        let config = dir.path().join("weir.yaml");
        let ledger = dir.path().join("ledger");
        let text =
            format!("node: web-1\npolicies: /nowhere\naudit:\n  dir: {}\n{clickhouse}", ledger.display());
        std::fs::write(&config, text).unwrap();
        Host { dir, config }
    }

    fn ledger(&self) -> Ledger {
        let config = Config::load(&self.config).unwrap();
        Ledger::open(&config.audit, &config.node).unwrap()
    }

    fn ledger_dir(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// (exit code, stdout, stderr)
    fn weir(&self, args: &[&str]) -> (i32, String, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("--config")
            .arg(&self.config)
            .arg("audit")
            .args(args)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    }
}

fn fill(ledger: &Ledger) {
    let act = |n: u64, decision| Record {
        ts: 1_800_000_000_000_000_000 + n,
        kind: Kind::Verdict,
        decision,
        request_id: format!("r-{n}"),
        workload: "payments".into(),
        host: "db".into(),
        groups: vec!["dba".into()],
        statement: "SELECT \u{1b}[31m1".into(),
        rule: "no-cards".into(),
        durability: Durability::Strict,
        ..Record::default()
    };
    for record in [act(1, Decision::Allowed), act(2, Decision::Denied), act(3, Decision::Masked)] {
        match ledger.append(&record) {
            Appending::Waiting(pending) => drop(pending.wait().unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn query_sees_everything_with_and_without_an_agent() {
    let host = Host::new("");
    let ledger = host.ledger();
    fill(&ledger);
    let sql = "SELECT request_id, decision, groups, seq FROM audit WHERE kind = 'verdict' ORDER BY seq";
    let expected =
        serde_json::json!({"request_id": "r-3", "decision": "masked", "groups": ["dba"], "seq": 4});
    let mut ledger = Some(ledger);
    for alive in [true, false] {
        assert_eq!(ledger.is_some(), alive);
        let (code, out, err) = host.weir(&["query", sql, "--json"]);
        assert_eq!((code, err.as_str()), (0, ""), "alive: {alive}");
        assert_eq!(lines(&out).len(), 3);
        assert_eq!(lines(&out)[2], expected);
        ledger = None;
    }
    let (_, out, err) = host.weir(&["query", "SELECT rule, statement FROM denials", "--limit", "1"]);
    assert!(out.contains("no-cards") && !out.contains('\u{1b}'), "{out:?}{err}");
    let (_, _, err) = host.weir(&["query", sql, "--limit", "2"]);
    assert!(err.contains("cut after 2 rows"));
}

#[test]
fn query_refuses_to_write_or_to_run_for_ever() {
    let host = Host::new("");
    fill(&host.ledger());
    for sql in [
        "DELETE FROM audit",
        "UPDATE record SET raw = '{}'",
        "DROP TABLE audit",
        "INSERT INTO meta VALUES ('x', 1)",
        "ATTACH '/tmp/x.db' AS x",
        "PRAGMA writable_schema = 1",
        "VACUUM INTO '/tmp/x.db'",
        "SELECT load_extension('x')",
        "SELEC 1",
    ] {
        let (code, out, err) = host.weir(&["query", sql]);
        assert_eq!((code, out.as_str()), (1, ""), "{sql}: {err}");
    }
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    assert_eq!(host.weir(&["query", endless, "--seconds", "1"]).0, 1);
    assert_eq!(host.weir(&["query"]).0, 2);
    assert_eq!(host.weir(&["verify"]).0, 0);
}

#[test]
fn tail_prints_the_newest() {
    let host = Host::new("");
    fill(&host.ledger());
    let (_, out, err) = host.weir(&["tail", "-n", "2"]);
    assert_eq!(out.lines().count(), 2, "{err}");
    assert!(out.contains("masked  payments  db:0  SELECT \\u{1b}[31m1  no-cards"), "{out}");
    let (_, out, _) = host.weir(&["tail", "--json"]);
    let first = &lines(&out)[0];
    assert_eq!((first["seq"].as_u64(), first["effects"][0].as_str()), (Some(1), Some("boot")));
}

#[test]
fn verify_and_export_name_the_first_bad_record() {
    let host = Host::new("");
    drop(host.ledger());
    fill(&host.ledger());
    let (code, out, err) = host.weir(&["verify", "--json"]);
    let proof = &lines(&out)[0];
    assert_eq!((code, proof["records"].as_u64(), proof["epochs"].as_u64()), (0, Some(5), Some(2)), "{err}");
    let checkpoint = proof["head"].as_str().unwrap().to_owned();
    let file = host.dir.path().join("trail.jsonl");
    let path = file.to_str().unwrap();
    assert_eq!(host.weir(&["export", "--out", path]).0, 0);
    assert_eq!(host.weir(&["verify", "--file", path]).0, 0);
    assert_eq!(host.weir(&["verify", "--file", path, "--checkpoint", &checkpoint]).0, 0);
    let whole = std::fs::read_to_string(&file).unwrap();

    std::fs::write(&file, whole.replacen("r-2", "r-7", 1)).unwrap();
    let (code, out, _) = host.weir(&["verify", "--file", path, "--json"]);
    assert_eq!((code, lines(&out)[0]["seq"].as_u64()), (1, Some(4)), "{out}");
    let cut: Vec<&str> = whole.lines().take(4).collect();
    std::fs::write(&file, cut.join("\n")).unwrap();
    assert_eq!(host.weir(&["verify", "--file", path]).0, 0, "a cut tail alone cannot show");
    let (code, out, _) = host.weir(&["verify", "--file", path, "--checkpoint", &checkpoint]);
    assert!(code == 1 && out.contains("seq 5"), "{out}");

    let store = Store::open(&host.ledger_dir()).unwrap();
    store
        .connection()
        .execute("UPDATE record SET raw = replace(raw, 'denied', 'allowed') WHERE seq = 4", [])
        .unwrap();
    let (code, out, _) = host.weir(&["verify"]);
    assert!(code == 1 && out.contains("seq 4"), "{out}");
    assert_eq!(host.weir(&["export", "--out", host.dir.path().join("x").to_str().unwrap()]).0, 1);
}

#[test]
fn a_store_with_other_columns_is_not_proved() {
    let host = Host::new("");
    fill(&host.ledger());
    let db = Store::open(&host.ledger_dir()).unwrap();
    let lie = "PRAGMA writable_schema = 1;
        UPDATE sqlite_master SET sql = replace(sql, 'raw ->> ''decision''', '''allowed''') WHERE name = 'audit'";
    db.connection().execute_batch(lie).unwrap();
    drop(db);
    let (code, out, err) = host.weir(&["verify"]);
    assert!(code == 1 && out.contains("redefined"), "{out}{err}");
}

#[test]
fn clickhouse_answers_and_is_proved() {
    let server = weir_clickhouse::start().unwrap();
    let host = Host::new(&format!("  clickhouse: {{url: \"{}\"}}\n", server.url));
    let ledger = host.ledger();
    fill(&ledger);
    let config = Config::load(&host.config).unwrap();
    let shipper = Shipper::start(&host.ledger_dir(), config.audit.clickhouse.as_ref().unwrap()).unwrap();
    wait(|| shipper.status().shipped_seq == 4);
    let (code, out, err) = host.weir(&[
        "query",
        "--clickhouse",
        "--json",
        "SELECT request_id, groups, seq FROM denials ARRAY JOIN ['dba'] AS groups",
    ]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(lines(&out)[0], serde_json::json!({"request_id": "r-2", "groups": "dba", "seq": 3}));
    assert_eq!(host.weir(&["query", "--clickhouse", "TRUNCATE TABLE audit"]).0, 1);
    let (code, out, err) = host.weir(&["verify", "--clickhouse", "--json"]);
    assert_eq!((code, lines(&out)[0]["records"].as_u64()), (0, Some(4)), "{err}");
    for (change, seq) in [("UPDATE decision = 'allowed' WHERE seq = 3", 3), ("DELETE WHERE seq = 4", 4)] {
        let body = format!("ALTER TABLE weir.audit {change} SETTINGS mutations_sync = 2");
        let done = Command::new("curl").args(["-sf", &server.url, "-d", &body]).status().unwrap();
        assert!(done.success());
        let (code, out, err) = host.weir(&["verify", "--clickhouse", "--json"]);
        assert_eq!((code, lines(&out)[0]["seq"].as_u64()), (1, Some(seq)), "{out}{err}");
        let restore =
            "ALTER TABLE weir.audit UPDATE decision = 'denied' WHERE seq = 3 SETTINGS mutations_sync = 2";
        let done = Command::new("curl").args(["-sf", &server.url, "-d", restore]).status().unwrap();
        assert!(done.success());
    }
    drop(shipper);
    drop(ledger);
    assert!(Path::new(&host.ledger_dir()).join("audit.sqlite").exists());
}

fn wait(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
