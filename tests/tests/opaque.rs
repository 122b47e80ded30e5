//! Protocols that weir does not speak: refused and recorded by default, relayed and metered where a rule says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

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
        let sha = || agent.weir(&["status", "--json"]).unwrap().out;
        let before = sha();
        let digest = |status: &str| {
            let status: serde_json::Value = serde_json::from_str(status).unwrap();
            status["policy"].to_string()
        };
        std::fs::write(agent.policies.join("mail.yaml"), text).unwrap();
        until("the change is in force", || digest(&sha()) != digest(&before)).unwrap();
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
