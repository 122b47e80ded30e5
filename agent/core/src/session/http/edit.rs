//! The changes to a head: whole lines are left out or put in, every other byte stays as it came.
//! It refuses to know why: request and response say which lines go.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::wire::http1::{Field, RequestHead, ResponseHead, tokens};

/// Where an edited head goes, piece by piece.
pub(super) trait Sink {
    /// Bytes of the peer's own.
    fn relay(&mut self, bytes: &[u8]);
    /// Bytes that weir puts in.
    fn own(&mut self, bytes: &[u8]);
}

/// What changes in a request head.
#[derive(Debug, Default)]
pub(super) struct RequestEdits<'a> {
    /// Another request line: a value in the query was masked.
    pub(super) line: Option<&'a [u8]>,
    /// The body is another, of this length.
    pub(super) length: Option<usize>,
    /// weir answers the expectation itself.
    pub(super) without_expect: bool,
    /// The response will be read: no coding, no slices.
    pub(super) readable_response: bool,
    /// Leave out the offer of HTTP/2.
    pub(super) without_h2c: bool,
    pub(super) credentials: &'a [Credential],
}

/// A header that carries a secret; it replaces the client's own of that name.
pub(super) struct Credential {
    pub(super) name: String,
    pub(super) value: Zeroizing<Vec<u8>>,
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Credential({}: ..)", self.name)
    }
}

impl RequestEdits<'_> {
    fn is_empty(&self) -> bool {
        self.line.is_none()
            && self.length.is_none()
            && !self.without_expect
            && !self.readable_response
            && !self.without_h2c
            && self.credentials.is_empty()
    }

    fn drops(&self, field: &Field<'_>) -> bool {
        (self.length.is_some() && BODY_FIELDS.iter().any(|name| field.is(name)))
            || (self.without_expect && field.is("expect"))
            || (self.readable_response && READING_FIELDS.iter().any(|name| field.is(name)))
            || (self.without_h2c && (field.is("upgrade") || field.is("http2-settings")))
            || self.credentials.iter().any(|credential| field.is(&credential.name))
    }
}

/// Writes a request head with its edits.
pub(super) fn request(head: &RequestHead<'_>, edits: &RequestEdits<'_>, sink: &mut impl Sink) {
    if edits.is_empty() {
        sink.relay(head.bytes());
        return;
    }
    sink.relay(edits.line.unwrap_or(head.line()));
    for field in head.fields() {
        if edits.drops(&field) {
            continue;
        }
        if edits.without_h2c && field.is("connection") {
            let kept: Vec<&[u8]> = tokens(field.value).filter(|token| !is_h2c_option(token)).collect();
            if !kept.is_empty() {
                sink.relay(b"Connection: ");
                sink.relay(&kept.join(&b", "[..]));
                sink.relay(b"\r\n");
            }
            continue;
        }
        sink.relay(field.line);
    }
    if let Some(length) = edits.length {
        sink.own(format!("Content-Length: {length}\r\n").as_bytes());
    }
    if edits.readable_response {
        sink.own(b"Accept-Encoding: identity\r\n");
    }
    for credential in edits.credentials {
        sink.own(credential.name.as_bytes());
        sink.own(b": ");
        sink.own(&credential.value);
        sink.own(b"\r\n");
    }
    sink.relay(b"\r\n");
}

/// Writes a response head without `Alt-Svc` (it would lead the client round weir), and, where `masked` gives the
/// length of another body, without what described the old one.
pub(super) fn response(head: &ResponseHead<'_>, masked: Option<usize>, sink: &mut impl Sink) {
    if masked.is_none() && !head.alternatives {
        sink.relay(head.bytes());
        return;
    }
    sink.relay(head.line());
    for field in head.fields() {
        let described = masked.is_some() && BODY_FIELDS.iter().any(|name| field.is(name));
        if !described && !field.is("alt-svc") {
            sink.relay(field.line);
        }
    }
    if let Some(length) = masked {
        sink.own(format!("Content-Length: {length}\r\n").as_bytes());
    }
    sink.own(b"\r\n");
}

fn is_h2c_option(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"upgrade") || token.eq_ignore_ascii_case(b"http2-settings")
}

/// Fields that describe the exact bytes of a body.
const BODY_FIELDS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "trailer",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "etag",
    "accept-ranges",
];
/// Fields by which a client asks for codings or slices, which cannot be masked.
const READING_FIELDS: &[&str] = &["accept-encoding", "range", "if-range", "te"];
