//! Dials the address the kernel recorded, the way the workload would have: its source, mark and interface.
//! It refuses to dial another address, and to wait longer than the bound.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::netns;

/// What the workload had set on its socket before it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The address it had bound; `None` lets the kernel choose.
    pub source: Option<IpAddr>,
    /// `SO_MARK`; needs CAP_NET_ADMIN.
    pub mark: Option<NonZeroU32>,
    /// `SO_BINDTODEVICE`, as an index.
    pub interface: Option<NonZeroU32>,
}

/// A dial that failed, with the errno that the workload's own `connect` would have seen.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {destination}: {source}")]
pub struct DialError {
    pub destination: SocketAddr,
    step: &'static str,
    source: io::Error,
    errno: i32,
}

impl DialError {
    /// For the negative cache: what the next `connect` to this address should answer.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }
}

/// [`socket`] and [`connect`] in one.
///
/// # Errors
/// See [`connect`].
pub async fn dial(destination: SocketAddr, origin: &Origin) -> Result<TcpStream, DialError> {
    connect(socket(destination, origin)?, destination).await
}

/// [`dial`] from within another network namespace, whose routes and addresses hold.
///
/// # Errors
/// See [`connect`]; the namespace cannot be entered.
pub async fn dial_in(
    netns: Arc<File>,
    destination: SocketAddr,
    origin: Origin,
) -> Result<TcpStream, DialError> {
    let made =
        tokio::task::spawn_blocking(move || netns::inside(&netns, || Ok(socket(destination, &origin))));
    let socket = match made.await {
        Ok(Ok(socket)) => socket?,
        Ok(Err(fault)) => return Err(DialError::new(destination, "enter the network namespace for", fault)),
        Err(fault) => {
            return Err(DialError::new(destination, "make a socket for", io::Error::other(fault)));
        }
    };
    connect(socket, destination).await
}

/// Makes the socket, in the network namespace of the calling thread.
///
/// # Errors
/// An option that the workload had cannot be set: dialling without it would go another way than the workload asked.
pub fn socket(destination: SocketAddr, origin: &Origin) -> Result<TcpSocket, DialError> {
    let failed = |step| move |source| DialError::new(destination, step, source);
    let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
        .map_err(failed("make a socket for"))?;
    let options = SockRef::from(&socket);
    if let Some(mark) = origin.mark {
        options.set_mark(mark.get()).map_err(failed("mark a socket for"))?;
    }
    if let Some(interface) = origin.interface {
        let bound = if destination.is_ipv4() {
            options.bind_device_by_index_v4(Some(interface))
        } else {
            options.bind_device_by_index_v6(Some(interface))
        };
        bound.map_err(failed("use the workload's interface for"))?;
    }
    if let Some(source) = origin.source.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified()) {
        // Many sockets of one source share ports as long as their 4-tuples differ.
        options.set_reuse_address(true).map_err(failed("share a port for"))?;
        socket.bind(SocketAddr::new(source, 0)).map_err(failed("use the workload's source address for"))?;
    }
    options.set_tcp_nodelay(true).map_err(failed("set TCP_NODELAY for"))?;
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(PROBES);
    options.set_tcp_keepalive(&probes).map_err(failed("set keepalive for"))?;
    options.set_tcp_user_timeout(Some(IDLE + INTERVAL * PROBES)).map_err(failed("set a timeout for"))?;
    Ok(socket)
}

/// Connects within [`CONNECT`].
///
/// # Errors
/// What the kernel answers; ETIMEDOUT when it answers nothing in time.
pub async fn connect(socket: TcpSocket, destination: SocketAddr) -> Result<TcpStream, DialError> {
    match tokio::time::timeout(CONNECT, socket.connect(destination)).await {
        Ok(connected) => connected.map_err(|source| DialError::new(destination, "connect to", source)),
        Err(_) => {
            let source = io::Error::from_raw_os_error(libc::ETIMEDOUT);
            Err(DialError::new(destination, "connect to", source))
        }
    }
}

impl DialError {
    pub(crate) fn new(destination: SocketAddr, step: &'static str, source: io::Error) -> Self {
        let errno = source.raw_os_error().unwrap_or(libc::ECONNREFUSED);
        Self { destination, step, source, errno }
    }
}

/// The workload believes that it is connected already, so a dead address must not hold it for the kernel's two minutes.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Keepalive: a peer that vanished is noticed after two minutes, whether bytes are in flight (`TCP_USER_TIMEOUT`) or not.
const IDLE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;
