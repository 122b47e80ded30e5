//! Refusals: recorded first, answered in turn, and the connection stays usable where the protocol allows.
//! It refuses to answer before earlier requests are answered.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;

use super::deny::Refusal;
use super::exchange::{Exchange, Unread};
use super::request::Upload;
use super::{Conversation, Waiting, Wake};
use crate::audit::{Durability, Kind};
use crate::limits::HTTP_DRAIN_BYTES;
use crate::session::{Appended, Close};
use crate::wire::http1::{Body, Framing, HeadScan, Violation};

impl Conversation {
    /// The next act of this connection.
    pub(super) fn open_exchange(&mut self, wake: &Wake<'_>) -> Exchange {
        self.requests += 1;
        let id = format!("{}-{}", self.opening.session_id, self.requests);
        Exchange::new(id, Arc::clone(wake.judge), &self.blank, wake.now.mono_ns)
    }

    /// Refuses an act of which nothing has left: verdict, then answer.
    pub(super) fn refuse(
        &mut self,
        wake: &mut Wake<'_>,
        mut exchange: Exchange,
        unread: Unread,
        refusal: Refusal,
        durability: Durability,
    ) {
        exchange.decision = refusal.decision;
        exchange.rule = refusal.rule.clone();
        let verdict = (Kind::Verdict, refusal.decision, &*refusal.message, durability);
        match self.log.verdict(wake.now, wake.host, &exchange, verdict) {
            Appended::Done(_) => self.answer(exchange, unread, refusal),
            Appended::Waiting => self.waiting = Some(Waiting::Refuse(Box::new((exchange, unread, refusal)))),
            Appended::Refused(_) => self.answer(exchange, unread, Refusal::ledger()),
        }
    }

    /// A request outside the grammar: nothing after it can be trusted to be a request.
    pub(super) fn malformed(&mut self, wake: &mut Wake<'_>, violation: Violation) {
        let exchange = self.open_exchange(wake);
        self.refuse(wake, exchange, Unread::nothing(false), Refusal::malformed(violation), Durability::Fast);
        self.upload = Upload::Finished;
    }

    /// Queues weir's answer behind the answers before it, and says how the rest of the body is disposed of.
    pub(super) fn answer(&mut self, mut exchange: Exchange, unread: Unread, refusal: Refusal) {
        exchange.persistent &= unread.persistent;
        exchange.refusal = Some(refusal);
        let small = match unread.framing {
            Framing::Empty => {
                exchange.request_done = true;
                self.upload =
                    if exchange.persistent { Upload::Head(HeadScan::default()) } else { Upload::Finished };
                self.exchanges.push_back(exchange);
                return;
            }
            Framing::Length(length) => length <= HTTP_DRAIN_BYTES as u64,
            Framing::Chunked => true,
            Framing::UntilClose => false,
        };
        // A client that waits for `100 Continue` will not send the body once it has this answer.
        if small && !unread.expects {
            self.upload = Upload::Drain { body: Body::new(unread.framing), left: HTTP_DRAIN_BYTES };
        } else {
            exchange.request_done = true;
            exchange.close = true;
            self.upload = Upload::Finished;
        }
        self.exchanges.push_back(exchange);
    }

    /// Drops the rest of a refused request's body.
    pub(super) fn drain(&mut self, bytes: &[u8]) -> usize {
        let Upload::Drain { body, left } = &mut self.upload else { return 0 };
        let taken = match body.step(bytes) {
            Ok(step) => step.taken,
            Err(_) => usize::MAX,
        };
        let beyond = taken > *left;
        *left = left.saturating_sub(taken);
        if !beyond && !body.is_done() {
            self.count_up(taken);
            return taken;
        }
        let Some(exchange) = self.exchanges.back_mut() else { return bytes.len() };
        exchange.request_done = true;
        exchange.close |= beyond;
        let open = !beyond && exchange.persistent;
        self.upload = if open { Upload::Head(HeadScan::default()) } else { Upload::Finished };
        let taken = taken.min(bytes.len());
        self.count_up(taken);
        taken
    }

    /// The rest of a refused request's body will not come: weir's answer is the last.
    pub(super) fn stop_draining(&mut self) {
        self.upload = Upload::Finished;
        if let Some(exchange) = self.exchanges.back_mut() {
            exchange.request_done = true;
            exchange.close = true;
        }
    }

    /// An act that was admitted cannot go on. Before any of the answer has left, weir answers; after that the stream is cut.
    pub(super) fn break_off(&mut self, wake: &mut Wake<'_>, refusal: Refusal) {
        self.upload = Upload::Finished;
        match self.exchanges.back_mut() {
            Some(exchange) if !exchange.response_begun => {
                exchange.refusal = Some(refusal);
                exchange.request_done = true;
                exchange.close = true;
                exchange.act = None;
            }
            Some(_) | None => self.end(wake, Close::Reset),
        }
    }

    fn count_up(&mut self, taken: usize) {
        if let Some(exchange) = self.exchanges.back_mut() {
            exchange.bytes_up += taken as u64;
        }
    }
}
