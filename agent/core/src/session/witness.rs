//! The only ways to make bytes that may leave: [`Cleared`] for servers, [`Masked`] for workloads.
//! It refuses raw bytes: outside the sessions nothing can add to either queue, the rim can only take from them.
//!
//! ```compile_fail,E0599
//! let mut queue = weir_core::session::Cleared::default();
//! queue.extend_from_slice(b"raw bytes");
//! ```
//! ```compile_fail,E0624
//! let mut queue = weir_core::session::Cleared::default();
//! queue.framing(b"not from a session");
//! ```
//! ```compile_fail,E0423
//! let permit = weir_core::policy::Permit(());
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::audit::Receipt;
use crate::policy::Permit;

/// An open act: permitted and recorded. It clears the chunks of that act until the act ends (body, CopyData, Sync).
#[derive(Debug)]
pub struct Act {
    _permit: Permit,
    _receipt: Receipt,
}

/// Bytes that may reach the server.
#[derive(Debug, Default)]
pub struct Cleared {
    queue: Queue,
    own: u64,
    workload: u64,
    /// Which of the waiting bytes are weir's own: runs of (place of the first, count), where place 0 is the first byte
    /// ever cleared. No more runs than messages wait, and mostly none.
    own_waiting: VecDeque<(u64, u64)>,
    /// Bytes of the workload's own that were cleared and then dropped, since the server was gone.
    dropped: u64,
}

/// Bytes that may reach the workload.
#[derive(Debug, Default)]
pub struct Masked {
    queue: Queue,
}

/// Bytes waiting to be sent; a partial send moves the start instead of the bytes.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Act {
    pub(super) fn open(permit: Permit, receipt: Receipt) -> Self {
        Self { _permit: permit, _receipt: receipt }
    }
}

impl Cleared {
    /// A chunk of an open act.
    pub(super) fn clear(&mut self, _act: &Act, bytes: &[u8]) {
        self.workload += bytes.len() as u64;
        self.queue.push(bytes);
    }

    /// Messages before the first act that carry no data of their own: start-up, authentication, cancel.
    pub(super) fn handshake(&mut self, bytes: &[u8]) {
        self.workload += bytes.len() as u64;
        self.queue.push(bytes);
    }

    /// The text of a statement that must be approved each time it runs, once its verdict is recorded: preparing it runs
    /// nothing, and running it takes an act of its own.
    pub(super) fn prepare(&mut self, _receipt: &Receipt, bytes: &[u8]) {
        self.workload += bytes.len() as u64;
        self.queue.push(bytes);
    }

    /// Protocol framing without content: Sync, Flush, Terminate; Describe, Execute and Close of names already judged.
    pub(super) fn framing(&mut self, bytes: &[u8]) {
        self.workload += bytes.len() as u64;
        self.queue.push(bytes);
    }

    /// weir's own message in place of a denied one, or its own question to the server (catalog, Describe).
    pub(super) fn own(&mut self, bytes: &[u8]) {
        let (place, count) = (self.workload + self.own, bytes.len() as u64);
        match self.own_waiting.back_mut() {
            Some((start, length)) if *start + *length == place => *length += count,
            Some(_) | None => self.own_waiting.push_back((place, count)),
        }
        self.own += count;
        self.queue.push(bytes);
    }

    /// Bytes weir does not understand, on a connection that a rule lets through (`opaque: allow`).
    pub(super) fn opaque(&mut self, _act: &Act, bytes: &[u8]) {
        self.workload += bytes.len() as u64;
        self.queue.push(bytes);
    }

    /// (bytes of the workload's own, bytes of weir's own) ever cleared.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.workload, self.own)
    }

    /// Bytes of the workload's own that were cleared and have left the queue towards the server.
    #[must_use]
    pub fn workload_sent(&self) -> u64 {
        self.workload - self.dropped - self.workload_waiting()
    }

    /// Drops the first `count` bytes, which the rim has sent.
    pub fn sent(&mut self, count: usize) {
        self.queue.sent(count);
        let gone = self.place();
        while self.own_waiting.front().is_some_and(|(start, length)| start + length <= gone) {
            self.own_waiting.pop_front();
        }
    }

    /// Drops everything that waits: nobody will take it any more.
    pub fn discard(&mut self) {
        self.dropped += self.workload_waiting();
        self.own_waiting.clear();
        self.queue.sent(usize::MAX);
    }

    fn workload_waiting(&self) -> u64 {
        let gone = self.place();
        let own: u64 = self.own_waiting.iter().map(|(start, length)| start + length - gone.max(*start)).sum();
        self.len() as u64 - own
    }

    /// The place of the first waiting byte.
    fn place(&self) -> u64 {
        self.workload + self.own - self.len() as u64
    }
}

impl Masked {
    /// Bytes of the server that need no mask, or whose masks were applied.
    pub(super) fn relay(&mut self, bytes: &[u8]) {
        self.queue.push(bytes);
    }

    /// weir's own message to the workload.
    pub(super) fn own(&mut self, bytes: &[u8]) {
        self.queue.push(bytes);
    }

    /// Drops the first `count` bytes, which the rim has sent.
    pub fn sent(&mut self, count: usize) {
        self.queue.sent(count);
    }

    /// Drops everything that waits.
    pub fn discard(&mut self) {
        self.queue.sent(usize::MAX);
    }
}

/// What the rim may do with either queue besides: look at what is to be sent.
macro_rules! sendable {
    ($witness:ty) => {
        impl $witness {
            #[must_use]
            pub fn as_slice(&self) -> &[u8] {
                self.queue.as_slice()
            }

            #[must_use]
            pub fn len(&self) -> usize {
                self.queue.as_slice().len()
            }

            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.queue.as_slice().is_empty()
            }

            /// Frees the buffer of an idle connection.
            pub fn release(&mut self) {
                self.queue.release();
            }
        }
    };
}

sendable!(Cleared);
sendable!(Masked);

impl Queue {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn sent(&mut self, count: usize) {
        self.start = self.start.saturating_add(count);
        if self.start >= self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    fn release(&mut self) {
        if self.as_slice().is_empty() {
            self.bytes = Vec::new();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever way the queue is sent in, each byte is counted for the one whose it is.
    #[test]
    fn what_was_sent_is_told_apart_from_what_waits() {
        for step in 1..=12 {
            let mut queue = Cleared::default();
            queue.framing(b"aaa");
            queue.own(b"XX");
            queue.own(b"Y");
            queue.framing(b"bb");
            queue.own(b"Z");
            queue.framing(b"ccc");
            let mut sent = Vec::new();
            while !queue.is_empty() {
                let count = step.min(queue.len());
                sent.extend_from_slice(&queue.as_slice()[..count]);
                queue.sent(count);
                let workloads = sent.iter().filter(|byte| byte.is_ascii_lowercase()).count();
                assert_eq!(queue.workload_sent(), workloads as u64, "{step}: {sent:?}");
            }
            assert_eq!((queue.totals(), queue.workload_sent()), ((8, 4), 8));
        }
    }

    #[test]
    fn what_is_dropped_was_not_sent() {
        let mut queue = Cleared::default();
        queue.own(b"XX");
        queue.framing(b"aaaa");
        queue.own(b"Y");
        queue.sent(4);
        queue.discard();
        assert_eq!((queue.len(), queue.workload_sent()), (0, 2));
        queue.framing(b"bbb");
        assert_eq!(queue.workload_sent(), 2);
        queue.sent(3);
        assert_eq!((queue.workload_sent(), queue.totals()), (5, (7, 3)));
    }
}
