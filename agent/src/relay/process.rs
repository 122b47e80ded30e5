//! The relaying process: everything that reads what workloads, servers and DNS say, without any power over the host. It is
//! told by the keeper whom it serves, and asks it for what needs power. It refuses to serve before it has given up its own.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use weir_core::audit::Record;
use weir_core::mask;
use weir_core::policy::{Policy, SecretName, Surroundings};
use zeroize::Zeroizing;

use super::link::Link;
use super::thread;
use crate::bundle;
use crate::catalogs::Catalogs;
use crate::config::Config;
use crate::credential::mask_key;
use crate::dns::Dns;
use crate::lane::counter::Counter;
use crate::lane::message::{Beginning, Confined, Sources, ToKeeper, ToRelay};
use crate::lane::{self, Lane};
use crate::ledger::{Appending, Intake, Want};
use crate::privilege::confine;
use crate::tls::{CaFacts, Leaves, Terminator};
use crate::upstream::{Connector, Trust};
use crate::workload::Workloads;

/// What the relaying process's threads share.
pub(crate) struct Relay {
    pub(crate) policy: ArcSwap<Policy>,
    /// Wakes every connection that passes unread when another policy is in force.
    policy_swapped: Arc<Notify>,
    pub(crate) ledger: Intake,
    pub(crate) workloads: Workloads,
    pub(crate) terminator: Terminator,
    pub(crate) connector: Connector,
    pub(crate) counter: Arc<Counter>,
    secrets: Mutex<HashMap<SecretName, Secret>>,
    pub(crate) dns: Dns,
    pub(crate) mask_key: mask::Key,
    pub(crate) catalogs: Catalogs,
    /// Rung when a connection or a question has ended.
    pub(crate) left: Notify,
    /// Rung when a thread has ended that should not have.
    pub(super) failed: Notify,
    /// Connections being served now.
    pub(crate) connections: std::sync::atomic::AtomicU64,
    surroundings: Surroundings,
}

/// A secret, and since when it is here.
type Secret = (Instant, Zeroizing<Vec<u8>>);

/// One thread's share: all of the process, and its own way to the keeper.
pub(crate) struct Thread {
    pub(crate) relay: Arc<Relay>,
    pub(crate) link: Arc<Link>,
}

/// Runs the relaying process on the lane that is its standard input, until the keeper ends it.
///
/// # Errors
/// Whatever keeps it from serving; the keeper starts another one, or gives up.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let main = std::io::stdin().as_fd().try_clone_to_owned().context("the lane to the keeper")?;
    // Everything that needs root's eyes is read before the powers are given up; no thread runs yet.
    let begin = lane::receive_now::<ToRelay>(&main).context("the keeper's first message")?;
    let Some((ToRelay::Begin { resolvers }, fds)) = begin else { bail!("the keeper did not begin") };
    let mut fds = fds.into_iter();
    let mut next = || fds.next().context("the keeper's first message lacks descriptors");
    let (beginning, intake, counter, dns) = (next()?, next()?, next()?, next()?);
    let lanes: Vec<OwnedFd> = fds.collect();
    let Beginning { config, sources } = lane::unsealed(beginning)?;
    let config = Config::parse(path, config)?;
    let surroundings = bundle::surroundings(&config, &[]);
    let policy = compile(&sources, &surroundings)?;
    let ours = CaFacts::read(&config.tls.dir)?.der.into();
    let counter = Arc::new(Counter::new(counter));
    let trust = Trust::system(Some(&ours)).reading_by(Arc::clone(&counter));
    let mask_key = mask_key(&config.tls.dir).context("the key of hash and token masks")?;
    let workloads = Workloads::new(&config)?;
    let leaves = Leaves::signed_by_keeper(Arc::clone(&counter))?;
    // The runtime makes a pair of sockets for signals, once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let confined = confine::for_good().context("giving up root's powers")?;

    let main = {
        let _inside = runtime.enter();
        Arc::new(Link::new(Lane::of(main)?))
    };
    let wants = Arc::clone(&main);
    let intake = Intake::new(intake.into(), move |want| {
        wants.tell(match want {
            Want::Look => &ToKeeper::Look,
            Want::Spare => &ToKeeper::Spare,
        });
    })?;
    let relay = Arc::new(Relay {
        policy: ArcSwap::from_pointee(policy),
        policy_swapped: Arc::default(),
        ledger: intake,
        workloads,
        terminator: Terminator::new(leaves),
        connector: Connector::new(trust),
        counter,
        secrets: Mutex::default(),
        dns: Dns::new(resolvers),
        mask_key,
        catalogs: Catalogs::default(),
        left: Notify::new(),
        failed: Notify::new(),
        connections: 0.into(),
        surroundings,
    });
    thread::start(&relay, dns, lanes)?;
    let ended = runtime.block_on(relay.serve(&main, confined));
    // What lags is written; connections that are still open end with the process.
    relay.ledger.flush();
    ended
}

impl Relay {
    /// Follows the keeper's orders; returns when it is time to end.
    ///
    /// # Errors
    /// It cannot go on; the keeper starts another.
    async fn serve(self: &Arc<Self>, main: &Arc<Link>, confined: Confined) -> anyhow::Result<()> {
        main.tell(&ToKeeper::Ready(confined));
        self.say_in_force(main);
        let mut finishing = false;
        loop {
            let received = tokio::select! {
                received = main.receive() => received,
                () = self.idle(), if finishing => return Ok(()),
                () = self.failed.notified() => bail!("a thread of the relaying process has ended"),
                fault = main.flush() => Err(fault),
            };
            let Some((order, mut fds)) = received.context("the relaying process lost its keeper")? else {
                return Ok(());
            };
            match (order, fds.pop()) {
                (ToRelay::Policy, Some(file)) => {
                    // One that the keeper could compile and this process cannot ends it: the old one must not go on.
                    let policy = compile(&lane::unsealed(file)?, &self.surroundings)?;
                    self.policy.store(Arc::new(policy));
                    self.policy_swapped.notify_waiters();
                    self.say_in_force(main);
                }
                (ToRelay::Resolvers(resolvers), _) => self.dns.ask(resolvers),
                (ToRelay::Ledger(fault), _) => self.ledger.fault(fault),
                (ToRelay::Intake, Some(file)) => self.ledger.spare(file.into()),
                (ToRelay::Finish, _) => finishing = true,
                (ToRelay::Reply { id, reply }, fd) => main.answered(id, reply, fd.into_iter().collect()),
                (order, _) => tracing::error!(?order, "An order that the main lane does not know."),
            }
        }
    }

    fn say_in_force(&self, main: &Link) {
        let policy = self.policy.load();
        main.tell(&ToKeeper::InForce { commit: policy.commit().into(), sha: policy.sha().into() });
    }

    /// Nothing is under way.
    async fn idle(&self) {
        loop {
            let left = self.left.notified();
            if self.connections.load(Ordering::SeqCst) == 0 && !self.dns.is_busy() {
                return;
            }
            left.await;
        }
    }

    /// Resolves when the policy changes after this call.
    pub(crate) fn next_policy(&self) -> OwnedNotified {
        Arc::clone(&self.policy_swapped).notified_owned()
    }

    /// Appends a row that nothing waits for. A ledger that cannot be written already refuses every act.
    pub(crate) fn append(&self, record: &Record) {
        if let Appending::Refused(why) = self.ledger.append(record) {
            tracing::error!(why, "A row of the audit trail could not be written.");
        }
    }

    /// A secret, asked for only after the verdict that needs it. It stays for a second, since every request of a
    /// connection may need it.
    ///
    /// # Errors
    /// In the keeper's words, without a value.
    pub(crate) fn secret(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut kept = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (since, _)| since.elapsed() < SECRET_KEPT);
        if let Some((_, value)) = kept.get(name) {
            return Ok(value.clone());
        }
        let value = self.counter.secret(name)?;
        kept.insert(name.clone(), (Instant::now(), value.clone()));
        Ok(value)
    }
}

fn compile(sources: &Sources, surroundings: &Surroundings) -> anyhow::Result<Policy> {
    bundle::compile(sources, surroundings, Vec::new()).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

/// A secret that was rotated is in use within this time.
const SECRET_KEPT: Duration = Duration::from_secs(1);
