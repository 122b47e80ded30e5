//! What a connection's closing row says was sent to the server, against what the far side of the wire received: the
//! workload's own bytes and weir's, which are told apart, add up to it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use weir_tests::agent::{Done, fed};
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::web::Certificate;
use weir_tests::{Agent, Lab, Postgres, Setup, Tap, Web, policies};

/// (the workload's own bytes, weir's) of each connection that has ended, held against the tap.
fn accounts(agent: &Agent, tap: &Tap, connections: usize) -> Vec<(u64, u64)> {
    let ended = tap.ended(connections).unwrap();
    assert_eq!(ended.len(), connections, "{ended:?}");
    assert!(ended.iter().all(|count| count.read == count.kernel), "{ended:?}");
    let sql = format!(
        "SELECT upstream_bytes, weir_bytes, wire_bytes FROM connections
         WHERE dst_port = {0} AND {connections} = (SELECT count(*) FROM connections WHERE dst_port = {0})",
        tap.port
    );
    let rows = agent.audited(&sql).unwrap();
    let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
    let mut wires: Vec<u64> = rows.iter().map(|row| number(row, "wire_bytes")).collect();
    let mut received: Vec<u64> = ended.iter().map(|count| count.read).collect();
    wires.sort_unstable();
    received.sort_unstable();
    assert_eq!(wires, received, "{rows:?}");
    rows.iter().map(|row| (number(row, "upstream_bytes"), number(row, "weir_bytes"))).collect()
}

/// What the outcomes of the acts say together.
fn acts(agent: &Agent) -> u64 {
    let rows =
        agent.audit("SELECT coalesce(sum(upstream_bytes), 0) AS sum FROM audit WHERE kind = 'outcome'");
    rows.unwrap()[0]["sum"].as_u64().unwrap()
}

/// Bytes of the request heads that `curl -v` says it sent.
fn sent(said: &str) -> u64 {
    said.lines().filter_map(|line| line.strip_prefix("> ")).map(|line| line.trim().len() as u64 + 2).sum()
}

struct Site {
    agent: Agent,
    tap: Tap,
    _web: Web,
    // Last: it removes what the others use.
    _lab: Lab,
}

fn site(name: &str, tls: bool, policy: impl FnOnce(u16, &Web) -> String) -> Site {
    let lab = Lab::new(name).unwrap();
    let web = Web::start(&lab).unwrap();
    let tap = Tap::before(if tls { web.tls_port } else { web.port }).unwrap();
    let setup = Setup::default().policy("site.yaml", &policy(tap.port, &web)).secret("api", KEY);
    let agent = Agent::start(&lab, &setup).unwrap();
    Site { agent, tap, _web: web, _lab: lab }
}

const KEY: &str = "lab-key-5f1c9e";

impl Site {
    fn curl(&self, arguments: &[&str]) -> Done {
        self.agent.run(&[&["curl", "-sS", "--max-time", "30"], arguments].concat()).unwrap()
    }
}

fn reading(port: u16) -> String {
    format!(
        "policy: site\ntarget: {{protocol: http, host: 127.0.0.1, port: {port}}}\nmode: enforce\ndefault: deny\nrules:
  - {{name: reads, match: {{http: {{method: [GET], path: [\"/fine/**\"]}}}}, then: allow}}\n"
    )
}

#[test]
fn a_request_that_passes_as_it_came_is_all_the_workloads() {
    let site = site("bytes-http", false, |port, _| reading(port));
    let url = format!("http://127.0.0.1:{}/fine/one", site.tap.port);
    let asked = site.curl(&["-v", &url]);
    assert_eq!(asked.out, "{\"ok\": true}", "{asked:?}");
    let sent = sent(&asked.err);
    assert_eq!(accounts(&site.agent, &site.tap, 1), [(sent, 0)], "{asked:?}");
    assert_eq!(acts(&site.agent), sent);
}

#[test]
fn a_denied_request_sends_nothing() {
    let site = site("bytes-denied", false, |port, _| reading(port));
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", site.tap.port);
    let denied = site.curl(&["-w", "|%{http_code}", "-d", "some body", &url("/fine/one")]);
    assert!(denied.out.ends_with("|403"), "{denied:?}");
    let sql = "SELECT kind, upstream_bytes, weir_bytes FROM audit
               WHERE session_id IN (SELECT session_id FROM connections) ORDER BY seq";
    let rows = site.agent.audited(sql).unwrap();
    assert!(rows.iter().any(|row| row["kind"] == "connection"), "{rows:?}");
    assert!(rows.iter().all(|row| row["upstream_bytes"] == 0 && row["weir_bytes"] == 0), "{rows:?}");
    assert_eq!(site.tap.ended(0).unwrap(), [], "no connection was made");

    // On a connection that is used otherwise, it adds nothing.
    let both = site.curl(&["-v", &url("/denied"), &url("/fine/two")]);
    assert!(both.out.ends_with("{\"ok\": true}"), "{both:?}");
    site.tap.ended(1).unwrap();
    let sql = "SELECT upstream_bytes, weir_bytes FROM connections WHERE wire_bytes > 0";
    let rows = site.agent.audited(sql).unwrap();
    assert_eq!((rows.len(), &rows[0]["weir_bytes"]), (1, &0.into()), "{rows:?}");
    let last = both.err.rfind("> GET /fine/two").unwrap();
    let sent = sent(&both.err[last..]);
    assert_eq!(rows[0]["upstream_bytes"], sent);
    assert_eq!(site.tap.ended(1).unwrap()[0].read, sent);
}

#[test]
fn tls_and_a_credential_are_weirs() {
    for engine in ["rustls", "boring"] {
        let site = site(&format!("bytes-{engine}"), true, |port, web| {
            policies::api(port, web.ca.to_str().unwrap(), engine)
        });
        let url = |path: &str| format!("https://localhost:{}{path}", site.tap.port);
        let asked = site.curl(&["-4", "-v", "--http1.1", &url("/one"), &url("/two")]);
        assert_eq!(asked.out, "{\"ok\": true}{\"ok\": true}", "{asked:?}");
        let sent = sent(&asked.err);
        let account = accounts(&site.agent, &site.tap, 1)[0];
        assert_eq!(account.0, sent, "{engine}: {asked:?}");
        assert_eq!(acts(&site.agent), sent);
        // A ClientHello alone takes more, and the key goes out with each request.
        assert!(account.1 > 200 + 2 * KEY.len() as u64, "{engine}: {account:?}");
    }
}

/// The leg was dialled and the certificate refused: all that went out was weir's.
#[test]
fn a_handshake_that_fails_is_weirs() {
    let site = site("bytes-refused", true, |port, web| {
        let other = Certificate::make(&web.log.with_file_name("other"), &["localhost"]).unwrap();
        policies::api(port, other.ca.to_str().unwrap(), "rustls")
    });
    let refused = site.curl(&["-4", &format!("https://localhost:{}/one", site.tap.port)]);
    assert_ne!(refused.code, 0, "{refused:?}");
    let account = accounts(&site.agent, &site.tap, 1)[0];
    assert!(account.0 == 0 && account.1 > 200, "{account:?}");
}

struct Shop {
    agent: Agent,
    tap: Tap,
    postgres: Postgres,
    // Last: it removes what the others use.
    _lab: Lab,
}

/// With TLS to the server, or without it; masks make weir read the catalog.
fn shop(name: &str, tls: bool, more: &str) -> Shop {
    let lab = Lab::new(name).unwrap();
    let files = Certificate::make(&lab.dir().join("tls"), &["127.0.0.1"]).unwrap();
    let options = Options { tls: tls.then_some((files.certificate.as_path(), files.key.as_path())) };
    let postgres = Postgres::start(&lab, options).unwrap();
    let tap = Tap::before(postgres.port).unwrap();
    let mut policy = policies::shop(tap.port);
    let secured = format!("default: deny\ntls: {{mode: verify, ca: {}}}\n{more}", files.ca.display());
    if tls {
        policy = policy.replace("default: deny", &secured);
    }
    let setup = Setup::default().policy("classes.yaml", policies::CLASSES).policy("shop.yaml", &policy);
    let agent = Agent::start(&lab, &setup.secret("db", "app-secret")).unwrap();
    Shop { agent, tap, postgres, _lab: lab }
}

impl Shop {
    fn psql(&self, script: &str) -> Done {
        let target = format!("host=127.0.0.1 port={} dbname=shop user=postgres", self.tap.port);
        self.session(&["psql", "-X", "-A", "-t", &target], script)
    }

    fn session(&self, command: &[&str], script: &str) -> Done {
        fed(self.agent.app(command).unwrap().env("PGPASSWORD", PASSWORD), script).unwrap()
    }
}

/// A statement that runs, one that is denied (its pill is weir's), one whose masks need the catalog.
const SCRIPT: &str = "SELECT 1;\nDROP TABLE orders;\nSELECT ssn FROM customers WHERE id = 1;\n";

fn check(shop: &Shop) -> (u64, u64) {
    let seen = shop.psql(SCRIPT);
    assert!(seen.out.contains("***-**-6789") && seen.err.contains("not dropped"), "{seen:?}");
    let account = accounts(&shop.agent, &shop.tap, 1)[0];
    let denied = "SELECT upstream_bytes, weir_bytes FROM audit WHERE rule = 'no-drop'";
    let rows = shop.agent.audited(denied).unwrap();
    assert!(rows.iter().all(|row| row["upstream_bytes"] == 0 && row["weir_bytes"] == 0), "{rows:?}");
    // The acts are part of the connection's: start-up, authentication and the end belong to none.
    let acts = acts(&shop.agent);
    assert!(0 < acts && acts <= account.0, "{acts} of {account:?}");
    account
}

#[test]
fn a_pill_and_the_catalog_are_weirs() {
    let shop = shop("bytes-pg", false, "");
    let plain = check(&shop);
    assert!(plain.1 > 0, "{plain:?}");
    // Control: where nothing is denied or masked, all of it is the workload's.
    let (lab, tap) = (Lab::new("bytes-pg-plain").unwrap(), Tap::before(shop.postgres.port).unwrap());
    let policy = format!(
        "policy: shop\ntarget: {{protocol: postgres, host: 127.0.0.1, port: {}, database: shop}}\nmode: enforce
default: deny\nrules:\n  - {{name: reads, match: {{sql: {{effects: [read, session, txn]}}}}, then: allow}}\n",
        tap.port
    );
    let agent = Agent::start(&lab, &Setup::default().policy("shop.yaml", &policy)).unwrap();
    let shop = Shop { agent, tap, postgres: shop.postgres, _lab: lab };
    let seen = shop.psql("SELECT 1;\nSELECT id FROM orders WHERE id = 7;\n");
    assert_eq!(seen.out, "1\n7\n", "{seen:?}");
    let account = accounts(&shop.agent, &shop.tap, 1)[0];
    assert!(account.0 > 0 && account.1 == 0, "{account:?}");
}

#[test]
fn the_workloads_login_over_weirs_tls_adds_up() {
    let shop = shop("bytes-pg-tls", true, "");
    let account = check(&shop);
    assert!(account.1 > 300, "{account:?}");
}

#[test]
fn a_login_that_weir_makes_is_weirs() {
    let shop = shop("bytes-pg-login", true, "inject: {user: app, password: \"kv#db\"}\n");
    let account = check(&shop);
    assert!(account.1 > 300, "{account:?}");
}

#[test]
fn pgbench_adds_up() {
    let shop = shop("bytes-pgbench", false, "");
    let mut script = String::new();
    for statement in ["SELECT ssn FROM customers WHERE id = 2", "SELECT count(*) FROM orders"] {
        writeln!(script, "{statement};").unwrap();
    }
    let (port, program) = (shop.tap.port.to_string(), shop.postgres.bin().join("pgbench"));
    for (round, mode) in ["simple", "extended", "prepared"].into_iter().enumerate() {
        let arguments =
            ["-n", "-M", mode, "-c", "3", "-t", "20", "-h", "127.0.0.1", "-U", "postgres", "-p", &port];
        let done = shop.session(
            &[&[program.to_str().unwrap()], &arguments[..], &["-f", "/dev/stdin", "shop"]].concat(),
            &script,
        );
        assert!(done.out.contains("60/60"), "{mode}: {done:?}");
        // pgbench opens one more to look at the database first.
        accounts(&shop.agent, &shop.tap, 4 * (round + 1));
    }
}

#[test]
fn what_passes_unread_is_all_the_workloads() {
    let lab = Lab::new("bytes-opaque").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tap = Tap::before(listener.local_addr().unwrap().port()).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all);
            let _ = write!(stream, "{}", all.len());
        }
    });
    let policy = format!(
        "policy: bulk\ntarget: {{host: 127.0.0.1, port: {0}}}\nmode: enforce\ndefault: deny\nrules:
  - {{name: bulk, match: {{dst: {{host: 127.0.0.1, port: {0}}}}}, then: {{opaque: allow}}}}\n",
        tap.port
    );
    let agent = Agent::start(&lab, &Setup::default().policy("bulk.yaml", &policy)).unwrap();
    let script = "import socket,sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10); s.settimeout(30)
s.sendall(b'\\x00\\x01bulk' * 500000); s.shutdown(socket.SHUT_WR); print(s.recv(100).decode())";
    let seen = agent.run(&["python3", "-c", script, &tap.port.to_string()]).unwrap();
    assert_eq!(seen.out.trim(), "3000000", "{seen:?}");
    assert_eq!(accounts(&agent, &tap, 1), [(3_000_000, 0)]);
    assert_eq!(acts(&agent), 3_000_000);
}

/// The tap itself: what it says of a connection that did not pass weir is what was sent.
#[test]
fn the_tap_counts_what_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tap = Tap::before(listener.local_addr().unwrap().port()).unwrap();
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut stream| drop(stream.read_to_end(&mut Vec::new())))
    });
    let script = "import socket,sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.sendall(b'x' * 12345); s.close()";
    let sent = Command::new("python3").args(["-c", script, &tap.port.to_string()]).status().unwrap();
    assert!(sent.success());
    let count = tap.ended(1).unwrap()[0];
    assert_eq!((count.read, count.kernel), (12345, 12345));
}
