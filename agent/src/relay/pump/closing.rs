//! The end of a relayed connection: what is owed to either side goes out first.
//! It refuses to wait for a side that takes nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::leg::Resets;
use super::{End, Pump, Surroundings};

impl<W: AsyncRead + AsyncWrite + Resets + Unpin, H: Surroundings> Pump<W, H> {
    /// The last words go out before the close, also before a reset that follows them; a side that does not take them in
    /// time is cut.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, end: End) -> Poll<End> {
        if self.broken {
            return Poll::Ready(End::Reset);
        }
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
        if closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Reset);
        }
        // What was cleared for a server that is still being dialled (a CancelRequest) goes out too.
        if end == End::Finished && self.poll_dialled(cx) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.dialling.is_some() && end == End::Finished {
            return Poll::Pending;
        }
        if !self.out.to_workload.is_empty() {
            return Poll::Pending;
        }
        if let Some(server) = &mut self.server {
            if !self.out.to_server.is_empty() && !server.shut {
                return Poll::Pending;
            }
            let _ = ready!(Pin::new(&mut server.stream).poll_flush(cx));
            // Before a reset a FIN would tell the server that what it has is whole.
            if end == End::Finished {
                server.poll_shut(cx);
            }
        }
        let _ = ready!(Pin::new(&mut self.workload.stream).poll_flush(cx));
        if end == End::Finished {
            self.workload.poll_shut(cx);
        }
        Poll::Ready(end)
    }
}

/// A side that takes nothing of what is owed to it for this long is not waited for.
#[cfg(not(test))]
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(60);
#[cfg(test)]
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(100);
