//! A far host: a network namespace behind a veth pair, with an echo server, and a witness that counts what arrives.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::process::until;

/// TCP port of the echo server.
pub const PORT: u16 = 9000;
/// Datagrams to this port say that everything sent before has arrived.
const MARKER: u16 = 7777;

/// See the module. Removed when it is dropped.
#[derive(Debug)]
pub struct Far {
    netns: String,
    pub v4: String,
    pub v6: String,
    /// This host's address on the wire.
    pub near: String,
    /// The near end of the wire.
    pub device: String,
    seen: Arc<AtomicU64>,
    /// Connections that the echo server has open.
    open: Arc<AtomicU64>,
    markers: Receiver<u64>,
    marker: u64,
}

impl Far {
    /// # Errors
    /// Not root, or iproute2 is missing.
    pub fn start() -> anyhow::Result<Far> {
        let id = std::process::id();
        let (netns, device) = (format!("weir-far-{id}"), format!("wf{id}"));
        let net = (id / 250 % 250, id % 250);
        let v4 = |host: u32| format!("10.{}.{}.{host}", net.0, net.1);
        let v6 = |host: u32| format!("fd77:{:x}:{:x}::{host}", net.0, net.1);
        ip(&["netns", "add", &netns])?;
        let (seen, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (tell, markers) = channel();
        let far = Far { netns, v4: v4(2), v6: v6(2), near: v4(1), device, seen, open, markers, marker: 0 };
        ip(&["link", "add", &far.device, "type", "veth", "peer", "name", "wire", "netns", &far.netns])?;
        let inside = |words: &[&str]| ip(&[&["-n", far.netns.as_str()], words].concat());
        inside(&["link", "set", "lo", "up"])?;
        for (address, length) in [(&far.v4, 24), (&far.v6, 64)] {
            inside(&["address", "add", &format!("{address}/{length}"), "dev", "wire", "nodad"])?;
        }
        inside(&["link", "set", "wire", "up"])?;
        for (address, length) in [(v4(1), 24), (v6(1), 64)] {
            ip(&["address", "add", &format!("{address}/{length}"), "dev", &far.device, "nodad"])?;
        }
        ip(&["link", "set", &far.device, "up"])?;
        let (path, count) = (format!("/run/netns/{}", far.netns), Arc::clone(&far.seen));
        let open = Arc::clone(&far.open);
        let (ready, opened) = channel();
        std::thread::spawn(move || {
            let opened = enter(&path).and_then(|()| Ok((TcpListener::bind(("::", PORT))?, packet_socket()?)));
            let (server, wire) = match opened {
                Ok(both) => both,
                Err(fault) => return drop(ready.send(Err(fault))),
            };
            let _ = ready.send(Ok(()));
            std::thread::spawn(move || echo(&server, &open));
            watch(&wire, &count, &|number| tell.send(number).is_ok());
        });
        opened.recv().context("the far host's thread ended")??;
        Ok(far)
    }

    /// A command on the far host.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).args(words);
        command
    }

    /// Waits until no connection is open, so that nothing of an earlier one is still to come.
    ///
    /// # Errors
    /// One stays open.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        until("the far host's connections have ended", || self.open.load(Ordering::SeqCst) == 0)?;
        self.packets().map(drop)
    }

    /// Packets that came over the wire and were sent on purpose: all but neighbour discovery and the markers.
    ///
    /// # Errors
    /// The wire does not work.
    pub fn packets(&mut self) -> anyhow::Result<u64> {
        self.marker += 1;
        let number = self.marker;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // The wire keeps the order: when the marker is seen, so is whatever was sent before.
        for _ in 0..50 {
            socket.send_to(&number.to_ne_bytes(), (self.v4.as_str(), MARKER))?;
            while let Ok(seen) = self.markers.recv_timeout(Duration::from_millis(200)) {
                if seen == number {
                    return Ok(self.seen.load(Ordering::SeqCst));
                }
            }
        }
        bail!("the marker did not arrive: the wire to the far host does not work")
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // The wire goes with its namespace, which the threads inside keep; so the near end goes first.
        let _ = ip(&["link", "delete", &self.device]);
        let _ = ip(&["netns", "delete", &self.netns]);
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("ip")
        .args(words)
        .output()
        .context("cannot start ip; `cargo xtask setup` installs it")?;
    if !done.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

fn enter(path: &str) -> std::io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: a plain system call; it moves this thread alone.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn echo(server: &TcpListener, open: &Arc<AtomicU64>) {
    for stream in server.incoming() {
        let Ok(mut stream) = stream else { return };
        let open = Arc::clone(open);
        open.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            drop(stream);
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn packet_socket() -> std::io::Result<OwnedFd> {
    let every = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: a plain system call that returns a new descriptor or an error.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, every) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Counts arrivals until the wire is gone.
fn watch(wire: &OwnedFd, seen: &AtomicU64, marker: &dyn Fn(u64) -> bool) {
    let mut frame = [0_u8; 2048];
    loop {
        // SAFETY: zeros are a valid address, and both buffers are as long as they are said to be.
        let (count, from) = unsafe {
            let mut from: libc::sockaddr_ll = std::mem::zeroed();
            let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            let into = frame.as_mut_ptr().cast();
            let address = (&raw mut from).cast();
            let count = libc::recvfrom(wire.as_raw_fd(), into, frame.len(), 0, address, &raw mut length);
            (count, from)
        };
        let Ok(count) = usize::try_from(count) else { return };
        let frame = frame.get(..count).unwrap_or_default();
        let loopback = from.sll_hatype == libc::ARPHRD_LOOPBACK;
        if from.sll_pkttype == libc::PACKET_OUTGOING || loopback || is_housekeeping(frame) {
            continue;
        }
        match marker_in(frame) {
            Some(number) if !marker(number) => return,
            Some(_) => {}
            None => drop(seen.fetch_add(1, Ordering::SeqCst)),
        }
    }
}

/// ARP, and ICMPv6 neighbour and multicast discovery, which the kernel sends by itself.
fn is_housekeeping(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => match (frame.get(20), frame.get(54)) {
            (Some(0), _) => true,
            (Some(58), Some(kind)) => (130..=143).contains(kind),
            _ => false,
        },
        _ => false,
    }
}

/// UDP over IPv4 without options.
fn marker_in(frame: &[u8]) -> Option<u64> {
    let is_udp = frame.get(12..14)? == [0x08, 0x00] && *frame.get(23)? == 17;
    let port = u16::from_be_bytes(frame.get(36..38)?.try_into().ok()?);
    let number = u64::from_ne_bytes(frame.get(42..50)?.try_into().ok()?);
    (is_udp && port == MARKER).then_some(number)
}
