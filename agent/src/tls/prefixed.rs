//! A stream with bytes in front that were read already (the sniffed ClientHello), then the socket.
//! It refuses to reorder: not one byte of the socket is read before the front is empty.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `front`, then `stream`. With an empty front it costs one comparison a read.
#[derive(Debug)]
pub struct Prefixed<S> {
    front: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    #[must_use]
    pub fn new(front: impl Into<Bytes>, stream: S) -> Self {
        Self { front: front.into(), stream }
    }

    #[must_use]
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Bytes that nobody has read yet, and the stream.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, S) {
        (self.front, self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.front.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let length = self.front.len().min(into.remaining());
        into.put_slice(&self.front.chunk()[..length]);
        self.front.advance(length);
        if self.front.is_empty() {
            // An idle connection holds no buffer.
            self.front = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
