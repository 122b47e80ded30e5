//! The workload's side: heads, bodies that are gathered, bodies that stream, bodies that are dropped.
//! It refuses requests whose meaning depends on who reads them, before policy sees them.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::body::{Gather, GatherError};
use super::deny::Refusal;
use super::exchange::{Exchange, Unread};
use super::hold::Held;
use super::{Conversation, Wake, full, record};
use crate::action::{Context, Protocol};
use crate::audit::Durability;
use crate::destination::Evidence;
use crate::limits::{HTTP_BODY_BYTES, HTTP_PIPELINE};
use crate::policy::Judgement;
use crate::session::Close;
use crate::wire::http1::{
    Body, Framing, HeadScan, Readings, RequestHead, Target, Upgrade, Version, Violation,
};

/// What the workload is in the middle of.
#[derive(Debug)]
pub(super) enum Upload {
    Head(HeadScan),
    /// The body of a request that is not judged, or not asked about, before it is whole.
    Gather(Box<Gathering>),
    /// A human decides.
    Asking(Box<Held>),
    /// The body of the last exchange, cleared by its act.
    Stream(Body),
    /// The rest of a refused request; `left` bytes are borne.
    Drain {
        body: Body,
        left: usize,
    },
    /// No request will follow.
    Finished,
}

#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) exchange: Exchange,
    pub(super) head: Vec<u8>,
    pub(super) gather: Gather,
    /// Made already where only the masks or the question need the body.
    pub(super) judgement: Option<Judgement>,
    pub(super) durability: Durability,
    /// `Expect: 100-continue` that weir has not answered yet.
    pub(super) expecting: bool,
}

impl Default for Upload {
    fn default() -> Self {
        Upload::Head(HeadScan::default())
    }
}

impl Conversation {
    pub(super) fn workload(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            self.answer_due(wake);
            if self.ended {
                return bytes.len();
            }
            if self.waiting.is_some() || full(wake.out.to_server.as_slice()) || self.pipeline_full() {
                break;
            }
            let step = match &mut self.upload {
                Upload::Head(_) => self.request_head(wake, rest),
                Upload::Gather(_) => self.gather(wake, rest),
                Upload::Stream(_) => self.stream(wake, rest),
                Upload::Drain { .. } => self.drain(rest),
                Upload::Asking(_) => 0,
                Upload::Finished => rest.len(),
            };
            if step == 0 {
                break;
            }
            taken += step;
        }
        taken
    }

    pub(super) fn pipeline_full(&self) -> bool {
        matches!(self.upload, Upload::Head(_)) && self.exchanges.len() >= HTTP_PIPELINE
    }

    /// What policy needs to know besides the act.
    pub(super) fn context(&self, wake: &Wake<'_>) -> Context<'_> {
        Context {
            identity: &self.opening.identity,
            destination: &self.claimed,
            protocol: Protocol::Http,
            database: "",
            login: "",
            wall_ns: wake.now.wall_ns,
        }
    }

    fn request_head(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let Upload::Head(scan) = &mut self.upload else { return 0 };
        let range = match scan.find(bytes) {
            Ok(Some(range)) => range,
            Ok(None) => return 0,
            Err(violation) => {
                self.malformed(wake, violation);
                return bytes.len();
            }
        };
        self.upload = Upload::default();
        let taken = range.end;
        match RequestHead::parse(bytes.get(range).unwrap_or_default()) {
            Ok(head) => self.begin(wake, &head),
            Err(violation) => self.malformed(wake, violation),
        }
        taken
    }

    /// A well-formed head has come: describe the act, refuse what is not relayed, and gather or judge.
    fn begin(&mut self, wake: &mut Wake<'_>, head: &RequestHead<'_>) {
        let mut exchange = self.open_exchange(wake);
        if let Err(violation) = self.describe(&mut exchange, head) {
            let refusal = Refusal::malformed(violation);
            return self.refuse(wake, exchange, Unread::nothing(false), refusal, Durability::Fast);
        }
        if let Some(refusal) = self.not_relayed(&exchange, head) {
            return self.refuse(wake, exchange, Unread::body_of(head), refusal, Durability::Fast);
        }
        self.claim(&exchange.host);
        let needs = wake.judge.needs(&self.context(wake), &exchange.request(None));
        exchange.judge_response = needs.response_body;
        if needs.request_body && head.framing != Framing::Empty {
            return self.begin_gather(wake, exchange, head, None, Durability::Fast);
        }
        self.weigh(wake, exchange, head, None, None);
    }

    fn describe(&mut self, exchange: &mut Exchange, head: &RequestHead<'_>) -> Result<(), Violation> {
        let (path, query) = head.target.parts();
        exchange.method.push_str(head.method);
        exchange.bytes_up = head.bytes().len() as u64;
        exchange.persistent = head.persistent;
        exchange.http10 = head.version == Version::Http10;
        exchange.host = match &head.host {
            Some(host) => host.host().to_ascii_lowercase(),
            None => self.opening.destination.ip().to_string(),
        };
        exchange.query.push_str(query);
        let readings = Readings::of(path).map(|readings| {
            exchange.path = readings.path;
            exchange.other_paths = readings.others;
        });
        if readings.is_err() {
            exchange.path = String::from(path);
        }
        if exchange.path != path {
            exchange.sent_path.push_str(path);
        }
        let classes = match &self.classes {
            Some((judge, classes)) if Arc::ptr_eq(judge, &exchange.judge) => classes,
            Some(_) | None => {
                let judge = Arc::clone(&exchange.judge);
                let classes = judge.classes();
                &self.classes.insert((judge, classes)).1
            }
        };
        exchange.shown = record::shown(classes, exchange);
        readings
    }

    /// Well-formed requests that weir does not pass on, whatever the policy says.
    fn not_relayed(&self, exchange: &Exchange, head: &RequestHead<'_>) -> Option<Refusal> {
        let refused = |status, message| Some(Refusal::refused(status, &Arc::from("protocol"), message));
        match &head.target {
            Target::Tunnel => return refused(403, "CONNECT is not relayed: connect to the server itself"),
            Target::Absolute { secure, .. } if *secure != self.opening.tls => {
                return refused(421, "the scheme of the request target is not that of the connection");
            }
            Target::Absolute { .. } | Target::Origin { .. } | Target::Asterisk => {}
        }
        if head.upgrade == Upgrade::Other {
            return refused(
                403,
                "upgrades (WebSocket and others) are not relayed: weir cannot read what follows",
            );
        }
        if self.opening.tls && !self.proved(&exchange.host) {
            return refused(421, WRONG_HOST);
        }
        None
    }

    fn proved(&self, host: &str) -> bool {
        let destination = &self.opening.destination;
        destination.names().iter().any(|name| name.evidence == Evidence::Certificate && name.host == host)
            || host.parse().is_ok_and(|ip: core::net::IpAddr| ip.to_canonical() == destination.ip())
    }

    /// The client's Host joins the names of the destination as what it is: the workload's word.
    pub(super) fn claim(&mut self, host: &str) {
        if self.claimed_host == host {
            return;
        }
        self.claimed_host.clear();
        self.claimed_host.push_str(host);
        self.claimed = self.opening.destination.clone();
        let own_address = host
            .parse()
            .is_ok_and(|ip: core::net::IpAddr| ip.to_canonical() == self.opening.destination.ip());
        if !own_address {
            self.claimed.learn(host, Evidence::Claimed);
        }
    }

    pub(super) fn begin_gather(
        &mut self,
        wake: &mut Wake<'_>,
        exchange: Exchange,
        head: &RequestHead<'_>,
        judgement: Option<Judgement>,
        durability: Durability,
    ) {
        let unread = Unread::body_of(head);
        let rule = exchange.rule.clone();
        if let Err(message) = super::body::readable(head.content_type, head.encoded) {
            return self.refuse(wake, exchange, unread, Refusal::refused(403, &rule, message), durability);
        }
        if matches!(head.framing, Framing::Length(length) if length > HTTP_BODY_BYTES as u64) {
            return self.refuse(wake, exchange, unread, Refusal::too_large(&rule), durability);
        }
        self.upload = Upload::Gather(Box::new(Gathering {
            exchange,
            head: head.bytes().to_vec(),
            gather: Gather::new(head.framing),
            judgement,
            durability,
            expecting: head.expects,
        }));
    }

    fn gather(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let Upload::Gather(gathering) = &mut self.upload else { return 0 };
        let fed = gathering.gather.feed(bytes);
        if let Ok(taken) = fed
            && !gathering.gather.is_done()
        {
            gathering.exchange.bytes_up += taken as u64;
            return taken;
        }
        let Upload::Gather(gathering) = core::mem::take(&mut self.upload) else { return 0 };
        let Gathering { mut exchange, head, gather, judgement, durability, .. } = *gathering;
        let refusal = match fed {
            Ok(taken) => {
                exchange.bytes_up += taken as u64;
                exchange.ready = wake.now.mono_ns;
                match RequestHead::parse(&head) {
                    Ok(head) => self.weigh(wake, exchange, &head, Some(gather), judgement),
                    // It was parsed before; were it not to parse again, nothing may leave.
                    Err(violation) => self.malformed(wake, violation),
                }
                return taken;
            }
            Err(GatherError::Large) => Refusal::too_large(&exchange.rule),
            Err(GatherError::Malformed(violation)) => Refusal::malformed(violation),
        };
        self.refuse(wake, exchange, Unread::nothing(false), refusal, durability);
        bytes.len()
    }

    /// The next piece of an admitted body, as it came.
    fn stream(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let (Upload::Stream(body), Some(exchange)) = (&mut self.upload, self.exchanges.back_mut()) else {
            return 0;
        };
        let step = match body.step(bytes) {
            Ok(step) => step,
            Err(violation) => {
                self.break_off(wake, Refusal::malformed(violation));
                return bytes.len();
            }
        };
        let Some(act) = &exchange.act else { return 0 };
        wake.out.to_server.clear(act, bytes.get(..step.taken).unwrap_or_default());
        exchange.bytes_up += step.taken as u64;
        exchange.upstream_bytes += step.taken as u64;
        if body.is_done() {
            self.request_sent();
        }
        step.taken
    }

    /// The last byte of a request has gone to the server.
    pub(super) fn request_sent(&mut self) {
        let Some(exchange) = self.exchanges.back_mut() else { return };
        exchange.act = None;
        exchange.request_done = true;
        self.upload = if exchange.persistent { Upload::default() } else { Upload::Finished };
    }

    /// Asks for the body of a gathered request once its turn to be answered has come.
    pub(super) fn invite_body(&mut self, wake: &mut Wake<'_>) {
        if let Upload::Gather(gathering) = &mut self.upload
            && gathering.expecting
            && self.exchanges.is_empty()
        {
            gathering.expecting = false;
            const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            gathering.exchange.bytes_down += CONTINUE.len() as u64;
            wake.out.to_workload.own(CONTINUE);
        }
    }

    /// The workload will send nothing more; what it asked for in full is still answered.
    pub(super) fn workload_gone(&mut self, wake: &mut Wake<'_>) {
        match core::mem::replace(&mut self.upload, Upload::Finished) {
            // A cut head is no request, and leaves its row.
            Upload::Head(scan) if scan.begun() => {
                let exchange = self.open_exchange(wake);
                let refusal = Refusal::bad_request(match self.requests {
                    1 => "the connection ended in the middle of its first message",
                    _ => "the connection ended in the middle of a request head",
                });
                self.refuse(wake, exchange, Unread::nothing(false), refusal, Durability::Fast);
            }
            // A record that is waited for still releases its act.
            Upload::Head(_) | Upload::Finished => {}
            // The server must not take a part for the whole.
            Upload::Stream(_) => self.end(wake, Close::Reset),
            Upload::Drain { .. } => self.stop_draining(),
            Upload::Gather(gathering) => {
                let refusal = Refusal::bad_request("the connection ended inside the body");
                let durability = gathering.durability;
                self.refuse(wake, gathering.exchange, Unread::nothing(false), refusal, durability);
            }
            Upload::Asking(held) => self.abandon(wake, *held),
        }
    }
}

const WRONG_HOST: &str = "the Host field is not the name that the server's certificate proved, nor a `host` of the target \
                          that sets `tls.name`";
