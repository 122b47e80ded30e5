//! weir's own answers: a status and `{"error":{"type":…,"rule":…,"message":…,"id":…}}`.
//! It refuses to put bytes of the request into an answer; messages are a rule's own or fixed.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use serde::Serialize;

use crate::audit::Decision;
use crate::wire::http1::Violation;

/// Why a request gets weir's answer instead of the server's.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) rule: Arc<str>,
    pub(super) message: Cow<'static, str>,
    pub(super) decision: Decision,
}

impl Refusal {
    /// A rule said no.
    pub(super) fn denied(rule: &Arc<str>, message: &str) -> Self {
        Self::new(403, "weir_denied", rule, String::from(message).into(), Decision::Denied)
    }

    /// Nobody answered in time.
    pub(super) fn expired(rule: &Arc<str>) -> Self {
        Self::new(403, "weir_expired", rule, "nobody approved this request in time".into(), Decision::Expired)
    }

    /// An answer that a rule has to read and weir cannot; `readers` are the rules.
    pub(super) fn withheld(rule: &Arc<str>, why: &str, readers: &str) -> Self {
        let message = format!("{why}. The answer is read because of {readers}");
        Self::new(502, "weir_refused", rule, message.into(), Decision::Denied)
    }

    /// The protocol allows it, weir does not read it: a control could not run.
    pub(super) fn refused(status: u16, rule: &Arc<str>, message: &'static str) -> Self {
        Self::new(status, "weir_refused", rule, message.into(), Decision::Denied)
    }

    pub(super) fn malformed(violation: Violation) -> Self {
        let message = format!("{violation}");
        Self::new(
            violation.status(),
            "weir_malformed",
            &Arc::from("protocol"),
            message.into(),
            Decision::Denied,
        )
    }

    /// A request that broke off.
    pub(super) fn bad_request(message: &'static str) -> Self {
        Self::new(400, "weir_malformed", &Arc::from("protocol"), message.into(), Decision::Denied)
    }

    /// A request that did not end in time.
    pub(super) fn too_slow(message: String) -> Self {
        Self::new(408, "weir_timeout", &Arc::from("protocol"), message.into(), Decision::Denied)
    }

    pub(super) fn too_large(rule: &Arc<str>) -> Self {
        let message = "the body is larger than a rule may read";
        Self::new(413, "weir_too_large", rule, message.into(), Decision::Denied)
    }

    /// The server, or the way to it, failed.
    pub(super) fn bad_gateway(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(502, "weir_bad_gateway", &Arc::from("protocol"), message.into(), Decision::Failed)
    }

    /// weir or its host failed.
    pub(super) fn failed(rule: &Arc<str>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(503, "weir_failed", rule, message.into(), Decision::Failed)
    }

    pub(super) fn ledger() -> Self {
        Self::failed(&Arc::from("audit"), "the audit ledger cannot be written")
    }

    fn new(
        status: u16,
        kind: &'static str,
        rule: &Arc<str>,
        message: Cow<'static, str>,
        decision: Decision,
    ) -> Self {
        Self { status, kind, rule: rule.clone(), message, decision }
    }

    /// The whole answer. `bodiless`: the request was HEAD. `close`: the connection ends with it.
    pub(super) fn render(&self, id: &str, bodiless: bool, close: bool) -> String {
        let error = Error { kind: self.kind, rule: &self.rule, message: &self.message, id };
        // Strings always serialise; an empty object is still a valid answer.
        let body = serde_json::to_string(&Envelope { error }).unwrap_or_else(|_| String::from("{}"));
        let connection = if close { "Connection: close\r\n" } else { "" };
        let (status, length) = (self.status, body.len());
        let reason = reason(status);
        let shown = if bodiless { "" } else { body.as_str() };
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{connection}\r\n{shown}"
        )
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    rule: &'a str,
    message: &'a str,
    id: &'a str,
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    }
}
