//! Protocols that weir does not speak: refused and recorded by default, relayed and metered where a rule says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use weir_tests::agent::done;
use weir_tests::process::until;
use weir_tests::{Agent, Done, Lab, Setup};

/// A server that speaks first, says a line back, and closes.
fn banner_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(b"220 lab ready\r\n");
            let mut line = [0; 64];
            if let Ok(count) = stream.read(&mut line) {
                let _ = stream.write_all(&line[..count]);
            }
        }
    });
    port
}

/// Reads the banner, sends a line, reads it back, prints both.
const CLIENT: &str = "import socket,sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10); s.settimeout(10)
f = s.makefile('rb'); print(f.readline().decode().strip()); s.sendall(b'EHLO lab\\n'); print(f.readline().decode().strip())";

fn client(agent: &Agent, port: u16) -> Done {
    agent.run(&["python3", "-c", CLIENT, &port.to_string()]).unwrap()
}

fn policy(port: u16, rule: &str) -> Setup {
    let text = format!(
        "policy: mail\ntarget: {{host: 127.0.0.1, port: {port}}}\nmode: enforce\ndefault: deny\nrules:\n  - {rule}\n"
    );
    Setup::default().policy("mail.yaml", &text)
}

#[test]
fn a_rule_lets_a_server_first_protocol_pass_metered() {
    let lab = Lab::new("opaque").unwrap();
    let port = banner_server();
    let rule =
        format!("{{name: smtp, match: {{dst: {{host: 127.0.0.1, port: {port}}}}}, then: {{opaque: allow}}}}");
    let agent = Agent::start(&lab, &policy(port, &rule)).unwrap();
    let seen = client(&agent, port);
    assert_eq!(seen.out, "220 lab ready\nEHLO lab\n", "{seen:?}");
    until("the passage is recorded with its bytes", || {
        let rows = agent.audit("SELECT raw FROM audit WHERE rule = 'smtp'").unwrap_or_default();
        rows.iter().any(|row| row.to_string().contains("\\\"upstream_bytes\\\":9"))
    })
    .unwrap();
}

#[test]
fn without_a_rule_it_is_refused_and_recorded() {
    let lab = Lab::new("unspoken").unwrap();
    let port = banner_server();
    let setup = policy(port, "{name: web, match: {http: {method: [GET]}}, then: allow}");
    let text = setup.policies[0].1.replace("{host:", "{protocol: http, host:");
    let agent = Agent::start(&lab, &Setup::default().policy("web.yaml", &text)).unwrap();
    // A client that speaks first, so that weir need not wait for it.
    let script = "import socket,sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10); s.sendall(b'\\x00\\x01\\x02nonsense' * 8); s.settimeout(10)
print(s.recv(100))";
    let seen = agent.run(&["python3", "-c", script, &port.to_string()]).unwrap();
    assert!(seen.err.contains("ConnectionResetError"), "{seen:?}");
    let rows =
        agent.audit("SELECT decision, reason FROM audit WHERE kind = 'connection' AND decision = 'denied'");
    assert_eq!(rows.unwrap().len(), 1);
}

/// Connects, prints the banner, and waits for what comes of the connection.
const WAITS: &str = "import socket,sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10); s.settimeout(60)
print(s.recv(100).decode().strip(), flush=True)
try: print('ended', s.recv(100))
except ConnectionResetError: print('reset')";

#[test]
fn an_open_passage_ends_with_the_rule_that_let_it_pass() {
    let lab = Lab::new("opaque-reload").unwrap();
    let port = banner_server();
    let rule =
        format!("{{name: smtp, match: {{dst: {{host: 127.0.0.1, port: {port}}}}}, then: {{opaque: allow}}}}");
    let setup = policy(port, &rule);
    let agent = Agent::start(&lab, &setup).unwrap();
    let mut command = agent.app(&["python3", "-c", WAITS, &port.to_string()]).unwrap();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "220 lab ready");

    let in_force = |text: &str| {
        let policy = || agent.status().unwrap()["policy"].to_string();
        let before = policy();
        std::fs::write(agent.policies.join("mail.yaml"), text).unwrap();
        until("the change is in force", || policy() != before).unwrap();
    };
    let text = &setup.policies[0].1;
    // A change that lets it pass by another rule leaves it alone: the row below names the second change only.
    in_force(&text.replace("name: smtp", "name: mail"));

    in_force(&text.replace("opaque: allow", "deny: closed"));
    assert_eq!(lines.next().unwrap(), "reset");
    child.wait().unwrap();
    let sql = "SELECT kind, decision, reason FROM audit WHERE reason LIKE 'the policy has changed%'";
    let rows = agent.audited(sql).unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["kind"], &rows[0]["decision"]),
        (1, &"outcome".into(), &"denied".into())
    );
    assert!(rows[0]["reason"].as_str().unwrap().contains("closed"), "{rows:?}");
}

/// Connects, takes the banner, and says how long that took, in microseconds: the median and the quickest of its tries.
const TIMED: &str = "import socket,sys,time
took = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10); s.settimeout(10); s.recv(100)
    took.append(int((time.perf_counter() - began) * 1e6)); s.close()
took.sort(); print(took[len(took) // 2], took[0])";

/// Before it was dialled at once, a server that speaks first was dialled after the client's silence of 50 ms.
#[test]
fn a_banner_is_not_kept_waiting_for_the_clients_silence() {
    let lab = Lab::new("opaque-banner").unwrap();
    let port = banner_server();
    let pass =
        format!("{{name: smtp, match: {{dst: {{host: 127.0.0.1, port: {port}}}}}, then: {{opaque: allow}}}}");
    let figures = |done: &Done| -> (u64, u64) {
        let mut words = done.out.split_whitespace().map(|word| word.parse().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    };
    let agent = Agent::start(&lab, &policy(port, &pass)).unwrap();
    let timed = ["python3", "-c", TIMED, &port.to_string(), "50"];
    let direct = Command::new("python3").args(&timed[1..]).output().unwrap();
    let direct = figures(&done(direct).unwrap());
    let through = agent.run(&timed).unwrap();
    println!(
        "banner, median and quickest of 50 in µs: direct {direct:?}, through weir {:?}",
        figures(&through)
    );
    // The quickest of many: a busy machine makes some late, but a timer would hold all of them.
    assert!(figures(&through).1 < 25_000, "{through:?}");

    // Control: where weir still waits to hear whether the client speaks a protocol that is refused, all are late.
    let refuses = format!(
        "{pass}\n  - {{name: no-web, match: {{dst: {{protocol: http}}}}, then: {{deny: mail only}}}}"
    );
    let lab = Lab::new("opaque-banner-late").unwrap();
    let agent = Agent::start(&lab, &policy(port, &refuses)).unwrap();
    let late = agent.run(&["python3", "-c", TIMED, &port.to_string(), "5"]).unwrap();
    assert!(figures(&late).1 >= 50_000, "{late:?}");
}

/// A server that counts who connects.
fn counting_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            seen.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    (port, count)
}

/// Says its words at once, and waits for the end.
const SPEAKS: &str = "import socket,sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10); s.settimeout(30); s.sendall(eval(sys.argv[2]))
try: print('ended', len(s.recv(4096)))
except ConnectionResetError: print('reset')";
const WEB: &str = "b'GET / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n'";
/// A ClientHello for `other.test`, made by Python's own TLS.
const HELLO: &str = "(lambda ssl, i, o: [(c := ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)), \
                     (t := c.wrap_bio(i, o, server_hostname='other.test')), \
                     exec('try: t.do_handshake()\\nexcept ssl.SSLWantReadError: pass', {'t': t, 'ssl': ssl}), \
                     o.read()][-1])(__import__('ssl'), __import__('ssl').MemoryBIO(), __import__('ssl').MemoryBIO())";

/// Nobody is dialled for a client whose words are refused, though the address alone would pass.
#[test]
fn what_the_clients_words_refuse_is_not_dialled() {
    let words = [
        (WEB, "{name: no-web, match: {dst: {protocol: http}}, then: {deny: mail only}}"),
        (HELLO, "{name: no-other, match: {dst: {host: other.test}}, then: {deny: not there}}"),
    ];
    for (says, rule) in words {
        let lab = Lab::new("opaque-undialled").unwrap();
        let (port, count) = counting_server();
        let pass = format!("{{name: smtp, match: {{dst: {{port: {port}}}}}, then: {{opaque: allow}}}}");
        let speak = ["python3", "-c", SPEAKS, &port.to_string(), says];
        let agent = Agent::start(&lab, &policy(port, &format!("{pass}\n  - {rule}"))).unwrap();
        let refused = agent.run(&speak).unwrap();
        assert!(refused.out.contains("reset") || refused.out.contains("ended"), "{refused:?}");
        agent.audited("SELECT seq FROM audit WHERE decision = 'denied'").unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 0, "{rule}: {refused:?}");
        // Control: without the rule the same words get there.
        let lab = Lab::new("opaque-dialled").unwrap();
        let agent = Agent::start(&lab, &policy(port, &pass)).unwrap();
        agent.run(&speak).unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1, "{rule}");
    }
}
