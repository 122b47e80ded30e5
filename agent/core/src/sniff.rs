//! First bytes → protocol. It waits for enough bytes and never guesses "opaque": what is not known is `Unknown`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{PG_STARTUP_BYTES, SNIFF_BYTES};
use crate::wire::tls;

#[cfg(test)]
mod tests;

/// What the first bytes of a client are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// Too few bytes to tell; ask again with more (up to `limits::SNIFF_BYTES`).
    More,
    Postgres(PostgresOpening),
    /// A TLS ClientHello, complete.
    Tls {
        sni: Option<String>,
        alpn: Vec<Vec<u8>>,
    },
    Http1,
    /// The HTTP/2 connection preface without TLS.
    Http2,
    Ssh,
    /// Nothing weir knows.
    Unknown,
    /// Begins like a protocol weir knows and then breaks its rules.
    Malformed(&'static str),
}

/// The untyped first message of a PostgreSQL client (protocol 3, section "Start-up").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresOpening {
    /// 80877103; its length is always 8.
    SslRequest,
    /// 80877104; its length is always 8.
    GssRequest,
    /// 80877102.
    Cancel,
    /// Protocol 3.x.
    Startup,
}

/// Looks at everything the client has sent so far, without consuming it. The answer for a stream never changes once it
/// is something else than `More`.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let sniffed = match bytes {
        [] => Sniffed::More,
        [0, ..] => postgres(bytes),
        [0x16, ..] => handshake(bytes),
        // Length with the high bit set, CLIENT-HELLO, then version 2 or 3.x.
        [0x80..=0xff, _, 1, 0, 2, ..] | [0x80..=0xff, _, 1, 3, 0..=4, ..] => {
            Sniffed::Malformed("SSLv2 hello")
        }
        [0x80..=0xff] | [0x80..=0xff, _] | [0x80..=0xff, _, 1] | [0x80..=0xff, _, 1, 0 | 3] => Sniffed::More,
        [..] => text(bytes),
    };
    match sniffed {
        Sniffed::More if bytes.len() >= SNIFF_BYTES => Sniffed::Malformed("the first message is too long"),
        other => other,
    }
}

/// `length code`, both 32 bits, big-endian. A start-up packet is shorter than 64 KiB, so it begins with two zero bytes.
fn postgres(bytes: &[u8]) -> Sniffed {
    let [0, second, rest @ ..] = bytes else { return Sniffed::More };
    if *second != 0 {
        return Sniffed::Unknown;
    }
    let [high, low, code @ ..] = rest else { return Sniffed::More };
    let length = usize::from(*high) << 8 | usize::from(*low);
    if !(8..=PG_STARTUP_BYTES).contains(&length) {
        return Sniffed::Unknown;
    }
    let [first, second, third, fourth, ..] = code else { return Sniffed::More };
    match (u32::from_be_bytes([*first, *second, *third, *fourth]), length) {
        (80_877_103, 8) => Sniffed::Postgres(PostgresOpening::SslRequest),
        (80_877_104, 8) => Sniffed::Postgres(PostgresOpening::GssRequest),
        // 16 with a key of four bytes; protocol 3.2 allows keys of up to 256 bytes.
        (80_877_102, 16..=268) => Sniffed::Postgres(PostgresOpening::Cancel),
        (80_877_102..=80_877_104, _) => Sniffed::Malformed("PostgreSQL start-up request of a wrong length"),
        // The shortest start-up packet holds the version and the end of the list.
        (0x0003_0000..=0x0003_ffff, 9..) => Sniffed::Postgres(PostgresOpening::Startup),
        (0x0003_0000..=0x0003_ffff, _) => Sniffed::Malformed("PostgreSQL start-up packet of a wrong length"),
        _ => Sniffed::Unknown,
    }
}

fn handshake(bytes: &[u8]) -> Sniffed {
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Sniffed::Unknown;
    }
    match tls::client_hello(bytes) {
        Ok(Some(hello)) => Sniffed::Tls { sni: hello.sni, alpn: hello.alpn },
        Ok(None) => Sniffed::More,
        Err(reason) => Sniffed::Malformed(reason),
    }
}

/// Protocols that begin with ASCII.
fn text(bytes: &[u8]) -> Sniffed {
    for (opening, protocol) in
        [(HTTP2_PREFACE, Sniffed::Http2), (SSH_BANNER, Sniffed::Ssh), (OLD_SSH_BANNER, Sniffed::Ssh)]
    {
        if bytes.starts_with(opening) {
            return protocol;
        }
        if opening.starts_with(bytes) {
            return Sniffed::More;
        }
    }
    // RFC 9112 section 2.2 lets a client begin with one empty line.
    let line = match bytes {
        [b'\r'] | [b'\r', b'\n'] => return Sniffed::More,
        [b'\r', b'\n', line @ ..] => line,
        line => line,
    };
    let name = line.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match line.get(name) {
        _ if name > METHOD_BYTES => Sniffed::Unknown,
        None => Sniffed::More,
        Some(b' ') if name > 0 => request_target(line.get(name + 1..).unwrap_or_default()),
        Some(_) => Sniffed::Unknown,
    }
}

/// After `METHOD SP`: a path, an absolute URI, `*`, or the host of a CONNECT; then ` HTTP/`.
fn request_target(rest: &[u8]) -> Sniffed {
    let target = rest.iter().take_while(|byte| matches!(byte, 0x21..=0x7e)).count();
    let after = rest.get(target..).unwrap_or_default();
    match after.first() {
        None => Sniffed::More,
        Some(b' ') if target > 0 => {
            const VERSION: &[u8] = b" HTTP/";
            if after.starts_with(VERSION) {
                Sniffed::Http1
            } else if VERSION.starts_with(after) {
                Sniffed::More
            } else {
                Sniffed::Unknown
            }
        }
        Some(_) => Sniffed::Unknown,
    }
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SSH_BANNER: &[u8] = b"SSH-2.0-";
const OLD_SSH_BANNER: &[u8] = b"SSH-1.99-";
/// The longest registered method, UPDATEREDIRECTREF, has 17 letters.
const METHOD_BYTES: usize = 32;
