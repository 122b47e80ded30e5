//! PostgreSQL logins that weir makes itself, and TLS on either leg.

use std::path::Path;

use weir_tests::agent::Done;
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::web::Certificate;
use weir_tests::{Agent, Lab, Postgres, Setup};

/// Password of the role `app` in the sample database.
const SECRET: &str = "app-secret";

struct Bench {
    agent: Agent,
    postgres: Postgres,
    // Last: it removes what the others use.
    _lab: Lab,
}

/// A server with TLS, and a policy that insists on its certificate; `more` is further lines of the policy.
fn bench(name: &str, more: &str) -> Bench {
    let lab = Lab::new(name).unwrap();
    let files = Certificate::make(&lab.dir().join("tls"), &["127.0.0.1"]).unwrap();
    let tls = Some((files.certificate.as_path(), files.key.as_path()));
    let postgres = Postgres::start(&lab, Options { tls }).unwrap();
    let setup =
        Setup::default().policy("shop.yaml", &policy(postgres.port, &files.ca, more)).secret("db", SECRET);
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, postgres, _lab: lab }
}

fn policy(port: u16, ca: &Path, more: &str) -> String {
    format!(
        "policy: shop
target: {{protocol: postgres, host: 127.0.0.1, port: {port}, database: shop}}
mode: enforce
default: deny
tls: {{mode: verify, ca: {}}}
{more}
rules:
  - {{name: app-reads, match: {{who: [\"workload:app\"], sql: {{effects: [read, session, txn]}}}}, then: allow}}
",
        ca.display()
    )
}

impl Bench {
    /// psql with the parameters given, asking who it is and whether the server's leg has TLS.
    fn ask(&self, parameters: &str) -> Done {
        let target = format!("host=127.0.0.1 port={} dbname=shop {parameters}", self.postgres.port);
        let sql = "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        self.agent.run(&["psql", "-X", "-A", "-t", &target, "-c", sql]).unwrap()
    }
}

#[test]
fn weir_logs_in_whatever_the_workload_knows() {
    let bench = bench("inject", "inject: {user: app, password: \"kv#db\"}");
    for mode in ["disable", "prefer", "require"] {
        let seen = bench.ask(&format!("user=nobody password=wrong sslmode={mode}"));
        assert_eq!(seen.out.trim(), "app|t", "{mode}: {seen:?}");
    }
    // Control: the server itself does not let that user in.
    let direct = std::process::Command::new("psql")
        .env("PGPASSWORD", "wrong")
        .args(["-X", "-h", "127.0.0.1", "-p", &bench.postgres.port.to_string(), "-U", "nobody", "-d", "shop"])
        .output()
        .unwrap();
    assert!(!direct.status.success());
    assert!(!bench.agent.written().unwrap().contains(SECRET));
}

#[test]
fn the_workloads_own_login_crosses_verified_tls() {
    let bench = bench("relay", "");
    let seen = bench.ask(&format!("user=postgres password={PASSWORD} sslmode=prefer"));
    assert_eq!(seen.out.trim(), "postgres|t", "{seen:?}");
    let seen = bench.ask("user=postgres password=wrong sslmode=prefer");
    assert!(seen.err.contains("password authentication failed"), "{seen:?}");
    assert!(!bench.agent.written().unwrap().contains(PASSWORD));

    let insisting = bench.ask(&format!("user=postgres password={PASSWORD} sslmode=require"));
    assert!(insisting.err.contains("does not support SSL"), "{insisting:?}");
    let sql = "SELECT decision, reason FROM audit WHERE kind = 'connection' AND decision = 'denied'";
    let rows = bench.agent.audited(sql).unwrap();
    assert!(rows[0]["reason"].as_str().unwrap().contains("sslmode=require"), "{rows:?}");
}
