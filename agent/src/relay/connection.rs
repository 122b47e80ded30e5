//! The life of one accepted connection: connection verdict, first bytes, TLS, session, closing record.
//! It refuses what no rule lets through and what it does not speak; until its session has ended, dropping is a reset.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_core::action::{Context, Protocol};
use weir_core::audit::{Decision, Kind, Record};
use weir_core::destination::Destination;
use weir_core::identity::Identity;
use weir_core::limits::{SERVER_FIRST_NS, SNIFF_NS};
use weir_core::policy::{ConnectionJudgement, Verdict};
use weir_core::session::{Opening, Session};
use weir_core::sniff::Sniffed;
use weir_core::wire::http2;
use weir_sql::PgGrammar;

use super::ahead::first_of_both;
use super::process::{Relay, Thread};
use super::pump::{End, Ended, Pump};
use super::rim::{Leg, Rim, Route};
use super::sniffing::{First, first};
use super::{postgres, secure};
use crate::clock;
use crate::listen::{finish_on_drop, reset_on_drop};
use crate::upstream::{Meter, Wire};

/// What is known of a connection while it is opened.
pub(crate) struct Connection {
    pub(crate) thread: Arc<Thread>,
    /// By which the keeper knows it.
    pub(crate) session: u64,
    /// The word that it shall end.
    pub(crate) revoked: Revoked,
    pub(crate) grammar: Rc<PgGrammar>,
    pub(crate) session_id: Arc<str>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) destination: Destination,
    pub(crate) started_ns: u64,
    /// What is written to its sockets towards the server.
    pub(crate) meter: Meter,
}

/// Yields the reason when the connection is to end.
pub(crate) type Revoked = tokio::sync::oneshot::Receiver<String>;

/// Why a connection ends before it has a session. The words go to the audit, never payload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Policy says no.
    #[error("{message}")]
    Denied { target: Arc<str>, rule: Arc<str>, message: Arc<str> },
    /// The workload broke a protocol, or speaks one that cannot be judged.
    #[error("{0}")]
    Violation(String),
    /// The server or this host failed.
    #[error("{0}")]
    Fault(String),
    #[error("the client went away before it asked for anything")]
    Gone { target: Arc<str>, rule: Arc<str> },
    /// Somebody ended it.
    #[error("revoked: {0}")]
    Revoked(String),
    #[error("the connection ended in the middle of its first message")]
    Cut,
    /// It was let through to the server, and asked for nothing.
    #[error("the client went away after the TLS handshake, before its first request")]
    Unused { target: Arc<str>, rule: Arc<str> },
}

/// A connection whose protocol is known, ready to be relayed.
pub(crate) struct Ready {
    pub(crate) session: Session,
    pub(crate) protocol: Protocol,
    pub(crate) workload: Wire,
    /// Bytes of the workload that were read and not consumed.
    pub(crate) first: BytesMut,
    /// Dialled already (TLS, and a server that may speak first), else when the session has its first cleared byte.
    pub(crate) server: Option<Wire>,
    /// How the upstream leg is secured when it is dialled later.
    pub(crate) leg: Leg,
}

/// Serves one connection to its end.
pub(crate) async fn serve(mut connection: Connection, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    reset_on_drop(&stream);
    let mut revoked = std::mem::replace(&mut connection.revoked, never());
    let opened = tokio::select! {
        opened = connection.open(Wire::from(stream)) => opened,
        Ok(reason) = &mut revoked => Err(Refusal::Revoked(reason)),
    };
    connection.revoked = revoked;
    match opened {
        Ok(ready) => connection.carry(ready).await,
        Err(refusal) => connection.record_refusal(&refusal),
    }
}

impl Refusal {
    /// A connection that policy does not let through; `what` is for the verdict that no rule has words for.
    pub(crate) fn denied(judgement: ConnectionJudgement, what: &str) -> Refusal {
        let message = match judgement.verdict {
            Verdict::Deny { message } => message,
            Verdict::Allow(_) | Verdict::Approve(_) => format!("{what} cannot be held for approval").into(),
        };
        Refusal::Denied { target: judgement.target, rule: judgement.rule, message }
    }

    /// A connection that was not used: allowed in vain, or denied in vain.
    pub(crate) fn gone(judgement: ConnectionJudgement) -> Refusal {
        match judgement.verdict {
            Verdict::Deny { .. } => Refusal::denied(judgement, ""),
            Verdict::Allow(_) | Verdict::Approve(_) => {
                Refusal::Gone { target: judgement.target, rule: judgement.rule }
            }
        }
    }
}

impl Connection {
    pub(crate) fn relay(&self) -> &Relay {
        &self.thread.relay
    }

    async fn open(&mut self, mut workload: Wire) -> Result<Ready, Refusal> {
        let early = self.judge(Protocol::Opaque);
        let denied = matches!(early.verdict, Verdict::Deny { .. }) && !early.needs_name;
        let patience = match early.verdict {
            Verdict::Allow(_) if early.opaque => Some(SERVER_FIRST_NS),
            // What is refused whatever it says is heard for as long as it takes to be told so in its own protocol.
            Verdict::Deny { .. } if denied => Some(SNIFF_NS),
            Verdict::Allow(_) | Verdict::Deny { .. } | Verdict::Approve(_) => None,
        };
        if early.passes_opaque() && self.passes_whatever_is_said() {
            let (said, server) = first_of_both(&Route::of(self), &mut workload).await?;
            let mut ready = self.opened(workload, said, early, false).await?;
            // Another policy may have come into force meanwhile; a leg that it wants otherwise is dialled anew.
            if ready.protocol == Protocol::Opaque && ready.server.is_none() {
                ready.server = Some(server);
            }
            return Ok(ready);
        }
        let said = first(&mut workload, BytesMut::new(), patience).await;
        self.opened(workload, said, early, denied).await
    }

    /// What is made of the client's first words.
    async fn opened(
        &mut self,
        workload: Wire,
        said: First,
        early: ConnectionJudgement,
        denied: bool,
    ) -> Result<Ready, Refusal> {
        match said {
            First::Known(Sniffed::Postgres(opening), bytes) => {
                postgres::open(self, workload, bytes, opening).await
            }
            First::Known(Sniffed::Tls { sni, alpn }, bytes) => {
                secure::open(self, workload, bytes, sni, alpn).await
            }
            First::Known(Sniffed::Http1, bytes) => self.http(workload, bytes),
            First::Known(Sniffed::Http2, bytes) => self.http2(workload, bytes).await,
            First::Known(Sniffed::Ssh, bytes) => self.opaque(workload, bytes, "SSH cannot be read"),
            First::Known(Sniffed::Malformed(why), _) => Err(Refusal::Violation(why.into())),
            First::Known(Sniffed::Unknown | Sniffed::More, bytes) => {
                self.opaque(workload, bytes, "the protocol is not known")
            }
            First::Silent => {
                self.opaque(workload, BytesMut::new(), "the client waits for the server to speak")
            }
            First::Stalled(bytes) => self.opaque(workload, bytes, "the first message did not end in time"),
            First::Gone => Err(Refusal::gone(early)),
            First::Cut if denied => Err(Refusal::denied(early, "the connection")),
            First::Cut => Err(Refusal::Cut),
        }
    }

    /// Plaintext HTTP: each request is judged, so that a denial is an answer and not a reset.
    fn http(&mut self, workload: Wire, bytes: BytesMut) -> Result<Ready, Refusal> {
        if self.judge(Protocol::Http).passes_unread() {
            return self.opaque_as(Protocol::Http, workload, bytes);
        }
        Ok(Ready {
            session: Session::http(self.opening(false, None)),
            protocol: Protocol::Http,
            workload,
            first: bytes,
            server: None,
            leg: Leg::Plain,
        })
    }

    /// HTTP/2 without TLS passes unread or not at all; its client is told to ask again in HTTP/1.1.
    async fn http2(&mut self, mut workload: Wire, bytes: BytesMut) -> Result<Ready, Refusal> {
        match self.unread("HTTP/2 without TLS is not built yet") {
            Ok(judgement) => Ok(self.opaque_session(Protocol::Opaque, workload, bytes, judgement)),
            Err(refusal) => {
                turn_to_http1(&mut workload).await;
                Err(refusal)
            }
        }
    }

    /// Passage without understanding, where a rule allows it for this destination; else refused with `why`.
    pub(crate) fn opaque(&mut self, workload: Wire, bytes: BytesMut, why: &str) -> Result<Ready, Refusal> {
        let judgement = self.unread(why)?;
        Ok(self.opaque_session(Protocol::Opaque, workload, bytes, judgement))
    }

    /// The same for what weir could read and no rule wants to.
    pub(crate) fn opaque_as(
        &mut self,
        spoken: Protocol,
        workload: Wire,
        bytes: BytesMut,
    ) -> Result<Ready, Refusal> {
        let judgement = self.unread("no rule reads this connection")?;
        Ok(self.opaque_session(spoken, workload, bytes, judgement))
    }

    fn unread(&self, why: &str) -> Result<ConnectionJudgement, Refusal> {
        let judgement = self.judge(Protocol::Opaque);
        let message = match &judgement.verdict {
            Verdict::Allow(_) if judgement.passes_opaque() => return Ok(judgement),
            Verdict::Allow(_) | Verdict::Approve(_) => {
                format!("{why}, and no rule allows opaque passage to this destination").into()
            }
            Verdict::Deny { message } => Arc::clone(message),
        };
        Err(Refusal::Denied { target: judgement.target, rule: judgement.rule, message })
    }

    fn opaque_session(
        &self,
        spoken: Protocol,
        workload: Wire,
        first: BytesMut,
        judgement: ConnectionJudgement,
    ) -> Ready {
        Ready {
            session: Session::opaque(self.opening(false, None), judgement, spoken),
            protocol: Protocol::Opaque,
            workload,
            first,
            server: None,
            leg: Leg::Plain,
        }
    }

    pub(crate) fn judge(&self, protocol: Protocol) -> ConnectionJudgement {
        self.relay().policy.load().connection(&self.context(protocol))
    }

    fn passes_whatever_is_said(&self) -> bool {
        self.relay().policy.load().passes_whatever_is_said(&self.context(Protocol::Opaque))
    }

    fn context(&self, protocol: Protocol) -> Context<'_> {
        Context {
            identity: &self.identity,
            destination: &self.destination,
            protocol,
            database: "",
            login: "",
            wall_ns: clock::wall_ns(),
        }
    }

    pub(crate) fn opening(&self, tls: bool, login: Option<Arc<weir_core::policy::Inject>>) -> Opening {
        Opening {
            session_id: Arc::clone(&self.session_id),
            identity: Arc::clone(&self.identity),
            destination: self.destination.clone(),
            tls,
            login,
        }
    }

    async fn carry(mut self, ready: Ready) {
        let revoked = std::mem::replace(&mut self.revoked, never());
        let rim = Rim::new(&self, ready.protocol, ready.leg, revoked);
        let protocol = ready.protocol;
        let pump = Pump::new(ready.session, rim, ready.workload, ready.first, ready.server);
        let Ended { end, mut workload, server, host, sent, cut_by } = pump.run().await;
        let mut record = self.record();
        record.kind = Kind::Connection;
        record.protocol = protocol.name().into();
        let written = self.meter.bytes();
        // What TLS took and could not send any more is nobody's.
        record.upstream_bytes = sent.min(written);
        record.weir_bytes = written - record.upstream_bytes;
        record.duration_us = clock::now().mono_ns.saturating_sub(self.started_ns) / 1_000;
        record.reason = cut_by.unwrap_or_default().into();
        if let Some(fault) = host.fault.borrow().as_ref() {
            record.decision = Decision::Failed;
            record.reason.clone_from(fault);
        }
        if let Some(reason) = &host.ended_for {
            record.decision = Decision::Denied;
            record.rule = "revoked".into();
            record.reason = format!("revoked: {reason}");
        }
        self.relay().append(&record);
        match end {
            End::Reset => {
                reset_on_drop(workload.tcp());
                if let Some(server) = &server {
                    reset_on_drop(server.tcp());
                }
            }
            End::Finished => {
                // Until now its end would have been a reset: half an answer must not look like a whole one.
                finish_on_drop(workload.tcp());
                drop(server);
                linger(&mut workload).await;
            }
        }
    }

    pub(crate) fn record(&self) -> Record {
        Record::about(&self.identity, &self.destination, &self.session_id, clock::wall_ns())
    }

    fn record_refusal(&self, refusal: &Refusal) {
        let mut record = self.record();
        record.kind = Kind::Connection;
        record.reason = refusal.to_string();
        record.decision = Decision::Denied;
        record.weir_bytes = self.meter.bytes();
        match refusal {
            Refusal::Denied { target, rule, .. } => {
                record.target = target.to_string();
                record.rule = rule.to_string();
            }
            // Nothing was asked for, so nothing was refused.
            Refusal::Gone { target, rule } | Refusal::Unused { target, rule } => {
                record.decision = Decision::Allowed;
                record.target = target.to_string();
                record.rule = rule.to_string();
            }
            Refusal::Revoked(_) => record.rule = "revoked".into(),
            Refusal::Violation(_) | Refusal::Cut => record.rule = "protocol".into(),
            Refusal::Fault(_) => record.decision = Decision::Failed,
        }
        self.relay().append(&record);
    }
}

/// Stands where the word to end has been taken from.
fn never() -> Revoked {
    tokio::sync::oneshot::channel().1
}

/// Tells a client that began in HTTP/2 to ask again in HTTP/1.1, and ends the connection so that it can hear it.
pub(crate) async fn turn_to_http1(workload: &mut Wire) {
    let frames = http2::http11_required(
        "weir reads HTTP/1.1, not HTTP/2: ask again in HTTP/1.1, or let a rule allow opaque passage (`opaque: allow`)",
    );
    finish_on_drop(workload.tcp());
    // A client that is gone needs no words.
    if workload.write_all(&frames).await.is_ok() && workload.shutdown().await.is_ok() {
        linger(workload).await;
    }
}

/// Reads on until the workload's FIN, within bounds: closing a socket with unread bytes would send a reset, which can
/// destroy our last answer on its way (RFC 9112, 9.6).
async fn linger(workload: &mut Wire) {
    let mut sink = BytesMut::with_capacity(LINGER_READ);
    let drained = async {
        for _ in 0..LINGER_BYTES / LINGER_READ {
            sink.clear();
            if !matches!(workload.read_buf(&mut sink).await, Ok(count) if count > 0) {
                break;
            }
        }
    };
    // Time is up or not: nothing more is owed.
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// How long, and how much, a workload may go on talking to a connection that has ended.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;
const LINGER_READ: usize = 16 << 10;
