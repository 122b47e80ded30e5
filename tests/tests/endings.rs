//! How connections end: a reset stays a reset, a half-close stays half a close, as without weir. Every trial is made twice,
//! unlabelled and labelled, and both sides must see the same.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use weir_tests::agent::done;
use weir_tests::socket::{is_reset, reset_on_close};
use weir_tests::{Agent, Lab, Setup};

/// The client; its acts are the second argument.
const CLIENT: &str = r"
import socket, struct, sys
# A server that resets at once may do so before connect has returned.
try: s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 30)
except ConnectionResetError: sys.exit(print(0, 'reset'))
s.settimeout(60)
def say(what): s.sendall(what)
def hear(count):
    got = b''
    while len(got) < count:
        piece = s.recv(count - len(got))
        assert piece, got
        got += piece
def half(): s.shutdown(socket.SHUT_WR)
def rest():
    count = 0
    try:
        while True:
            piece = s.recv(65536)
            if not piece: return print(count, 'end')
            count += len(piece)
    except ConnectionResetError: print(count, 'reset')
def reset():
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()
exec(sys.argv[2])
";

type Act = fn(&mut TcpStream) -> String;

struct Stand {
    agent: Agent,
    listener: TcpListener,
    // Last: it removes what the others use.
    _lab: Lab,
}

/// A raw server at a port of its own, under a policy that `rule` finishes.
fn stand(name: &str, protocol: &str, rule: &str) -> Stand {
    let lab = Lab::new(name).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = format!(
        "policy: ends\ntarget: {{{protocol}host: 127.0.0.1, port: {port}}}\nmode: enforce\ndefault: deny\nrules:
  - {{name: passes, {rule}}}\n"
    );
    let agent = Agent::start(&lab, &Setup::default().policy("ends.yaml", &policy)).unwrap();
    Stand { agent, listener, _lab: lab }
}

fn opaque(name: &str) -> Stand {
    stand(name, "", "match: {}, then: {opaque: allow}")
}

fn http(name: &str) -> Stand {
    stand(name, "protocol: http, ", "match: {http: {method: [GET, POST]}}, then: allow")
}

impl Stand {
    /// What client and server saw, without weir and with it; it must be `expected` both times.
    fn trial(&self, server: Act, client: &str, expected: (&str, &str)) {
        for labelled in [false, true] {
            self.one(labelled, server, client, expected);
        }
    }

    fn one(&self, labelled: bool, server: Act, client: &str, expected: (&str, &str)) {
        let port = self.listener.local_addr().unwrap().port().to_string();
        let seen = self.serve(server);
        let arguments = ["python3", "-c", CLIENT, &port, client];
        let ran = match labelled {
            true => self.agent.run(&arguments).unwrap(),
            false => done(Command::new("python3").args(&arguments[1..]).output().unwrap()).unwrap(),
        };
        let seen = seen.recv_timeout(Duration::from_secs(90)).unwrap_or_else(|fault| fault.to_string());
        let saw = (ran.out.trim(), seen.as_str());
        assert_eq!(saw, expected, "labelled: {labelled}, {client}: {ran:?}");
    }

    fn serve(&self, act: Act) -> Receiver<String> {
        let (tell, seen) = channel();
        let listener = self.listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let said = act(&mut stream);
            drop(stream);
            let _ = tell.send(said);
        });
        seen
    }
}

fn hear(stream: &mut TcpStream, count: usize) {
    stream.read_exact(&mut vec![0; count]).unwrap();
}

fn head(stream: &mut TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

/// Reads to the end, and says what kind of end it was.
fn rest(stream: &mut TcpStream) -> String {
    let (mut count, mut buffer) = (0, [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return format!("{count} end"),
            Ok(more) => count += more,
            Err(fault) if fault.kind() == std::io::ErrorKind::ConnectionReset => {
                return format!("{count} reset");
            }
            Err(fault) => return format!("{count} {fault}"),
        }
    }
}

/// Closing sends RST from now on.
fn arm(stream: &TcpStream) {
    reset_on_close(stream).unwrap();
}

#[test]
fn resets_of_an_unread_passage_stay_resets() {
    let stand = opaque("endings-resets");
    let part: Act = |stream| {
        stream.write_all(b"part").unwrap();
        hear(stream, 1);
        arm(stream);
        String::new()
    };
    stand.trial(part, "hear(4); say(b'k'); rest()", ("0 reset", ""));
    // What was sent before the reset arrives.
    let all: Act = |stream| {
        hear(stream, 2);
        stream.write_all(&[7; 5000]).unwrap();
        hear(stream, 1);
        arm(stream);
        String::new()
    };
    stand.trial(all, "say(b'go'); hear(5000); say(b'k'); rest()", ("0 reset", ""));
    let told: Act = |stream| {
        hear(stream, 5);
        stream.write_all(b"ok").unwrap();
        rest(stream)
    };
    stand.trial(told, "say(b'hello'); hear(2); reset()", ("", "0 reset"));
    // Controls: an end is an end.
    let ends: Act = |stream| {
        stream.write_all(b"whole").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest(stream)
    };
    stand.trial(ends, "rest(); s.close()", ("5 end", "0 end"));
    stand.trial(told, "say(b'hello'); hear(2); s.close()", ("", "0 end"));
}

#[test]
fn a_reset_before_anybody_has_spoken_stays_a_reset() {
    let shy: Act = |stream| {
        arm(stream);
        String::new()
    };
    opaque("endings-shy").trial(shy, "rest()", ("0 reset", ""));
}

/// The kernel tells of a reset once, to a write or to a read, whichever comes first.
#[test]
fn a_reset_that_a_write_meets_stays_a_reset() {
    let stand = opaque("endings-write");
    let deaf: Act = |stream| {
        hear(stream, 1);
        arm(stream);
        String::new()
    };
    let client = "say(b'k')
try:
    while True: say(b'x' * 65536)
except (ConnectionResetError, BrokenPipeError) as fault: print(type(fault).__name__)";
    stand.trial(deaf, client, ("ConnectionResetError", ""));
}

#[test]
fn half_closes_of_an_unread_passage_are_kept() {
    let stand = opaque("endings-halves");
    let answers: Act = |stream| {
        let asked = rest(stream);
        stream.write_all(&vec![7; 10_000_000]).unwrap();
        asked
    };
    stand.trial(answers, "say(b'ask'); half(); rest()", ("10000000 end", "3 end"));
    let listens: Act = |stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest(stream)
    };
    let goes_on = "rest(); say(b'x' * 3000000); s.close()";
    stand.trial(listens, goes_on, ("3 end", "3000000 end"));
    // A reset by the side that has ended its half.
    let gone: Act = |stream| {
        let end = rest(stream);
        stream.write_all(b"k").unwrap();
        format!("{end} {}", if is_reset(stream) { "reset" } else { "nothing" })
    };
    stand.trial(gone, "say(b'ask'); half(); hear(1); reset()", ("", "3 end reset"));
}

#[test]
fn resets_under_http_stay_resets() {
    let stand = http("endings-http");
    const ASK: &str = "say(b'GET / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')";
    let cut: Act = |stream| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").unwrap();
        // The second request says that this has arrived.
        head(stream);
        arm(stream);
        String::new()
    };
    let size = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart".len();
    stand.trial(cut, &format!("{ASK}; hear({size}); {ASK}; rest()"), ("0 reset", ""));
    // A body that ends with the connection is not whole when that is reset.
    let endless: Act = |stream| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").unwrap();
        arm(stream);
        // The client's word that it has it all.
        hear(stream, 1);
        String::new()
    };
    let size = "HTTP/1.1 200 OK\r\n\r\npart".len();
    stand.trial(endless, &format!("{ASK}; hear({size}); {ASK}; rest()"), ("0 reset", ""));
    let mute: Act = |stream| {
        head(stream);
        arm(stream);
        String::new()
    };
    stand.trial(mute, &format!("{ASK}; rest()"), ("0 reset", ""));
    let told: Act = |stream| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").unwrap();
        rest(stream)
    };
    stand.trial(told, &format!("{ASK}; hear({size}); reset()"), ("", "0 reset"));
    // Half-close after the request, as HTTP/1.0 clients do it: the whole answer comes.
    let answers: Act = |stream| {
        head(stream);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
        stream.write_all(&vec![b'7'; 5_000_000]).unwrap();
        String::new()
    };
    stand.trial(
        answers,
        "say(b'GET / HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n'); half(); rest()",
        ("5000019 end", ""),
    );
}

/// What the server was to get and did not ends in a reset, where the client's own end would look like the request's.
#[test]
fn a_request_that_breaks_off_is_reset_for_the_server() {
    let stand = http("endings-broken");
    let gets: Act = |stream| {
        head(stream);
        hear(stream, 4);
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        rest(stream)
    };
    let breaks = "say(b'POST / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 100\\r\\nExpect: 100-continue\\r\\n\\r\\npart'); hear(25); half(); rest()";
    stand.one(false, gets, breaks, ("0 end", "0 end"));
    stand.one(true, gets, breaks, ("0 reset", "0 reset"));
}

/// As much PostgreSQL as it takes to get to the first statement.
fn greet(stream: &mut TcpStream) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    hear(stream, u32::from_be_bytes(length) as usize - 4);
    // AuthenticationOk, ReadyForQuery.
    stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").unwrap();
}

#[test]
fn resets_under_postgres_stay_resets() {
    let rule = "match: {sql: {effects: [read, session, txn]}}, then: allow";
    let stand = stand("endings-pg", "protocol: postgres, ", rule);
    const START: &str =
        "say(struct.pack('>II', 32, 196608) + b'user\\0app\\0database\\0shop\\0\\0'); hear(15)";
    const QUERY: &str = "say(b'Q' + struct.pack('>I', 13) + b'SELECT 1\\0')";
    let cut: Act = |stream| {
        greet(stream);
        hear(stream, 14);
        arm(stream);
        String::new()
    };
    stand.trial(cut, &format!("{START}; {QUERY}; rest()"), ("0 reset", ""));
    let told: Act = |stream| {
        greet(stream);
        hear(stream, 14);
        stream.write_all(b"N\0\0\0\x05\0").unwrap();
        rest(stream)
    };
    stand.trial(told, &format!("{START}; {QUERY}; hear(6); reset()"), ("", "0 reset"));
}
