//! The agent's sockets on the loopback and the origin of what they accept.
//! It refuses to guess: a connection without the kernel's record is handed out as such, and is reset when dropped.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use crate::dns::sockets::Ports;
use crate::kernel::{self, Fence, FenceError};
use crate::ports;

/// What the kernel recorded when the workload called `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The address that was dialled, canonical (v4-mapped as v4).
    pub destination: SocketAddr,
    /// The address the workload's socket was bound to.
    pub source: Option<IpAddr>,
    /// Label of the socket or the task; see [`crate::workload::label`].
    pub label: u64,
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// Nanoseconds since boot at which the process started.
    pub start_time: u64,
    pub uid: u32,
    pub gid: u32,
    /// Id of the task's cgroup.
    pub cgroup: u64,
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Cookie of the workload's socket.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds, at the call.
    pub called_at: u64,
    /// `SO_MARK`, and the device the socket was bound to (0: none), for the upstream socket to repeat.
    pub mark: u32,
    pub ifindex: u32,
}

/// Why an accepted connection has no origin.
#[derive(Debug, thiserror::Error)]
pub enum NoOrigin {
    #[error("the connection did not come through the fence")]
    NoRecord,
    #[error("the kernel's record cannot be read: {0}")]
    Unreadable(#[from] FenceError),
}

/// The listeners of one network namespace: v4 on every 127/8 address, v6 on ::1 where the host has it.
#[derive(Debug)]
pub struct Listeners {
    v4: TcpListener,
    v6: Option<TcpListener>,
    port: u16,
    netns: u64,
}

/// Listening sockets that no runtime watches yet. They belong to the network namespace in which they were made.
#[derive(Debug)]
pub struct Sockets {
    v4: std::net::TcpListener,
    v6: Option<std::net::TcpListener>,
}

impl Sockets {
    /// Opens them in the network namespace of the calling thread. `port` 0 takes a free one that nobody can draw.
    ///
    /// # Errors
    /// The port is taken; the loopback cannot be bound.
    pub fn open(port: u16) -> io::Result<Self> {
        if port == 0 {
            return ports::open(Self::bind);
        }
        if ports::is_drawn(port) {
            tracing::warn!(
                port,
                "fence.port is one that the kernel may give to any socket (net.ipv4.ip_local_port_range): 0 takes a better one."
            );
        }
        Self::bind(port).map_err(|fault| named(fault, port))
    }

    fn bind(port: u16) -> io::Result<Self> {
        let v4 = bind_loopback(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        // A host without IPv6 serves no v6: the hook refuses it, and clients fall back to v4.
        let v6 = match bind_loopback(SocketAddr::from((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()))) {
            Ok(v6) => Some(v6),
            Err(fault) if lacks_v6(&fault) => None,
            Err(fault) => return Err(fault),
        };
        Ok(Self { v4, v6 })
    }

    /// Those that another program of this process opened, sorted by network namespace. A v6 socket without its v4
    /// sibling is dropped.
    ///
    /// # Errors
    /// A socket cannot be asked for its address or its namespace.
    pub fn adopt(inherited: Vec<OwnedFd>) -> io::Result<Vec<Self>> {
        let mut by_netns: BTreeMap<u64, (Option<std::net::TcpListener>, Option<std::net::TcpListener>)> =
            BTreeMap::new();
        for fd in inherited {
            let listener = std::net::TcpListener::from(fd);
            let both = by_netns.entry(kernel::netns_cookie(&listener)?).or_default();
            match listener.local_addr()? {
                SocketAddr::V4(_) => both.0 = Some(listener),
                SocketAddr::V6(_) => both.1 = Some(listener),
            }
        }
        Ok(by_netns.into_values().filter_map(|(v4, v6)| Some(Self { v4: v4?, v6 })).collect())
    }

    /// Cookie of the namespace that these sockets serve.
    ///
    /// # Errors
    /// The kernel is older than 5.14.
    pub fn netns(&self) -> io::Result<u64> {
        kernel::netns_cookie(&self.v4)
    }
}

impl AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.v4.as_fd()
    }
}

impl Listeners {
    /// Opens the listeners in the current network namespace. `port` 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken; the loopback cannot be bound. Call it within a tokio runtime.
    pub fn open(port: u16) -> io::Result<Self> {
        Self::of(Sockets::open(port)?)
    }

    /// Watches these sockets.
    ///
    /// # Errors
    /// The runtime cannot. Call it within a tokio runtime.
    pub fn of(sockets: Sockets) -> io::Result<Self> {
        let netns = sockets.netns()?;
        let port = sockets.v4.local_addr()?.port();
        let v4 = TcpListener::from_std(sockets.v4)?;
        let v6 = sockets.v6.map(TcpListener::from_std).transpose()?;
        Ok(Self { v4, v6, port, netns })
    }

    /// Further descriptors of the same sockets: what queues at them is not lost when these listeners go.
    ///
    /// # Errors
    /// No descriptors are to be had.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let v6 = self.v6.as_ref().map(|v6| v6.as_fd().try_clone_to_owned());
        std::iter::once(self.v4.as_fd().try_clone_to_owned()).chain(v6).collect()
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cookie of the namespace that these listeners serve.
    #[must_use]
    pub fn netns(&self) -> u64 {
        self.netns
    }

    /// Turns the labelled connections of this network namespace here, and its DNS questions to `dns`.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn publish(&self, fence: &Fence, dns: Ports) -> Result<(), FenceError> {
        let port6 = if self.v6.is_some() { self.port } else { 0 };
        let (port4, dns4, dns6) = (self.port, dns.v4, dns.v6);
        fence.serve(self.netns, weir_ebpf::Listener { port4, port6, dns4, dns6, routes: 0 })
    }

    /// The next connection. A stream without origin is set to be reset when it is dropped; audit it, then drop it.
    ///
    /// # Errors
    /// The listening socket itself failed. Lack of descriptors or memory is waited out.
    pub async fn accept(&self, fence: &Fence) -> io::Result<(TcpStream, Result<Origin, NoOrigin>)> {
        loop {
            let accepted = match &self.v6 {
                Some(v6) => tokio::select! { done = self.v4.accept() => done, done = v6.accept() => done },
                None => self.v4.accept().await,
            };
            match accepted {
                Ok((stream, _)) => {
                    let origin = origin_of(&stream, fence);
                    if origin.is_err() {
                        reset_on_drop(&stream);
                    }
                    return Ok((stream, origin));
                }
                Err(fault) if is_passing(&fault) => tokio::time::sleep(PAUSE).await,
                Err(fault) => return Err(fault),
            }
        }
    }
}

/// Makes the kernel send RST instead of FIN when the stream is dropped.
pub fn reset_on_drop(stream: &TcpStream) {
    // It fails only on a socket that is closed already.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Makes the kernel send FIN again when the stream is dropped: somebody has taken over who knows how it ends.
pub fn finish_on_drop(stream: &TcpStream) {
    // It fails only on a socket that is closed already.
    let _ = sockopt::set_socket_linger(stream, None);
}

fn origin_of(stream: &TcpStream, fence: &Fence) -> Result<Origin, NoOrigin> {
    let record = fence.origin(stream)?.ok_or(NoOrigin::NoRecord)?;
    Ok(Origin::from(record))
}

impl From<weir_ebpf::Origin> for Origin {
    fn from(record: weir_ebpf::Origin) -> Self {
        let ip = |bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical();
        let source = ip(record.source);
        Self {
            destination: SocketAddr::new(reached(ip(record.address), source), record.port),
            source: (!source.is_unspecified()).then_some(source),
            label: record.label,
            pid: record.tgid,
            start_time: record.start_boottime,
            uid: record.uid,
            gid: record.gid,
            cgroup: record.cgroup,
            netns: record.netns,
            cookie: record.cookie,
            called_at: record.ktime,
            mark: record.mark,
            ifindex: record.ifindex,
        }
    }
}

/// Where a `connect` really goes: the unspecified address means this host (its source where one is bound, else the
/// loopback), and policy must judge that address, not its other spelling.
fn reached(destination: IpAddr, source: IpAddr) -> IpAddr {
    match destination {
        stated if !stated.is_unspecified() => stated,
        _ if !source.is_unspecified() => source,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Wildcard on `lo`: every address of 127/8 is served, and nothing that came over a wire.
fn bind_loopback(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket2::SockRef::from(&socket).bind_device(Some(b"lo"))?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn named(fault: io::Error, port: u16) -> io::Error {
    if fault.kind() == io::ErrorKind::AddrInUse {
        return io::Error::new(
            fault.kind(),
            format!("port {port} on the loopback is taken: choose another fence.port, or 0 for a free one"),
        );
    }
    fault
}

pub(crate) fn lacks_v6(fault: &io::Error) -> bool {
    matches!(fault.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// Failures of one accept that pass: the peer gave up, or we lack descriptors or memory for a moment.
fn is_passing(fault: &io::Error) -> bool {
    matches!(
        fault.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EINTR)
    )
}

/// Handshakes that may wait for `accept`; the kernel caps it at net.core.somaxconn. A full queue stalls a connect by 1 s.
const BACKLOG: i32 = 16_384;
/// Rest after an accept that failed for lack of descriptors, so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unspecified_address_is_judged_as_the_host_it_reaches() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let none = ip("::");
        assert_eq!(reached(ip("0.0.0.0"), none), ip("127.0.0.1"));
        assert_eq!(reached(ip("::"), none), ip("::1"));
        assert_eq!(reached(ip("0.0.0.0"), ip("10.0.0.5")), ip("10.0.0.5"));
        assert_eq!(reached(ip("192.0.2.1"), ip("10.0.0.5")), ip("192.0.2.1"));
    }
}
