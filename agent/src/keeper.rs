//! The keeper's side of the relaying process: it starts it, tells it whom to serve, answers it, and starts another when it
//! ends. It refuses to believe it: what it asks for is held against what the kernel and the policy say.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore, watch};
use weir_core::audit::Decision;
use weir_core::identity::Identity;

use crate::app::Agent;
use crate::dns::sockets::{Bound, Ports};
use crate::lane::message::{Beginning, Confined, Sources, ToRelay};
use crate::lane::{self, Lane};
use crate::listen::Origin;
use crate::live::Seat;
use crate::upgrade;

mod answer;
mod counter;
mod hear;

/// The relaying process that serves now, and what the next one must be told.
#[derive(Debug)]
pub(crate) struct Relays {
    current: Mutex<Option<Arc<Half>>>,
    changed: Notify,
    next: AtomicU64,
    /// Held while it is sent, so that no older policy follows a newer one.
    sources: Mutex<Sources>,
    questions: Mutex<BTreeMap<u64, (Ports, Vec<OwnedFd>)>>,
}

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
    /// Places for dials, and for other calls, that are being answered.
    dials: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    /// Questions that are open on the desk.
    asked: AtomicUsize,
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

impl Drop for Serving {
    fn drop(&mut self) {
        lock(&self.relays.questions).remove(&self.number);
        if let Some(half) = self.relays.now() {
            half.tell(&half.dns, &ToRelay::Unserve { number: self.number }, Vec::new());
        }
    }
}

impl Relays {
    pub(crate) fn new(sources: Sources) -> Relays {
        Relays {
            current: Mutex::default(),
            changed: Notify::new(),
            next: AtomicU64::new(1),
            sources: Mutex::new(sources),
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
            half.tell(&half.main, order, Vec::new());
        }
    }

    /// Has questions that arrive at these sockets answered.
    ///
    /// # Errors
    /// No descriptors are to be had.
    pub(crate) fn serve(self: &Arc<Self>, bound: &Bound) -> std::io::Result<Serving> {
        let (ports, sockets) = (bound.ports()?, bound.descriptors()?);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut questions = lock(&self.questions);
        if let Some(half) = self.now() {
            half.send_questions(number, &ports, &sockets);
        }
        questions.insert(number, (ports, sockets));
        Ok(Serving { relays: Arc::clone(self), number })
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
        self: &Arc<Self>,
        agent: &Arc<Agent>,
        socket: OwnedFd,
        origin: &Origin,
        identity: Identity,
        leaving: Leaving,
    ) -> std::io::Result<()> {
        let session = agent.relays.next.fetch_add(1, Ordering::Relaxed);
        let lane = self.turn.fetch_add(1, Ordering::Relaxed) % self.lanes.len().max(1);
        let lane = self.lanes.get(lane).ok_or(std::io::ErrorKind::NotConnected)?;
        let identity = Arc::new(identity);
        let (ending, by) = (Arc::downgrade(self), lane.clone());
        let end = move |reason: String| {
            let order = ToRelay::Revoke { session, reason };
            ending.upgrade().is_some() && by.post(&order, Vec::new()).is_ok()
        };
        let seat = agent.live.enter(&identity, Box::new(end));
        let held = Session {
            origin: Arc::new(origin.clone()),
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
        let identity = Box::new(Arc::unwrap_or_clone(identity));
        let arrival = ToRelay::Arrival { session, origin: Box::new(origin.clone()), identity, names };
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
            Ok(file) => self.tell(&self.main, &ToRelay::Policy, vec![file]),
            Err(fault) => {
                tracing::error!(%fault, "A policy cannot be handed over; the relaying process ends.");
                self.main.close();
            }
        }
    }

    fn send_questions(&self, number: u64, ports: &Ports, sockets: &[OwnedFd]) {
        let order = ToRelay::Questions { number, v4: ports.v4, v6: ports.v6.to_vec() };
        match sockets.iter().map(OwnedFd::try_clone).collect() {
            Ok(sockets) => self.tell(&self.dns, &order, sockets),
            Err(fault) => tracing::error!(%fault, "DNS questions of a network namespace are not answered."),
        }
    }

    /// One that has ended needs no telling: the next one learns it from the start.
    fn tell(&self, lane: &Lane, order: &ToRelay, fds: Vec<OwnedFd>) {
        let _ = lane.post(order, fds);
    }

    /// Lets it end when nothing is under way, within `patience`, else with what is open.
    pub(crate) async fn end(&self, patience: Duration) {
        self.tell(&self.main, &ToRelay::Finish, Vec::new());
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

/// Starts a relaying process, and waits until it serves.
///
/// # Errors
/// It cannot be started, or says why it does not serve (on standard error).
pub(crate) async fn start(agent: &Arc<Agent>) -> anyhow::Result<Arc<Half>> {
    let relays = &agent.relays;
    let writer = relays.next.fetch_add(1, Ordering::Relaxed);
    let (main, theirs) = lane::pair()?;
    let (counter, counters) = lane::pair()?;
    let (dns, dnss) = lane::pair()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut fds = vec![
        lane::sealed(&Beginning {
            config: agent.config.text.clone(),
            sources: lock(&relays.sources).clone(),
        })?,
        agent.ledger.intake(writer).context("an intake for the relaying process")?.into(),
        counters,
        dnss,
    ];
    let mut lanes = Vec::new();
    for _ in 0..threads.min(MOST_THREADS) {
        let (here, there) = lane::pair()?;
        lanes.push(Lane::of(here)?);
        fds.push(there);
    }
    let half = Arc::new(Half {
        writer,
        main: Lane::of(main)?,
        dns: Lane::of(dns)?,
        lanes,
        turn: AtomicUsize::new(0),
        sessions: Mutex::new(Some(HashMap::new())),
        confined: OnceLock::new(),
        in_force: Mutex::default(),
        ready: Notify::new(),
        gone: watch::Sender::new(false),
        dials: Arc::new(Semaphore::new(CALLS)),
        calls: Arc::new(Semaphore::new(CALLS)),
        asked: AtomicUsize::new(0),
    });
    let child = spawn(theirs).context("cannot start the relaying process")?;
    counter::start(agent, &half, counter)?;
    for lane in half.lanes.iter().chain([&half.dns, &half.main]) {
        tokio::spawn(hear::tend(Arc::clone(agent), Arc::clone(&half), lane.clone()));
    }
    tokio::spawn(watch_over(Arc::clone(agent), Arc::clone(&half), child));
    half.main.post(&ToRelay::Begin { resolvers: agent.servers.now() }, fds)?;
    let mut gone = half.gone.subscribe();
    let ready = half.ready.notified();
    tokio::select! {
        () = ready => {}
        _ = gone.wait_for(|gone| *gone) => bail!("the relaying process ended before it served; its words are above"),
        () = tokio::time::sleep(BEGINNING) => {
            bail!("the relaying process does not serve within {} s", BEGINNING.as_secs())
        }
    }
    {
        // Nobody adds sockets or a policy between what is sent here and what is sent to the current one.
        let questions = lock(&relays.questions);
        *lock(&relays.current) = Some(Arc::clone(&half));
        for (number, (ports, sockets)) in &*questions {
            half.send_questions(*number, ports, sockets);
        }
    }
    half.send_policy(&lock(&relays.sources));
    // Whatever changed while it began.
    let fault = agent.ledger.faults().and_then(|faults| faults.borrow().clone());
    half.tell(&half.main, &ToRelay::Ledger(fault), Vec::new());
    half.tell(&half.main, &ToRelay::Resolvers(agent.servers.now()), Vec::new());
    relays.changed.notify_waiters();
    Ok(half)
}

/// Starts another when one ends; returns when they end too often.
pub(crate) async fn keep(agent: &Arc<Agent>, mut half: Arc<Half>) -> anyhow::Error {
    let mut ends: Vec<Instant> = Vec::new();
    loop {
        let mut gone = half.gone.subscribe();
        let _ = gone.wait_for(|gone| *gone).await;
        agent.record_as(
            "relay",
            "the relaying process has ended; its connections are reset",
            Decision::Failed,
        );
        ends.retain(|end| end.elapsed() < OFTEN_WITHIN);
        ends.push(Instant::now());
        if ends.len() > OFTEN {
            return anyhow::anyhow!("the relaying process ends again and again; its words are above");
        }
        half = match start(agent).await {
            Ok(half) => half,
            Err(fault) => return fault,
        };
    }
}

fn spawn(lane: OwnedFd) -> std::io::Result<Child> {
    // The program that runs, also when another one lies in its place by now.
    let mut command = Command::new("/proc/self/exe");
    command.args(upgrade::arguments()).arg("--relay").stdin(Stdio::from(lane)).env_clear();
    // Secrets may be among the keeper's variables.
    command.envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    command.spawn()
}

/// Waits for the process to end, and clears up behind it.
async fn watch_over(agent: Arc<Agent>, half: Arc<Half>, mut child: Child) {
    let ended = child.wait().await;
    tracing::info!(?ended, "The relaying process has ended.");
    // Dropped outside the lock: each counts itself out.
    let sessions = lock(&half.sessions).take();
    drop(sessions);
    {
        let mut current = lock(&agent.relays.current);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &half)) {
            *current = None;
        }
    }
    agent.ledger.close_intakes(half.writer);
    half.gone.send_replace(true);
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the relaying process may know of the keeper's environment: how to log, and where the system's roots lie.
const PASSED_ON: &[&str] = &["WEIR_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Calls of a kind that are being answered; more are answered with an error.
const CALLS: usize = 16_384;
/// Dials of one session at once: its own, one anew, and a cancel request.
const DIALS_EACH: usize = 3;
/// Names that an address is told to have; the last are the best.
const NAMES: usize = 128;
/// One message carries so many lanes.
const MOST_THREADS: usize = 48;
/// Reading the system's roots takes the longest.
const BEGINNING: Duration = Duration::from_secs(30);
/// A process whose lanes are closed ends at once.
const STUCK: Duration = Duration::from_secs(2);
/// So many ends within this time are a crash loop: the fence closes.
const OFTEN: usize = 5;
const OFTEN_WITHIN: Duration = Duration::from_secs(10);
