//! One side of a relay: a socket, what was read from it, and how far its end has come.
//! It refuses to interpret: bytes go in and out, FIN is noted.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::buffer::Buffer;
use crate::upstream::Wire;

/// Resolves when the peer has reset the connection.
pub(crate) type Resetting = Pin<Box<dyn Future<Output = ()>>>;

/// A stream that can be watched for a reset after its end has been read, when reading tells nothing any more.
pub(crate) trait Resets {
    fn resetting(&self) -> Resetting;
}

impl Resets for Wire {
    fn resetting(&self) -> Resetting {
        let watched = self.tcp().as_fd().try_clone_to_owned();
        let watched = watched.and_then(|own| TcpStream::from_std(own.into()));
        Box::pin(async move {
            match watched {
                Ok(watched) => drop(watched.ready(Interest::ERROR).await),
                // Out of descriptors: the reset is noticed when the next byte is written.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

#[cfg(test)]
impl Resets for tokio::io::DuplexStream {
    fn resetting(&self) -> Resetting {
        Box::pin(std::future::pending())
    }
}

/// One socket and what was read from it.
pub(super) struct Leg<S> {
    pub(super) stream: S,
    pub(super) inbound: Buffer,
    /// The peer's FIN was read.
    pub(super) finished: bool,
    /// It ended in an error, not in a FIN.
    pub(super) cut: bool,
    /// The session has been told so.
    pub(super) told: bool,
    /// Our FIN was sent.
    pub(super) shut: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Leg<S> {
    pub(super) fn new(stream: S, inbound: Buffer) -> Self {
        Self { stream, inbound, finished: false, cut: false, told: false, shut: false }
    }

    /// One read into the buffer's spare room; 0 is the peer's FIN.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut self.stream), cx, self.inbound.room())
    }

    pub(super) fn poll_shut(&mut self, cx: &mut Context<'_>) {
        if !self.shut && Pin::new(&mut self.stream).poll_shutdown(cx).is_ready() {
            self.shut = true;
        }
    }
}
