//! Whatever fails, labelled workloads stay shut in: a dead agent, one that cannot start, a full disk; and the one way out.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use weir_tests::agent::weir;
use weir_tests::nameserver::ASK;
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::process::{Server, until};
use weir_tests::{Agent, Lab, Nameserver, Postgres, Setup, Web, policies};

/// For each line on standard input: connects, and prints errno.
const DIAL: &str = r"
import socket, sys
for _ in sys.stdin:
    with socket.socket() as s:
        print(s.connect_ex(('127.0.0.1', int(sys.argv[1]))), flush=True)
";

/// A process that dials when it is told to. It lives on when the agent dies.
struct Dialler {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Dialler {
    fn start(mut command: Command) -> Dialler {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Dialler { input: child.stdin.take(), child, output }
    }

    fn errno(&mut self) -> i32 {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Dialler {
    fn drop(&mut self) {
        // The script ends with its input.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

struct Bench {
    agent: Option<Agent>,
    web: Web,
    labelled: Dialler,
    unlabelled: Dialler,
    config: PathBuf,
    // Last: it removes what the others use.
    lab: Lab,
}

fn bench(name: &str) -> Bench {
    let lab = Lab::new(name).unwrap();
    let web = Web::start(&lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    let agent = Agent::start(&lab, &setup).unwrap();
    let port = web.port.to_string();
    let dial = ["python3", "-c", DIAL, &port];
    let mut direct = Command::new(dial[0]);
    direct.args(&dial[1..]);
    let mut bench = Bench {
        labelled: Dialler::start(agent.app(&dial).unwrap()),
        unlabelled: Dialler::start(direct),
        config: agent.config.clone(),
        agent: Some(agent),
        web,
        lab,
    };
    bench.assert_open();
    bench
}

impl Bench {
    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.agent = None;
        self.agent = Some(Agent::restart(&self.lab, self.config.clone(), self.lab.dir().join("policies"))?);
        Ok(())
    }

    fn assert_open(&mut self) {
        assert_eq!((self.labelled.errno(), self.unlabelled.errno()), (0, 0));
    }

    /// The labelled process is refused, and the control is not.
    fn assert_closed(&mut self) {
        let refused = [libc::ECONNREFUSED, libc::EPERM, libc::EACCES];
        let errno = self.labelled.errno();
        assert!(refused.contains(&errno), "errno {errno}");
        assert_eq!(self.unlabelled.errno(), 0);
    }

    fn curl(&mut self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", self.web.port);
        let seen = self.agent().run(&["curl", "-sS", "--max-time", "30", &url]).unwrap();
        seen.out + &seen.err
    }
}

#[test]
fn a_killed_agent_leaves_the_fence_closed_and_a_new_one_takes_over() {
    let mut bench = bench("killed");
    bench.agent().server().kill();
    bench.assert_closed();
    until("the heartbeat is stale, and nothing starts any more", || {
        bench.agent().run(&["true"]).unwrap().code == 125
    })
    .unwrap();
    bench.restart().unwrap();
    bench.assert_open();
    assert_eq!(bench.curl("/text"), "write to [EMAIL]");
    let verified = bench.agent().weir(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn an_agent_that_is_told_to_end_leaves_the_fence_closed() {
    let mut bench = bench("ended");
    let server = bench.agent().server();
    server.signal(libc::SIGTERM);
    assert!(server.wait().unwrap().success());
    bench.assert_closed();
}

#[test]
fn detaching_opens_and_is_recorded() {
    let mut bench = bench("detach");
    let detached = bench.agent().weir(&["detach", "--reason", "moving house"]).unwrap();
    assert_eq!(detached.code, 0, "{detached:?}");
    assert!(bench.agent().server().wait().unwrap().success());
    bench.assert_open();
    let sql = "SELECT kind, user, reason, durability FROM audit WHERE method = 'detach'";
    let rows = bench.agent().audited(sql).unwrap();
    assert_eq!((&rows[0]["kind"], &rows[0]["durability"]), (&"admin".into(), &"strict".into()));
    assert_eq!((&rows[0]["user"], &rows[0]["reason"]), (&"ops@lab.test".into(), &"moving house".into()));
}

#[test]
fn a_dead_agents_fence_is_lifted_by_hand_and_recorded() {
    let mut bench = bench("detach-dead");
    bench.agent().server().kill();
    let detached = bench.agent().weir(&["detach", "--reason", "it is dead"]).unwrap();
    assert_eq!(detached.code, 0, "{detached:?}");
    bench.assert_open();
    let rows = bench.agent().audited("SELECT reason FROM audit WHERE method = 'detach'").unwrap();
    assert_eq!(rows[0]["reason"], "it is dead");
}

#[test]
fn the_pins_of_another_version_are_seen_locked_and_lifted() {
    let mut bench = bench("other-version");
    bench.agent().server().kill();
    let pins = bench.lab.pins().unwrap();
    let older = pins.with_file_name("v1");
    fs::rename(&pins, &older).unwrap();
    bench.assert_closed();

    // Its agent lives: no second one beside it.
    let lock = fs::File::open(&older).unwrap();
    lock.lock().unwrap();
    let fault = format!("{:#}", bench.restart().unwrap_err());
    assert!(fault.contains("another agent"), "{fault}");
    let config = bench.config.clone();
    let detached = || {
        let mut detach = Command::new(weir().unwrap());
        detach.args(["detach", "--reason", "away", "--config"]).arg(&config).status().unwrap().success()
    };
    assert!(!detached());
    bench.assert_closed();
    drop(lock);
    // A new version takes over: the older pins guard until its labels are in force.
    bench.restart().unwrap();
    assert!(!older.exists());
    bench.assert_open();
    bench.agent().server().kill();
    fs::rename(&pins, &older).unwrap();
    bench.assert_closed();
    assert!(detached());
    assert!(!older.exists());
    bench.assert_open();
}

#[test]
fn an_agent_that_cannot_start_says_why_and_opens_nothing() {
    let mut bench = bench("unstartable");
    let policies = bench.lab.dir().join("policies");
    let sound = fs::read_to_string(policies.join("web.yaml")).unwrap();
    fs::write(policies.join("web.yaml"), sound.replace("mode: enforce", "mode: perhaps")).unwrap();
    let fault = format!("{:#}", bench.restart().unwrap_err());
    assert!(fault.contains("web.yaml:4"), "{fault}");
    bench.assert_closed();

    fs::write(policies.join("web.yaml"), &sound).unwrap();
    fs::rename(&policies, bench.lab.dir().join("elsewhere")).unwrap();
    let fault = format!("{:#}", bench.restart().unwrap_err());
    assert!(fault.contains("cannot read the policy folder"), "{fault}");
    bench.assert_closed();
    fs::rename(bench.lab.dir().join("elsewhere"), &policies).unwrap();

    let config = fs::read_to_string(&bench.config).unwrap();
    let taken = format!("fence: {{port: {}, ", bench.web.port);
    fs::write(&bench.config, config.replace("fence: {", &taken)).unwrap();
    let fault = format!("{:#}", bench.restart().unwrap_err());
    assert!(fault.contains(&format!("port {} on the loopback is taken", bench.web.port)), "{fault}");
    bench.assert_closed();

    fs::write(&bench.config, config.replace("fence: {", "fence: {require: [teeth], ")).unwrap();
    let fault = format!("{:#}", bench.restart().unwrap_err());
    assert!(fault.contains("\"teeth\" is no layer; there are birth, create"), "{fault}");
    bench.assert_closed();

    fs::write(&bench.config, config.replace("fence: {", "fence: {require: [create, wall], ")).unwrap();
    bench.restart().unwrap();
    bench.assert_open();
}

#[test]
fn an_agent_without_privileges_or_without_cgroup_v2_says_what_to_do() {
    let mut bench = bench("powerless");
    bench.agent = None;
    let config = bench.config.to_str().unwrap().to_owned();
    let weir = weir().unwrap();
    let agent = [weir.to_str().unwrap(), "agent", "--config", &config];

    let mut bare = Command::new("setpriv");
    bare.args(["--bounding-set=-all", "--inh-caps=-all"]).args(agent);
    let ended = bare.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(said.contains("CAP_BPF") && said.contains("CAP_NET_ADMIN"), "{said}");
    bench.assert_closed();

    // A mount namespace of its own, in which no cgroup v2 is mounted.
    let script = "mount --make-rprivate / && grep ' cgroup2 ' /proc/mounts | cut -d' ' -f2 | xargs -n1 umount -l && exec \"$@\"";
    let mut v1 = Command::new("unshare");
    v1.args(["--mount", "sh", "-c", script, "sh"]).args(agent);
    let ended = v1.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(said.contains("cgroup v2"), "{said}");
    bench.assert_closed();

    bench.restart().unwrap();
    bench.assert_open();
}

/// A small file system of its own, unmounted with its owner.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> SmallDisk {
        fs::create_dir_all(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "weir-test"]).arg(folder);
        assert!(mount.status().unwrap().success());
        SmallDisk(folder.into())
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_ledger_disk_refuses_acts_in_the_peers_protocol_until_there_is_room() {
    let lab = Lab::new("full").unwrap();
    let disk = SmallDisk::mount(&lab.dir().join("audit"));
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let web = Web::start(&lab).unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let setup =
        Setup { extra: format!("dns: {{servers: [\"{}\"]}}\n", nameserver.address), ..Setup::default() };
    let setup = setup
        .policy("classes.yaml", policies::CLASSES)
        .policy("shop.yaml", &policies::shop(postgres.port))
        .policy("web.yaml", &policies::web(web.port));
    let agent = Agent::start(&lab, &setup).unwrap();
    let ask = |name: &str| {
        agent.run(&["python3", "-c", ASK, "127.0.0.1", name, "1", "connected", "tcp"]).unwrap().out
    };
    let curl = |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", web.port);
        agent.run(&["curl", "-sS", "--max-time", "30", &url]).unwrap()
    };
    let port = postgres.port.to_string();
    let psql = |sql: &str| {
        let connect =
            ["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "shop"];
        let mut command = agent.app(&[&connect[..], &["-c", sql]].concat()).unwrap();
        weir_tests::agent::done(command.env("PGPASSWORD", PASSWORD).output().unwrap()).unwrap()
    };
    assert_eq!(psql("SELECT 1").out.trim(), "1");
    disk.fill();
    // What is already allocated of the last page may take a few rows more.
    until("the ledger refuses", || curl("/full").out.contains("weir_failed")).unwrap();
    let before = web.seen().unwrap().matches("/refused").count();
    let refused = curl("/refused");
    assert!(refused.out.contains("the audit ledger cannot be written"), "{refused:?}");
    let sql = psql("INSERT INTO orders VALUES (77, 1, 1)");
    assert_ne!(sql.code, 0, "{sql:?}");
    assert!(sql.err.contains("audit"), "{sql:?}");
    let looked_up = ask("full.lab.test");
    assert_eq!(looked_up.matches("code=2 ").count(), 2, "{looked_up}");
    assert!(nameserver.asked().is_empty(), "{:?}", nameserver.asked());
    disk.free();
    until("the ledger takes rows again", || curl("/recovered").out.contains("\"ok\"")).unwrap();
    assert_eq!(psql("SELECT count(*) FROM orders WHERE id = 77").out.trim(), "0");
    assert_eq!(ask("full.lab.test").matches("code=0 ").count(), 2);
    until("nginx wrote", || web.seen().is_ok_and(|seen| seen.contains("/recovered"))).unwrap();
    assert_eq!(web.seen().unwrap().matches("/refused").count(), before);
    let verified = agent.weir(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, 0, "{verified:?}");
}

#[test]
fn strangers_may_not_dial_the_listener_and_workloads_may_not_ask_the_agent() {
    let mut bench = bench("strangers");
    let log = fs::read_to_string(&bench.agent().log).unwrap();
    // The agent colours its log.
    let port: String = log.rsplit("port").next().unwrap().chars().skip_while(|c| *c != '=').collect();
    let port: String = port.rsplit('m').next().unwrap().chars().filter(char::is_ascii_digit).collect();
    let mut stranger = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    let _ = stranger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = stranger.read(&mut [0; 16]);
    assert!(matches!(&answer, Err(fault) if fault.raw_os_error() == Some(libc::ECONNRESET)), "{answer:?}");
    let rows = bench.agent().audited("SELECT decision, reason FROM audit WHERE rule = 'origin'").unwrap();
    assert_eq!(rows[0]["decision"], "denied", "{rows:?}");

    let config = bench.config.to_str().unwrap().to_owned();
    let binary = weir().unwrap();
    let binary = binary.to_str().unwrap();
    for command in [&["status"][..], &["approvals", "list"], &["approvals", "approve", "x"], &["detach"]] {
        let asked = [&[binary], command, &["--config", &config]].concat();
        let answer = bench.agent().run(&asked).unwrap();
        assert_ne!(answer.code, 0, "{answer:?}");
        assert!(answer.err.contains("guarded by weir and may not talk to it"), "{answer:?}");
    }
    bench.assert_open();
    assert_eq!(bench.curl("/text"), "write to [EMAIL]");
}

/// Callers that hold the control socket are counted; the next one hears why it is not served, and those that go are forgotten.
#[test]
fn the_control_socket_serves_so_many_callers_and_no_more() {
    let mut bench = bench("callers");
    let control = bench.agent().control.clone();
    let watch = || {
        let mut caller = UnixStream::connect(&control).unwrap();
        caller.write_all(b"{\"op\": \"watch\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(caller.try_clone().unwrap()).read_line(&mut line).unwrap();
        (caller, line)
    };
    let (callers, answers): (Vec<_>, Vec<_>) = (0..64).map(|_| watch()).unzip();
    assert!(answers.iter().all(|line| line.contains("approvals")), "{answers:?}");
    let refused = bench.agent().weir(&["status"]).unwrap();
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("serves 64 callers already"), "{refused:?}");
    // What is relayed needs no seat.
    assert_eq!(bench.curl("/text"), "write to [EMAIL]");
    drop(callers);
    until("the agent answers again", || bench.agent().weir(&["status"]).is_ok_and(|done| done.code == 0))
        .unwrap();
}

/// Opens connections one after the other, asks once on each, and prints how many were answered; then closes them and asks
/// once more.
const CROWD: &str = r"
import socket, sys
held, reset = [], 0
def ask():
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    s.sendall(b'GET /kilobyte HTTP/1.1\r\nHost: lab\r\n\r\n')
    if not s.recv(65536): raise ConnectionResetError
    return s
for _ in range(int(sys.argv[2])):
    try:
        held.append(ask())
    except OSError:
        reset += 1
print(len(held), reset, end=' ')
for s in held: s.close()
for _ in range(500):
    try:
        ask()
        print('again')
        break
    except OSError:
        pass
";

#[test]
fn an_agent_out_of_descriptors_refuses_the_next_and_goes_on() {
    let mut bench = bench("crowd");
    let pid = bench.agent().pid().to_string();
    let kept = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    bench.agent = None;
    // Room for a hundred connections beside what the agent keeps for itself: 256, and one descriptor in sixteen.
    let limit = format!("--nofile={}", 256 + 30 + 200);
    let mut command = Command::new("prlimit");
    command.args([&limit, "--"]).arg(weir().unwrap()).args(["agent", "--config"]).arg(&bench.config);
    let mut server = Server::start(&mut command, &bench.lab.dir().join("crowd.log")).unwrap();
    let config = bench.config.clone();
    let asked = |words: &[&str]| {
        let mut command = Command::new(weir().unwrap());
        command.args(words).arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
        weir_tests::agent::done(command.output().unwrap()).unwrap()
    };
    until("the agent answers", || asked(&["status"]).code == 0).unwrap();
    let port = bench.web.port.to_string();
    let mut run = Command::new(weir().unwrap());
    run.args(["run", "--config"]).arg(&config).args([
        "--workload",
        "app",
        "--",
        "python3",
        "-c",
        CROWD,
        &port,
        "140",
    ]);
    let seen = String::from_utf8(run.output().unwrap().stdout).unwrap();
    assert_eq!(seen.trim(), "100 40 again", "an agent that keeps {kept} descriptors for itself");
    let refusals = "SELECT count(*) AS n FROM audit WHERE reason LIKE '%descriptors allow%'";
    until("each refusal has its row", || {
        let rows = asked(&["audit", "query", "--json", refusals]);
        let row: serde_json::Value = serde_json::from_str(&rows.out).unwrap_or_default();
        // Some more came until the first descriptors were free again.
        row["n"].as_u64().is_some_and(|count| count >= 40)
    })
    .unwrap();
    server.signal(libc::SIGTERM);
    assert!(server.wait().unwrap().success());
}
