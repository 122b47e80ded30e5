//! The wiring of the agent: the only place that knows every part. The fence comes first and stays closed until everything
//! behind it works. It refuses to start without a policy, a ledger and a CA.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use weir_core::audit::{Decision, Durability, Kind, Record};
use weir_core::mask;
use weir_core::policy::Policy;

use crate::bundle::{self, Live, Reload};
use crate::catalogs::Catalogs;
use crate::config::Config;
use crate::control::status::ClickHouseStatus;
use crate::credential::{Secrets, mask_key};
use crate::desk::Desk;
use crate::dns::Dns;
use crate::kernel::Fence;
use crate::ledger::{Appending, Ledger};
use crate::listen::Listeners;
use crate::names::{self, Names};
use crate::ship::Shipper;
use crate::tls::{Authority, Leaves, Terminator};
use crate::upstream::{Connector, Trust};
use crate::workload::{Watch, Workloads};
use crate::{clock, control, dns};

mod worker;

/// Everything a running agent shares between its threads.
pub struct Agent {
    pub config: Config,
    pub fence: Arc<Fence>,
    pub workloads: Arc<Workloads>,
    pub policy: Arc<ArcSwap<Policy>>,
    pub ledger: Ledger,
    pub secrets: Secrets,
    pub terminator: Terminator,
    pub connector: Connector,
    pub desk: Desk,
    pub names: Names,
    pub dns: Dns,
    pub mask_key: mask::Key,
    pub catalogs: Catalogs,
    pub started: Instant,
    /// Connections being served now.
    pub connections: AtomicU64,
    /// Ends the agent; the fence stays as it is.
    pub stop: Notify,
    /// `weir detach` has opened the fence.
    lifted: AtomicBool,
    shipper: Option<Shipper>,
    policy_problems: Arc<Mutex<Vec<String>>>,
    policy_changed: Arc<Notify>,
    /// Wakes every connection that passes unread when another policy is in force.
    policy_swapped: Arc<Notify>,
}

/// Runs the agent until SIGTERM, SIGINT or `weir detach`.
///
/// # Errors
/// Whatever keeps a part from starting, with what to do about it. The fence is closed by then and stays so.
pub fn run(config: Config) -> anyhow::Result<()> {
    // First: the agent's own sockets are exempt only once it is in its own cgroup.
    let fence = Arc::new(Fence::raise(&config.fence)?);
    let workloads = Arc::new(Workloads::new(&config)?);
    Watch::start(Arc::clone(&workloads), Arc::clone(&fence))?;
    let (agent, _live) = assemble(config, fence, workloads)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(Arc::clone(&agent)));
    if agent.lifted.load(Ordering::Relaxed) {
        agent.record("stop", "the agent stops; the fence is lifted");
        return served;
    }
    let left = agent.fence.leave();
    agent.record("stop", "the agent stops; the fence stays closed");
    served?;
    Ok(left?)
}

fn assemble(
    config: Config,
    fence: Arc<Fence>,
    workloads: Arc<Workloads>,
) -> anyhow::Result<(Arc<Agent>, Live)> {
    let policy_problems = Arc::new(Mutex::new(Vec::new()));
    let (policy_changed, policy_swapped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let live = {
        let (problems, notify) = (Arc::clone(&policy_problems), Arc::clone(&policy_changed));
        let swapped = Arc::clone(&policy_swapped);
        Live::start(&config.policies, bundle::surroundings(&config), move |reload| {
            let mut problems = problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *problems = note(&reload);
            swapped.notify_waiters();
            notify.notify_one();
        })?
    };
    let ledger = Ledger::open(&config.audit, &config.node)?;
    let authority = Arc::new(Authority::open_or_create(&config.tls.dir, &config.node)?);
    let connector = Connector::new(Trust::system(Some(authority.certificate())));
    let secrets = Secrets::load(&config.secrets).map_err(anyhow::Error::msg)?;
    let shipper = match &config.audit.clickhouse {
        Some(clickhouse) => Some(Shipper::start(&config.audit.dir, clickhouse)?),
        None => None,
    };
    let agent = Agent {
        fence,
        workloads,
        policy: live.shared(),
        ledger,
        secrets,
        terminator: Terminator::new(Leaves::new(authority)?),
        connector,
        desk: Desk::default(),
        names: Names::default(),
        dns: Dns::new(&config.dns),
        catalogs: Catalogs::default(),
        mask_key: mask_key(&config.tls.dir).context("the key of hash and token masks")?,
        started: Instant::now(),
        connections: AtomicU64::new(0),
        stop: Notify::new(),
        lifted: AtomicBool::new(false),
        shipper,
        policy_problems,
        policy_changed,
        policy_swapped,
        config,
    };
    Ok((Arc::new(agent), live))
}

/// What a reload means for `weir status`.
fn note(reload: &Reload) -> Vec<String> {
    match reload {
        Reload::Swapped { new, .. } => {
            tracing::info!(commit = new.commit(), sha256 = new.sha(), "A new policy is in force.");
            Vec::new()
        }
        Reload::Refused(why) => {
            tracing::error!(%why, "The changed policy is not in force; the old one stays.");
            why.to_string().lines().map(str::to_owned).collect()
        }
    }
}

async fn serve(agent: Arc<Agent>) -> anyhow::Result<()> {
    let listeners = Listeners::open(agent.config.fence.port)
        .with_context(|| format!("cannot listen on port {}", agent.config.fence.port))?;
    let control = control::bind(&agent.config.control).await?;
    agent.look_names_up().await;
    let workers = worker::start(&agent)?;
    let (questions, questions_failed) = dns::start(&agent)?;
    agent.fence.beat()?;
    listeners.publish(&agent.fence, questions)?;
    agent.record("start", "the agent serves");
    tracing::info!(port = listeners.port(), "The fence is up.");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = agent.fence.keep_alive() => {}
        () = control::serve(control, Arc::clone(&agent)) => {}
        () = agent.keep_names() => {}
        failed = workers.accept(&listeners) => return Err(failed.into()),
        failed = questions_failed => return Err(failed?).context("DNS questions cannot be received"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = agent.stop.notified() => {}
    }
    // Nobody finds a socket that no agent answers.
    let _ = std::fs::remove_file(&agent.config.control);
    Ok(())
}

impl Agent {
    /// Appends a row that nothing waits for. A ledger that cannot be written already refuses every act.
    pub(crate) fn append(&self, record: &Record) {
        if let Appending::Refused(why) = self.ledger.append(record) {
            tracing::error!(why, "A row of the audit trail could not be written.");
        }
    }

    /// A row about weir itself.
    fn record(&self, what: &str, reason: &str) {
        let policy = self.policy.load();
        self.append(&Record {
            ts: clock::wall_ns(),
            kind: Kind::Admin,
            method: what.into(),
            reason: reason.into(),
            policy_commit: policy.commit().into(),
            policy_sha: policy.sha().into(),
            decision: Decision::Allowed,
            durability: Durability::Fast,
            ..Record::default()
        });
    }

    /// Lifts the fence, recorded on the disk first.
    ///
    /// # Errors
    /// The record cannot be written, or a pin cannot be removed; then the fence is still up.
    pub(crate) async fn detach(&self, who: &str, reason: &str) -> anyhow::Result<()> {
        let record = Record {
            ts: clock::wall_ns(),
            kind: Kind::Admin,
            method: "detach".into(),
            user: who.into(),
            reason: reason.into(),
            durability: Durability::Strict,
            ..Record::default()
        };
        match self.ledger.append(&record) {
            Appending::Done(_) => {}
            Appending::Waiting(pending) => {
                pending.await.map_err(anyhow::Error::msg)?;
            }
            Appending::Refused(why) => {
                anyhow::bail!("the audit row cannot be written, so the fence stays: {why}")
            }
        }
        self.fence.lift()?;
        self.lifted.store(true, Ordering::Relaxed);
        tracing::warn!(who, reason, "The fence is lifted: labelled workloads go direct.");
        Ok(())
    }

    pub(crate) fn policy_problems(&self) -> Vec<String> {
        self.policy_problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(crate) fn clickhouse(&self) -> Option<ClickHouseStatus> {
        let status = self.shipper.as_ref()?.status();
        let config = self.config.audit.clickhouse.as_ref()?;
        Some(ClickHouseStatus {
            url: config.url.clone(),
            lag_rows: status.lag_rows,
            last_error: status.last_error,
        })
    }

    async fn look_names_up(&self) {
        let names: Vec<String> = self.policy.load().names().into_iter().map(str::to_owned).collect();
        self.names.refresh(names).await;
    }

    /// Looks the policies' names up again and again, and at once when the policy has changed.
    async fn keep_names(&self) {
        loop {
            let changed = tokio::time::timeout(names::REFRESH, self.policy_changed.notified()).await.is_ok();
            if changed {
                self.record(
                    "policy",
                    match self.policy_problems().is_empty() {
                        true => "a changed policy is in force",
                        false => "the changed policy folder has faults; the policy before it stays in force",
                    },
                );
            }
            self.dns.refresh();
            self.look_names_up().await;
        }
    }

    /// Resolves when the policy changes after this call.
    pub(crate) fn next_policy(&self) -> OwnedNotified {
        Arc::clone(&self.policy_swapped).notified_owned()
    }

    pub(crate) fn enter(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn exit(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
