//! The wiring of the agent: the only place that knows every part. The fence comes first and stays closed until everything
//! behind it works. It refuses to start without a policy, a ledger and a CA.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::Notify;
use weir_core::audit::{Decision, Durability, Kind, Record};
use weir_core::identity::Identity;
use weir_core::policy::Policy;

use crate::bundle::{self, Live, Reload};
use crate::config::Config;
use crate::control::status::ClickHouseStatus;
use crate::coverage::Taken;
use crate::credential::{Secrets, mask_key};
use crate::desk::Desk;
use crate::dns::servers::Servers;
use crate::keeper::Relays;
use crate::kernel::Fence;
use crate::kernel::inherit::Inheritance;
use crate::lane::message::ToRelay;
use crate::ledger::{Appending, Ledger};
use crate::listen::Origin;
use crate::live::{Registry, Whose};
use crate::names::{self, Names};
use crate::neighbours::Neighbours;
use crate::netns::Namespaces;
use crate::ship::Shipper;
use crate::tls::Authority;
use crate::workload::{Watch, Workloads};
use crate::{clock, upgrade};

pub(crate) mod arrivals;
mod serving;

/// Everything a running agent shares between its threads.
pub struct Agent {
    pub config: Config,
    pub fence: Arc<Fence>,
    pub workloads: Arc<Workloads>,
    pub policy: Arc<ArcSwap<Policy>>,
    pub ledger: Ledger,
    pub secrets: Secrets,
    pub authority: Authority,
    pub desk: Desk,
    pub names: Names,
    pub servers: Servers,
    /// The process that reads what workloads and servers say.
    pub(crate) relays: Arc<Relays>,
    pub started: Instant,
    /// Connections being served now.
    pub connections: AtomicU64,
    /// The same, by whom they are.
    pub live: Arc<Registry>,
    pub taken: Taken,
    /// Programs of others on the fence's hooks.
    pub neighbours: Neighbours,
    /// Rung when a connection has ended.
    pub left: Notify,
    /// Ends the agent; the fence stays as it is.
    pub stop: Notify,
    /// Lets the agent become the program on the disk.
    pub upgrade: Notify,
    /// Where the agent was started from.
    pub program: PathBuf,
    /// The network namespaces it serves beside its own.
    pub namespaces: Namespaces,
    /// `weir detach` has opened the fence.
    lifted: AtomicBool,
    shipper: Option<Shipper>,
    policy_problems: Arc<Mutex<Vec<String>>>,
    policy_changed: Arc<Notify>,
}

/// Runs the agent until SIGTERM, SIGINT or `weir detach`.
///
/// # Errors
/// Whatever keeps a part from starting, with what to do about it. The fence is closed by then and stays so.
pub fn run(config: Config, mut inheritance: Inheritance) -> anyhow::Result<()> {
    // First: the agent's own sockets are exempt only once it is in its own cgroup.
    let fence = Arc::new(Fence::raise_with(&config.fence, inheritance.lock.take())?);
    let workloads = Arc::new(Workloads::new(&config)?);
    Watch::start(Arc::clone(&workloads), Arc::clone(&fence))?;
    fence.supersede(&config.fence);
    let (agent, _live) = assemble(config, fence, workloads)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = match runtime.block_on(serving::serve(Arc::clone(&agent), inheritance)) {
        Ok(Some(next)) => Err(upgrade::become_new(&agent, next)),
        Ok(None) => Ok(()),
        Err(fault) => Err(fault),
    };
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
    let policy_changed = Arc::new(Notify::new());
    let relays = Arc::new(Relays::new());
    let live = {
        let (problems, notify) = (Arc::clone(&policy_problems), Arc::clone(&policy_changed));
        let relays = Arc::clone(&relays);
        let surroundings = bundle::surroundings(&config, fence.missing_layers());
        Live::start(&config.policies, surroundings, move |reload| {
            let mut problems = problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *problems = note(&reload);
            if let Reload::Swapped { sources, .. } = reload {
                relays.judge_by(sources);
            }
            notify.notify_one();
        })?
    };
    relays.judge_by(live.first().clone());
    let ledger = Ledger::open(&config.audit, &config.node)?;
    let authority = Authority::open_or_create(&config.tls.dir, &config.node)?;
    // The relaying process uses it; here it is made.
    mask_key(&config.tls.dir).context("the key of hash and token masks")?;
    let secrets = Secrets::load(&config.secrets).map_err(anyhow::Error::msg)?;
    let shipper = match &config.audit.clickhouse {
        Some(clickhouse) => Some(Shipper::start(&config.audit.dir, clickhouse)?),
        None => None,
    };
    let namespaces = Namespaces::new().context("the agent's network namespace")?;
    let agent = Agent {
        fence,
        workloads,
        policy: live.shared(),
        ledger,
        secrets,
        authority,
        desk: Desk::default(),
        names: Names::default(),
        servers: Servers::new(&config.dns, namespaces.own()),
        relays,
        started: Instant::now(),
        connections: AtomicU64::new(0),
        live: Arc::default(),
        taken: Taken::default(),
        neighbours: Neighbours::default(),
        left: Notify::new(),
        stop: Notify::new(),
        upgrade: Notify::new(),
        program: upgrade::program().context("the agent's own program")?,
        namespaces,
        lifted: AtomicBool::new(false),
        shipper,
        policy_problems,
        policy_changed,
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

impl Agent {
    /// Appends a row that nothing waits for. A ledger that cannot be written already refuses every act.
    pub(crate) fn append(&self, record: &Record) {
        if let Appending::Refused(why) = self.ledger.append(record) {
            tracing::error!(why, "A row of the audit trail could not be written.");
        }
    }

    /// A row about weir itself.
    pub(crate) fn record(&self, what: &str, reason: &str) {
        self.record_as(what, reason, Decision::Allowed);
    }

    pub(crate) fn record_as(&self, what: &str, reason: &str, decision: Decision) {
        let policy = self.policy.load();
        self.append(&Record {
            ts: clock::wall_ns(),
            kind: Kind::Admin,
            method: what.into(),
            reason: reason.into(),
            policy_commit: policy.commit().into(),
            policy_sha: policy.sha().into(),
            decision,
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

    /// Makes sure that the program on the disk could serve, and writes down who wanted it.
    pub(crate) async fn prepare_upgrade(&self, who: &str) -> anyhow::Result<()> {
        upgrade::try_out(&self.program).await?;
        self.record("upgrade", &format!("asked for by {who}"));
        Ok(())
    }

    /// Ends open connections; the row says who wanted it, each connection's own row that it was ended.
    pub(crate) fn revoke(&self, who: &str, whose: &Whose, reason: &str) -> u64 {
        let ended = self.live.revoke(whose, reason) as u64;
        let whose = match whose {
            Whose::Workload(name) => format!("workload {name}"),
            Whose::User(name) => format!("user {name}"),
            Whose::Process(pid) => format!("process {pid} and its descendants"),
        };
        self.record("revoke", &format!("{ended} connections of {whose}, asked for by {who}: {reason}"));
        ended
    }

    /// The identity behind a connection or a question.
    ///
    /// # Errors
    /// In words for the audit.
    pub(crate) async fn identify(self: &Arc<Self>, origin: Arc<Origin>) -> Result<Identity, String> {
        // A new executable is hashed, which may take a while; others are served meanwhile.
        let asking = Arc::clone(self);
        let identified =
            tokio::task::spawn_blocking(move || asking.workloads.identify(&asking.fence, &origin));
        match identified.await {
            Ok(identified) => identified.map_err(|why| why.to_string()),
            Err(fault) => Err(format!("the process behind it could not be told: {fault}")),
        }
    }

    /// Serves the network namespace of a process before it needs it.
    pub(crate) async fn meet(self: &Arc<Self>, pid: u32) {
        self.namespaces.meet(self, pid).await;
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

    /// Tells the relaying process when records cannot be moved on, and when they can again; ends one that forges them.
    async fn keep_ledger(&self) {
        let (Some(mut faults), Some(mut forgers)) = (self.ledger.faults(), self.ledger.forgers()) else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                Ok(()) = faults.changed() => {
                    let fault = faults.borrow_and_update().clone();
                    self.relays.tell(&ToRelay::Ledger(fault));
                }
                Ok(()) = forgers.changed() => self.relays.give_up(*forgers.borrow_and_update()),
                else => return std::future::pending().await,
            }
        }
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
                // A sound one is recorded when the relaying process judges by it.
                if !self.policy_problems().is_empty() {
                    let words = "the changed policy folder has faults; the policy before it stays in force";
                    self.record("policy", words);
                }
            }
            if let Some(resolvers) = self.servers.refresh() {
                self.relays.tell(&ToRelay::Resolvers(resolvers));
            }
            self.look_names_up().await;
        }
    }

    pub(crate) fn enter(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn exit(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.left.notify_waiters();
    }
}
