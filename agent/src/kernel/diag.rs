//! The kernel's lists of TCP and UDP sockets, and the way to end one (sock_diag(7), `SOCK_DESTROY`). All speak of the
//! network namespace of the calling thread. It refuses to end a socket it cannot name by its cookie: ports are used again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// What the kernel has a list of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A socket as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub protocol: Protocol,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub is_listening: bool,
    /// Of the cgroup in which it was born; 0 where the kernel does not say.
    pub cgroup: u64,
    /// By which `/proc/PID/fd` names it.
    pub inode: u64,
    family: u8,
    /// `struct inet_diag_sockid` as it came: the name by which it is ended.
    id: [u8; SOCKET_ID],
}

/// Every TCP socket of this network namespace that listens or has a peer, and every UDP socket that has one.
///
/// # Errors
/// The kernel has no sock_diag, or does not answer.
pub fn sockets() -> io::Result<Vec<Found>> {
    let socket = open()?;
    let mut found = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for family in [AF_INET, AF_INET6] {
            let about = (protocol, family);
            let request = request(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, about, STATES, &[0; SOCKET_ID]);
            match socket.send(&request) {
                // A kernel without IPv6.
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => continue,
                sent => sent?,
            };
            match read_answers(&socket, &mut |body| found.extend(Found::read(protocol, body))) {
                // A kernel without a list of these: `can_destroy` tells.
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
    }
    Ok(found)
}

/// Ends a socket: its owner sees ECONNABORTED, its peer a reset. False when it was gone already.
///
/// # Errors
/// CAP_NET_ADMIN is missing, or the kernel was built without `CONFIG_INET_DIAG_DESTROY`.
pub fn destroy(found: &Found) -> io::Result<bool> {
    let socket = open()?;
    let about = (found.protocol, found.family);
    socket.send(&request(SOCK_DESTROY, REQUEST | ACK, about, u32::MAX, &found.id))?;
    match read_answers(&socket, &mut |_| {}) {
        Ok(()) => Ok(true),
        Err(fault) if fault.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Does this kernel list TCP and UDP sockets, and end one that is asked for?
///
/// # Errors
/// CAP_NET_ADMIN is missing.
pub fn can_destroy() -> io::Result<bool> {
    Ok(can_destroy_each(Protocol::Tcp)? && can_destroy_each(Protocol::Udp)?)
}

fn can_destroy_each(protocol: Protocol) -> io::Result<bool> {
    let answer = |kind, flags, states| {
        let socket = open()?;
        socket.send(&request(kind, REQUEST | flags, (protocol, AF_INET), states, &[0; SOCKET_ID]))?;
        read_answers(&socket, &mut |_| {})
    };
    if answer(SOCK_DIAG_BY_FAMILY, DUMP, 1 << TCP_LISTEN).is_err() {
        return Ok(false);
    }
    // No socket has this name: a kernel that ends sockets looks for it.
    match answer(SOCK_DESTROY, ACK, u32::MAX).map_err(|fault| (fault.raw_os_error(), fault)) {
        Err((Some(libc::ENOENT), _)) => Ok(true),
        Ok(()) | Err((Some(libc::EOPNOTSUPP), _)) => Ok(false),
        Err((_, fault)) => Err(fault),
    }
}

fn open() -> io::Result<Socket> {
    let (netlink, sock_diag) =
        (Domain::from(libc::AF_NETLINK), socket2::Protocol::from(libc::NETLINK_SOCK_DIAG));
    let socket = Socket::new(netlink, Type::DGRAM, Some(sock_diag))?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    Ok(socket)
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
fn request(
    kind: u16,
    flags: u16,
    (protocol, family): (Protocol, u8),
    states: u32,
    id: &[u8; SOCKET_ID],
) -> Vec<u8> {
    let protocol = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let mut bytes = Vec::with_capacity(HEADER + 8 + SOCKET_ID);
    bytes.extend(((HEADER + 8 + SOCKET_ID) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, protocol as u8, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Reads messages until the last one of the answer.
fn read_answers(socket: &Socket, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let length = io::Read::read(&mut &*socket, &mut buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                // A dump that could not begin ends with the fault.
                NLMSG_DONE => return done(body),
                NLMSG_ERROR => return error(body),
                _ => each(body),
            }
            rest = next;
        }
    }
}

fn done(body: &[u8]) -> io::Result<()> {
    match code(body) {
        Some(code) if code < 0 => Err(io::Error::from_raw_os_error(-code)),
        Some(_) | None => Ok(()),
    }
}

/// An acknowledgement is error 0.
fn error(body: &[u8]) -> io::Result<()> {
    match code(body) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the kernel's answer is cut short")),
    }
}

/// The number with which an answer ends; a fault is below 0.
fn code(body: &[u8]) -> Option<i32> {
    body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code))
}

/// Type and body of the first netlink message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

impl Found {
    /// The kernel's name for this socket, which no other one ever has (`idiag_cookie`, the end of the id).
    #[must_use]
    pub fn cookie(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.id;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// `struct inet_diag_msg`: family, state, timer, retrans, the id, expires, rqueue, wqueue, uid, inode; then attributes.
    fn read(protocol: Protocol, body: &[u8]) -> Option<Self> {
        let [family, state] = *body.first_chunk::<2>()?;
        let id: [u8; SOCKET_ID] = body.get(4..4 + SOCKET_ID)?.try_into().ok()?;
        let inode = u32::from_ne_bytes(body.get(68..72)?.try_into().ok()?);
        Some(Self {
            protocol,
            local: end(family, &id, 0, 4)?,
            remote: end(family, &id, 2, 20)?,
            is_listening: protocol == Protocol::Tcp && state == TCP_LISTEN,
            cgroup: attribute(body.get(72..)?, CGROUP_ID).unwrap_or(0),
            inode: inode.into(),
            family,
            id,
        })
    }
}

/// Port (big-endian) and address within a `struct inet_diag_sockid`.
fn end(family: u8, id: &[u8; SOCKET_ID], port_at: usize, address_at: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(id.get(port_at..port_at + 2)?.try_into().ok()?);
    let octets: [u8; 16] = id.get(address_at..address_at + 16)?.try_into().ok()?;
    let ip = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::from(*octets.first_chunk::<4>()?)),
        _ => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

/// The eight bytes of one attribute (`struct nlattr`: length, type, value).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<u64> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        if kind == wanted {
            return Some(u64::from_ne_bytes(bytes.get(4..12)?.try_into().ok()?));
        }
        bytes = bytes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_sockid`: two ports, two addresses, interface, cookie.
const SOCKET_ID: usize = 48;
/// Room for one datagram of a dump; the kernel sends at most 32 KiB at once.
const BUFFER: usize = 64 << 10;
const REQUEST: u16 = 0x001;
const ACK: u16 = 0x004;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// include/uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `INET_DIAG_CGROUP_ID` (Linux 5.7).
const CGROUP_ID: u16 = 21;
const TCP_LISTEN: u8 = 10;
/// All states but TIME_WAIT (6), which has no owner, and CLOSE (7), which has no peer. A connected UDP socket is
/// ESTABLISHED (1), any other one CLOSE.
const STATES: u32 = 0xfff & !(1 << 6) & !(1 << 7);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_from_both_sides_and_can_be_ended() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        let sockets = sockets().unwrap();
        assert!(sockets.iter().any(|found| found.is_listening && found.local == address));
        let near = client.local_addr().unwrap();
        let found = sockets.iter().find(|found| found.local == near && found.remote == address).unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&client)));
        assert_eq!(link.unwrap().to_str(), Some(format!("socket:[{}]", found.inode).as_str()));
        if !rustix::process::geteuid().is_root() {
            return;
        }
        assert!(destroy(found).unwrap());
        let fault = std::io::Read::read(&mut client, &mut [0]).unwrap_err();
        assert_eq!(fault.raw_os_error(), Some(libc::ECONNABORTED));
        assert!(!destroy(found).unwrap(), "it is gone");
    }

    #[test]
    fn a_datagram_socket_with_a_peer_is_found_and_loses_it() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let ends = (client.local_addr().unwrap(), server.local_addr().unwrap());
        let sockets = sockets().unwrap();
        let is_udp = |found: &&Found| found.protocol == Protocol::Udp && found.local == ends.0;
        let found = sockets.iter().find(is_udp).unwrap();
        assert_eq!(found.remote, ends.1);
        assert!(!sockets.iter().any(|found| found.protocol == Protocol::Udp && found.local == ends.1));
        if !rustix::process::geteuid().is_root() {
            return;
        }
        assert!(destroy(found).unwrap());
        assert_eq!(
            client.send(b"more").unwrap_err().raw_os_error(),
            Some(libc::EDESTADDRREQ),
            "no peer any more"
        );
        assert_eq!(client.take_error().unwrap().unwrap().raw_os_error(), Some(libc::ECONNABORTED));
    }

    #[test]
    fn v6_and_garbage_are_read_within_bounds() {
        let listener = std::net::TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(sockets().unwrap().iter().any(|found| found.local == address));
        for length in 0..80 {
            assert_eq!(Found::read(Protocol::Tcp, &vec![2; length]).is_some(), length >= 72);
            let _ = message(&vec![0xff; length]);
            let _ = attribute(&vec![0; length], CGROUP_ID);
        }
    }
}
