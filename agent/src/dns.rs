//! DNS through the agent: each question is read, judged, recorded, asked of the host's own server or of a configured one in
//! its network namespace, and answered. It refuses questions whose asker the kernel does not name, and all other servers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use weir_core::audit::{Decision, Kind, Record};
use weir_core::destination::Destination;
use weir_core::limits::DNS_WAITING;
use weir_core::lookup::{Asker, Refusal, Verdict};
use weir_core::wire::dns::{Code, Malformed, Proof, Query, code_name, kind_name};

use crate::lane::message::{Resolver, Resolvers};
use crate::ledger::Appending;
use crate::listen::Origin;
use crate::relay::{Relay, Thread};
use crate::{clock, kernel};

pub(crate) mod datagrams;
pub mod servers;
pub mod sockets;
pub(crate) mod stream;
mod upstream;

pub(crate) use upstream::Way;

/// What the relaying process knows of questions: whom it asks, and who asked.
#[derive(Debug)]
pub struct Dns {
    resolvers: ArcSwap<Resolvers>,
    /// By label; 0 is everybody whose label says nothing. There are as many as the configuration has workloads.
    askers: Mutex<HashMap<u64, Asker>>,
    waiting: AtomicUsize,
    under_way: AtomicUsize,
    /// Grows with each question that has a row; it makes the row's id.
    asked: AtomicU64,
}

/// What comes next for a question that has arrived.
enum Next {
    /// No answer: it was no question.
    Silence,
    /// A refusal, and its row if it has one.
    Refuse(Vec<u8>, Option<Box<Record>>),
    Forward(Forward),
}

/// A question on its way to a server.
struct Forward {
    query: Query,
    server: Resolver,
    /// It has no row yet.
    new: bool,
    _place: Place,
}

/// A place among the questions that wait; given back when it is dropped.
struct Place {
    relay: Arc<Relay>,
    label: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.relay.dns.waiting.fetch_sub(1, Ordering::SeqCst);
        self.relay.dns.asker(self.label, Asker::finish);
    }
}

/// Keeps the process from ending in order: held by whoever reads sockets, and by each question from its receipt until its
/// answer is sent.
struct UnderWay(Arc<Relay>);

impl UnderWay {
    fn begin(relay: &Arc<Relay>) -> UnderWay {
        relay.dns.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(relay))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dns.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_waiters();
    }
}

impl Dns {
    #[must_use]
    pub fn new(resolvers: Resolvers) -> Dns {
        Dns {
            resolvers: ArcSwap::from_pointee(resolvers),
            askers: Mutex::default(),
            waiting: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            // Another process before this one may have counted for the same socket.
            asked: AtomicU64::new(kernel::monotonic_ns()),
        }
    }

    /// Asks these servers from now on.
    pub fn ask(&self, resolvers: Resolvers) {
        self.resolvers.store(Arc::new(resolvers));
    }

    /// The names that answers to this label proved for an address, the newest last.
    #[must_use]
    pub fn proved(&self, label: u64, address: IpAddr) -> Vec<Arc<str>> {
        let now = kernel::monotonic_ns();
        self.lock().get(&label).map(|asker| asker.proved.of(address, now)).unwrap_or_default()
    }

    /// Sockets are read, or questions that were received there are not answered yet.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }

    fn asker<T>(&self, label: u64, act: impl FnOnce(&mut Asker) -> T) -> T {
        act(self.lock().entry(label).or_insert_with(|| Asker::new(kernel::monotonic_ns())))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Asker>> {
        self.askers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The agent's answer to what has arrived; `None` to what is no question.
async fn answer(
    thread: &Thread,
    origin: &Result<Origin, String>,
    question: &[u8],
    way: Way,
) -> Option<Vec<u8>> {
    match (judge(&thread.relay, origin, question), origin) {
        (Next::Silence, _) | (Next::Forward(_), Err(_)) => None,
        (Next::Refuse(answer, row), origin) => {
            if let Some(row) = row {
                note(thread, origin.as_ref().ok(), *row).await;
            }
            Some(answer)
        }
        (Next::Forward(question), Ok(origin)) => Some(forward(thread, origin, &question, way).await),
    }
}

/// Judges what has arrived. It does not wait for anything.
fn judge(relay: &Arc<Relay>, origin: &Result<Origin, String>, bytes: &[u8]) -> Next {
    let dns = &relay.dns;
    let query = match Query::read(bytes) {
        Ok(query) => query,
        Err(Malformed::Silent) => return Next::Silence,
        Err(Malformed::Answer(code, answer)) => {
            let label = origin.as_ref().map_or(NOBODY, |origin| relay.workloads.known(origin.label));
            let refusal = refuse(dns, label, code, "the bytes are no question that weir reads");
            return Next::Refuse(answer, row(origin, None, &refusal));
        }
    };
    let refused =
        |refusal: Refusal| Next::Refuse(query.refused(refusal.code), row(origin, Some(&query), &refusal));
    let Ok(known) = origin else {
        return refused(refuse(dns, NOBODY, Code::Refused, "the question did not come through the fence"));
    };
    let label = relay.workloads.known(known.label);
    if label == NOBODY {
        return refused(refuse(dns, NOBODY, Code::Refused, "the label belongs to no configured workload"));
    }
    let server = dns.resolvers.load().of(known.destination.ip(), known.netns);
    match dns.asker(label, |asker| asker.judge(&query, server.is_some(), kernel::monotonic_ns())) {
        Verdict::Refuse(refusal) => refused(refusal),
        Verdict::Forward { new } => {
            let before = dns.waiting.fetch_add(1, Ordering::SeqCst);
            let place = Place { relay: Arc::clone(relay), label };
            match server {
                Some(server) if before < DNS_WAITING => {
                    Next::Forward(Forward { query, server, new, _place: place })
                }
                Some(_) | None => {
                    dns.asker(label, |asker| asker.forget(&query));
                    refused(refuse(dns, label, Code::ServFail, "too many questions wait for answers"))
                }
            }
        }
    }
}

/// Whose label says nothing.
const NOBODY: u64 = 0;

fn refuse(dns: &Dns, label: u64, code: Code, reason: &'static str) -> Refusal {
    dns.asker(label, |asker| asker.refuse(code, reason, kernel::monotonic_ns()))
}

/// Records a question if it is new, asks the server, yields the answer for the workload, and records what it said.
async fn forward(thread: &Thread, origin: &Origin, forward: &Forward, way: Way) -> Vec<u8> {
    let (query, dns) = (&forward.query, &thread.relay.dns);
    let mut asked = None;
    if forward.new {
        let number = dns.asked.fetch_add(1, Ordering::Relaxed);
        let mut row = about(origin, Some(query), Decision::Allowed, String::new());
        row.session_id = format!("{:016x}{:016x}", origin.cookie, origin.called_at);
        row.request_id = format!("{}-{number}", row.session_id);
        match record(thread, origin, row).await {
            Ok(row) => asked = Some(row),
            Err(why) => {
                tracing::error!(%why, "A look-up is refused: its row could not be written.");
                dns.asker(origin.label, |asker| asker.forget(query));
                return query.refused(Code::ServFail);
            }
        }
    }
    let heard = upstream::ask(&thread.link, query, forward.server, way).await;
    if let Some(asked) = asked {
        let (status, reason) = match &heard {
            Ok((answer, proof)) => (code_name(answer), addresses(proof)),
            Err(fault) => (code_name(&query.refused(Code::ServFail)), fault.to_string()),
        };
        thread.relay.append(&Record { ts: clock::wall_ns(), kind: Kind::Outcome, status, reason, ..asked });
    }
    match heard {
        Ok((answer, proof)) => {
            let now = kernel::monotonic_ns();
            // A server inside a namespace may be the workload's own.
            if forward.server.netns.is_none() {
                dns.asker(origin.label, |asker| asker.proved.learn(query.name(), &proof, now));
            }
            answer
        }
        Err(fault) => {
            tracing::debug!(server = %forward.server.address, %fault, "A DNS server has not answered.");
            query.refused(Code::ServFail)
        }
    }
}

/// Writes the row of a refusal; a ledger that cannot be written refuses every other act as well.
async fn note(thread: &Thread, origin: Option<&Origin>, row: Record) {
    match origin {
        Some(origin) => {
            if let Err(why) = record(thread, origin, row).await {
                tracing::error!(%why, "The row of a refused look-up could not be written.");
            }
        }
        None => thread.relay.append(&row),
    }
}

/// The addresses that an answer gave, in its order.
fn addresses(proof: &Proof) -> String {
    let shown = proof.addresses.iter().take(SHOWN).map(|(address, _)| address.to_string());
    let more = proof.addresses.len().saturating_sub(SHOWN);
    shown.chain((more > 0).then(|| format!("and {more} more"))).collect::<Vec<_>>().join(" ")
}

/// Addresses that an outcome's row has room for.
const SHOWN: usize = 64;

/// Appends a row with the identity behind the question, and yields it; the identity of a process may take a while to find.
async fn record(thread: &Thread, origin: &Origin, row: Record) -> Result<Record, String> {
    let row = match thread.link.identify(origin).await {
        Ok(Some(identity)) => {
            let about = Record::about(&identity, &Destination::new(origin.destination), "", row.ts);
            Record {
                kind: row.kind,
                session_id: row.session_id,
                request_id: row.request_id,
                host: row.host,
                protocol: row.protocol,
                method: row.method,
                decision: row.decision,
                reason: row.reason,
                ..about
            }
        }
        // The label is known; only the process may be gone.
        Ok(None) => row,
        Err(fault) => return Err(fault.to_string()),
    };
    match thread.relay.ledger.append(&row) {
        Appending::Done(_) => Ok(row),
        Appending::Waiting(pending) => pending.await.map(|_| row),
        Appending::Refused(why) => Err(why),
    }
}

fn row(origin: &Result<Origin, String>, query: Option<&Query>, refusal: &Refusal) -> Option<Box<Record>> {
    let before = refusal.row?;
    let reason = match before {
        0 => refusal.reason.to_owned(),
        more => format!("{} ({more} refusals before it have no row)", refusal.reason),
    };
    Some(Box::new(match origin {
        Ok(origin) => about(origin, query, Decision::Denied, reason),
        Err(why) => {
            let reason = format!("{reason}: {why}");
            Record { rule: "origin".into(), ..bare(query, Decision::Denied, reason) }
        }
    }))
}

/// What the kernel says of the asker; the identity is added when the row is written.
fn about(origin: &Origin, query: Option<&Query>, decision: Decision, reason: String) -> Record {
    Record {
        pid: origin.pid.into(),
        start_time: origin.start_time,
        uid: origin.uid.into(),
        dst_ip: origin.destination.ip().to_string(),
        dst_port: origin.destination.port().into(),
        ..bare(query, decision, reason)
    }
}

fn bare(query: Option<&Query>, decision: Decision, reason: String) -> Record {
    Record {
        ts: clock::wall_ns(),
        kind: Kind::Dns,
        protocol: "dns".into(),
        host: query.map(|query| query.name().to_owned()).unwrap_or_default(),
        method: query.map(|query| kind_name(query.kind())).unwrap_or_default(),
        decision,
        reason,
        ..Record::default()
    }
}
