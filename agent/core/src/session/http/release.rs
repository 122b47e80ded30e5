//! The moment an act leaves: permit and receipt are there, credentials go in, bytes are cleared for the server.
//! It refuses to go on without a server or a credential that the policy asked for.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::deny::Refusal;
use super::edit::{self, RequestEdits, Sink};
use super::exchange::{Exchange, Unread};
use super::hold::Held;
use super::inject;
use super::request::Upload;
use super::{Conversation, Wake};
use crate::audit::Receipt;
use crate::policy::Inject;
use crate::session::{Act, Cleared};
use crate::wire::http1::{Body, Framing, RequestHead, Upgrade};

/// What of a request goes out besides its head fields.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Another request line, where a value in the query was masked.
    pub(super) line: Option<Vec<u8>>,
    pub(super) body: Payload,
}

#[derive(Debug)]
pub(super) enum Payload {
    /// As it comes, if there is one.
    Stream,
    /// Gathered, and not changed: chunk framing included.
    Raw(Vec<u8>),
    Masked(Vec<u8>),
}

impl Outgoing {
    /// What the workload has still to send of this request.
    pub(super) fn unread(&self, head: &RequestHead<'_>) -> Unread {
        match self.body {
            Payload::Stream => Unread::body_of(head),
            Payload::Raw(_) | Payload::Masked(_) => Unread::nothing(head.persistent),
        }
    }

    /// The edits of the head that follow from it. Credentials are not among them.
    pub(super) fn edits<'a>(&'a self, exchange: &Exchange, head: &RequestHead<'_>) -> RequestEdits<'a> {
        RequestEdits {
            line: self.line.as_deref(),
            length: match &self.body {
                Payload::Masked(body) => Some(body.len()),
                Payload::Stream | Payload::Raw(_) => None,
            },
            without_expect: head.expects && !matches!(self.body, Payload::Stream),
            readable_response: exchange.hold_response,
            without_h2c: head.upgrade == Upgrade::H2c,
            credentials: &[],
        }
    }
}

impl Conversation {
    /// Sends an act that was permitted and recorded.
    pub(super) fn release(
        &mut self,
        wake: &mut Wake<'_>,
        mut exchange: Exchange,
        head: &RequestHead<'_>,
        outgoing: Outgoing,
        injects: &[Arc<Inject>],
        act: Act,
    ) {
        exchange.released = wake.now.mono_ns;
        if self.server_closed {
            let refusal =
                Refusal::bad_gateway("the server closed the connection before the request could be sent");
            return self.answer(exchange, outgoing.unread(head), refusal);
        }
        let credentials = match inject::credentials(injects, wake.host) {
            Ok(credentials) => credentials,
            Err(reason) => {
                let refusal = Refusal::failed(&exchange.rule, reason);
                return self.answer(exchange, outgoing.unread(head), refusal);
            }
        };
        let edits = RequestEdits { credentials: &credentials, ..outgoing.edits(&exchange, head) };
        exchange.expecting = head.expects && !edits.without_expect;
        let (before, _) = wake.out.to_server.totals();
        edit::request(head, &edits, &mut Clearing { act: &act, queue: &mut wake.out.to_server });
        let stream = match &outgoing.body {
            Payload::Stream => head.framing != Framing::Empty,
            Payload::Raw(body) | Payload::Masked(body) => {
                wake.out.to_server.clear(&act, body);
                false
            }
        };
        exchange.upstream_bytes += wake.out.to_server.totals().0 - before;
        exchange.act = Some(act);
        self.exchanges.push_back(exchange);
        if stream {
            self.upload = Upload::Stream(Body::new(head.framing));
        } else {
            self.request_sent();
        }
        if self.workload_closed {
            self.workload_gone(wake);
        }
    }

    /// Sends an act that waited for its record.
    pub(super) fn release_held(&mut self, wake: &mut Wake<'_>, held: Held, receipt: Receipt) {
        let unread = held.unread();
        let Held { exchange, head, outgoing, terms, permit, .. } = held;
        // The head was parsed before; were it not to parse again, nothing may leave.
        let (Some(permit), Ok(head)) = (permit, RequestHead::parse(&head)) else {
            let rule = exchange.rule.clone();
            return self.answer(exchange, unread, Refusal::failed(&rule, "the held request cannot be sent"));
        };
        self.release(wake, exchange, &head, outgoing, &terms.injects, Act::open(permit, receipt));
    }
}

/// Puts a head into the server's queue under its act.
struct Clearing<'a> {
    act: &'a Act,
    queue: &'a mut Cleared,
}

impl Sink for Clearing<'_> {
    fn relay(&mut self, bytes: &[u8]) {
        self.queue.clear(self.act, bytes);
    }

    fn own(&mut self, bytes: &[u8]) {
        self.queue.own(bytes);
    }
}
