//! Bytes that no honest client sends: refused and recorded, never passed on and never waited for without end.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use weir_tests::agent::done;
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::{Agent, Lab, Postgres, Setup, Web, policies};

/// Sends each argument (hex; a final `.` ends the sending side) on a connection of its own and prints what came back.
const RAW: &str = r"
import socket, sys
for form in sys.argv[2:]:
    with socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=60) as s:
        answer = b''
        try:
            s.sendall(bytes.fromhex(form.rstrip('.')))
            if form.endswith('.'):
                s.shutdown(socket.SHUT_WR)
            while chunk := s.recv(65536):
                answer += chunk
            print('closed', answer)
        except ConnectionResetError:
            print('reset', answer)
";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the kernel still holds of connections that nobody has accepted.
fn nobody_came(server: &TcpListener) -> bool {
    server.set_nonblocking(true).unwrap();
    matches!(server.accept(), Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock)
}

/// Every form is refused, none reaches the server, and each leaves a row.
fn refused(name: &str, policy: impl FnOnce(u16) -> String, forms: &[String]) {
    let lab = Lab::new(name).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let setup = Setup::default().policy("classes.yaml", policies::CLASSES).policy("p.yaml", &policy(port));
    let agent = Agent::start(&lab, &setup).unwrap();
    let port = port.to_string();
    let mut command = vec!["python3", "-c", RAW, &port];
    command.extend(forms.iter().map(String::as_str));
    let answers = agent.run(&command).unwrap();
    assert_eq!(answers.out.lines().count(), forms.len(), "{answers:?}");
    let sql = "SELECT DISTINCT session_id FROM audit WHERE kind IN ('connection', 'verdict') AND decision = 'denied'";
    let rows = agent.audit(sql).unwrap();
    let all = agent.audit("SELECT kind, decision, rule, reason FROM audit").unwrap();
    assert_eq!(rows.len(), forms.len(), "{answers:?}\n{all:#?}");
    assert!(nobody_came(&server), "{answers:?}\n{all:#?}");
}

#[test]
fn malformed_postgres_openings_are_refused() {
    let version = 0x0003_0000_u32.to_be_bytes();
    let opening = |length: u32, rest: &[u8]| [&length.to_be_bytes()[..], &version, rest].concat();
    let forms = [
        hex(&opening(0, b"")),
        hex(&opening(7, b"")),
        hex(&opening(1 << 31, b"user\0x\0\0")),
        hex(&opening(10_001, b"user\0x\0\0")),
        // No value, no terminator.
        hex(&opening(14, b"user\0x")),
        hex(&opening(13, b"user\0")),
        // Cut short: the sender ends, or stays and says no more.
        hex(&opening(40, b"user\0post")) + ".",
        hex(&opening(40, b"user\0post")),
        // An unknown major version.
        hex(&[&9_u32.to_be_bytes()[..], &0x0009_0000_u32.to_be_bytes(), b"\0"].concat()),
        // Bytes behind the request for TLS.
        hex(&[&8_u32.to_be_bytes()[..], &80_877_103_u32.to_be_bytes(), b"Q\0\0\0\x04"].concat()),
    ];
    refused("bad-postgres", policies::shop, &forms);
}

#[test]
fn what_is_no_known_protocol_is_refused() {
    let forms = [
        hex(b"SSH-2.0-OpenSSH_9.2\r\n"),
        hex(b"HELO mail.example.com\r\n"),
        hex(b"\0\xff\0\xff\0\xff\0\xff\0\xff\0\xff\0\xff\0\xff\n"),
        hex(b"GET  /two-spaces HTTP/1.1\r\nHost: x\r\n\r\n"),
        hex(b"GET /tab\tHTTP/1.1\r\nHost: x\r\n\r\n"),
        // The first message is cut by the end of the connection.
        hex(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") + ".",
        hex(b"\x16") + ".",
        hex(b"GET /cut") + ".",
        hex(b"GET /cut HTTP/1.1\r\nHost: x\r\n") + ".",
        hex(b"PRI * HT") + ".",
        // A ClientHello's header, and then nothing.
        hex(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        hex(&[0x16; 20_000]),
    ];
    refused("bad-unknown", policies::web, &forms);
}

#[test]
fn a_connection_that_says_nothing_or_breaks_off_leaves_a_row() {
    let lab = Lab::new("bad-silent").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("p.yaml", &policies::web(port));
    let agent = Agent::start(&lab, &setup).unwrap();
    // An address that a policy targets, and one that none does.
    let (port, other) = (port.to_string(), TcpListener::bind("127.0.0.1:0").unwrap());
    let other = other.local_addr().unwrap().port().to_string();
    agent.run(&["python3", "-c", RAW, &port, "."]).unwrap();
    agent.run(&["python3", "-c", RAW, &other, "."]).unwrap();
    agent.run(&["python3", "-c", RAW, &port, &(hex(b"GET /cut") + ".")]).unwrap();
    let row = |words: &str| {
        let sql = format!("SELECT kind, decision, target FROM audit WHERE reason LIKE '%{words}%'");
        let rows = agent.audited(&sql).unwrap();
        assert_eq!((rows.len(), &rows[0]["kind"]), (1, &"connection".into()), "{words}: {rows:?}");
        (rows[0]["decision"].clone(), rows[0]["target"].clone())
    };
    assert_eq!(row("before it asked for anything"), ("allowed".into(), "web".into()));
    assert_eq!(row("no policy targets"), ("denied".into(), "".into()));
    assert_eq!(row("ended in the middle of its first message").0, "denied");
    assert!(nobody_came(&server));
}

/// A relay that passes the client's bytes on one by one. It prints its port and serves until it is ended.
const DROPS: &str = r"
import socket, sys, threading
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
def back(server, client):
    try:
        while chunk := server.recv(65536):
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
    except OSError:
        client.close()
while True:
    client, _ = listener.accept()
    server = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=back, args=(server, client), daemon=True).start()
    try:
        while chunk := client.recv(65536):
            for byte in chunk:
                server.sendall(bytes([byte]))
        server.shutdown(socket.SHUT_WR)
    except OSError:
        server.close()
";

/// The labelled relay, ended with its owner.
struct Drops {
    child: Child,
    port: String,
}

impl Drops {
    fn start(agent: &Agent, port: u16) -> Drops {
        let mut command = agent.app(&["python3", "-c", DROPS, &port.to_string()]).unwrap();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Drops { child, port: port.trim().into() }
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        // `weir run` passes the signal on to the relay.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

#[test]
fn sessions_that_come_byte_by_byte_are_judged_like_others() {
    let lab = Lab::new("bad-drops").unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let web = Web::start(&lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("shop.yaml", &policies::shop(postgres.port))
        .policy("web.yaml", &policies::web(web.port));
    let agent = Agent::start(&lab, &setup).unwrap();

    let drops = Drops::start(&agent, postgres.port);
    let sql = "SELECT ssn FROM customers WHERE id = 1; DROP TABLE orders; SELECT 'on'";
    let mut psql = Command::new("psql");
    psql.env("PGPASSWORD", PASSWORD).args(["-X", "-A", "-t", "-h", "127.0.0.1", "-p", &drops.port]);
    psql.args(["-U", "postgres", "-d", "shop"]);
    for statement in sql.split("; ") {
        psql.args(["-c", statement]);
    }
    let seen = done(psql.output().unwrap()).unwrap();
    assert_eq!(seen.out, "***-**-6789\non\n", "{seen:?}");
    assert!(seen.err.contains("tables are not dropped from here"), "{seen:?}");

    let drops = Drops::start(&agent, web.port);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", drops.port);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--json", "{\"to\": \"ada@example.com\"}", &url("/echo"), &url("/admin/x")]);
    let seen = done(curl.output().unwrap()).unwrap();
    assert!(seen.out.contains("\"got\"") && seen.out.contains("weir_denied"), "{seen:?}");
    let log = web.seen().unwrap();
    assert!(!log.contains("ada@") && !log.contains("admin"), "{log}");
}
