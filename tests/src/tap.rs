//! A wire tap in front of a real server: passes bytes both ways and counts what comes from the client's side, by what it
//! read and by what the kernel says of the same socket. It refuses to know protocols.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use crate::process::until;
use crate::socket::bytes_received;

/// See the module.
#[derive(Debug)]
pub struct Tap {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

/// Bytes that one connection brought from the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub read: u64,
    /// What the kernel received in order (`tcpi_bytes_received`), without the place that FIN takes.
    pub kernel: u64,
}

#[derive(Debug, Default)]
struct Seen {
    open: usize,
    ended: Vec<Count>,
}

impl Tap {
    /// Listens on 127.0.0.1 in front of 127.0.0.1:`port`.
    ///
    /// # Errors
    /// No port is free.
    pub fn before(port: u16) -> anyhow::Result<Tap> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let tap = Tap { port: listener.local_addr()?.port(), seen: Arc::default() };
        let (seen, server) = (Arc::clone(&tap.seen), SocketAddr::from(([127, 0, 0, 1], port)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                locked(&seen).open += 1;
                std::thread::spawn(move || {
                    let count = relay(&client, server);
                    // Counted before it is closed, so that whoever sees the end of it sees its count.
                    let mut seen = locked(&seen);
                    seen.open -= 1;
                    seen.ended.extend(count.ok());
                });
            }
        });
        Ok(tap)
    }

    /// The connections so far, once all have ended and there are at least `least`; in the order of their ends.
    ///
    /// # Errors
    /// They do not end, or a count could not be had.
    pub fn ended(&self, least: usize) -> anyhow::Result<Vec<Count>> {
        until("the tapped connections have ended", || {
            let seen = locked(&self.seen);
            seen.open == 0 && seen.ended.len() >= least
        })
        .with_context(|| format!("{:?}", locked(&self.seen)))?;
        Ok(locked(&self.seen).ended.clone())
    }
}

fn locked(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn relay(client: &TcpStream, server: SocketAddr) -> anyhow::Result<Count> {
    let upstream = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut from, mut to) = (upstream.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut read, mut finished, mut buffer) = (0, false, [0; 16 << 10]);
    let (mut from, mut to) = (client, &upstream);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => finished = true,
            Ok(count) => {
                read += count as u64;
                // A server that is gone does not end the counting.
                let _ = to.write_all(buffer.get(..count).unwrap_or_default());
                continue;
            }
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => {}
        }
        break;
    }
    let _ = upstream.shutdown(Shutdown::Write);
    let kernel = bytes_received(client)? - u64::from(finished);
    let _ = back.join();
    Ok(Count { read, kernel })
}
