//! Each connection reaches the address that was dialled, whatever else is dialled at the same time; and what cannot be
//! reached fails as it would without weir.

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup};

const POLICY: &str = "policy: all\ntarget: {host: 127.0.0.1}\nmode: enforce\ndefault: deny\nrules:
  - {name: passes, match: {}, then: {opaque: allow}}\n";

fn start(lab: &Lab) -> Agent {
    Agent::start(lab, &Setup::default().policy("all.yaml", POLICY)).unwrap()
}

/// A server that says its own port to whoever connects, for as long as the test lives.
fn teller() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = write!(&stream, "{port}");
        }
    });
    port
}

/// Dials the ports in turn from eight threads at once, and prints how often another one answered. In the second half each
/// thread keeps one source port for all of its destinations, whose connections are open side by side.
const MANY: &str = r"
import socket, sys, threading
ports = [int(port) for port in sys.argv[1:]]
right, wrong = [], []
def ask(s, port):
    s.settimeout(30)
    s.connect(('127.0.0.1', port))
    said = b''
    while piece := s.recv(64): said += piece
    (right if said == b'%d' % port else wrong).append((port, said))
def run(number):
    for turn in range(100):
        with socket.socket() as s: ask(s, ports[(turn + number) % len(ports)])
    for turn in range(25):
        first = socket.socket()
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(('127.0.0.1', 0))
        ask(first, ports[0])
        others = []
        for port in ports[1:]:
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(first.getsockname()); others.append(s)
            ask(s, port)
        for s in [first, *others]: s.close()
threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(right), wrong)
";

#[test]
fn connections_side_by_side_reach_what_each_dialled() {
    let lab = Lab::new("origins").unwrap();
    let agent = start(&lab);
    let ports = [(); 3].map(|()| teller().to_string());
    let words = [&["python3", "-c", MANY][..], &ports.each_ref().map(String::as_str)].concat();
    let expected = format!("{} []", 8 * (100 + 25 * 3));
    let direct = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&direct.stdout).trim(), expected, "unlabelled: {direct:?}");
    let seen = agent.run(&words).unwrap();
    assert_eq!(seen.out.trim(), expected, "{seen:?}");
    for port in ports {
        let sql = format!("SELECT count(*) AS n FROM audit WHERE kind = 'connection' AND dst_port = {port}");
        let rows = agent.audited(&sql).unwrap();
        assert!(rows[0]["n"].as_u64().is_some_and(|count| count >= 8 * 25), "{port}: {rows:?}");
    }
}

/// Dials the port as often as it is told to, and prints what each try met, first by `connect` and then by `recv`.
const TRY: &str = r"
import errno, socket, sys
for _ in range(int(sys.argv[2])):
    with socket.socket() as s:
        s.settimeout(10)
        try:
            s.connect(('127.0.0.1', int(sys.argv[1])))
            print(s.recv(64).decode() or 'end', end=' ')
        except OSError as fault:
            print(errno.errorcode[fault.errno], end=' ')
";

#[test]
fn a_server_that_is_not_there_refuses_at_once_when_it_is_dialled_again() {
    let lab = Lab::new("absent").unwrap();
    let agent = start(&lab);
    // Nobody draws one below the kernel's range meanwhile.
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (12_000..20_000).find(is_free).unwrap();
    let text = port.to_string();
    let dial = |count: &str| agent.run(&["python3", "-c", TRY, &text, count]).unwrap().out;
    // The first is turned before anybody knows; after that the fence itself answers as the server's host would.
    assert_eq!(dial("4"), "ECONNRESET ECONNREFUSED ECONNREFUSED ECONNREFUSED ");
    let rows = agent.audited("SELECT count(*) AS n FROM audit WHERE decision = 'failed'").unwrap();
    assert_eq!(rows[0]["n"], 1, "{rows:?}");

    let back = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || {
        for stream in back.incoming().flatten() {
            let _ = write!(&stream, "here");
        }
    });
    until("the refusal is forgotten", || dial("1") == "here ").unwrap();
}
