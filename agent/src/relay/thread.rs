//! The relaying threads: one runtime a core, no work stealing, 64 MiB stacks so that SQL is parsed where it arrives; and
//! the thread for DNS. Each has a lane of its own to the keeper, by which connections come.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use weir_core::destination::{Destination, Evidence};
use weir_core::identity::Identity;
use weir_sql::PgGrammar;

use super::connection::{Connection, serve};
use super::link::Link;
use super::process::{Relay, Thread};
use crate::lane::Lane;
use crate::lane::message::{ToKeeper, ToRelay};
use crate::listen::Origin;
use crate::upstream::Meter;
use crate::{clock, dns};

/// libpg_query recurses on the caller's stack; this holds the deepest statement that `limits` let through.
const STACK_BYTES: usize = 64 << 20;

/// Starts the thread for DNS and one for each of `lanes`.
pub(super) fn start(relay: &Arc<Relay>, dns: OwnedFd, lanes: Vec<OwnedFd>) -> anyhow::Result<()> {
    let of = Arc::clone(relay);
    std::thread::Builder::new()
        .name("dns".into())
        .spawn(move || run(&of, dns, |thread| async move { dns::datagrams::serve(&thread).await }))
        .context("cannot start the thread for DNS questions")?;
    for (number, lane) in lanes.into_iter().enumerate() {
        let of = Arc::clone(relay);
        std::thread::Builder::new()
            .name(format!("relay-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || run(&of, lane, |thread| async move { connections(&thread).await }))
            .context("cannot start a relaying thread")?;
    }
    Ok(())
}

/// Body of a thread. It ends with its lane, which ends with the keeper.
fn run<F: Future<Output = ()>>(relay: &Arc<Relay>, lane: OwnedFd, serve: impl FnOnce(Arc<Thread>) -> F) {
    // However it ends: with the keeper, or before its time.
    let _ends = Ends(Arc::clone(relay));
    let ledger = Arc::clone(relay);
    // Outcomes that lag are on their way before the thread sleeps: one write for all that one turn has brought.
    let parking = move || ledger.ledger.flush();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().on_thread_park(parking).build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            tracing::error!(%fault, "A thread of the relaying process cannot start.");
            return;
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let lane = match Lane::of(lane) {
            Ok(lane) => lane,
            Err(fault) => {
                tracing::error!(%fault, "A lane to the keeper cannot be watched.");
                return;
            }
        };
        let link = Arc::new(Link::new(lane));
        let thread = Arc::new(Thread { relay: Arc::clone(relay), link });
        let flushing = Arc::clone(&thread.link);
        tokio::task::spawn_local(async move { flushing.flush().await });
        serve(thread).await;
    });
}

/// Tells that a thread has ended, also when it panicked.
struct Ends(Arc<Relay>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.failed.notify_one();
    }
}

/// Serves the connections that arrive on a lane.
async fn connections(thread: &Arc<Thread>) {
    let grammar = Rc::new(PgGrammar::on_large_stack());
    let open = Rc::new(RefCell::new(HashMap::<u64, oneshot::Sender<String>>::new()));
    while let Ok(Some((order, mut fds))) = thread.link.receive().await {
        match (order, fds.pop()) {
            (ToRelay::Arrival { session, origin, identity, names }, Some(socket)) => {
                let (end, revoked) = oneshot::channel();
                open.borrow_mut().insert(session, end);
                let departure = Departure::new(thread, session);
                let (thread, grammar, open) = (Arc::clone(thread), Rc::clone(&grammar), Rc::clone(&open));
                tokio::task::spawn_local(async move {
                    let arrived = Arrived { session, origin, identity, names };
                    arrived.serve(thread, grammar, socket, revoked).await;
                    open.borrow_mut().remove(&session);
                    drop(departure);
                });
            }
            // This process has no room for its descriptor.
            (ToRelay::Arrival { session, .. }, None) => thread.link.tell(&ToKeeper::Ended { session }),
            (ToRelay::Revoke { session, reason }, _) => {
                let end = open.borrow_mut().remove(&session);
                // One that ends by itself this moment needs no telling.
                end.and_then(|end| end.send(reason).err());
            }
            (ToRelay::Reply { id, reply }, fd) => thread.link.answered(id, reply, fd.into_iter().collect()),
            (order, _) => tracing::error!(?order, "An order that a relaying thread does not know."),
        }
    }
}

struct Arrived {
    session: u64,
    origin: Arc<Origin>,
    identity: Arc<Identity>,
    names: Vec<String>,
}

impl Arrived {
    async fn serve(
        self,
        thread: Arc<Thread>,
        grammar: Rc<PgGrammar>,
        socket: OwnedFd,
        revoked: oneshot::Receiver<String>,
    ) {
        let stream = match TcpStream::from_std(socket.into()) {
            Ok(stream) => stream,
            Err(fault) => {
                tracing::error!(%fault, "A connection cannot be watched.");
                return;
            }
        };
        let mut destination = Destination::new(self.origin.destination);
        if destination.port() == weir_ebpf::DNS_PORT {
            tokio::select! {
                () = dns::stream::serve(&thread, &self.origin, &self.identity, stream) => {}
                Ok(_) = revoked => {}
            }
            return;
        }
        // The policies' own names last: of names with the same evidence the last one is the best.
        let proved = thread.relay.dns.proved(self.origin.label, destination.ip());
        for name in proved.iter().map(AsRef::as_ref).chain(self.names.iter().map(String::as_str)) {
            destination.learn(name, Evidence::LookedUp);
        }
        let connection = Connection {
            thread,
            session: self.session,
            revoked,
            grammar,
            session_id: session_id(),
            identity: self.identity,
            destination,
            started_ns: clock::now().mono_ns,
            meter: Meter::default(),
        };
        serve(connection, stream).await;
    }
}

/// Counts the connection out, also when its task panics.
struct Departure {
    thread: Arc<Thread>,
    session: u64,
}

impl Departure {
    fn new(thread: &Arc<Thread>, session: u64) -> Departure {
        thread.relay.connections.fetch_add(1, Ordering::SeqCst);
        Departure { thread: Arc::clone(thread), session }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.thread.link.tell(&ToKeeper::Ended { session: self.session });
        self.thread.relay.connections.fetch_sub(1, Ordering::SeqCst);
        self.thread.relay.left.notify_waiters();
    }
}

/// 128 bits: 64 of randomness drawn once, and a count, so that ids of one process never meet.
fn session_id() -> Arc<str> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let seed = *SEED.get_or_init(|| getrandom::u64().unwrap_or_else(|_| clock::wall_ns()));
    format!("{seed:016x}{:016x}", COUNT.fetch_add(1, Ordering::Relaxed)).into()
}
