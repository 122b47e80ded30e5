//! Where turned questions arrive: one socket for every address of 127.64.0.0/10, and one a slot on ::1.
//! It refuses to guess who asks: where the kernel has published nobody, the question is nobody's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use weir_ebpf::{DNS_NET, DNS_NET_MASK, DNS_SLOTS, Listener, Tuple};

use crate::kernel::{self, Fence, datagram};
use crate::listen::{NoOrigin, Origin};
use crate::ports;

/// The ports on which one network namespace's questions arrive; 0 where the family is not served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    pub v4: u16,
    pub v6: [u16; DNS_SLOTS],
}

impl Ports {
    /// The ports to which the kernel turns.
    #[must_use]
    pub fn turned(listener: &Listener) -> Ports {
        Ports { v4: listener.dns4, v6: listener.dns6 }
    }
}

/// The sockets of one network namespace.
#[derive(Debug)]
pub struct Sockets {
    pub v4: Socket,
    /// Empty on a host without IPv6.
    pub v6: Vec<Socket>,
}

/// One of them.
#[derive(Debug)]
pub struct Socket {
    inner: UdpSocket,
    local: SocketAddr,
    netns: u64,
    /// Holds the same port in the other family. It is never read.
    #[expect(dead_code, reason = "it is there to be open")]
    twin: Option<std::net::UdpSocket>,
}

/// A question as it arrived.
#[derive(Debug)]
pub struct Heard {
    pub bytes: usize,
    /// Under these the kernel has published who asks.
    pub netns: u64,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Wall clock, nanoseconds.
    pub received: u64,
    /// The address that the answer must come from.
    pub back: Option<Ipv4Addr>,
}

/// Sockets that no runtime watches yet. They belong to the network namespace in which they were made.
#[derive(Debug)]
pub struct Bound {
    v4: Pair,
    v6: Vec<Pair>,
}

/// One port, held in both families; the first socket is read.
#[derive(Debug)]
struct Pair(std::net::UdpSocket, Option<std::net::UdpSocket>);

impl Bound {
    /// Opens them on free ports, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The loopback cannot be bound.
    pub fn open() -> io::Result<Self> {
        let (v4, twin) = open_pair()?;
        let slots = if twin.is_some() { DNS_SLOTS } else { 0 };
        let mut v6 = Vec::with_capacity(slots);
        for _ in 0..slots {
            let (twin, socket) = open_pair()?;
            v6.push(Pair(socket.ok_or(io::ErrorKind::AddrNotAvailable)?, Some(twin)));
        }
        Ok(Self { v4: Pair(v4, twin), v6 })
    }

    /// Those that the keeper opened, or the program before it, in the order in which the kernel turns to them; `None` when
    /// one of them is missing.
    #[must_use]
    pub fn adopt(inherited: Vec<OwnedFd>, turned: &Ports) -> Option<Self> {
        let mut by_port: HashMap<u16, [Option<std::net::UdpSocket>; 2]> = HashMap::new();
        for fd in inherited {
            let socket = std::net::UdpSocket::from(fd);
            let local = socket.local_addr().ok()?;
            by_port.entry(local.port()).or_default()[usize::from(local.is_ipv6())] = Some(socket);
        }
        let [read, twin] = by_port.remove(&turned.v4)?;
        let v4 = Pair(read?, twin);
        let slots = turned.v6.iter().filter(|port| **port != 0);
        let v6: Option<Vec<Pair>> =
            slots.map(|port| by_port.remove(port).and_then(|[twin, read]| Some(Pair(read?, twin)))).collect();
        Some(Self { v4, v6: v6? })
    }

    /// # Errors
    /// A socket has no address.
    pub fn ports(&self) -> io::Result<Ports> {
        let mut ports = Ports { v4: self.v4.0.local_addr()?.port(), ..Ports::default() };
        for (port, pair) in ports.v6.iter_mut().zip(&self.v6) {
            *port = pair.0.local_addr()?.port();
        }
        Ok(ports)
    }

    /// The sockets themselves.
    #[must_use]
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        let pairs = std::iter::once(self.v4).chain(self.v6);
        pairs.flat_map(|Pair(read, twin)| std::iter::once(read).chain(twin)).map(OwnedFd::from).collect()
    }
}

impl Sockets {
    /// Watches these sockets. Call it within a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot.
    pub fn of(bound: Bound) -> io::Result<Self> {
        let v6 = bound
            .v6
            .into_iter()
            .map(|Pair(read, twin)| Socket::open(read, twin))
            .collect::<io::Result<_>>()?;
        Ok(Self { v4: Socket::open(bound.v4.0, bound.v4.1)?, v6 })
    }

    /// All of them, each to be read by a task of its own.
    pub fn into_each(self) -> impl Iterator<Item = Socket> {
        std::iter::once(self.v4).chain(self.v6)
    }
}

impl Socket {
    fn open(socket: std::net::UdpSocket, twin: Option<std::net::UdpSocket>) -> io::Result<Self> {
        let (local, netns) = (socket.local_addr()?, kernel::netns_cookie(&socket)?);
        Ok(Self { inner: UdpSocket::from_std(socket)?, local, netns, twin })
    }

    /// The next question. What came over a wire, or to another address than the fence turns to, is passed over.
    ///
    /// # Errors
    /// The socket itself failed.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Heard> {
        loop {
            let read =
                self.inner.async_io(Interest::READABLE, || datagram::receive(&self.inner, buffer)).await;
            let heard = match read {
                Ok(heard) => heard,
                // An answer of ours that nobody was there for.
                Err(fault) if fault.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(fault) => return Err(fault),
            };
            let (to, from) = match (self.local.ip(), heard.to) {
                (IpAddr::V6(own), _) => (IpAddr::V6(own), None),
                (IpAddr::V4(_), Some((IpAddr::V4(to), LOOPBACK)))
                    if u32::from(to) & DNS_NET_MASK == DNS_NET =>
                {
                    (to.into(), Some(to))
                }
                (IpAddr::V4(_), _) => continue,
            };
            return Ok(Heard {
                bytes: heard.bytes,
                netns: self.netns,
                from: heard.from,
                to: SocketAddr::new(to, self.local.port()),
                received: heard.received,
                back: from,
            });
        }
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.local.port()
    }
}

/// A port that is free in both families, and that nobody can draw; v6 is absent where the host has none. The guard keeps
/// it in both.
fn open_pair() -> io::Result<(std::net::UdpSocket, Option<std::net::UdpSocket>)> {
    ports::open(|port| {
        let v4 = datagram::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        match datagram::bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()).into()) {
            Ok(v6) => Ok((v4, Some(v6))),
            Err(fault) if crate::listen::lacks_v6(&fault) => Ok((v4, None)),
            Err(fault) => Err(fault),
        }
    })
}

/// Answers a question through the socket among `sockets` at this port. What does not go to a workload of this host, or not
/// from where questions are turned to, is not sent; an answer that cannot be sent is lost, as datagrams are.
pub fn answer(
    fence: &Fence,
    sockets: &[OwnedFd],
    port: u16,
    to: SocketAddr,
    from: Option<Ipv4Addr>,
    bytes: &[u8],
) {
    let is_turned = from.is_none_or(|from| u32::from(from) & DNS_NET_MASK == DNS_NET);
    if to.is_ipv4() != from.is_some() || !is_turned {
        return;
    }
    let socket = sockets.iter().find(|socket| {
        let local = rustix::net::getsockname(socket).ok().and_then(|local| SocketAddr::try_from(local).ok());
        local.is_some_and(|local| local.port() == port && local.is_ipv4() == to.is_ipv4())
    });
    let Some(socket) = socket else { return };
    // Any other address may be a stranger's: only the kernel knows that somebody here asks from it.
    let is_asked_from = || {
        let at = SocketAddr::new(from.map_or(Ipv6Addr::LOCALHOST.into(), IpAddr::V4), port);
        let netns = kernel::netns_cookie(socket).ok();
        netns.is_some_and(|netns| matches!(fence.asker(&tuple(netns, to, at)), Ok(Some(_))))
    };
    if to.ip().is_loopback() || is_asked_from() {
        let _ = datagram::send(socket, bytes, to, from);
    }
}

/// The asker of a datagram that arrived at a time of the wall clock. Its addresses may have belonged to another socket
/// then: in that case it is nobody's.
///
/// # Errors
/// The kernel has published none.
pub fn asker(
    fence: &Fence,
    netns: u64,
    from: SocketAddr,
    to: SocketAddr,
    received: u64,
) -> Result<Origin, NoOrigin> {
    let origin = Origin::from(fence.asker(&tuple(netns, from, to))?.ok_or(NoOrigin::NoRecord)?);
    // Since then the tuple is this socket's, and it is so before its first datagram leaves.
    if received == 0 || monotonic(received) < origin.called_at {
        return Err(NoOrigin::NoRecord);
    }
    Ok(origin)
}

fn tuple(netns: u64, from: SocketAddr, to: SocketAddr) -> Tuple {
    Tuple {
        netns,
        source: kernel::address(from.ip()),
        destination: kernel::address(to.ip()),
        source_port: from.port().into(),
        destination_port: to.port().into(),
    }
}

/// A reading of the wall clock as one of `CLOCK_MONOTONIC`: at most [`BLUR_NS`] too late, never too early.
fn monotonic(wall_ns: u64) -> u64 {
    let mut reading = 0;
    for _ in 0..READINGS {
        let before = kernel::monotonic_ns();
        let wall = crate::clock::wall_ns();
        let after = kernel::monotonic_ns();
        reading = after.saturating_sub(wall.saturating_sub(wall_ns));
        if after - before < BLUR_NS {
            break;
        }
    }
    reading
}

/// Two clocks are read this close together, within so many tries; what a busy host still blurs errs on the asker's side.
const BLUR_NS: u64 = 20_000;
const READINGS: usize = 8;
/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
