//! The relaying threads: one runtime a core, no work stealing, 64 MiB stacks so that SQL is parsed where it arrives.
//! It refuses connections beyond what the process's descriptors allow, with a reset and an audit row.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use weir_core::audit::{Decision, Kind, Record};
use weir_core::destination::{Destination, Evidence};
use weir_sql::PgGrammar;

use super::Agent;
use crate::listen::{Listeners, NoOrigin, Origin, reset_on_drop};
use crate::relay::{Connection, serve};
use crate::upstream::Meter;
use crate::{clock, dns};

/// libpg_query recurses on the caller's stack; this holds the deepest statement that `limits` let through.
const STACK_BYTES: usize = 64 << 20;
/// Descriptors kept for the ledger, the control socket, listeners and the shipper.
const RESERVED_DESCRIPTORS: u64 = 256;
/// A relayed connection holds two sockets.
const DESCRIPTORS_EACH: u64 = 2;
/// Accepted connections that may wait for one thread.
const WAITING: usize = 1024;

/// Hands accepted connections to the threads in turn.
#[derive(Clone)]
pub(crate) struct Workers {
    agent: Arc<Agent>,
    lanes: Vec<mpsc::Sender<(std::net::TcpStream, Origin)>>,
    questions: dns::Server,
    most: u64,
}

pub(super) fn start(agent: &Arc<Agent>) -> anyhow::Result<Workers> {
    let count = thread::available_parallelism().map_or(1, usize::from);
    let mut lanes = Vec::with_capacity(count);
    for number in 0..count {
        let (lane, arrivals) = mpsc::channel(WAITING);
        let agent = Arc::clone(agent);
        thread::Builder::new()
            .name(format!("relay-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || run(&agent, arrivals))
            .context("cannot start a relaying thread")?;
        lanes.push(lane);
    }
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    let most = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_EACH;
    Ok(Workers { agent: Arc::clone(agent), lanes, questions: dns::start(agent)?, most })
}

impl Workers {
    /// The thread that serves DNS questions.
    pub(crate) fn questions(&self) -> &dns::Server {
        &self.questions
    }

    /// Accepts for ever; returns only when the listening socket fails.
    pub(crate) async fn accept(&self, listeners: &Listeners) -> io::Error {
        for lane in self.lanes.iter().cycle() {
            match listeners.accept(&self.agent.fence).await {
                Ok((stream, Ok(origin))) => {
                    self.agent.taken.add();
                    self.hand_over(lane, stream, origin).await;
                }
                Ok((stream, Err(why))) => {
                    record_unattributed(&self.agent, &stream, &why);
                    drop(stream);
                }
                Err(fault) => return fault,
            }
        }
        io::Error::other("no relaying thread")
    }

    async fn hand_over(
        &self,
        lane: &mpsc::Sender<(std::net::TcpStream, Origin)>,
        stream: TcpStream,
        origin: Origin,
    ) {
        reset_on_drop(&stream);
        if self.agent.connections.load(Ordering::Relaxed) >= self.most {
            record_refused(
                &self.agent,
                &origin,
                "the agent serves as many connections as its descriptors allow",
            );
            return;
        }
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(fault) => {
                return record_refused(&self.agent, &origin, &format!("it cannot be relayed: {fault}"));
            }
        };
        self.agent.enter();
        if let Err(mpsc::error::SendError((_, origin))) = lane.send((stream, origin)).await {
            self.agent.exit();
            record_refused(&self.agent, &origin, "the relaying thread it fell to has ended");
        }
    }
}

fn run(agent: &Arc<Agent>, mut arrivals: mpsc::Receiver<(std::net::TcpStream, Origin)>) {
    let ledger = Arc::clone(agent);
    // Outcomes that lag are on their way before the thread sleeps: one write for all that one turn has brought.
    let parking = move || ledger.ledger.flush();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = match builder.enable_all().on_thread_park(parking).build() {
        Ok(runtime) => runtime,
        Err(fault) => {
            tracing::error!(%fault, "A relaying thread cannot start.");
            return;
        }
    };
    let grammar = Rc::new(PgGrammar::on_large_stack());
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        while let Some((stream, origin)) = arrivals.recv().await {
            let (agent, grammar) = (Arc::clone(agent), Rc::clone(&grammar));
            tokio::task::spawn_local(async move {
                let _leaving = Leaving(Arc::clone(&agent));
                let stream = match TcpStream::from_std(stream) {
                    Ok(stream) => stream,
                    Err(fault) => {
                        return record_refused(&agent, &origin, &format!("it cannot be relayed: {fault}"));
                    }
                };
                if origin.destination.port() == weir_ebpf::DNS_PORT {
                    if let Err((origin, why)) = dns::stream::serve(&agent, origin, stream).await {
                        record_refused(&agent, &origin, &why);
                    }
                    return;
                }
                match open(&agent, grammar, origin).await {
                    Ok(connection) => serve(connection, stream).await,
                    Err((origin, why)) => record_refused(&agent, &origin, &why),
                }
            });
        }
    });
}

/// Counts the connection out, also when its task panics.
struct Leaving(Arc<Agent>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.exit();
    }
}

/// Who connects, and where to.
async fn open(
    agent: &Arc<Agent>,
    grammar: Rc<PgGrammar>,
    origin: Origin,
) -> Result<Connection, (Origin, String)> {
    // A new executable is hashed, which may take a while; the other connections of this thread go on.
    let (asking, of) = (Arc::clone(agent), origin.clone());
    let identified = tokio::task::spawn_blocking(move || asking.workloads.identify(&asking.fence, &of)).await;
    let identity = match identified {
        Ok(Ok(identity)) => Arc::new(identity),
        Ok(Err(why)) => return Err((origin, why.to_string())),
        Err(fault) => return Err((origin, format!("the process behind it could not be told: {fault}"))),
    };
    let mut destination = Destination::new(origin.destination);
    // The policies' own names last: of names with the same evidence the last one is the best.
    for name in agent.dns.proved(origin.label, destination.ip()) {
        destination.learn(&name, Evidence::LookedUp);
    }
    for name in agent.names.of(destination.ip()) {
        destination.learn(&name, Evidence::LookedUp);
    }
    let (seat, revoked) = agent.live.enter(&identity);
    Ok(Connection {
        agent: Arc::clone(agent),
        seat,
        revoked,
        grammar,
        session_id: session_id(),
        identity,
        destination,
        origin,
        started_ns: clock::now().mono_ns,
        meter: Meter::default(),
    })
}

/// 128 bits: 64 of randomness drawn once, and a count, so that ids of one agent never meet.
fn session_id() -> Arc<str> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let seed = *SEED.get_or_init(|| getrandom::u64().unwrap_or_else(|_| clock::wall_ns()));
    format!("{seed:016x}{:016x}", COUNT.fetch_add(1, Ordering::Relaxed)).into()
}

fn record_unattributed(agent: &Agent, stream: &TcpStream, why: &NoOrigin) {
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    agent.append(&Record {
        ts: clock::wall_ns(),
        kind: Kind::Connection,
        decision: Decision::Denied,
        rule: "origin".into(),
        reason: format!("{why} (from {peer})"),
        ..Record::default()
    });
}

fn record_refused(agent: &Agent, origin: &Origin, why: &str) {
    agent.append(&Record {
        ts: clock::wall_ns(),
        kind: Kind::Connection,
        decision: Decision::Failed,
        reason: why.into(),
        pid: origin.pid.into(),
        start_time: origin.start_time,
        uid: origin.uid.into(),
        dst_ip: origin.destination.ip().to_string(),
        dst_port: origin.destination.port().into(),
        ..Record::default()
    });
}
