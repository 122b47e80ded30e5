//! Questions by datagram, on a thread of their own, so that a flood of them delays no connection.
//! It refuses in place what is refused, and lets wait what waits for a server.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use weir_core::limits::DNS_UDP_BYTES;

use super::sockets::{Ports, Socket, Sockets};
use super::{Next, Way, forward, judge, record};
use crate::app::Agent;

/// Opens the sockets and serves them; the receiver hears it when they fail.
///
/// # Errors
/// The loopback cannot be bound, or no thread can be started.
pub(crate) fn start(agent: &Arc<Agent>) -> anyhow::Result<(Ports, oneshot::Receiver<io::Error>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sockets = {
        let _runtime = runtime.enter();
        Sockets::open().context("cannot listen for DNS questions")?
    };
    let ports = sockets.ports();
    let (failed, failure) = oneshot::channel();
    let agent = Arc::clone(agent);
    std::thread::Builder::new()
        .name("dns".into())
        .spawn(move || failed.send(run(&runtime, &agent, sockets)))
        .context("cannot start the thread for DNS questions")?;
    Ok((ports, failure))
}

/// Returns only when a socket fails.
fn run(runtime: &Runtime, agent: &Arc<Agent>, sockets: Sockets) -> io::Error {
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(runtime, async {
        let mut serving = tokio::task::JoinSet::new();
        for socket in sockets.into_each() {
            serving.spawn_local(serve(Arc::clone(agent), Rc::new(socket)));
        }
        match serving.join_next().await {
            Some(Ok(fault)) => fault,
            Some(Err(fault)) => io::Error::other(fault),
            None => io::Error::other("no socket for DNS questions"),
        }
    })
}

async fn serve(agent: Arc<Agent>, socket: Rc<Socket>) -> io::Error {
    // A longer question is cut, and so is none.
    let mut buffer = vec![0; usize::from(DNS_UDP_BYTES)];
    loop {
        let arrival = match socket.receive(&agent.fence, &mut buffer).await {
            Ok(arrival) => arrival,
            Err(fault) => return fault,
        };
        let back = arrival.back;
        match judge(&agent, &arrival.origin, &buffer[..arrival.bytes]) {
            Next::Silence => {}
            Next::Refuse(answer, None) => socket.answer(&answer, back),
            Next::Refuse(answer, Some(row)) => {
                let (agent, socket) = (Arc::clone(&agent), Rc::clone(&socket));
                // Rows of refusals have a rate, so these tasks are few.
                tokio::task::spawn_local(async move {
                    note(&agent, arrival.origin.as_ref().ok(), *row).await;
                    socket.answer(&answer, back);
                });
            }
            Next::Forward(question) => {
                let Ok(origin) = arrival.origin else { continue };
                let (agent, socket) = (Arc::clone(&agent), Rc::clone(&socket));
                tokio::task::spawn_local(async move {
                    let answer = forward(&agent, &origin, &question, Way::Datagram).await;
                    socket.answer(&answer, back);
                });
            }
        }
        // Whoever has just been let through gets on, however many more are waiting to be read.
        tokio::task::consume_budget().await;
    }
}

/// Writes the row of a refusal; a ledger that cannot be written refuses every other act as well.
pub(super) async fn note(
    agent: &Arc<Agent>,
    origin: Option<&crate::listen::Origin>,
    row: weir_core::audit::Record,
) {
    match origin {
        Some(origin) => {
            if let Err(why) = record(agent, origin, row).await {
                tracing::error!(%why, "The row of a refused look-up could not be written.");
            }
        }
        None => agent.append(&row),
    }
}
