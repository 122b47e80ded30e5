//! One HTTP/1 connection: every request is parsed, judged and recorded before a byte of it leaves, and answers keep
//! their order. It refuses what it cannot read: CONNECT, protocol upgrades, hosts that were not proved under TLS.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;

use super::{Appended, Close, Host, Input, Now, Opening, Outbox};
use crate::audit::Receipt;
use crate::destination::Destination;
use crate::detect::ClassSet;
use crate::limits::QUEUE_BYTES;

use deny::Refusal;
use exchange::{Blank, Exchange, Unread};
use hold::Held;
use judge::Judge;
use request::Upload;
use response::Download;

mod body;
mod deny;
mod edit;
mod exchange;
mod form;
mod hold;
mod inject;
mod judge;
mod patience;
pub(super) mod record;
mod refuse;
mod release;
mod request;
mod response;
mod verdict;

#[cfg(test)]
mod tests;

/// A connection in HTTP/1. `exchanges` holds, in order, the requests whose answers are still owed.
#[derive(Debug)]
pub struct Conversation {
    opening: Opening,
    /// The destination with the Host that the last request claimed.
    claimed: Destination,
    claimed_host: String,
    log: record::Log,
    upload: Upload,
    download: Download,
    exchanges: VecDeque<Exchange>,
    blank: Blank,
    /// The classes of the policy that judged the last request.
    classes: Option<(Arc<dyn Judge>, ClassSet)>,
    /// A record that is not on the disk yet: everything stops until it is.
    waiting: Option<Waiting>,
    /// Since when the workload is about what it has begun.
    clock: patience::Clock,
    requests: u64,
    /// The server has sent something on this connection.
    heard: bool,
    workload_closed: bool,
    server_closed: bool,
    ended: bool,
}

/// What goes on once a record is on the disk.
#[derive(Debug)]
enum Waiting {
    Outcome,
    Refuse(Box<(Exchange, Unread, Refusal)>),
    Ask(Box<Held>),
    Release(Box<Held>),
}

/// One wake of the session: the moment, the machine, the policy in force, and where bytes go.
struct Wake<'a> {
    now: Now,
    host: &'a mut dyn Host,
    judge: &'a Arc<dyn Judge>,
    out: &'a mut Outbox,
}

impl Conversation {
    #[must_use]
    pub fn new(opening: Opening) -> Self {
        Self {
            claimed: opening.destination.clone(),
            claimed_host: String::new(),
            log: record::Log::new(&opening, "http"),
            opening,
            upload: Upload::default(),
            download: Download::default(),
            exchanges: VecDeque::new(),
            blank: Blank::default(),
            classes: None,
            waiting: None,
            clock: patience::Clock::default(),
            requests: 0,
            heard: false,
            workload_closed: false,
            server_closed: false,
            ended: false,
        }
    }

    pub fn handle(&mut self, now: Now, input: Input<'_>, host: &mut dyn Host, out: &mut Outbox) -> usize {
        let judge: Arc<dyn Judge> = host.policy();
        self.advance(&mut Wake { now, host, judge: &judge, out }, input)
    }

    fn advance(&mut self, wake: &mut Wake<'_>, input: Input<'_>) -> usize {
        let taken = match input {
            Input::Workload(bytes) => self.workload(wake, bytes),
            Input::Server(bytes) => self.server(wake, bytes),
            Input::WorkloadClosed => {
                self.workload_closed = true;
                self.workload_gone(wake);
                0
            }
            Input::ServerClosed => {
                self.server_closed = true;
                self.server_gone(wake);
                0
            }
            Input::Recorded(result) => {
                self.recorded(wake, result);
                0
            }
            Input::Answered(answer) => {
                self.answered(wake, &answer);
                0
            }
            Input::Tick => {
                self.tick(wake);
                0
            }
            Input::Cut => {
                self.cut(wake);
                0
            }
            // Only PostgreSQL sessions ask for a login; the next request is judged by the policy in force.
            Input::LoggedIn(_) | Input::Policy => 0,
        };
        self.settle(wake);
        taken
    }

    /// Sends what is due, ends what is over, and tells the rim which side to read.
    fn settle(&mut self, wake: &mut Wake<'_>) {
        self.answer_due(wake);
        self.invite_body(wake);
        if !self.ended && self.waiting.is_none() {
            if self.server_closed {
                self.without_server(wake);
            }
            let over = match &self.upload {
                Upload::Finished => true,
                Upload::Head(_) => self.workload_closed,
                Upload::Gather(_) | Upload::Asking(_) | Upload::Stream(_) | Upload::Drain { .. } => false,
            };
            if over && self.exchanges.is_empty() && !self.ended {
                self.end(wake, Close::Finish);
            }
        }
        let stopped = self.waiting.is_some();
        // While a human decides the workload is still read: its going away makes the question moot.
        wake.out.pause_workload = stopped || full(wake.out.to_server.as_slice()) || self.pipeline_full();
        wake.out.wake_at = self.due(wake);
        wake.out.pause_server = stopped || full(wake.out.to_workload.as_slice());
    }

    /// Answers weir owes whose turn has come, and answers of the server whose request is now complete.
    fn answer_due(&mut self, wake: &mut Wake<'_>) {
        while !self.ended && self.waiting.is_none() {
            match self.exchanges.front_mut() {
                Some(exchange) if exchange.request_done && exchange.response_done => self.finish(wake, ""),
                Some(exchange) if exchange.request_done && exchange.refusal.is_some() => {
                    let Some(refusal) = exchange.refusal.take() else { return };
                    exchange.close |= !exchange.persistent || exchange.http10;
                    let answer = refusal.render(&exchange.id, exchange.bodiless(), exchange.close);
                    exchange.status = refusal.status;
                    exchange.bytes_down += answer.len() as u64;
                    exchange.decision = refusal.decision;
                    exchange.response_done = true;
                    wake.out.to_workload.own(answer.as_bytes());
                    self.finish(wake, &refusal.message);
                }
                Some(_) | None => return,
            }
        }
    }

    /// The front exchange is over: its outcome is recorded, the next one becomes due.
    fn finish(&mut self, wake: &mut Wake<'_>, reason: &str) {
        let Some(exchange) = self.exchanges.pop_front() else { return };
        self.download = Download::default();
        match self.log.outcome(wake.now, wake.host, &exchange, reason) {
            Appended::Done(_) => {}
            Appended::Waiting => self.waiting = Some(Waiting::Outcome),
            // The act is done; no other may follow it without a ledger.
            Appended::Refused(_) => return self.end(wake, Close::Finish),
        }
        if exchange.close {
            self.end(wake, Close::Finish);
        }
    }

    /// The end of the connection; requests still without an answer get their outcome.
    fn end(&mut self, wake: &mut Wake<'_>, close: Close) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.waiting = None;
        self.upload = Upload::Finished;
        self.download = Download::default();
        wake.out.close = Some(close);
        for exchange in core::mem::take(&mut self.exchanges) {
            // The connection is over whatever the ledger says.
            let _ = self.log.outcome(
                wake.now,
                wake.host,
                &exchange,
                "the connection ended before the answer did",
            );
        }
    }

    /// The way to one side is gone: acts that are held, on their way or unanswered get their closing rows.
    fn cut(&mut self, wake: &mut Wake<'_>) {
        if self.ended {
            return;
        }
        self.workload_closed = true;
        self.workload_gone(wake);
        let unsent = match self.waiting.take() {
            Some(Waiting::Ask(held) | Waiting::Release(held)) => Some(held.exchange),
            Some(Waiting::Refuse(refused)) => Some(refused.0),
            Some(Waiting::Outcome) | None => None,
        };
        self.exchanges.extend(unsent);
        self.end(wake, Close::Reset);
    }

    /// A strict record is on the disk, or cannot be.
    fn recorded(&mut self, wake: &mut Wake<'_>, result: Result<Receipt, String>) {
        match (self.waiting.take(), result) {
            (None, _) | (Some(Waiting::Outcome), Ok(_)) => {}
            (Some(Waiting::Outcome), Err(_)) => self.end(wake, Close::Finish),
            // Nothing of the act leaves, so the answer does not hang on the record.
            (Some(Waiting::Refuse(refused)), _) => {
                let (exchange, unread, refusal) = *refused;
                self.answer(exchange, unread, refusal);
            }
            (Some(Waiting::Ask(held)), Ok(_)) => self.ask(wake, held),
            (Some(Waiting::Release(held)), Ok(receipt)) => self.release_held(wake, *held, receipt),
            (Some(Waiting::Ask(held) | Waiting::Release(held)), Err(_)) => {
                let unread = held.unread();
                self.answer(held.exchange, unread, Refusal::ledger());
            }
        }
    }
}

fn full(queue: &[u8]) -> bool {
    queue.len() >= QUEUE_BYTES
}
