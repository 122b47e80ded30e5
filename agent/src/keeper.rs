//! The keeper's side of the relaying process: it starts it, tells it whom to serve, answers it, and starts another when it
//! ends. It refuses to believe it: what it asks for is held against what the kernel and the policy say.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use weir_core::identity::Identity;

use crate::app::Agent;
use crate::dns::sockets::Ports;
use crate::lane::message::{Confined, Sources, ToRelay};
use crate::lane::{self, Lane};
use crate::listen::Origin;
use crate::live::Seat;

mod answer;
mod counter;
mod hear;
mod life;

pub(crate) use life::{keep, start};

/// The relaying process that serves now, and what the next one must be told.
#[derive(Debug)]
pub(crate) struct Relays {
    current: Mutex<Option<Arc<Half>>>,
    changed: Notify,
    next: AtomicU64,
    /// Held while it is sent, so that no older policy follows a newer one.
    sources: Mutex<Sources>,
    /// Commit and digest of the policy that was in force last, whichever process judged by it.
    in_force: Mutex<(String, String)>,
    questions: Mutex<BTreeMap<u64, Asked>>,
}

/// The sockets at which a network namespace's questions arrive.
type Asked = (Ports, Arc<Vec<OwnedFd>>);

/// One relaying process.
#[derive(Debug)]
pub(crate) struct Half {
    /// As the ledger knows it.
    writer: u64,
    main: Lane,
    dns: Lane,
    lanes: Vec<Lane>,
    turn: AtomicUsize,
    /// `None` when it has ended.
    sessions: Mutex<Option<HashMap<u64, Session>>>,
    confined: OnceLock<Confined>,
    /// Commit and digest of the policy that it judges by.
    in_force: Mutex<(String, String)>,
    ready: Notify,
    gone: watch::Sender<bool>,
    /// Places for dials and for other calls that are being answered, and for questions that are open on the desk.
    dials: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    asked: Arc<Semaphore>,
}

/// A connection that it serves.
#[derive(Debug)]
struct Session {
    origin: Arc<Origin>,
    /// Places for dials.
    dials: Arc<Semaphore>,
    /// Gone with the session, which ends its dials.
    over: watch::Sender<()>,
    _seat: Seat,
    _leaving: Leaving,
}

/// Counts a connection out.
pub(crate) struct Leaving(Arc<Agent>);

impl Leaving {
    /// Counts it in.
    pub(crate) fn new(agent: &Arc<Agent>) -> Leaving {
        agent.enter();
        Leaving(Arc::clone(agent))
    }
}

impl std::fmt::Debug for Leaving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaving")
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.exit();
    }
}

/// Sockets for DNS questions that are served for as long as it lives.
#[derive(Debug)]
pub(crate) struct Serving {
    relays: Arc<Relays>,
    number: u64,
}

impl Serving {
    /// Receives no more; what was received is still answered.
    pub(crate) fn pause(&self) {
        if let Some(half) = self.relays.now() {
            half.dns.tell(&ToRelay::Unserve { number: self.number }, Vec::new());
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        lock(&self.relays.questions).remove(&self.number);
        self.pause();
    }
}

impl Relays {
    pub(crate) fn new() -> Relays {
        Relays {
            current: Mutex::default(),
            changed: Notify::new(),
            next: AtomicU64::new(1),
            sources: Mutex::default(),
            in_force: Mutex::default(),
            questions: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Option<Arc<Half>> {
        lock(&self.current).clone()
    }

    /// The one that serves; waits while another is being started.
    pub(crate) async fn half(&self) -> Arc<Half> {
        loop {
            let changed = self.changed.notified();
            if let Some(half) = self.now() {
                return half;
            }
            changed.await;
        }
    }

    /// Another policy is in force.
    pub(crate) fn judge_by(&self, sources: Sources) {
        let mut known = lock(&self.sources);
        *known = sources;
        if let Some(half) = self.now() {
            half.send_policy(&known);
        }
    }

    /// Tells the relaying process something that the next one learns anyway.
    pub(crate) fn tell(&self, order: &ToRelay) {
        if let Some(half) = self.now() {
            half.main.tell(order, Vec::new());
        }
    }

    /// Ends the relaying process, if it is the one that the ledger knows by this number.
    pub(crate) fn give_up(&self, writer: u64) {
        if let Some(half) = self.now().filter(|half| half.writer == writer) {
            tracing::error!("The relaying process wrote what is no record: it is ended.");
            half.main.close();
        }
    }

    /// Has questions that arrive at these sockets answered.
    pub(crate) fn serve(self: &Arc<Self>, ports: Ports, sockets: Arc<Vec<OwnedFd>>) -> Serving {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut questions = lock(&self.questions);
        if let Some(half) = self.now() {
            half.send_questions(number, ports, &sockets);
        }
        questions.insert(number, (ports, sockets));
        Serving { relays: Arc::clone(self), number }
    }
}

impl Half {
    /// How it is confined, as it found itself.
    pub(crate) fn confined(&self) -> Confined {
        self.confined.get().cloned().unwrap_or_default()
    }

    /// Commit and digest of the policy by which it judges.
    pub(crate) fn in_force(&self) -> (String, String) {
        lock(&self.in_force).clone()
    }

    /// Hands a connection over.
    pub(crate) fn take(
        &self,
        agent: &Agent,
        socket: OwnedFd,
        origin: Arc<Origin>,
        identity: Identity,
        leaving: Leaving,
    ) -> std::io::Result<()> {
        let session = agent.relays.next.fetch_add(1, Ordering::Relaxed);
        let lane = self.turn.fetch_add(1, Ordering::Relaxed) % self.lanes.len().max(1);
        let lane = self.lanes.get(lane).ok_or(std::io::ErrorKind::NotConnected)?;
        let identity = Arc::new(identity);
        let by = lane.clone();
        let end = move |reason| by.post(&ToRelay::Revoke { session, reason }, Vec::new()).is_ok();
        let seat = agent.live.enter(&identity, Box::new(end));
        let held = Session {
            origin: Arc::clone(&origin),
            dials: Arc::new(Semaphore::new(DIALS_EACH)),
            over: watch::Sender::new(()),
            _seat: seat,
            _leaving: leaving,
        };
        match lock(&self.sessions).as_mut() {
            Some(sessions) => drop(sessions.insert(session, held)),
            None => return Err(std::io::ErrorKind::NotConnected.into()),
        }
        let names = agent.names.of(origin.destination.ip());
        let names = names.iter().rev().take(NAMES).rev().map(|name| name.to_string()).collect();
        let arrival = ToRelay::Arrival { session, origin, identity, names };
        lane.post(&arrival, vec![socket]).inspect_err(|_| drop(self.leave(session)))
    }

    fn leave(&self, session: u64) -> Option<Session> {
        lock(&self.sessions).as_mut().and_then(|sessions| sessions.remove(&session))
    }

    /// Where a session goes, its places for dials, and its end.
    fn dialled(&self, session: u64) -> Option<(Arc<Origin>, Arc<Semaphore>, watch::Receiver<()>)> {
        let sessions = lock(&self.sessions);
        let held = sessions.as_ref()?.get(&session)?;
        Some((Arc::clone(&held.origin), Arc::clone(&held.dials), held.over.subscribe()))
    }

    fn send_policy(&self, sources: &Sources) {
        match lane::sealed(sources) {
            Ok(file) => self.main.tell(&ToRelay::Policy, vec![file]),
            Err(fault) => {
                tracing::error!(%fault, "A policy cannot be handed over; the relaying process ends.");
                self.main.close();
            }
        }
    }

    fn send_questions(&self, number: u64, ports: Ports, sockets: &[OwnedFd]) {
        match sockets.iter().map(OwnedFd::try_clone).collect() {
            Ok(sockets) => self.dns.tell(&ToRelay::Questions { number, ports }, sockets),
            Err(fault) => tracing::error!(%fault, "DNS questions of a network namespace are not answered."),
        }
    }

    /// Lets it end when nothing is under way, within `patience`, else with what is open.
    pub(crate) async fn end(&self, patience: Duration) {
        self.main.tell(&ToRelay::Finish, Vec::new());
        let mut gone = self.gone.subscribe();
        if tokio::time::timeout(patience, gone.wait_for(|gone| *gone)).await.is_ok() {
            return;
        }
        for lane in self.lanes.iter().chain([&self.dns, &self.main]) {
            lane.close();
        }
        if tokio::time::timeout(STUCK, gone.wait_for(|gone| *gone)).await.is_err() {
            tracing::error!("The relaying process does not end: it is killed.");
            let pid = self.confined.get().and_then(|confined| i32::try_from(confined.pid).ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let _ = tokio::time::timeout(STUCK, gone.wait_for(|gone| *gone)).await;
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls of a kind that are being answered; more are answered with an error.
const CALLS: usize = 16_384;
/// Questions that are open at once.
const ASKED: usize = 4096;
/// Dials of one session at once: its own, one anew, and a cancel request.
const DIALS_EACH: usize = 3;
/// Names that an address is told to have; the last are the best.
const NAMES: usize = 128;
/// A process whose lanes are closed ends at once.
const STUCK: Duration = Duration::from_secs(2);
