//! Connections as they arrive: the kernel's record is read, the process behind it is told, and both go to the relaying
//! process. It refuses connections beyond what the relaying process's descriptors allow, with a reset and an audit row.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use weir_core::audit::{Decision, Kind, Record};

use super::Agent;
use crate::clock;
use crate::keeper::Leaving;
use crate::listen::{Listeners, NoOrigin, Origin, reset_on_drop};

/// Descriptors that the relaying process keeps for lanes, the intake and the first network namespaces' DNS.
const RESERVED_DESCRIPTORS: u64 = 256;
/// And for questions that wait and further namespaces, where there are many: one in so many.
const RESERVED_SHARE: u64 = 16;
/// A relayed connection holds two sockets.
const DESCRIPTORS_EACH: u64 = 2;

/// Accepts connections for ever; returns only when the listening socket fails.
pub(crate) async fn accept(agent: &Arc<Agent>, listeners: &Listeners) -> io::Error {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    let reserved = RESERVED_DESCRIPTORS + descriptors / RESERVED_SHARE;
    let most = descriptors.saturating_sub(reserved) / DESCRIPTORS_EACH;
    loop {
        match listeners.accept(&agent.fence).await {
            Ok((stream, Ok(origin))) => {
                agent.taken.add();
                reset_on_drop(&stream);
                if agent.connections.load(Ordering::Relaxed) >= most {
                    let why = "the agent serves as many connections as its descriptors allow";
                    record_refused(agent, &origin, why);
                    continue;
                }
                let leaving = Leaving::new(agent);
                let agent = Arc::clone(agent);
                tokio::spawn(async move {
                    let origin = Arc::new(origin);
                    if let Err(why) = hand_over(&agent, stream, &origin, leaving).await {
                        record_refused(&agent, &origin, &why);
                    }
                });
            }
            Ok((stream, Err(why))) => record_unattributed(agent, &stream, &why),
            Err(fault) => return fault,
        }
    }
}

/// A connection that is dropped here is reset.
async fn hand_over(
    agent: &Arc<Agent>,
    stream: TcpStream,
    origin: &Arc<Origin>,
    leaving: Leaving,
) -> Result<(), String> {
    let identity = agent.identify(Arc::clone(origin)).await?;
    let socket = stream.into_std().map_err(|fault| format!("it cannot be relayed: {fault}"))?;
    let half = agent.relays.half().await;
    half.take(agent, socket.into(), Arc::clone(origin), identity, leaving)
        .map_err(|fault| format!("the relaying process it fell to has ended: {fault}"))
}

fn record_unattributed(agent: &Agent, stream: &TcpStream, why: &NoOrigin) {
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    agent.append(&Record {
        ts: clock::wall_ns(),
        kind: Kind::Connection,
        decision: Decision::Denied,
        rule: "origin".into(),
        reason: format!("{why} (from {peer})"),
        ..Record::default()
    });
}

fn record_refused(agent: &Agent, origin: &Origin, why: &str) {
    agent.append(&Record {
        ts: clock::wall_ns(),
        kind: Kind::Connection,
        decision: Decision::Failed,
        reason: why.into(),
        pid: origin.pid.into(),
        start_time: origin.start_time,
        uid: origin.uid.into(),
        dst_ip: origin.destination.ip().to_string(),
        dst_port: origin.destination.port().into(),
        ..Record::default()
    });
}
