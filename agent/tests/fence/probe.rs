//! The other process: enters a cgroup, tries one way out, and prints what happened in one line.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::hop;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// `probe CGROUP UID WAY ARGUMENTS…`
pub fn main(arguments: &[String]) {
    let [cgroup, uid, way, rest @ ..] = arguments else { panic!("probe CGROUP UID WAY ARGUMENTS…") };
    match way.as_str() {
        "hop-call" => {
            return hop::call(rest[0].parse().expect("an address"), rest[1].parse().expect("a number"));
        }
        "hop-sink" => return hop::sink(rest[0].parse().expect("a descriptor")),
        _ => {}
    }
    let act = Act { cgroup: cgroup.clone(), argument: rest.first().cloned().unwrap_or_default() };
    if !way.starts_with("late-") && way != "leaving-tcp" {
        act.enter();
    }
    if uid != "0" {
        let uid: u32 = uid.parse().expect("a uid");
        // SAFETY: plain system calls on a single-threaded process.
        assert!(unsafe { libc::setgid(uid) == 0 && libc::setuid(uid) == 0 });
    }
    let seen = act.run(way, rest).unwrap_or_else(|fault| name(&fault));
    println!("{seen}");
}

struct Act {
    cgroup: String,
    argument: String,
}

impl Act {
    /// `-` stays where it is.
    fn enter(&self) {
        if self.cgroup == "-" {
            return;
        }
        std::fs::write(format!("{}/cgroup.procs", self.cgroup), "0").expect("enter the cgroup");
    }

    fn run(&self, way: &str, rest: &[String]) -> std::io::Result<String> {
        match way {
            "tcp" | "wall" => hear(&TcpStream::connect(self.address())?),
            "tcp-nonblocking" => self.nonblocking(),
            "tcp-v6only" => self.dial(|socket| Ok(sockopt::set_ipv6_v6only(socket, true)?)),
            "tcp-bound" => {
                self.dial(|socket| Ok(rustix::net::bind(socket, &SocketAddr::from(([127, 0, 0, 9], 0)))?))
            }
            "tcp-device" => {
                self.dial(|socket| option(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0"))
            }
            "tcp-full-optmem" => self.dial(fill_option_memory),
            "late-tcp-full-optmem" => self.dial(|socket| {
                fill_option_memory(socket)?;
                self.enter();
                Ok(())
            }),
            "tcp-fastopen" => {
                self.dial(|socket| {
                    option(
                        socket,
                        libc::IPPROTO_TCP,
                        30, /* TCP_FASTOPEN_CONNECT */
                        &1_i32.to_ne_bytes(),
                    )
                })
            }
            "tcp-again" => self.again(),
            "tcp-thrice" => self.thrice(),
            "tcp-many" => self.many(rest[1].parse().expect("a number")),
            // The socket is born before the task enters the cgroup it is to act in.
            "late-tcp" | "leaving-tcp" => self.dial(|_| {
                self.enter();
                Ok(())
            }),
            "newborn-tcp" => self.newborn(rest),
            "entering-tcp" => {
                std::fs::write(format!("{}/cgroup.procs", rest[1]), "0")?;
                let socket = TcpStream::connect(self.address());
                self.enter();
                hear(&socket?)
            }
            "own-netns-tcp" => {
                // SAFETY: a plain system call.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
                hear(&TcpStream::connect(self.address())?)
            }
            "udp-connect" => local_udp(self.address())?.connect(self.address()).map(|()| "ok".into()),
            "udp-send" => local_udp(self.address())?.send_to(b"?", self.address()).map(|_| "ok".into()),
            "dns-connect" => ask_connected(self.address()),
            "dns-send" => ask(&local_udp(self.address())?, &[self.address()]),
            "dns-bound" => ask(&UdpSocket::bind((rest[1].as_str(), 0))?, &[self.address()]),
            "dns-mapped" => ask(&UdpSocket::bind("[::]:0")?, &[self.address()]),
            "dns-several" => {
                let servers: Vec<SocketAddr> =
                    rest.iter().map(|server| server.parse().expect("an address")).collect();
                ask(&local_udp(servers[0])?, &servers)
            }
            "dns-device" => {
                let socket = local_udp(self.address())?;
                option(&socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, rest[1].as_bytes())?;
                ask(&socket, &[self.address()])
            }
            "dns-shared" => self.shared(),
            "dns-many" => self.many_questions(rest[1].parse().expect("a number")),
            "dns-patient" => ask_patiently(self.address()),
            "dns-greedy" => self.greedy(rest),
            "dns-bind-any" => {
                open_files(16_384)?;
                let any = if self.address().is_ipv4() { "0.0.0.0:0" } else { "[::1]:0" };
                let count: usize = rest[1].parse().expect("a number");
                let all: std::io::Result<Vec<_>> = (0..count).map(|_| UdpSocket::bind(any)).collect();
                all.map(|_| "ok".into())
            }
            "dns-bind" => UdpSocket::bind(self.address()).map(|_| "ok".into()),
            "udp-connected-before" => self.connected_before(),
            "socket" => open(&self.argument).map(|_| "ok".into()),
            "bind" => self.bind(),
            "unix" => std::os::unix::net::UnixStream::connect(&self.argument).map(|_| "ok".into()),
            other => panic!("no way {other}"),
        }
    }

    fn address(&self) -> SocketAddr {
        self.argument.parse().expect("an address")
    }

    fn dial(&self, prepare: impl Fn(&OwnedFd) -> std::io::Result<()>) -> std::io::Result<String> {
        let socket = tcp_socket(self.address())?;
        prepare(&socket)?;
        rustix::net::connect(&socket, &self.address())?;
        let mut stream = TcpStream::from(socket);
        // A fast-open socket connects with its first bytes.
        stream.write_all(b"!")?;
        hear(&stream)
    }

    fn nonblocking(&self) -> std::io::Result<String> {
        let socket = tcp_socket(self.address())?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        match rustix::net::connect(&socket, &self.address()) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut wait = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut wait, 1, 2_000) };
        rustix::io::ioctl_fionbio(&socket, false)?;
        hear(&TcpStream::from(socket))
    }

    /// Connects, disconnects by AF_UNSPEC and connects the same socket again.
    fn again(&self) -> std::io::Result<String> {
        let socket = tcp_socket(self.address())?;
        rustix::net::connect(&socket, &self.address())?;
        rustix::net::connect_unspec(&socket)?;
        rustix::net::connect(&socket, &self.address())?;
        hear(&TcpStream::from(socket))
    }

    /// Connects one socket until it has failed three times.
    fn thrice(&self) -> std::io::Result<String> {
        let socket = tcp_socket(self.address())?;
        for _ in 0..2 {
            assert!(rustix::net::connect(&socket, &self.address()).is_err(), "it succeeded");
        }
        rustix::net::connect(&socket, &self.address())?;
        hear(&TcpStream::from(socket))
    }

    fn many(&self, count: usize) -> std::io::Result<String> {
        for _ in 0..count {
            let mut stream = TcpStream::connect(self.address())?;
            stream.write_all(b"!")?;
        }
        Ok("ok".into())
    }

    /// Makes a cgroup below its own, enters it, and connects at once; so many times. What it saw, when always the same.
    fn newborn(&self, rest: &[String]) -> std::io::Result<String> {
        let [_, folder, count] = rest else { panic!("newborn-tcp ADDRESS FOLDER COUNT") };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..count.parse().expect("a number") {
            std::fs::create_dir(folder)?;
            std::fs::write(format!("{folder}/cgroup.procs"), "0")?;
            let socket = TcpStream::connect(self.address());
            self.enter();
            std::fs::remove_dir(folder)?;
            let said = socket.and_then(|socket| hear(&socket)).unwrap_or_else(|fault| name(&fault));
            let workload = said.split(' ').find(|word| word.starts_with("workload=")).unwrap_or_default();
            seen.insert(format!("{} {workload}", said.split(' ').next().unwrap_or_default()));
        }
        Ok(seen.into_iter().collect::<Vec<_>>().join(" and "))
    }

    /// Connects, waits until the stage has labelled the cgroup, and sends.
    fn connected_before(&self) -> std::io::Result<String> {
        let socket = local_udp(self.address())?;
        socket.connect(self.address())?;
        println!("ready");
        std::io::stdin().read_line(&mut String::new())?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        // A dropped datagram may be reported to the sender; only an answer counts.
        let _ = socket.send(b"?");
        match socket.recv(&mut [0; 8]) {
            Ok(_) => Ok("answer".into()),
            Err(_) => Ok("silence".into()),
        }
    }

    /// Two sockets on one port: nobody could tell whose question is whose.
    fn shared(&self) -> std::io::Result<String> {
        let open = |port| {
            let family = if self.address().is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &SocketAddr::new(self.address().ip(), port))?;
            Ok::<UdpSocket, std::io::Error>(socket.into())
        };
        let first = open(0)?;
        let second = open(first.local_addr()?.port())?;
        first.send_to(b"?", self.address())?;
        second.set_read_timeout(Some(Duration::from_millis(300)))?;
        let _ = second.send_to(b"?", self.address());
        first.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut answers = 0;
        for socket in [&first, &second] {
            while socket.recv(&mut [0; 512]).is_ok() {
                answers += 1;
            }
        }
        Ok(format!("{answers} answers"))
    }

    /// One socket after the other on the same port.
    fn many_questions(&self, count: usize) -> std::io::Result<String> {
        let port = local_udp(self.address())?.local_addr()?.port();
        for _ in 0..count {
            let socket = UdpSocket::bind(SocketAddr::new(self.address().ip(), port))?;
            let seen = ask(&socket, &[self.address()])?;
            if !seen.contains(&format!("pid={} ", std::process::id())) {
                return Ok(seen);
            }
        }
        Ok("ok".into())
    }

    /// Asks every server from one socket after the other until it is refused, and keeps them open until it is told to end.
    fn greedy(&self, servers: &[String]) -> std::io::Result<String> {
        open_files(8_192)?;
        let mut sockets = Vec::new();
        let mut asked = 0;
        let refused = loop {
            let socket = local_udp(self.address())?;
            let sent: std::io::Result<Vec<usize>> =
                servers.iter().map(|server| socket.send_to(b"?", server)).collect();
            sockets.push(socket);
            match sent {
                Ok(sent) => asked += sent.len(),
                Err(fault) => break fault,
            }
        };
        println!("ready");
        std::io::stdin().read_line(&mut String::new())?;
        Ok(format!("{} after {asked}", name(&refused)))
    }

    fn bind(&self) -> std::io::Result<String> {
        let socket = tcp_socket(self.address())?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &self.address())?;
        rustix::net::listen(&socket, 1)?;
        Ok("ok".into())
    }
}

fn open_files(most: u64) -> std::io::Result<()> {
    let of_files = rustix::process::Resource::Nofile;
    let maximum = rustix::process::getrlimit(of_files).maximum;
    let current = Some(maximum.map_or(most, |maximum| maximum.min(most)));
    Ok(rustix::process::setrlimit(of_files, rustix::process::Rlimit { current, maximum })?)
}

/// Asks every server before it reads; what each said, with the source that recvfrom shows.
fn ask(socket: &UdpSocket, servers: &[SocketAddr]) -> std::io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    for server in servers {
        socket.send_to(b"?", server)?;
    }
    let mut said = String::new();
    for _ in servers {
        let mut buffer = [0; 512];
        let (count, from) = socket.recv_from(&mut buffer)?;
        said.push_str(&format!("{} from={from} ", String::from_utf8_lossy(&buffer[..count])));
    }
    Ok(said)
}

/// Asks again, as resolvers do, where the queue before it is long or full.
fn ask_patiently(server: SocketAddr) -> std::io::Result<String> {
    let asked = || ask(&local_udp(server)?, &[server]);
    let mut last = asked();
    for _ in 0..10 {
        if !matches!(&last, Err(fault) if fault.kind() == std::io::ErrorKind::WouldBlock) {
            break;
        }
        last = asked();
    }
    last
}

fn ask_connected(server: SocketAddr) -> std::io::Result<String> {
    let socket = local_udp(server)?;
    socket.connect(server)?;
    let peer = socket.peer_addr()?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    socket.send(b"?")?;
    let mut buffer = [0; 512];
    let (count, from) = socket.recv_from(&mut buffer)?;
    Ok(format!("{} from={from} peer={peer} ", String::from_utf8_lossy(&buffer[..count])))
}

/// What the other side said, with the peer that `getpeername` shows.
fn hear(stream: &TcpStream) -> std::io::Result<String> {
    let peer = stream.peer_addr()?;
    let mut said = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut stream = stream;
    stream.read_to_string(&mut said)?;
    Ok(format!("{} peer={peer} ", said.trim_end()))
}

fn tcp_socket(address: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn local_udp(to: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
}

fn open(kind: &str) -> std::io::Result<OwnedFd> {
    let (family, kind, protocol) = match kind {
        "raw" => (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        "raw6" => (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        "ping" => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        "udplite" => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        "mptcp" => (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        "sctp" => (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        other => panic!("no socket {other}"),
    };
    // SAFETY: a plain system call that returns a new descriptor or an error.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A classic filter program is charged to the socket's option memory, from which the kernel also takes its storage:
/// the longest one that fits leaves no room.
fn fill_option_memory(socket: &OwnedFd) -> std::io::Result<()> {
    let (mut fits, mut too_long) = (0_u16, 4096_u16);
    while too_long - fits > 1 {
        let length = fits.midpoint(too_long);
        if attach_filter(socket, length) { fits = length } else { too_long = length }
    }
    assert!(attach_filter(socket, fits), "the longest filter fits no more");
    Ok(())
}

fn attach_filter(socket: &OwnedFd, length: u16) -> bool {
    // The former one is still charged while it is being replaced. Without one this fails, which is fine.
    let _ = option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0_i32.to_ne_bytes());
    // `ldx 4*([k]&0xf)` expands to several instructions each.
    let mut code = vec![libc::sock_filter { code: 0xb1, jt: 0, jf: 0, k: 0 }; usize::from(length)];
    code.push(libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX });
    let filter = libc::sock_fprog { len: length + 1, filter: code.as_mut_ptr() };
    // SAFETY: the program is valid for its length, and outlives the call.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    failed == 0
}

fn option(socket: &impl AsRawFd, level: i32, name: i32, value: &[u8]) -> std::io::Result<()> {
    // SAFETY: the value is valid for its length; the kernel only reads it.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn name(fault: &std::io::Error) -> String {
    match fault.raw_os_error() {
        Some(libc::EPERM) => "EPERM".into(),
        Some(libc::ECONNREFUSED) => "ECONNREFUSED".into(),
        Some(libc::ECONNRESET) => "ECONNRESET".into(),
        Some(libc::EADDRINUSE) => "EADDRINUSE".into(),
        Some(libc::EHOSTUNREACH) => "EHOSTUNREACH".into(),
        Some(libc::ENETUNREACH) => "ENETUNREACH".into(),
        _ => format!("{fault:?}"),
    }
}
