//! The poison pill: a message the server must reject at the very place of a denied one, and what its error becomes.
//! It refuses to answer for the server: order, rollback, skipping and transaction status stay the server's own.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::wire::postgres::{backend, frontend};

/// Prefix of names that only weir uses; clients may not use it.
pub const RESERVED: u8 = 0x01;

/// Insufficient privilege: a rule said no.
pub const DENIED: &str = "42501";
/// The name of a prepared statement, or of a portal, is not known.
pub const NO_STATEMENT: &str = "26000";
pub const NO_PORTAL: &str = "34000";
/// A program limit is exceeded.
pub const LIMIT: &str = "54000";
/// Cancelled: nobody approved in time.
pub const EXPIRED: &str = "57014";
/// weir cannot write its record.
pub const UNRECORDED: &str = "58030";
/// The peer broke the protocol.
pub const PROTOCOL: &str = "08P01";

/// What the client is told in place of the server's own error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pill(Box<Notice>);

/// The fields of an error that weir words itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notice {
    pub code: &'static str,
    pub message: String,
    pub detail: String,
    pub hint: String,
}

impl Pill {
    pub fn new(code: &'static str, message: &str) -> Self {
        Pill(Box::new(Notice { code, message: message.to_string(), ..Notice::default() }))
    }

    pub fn denied(message: &str) -> Self {
        let mut pill = Pill::new(DENIED, message);
        pill.0.hint = "Ask the owner of the policy, and quote the request id.".to_string();
        pill
    }

    /// Names the rule and the request in DETAIL.
    pub fn signed(mut self, rule: &str, request: &str) -> Self {
        self.0.detail = format!("rule {rule}, request {request}");
        self
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Writes the error the client sees.
    pub fn write(&self, out: &mut Vec<u8>) {
        error(out, "ERROR", &self.0);
    }
}

/// Writes an error that ends the connection.
pub fn fatal(out: &mut Vec<u8>, code: &'static str, message: &str) {
    error(out, "FATAL", &Notice { code, message: message.to_string(), ..Notice::default() });
}

/// Writes a notice for the user, such as why a statement waits.
pub fn notice(out: &mut Vec<u8>, message: &str, hint: &str) {
    let fields: [(u8, &[u8]); 5] = [
        (b'S', b"NOTICE"),
        (b'V', b"NOTICE"),
        (b'C', b"00000"),
        (b'M', message.as_bytes()),
        (b'H', hint.as_bytes()),
    ];
    backend::write_error(out, b'N', &fields);
}

fn error(out: &mut Vec<u8>, severity: &str, notice: &Notice) {
    let fields: [(u8, &[u8]); 6] = [
        (b'S', severity.as_bytes()),
        (b'V', severity.as_bytes()),
        (b'C', notice.code.as_bytes()),
        (b'M', notice.message.as_bytes()),
        (b'D', notice.detail.as_bytes()),
        (b'H', notice.hint.as_bytes()),
    ];
    backend::write_error(out, b'E', &fields);
}

/// Text that is no SQL, readable in the server's log.
fn text(rule: &str, request: &str) -> String {
    let clean: String =
        rule.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter)).collect();
    format!("@denied by policy {clean}, request {request}@")
}

/// A name that no client can have used.
fn name(rule: &str, request: &str) -> Vec<u8> {
    let mut name = Vec::from([RESERVED]);
    name.extend_from_slice(text(rule, request).as_bytes());
    name
}

pub fn query(out: &mut Vec<u8>, rule: &str, request: &str) {
    frontend::query(out, text(rule, request).as_bytes());
}

/// A failed Parse destroys the unnamed statement only if it was for the unnamed one.
pub fn parse(out: &mut Vec<u8>, unnamed: bool, rule: &str, request: &str) {
    let name = if unnamed { Vec::new() } else { name(rule, request) };
    frontend::parse_message(out, &name, text(rule, request).as_bytes());
}

pub fn bind(out: &mut Vec<u8>, rule: &str, request: &str) {
    frontend::bind_message(out, b"", &name(rule, request));
}

pub fn describe(out: &mut Vec<u8>, what: frontend::Target, rule: &str, request: &str) {
    frontend::describe(out, what, &name(rule, request));
}

pub fn execute(out: &mut Vec<u8>, rule: &str, request: &str) {
    frontend::execute(out, &name(rule, request), 0);
}

/// Function OID 0 does not exist.
pub fn function_call(out: &mut Vec<u8>) {
    frontend::function_call(out, 0);
}
