//! What the standard library does not offer of a TCP socket: the kernel's counters, a reset on close, the wait for an error.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use anyhow::bail;

/// Bytes that the kernel received in order on this socket, with one more once the peer's FIN is there
/// (`tcpi_bytes_received` of linux/tcp.h, 128 bytes in: 8 of flags, 24 words, 3 counters).
///
/// # Errors
/// The kernel is too old to say.
pub fn bytes_received(stream: &TcpStream) -> anyhow::Result<u64> {
    let (fd, mut info) = (stream.as_raw_fd(), [0_u8; 256]);
    let mut length = info.len() as libc::socklen_t;
    let into = info.as_mut_ptr().cast();
    // SAFETY: the buffer is as long as it is said to be, and outlives the call.
    let done = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length) };
    match info.get(128..136).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) if done == 0 && length >= 136 => Ok(u64::from_ne_bytes(bytes)),
        Some(_) | None => bail!("TCP_INFO: {}", io::Error::last_os_error()),
    }
}

/// Closing the socket sends RST from now on.
///
/// # Errors
/// As the kernel says.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (value, length) = ((&raw const linger).cast(), size_of::<libc::linger>() as libc::socklen_t);
    // SAFETY: the option's value is as long as it is said to be, and outlives the call.
    match unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for the error that a reset leaves on a socket whose end has been read already; false when none comes.
#[must_use]
pub fn is_reset(stream: &TcpStream) -> bool {
    let mut asked = libc::pollfd { fd: stream.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 20_000) };
    ready == 1 && asked.revents & libc::POLLERR != 0
}
