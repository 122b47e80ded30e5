//! Questions by datagram, on a thread of their own, so that a flood of them delays no connection.
//! It refuses in place what is refused, and lets wait what waits for a server.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use weir_core::limits::DNS_UDP_BYTES;

use super::sockets::{Bound, Socket, Sockets};
use super::{UnderWay, Way, answer};
use crate::lane::message::{ToKeeper, ToRelay};
use crate::relay::Thread;

/// Serves the sockets that the keeper sends, until the lane ends or a socket fails.
pub(crate) async fn serve(thread: &Arc<Thread>) {
    let mut serving = JoinSet::new();
    let mut of: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let received = tokio::select! {
            received = thread.link.receive() => received,
            Some(Ok(fault)) = serving.join_next() => {
                let fault: io::Error = fault;
                tracing::error!(%fault, "DNS questions cannot be received.");
                return;
            }
        };
        let Ok(Some((order, fds))) = received else { return };
        match order {
            ToRelay::Questions { number, ports } => {
                let Some(bound) = Bound::adopt(fds, &ports) else {
                    tracing::error!(number, "Sockets for DNS questions are not whole.");
                    return;
                };
                let thread = Arc::clone(thread);
                let task = serving.spawn_local(async move { serve_all(&thread, bound, number).await });
                if let Some(before) = of.insert(number, task) {
                    before.abort();
                }
            }
            ToRelay::Unserve { number } => drop(of.remove(&number).map(|task| task.abort())),
            ToRelay::Reply { id, reply } => thread.link.answered(id, reply, fds),
            order => tracing::error!(?order, "An order that the thread for DNS does not know."),
        }
    }
}

/// Returns only when the sockets cannot be watched.
async fn serve_all(thread: &Arc<Thread>, bound: Bound, number: u64) -> io::Error {
    let _reading = UnderWay::begin(&thread.relay);
    let sockets = match Sockets::of(bound) {
        Ok(sockets) => sockets,
        Err(fault) => return fault,
    };
    // Aborted with this task.
    let mut serving = JoinSet::new();
    for socket in sockets.into_each() {
        serving.spawn_local(receive(Arc::clone(thread), socket, number));
    }
    match serving.join_next().await {
        Some(Err(fault)) => io::Error::other(fault),
        Some(Ok(())) | None => io::Error::other("no socket for DNS questions"),
    }
}

async fn receive(thread: Arc<Thread>, socket: Socket, number: u64) {
    let places = Arc::new(Semaphore::new(ASKED));
    loop {
        // So many at once: a flood waits in the socket, and fills neither this process nor the keeper.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        // A longer question is cut, and so is none.
        let mut buffer = vec![0; usize::from(DNS_UDP_BYTES)];
        let heard = match socket.receive(&mut buffer).await {
            Ok(heard) => heard,
            Err(fault) => {
                tracing::error!(%fault, "A DNS question could not be received.");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let thread = Arc::clone(&thread);
        let back = Back { number, port: socket.port(), to: heard.from, from: heard.back };
        let under_way = UnderWay::begin(&thread.relay);
        // A task of its own: what was received is answered, also when the socket is given up meanwhile.
        tokio::task::spawn_local(async move {
            buffer.truncate(heard.bytes);
            let origin = thread.link.asker(heard.netns, heard.from, heard.to, heard.received).await;
            drop(place);
            if let Some(answer) = answer(&thread, &origin, &buffer, Way::Datagram).await {
                back.send(&thread, answer);
            }
            drop(under_way);
        });
    }
}

/// Where an answer goes, and through which socket of the keeper's: this process can send to nobody.
struct Back {
    number: u64,
    port: u16,
    to: SocketAddr,
    from: Option<Ipv4Addr>,
}

impl Back {
    fn send(self, thread: &Thread, bytes: Vec<u8>) {
        let Back { number, port, to, from } = self;
        thread.link.tell(&ToKeeper::DnsAnswer { number, port, to, from, bytes });
    }
}

/// Rest after a failed receive, so that the loop does not spin.
const REST: Duration = Duration::from_millis(20);
/// Questions of one socket whose asker is being asked for.
const ASKED: usize = 32;
