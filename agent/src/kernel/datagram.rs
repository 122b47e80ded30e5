//! Datagrams with what the kernel knows of them: which local address they came to, through which device, and when; and
//! answers from that same address. It refuses to interpret them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// A datagram that was received into a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    pub bytes: usize,
    pub from: SocketAddr,
    /// Local address it was sent to, and index of the device it came through; `None` on a socket bound to one address.
    pub to: Option<(IpAddr, u32)>,
    /// Wall clock, nanoseconds, at which the kernel received it; 0 when it does not say.
    pub received: u64,
}

/// A socket that says all that about its datagrams.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    } else {
        switch_on(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
    }
    switch_on(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
    // Without CAP_NET_ADMIN (in tests) the usual size has to do.
    let _ = option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BYTES);
    // What comes over a wire is not heard, and no answer leaves by one, whatever address asked.
    socket2::SockRef::from(&socket).bind_device(Some(b"lo"))?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

/// The next datagram; longer ones than `buffer` are cut.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is none.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    // SAFETY: an all-zero address is a valid one.
    let mut from: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero header is a valid, empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every part of the header points to memory of its length that outlives the call.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let bytes = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let (mut to, mut received) = (None, 0);
    // SAFETY: the kernel has filled the control block; each entry is read only where its length says that it is whole.
    unsafe {
        let mut entry = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(head) = entry.as_ref() {
            let value = libc::CMSG_DATA(entry);
            let fits = |size: usize| head.cmsg_len >= libc::CMSG_LEN(size as u32) as usize;
            match (head.cmsg_level, head.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if fits(size_of::<libc::in_pktinfo>()) => {
                    let packet = value.cast::<libc::in_pktinfo>().read_unaligned();
                    let address = Ipv4Addr::from(u32::from_be(packet.ipi_addr.s_addr));
                    to = Some((address.into(), packet.ipi_ifindex as u32));
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if fits(size_of::<libc::timespec>()) => {
                    let at = value.cast::<libc::timespec>().read_unaligned();
                    received = (at.tv_sec as u64).saturating_mul(1_000_000_000) + at.tv_nsec as u64;
                }
                // Nothing else was asked for.
                _ => {}
            }
            entry = libc::CMSG_NXTHDR(&raw const message, entry);
        }
    }
    Ok(Datagram { bytes, from: address_of(&from)?, to, received })
}

/// Sends a datagram; `from` is the local IPv4 address that the receiver sees, for a socket bound to all.
///
/// # Errors
/// As sendmsg(2).
pub fn send(socket: &impl AsRawFd, bytes: &[u8], to: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<()> {
    let to = socket2::SockAddr::from(to);
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero header is a valid, empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(from) = from {
        let packet = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let size = size_of::<libc::in_pktinfo>() as u32;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the block has room for one entry of this size, and is aligned for its header.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size) as _;
            let head = libc::CMSG_FIRSTHDR(&raw const message);
            (*head).cmsg_level = libc::IPPROTO_IP;
            (*head).cmsg_type = libc::IP_PKTINFO;
            (*head).cmsg_len = libc::CMSG_LEN(size) as _;
            libc::CMSG_DATA(head).cast::<libc::in_pktinfo>().write_unaligned(packet);
        }
    }
    // SAFETY: every part of the header points to memory of its length that outlives the call; none is written.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Datagrams of all workloads that may wait to be read: some five thousand questions.
const RECEIVE_BYTES: i32 = 4 << 20;
/// Room for an address with its device, and a time.
const CONTROL_BYTES: usize = 128;

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

fn switch_on(socket: &OwnedFd, level: i32, name: i32) -> io::Result<()> {
    option(socket, level, name, 1)
}

fn option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value is valid for its length; the kernel only reads it.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<i32>() as u32)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn address_of(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let from = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is larger, aligned for every address, and the family says that it holds this one.
            let v4 = unsafe { &*from.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Ok((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*from.cast::<libc::sockaddr_in6>() };
            Ok((v6.sin6_addr.s6_addr, u16::from_be(v6.sin6_port)).into())
        }
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        let socket = bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked = Ipv4Addr::new(127, 64, 3, 9);
        client.send_to(b"?", (asked, port)).unwrap();
        let mut buffer = [0; 8];
        let heard = receive(&socket, &mut buffer).unwrap();
        assert_eq!((heard.bytes, heard.from), (1, client.local_addr().unwrap()));
        assert_eq!(heard.to, Some((asked.into(), 1)));
        assert!(crate::clock::wall_ns() - heard.received < 10_000_000_000, "{heard:?}");
        send(&socket, b"!", heard.from, Some(asked)).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, (asked, port).into()));
    }
}
