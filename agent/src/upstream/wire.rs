//! One leg of a relay, whatever carries it: a socket, or TLS over it. TLS variants are boxed, so a plain leg stays small.
//! It refuses to call a cut TLS stream an end: without close_notify a read fails, and never returns 0.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "boring")]
use super::boringssl::CutIsError;
use super::meter::Metered;
use crate::tls::Prefixed;

/// Plaintext as policy sees it, whatever is below.
#[derive(Debug)]
pub enum Wire {
    Plain(TcpStream),
    /// A plain workload whose first bytes were sniffed.
    Sniffed(Prefixed<TcpStream>),
    /// A workload whose TLS weir terminates.
    Terminated(Box<tokio_rustls::server::TlsStream<Prefixed<TcpStream>>>),
    /// A server without TLS.
    Metered(Metered),
    /// A server, by rustls.
    Rustls(Box<tokio_rustls::client::TlsStream<Metered>>),
    /// A server, by BoringSSL.
    #[cfg(feature = "boring")]
    Boring(Box<tokio_boring::SslStream<CutIsError>>),
}

impl Wire {
    /// The socket below, for its options and addresses. Never read or write it.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Sniffed(stream) => stream.stream(),
            Wire::Terminated(stream) => stream.get_ref().0.stream(),
            Wire::Metered(stream) => stream.tcp(),
            Wire::Rustls(stream) => stream.get_ref().0.tcp(),
            #[cfg(feature = "boring")]
            Wire::Boring(stream) => stream.get_ref().socket(),
        }
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        match self {
            Wire::Plain(_) | Wire::Sniffed(_) | Wire::Metered(_) => false,
            Wire::Terminated(_) | Wire::Rustls(_) => true,
            #[cfg(feature = "boring")]
            Wire::Boring(_) => true,
        }
    }

    /// Ends the leg with RST instead of FIN: what the other side's reset or truncation becomes.
    pub fn reset(self) {
        // Zero linger turns the close of the drop below into a reset; a socket that is gone already needs none.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// Whether a read failed because TLS was cut off without close_notify (the peer, or somebody between, dropped the rest).
#[must_use]
pub fn is_truncation(fault: &io::Error) -> bool {
    fault.kind() == io::ErrorKind::UnexpectedEof
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Wire::Plain(stream)
    }
}

impl From<Prefixed<TcpStream>> for Wire {
    fn from(stream: Prefixed<TcpStream>) -> Self {
        Wire::Sniffed(stream)
    }
}

impl From<tokio_rustls::server::TlsStream<Prefixed<TcpStream>>> for Wire {
    fn from(stream: tokio_rustls::server::TlsStream<Prefixed<TcpStream>>) -> Self {
        Wire::Terminated(Box::new(stream))
    }
}

impl From<Metered> for Wire {
    fn from(stream: Metered) -> Self {
        Wire::Metered(stream)
    }
}

impl From<tokio_rustls::client::TlsStream<Metered>> for Wire {
    fn from(stream: tokio_rustls::client::TlsStream<Metered>) -> Self {
        Wire::Rustls(Box::new(stream))
    }
}

#[cfg(feature = "boring")]
impl From<tokio_boring::SslStream<CutIsError>> for Wire {
    fn from(stream: tokio_boring::SslStream<CutIsError>) -> Self {
        Wire::Boring(Box::new(stream))
    }
}

/// Calls one method of whatever stream there is.
macro_rules! on {
    ($wire:expr, $stream:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Plain($stream) => $call,
            Wire::Sniffed($stream) => $call,
            Wire::Terminated($stream) => $call,
            Wire::Metered($stream) => $call,
            Wire::Rustls($stream) => $call,
            #[cfg(feature = "boring")]
            Wire::Boring($stream) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_read(context, into))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(_) | Wire::Sniffed(_) | Wire::Terminated(_) | Wire::Metered(_) | Wire::Rustls(_) => {
                true
            }
            #[cfg(feature = "boring")]
            Wire::Boring(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_flush(context))
    }

    /// TLS: sends close_notify, then FIN. The read side stays open (half-close).
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}
