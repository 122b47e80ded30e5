//! Questions by datagram, on a thread of their own, so that a flood of them delays no connection.
//! It refuses in place what is refused, and lets wait what waits for a server.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use weir_core::audit::Record;
use weir_core::limits::DNS_UDP_BYTES;

use super::sockets::{Bound, Ports, Socket, Sockets};
use super::{Next, Way, forward, judge, record};
use crate::lane::Lane;
use crate::lane::message::ToRelay;
use crate::listen::Origin;
use crate::relay::Thread;

/// Serves the sockets that the keeper sends, until the lane ends.
pub(crate) async fn serve(thread: &Arc<Thread>, lane: &Lane) {
    let mut serving: HashMap<u64, AbortHandle> = HashMap::new();
    while let Ok(Some((order, fds))) = lane.receive::<ToRelay>().await {
        match order {
            ToRelay::Questions { number, v4, v6 } => {
                let Some(bound) = Ports::of(v4, &v6).and_then(|ports| Bound::adopt(fds, &ports)) else {
                    tracing::error!(number, "Sockets for DNS questions are not whole.");
                    continue;
                };
                let thread = Arc::clone(thread);
                let task = tokio::task::spawn_local(async move {
                    let fault = serve_all(&thread, bound).await;
                    tracing::error!(%fault, "DNS questions cannot be received.");
                });
                if let Some(before) = serving.insert(number, task.abort_handle()) {
                    before.abort();
                }
            }
            ToRelay::Unserve { number } => drop(serving.remove(&number).map(|task| task.abort())),
            ToRelay::Reply { id, reply } => thread.link.answered(id, reply, fds),
            order => tracing::error!(?order, "An order that the thread for DNS does not know."),
        }
    }
}

/// Returns only when the sockets cannot be watched.
async fn serve_all(thread: &Arc<Thread>, bound: Bound) -> io::Error {
    let sockets = match Sockets::of(bound) {
        Ok(sockets) => sockets,
        Err(fault) => return fault,
    };
    // Aborted with this task.
    let mut serving = JoinSet::new();
    for socket in sockets.into_each() {
        serving.spawn_local(serve_one(Arc::clone(thread), Rc::new(socket)));
    }
    match serving.join_next().await {
        Some(Err(fault)) => io::Error::other(fault),
        Some(Ok(())) | None => io::Error::other("no socket for DNS questions"),
    }
}

async fn serve_one(thread: Arc<Thread>, socket: Rc<Socket>) {
    // A longer question is cut, and so is none.
    let mut buffer = vec![0; usize::from(DNS_UDP_BYTES)];
    loop {
        let heard = match socket.receive(&mut buffer).await {
            Ok(heard) => heard,
            Err(fault) => {
                tracing::error!(%fault, "A DNS question could not be received.");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let origin = thread.link.asker(heard.netns, heard.from, heard.to, heard.received).await;
        let back = heard.back;
        match judge(&thread.relay, &origin, &buffer[..heard.bytes]) {
            Next::Silence => {}
            Next::Refuse(answer, None) => socket.answer(&answer, back),
            Next::Refuse(answer, Some(row)) => {
                let (thread, socket) = (Arc::clone(&thread), Rc::clone(&socket));
                // Rows of refusals have a rate, so these tasks are few.
                tokio::task::spawn_local(async move {
                    note(&thread, origin.as_ref().ok(), *row).await;
                    socket.answer(&answer, back);
                });
            }
            Next::Forward(question) => {
                let Ok(origin) = origin else { continue };
                let (thread, socket) = (Arc::clone(&thread), Rc::clone(&socket));
                tokio::task::spawn_local(async move {
                    let answer = forward(&thread, &origin, &question, Way::Datagram).await;
                    socket.answer(&answer, back);
                });
            }
        }
        // Whoever has just been let through gets on, however many more are waiting to be read.
        tokio::task::consume_budget().await;
    }
}

/// Writes the row of a refusal; a ledger that cannot be written refuses every other act as well.
pub(super) async fn note(thread: &Thread, origin: Option<&Origin>, row: Record) {
    match origin {
        Some(origin) => {
            if let Err(why) = record(thread, origin, row).await {
                tracing::error!(%why, "The row of a refused look-up could not be written.");
            }
        }
        None => thread.relay.append(&row),
    }
}

/// Rest after a failed receive, so that the loop does not spin.
const REST: Duration = Duration::from_millis(20);
