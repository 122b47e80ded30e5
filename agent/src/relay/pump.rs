//! Moves bytes between two sockets and a [`Session`]: one task, no channel, no second task, no wake between the sides.
//! It refuses to look at the bytes: what it sends it took from the session's queues, what it reads it hands to the session.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use weir_core::limits::{QUEUE_BYTES, READ_BYTES};
use weir_core::session::{Close, Input, Outbox, Session};

use super::buffer::Buffer;
use super::leg::{Leg, Resets, Resetting};
use super::surroundings::{Dialling, LoggingIn, Surroundings};

mod answers;
mod closing;
#[cfg(test)]
mod tests;

/// How a relayed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN both ways.
    Finished,
    /// One side was cut; the workload must see a reset.
    Reset,
}

/// What is left of a relayed connection.
pub(crate) struct Ended<W, H: Surroundings> {
    pub(crate) end: End,
    pub(crate) workload: W,
    pub(crate) server: Option<H::Server>,
    pub(crate) host: H,
    /// Bytes of the workload's own that the leg to the server took.
    pub(crate) sent: u64,
    /// Who cut the connection off, in words for its closing row.
    pub(crate) cut_by: Option<&'static str>,
}

/// A connection being relayed.
pub(crate) struct Pump<W, H: Surroundings> {
    session: Session,
    host: H,
    out: Outbox,
    workload: Leg<W>,
    server: Option<Leg<H::Server>>,
    dialling: Option<Dialling<H::Server>>,
    logging_in: Option<LoggingIn<H::Server>>,
    timer: Pin<Box<tokio::time::Sleep>>,
    timer_set: Option<u64>,
    question_open: bool,
    /// Bytes of the workload that lay unread when the session paused it.
    unread_at_pause: usize,
    /// Since when the last words have not moved.
    closing: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Watches a workload that has ended its half.
    resetting: Option<Resetting>,
    broken: bool,
    cut_by: Option<&'static str>,
}

impl<W: AsyncRead + AsyncWrite + Resets + Unpin, H: Surroundings> Pump<W, H> {
    /// `first` is what sniffing read from the workload; `server` is there when TLS made an early dial necessary.
    pub(crate) fn new(
        session: Session,
        host: H,
        workload: W,
        first: BytesMut,
        server: Option<H::Server>,
    ) -> Self {
        Self {
            session,
            host,
            out: Outbox::default(),
            workload: Leg::new(workload, Buffer::holding(first)),
            server: server.map(|stream| Leg::new(stream, Buffer::default())),
            dialling: None,
            logging_in: None,
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            timer_set: None,
            question_open: false,
            unread_at_pause: 0,
            closing: None,
            resetting: None,
            broken: false,
            cut_by: None,
        }
    }

    /// Relays until both sides are done. Returns the parts for the closing record and the final reset.
    pub(crate) async fn run(mut self) -> Ended<W, H> {
        // A session may have something to do before its first byte.
        self.feed(Input::Workload(&[]));
        self.offer();
        let end = poll_fn(|cx| self.poll(cx)).await;
        self.feed(Input::Cut);
        if self.question_open {
            self.host.withdraw();
        }
        let sent = self.out.to_server.workload_sent();
        Ended {
            end,
            workload: self.workload.stream,
            server: self.server.map(|leg| leg.stream),
            host: self.host,
            sent,
            cut_by: self.cut_by,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // Each turn does at most one read a side, so a busy peer cannot starve the other connections of this thread.
        for _ in 0..TURNS {
            self.obey();
            let sent = self.poll_send(cx);
            if sent {
                // Room in a queue lets the other side's bytes move again.
                self.offer();
            }
            if let Some(end) = self.ended() {
                if sent {
                    self.closing = None;
                }
                return self.poll_close(cx, end);
            }
            let progressed = self.poll_answers(cx) | self.poll_read_workload(cx) | self.poll_read_server(cx);
            if !progressed && !sent {
                self.release();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what the outbox asks for besides sending.
    fn obey(&mut self) {
        if let Some(login) = self.out.login.take() {
            self.logging_in = Some(self.host.login(login));
        }
        let unconnected = self.server.is_none() && self.dialling.is_none() && self.logging_in.is_none();
        let wanted = self.out.dial || !self.out.to_server.is_empty();
        if unconnected && wanted && self.out.close.is_none() && !self.broken {
            self.dialling = Some(self.host.dial());
        }
        if self.out.wake_at != self.timer_set {
            self.timer_set = self.out.wake_at;
            if let Some(at) = self.out.wake_at {
                let left = at.saturating_sub(self.host.now().mono_ns);
                let deadline = tokio::time::Instant::now() + std::time::Duration::from_nanos(left);
                self.timer.as_mut().reset(deadline);
            }
        }
    }

    /// After each step of the session: the old question leaves the desk before the next one is put.
    fn consult_desk(&mut self) {
        if std::mem::take(&mut self.out.withdraw) {
            self.question_open = false;
            self.host.withdraw();
        }
        if let Some(question) = self.out.ask.take() {
            self.question_open = true;
            self.host.ask(question);
        }
    }

    /// Sends both queues as far as the sockets take them. True when something moved.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.out.to_workload.is_empty() && !self.workload.shut {
            match Pin::new(&mut self.workload.stream).poll_write(cx, self.out.to_workload.as_slice()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.out.to_workload.sent(count);
                    moved = true;
                }
                Poll::Ready(_) => {
                    self.broken = true;
                    return false;
                }
                Poll::Pending => break,
            }
        }
        // A reset is never preceded by a FIN: whoever reads that first takes a part for the whole.
        let cut = self.out.close == Some(Close::Reset);
        if self.out.finish_workload && self.out.to_workload.is_empty() && !cut {
            self.workload.poll_shut(cx);
        }
        // A TLS leg may hold records back until it is flushed.
        let _ = Pin::new(&mut self.workload.stream).poll_flush(cx);
        let Some(server) = &mut self.server else { return moved };
        while !self.out.to_server.is_empty() && !server.shut {
            match Pin::new(&mut server.stream).poll_write(cx, self.out.to_server.as_slice()) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.out.to_server.sent(count);
                    moved = true;
                }
                // The server closed while we wrote: what it said before is still to be read, so only stop writing.
                Poll::Ready(written) => {
                    self.out.to_server.discard();
                    server.shut = true;
                    // The kernel tells of a reset once: the read that follows would find a mere end.
                    server.cut |=
                        matches!(written, Err(fault) if fault.kind() == io::ErrorKind::ConnectionReset);
                }
                Poll::Pending => break,
            }
        }
        if self.out.finish_server && self.out.to_server.is_empty() && !cut {
            server.poll_shut(cx);
        }
        let _ = Pin::new(&mut server.stream).poll_flush(cx);
        moved
    }

    fn ended(&self) -> Option<End> {
        if self.broken {
            return Some(End::Reset);
        }
        match self.out.close? {
            Close::Finish => Some(End::Finished),
            Close::Reset => Some(End::Reset),
        }
    }

    /// True when the dial has come to its end, one way or the other.
    fn poll_dialled(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(dialling) = &mut self.dialling else { return false };
        let Poll::Ready(result) = dialling.as_mut().poll(cx) else { return false };
        self.dialling = None;
        match result {
            Ok(stream) => self.server = Some(Leg::new(stream, Buffer::default())),
            Err(_) => self.unreachable(),
        }
        true
    }

    fn poll_read_workload(&mut self, cx: &mut Context<'_>) -> bool {
        if self.workload.finished {
            let stream = &self.workload.stream;
            let resetting = self.resetting.get_or_insert_with(|| stream.resetting());
            let reset = resetting.as_mut().poll(cx).is_ready();
            if reset {
                (self.broken, self.cut_by) = (true, Some("the workload cut the connection off"));
            }
            return reset;
        }
        // A paused workload is still read a little, so that its going away is noticed while an act is held.
        let paused = self.out.pause_workload || self.out.to_server.len() >= QUEUE_BYTES;
        let ahead = self.workload.inbound.unconsumed().len();
        if self.workload.inbound.is_full() || (paused && ahead >= self.unread_at_pause + READ_BYTES) {
            return false;
        }
        match self.workload.poll_read(cx) {
            Poll::Ready(Ok(0)) => self.workload.finished = true,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => {
                (self.broken, self.cut_by) = (true, Some("the workload cut the connection off"));
                return true;
            }
            Poll::Pending => return false,
        }
        self.offer();
        true
    }

    fn poll_read_server(&mut self, cx: &mut Context<'_>) -> bool {
        if self.out.pause_server || self.out.to_workload.len() >= QUEUE_BYTES {
            return false;
        }
        let Some(server) = &mut self.server else { return false };
        if server.finished || server.inbound.is_full() {
            return false;
        }
        match server.poll_read(cx) {
            Poll::Ready(Ok(0)) => server.finished = true,
            Poll::Ready(Ok(_)) => {}
            // RST in, RST out, once what came before it has been passed on.
            Poll::Ready(Err(_)) => (server.finished, server.cut) = (true, true),
            Poll::Pending => return false,
        }
        self.offer();
        true
    }

    /// Offers what was read and not consumed, to and fro until neither side's bytes move the session any further; then
    /// tells it which side has ended.
    fn offer(&mut self) {
        while self.out.close.is_none() && (self.offer_workload() | self.offer_server()) {}
        if self.out.close.is_some() || self.host.is_writing() {
            return;
        }
        let leg = &mut self.workload;
        // What cannot be consumed and is followed by FIN will never be complete; and a client that has gone away while a
        // human is asked takes its question with it (the held message itself may still stand unconsumed).
        let spent = leg.inbound.unconsumed().is_empty() || self.question_open || !self.out.pause_workload;
        if leg.finished && !leg.told && spent {
            leg.told = true;
            self.feed(Input::WorkloadClosed);
        }
        if let Some(leg) = &mut self.server
            && leg.finished
            && !leg.told
            && (leg.inbound.unconsumed().is_empty() || !self.out.pause_server)
        {
            leg.told = true;
            if leg.cut {
                // What ends in a reset has no end of its own: nothing of it is whole.
                self.cut_by = Some("the server cut the connection off");
                self.feed(Input::Cut);
                self.out.close = Some(Close::Reset);
            } else {
                self.feed(Input::ServerClosed);
            }
        }
    }

    /// True when bytes were consumed or a pause was lifted.
    fn offer_workload(&mut self) -> bool {
        let (bytes, paused) = (self.workload.inbound.unconsumed(), self.out.pause_workload);
        if (bytes.is_empty() && !paused) || self.out.to_server.len() >= QUEUE_BYTES {
            return false;
        }
        let now = self.host.now();
        let used = self.session.handle(now, Input::Workload(bytes), &mut self.host, &mut self.out);
        self.workload.inbound.consume(used);
        if !paused && self.out.pause_workload {
            self.unread_at_pause = self.workload.inbound.unconsumed().len();
        }
        self.consult_desk();
        used > 0 || (paused && !self.out.pause_workload)
    }

    /// The same for the server.
    fn offer_server(&mut self) -> bool {
        let Some(server) = &mut self.server else { return false };
        let (bytes, paused) = (server.inbound.unconsumed(), self.out.pause_server);
        if (bytes.is_empty() && !paused) || self.out.to_workload.len() >= QUEUE_BYTES {
            return false;
        }
        let now = self.host.now();
        let used = self.session.handle(now, Input::Server(bytes), &mut self.host, &mut self.out);
        server.inbound.consume(used);
        self.consult_desk();
        used > 0 || (paused && !self.out.pause_server)
    }

    fn feed(&mut self, input: Input<'_>) {
        let now = self.host.now();
        self.session.handle(now, input, &mut self.host, &mut self.out);
        self.consult_desk();
    }

    /// An idle connection holds no buffer.
    fn release(&mut self) {
        self.workload.inbound.release();
        self.out.to_workload.release();
        self.out.to_server.release();
        if let Some(server) = &mut self.server {
            server.inbound.release();
        }
    }
}

/// Reads a side may do before other connections of the thread get their turn.
const TURNS: usize = 8;
