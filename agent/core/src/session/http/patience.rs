//! How long a workload may take over what it has begun: a head, or a body that weir holds or drops.
//! It refuses to hurry connections that are idle between requests, and clients that weir itself keeps waiting.

use alloc::format;

use super::deny::Refusal;
use super::exchange::Unread;
use super::request::Upload;
use super::{Conversation, Wake, full};
use crate::audit::Durability;
use crate::limits::{HTTP_BODY_BYTE_NS, HTTP_BODY_NS, HTTP_DRAIN_BYTES, HTTP_HEAD_NS};

/// Since when (monotonic nanoseconds) the workload has been about one step of one request.
#[derive(Debug, Default)]
pub(super) struct Clock(Option<(Step, u64)>);

/// A step of a connection; no two steps are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The head after so many requests.
    Head(u64),
    Body(u64),
}

impl Conversation {
    /// When the workload must have ended what it has begun, or a human must have answered. Asked after every step.
    pub(super) fn due(&mut self, wake: &Wake<'_>) -> Option<u64> {
        let rate = |bytes: u64| HTTP_BODY_NS.saturating_add(bytes.saturating_mul(HTTP_BODY_BYTE_NS));
        let begun = match &self.upload {
            Upload::Asking(held) => return Some(held.deadline),
            Upload::Head(scan) => scan.begun().then_some((Step::Head(self.requests), HTTP_HEAD_NS)),
            Upload::Gather(gathering) => {
                let allowed = rate(gathering.gather.held());
                (!gathering.expecting).then_some((Step::Body(self.requests), allowed))
            }
            Upload::Drain { left, .. } => {
                Some((Step::Body(self.requests), rate((HTTP_DRAIN_BYTES - left) as u64)))
            }
            // What streams is held nowhere: the server decides how long it waits.
            Upload::Stream(_) | Upload::Finished => None,
        };
        let kept_waiting =
            self.waiting.is_some() || self.pipeline_full() || full(wake.out.to_server.as_slice());
        let Some((step, allowed)) = begun.filter(|_| !kept_waiting) else {
            self.clock = Clock::default();
            return None;
        };
        let since = match self.clock.0 {
            Some((known, since)) if known == step => since,
            Some(_) | None => wake.now.mono_ns,
        };
        self.clock = Clock(Some((step, since)));
        Some(since.saturating_add(allowed))
    }

    /// Ends what has taken too long.
    pub(super) fn tick(&mut self, wake: &mut Wake<'_>) {
        if self.due(wake).is_none_or(|due| wake.now.mono_ns < due) {
            return;
        }
        match core::mem::replace(&mut self.upload, Upload::Finished) {
            Upload::Asking(held) => {
                self.upload = Upload::Asking(held);
                self.expire(wake);
            }
            Upload::Head(_) => {
                let exchange = self.open_exchange(wake);
                let words = format!("the request head did not end within {} s", seconds(HTTP_HEAD_NS));
                let refusal = Refusal::too_slow(words);
                self.refuse(wake, exchange, Unread::nothing(false), refusal, Durability::Fast);
            }
            Upload::Gather(gathering) => {
                let words = format!(
                    "the request body, which a rule has to read, did not end within {} s and 1 s for each {} KiB",
                    seconds(HTTP_BODY_NS),
                    1_000_000_000 / HTTP_BODY_BYTE_NS / 1024
                );
                let refusal = Refusal::too_slow(words);
                let durability = gathering.durability;
                self.refuse(wake, gathering.exchange, Unread::nothing(false), refusal, durability);
            }
            // The refusal was waiting for the end of the body, which never came.
            Upload::Drain { .. } => self.stop_draining(),
            Upload::Stream(body) => self.upload = Upload::Stream(body),
            Upload::Finished => {}
        }
    }
}

fn seconds(ns: u64) -> u64 {
    ns / 1_000_000_000
}
