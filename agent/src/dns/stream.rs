//! Questions over TCP (RFC 7766): one after the other on a connection whose recorded destination is port 53.
//! It refuses to keep silent connections, and more of them than a workload needs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_core::audit::{Decision, Kind, Record};
use weir_core::destination::Destination;
use weir_core::identity::Identity;
use weir_core::limits::{DNS_STREAM_IDLE_NS, DNS_STREAM_QUESTIONS, DNS_UDP_BYTES};
use weir_core::lookup::Asker;

use super::{Way, answer};
use crate::clock;
use crate::listen::{Origin, finish_on_drop};
use crate::relay::{Relay, Thread};

/// Serves a connection to its end; one too many is reset, with a row.
pub(crate) async fn serve(thread: &Arc<Thread>, origin: &Origin, identity: &Identity, stream: TcpStream) {
    let label = thread.relay.workloads.known(origin.label);
    if !thread.relay.dns.asker(label, Asker::enter) {
        let destination = Destination::new(origin.destination);
        let mut row = Record::about(identity, &destination, "", clock::wall_ns());
        row.kind = Kind::Connection;
        row.decision = Decision::Failed;
        row.reason = "too many connections of the workload ask for names".into();
        return thread.relay.append(&row);
    }
    let _seat = Seat(&thread.relay, label);
    finish_on_drop(&stream);
    // A client that goes away, or keeps silent, has had its answers.
    let _ = talk(thread, Ok(origin.clone()), stream).await;
}

async fn talk(thread: &Thread, origin: Result<Origin, String>, mut stream: TcpStream) -> io::Result<()> {
    let patience = Duration::from_nanos(DNS_STREAM_IDLE_NS);
    let _ = stream.set_nodelay(true);
    let mut question = Vec::new();
    for _ in 0..DNS_STREAM_QUESTIONS {
        let length = timeout(patience, stream.read_u16()).await??;
        // What is longer than a datagram may be is no question.
        if length > DNS_UDP_BYTES {
            return Ok(());
        }
        question.resize(usize::from(length), 0);
        timeout(patience, stream.read_exact(&mut question)).await??;
        let Some(answer) = answer(thread, &origin, &question, Way::Stream).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(patience, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// A connection's place among its workload's.
struct Seat<'a>(&'a Relay, u64);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.dns.asker(self.1, Asker::leave);
    }
}
