//! Names through the agent: looked up, recorded, scrubbed, refused; and a policy by name that holds for what they lead to.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use weir_tests::nameserver::ASK;
use weir_tests::process::{Server, until};
use weir_tests::{Agent, Done, Lab, Nameserver, Netns, Setup, Web};

fn ask(agent: &Agent, server: &str, name: &str, kind: &str, ways: &[&str]) -> Done {
    let command = [&["python3", "-c", ASK, server, name, kind][..], ways].concat();
    let seen = agent.run(&command).unwrap();
    assert_eq!(seen.code, 0, "{seen:?}");
    seen
}

fn setup(nameserver: &Nameserver) -> Setup {
    let servers = format!("dns: {{servers: [\"{}\"]}}\n", nameserver.address);
    let nothing = "policy: nothing\ntarget: {host: 192.0.2.1}\nmode: enforce\ndefault: deny\nrules:\n  - {name: none, match: {}, then: {deny: no}}\n";
    Setup { extra: servers, ..Setup::default() }.policy("nothing.yaml", nothing)
}

/// Runs a command for which resolv.conf(5) names 127.0.0.1 alone.
fn resolving(lab: &Lab, command: &str) -> [String; 5] {
    let path = lab.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:10 attempts:1\n").unwrap();
    let script = format!("mount --bind {} /etc/resolv.conf && exec {command}", path.display());
    ["unshare".into(), "--mount".into(), "sh".into(), "-c".into(), script]
}

fn run(agent: &Agent, command: &[String]) -> Done {
    agent.run(&command.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_name_is_looked_up_through_the_agent_and_recorded() {
    let lab = Lab::new("dns").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    // glibc asks for A and AAAA at once, on one connected socket.
    let seen = run(&agent, &resolving(&lab, "getent ahosts glibc.lab.test"));
    assert!(seen.out.starts_with("127.0.0.1 "), "{seen:?}");
    let script = "import socket; print(socket.getaddrinfo('python.lab.test', 80, type=socket.SOCK_STREAM))";
    let seen = run(&agent, &resolving(&lab, &format!("python3 -c \"{script}\"")));
    assert!(seen.out.contains("('127.0.0.1', 80)"), "{seen:?}");
    for question in ["glibc.lab.test 1", "glibc.lab.test 28", "python.lab.test 1", "python.lab.test 28"] {
        assert!(nameserver.asked().iter().any(|asked| asked == question), "{:?}", nameserver.asked());
    }
    let seen = ask(&agent, "127.0.0.1", "Api.Lab.test", "1", &["connected", "unconnected", "tcp"]);
    for (line, source) in seen.out.lines().zip(["127.0.0.1:53", "127.0.0.1:53", "127.0.0.1"]) {
        assert!(line.contains("id=1234 code=0 cut=0 records=1"), "{line}");
        assert!(line.contains(&format!("from={source} ")), "{line}");
        let letters: String = "Api".bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(line.contains(&letters), "the client's own letters: {line}");
    }
    assert_eq!(nameserver.asked().iter().filter(|asked| *asked == "Api.Lab.test 1").count(), 3);
    let sql = "SELECT workload, owner, method, decision, dst_ip, dst_port, protocol FROM audit \
               WHERE kind = 'dns' AND host = 'api.lab.test'";
    let rows = agent.audited(sql).unwrap();
    assert_eq!(rows.len(), 1, "one row for one question: {rows:?}");
    let expected = [
        ("workload", "app"),
        ("owner", "ada@lab.test"),
        ("method", "A"),
        ("decision", "allowed"),
        ("dst_ip", "127.0.0.1"),
        ("protocol", "dns"),
    ];
    for (field, value) in expected {
        assert_eq!(rows[0][field], value, "{rows:?}");
    }
    let told = |name: &str, what: &str| {
        let sql = format!(
            "SELECT workload, status, addresses FROM lookups WHERE name = '{name}' AND type = '{what}'"
        );
        agent.audited(&sql).unwrap()
    };
    for (name, what, addresses) in [
        ("api.lab.test", "A", "127.0.0.1"),
        ("glibc.lab.test", "A", "127.0.0.1"),
        ("glibc.lab.test", "AAAA", ""),
    ] {
        until("the answer has its row", || told(name, what)[0]["status"] != "").unwrap();
        let rows = told(name, what);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (&rows[0]["workload"], &rows[0]["status"]),
            (&"app".into(), &"NOERROR".into()),
            "{rows:?}"
        );
        assert_eq!(rows[0]["addresses"], addresses, "{rows:?}");
    }
}

#[test]
fn http3_and_encrypted_hellos_are_gone() {
    let lab = Lab::new("dns-https").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let seen = ask(&agent, "127.0.0.1", "web.lab.test", "65", &["connected", "tcp"]);
    assert_eq!(seen.out.lines().count(), 2);
    for line in seen.out.lines() {
        assert!(line.contains("code=0") && line.contains("records=1"), "{line}");
        assert!(line.contains(&hex("h2")), "{line}");
        assert!(!line.contains(&hex("h3")) && !line.contains(&hex("ech-bytes")), "{line}");
    }
}

#[test]
fn a_long_answer_goes_over_tcp_and_a_silent_server_is_a_failure() {
    let lab = Lab::new("dns-long").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    let seen = ask(&agent, "127.0.0.1", "long.lab.test", "16", &["connected", "tcp"]);
    let lines: Vec<&str> = seen.out.lines().collect();
    assert!(lines[0].contains("cut=1 records=0"), "{seen:?}");
    assert!(lines[1].contains("cut=0 records=12"), "{seen:?}");
    let seen = ask(&agent, "127.0.0.1", "silent.lab.test", "1", &["connected"]);
    assert!(seen.out.contains("code=2 "), "{seen:?}");
}

#[test]
fn strangers_and_tunnels_are_refused_and_recorded() {
    let lab = Lab::new("dns-stranger").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let Ok(stranger) = Nameserver::start("127.0.77.53:53") else { panic!("port 53 of 127.0.77.53 is taken") };
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    let plain = Command::new("python3")
        .args(["-c", ASK, "127.0.77.53", "free.lab.test", "1", "connected"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&plain.stdout).contains("code=0"), "unlabelled goes direct: {plain:?}");
    assert_eq!(stranger.asked(), ["free.lab.test 1"]);

    let seen = ask(&agent, "127.0.77.53", "far.lab.test", "1", &["connected", "unconnected", "tcp"]);
    for (line, source) in seen.out.lines().zip(["127.0.77.53:53", "127.0.77.53:53", "127.0.77.53"]) {
        assert!(line.contains("code=5") && line.contains(&format!("from={source} ")), "{line}");
    }
    assert_eq!(stranger.asked().len(), 1, "the stranger saw nothing more");
    for kind in ["10", "252", "255", "65399"] {
        let seen = ask(&agent, "127.0.0.1", "tunnel.lab.test", kind, &["unconnected"]);
        assert!(seen.out.contains("code=5"), "type {kind}: {seen:?}");
    }
    assert!(nameserver.asked().is_empty(), "{:?}", nameserver.asked());
    let sql = "SELECT workload, dst_ip, method, reason FROM audit \
               WHERE kind = 'dns' AND decision = 'denied' ORDER BY seq";
    let mut rows = Vec::new();
    until("seven refusals are recorded", || {
        rows = agent.audit(sql).unwrap_or_default();
        rows.len() == 7
    })
    .unwrap();
    assert!(rows.iter().all(|row| row["workload"] == "app"), "{rows:?}");
    assert_eq!((&rows[0]["dst_ip"], &rows[0]["method"]), (&"127.0.77.53".into(), &"A".into()));
    assert!(rows[0]["reason"].as_str().unwrap().contains("not one of the host's"), "{rows:?}");
    assert_eq!(rows[3]["method"], "NULL");
}

#[test]
fn a_flood_of_questions_is_held_to_its_rate() {
    let lab = Lab::new("dns-flood").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    let script = r"
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect(('127.0.0.1', 53))
codes = {}
begun = time.monotonic()
for n in range(2000):
    s.send(b'\0\1\1\0\0\1\0\0\0\0\0\0\5n%04d\3lab\4test\0\0\1\0\1' % n)
    code = s.recv(512)[3] & 15
    codes[code] = codes.get(code, 0) + 1
print(codes.get(0, 0), codes.get(5, 0), time.monotonic() - begun)";
    let seen = agent.run(&["python3", "-c", script]).unwrap();
    let numbers: Vec<f64> = seen.out.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [answered, refused, seconds] = numbers[..] else { panic!("{seen:?}") };
    assert_eq!(answered + refused, 2000.0, "{seen:?}");
    assert!(refused > 0.0 && answered <= 401.0 + 200.0 * seconds, "{seen:?}");
    agent.settle().unwrap();
    let rows = agent
        .audit("SELECT count(*) AS denied FROM audit WHERE kind = 'dns' AND decision = 'denied'")
        .unwrap();
    let denied: f64 = rows[0]["denied"].to_string().trim_matches('"').parse().unwrap();
    assert!(denied >= 1.0 && denied <= 11.0 + 10.0 * seconds, "{rows:?}");
}

#[test]
fn a_policy_by_name_holds_for_the_address_that_the_name_led_to() {
    let lab = Lab::new("dns-policy").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let web = Web::start(&lab).unwrap();
    let policy = format!(
        "policy: shop\ntarget: {{protocol: http, host: \"shop.lab.test:{}\"}}\nmode: enforce\ndefault: deny\n\
         rules:\n  - {{name: reads, match: {{who: [\"workload:app\"], http: {{method: [GET]}}}}, then: allow}}\n",
        web.port
    );
    let setup = Setup { policies: Vec::new(), ..setup(&nameserver) }.policy("shop.yaml", &policy);
    let agent = Agent::start(&lab, &setup).unwrap();
    let status = "curl -s -o /dev/null -w %{http_code}";
    let url = format!("http://shop.lab.test:{}/", web.port);
    let claims = format!("{status} --resolve shop.lab.test:{}:127.0.0.1 {url}", web.port);
    let seen = run(&agent, &resolving(&lab, &claims));
    assert_eq!(seen.out, "403", "a name that was not looked up proves nothing: {seen:?}");
    let seen = run(&agent, &resolving(&lab, &format!("{status} {url}")));
    assert_eq!(seen.out, "200", "{seen:?}");
    let seen = run(&agent, &resolving(&lab, &claims));
    assert_eq!(seen.out, "200", "it holds as long as the answer said: {seen:?}");
    let rows =
        agent.audited("SELECT target FROM audit WHERE kind = 'verdict' AND decision = 'allowed'").unwrap();
    assert_eq!(rows[0]["target"], "shop");
}

/// UDP ports that a process has bound, from /proc.
fn udp_ports(pid: u32) -> Vec<u16> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let port_of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_own = sockets.contains(&format!("socket:[{}]", fields.get(9)?));
        let port = fields[1].rsplit_once(':')?.1;
        is_own.then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().filter_map(port_of).collect()
}

#[test]
fn a_question_that_did_not_come_through_the_fence_is_refused_and_recorded() {
    let lab = Lab::new("dns-origin").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    // This process is not below the lab's cgroup, so no hook keeps it from the agent's port.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06forged\x03lab\x04test\0\0\x01\0\x01";
    let mut answers = Vec::new();
    for port in udp_ports(agent.pid()) {
        for address in ["127.64.0.4", "127.0.0.1"] {
            socket.send_to(question, (address, port)).unwrap();
            let mut answer = [0; 512];
            if let Ok((count, from)) = socket.recv_from(&mut answer) {
                answers.push((from.ip().to_string(), answer[3] & 15, count));
            }
        }
    }
    assert_eq!(answers, [("127.64.0.4".to_owned(), 5, question.len())], "only where questions are turned to");
    assert!(nameserver.asked().is_empty());
    let rows =
        agent.audited("SELECT workload, decision, rule FROM audit WHERE host = 'forged.lab.test'").unwrap();
    assert_eq!((&rows[0]["decision"], &rows[0]["rule"]), (&"denied".into(), &"origin".into()));
    assert!(rows[0]["workload"].as_str().unwrap_or_default().is_empty(), "{rows:?}");
}

/// Asks for N names one after the other, from a socket each, and prints how many were answered and how many were not.
const ASK_MANY: &str = r"
import socket, sys, time
answered = failed = 0
for n in range(int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        try:
            s.connect(('127.0.0.1', 53))
            s.send(b'\0\1\1\0\0\1\0\0\0\0\0\0\5n%04d\3lab\4test\0\0\1\0\1' % n)
            ok = s.recv(512)[3] & 15 == 0
        except OSError as fault:
            print(fault, file=sys.stderr)
            ok = False
        answered += ok
        failed += not ok
    time.sleep(0.02)
print(answered, failed)";

#[test]
fn names_are_looked_up_inside_a_network_namespace() {
    let lab = Lab::new("dns-netns").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    // Until the agent listens inside, questions are refused.
    let script = "ip link set lo up; for _ in $(seq 200); do python3 -c \"$0\" 127.0.0.1 a.lab.test 1 connected tcp && exit; sleep 0.05; done";
    let seen = agent.run(&["unshare", "--net", "sh", "-c", script, ASK]).unwrap();
    let answers: Vec<&str> = seen.out.lines().filter(|line| line.contains("code=0")).collect();
    assert_eq!(answers.len(), 2, "{seen:?}");
    let rows =
        agent.audited("SELECT workload FROM audit WHERE kind = 'dns' AND host = 'a.lab.test'").unwrap();
    assert_eq!(rows[0]["workload"], "app");
}

/// A DNS server inside a namespace, like those of container engines: it answers every name with one address.
const SERVER_INSIDE: &str = r"
import socket, struct, threading
def answer(question):
    name, rest = question[12:].split(b'\0', 1)
    head = question[:2] + b'\x81\x80' + question[4:6] + b'\0\1\0\0\0\0'
    address = b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\7'
    return head + name + b'\0' + rest[:4] + address
def streams():
    listener = socket.create_server(('127.0.0.11', 53))
    while True:
        stream, _ = listener.accept()
        length = struct.unpack('!H', stream.recv(2))[0]
        reply = answer(stream.recv(length))
        stream.sendall(struct.pack('!H', len(reply)) + reply)
        stream.close()
threading.Thread(target=streams, daemon=True).start()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(('127.0.0.11', 53))
while True:
    question, client = datagrams.recvfrom(512)
    datagrams.sendto(answer(question), client)
";

#[test]
fn a_server_inside_a_namespace_is_asked_there_and_proves_nothing() {
    let lab = Lab::new("dns-inside").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let netns = Netns::add("inside").unwrap();
    assert!(netns.command(&["ip", "link", "set", "lo", "up"]).status().unwrap().success());
    let log = lab.dir().join("inside.log");
    let _server = Server::start(&mut netns.command(&["python3", "-c", SERVER_INSIDE]), &log).unwrap();
    // The positive control: whoever is not labelled asks it.
    let ask = |words: &[&str]| {
        let words =
            [words, &["python3", "-c", ASK, "127.0.0.11", "inside.test", "1", "connected", "tcp"]].concat();
        String::from_utf8(netns.command(&words).output().unwrap().stdout).unwrap()
    };
    until("the server inside answers", || ask(&[]).matches("code=0").count() == 2).unwrap();

    let answers = |extra: &str, name: &str| {
        let mut setup = setup(&nameserver);
        setup.extra = setup.extra.replace("]}", extra);
        let lab = Lab::new(name).unwrap();
        let agent = Agent::start(&lab, &setup).unwrap();
        let (weir, config) = (weir_tests::agent::weir().unwrap(), agent.config.to_str().unwrap().to_owned());
        let run = [weir.to_str().unwrap(), "run", "--config", &config, "--workload", "app", "--"];
        let seen = ask(&run);
        let row =
            agent.audited("SELECT decision FROM audit WHERE kind = 'dns' AND host = 'inside.test'").unwrap();
        (seen, row[0]["decision"].as_str().unwrap().to_owned())
    };
    let (seen, decision) = answers("], inside: [127.0.0.11]}", "dns-inside-yes");
    assert_eq!((seen.matches("code=0").count(), decision.as_str()), (2, "allowed"), "{seen}");
    let (seen, decision) = answers("]}", "dns-inside-no");
    assert_eq!((seen.matches("code=5").count(), decision.as_str()), (2, "denied"), "{seen}");
    assert!(nameserver.asked().is_empty());
}

#[test]
fn questions_are_answered_across_upgrades() {
    let lab = Lab::new("dns-upgrade").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    let mut command = agent.app(&["python3", "-c", ASK_MANY, "200"]).unwrap();
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        let done = agent.weir(&["upgrade"]).unwrap();
        assert_eq!(done.code, 0, "{done:?}");
    }
    let seen = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "200 0");
}

#[test]
fn a_question_that_waits_for_its_server_is_answered_across_an_upgrade() {
    let lab = Lab::new("dns-late").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    let mut asking =
        agent.app(&["python3", "-c", ASK, "127.0.0.1", "held.lab.test", "1", "connected"]).unwrap();
    let asking = asking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the question waits at the server", || nameserver.held() == 1).unwrap();
    let mut control = UnixStream::connect(&agent.control).unwrap();
    control.write_all(b"{\"op\": \"upgrade\"}\n").unwrap();
    let mut told = String::new();
    BufReader::new(control).read_line(&mut told).unwrap();
    // From here on the agent hands over.
    assert!(told.contains("upgrading"), "{told}");
    nameserver.release();
    let seen = weir_tests::agent::done(asking.wait_with_output().unwrap()).unwrap();
    assert!(seen.out.contains("code=0 cut=0 records=1"), "{seen:?}");
    assert_eq!(nameserver.asked(), ["held.lab.test 1"], "it was asked once");
    until("the agent serves again", || agent.weir(&["status"]).is_ok_and(|status| status.code == 0)).unwrap();
}

#[test]
fn a_question_from_another_address_of_this_host_is_answered() {
    let lab = Lab::new("dns-outer").unwrap();
    let nameserver = Nameserver::start("127.0.0.1:0").unwrap();
    let agent = Agent::start(&lab, &setup(&nameserver)).unwrap();
    // The address by which this host would send; one without a route has none.
    let outer = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let outer = outer.connect("198.51.100.1:9").and_then(|()| outer.local_addr());
    for own in ["127.0.0.9".to_owned()].into_iter().chain(outer.ok().map(|outer| outer.ip().to_string())) {
        let seen = ask(&agent, "127.0.0.1", "outer.lab.test", "1", &[&format!("from={own}")]);
        assert!(seen.out.contains("code=0 cut=0 records=1"), "{own}: {seen:?}");
    }
}
