//! Questions by datagram, on a thread of their own, so that a flood of them delays no connection.
//! It refuses in place what is refused, and lets wait what waits for a server.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use weir_core::limits::DNS_UDP_BYTES;

use super::sockets::{Bound, Socket, Sockets};
use super::{Next, Way, forward, judge, record};
use crate::app::Agent;

/// The thread that serves questions, of each network namespace that it is given.
#[derive(Debug, Clone)]
pub(crate) struct Server(mpsc::Sender<Work>);

/// Sockets to serve, until the receiver hears that nobody holds them any more; the sender tells when they fail.
#[derive(Debug)]
struct Work {
    sockets: Bound,
    held: oneshot::Receiver<Never>,
    failed: oneshot::Sender<io::Error>,
}

#[derive(Debug)]
enum Never {}

/// Sockets that are served for as long as it lives.
#[derive(Debug)]
pub(crate) struct Serving {
    _held: oneshot::Sender<Never>,
    /// Resolves when a socket fails.
    pub(crate) failed: oneshot::Receiver<io::Error>,
}

impl Server {
    /// # Errors
    /// More are waiting to be begun than the thread has taken.
    pub(crate) fn serve(&self, sockets: Bound) -> io::Result<Serving> {
        let ((holds, held), (tell, failed)) = (oneshot::channel(), oneshot::channel());
        let work = Work { sockets, held, failed: tell };
        self.0.try_send(work).map_err(|_| io::Error::other("the thread for DNS questions is busy"))?;
        Ok(Serving { _held: holds, failed })
    }
}

/// Starts the thread.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start(agent: &Arc<Agent>) -> anyhow::Result<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (server, works) = mpsc::channel(BEGINNINGS);
    let agent = Arc::clone(agent);
    std::thread::Builder::new()
        .name("dns".into())
        .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, run(&agent, works)))
        .context("cannot start the thread for DNS questions")?;
    Ok(Server(server))
}

async fn run(agent: &Arc<Agent>, mut works: mpsc::Receiver<Work>) {
    while let Some(work) = works.recv().await {
        let agent = Arc::clone(agent);
        tokio::task::spawn_local(async move {
            tokio::select! {
                fault = serve_all(&agent, work.sockets) => drop(work.failed.send(fault)),
                _ = work.held => {}
            }
        });
    }
}

/// Returns only when the sockets cannot be watched.
async fn serve_all(agent: &Arc<Agent>, bound: Bound) -> io::Error {
    let sockets = match Sockets::of(bound) {
        Ok(sockets) => sockets,
        Err(fault) => return fault,
    };
    let mut serving = tokio::task::JoinSet::new();
    for socket in sockets.into_each() {
        serving.spawn_local(serve(Arc::clone(agent), Rc::new(socket)));
    }
    match serving.join_next().await {
        Some(Err(fault)) => io::Error::other(fault),
        Some(Ok(())) | None => io::Error::other("no socket for DNS questions"),
    }
}

/// Rest after a failed receive, so that the loop does not spin.
const REST: std::time::Duration = std::time::Duration::from_millis(20);
/// Network namespaces whose sockets may wait to be served.
const BEGINNINGS: usize = 64;

async fn serve(agent: Arc<Agent>, socket: Rc<Socket>) {
    // A longer question is cut, and so is none.
    let mut buffer = vec![0; usize::from(DNS_UDP_BYTES)];
    loop {
        let arrival = match socket.receive(&agent.fence, &mut buffer).await {
            Ok(arrival) => arrival,
            Err(fault) => {
                tracing::error!(%fault, "A DNS question could not be received.");
                tokio::time::sleep(REST).await;
                continue;
            }
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
