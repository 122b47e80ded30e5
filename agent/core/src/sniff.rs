//! First bytes → protocol. It waits for enough bytes and never guesses "opaque": what is not known is `Unknown`.

use alloc::string::String;
use alloc::vec::Vec;

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

/// Looks at everything the client has sent so far, without consuming it.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let _ = bytes;
    Sniffed::Unknown
}
