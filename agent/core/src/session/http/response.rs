//! The server's side: answers are matched to requests in order, passed on as they came, or read whole and masked.
//! It refuses answers nobody asked for, upgrades, and bodies that a mask cannot read.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::body::{Gather, GatherError, Masker, media, readable};
use super::deny::Refusal;
use super::edit::{self, Sink};
use super::exchange::Exchange;
use super::request::Upload;
use super::{Conversation, Wake, full};
use crate::action::{Action, Response};
use crate::limits::HTTP_BODY_BYTES;
use crate::policy::{MaskRule, Verdict};
use crate::session::{Close, Masked};
use crate::wire::http1::{Body, Framing, HeadScan, ResponseHead};

/// What the server is in the middle of, for the exchange at the front.
#[derive(Debug)]
pub(super) enum Download {
    Head(HeadScan),
    Stream(Body),
    Gather(Box<(Vec<u8>, Gather)>),
}

impl Default for Download {
    fn default() -> Self {
        Download::Head(HeadScan::default())
    }
}

impl Conversation {
    pub(super) fn server(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        self.heard |= !bytes.is_empty();
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            self.answer_due(wake);
            if self.ended {
                return bytes.len();
            }
            if self.waiting.is_some() || full(wake.out.to_workload.as_slice()) {
                break;
            }
            match self.exchanges.front() {
                // weir's own answer comes first and waits for the end of its request.
                Some(exchange) if exchange.refusal.is_some() => break,
                Some(exchange) if !exchange.response_done => {}
                // Nobody asked for these bytes, so nobody may have them.
                Some(_) | None => {
                    self.end(wake, Close::Finish);
                    continue;
                }
            }
            let step = match &self.download {
                Download::Head(_) => self.response_head(wake, rest),
                Download::Stream(_) => self.relay(wake, rest),
                Download::Gather(_) => self.gather_response(wake, rest),
            };
            if step == 0 {
                break;
            }
            taken += step;
        }
        taken
    }

    fn response_head(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let (Download::Head(scan), Some(exchange)) = (&mut self.download, self.exchanges.front_mut()) else {
            return 0;
        };
        let range = match scan.find(bytes) {
            Ok(Some(range)) => range,
            Ok(None) => return 0,
            Err(violation) => {
                self.bad_gateway(
                    wake,
                    Refusal::bad_gateway(format!("the server's answer is malformed: {violation}")),
                );
                return bytes.len();
            }
        };
        self.download = Download::default();
        let taken = range.end;
        match ResponseHead::parse(bytes.get(range).unwrap_or_default(), exchange.bodiless()) {
            Ok(head) if head.interim() => self.interim(wake, &head),
            Ok(head) => self.begin_response(wake, &head),
            Err(violation) => {
                self.bad_gateway(
                    wake,
                    Refusal::bad_gateway(format!("the server's answer is malformed: {violation}")),
                );
            }
        }
        taken
    }

    /// 1xx: passed on to clients that know it; an upgrade was never asked for.
    fn interim(&mut self, wake: &mut Wake<'_>, head: &ResponseHead<'_>) {
        let Some(exchange) = self.exchanges.front_mut() else { return };
        let wanted = match head.status {
            101 => {
                return self
                    .bad_gateway(wake, Refusal::bad_gateway("the server switched to another protocol"));
            }
            100 => core::mem::replace(&mut exchange.expecting, false),
            _ => !exchange.http10 && !exchange.hold_response,
        };
        if wanted {
            edit::response(head, None, &mut Passing { queue: &mut wake.out.to_workload, exchange });
        }
    }

    fn begin_response(&mut self, wake: &mut Wake<'_>, head: &ResponseHead<'_>) {
        let Some(exchange) = self.exchanges.front_mut() else { return };
        exchange.status = head.status;
        exchange.close |= !head.persistent;
        if !exchange.hold_response {
            exchange.response_begun = true;
            edit::response(head, None, &mut Passing { queue: &mut wake.out.to_workload, exchange });
            if head.framing == Framing::Empty {
                return self.response_sent(wake);
            }
            self.download = Download::Stream(Body::new(head.framing));
            return;
        }
        if head.framing == Framing::Empty {
            return self.respond(wake, head, None);
        }
        let readable = match head.status {
            206 => Err("the server sent a part of a body, and a rule has to read the whole"),
            _ if head.encoded => Err(COMPRESSED),
            _ => readable(head.content_type, head.encoded),
        };
        let known = match exchange.masks.response.is_empty() {
            true => Ok(()),
            false => media(head.content_type).map(|_| ()),
        };
        if let Err(message) = readable.and(known) {
            return self.withhold(message);
        }
        if matches!(head.framing, Framing::Length(length) if length > HTTP_BODY_BYTES as u64) {
            return self.withhold(LARGE);
        }
        self.download = Download::Gather(Box::new((head.bytes().to_vec(), Gather::new(head.framing))));
    }

    /// The next piece of a body that nothing has to read.
    fn relay(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let (Download::Stream(body), Some(exchange)) = (&mut self.download, self.exchanges.front_mut())
        else {
            return 0;
        };
        let step = match body.step(bytes) {
            Ok(step) => step,
            // Part of the answer is with the client: all that is left is to show that it was cut.
            Err(_) => {
                self.end(wake, Close::Reset);
                return bytes.len();
            }
        };
        wake.out.to_workload.relay(bytes.get(..step.taken).unwrap_or_default());
        exchange.bytes_down += step.taken as u64;
        if body.is_done() {
            self.response_sent(wake);
        }
        step.taken
    }

    fn gather_response(&mut self, wake: &mut Wake<'_>, bytes: &[u8]) -> usize {
        let Download::Gather(gathering) = &mut self.download else { return 0 };
        match gathering.1.feed(bytes) {
            Ok(taken) => {
                if gathering.1.is_done() {
                    self.respond_gathered(wake);
                }
                taken
            }
            Err(GatherError::Large) => {
                self.withhold(LARGE);
                bytes.len()
            }
            Err(GatherError::Malformed(violation)) => {
                self.bad_gateway(
                    wake,
                    Refusal::bad_gateway(format!("the server's answer is malformed: {violation}")),
                );
                bytes.len()
            }
        }
    }

    fn respond_gathered(&mut self, wake: &mut Wake<'_>) {
        let Download::Gather(gathering) = core::mem::take(&mut self.download) else { return };
        let (head, gather) = *gathering;
        let bodiless = self.exchanges.front().is_some_and(Exchange::bodiless);
        // The head was parsed before; were it not to parse again, nothing may leave.
        match ResponseHead::parse(&head, bodiless) {
            Ok(head) => self.respond(wake, &head, Some(gather)),
            Err(_) => self.withhold("the server's answer cannot be read again"),
        }
    }

    /// Judges and masks a whole answer, then passes it on.
    fn respond(&mut self, wake: &mut Wake<'_>, head: &ResponseHead<'_>, gather: Option<Gather>) {
        let Some(exchange) = self.exchanges.front() else { return };
        let content = gather.as_ref().map_or(&[][..], Gather::content);
        let mut rules: Vec<MaskRule> = exchange.masks.response.clone();
        if exchange.judge_response {
            // Later requests may have claimed another host since.
            let host = exchange.host.clone();
            self.claim(&host);
            let Some(exchange) = self.exchanges.front() else { return };
            let response =
                Response { request: exchange.request(None), status: head.status, body: Some(content) };
            let judgement = exchange.judge.judge(&self.context(wake), &Action::Response(&response));
            rules.extend(judgement.masks.response.iter().cloned());
            let message = match &judgement.verdict {
                Verdict::Allow(_) => None,
                Verdict::Deny { message } => Some(Arc::clone(message)),
                Verdict::Approve(_) => Some(Arc::from("an answer cannot wait for an approval")),
            };
            if let Some(message) = message {
                return self.deny_response(&judgement.rule, &message);
            }
            if let (Some(would), Some(exchange)) = (judgement.would, self.exchanges.front_mut()) {
                exchange.decision = would.decision;
                exchange.rule = would.rule;
            }
        }
        let Some(exchange) = self.exchanges.front_mut() else { return };
        let mut masked = None;
        if !rules.is_empty() && !content.is_empty() {
            let judge = Arc::clone(&exchange.judge);
            let mut masker = Masker::new(&*judge, wake.host.mask_key(), &rules, &mut exchange.masked);
            masked = match media(head.content_type).and_then(|media| masker.body(media, content)) {
                Ok(masked) => masked,
                Err(message) => return self.withhold(message),
            };
        }
        exchange.response_begun = true;
        let mut passing = Passing { queue: &mut wake.out.to_workload, exchange };
        edit::response(head, masked.as_ref().map(Vec::len), &mut passing);
        passing.relay(&masked.or(gather.map(Gather::into_raw)).unwrap_or_default());
        self.response_sent(wake);
    }

    /// A response rule said no: the client gets the denial, the connection stays.
    fn deny_response(&mut self, rule: &Arc<str>, message: &str) {
        let Some(exchange) = self.exchanges.front_mut() else { return };
        exchange.rule = rule.clone();
        exchange.refusal = Some(Refusal::denied(rule, message));
        self.cut_unfinished_request();
    }

    /// The answer cannot be shown: the client gets the reason, and the rest of the answer is never read.
    fn withhold(&mut self, why: &str) {
        let Some(exchange) = self.exchanges.front_mut() else { return };
        exchange.refusal = Some(Refusal::withheld(&exchange.rule, why, &exchange.readers()));
        exchange.close = true;
        self.cut_unfinished_request();
    }

    /// The server, or the way to it, failed. Where part of its answer is with the client, the stream is cut instead.
    fn bad_gateway(&mut self, wake: &mut Wake<'_>, refusal: Refusal) {
        match self.exchanges.front_mut() {
            Some(exchange) if !exchange.response_begun => {
                exchange.refusal = Some(refusal);
                exchange.close = true;
                self.cut_unfinished_request();
            }
            Some(_) | None => self.end(wake, Close::Reset),
        }
    }

    /// weir answers in place of the server; a request still on its way is not sent to its end.
    fn cut_unfinished_request(&mut self) {
        self.download = Download::default();
        let Some(exchange) = self.exchanges.front_mut() else { return };
        if !exchange.request_done {
            exchange.request_done = true;
            exchange.close = true;
            exchange.act = None;
            self.upload = Upload::Finished;
        }
    }

    /// The last byte of an answer has been passed on.
    fn response_sent(&mut self, wake: &mut Wake<'_>) {
        self.download = Download::default();
        let Some(exchange) = self.exchanges.front_mut() else { return };
        exchange.response_done = true;
        exchange.close |= !exchange.persistent;
        // A client that was told the end before `100 Continue` may send its next request where the server waits for a
        // body: nothing after this answer can be told apart.
        if !exchange.request_done && (exchange.close || exchange.expecting) {
            exchange.close = true;
            exchange.request_done = true;
            exchange.act = None;
            self.upload = Upload::Finished;
        }
        self.answer_due(wake);
    }

    /// End of the server's stream.
    pub(super) fn server_gone(&mut self, wake: &mut Wake<'_>) {
        match &self.download {
            Download::Head(_) => {}
            Download::Stream(body) if body.ends_with_stream() => self.response_sent(wake),
            Download::Stream(_) => self.end(wake, Close::Reset),
            Download::Gather(gathering) if gathering.1.ends_with_stream() => self.respond_gathered(wake),
            Download::Gather(_) => {
                self.bad_gateway(wake, Refusal::bad_gateway("the server's answer was cut"));
            }
        }
        if let Upload::Asking(_) = &self.upload
            && let Upload::Asking(held) = core::mem::replace(&mut self.upload, Upload::Finished)
        {
            self.server_left(wake, *held);
        }
    }

    /// What is left once the server is gone: weir's own answers, then the end.
    pub(super) fn without_server(&mut self, wake: &mut Wake<'_>) {
        match self.exchanges.front() {
            // weir's own answer is due once its request is read.
            Some(exchange) if exchange.refusal.is_some() => {}
            // A connection that never worked: say so. One that did: end it like the server, so that clients try again.
            Some(_) if !self.heard => {
                self.bad_gateway(
                    wake,
                    Refusal::bad_gateway("the server could not be reached or gave no answer"),
                );
                self.answer_due(wake);
            }
            Some(_) => self.end(wake, Close::Finish),
            None => match &self.upload {
                Upload::Head(_) | Upload::Finished => self.end(wake, Close::Finish),
                // Refused when it would be released.
                Upload::Gather(_) | Upload::Asking(_) | Upload::Stream(_) | Upload::Drain { .. } => {}
            },
        }
    }
}

/// Passes a head on and counts it.
struct Passing<'a> {
    queue: &'a mut Masked,
    exchange: &'a mut Exchange,
}

impl Sink for Passing<'_> {
    fn relay(&mut self, bytes: &[u8]) {
        self.exchange.bytes_down += bytes.len() as u64;
        self.queue.relay(bytes);
    }

    fn own(&mut self, bytes: &[u8]) {
        self.exchange.bytes_down += bytes.len() as u64;
        self.queue.own(bytes);
    }
}

const COMPRESSED: &str = "the server compressed its answer although it was asked not to (`Accept-Encoding: identity`), and a \
                          rule has to read it: switch compression off there, or leave this path out of the rule";
const LARGE: &str = "the answer is larger than a rule may read";
