//! Reads a client's first bytes until the core knows the protocol, within time and size.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use weir_core::limits::{SNIFF_BYTES, SNIFF_NS};
use weir_core::sniff::{Sniffed, sniff};

/// What came of waiting for the client's first message.
#[derive(Debug)]
pub(crate) enum First {
    /// These bytes, which are of this protocol.
    Known(Sniffed, BytesMut),
    /// Nothing for as long as a client that speaks first would need.
    Silent,
    /// The client began a message and did not finish it in time, or it is too long.
    Stalled(BytesMut),
    /// The client went away without a word.
    Gone,
    /// The client went away in the middle of its first message.
    Cut,
}

/// `patience`: nanoseconds after which silence is an answer (the server may speak first, or the destination is denied
/// anyway); without it the client has all the time it wants before its first byte, as idle pooled connections do.
pub(crate) async fn first<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut bytes: BytesMut,
    patience: Option<u64>,
) -> First {
    if bytes.is_empty() {
        let read = stream.read_buf(&mut bytes);
        let read = match patience {
            Some(patience) => match tokio::time::timeout(Duration::from_nanos(patience), read).await {
                Ok(read) => read,
                Err(_) => return First::Silent,
            },
            None => read.await,
        };
        if !matches!(read, Ok(count) if count > 0) {
            return First::Gone;
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_nanos(SNIFF_NS);
    loop {
        let sniffed = sniff(&bytes);
        let partial = matches!(&sniffed, Sniffed::Postgres(_)) && bytes.len() < declared_length(&bytes);
        match sniffed {
            Sniffed::More if bytes.len() >= SNIFF_BYTES => return First::Stalled(bytes),
            Sniffed::More => {}
            // The protocol is known, but its session would wait for the rest of the packet without end.
            Sniffed::Postgres(_) if partial => {}
            known => return First::Known(known, bytes),
        }
        match tokio::time::timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Ok(Ok(count)) if count > 0 => {}
            // The session says what it misses.
            Ok(_) if partial => return First::Known(sniff(&bytes), bytes),
            Ok(_) => return First::Cut,
            Err(_) => return First::Stalled(bytes),
        }
    }
}

/// The length that a PostgreSQL start-up packet begins with; what was sniffed as one is at most `PG_STARTUP_BYTES` long.
fn declared_length(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    usize::try_from(length).unwrap_or(usize::MAX)
}
