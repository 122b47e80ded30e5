//! A socket towards the server, and the count of what was written to it: TLS, handshakes and weir's own messages included.
//! It refuses to be written to uncounted: the socket below is lent out for its options and addresses only.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes written to the sockets of one connection towards its server, one after the other if it needed several. What a
/// reset leaves unsent in the kernel is counted, too.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<AtomicU64>);

/// See the module.
#[derive(Debug)]
pub struct Metered {
    stream: TcpStream,
    meter: Meter,
}

impl Meter {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.0.fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

impl Metered {
    #[must_use]
    pub fn new(stream: TcpStream, meter: &Meter) -> Metered {
        Metered { stream, meter: meter.clone() }
    }

    /// The socket below. Never read or write it.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }
}

/// A socket whose count nobody asks for.
impl From<TcpStream> for Metered {
    fn from(stream: TcpStream) -> Self {
        Metered { stream, meter: Meter::default() }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.meter.add(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.meter.add(&written);
        written
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
