//! Questions over TCP (RFC 7766): one after the other on a connection whose recorded destination is port 53.
//! It refuses to keep silent connections, and more of them than a workload needs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_core::limits::{DNS_STREAM_IDLE_NS, DNS_STREAM_QUESTIONS, DNS_UDP_BYTES};
use weir_core::lookup::Asker;

use super::datagrams::note;
use super::{Next, Way, forward, judge};
use crate::app::Agent;
use crate::listen::{NoOrigin, Origin, finish_on_drop};

/// Serves a connection to its end.
///
/// # Errors
/// Why it cannot be served, for the row; the connection is reset then.
pub(crate) async fn serve(
    agent: &Arc<Agent>,
    origin: Origin,
    stream: TcpStream,
) -> Result<(), (Origin, String)> {
    let label = agent.workloads.known(origin.label);
    if !agent.dns.asker(label, Asker::enter) {
        return Err((origin, "too many connections of the workload ask for names".into()));
    }
    let _seat = Seat(agent, label);
    finish_on_drop(&stream);
    // A client that goes away, or keeps silent, has had its answers.
    let _ = talk(agent, Ok(origin), stream).await;
    Ok(())
}

async fn talk(agent: &Arc<Agent>, origin: Result<Origin, NoOrigin>, mut stream: TcpStream) -> io::Result<()> {
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
        let answer = match (judge(agent, &origin, &question), &origin) {
            (Next::Silence, _) => return Ok(()),
            (Next::Refuse(answer, row), origin) => {
                if let Some(row) = row {
                    note(agent, origin.as_ref().ok(), *row).await;
                }
                answer
            }
            (Next::Forward(question), Ok(origin)) => forward(agent, origin, &question, Way::Stream).await,
            (Next::Forward(_), Err(_)) => return Ok(()),
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(patience, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// A connection's place among its workload's.
struct Seat<'a>(&'a Agent, u64);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.dns.asker(self.1, Asker::leave);
    }
}
