//! PostgreSQL through weir with stock psql: masks, denials, approvals, what passes and what is refused.

use std::io::Write;
use std::process::{Command, Stdio};

use weir_tests::agent::{Done, done};
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::process::until;
use weir_tests::{Agent, Lab, Postgres, Setup, policies};

struct Bench {
    agent: Agent,
    postgres: Postgres,
    // Last: it removes what the others use.
    _lab: Lab,
}

fn bench(name: &str) -> Bench {
    let lab = Lab::new(name).unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("shop.yaml", &policies::shop(postgres.port));
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, postgres, _lab: lab }
}

impl Bench {
    /// Stock psql as workload `app`; `script` on its standard input.
    fn psql(&self, script: &str) -> Done {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        done(child.wait_with_output().unwrap()).unwrap()
    }

    fn command(&self) -> Command {
        let port = self.postgres.port.to_string();
        let psql = ["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "shop"];
        let mut command = self.agent.app(&psql).unwrap();
        command.env("PGPASSWORD", PASSWORD);
        command
    }
}

#[test]
fn rows_arrive_masked_by_name_alias_and_view() {
    let bench = bench("masks");
    let seen = bench.psql("SELECT name, ssn, credit_card FROM customers ORDER BY id LIMIT 1;");
    assert_eq!(seen.out.trim(), "Ada Lovelace|***-**-6789|[CARD]", "{seen:?}");
    let seen = bench.psql("SELECT ssn AS harmless FROM customers WHERE id = 1;");
    assert_eq!(seen.out.trim(), "***-**-6789", "{seen:?}");
    let seen = bench.psql("SELECT national_id FROM contacts WHERE id = 1;");
    assert_eq!(seen.out.trim(), "***-**-6789", "{seen:?}");
    let hashed = bench.psql("SELECT email FROM customers WHERE id = 1;");
    assert_eq!(hashed.out.trim().len(), 16, "{hashed:?}");
    assert!(!hashed.out.contains('@'));
    // The server still holds the real value: weir masked, not the database.
    assert_eq!(
        bench.postgres.admin("shop", "SELECT ssn FROM customers WHERE id = 1").unwrap(),
        "219-45-6789"
    );
}

#[test]
fn expressions_over_protected_columns_are_refused_and_counts_are_not() {
    let bench = bench("expressions");
    for sql in [
        "SELECT upper(ssn) FROM customers;",
        "SELECT ssn || '' FROM customers;",
        "SELECT row_to_json(c) FROM customers c;",
        "SELECT x FROM (SELECT reverse(national_id) x FROM contacts) y;",
        "COPY customers TO STDOUT;",
        "SELECT query_to_xml('select ssn from customers', true, true, '');",
    ] {
        let seen = bench.psql(sql);
        assert!(seen.err.contains("ERROR:  "), "{sql}: {seen:?}");
        assert!(!seen.out.contains("219") && !seen.err.contains("219"), "{sql}: {seen:?}");
    }
    assert_eq!(bench.psql("SELECT count(*) FROM customers;").out.trim(), "3");
    assert_eq!(bench.psql("SELECT id, total * 2 FROM orders WHERE id = 1;").out.trim(), "1|21.00");
    let described = bench.psql("\\d customers\n");
    assert!(described.out.contains("credit_card|text"), "{described:?}");
}

#[test]
fn a_denied_statement_is_an_error_and_the_session_lives_on() {
    let bench = bench("deny");
    let seen = bench.psql("\\set VERBOSITY verbose\nDROP TABLE orders;\nSELECT 'still here';\n");
    assert!(seen.err.contains("42501"), "{seen:?}");
    assert!(seen.err.contains("tables are not dropped from here"), "{seen:?}");
    assert!(seen.err.contains("no-drop"), "{seen:?}");
    assert!(seen.out.contains("still here"), "{seen:?}");
    let aborted =
        bench.psql("BEGIN;\nINSERT INTO orders VALUES (99, 1, 1);\nDROP TABLE orders;\nSELECT 1;\nCOMMIT;\n");
    assert!(aborted.err.contains("current transaction is aborted"), "{aborted:?}");
    let all_or_nothing = bench.psql("INSERT INTO orders VALUES (98, 1, 1)\\; DROP TABLE orders;\n");
    assert!(all_or_nothing.err.contains("tables are not dropped"), "{all_or_nothing:?}");
    let count = bench.postgres.admin("shop", "SELECT count(*) FROM orders").unwrap();
    assert_eq!(count, "30", "nothing of a denied string ran, and the aborted transaction was rolled back");
}

#[test]
fn a_held_delete_runs_only_after_the_approval() {
    let bench = bench("hold");
    let mut command = bench.command();
    command.args(["-c", "DELETE FROM orders WHERE id = 30"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let psql = command.spawn().unwrap();
    let list = || bench.agent.weir(&["approvals", "list", "--json"]).unwrap().out;
    until("the delete waits at the desk", || list().contains("DELETE FROM orders WHERE id = 30")).unwrap();
    assert_eq!(bench.postgres.admin("shop", "SELECT count(*) FROM orders WHERE id = 30").unwrap(), "1");
    let question: serde_json::Value = serde_json::from_str(list().lines().next().unwrap()).unwrap();
    let id = question["id"].as_str().unwrap();
    let approved = bench.agent.weir(&["approvals", "approve", id, "--reason", "ticket 7"]).unwrap();
    assert_eq!(approved.code, 0, "{approved:?}");
    let seen = done(psql.wait_with_output().unwrap()).unwrap();
    assert!(seen.out.contains("DELETE 1"), "{seen:?}");
    assert_eq!(bench.postgres.admin("shop", "SELECT count(*) FROM orders WHERE id = 30").unwrap(), "0");
    let rows = bench
        .agent
        .audit("SELECT decision, approver FROM audit WHERE approval_id <> '' ORDER BY seq")
        .unwrap();
    assert!(rows.iter().any(|row| row["approver"] == "ops@lab.test"), "{rows:?}");
}

#[test]
fn a_refused_delete_never_runs() {
    let bench = bench("refuse");
    let mut command = bench.command();
    command.args(["-c", "DELETE FROM orders"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let psql = command.spawn().unwrap();
    let list = || bench.agent.weir(&["approvals", "list", "--json"]).unwrap().out;
    until("the delete waits at the desk", || list().contains("DELETE FROM orders")).unwrap();
    let question: serde_json::Value = serde_json::from_str(list().lines().next().unwrap()).unwrap();
    bench.agent.weir(&["approvals", "deny", question["id"].as_str().unwrap()]).unwrap();
    let seen = done(psql.wait_with_output().unwrap()).unwrap();
    assert!(seen.err.contains("ERROR"), "{seen:?}");
    assert_eq!(bench.postgres.admin("shop", "SELECT count(*) FROM orders").unwrap(), "30");
}

#[test]
fn a_held_act_whose_client_goes_away_is_dropped() {
    let bench = bench("gone");
    let mut command = bench.command();
    command.args(["-c", "DELETE FROM orders"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let psql = command.spawn().unwrap();
    let list = || bench.agent.weir(&["approvals", "list", "--json"]).unwrap().out;
    until("the delete waits at the desk", || list().contains("DELETE FROM orders")).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(list().lines().next().unwrap()).unwrap()["id"].clone();
    // `weir run` hands the signal on to psql.
    Command::new("kill").args(["-TERM", &psql.id().to_string()]).status().unwrap();
    until("the question is withdrawn", || list().is_empty()).unwrap();
    let late = bench.agent.weir(&["approvals", "approve", id.as_str().unwrap()]).unwrap();
    assert_eq!(late.code, 1, "{late:?}");
    done(psql.wait_with_output().unwrap()).unwrap();
    assert_eq!(bench.postgres.admin("shop", "SELECT count(*) FROM orders").unwrap(), "30");
}

#[test]
fn the_audit_names_process_policy_and_statement() {
    let bench = bench("audit");
    bench.psql("SELECT ssn FROM customers WHERE ssn = '219-45-6789';");
    let rows = bench
        .agent
        .audit("SELECT * FROM audit WHERE kind = 'verdict' AND statement LIKE '%customers%' ORDER BY seq LIMIT 1")
        .unwrap();
    let row = rows.first().expect("a verdict row");
    assert_eq!(row["workload"], "app");
    assert_eq!(row["owner"], "ada@lab.test");
    assert_eq!(row["decision"], "masked");
    assert_eq!(row["policy_commit"], "none");
    assert!(row["exe"].as_str().unwrap().ends_with("psql"), "{row}");
    assert_eq!(row["exe_sha256"].as_str().unwrap().len(), 64);
    assert!(!row["statement"].as_str().unwrap().contains("219-45-6789"), "the literal is masked: {row}");
    let verified = bench.agent.weir(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn what_the_administrator_defines_later_is_known_to_the_next_connection() {
    let bench = bench("redefined");
    let look = "SELECT code FROM badges WHERE id = 1;";
    for (definition, shown) in [
        ("SELECT id, name AS code FROM customers", "Ada Lovelace"),
        ("SELECT id, ssn::text AS code FROM customers", "***-**-6789"),
        ("SELECT id, name AS code FROM customers", "Ada Lovelace"),
        ("SELECT c.id, c.national_id::text AS code FROM contacts c", "***-**-6789"),
    ] {
        // A view that keeps its OID is the worst case: only its rule changes.
        bench.postgres.admin("shop", &format!("CREATE OR REPLACE VIEW badges AS {definition}")).unwrap();
        let seen = bench.psql(look);
        assert_eq!(seen.out.trim(), shown, "{definition}: {seen:?}");
    }
}
