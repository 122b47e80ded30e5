//! A tiny DNS server on the loopback: fixed answers by name, over UDP and TCP, and a list of what it was asked.
//! It refuses to be one for real: it reads just what a test writes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

/// A client for python3: asks `SERVER NAME TYPE WAY…` and prints the code, flags, source and answer of each.
pub const ASK: &str = r"
import socket, struct, sys
server, name, kind = sys.argv[1], sys.argv[2], int(sys.argv[3])
labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\0'
query = struct.pack('>HHHHHH', 0x1234, 0x100, 1, 0, 0, 0) + labels + struct.pack('>HH', kind, 1)
def show(way, answer, source):
    ident, flags, _, count = struct.unpack('>HHHH', answer[:8])
    print(way, 'id=%x' % ident, 'code=%d' % (flags & 15), 'cut=%d' % (flags >> 9 & 1), 'records=%d' % count, 'bytes=%d' % len(answer), 'from=%s' % source, answer[12:].hex())
for way in sys.argv[4:]:
    if way == 'tcp':
        s = socket.create_connection((server, 53), 10)
        s.sendall(struct.pack('>H', len(query)) + query)
        f = s.makefile('rb')
        show(way, f.read(struct.unpack('>H', f.read(2))[0]), s.getpeername()[0])
        continue
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(15)
    if way.startswith('from='):
        s.bind((way[5:], 0))
    if way == 'connected':
        s.connect((server, 53)); s.send(query)
    else:
        s.sendto(query, (server, 53))
    answer, source = s.recvfrom(65535)
    show(way, answer, '%s:%d' % source)
";

const A: u16 = 1;
const TXT: u16 = 16;
const HTTPS: u16 = 65;

/// A running server; its threads end with the process.
#[derive(Debug)]
pub struct Nameserver {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    datagrams: UdpSocket,
    held: Arc<Mutex<Vec<Held>>>,
}

/// An answer that waits, and for whom.
type Held = (Vec<u8>, SocketAddr);

impl Nameserver {
    /// Serves at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(address: &str) -> std::io::Result<Nameserver> {
        let stream = TcpListener::bind(address)?;
        let address = stream.local_addr()?;
        let datagrams = UdpSocket::bind(address)?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (by_stream, by_datagram) = (Arc::clone(&asked), Arc::clone(&asked));
        let held = Arc::new(Mutex::new(Vec::new()));
        let (holding, socket) = (Arc::clone(&held), datagrams.try_clone()?);
        std::thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok((count, from)) = socket.recv_from(&mut question) {
                let Some(answer) = answer(&question[..count], &by_datagram, false) else { continue };
                if question[12..].starts_with(b"\x04held") {
                    let Ok(mut held) = holding.lock() else { return };
                    held.push((answer, from));
                } else {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        std::thread::spawn(move || {
            for stream in stream.incoming() {
                let _ = stream.and_then(|mut stream| {
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut question)?;
                    let answer = answer(&question, &by_stream, true).unwrap_or_default();
                    stream.write_all(&(answer.len() as u16).to_be_bytes())?;
                    stream.write_all(&answer)
                });
            }
        });
        Ok(Nameserver { address, asked, datagrams, held })
    }

    /// `NAME TYPE` of every question so far, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }

    /// Questions by datagram about `held.*` that wait for [`Nameserver::release`].
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.lock().map(|held| held.len()).unwrap_or_default()
    }

    /// Answers those.
    pub fn release(&self) {
        let held = self.held.lock().map(|mut held| std::mem::take(&mut *held)).unwrap_or_default();
        for (answer, to) in held {
            let _ = self.datagrams.send_to(&answer, to);
        }
    }
}

/// `silent.*` has no answer, `held.*` one when the test says so, `long.*` one of 3 KB, every other name the address 127.0.0.1 and a service with HTTP/3.
fn answer(question: &[u8], asked: &Mutex<Vec<String>>, over_tcp: bool) -> Option<Vec<u8>> {
    let (mut at, mut name) = (12, String::new());
    while *question.get(at)? != 0 {
        let next = at + 1 + usize::from(question[at]);
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(question.get(at + 1..next)?).ok()?);
        at = next;
    }
    let end = at + 5;
    let kind = u16::from_be_bytes([*question.get(at + 1)?, *question.get(at + 2)?]);
    asked.lock().ok()?.push(format!("{name} {kind}"));
    let records: Vec<Vec<u8>> = match kind {
        _ if name.starts_with("silent.") => return None,
        A => vec![vec![127, 0, 0, 1]],
        TXT if name.starts_with("long.") => (0..12).map(|_| [&[250][..], &[b'x'; 250]].concat()).collect(),
        // Priority 1, target `.`, alpn h2 and h3, ech.
        HTTPS => vec![b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x05\0\x09ech-bytes".to_vec()],
        _ => Vec::new(),
    };
    let is_long = !over_tcp && records.len() > 1 && question.len() == end;
    let mut out = question[..end].to_vec();
    out[2] = 0x81 | if is_long { 2 } else { 0 };
    out[3] = 0x80;
    out[6..12].copy_from_slice(&[0, if is_long { 0 } else { records.len() as u8 }, 0, 0, 0, 0]);
    for data in records.iter().filter(|_| !is_long) {
        out.extend_from_slice(b"\xc0\x0c");
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(b"\0\x01\0\0\0\x3c");
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    Some(out)
}
