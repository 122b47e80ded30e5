//! The process that reads what workloads and servers say: without power, without keys, and replaced when it ends.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;

use weir_tests::policies;
use weir_tests::postgres::Options;
use weir_tests::process::until;
use weir_tests::waiter::HOLD;
use weir_tests::web::Web;
use weir_tests::{Agent, Lab, Postgres, Setup, Waiter};

/// Password of the role `app` in the sample database.
const SECRET: &str = "app-secret";

struct Bench {
    agent: Agent,
    postgres: Postgres,
    web: Web,
    // Last: it removes what the others use.
    _lab: Lab,
}

fn bench(name: &str) -> Bench {
    let lab = Lab::new(name).unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let web = Web::start(&lab).unwrap();
    let shop = format!(
        "policy: shop
target: {{protocol: postgres, host: 127.0.0.1, port: {}, database: shop}}
mode: enforce
default: deny
inject: {{user: app, password: \"kv#db\"}}
rules:
  - {{name: app-reads, match: {{who: [\"workload:app\"], sql: {{effects: [read, session, txn]}}}}, then: allow}}
",
        postgres.port
    );
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("shop.yaml", &shop)
        .policy("web.yaml", &policies::web(web.port))
        .secret("db", SECRET);
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, postgres, web, _lab: lab }
}

impl Bench {
    fn relay(&self) -> serde_json::Value {
        self.agent.status().unwrap_or_default()["relay"].clone()
    }

    fn relay_pid(&self) -> u32 {
        u32::try_from(self.relay()["pid"].as_u64().unwrap_or(0)).unwrap()
    }

    fn curl(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.web.port);
        self.agent.run(&["curl", "-sS", "--max-time", "30", &url]).unwrap().out
    }

    fn kill_relay(&self) -> u32 {
        self.signal_relay("-KILL")
    }

    fn signal_relay(&self, signal: &str) -> u32 {
        let pid = self.relay_pid();
        assert_ne!(pid, 0);
        let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
        assert!(sent.success());
        pid
    }
}

/// Whether some bytes are anywhere in a process's memory.
fn remembers(pid: u32, wanted: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r'))).any(
        |line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            // What cannot be read (vvar and its like) holds nothing of ours.
            memory.read_exact_at(&mut bytes, from).is_ok()
                && bytes.windows(wanted.len()).any(|window| window == wanted)
        },
    )
}

#[test]
fn what_reads_the_bytes_has_no_power_and_no_key() {
    let bench = bench("confined");
    assert_eq!(bench.curl("/text"), "write to [EMAIL]");
    let target = format!("host=127.0.0.1 port={} dbname=shop user=x", bench.postgres.port);
    let asked = bench.agent.run(&["psql", "-X", "-A", "-t", &target, "-c", "SELECT current_user"]).unwrap();
    assert_eq!(asked.out.trim(), "app", "{asked:?}");

    let (relay, pid) = (bench.relay(), bench.relay_pid());
    assert_ne!(pid, bench.agent.pid());
    assert_eq!(relay["capabilities"], 0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(field("Uid:").iter().chain(&field("Gid:")).all(|id| id != "0"), "{status}");
    assert_eq!(field("Groups:"), Vec::<String>::new());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".into()], vec!["2".into()]));

    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let what = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        assert!(!what.contains("bpf"), "no map, no program: {what}");
        let number = entry.file_name().to_string_lossy().into_owned();
        let flags = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
        let flags = i32::from_str_radix(&flags, 8).unwrap();
        let is_log = number == "1" || number == "2";
        if what.starts_with('/') && !is_log && flags & libc::O_ACCMODE != libc::O_RDONLY {
            assert!(what.ends_with(".intake"), "{what}");
            assert_eq!(flags & libc::O_ACCMODE, libc::O_WRONLY);
            assert_ne!(flags & libc::O_APPEND, 0, "it can add to the trail, not change it");
        }
    }
    let key = fs::read_to_string(bench.agent.config.parent().unwrap().join("ca/ca.key")).unwrap();
    let key = key.lines().nth(2).unwrap().as_bytes();
    for (name, secret) in [("password", SECRET.as_bytes()), ("the CA's key", key)] {
        assert!(!remembers(pid, secret), "{name}");
    }
    assert!(remembers(bench.agent.pid(), SECRET.as_bytes()), "the keeper has it: one finds it where it is");
    assert!(remembers(pid, b"weir-relay"), "and finds things there");
}

#[test]
fn a_relaying_process_that_ends_is_replaced_and_its_connections_are_reset() {
    let bench = bench("replaced");
    let port = bench.web.port.to_string();
    let hold = bench.agent.app(&["python3", "-c", HOLD, &port, "/text"]).unwrap();
    let mut held = Waiter::start(hold).unwrap();
    let before = bench.kill_relay();
    assert_eq!(held.line().unwrap(), "Connection reset by peer");
    drop(held);
    until("another serves", || ![0, before].contains(&bench.relay_pid())).unwrap();
    assert_eq!(bench.curl("/text"), "write to [EMAIL]");
    let rows = bench.agent.audited("SELECT decision, reason FROM audit WHERE method = 'relay'").unwrap();
    assert_eq!(rows[0]["decision"], "failed", "{rows:?}");
    // What was allowed before the end is in the trail, and the trail holds.
    let acts = bench.agent.audited("SELECT count(*) AS n FROM audit WHERE kind = 'verdict'").unwrap();
    assert_eq!(acts[0]["n"], 2, "{acts:?}");
    let verified = bench.agent.weir(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn a_policy_that_changes_while_the_relaying_process_is_replaced_is_recorded() {
    let bench = bench("replaced-policy");
    let sha = || bench.agent.status().unwrap()["policy"]["sha256"].clone();
    let first = sha();
    // It never says that it judges by the change.
    let stopped = bench.signal_relay("-STOP");
    let path = bench.agent.policies.join("web.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n# The same, said again.\n")).unwrap();
    until("the keeper has read it", || {
        fs::read_to_string(&bench.agent.log).unwrap().contains("A new policy is in force")
    })
    .unwrap();
    assert_eq!(sha(), first, "in force is what the relaying process judges by");
    bench.kill_relay();
    until("another serves", || ![0, stopped].contains(&bench.relay_pid())).unwrap();
    until("it judges by the change", || ![first.clone(), "".into()].contains(&sha())).unwrap();
    let sql = "SELECT policy_sha FROM audit WHERE method = 'policy'";
    let rows = bench.agent.audited(sql).unwrap();
    assert_eq!(rows.iter().map(|row| &row["policy_sha"]).collect::<Vec<_>>(), [&sha()], "{rows:?}");
    // Another one that judges by the same is no change.
    let before = bench.kill_relay();
    until("a third serves", || ![0, before].contains(&bench.relay_pid())).unwrap();
    until("it judges", || bench.curl("/text") == "write to [EMAIL]").unwrap();
    assert_eq!(bench.agent.audit(sql).unwrap().len(), 1);
}

#[test]
fn a_relaying_process_that_ends_again_and_again_closes_the_fence() {
    let mut bench = bench("again");
    let mut killed = 0;
    until("the agent gives up", || {
        if bench.relay_pid() != 0 {
            bench.kill_relay();
            killed += 1;
        }
        !bench.agent.server().runs()
    })
    .unwrap();
    assert!(killed > 5, "{killed}");
    let refused = bench.agent.app(&["true"]).unwrap().output().unwrap();
    assert_eq!(refused.status.code(), Some(125), "no agent, no workload");
    let mut direct = TcpStream::connect(("127.0.0.1", bench.web.port)).unwrap();
    direct.write_all(b"GET /text HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    direct.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "unlabelled it goes on: {answer}");
}

#[test]
fn a_question_goes_with_whoever_asked_it() {
    let lab = Lab::new("withdrawn").unwrap();
    let web = Web::start(&lab).unwrap();
    let policy = format!(
        "policy: web
target: {{protocol: http, host: \"127.0.0.1:{}\"}}
mode: enforce
default: deny
rules:
  - {{name: reads, match: {{http: {{method: [GET]}}}}, then: allow}}
  - {{name: held, match: {{http: {{path: [/held]}}}}, then: {{approve: {{by: [\"group:dba\"], within: 2m}}}}}}
",
        web.port
    );
    let agent = Agent::start(&lab, &Setup::default().policy("web.yaml", &policy)).unwrap();
    let left = agent.run(&["python3", "-c", LEAVE, &web.port.to_string(), "100"]).unwrap();
    assert_eq!(left.out.trim(), "100", "{left:?}");
    let held = "SELECT count(*) AS n FROM audit WHERE kind = 'approval'";
    until("all of them were held", || {
        agent.audit(held).is_ok_and(|rows| rows[0]["n"].as_u64().is_some_and(|held| held >= 90))
    })
    .unwrap();
    until("nobody is asked any more", || {
        agent.weir(&["approvals", "list", "--json"]).unwrap().out.is_empty()
    })
    .unwrap();
}

/// Asks for what is held, and goes away without waiting.
const LEAVE: &str = "
import socket, sys
left = 0
for n in range(int(sys.argv[2])):
    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s:
        s.sendall(b'GET /held HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')
    left += 1
print(left)
";
