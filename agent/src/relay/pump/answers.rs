//! The answers that take time: dial, login, ledger, policy, desk, timer, and the word that the connection shall end.
//! It refuses to let an answer pass that comes when its time is up.

use std::future::Future;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use weir_core::session::{Close, Input};

use super::super::buffer::Buffer;
use super::super::leg::{Leg, Resets};
use super::super::surroundings::Surroundings;
use super::Pump;

impl<W: AsyncRead + AsyncWrite + Resets + Unpin, H: Surroundings> Pump<W, H> {
    /// True when one arrived.
    pub(super) fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut arrived = self.poll_dialled(cx);
        if let Some(logging_in) = &mut self.logging_in
            && let Poll::Ready(result) = logging_in.as_mut().poll(cx)
        {
            self.logging_in = None;
            arrived = true;
            match result {
                Ok((stream, greeting)) => {
                    self.server = Some(Leg::new(stream, Buffer::default()));
                    self.feed(Input::LoggedIn(greeting));
                }
                Err(_) => self.unreachable(),
            }
        }
        if let Poll::Ready(recorded) = self.host.poll_recorded(cx) {
            arrived = true;
            self.feed(Input::Recorded(recorded));
        }
        if self.host.poll_revoked(cx).is_ready() {
            arrived = true;
            self.broken = true;
        }
        if self.host.poll_policy(cx).is_ready() {
            arrived = true;
            self.feed(Input::Policy);
        }
        // Before the answer: one that comes when time is up comes too late.
        if self.timer_set.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.timer_set = None;
            self.out.wake_at = None;
            arrived = true;
            self.feed(Input::Tick);
        }
        if self.question_open
            && let Poll::Ready(answer) = self.host.poll_answer(cx)
        {
            arrived = true;
            self.question_open = false;
            self.feed(Input::Answered(answer));
        }
        if arrived {
            self.offer();
        }
        arrived
    }

    /// No server: the session learns that it is gone, and the workload sees a reset, as it would have without weir.
    pub(super) fn unreachable(&mut self) {
        self.out.to_server.discard();
        self.feed(Input::ServerClosed);
        self.out.close = Some(Close::Reset);
    }
}
