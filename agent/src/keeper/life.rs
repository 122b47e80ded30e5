//! The life of a relaying process: begun, watched over, replaced. It refuses to go on with one that ends again and again.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use weir_core::audit::Decision;

use super::{ASKED, CALLS, Half, STUCK, counter, hear, lock};
use crate::app::Agent;
use crate::lane::message::{Beginning, ToRelay};
use crate::lane::{self, Lane};
use crate::upgrade;

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
    let beginning = Beginning { config: agent.config.text.clone(), sources: lock(&relays.sources).clone() };
    let mut fds = vec![
        lane::sealed(&beginning)?,
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
        asked: Arc::new(Semaphore::new(ASKED)),
    });
    let child = spawn(theirs).context("cannot start the relaying process")?;
    counter::start(agent, &half, counter)?;
    let mut hearing = JoinSet::new();
    for lane in half.lanes.iter().chain([&half.dns, &half.main]) {
        hearing.spawn(hear::tend(Arc::clone(agent), Arc::clone(&half), lane.clone()));
    }
    tokio::spawn(watch_over(Arc::clone(agent), Arc::clone(&half), child, hearing));
    half.main.post(&ToRelay::Begin { resolvers: agent.servers.now() }, fds)?;
    let mut gone = half.gone.subscribe();
    let ready = half.ready.notified();
    tokio::select! {
        () = ready => {}
        _ = gone.wait_for(|gone| *gone) => bail!("the relaying process ended before it served; its words are above"),
        () = tokio::time::sleep(BEGINNING) => {
            half.main.close();
            bail!("the relaying process does not serve within {} s", BEGINNING.as_secs())
        }
    }
    {
        // Nobody adds sockets between what is sent here and what is sent to the current one.
        let questions = lock(&relays.questions);
        *lock(&relays.current) = Some(Arc::clone(&half));
        for (number, (ports, sockets)) in &*questions {
            half.send_questions(*number, *ports, sockets);
        }
    }
    // Whatever changed while it began. A policy that changes from here on finds this process as the current one.
    let sources = lock(&relays.sources);
    if *sources != beginning.sources {
        half.send_policy(&sources);
    }
    drop(sources);
    let fault = agent.ledger.faults().and_then(|faults| faults.borrow().clone());
    half.main.tell(&ToRelay::Ledger(fault), Vec::new());
    half.main.tell(&ToRelay::Resolvers(agent.servers.now()), Vec::new());
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
    // A terminal's Ctrl-C is for the keeper, which ends it in order.
    command.process_group(0);
    // Secrets may be among the keeper's variables.
    command.envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    command.spawn()
}

/// Waits for the process to end, and clears up behind it.
async fn watch_over(agent: Arc<Agent>, half: Arc<Half>, mut child: Child, mut hearing: JoinSet<()>) {
    let ended = child.wait().await;
    // What it said last lies in the lanes.
    let heard = async { while hearing.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STUCK, heard).await;
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

/// What the relaying process may know of the keeper's environment: how to log, and where the system's roots lie.
const PASSED_ON: &[&str] = &["WEIR_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// One message carries so many lanes.
const MOST_THREADS: usize = 48;
/// Reading the system's roots takes the longest.
const BEGINNING: Duration = Duration::from_secs(30);
/// So many ends within this time are a crash loop: the fence closes.
const OFTEN: usize = 5;
const OFTEN_WITHIN: Duration = Duration::from_secs(10);
