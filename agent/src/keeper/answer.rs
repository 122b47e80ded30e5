//! Answers to what the relaying process asks and what takes time. It refuses to dial anything but the address that the
//! kernel recorded for a session, and DNS servers that workloads may ask.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Half;
use crate::app::Agent;
use crate::dns::sockets::asker;
use crate::lane::message::{Call, Reply, Resolver};
use crate::listen::Origin;
use crate::netns;
use crate::upstream::{self, DialError};

pub(super) async fn answer(agent: &Arc<Agent>, half: &Half, call: Call) -> (Reply, Vec<OwnedFd>) {
    match call {
        Call::Dial { session } => connected(dial_for(agent, half, session).await),
        Call::Resolver { server, is_stream } => connected(resolver(agent, server, is_stream).await),
        Call::Asker { netns, from, to, received } => {
            let found = asker(&agent.fence, netns, from, to, received);
            (Reply::Asker(found.map(Box::new).map_err(|why| why.to_string())), Vec::new())
        }
        Call::Identify { origin } => {
            (Reply::Identity(agent.identify(Arc::from(origin)).await.ok().map(Box::new)), Vec::new())
        }
    }
}

fn connected(socket: io::Result<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
    match socket {
        Ok(socket) => (Reply::Connected, vec![socket]),
        Err(fault) => (Reply::NotConnected(fault.to_string()), Vec::new()),
    }
}

/// Dials for a session, for as long as it lasts.
async fn dial_for(agent: &Agent, half: &Half, session: u64) -> io::Result<OwnedFd> {
    let over = || io::Error::other("the session is over");
    let (origin, places, mut end) = half.dialled(session).ok_or_else(over)?;
    let _place = places
        .try_acquire()
        .map_err(|_| io::Error::other("the session dials more often than it needs to"))?;
    tokio::select! {
        biased;
        // Nothing is ever sent on it.
        _ = end.changed() => Err(over()),
        dialled = dial(agent, &origin) => dialled.map_err(io::Error::other),
    }
}

/// Dials the recorded address; a failure is told to the fence, so that the next `connect` fails like it would have without
/// weir.
async fn dial(agent: &Agent, recorded: &Origin) -> Result<OwnedFd, DialError> {
    let origin = upstream::Origin {
        source: recorded.source,
        mark: NonZeroU32::new(recorded.mark),
        interface: NonZeroU32::new(recorded.ifindex),
    };
    let dialled = match agent.namespaces.file(recorded.netns) {
        Ok(Some(netns)) => upstream::dial_in(netns, recorded.destination, origin).await,
        Ok(None) => upstream::dial(recorded.destination, &origin).await,
        Err(gone) => Err(DialError::new(recorded.destination, "find the network namespace for", gone)),
    };
    let handed = dialled.and_then(|stream| {
        let stream =
            stream.into_std().map_err(|fault| DialError::new(recorded.destination, "hand over", fault))?;
        Ok(stream.into())
    });
    handed.inspect_err(|fault| {
        // A reset is that connection's own fate, not the address's.
        if fault.errno() != libc::ECONNRESET
            && let Err(why) = agent.fence.dial_failed(recorded, fault.errno())
        {
            tracing::warn!(%why, "A failed dial could not be told to the fence.");
        }
    })
}

async fn resolver(agent: &Agent, resolver: Resolver, is_stream: bool) -> io::Result<OwnedFd> {
    let server = resolver.address;
    if !agent.servers.now().has(&resolver) {
        return Err(io::Error::other(format!("{server} is no DNS server that workloads may ask")));
    }
    let inside = match resolver.netns {
        Some(netns) => agent.namespaces.file(netns)?,
        None => None,
    };
    match (inside, is_stream) {
        (None, true) => {
            let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await??;
            Ok(stream.into_std()?.into())
        }
        (Some(netns), true) => {
            let dialled = upstream::dial_in(netns, server, upstream::Origin::default());
            let stream = tokio::time::timeout(PATIENCE, dialled).await?.map_err(io::Error::other)?;
            Ok(stream.into_std()?.into())
        }
        (None, false) => datagrams(server),
        (Some(netns), false) => {
            let made = tokio::task::spawn_blocking(move || netns::inside(&netns, || datagrams(server)));
            made.await.map_err(io::Error::other)?
        }
    }
}

/// A socket for datagrams to one server, in the network namespace of the calling thread.
fn datagrams(server: SocketAddr) -> io::Result<OwnedFd> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Port 0: the kernel draws one.
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A server that does not take a connection within this time does not answer a look-up in time either.
const PATIENCE: Duration = Duration::from_secs(5);
