//! The socket between the two halves of the agent: whole messages with descriptors beside them, in order, between
//! processes that trust each other in one direction only. It refuses messages that are none, and larger ones than a
//! message may be; what is large goes in a sealed file of its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::Notify;
use zeroize::Zeroizing;

pub mod counter;
pub mod message;

/// One end, watched by a runtime. Clones are the same end.
#[derive(Debug, Clone)]
pub struct Lane(Arc<End>);

#[derive(Debug)]
struct End {
    /// A SEQPACKET socket; the runtime watches it as it does datagrams.
    socket: UnixDatagram,
    /// What is being received.
    buffer: Mutex<Vec<u8>>,
    /// What the other half has not had room for yet.
    waiting: Mutex<VecDeque<(Vec<u8>, Vec<OwnedFd>)>>,
    more: Notify,
}

/// A message and the descriptors beside it; `None` when the other half is gone.
pub type Received<T> = Option<(T, Vec<OwnedFd>)>;

/// Both ends of a new lane.
///
/// # Errors
/// No descriptors are to be had.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Lane {
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn of(end: OwnedFd) -> io::Result<Lane> {
        let socket = std::os::unix::net::UnixDatagram::from(end);
        socket.set_nonblocking(true)?;
        let socket = UnixDatagram::from_std(socket)?;
        let buffer = Mutex::new(vec![0; MESSAGE_BYTES]);
        Ok(Lane(Arc::new(End { socket, buffer, waiting: Mutex::default(), more: Notify::new() })))
    }

    /// Sends a message, at once where there is room. Whoever holds the lane must also run [`Lane::flush`].
    ///
    /// # Errors
    /// The other half is gone.
    pub fn post(&self, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
        let bytes = encode(message)?;
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            match send(&self.0.socket, &bytes, &fds, SendFlags::DONTWAIT) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent,
            }
        }
        if waiting.len() >= WAITING {
            self.close();
            return Err(io::Error::other("the other half of the agent does not read"));
        }
        waiting.push_back((bytes, fds));
        self.0.more.notify_one();
        Ok(())
    }

    /// The same for what may be lost: of a half that is gone, others tell.
    pub fn tell(&self, message: &impl Serialize, fds: Vec<OwnedFd>) {
        let _ = self.post(message, fds);
    }

    /// Sends what has waited, for as long as the lane lives.
    ///
    /// # Errors
    /// The other half is gone.
    pub async fn flush(&self) -> io::Error {
        loop {
            // Looked at first: this may be begun anew after it was dropped in the middle.
            let more = self.0.more.notified();
            while !self.waiting().is_empty() {
                if let Err(fault) = self.0.socket.writable().await {
                    return fault;
                }
                let mut waiting = self.waiting();
                while let Some((bytes, fds)) = waiting.front() {
                    let sent = self
                        .0
                        .socket
                        .try_io(Interest::WRITABLE, || send(&self.0.socket, bytes, fds, SendFlags::DONTWAIT));
                    match sent {
                        Ok(()) => drop(waiting.pop_front()),
                        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => break,
                        Err(fault) => return fault,
                    }
                }
            }
            more.await;
        }
    }

    /// The next message; `None` when the other half is gone.
    ///
    /// # Errors
    /// The socket failed, or what came is no message.
    pub async fn receive<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        let read = || {
            let mut buffer = self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            receive(&self.0.socket, &mut buffer)
        };
        self.0.socket.async_io(Interest::READABLE, read).await
    }

    /// Ends the lane for both halves.
    pub fn close(&self) {
        // It fails only where the other half is gone already.
        let _ = rustix::net::shutdown(&self.0.socket, rustix::net::Shutdown::Both);
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Vec<OwnedFd>)>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends on a blocking end. What it was encoded in is wiped: secrets go this way.
///
/// # Errors
/// The other half is gone.
pub fn send_now(end: &OwnedFd, message: &impl Serialize, fds: &[OwnedFd]) -> io::Result<()> {
    let bytes = Zeroizing::new(encode(message)?);
    send(end, &bytes, fds, SendFlags::empty())
}

/// Receives on a blocking end; `None` when the other half is gone.
///
/// # Errors
/// The socket failed, or what came is no message.
pub fn receive_now<T: DeserializeOwned>(end: &OwnedFd) -> io::Result<Received<T>> {
    receive(end, &mut Zeroizing::new(vec![0; MESSAGE_BYTES]))
}

/// A file in memory that nobody can change any more: what is too large for a message.
///
/// # Errors
/// No memory, or it cannot be encoded.
pub fn sealed(value: &impl Serialize) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("weir", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = std::fs::File::from(file);
    io::Write::write_all(&mut &file, &postcard::to_stdvec(value).map_err(io::Error::other)?)?;
    let seals = SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// What [`sealed`] holds.
///
/// # Errors
/// It is something else.
pub fn unsealed<T: DeserializeOwned>(file: OwnedFd) -> io::Result<T> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(file);
    // Its length cannot be asked for by a process that may not look at files.
    let (mut bytes, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match file.read_at(&mut part, bytes.len() as u64)? {
            0 => return postcard::from_bytes(&bytes).map_err(io::Error::other),
            count => bytes.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    match bytes.len() {
        fits if fits <= MESSAGE_BYTES => Ok(bytes),
        long => Err(io::Error::other(format!("a message of {long} bytes between the halves of the agent"))),
    }
}

fn send(end: &impl AsFd, bytes: &[u8], fds: &[OwnedFd], flags: SendFlags) -> io::Result<()> {
    if fds.is_empty() {
        // The relaying process may not send in any other way (see `privilege::confine`).
        rustix::net::send(end, bytes, flags | SendFlags::NOSIGNAL)?;
        return Ok(());
    }
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other("too many descriptors in one message"));
    }
    sendmsg(end, &[IoSlice::new(bytes)], &mut beside, flags | SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive<T: DeserializeOwned>(end: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received<T>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(end, &mut [IoSliceMut::new(buffer)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    // Descriptors that this process has no room for are missing (CTRUNC): whoever needs them notices.
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("a message between the halves of the agent was cut"));
    }
    let message =
        postcard::from_bytes(buffer.get(..got.bytes).unwrap_or_default()).map_err(io::Error::other)?;
    Ok(Some((message, fds)))
}

/// Longest message: a question to a human with its text (`limits::QUESTION_BYTES`) and the names beside it. A socket holds
/// one (net.core.wmem_default).
const MESSAGE_BYTES: usize = 128 * 1024;
/// Messages that may wait for room.
const WAITING: usize = 65_536;
/// Most descriptors beside one message: a network namespace's sockets for DNS questions are 18.
const FDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_keep_their_order_and_bring_their_descriptors() {
        let (here, there) = pair().unwrap();
        let (here, there) = (Lane::of(here).unwrap(), Lane::of(there).unwrap());
        let flushing = here.clone();
        tokio::spawn(async move { flushing.flush().await });
        // More than a socket holds, so that some wait.
        for number in 0..2_000_u32 {
            let fds = if number == 7 { vec![sealed(&"inside").unwrap()] } else { Vec::new() };
            here.post(&(number, vec![0_u8; 1_000]), fds).unwrap();
        }
        for expected in 0..2_000_u32 {
            let ((number, _), fds) = there.receive::<(u32, Vec<u8>)>().await.unwrap().unwrap();
            assert_eq!(number, expected);
            assert_eq!(fds.len(), usize::from(number == 7));
            for fd in fds {
                assert_eq!(unsealed::<String>(fd).unwrap(), "inside");
            }
        }
        assert!(here.post(&vec![0_u8; MESSAGE_BYTES], Vec::new()).is_err(), "longer than a message may be");
    }

    #[tokio::test]
    async fn the_end_is_told_and_nonsense_is_refused() {
        let (here, there) = pair().unwrap();
        let there = Lane::of(there).unwrap();
        rustix::io::write(&here, &[0xff; 9]).unwrap();
        assert!(there.receive::<(String, u64)>().await.is_err());
        drop(here);
        assert!(there.receive::<u64>().await.unwrap().is_none());
        assert!(there.post(&1_u8, Vec::new()).is_err());
    }
}
