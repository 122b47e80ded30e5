//! The fence in the kernel: load, attach, pin, take over, steer, lift. Pinned links outlive the agent, so a dead agent
//! means refused connections and never open ones. It refuses to run half a fence: all programs attach, or none.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use weir_ebpf::{Dialled, Failure, Listener, Origin, Tuple, slot};

pub mod birth;
pub mod bpffs;
mod btf;
pub mod capability;
pub mod cgroup;
pub mod datagram;
pub mod diag;
mod error;
pub mod feature;
pub mod inherit;
mod load;
mod logs;
pub mod resolv;
mod strangers;
mod sys;
mod table;
mod unix;

pub use birth::Births;
pub use cgroup::Tree;
pub use error::FenceError;
pub use feature::Feature;
pub use strangers::Strangers;
pub use sys::{netns_cookie, netns_of};
pub use table::{Pins, Table};

use crate::config;

/// The heartbeat's period; the hooks call an agent dead after five missed beats.
pub const HEARTBEAT: Duration = Duration::from_millis(300);
/// How long an agent may take to come back from an upgrade.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a failed dial is repeated by the hook itself.
pub const FAILURE_KEPT: Duration = Duration::from_millis(1500);

/// Names of unix sockets, by their first bytes, that labelled tasks may not connect to: PostgreSQL's.
const REFUSED_SOCKETS: [&weir_ebpf::SocketName; 1] = [b".s.PGSQL"];

/// A fence that is up. Dropping it leaves it closed: the pins stay, the heartbeat ends.
pub struct Fence {
    tree: Tree,
    own: cgroup::Own,
    pins: Pins,
    /// Held for as long as the agent lives, so that no second agent takes the same pins.
    lock: OwnedFd,
    /// Keeps the unpinned maps (logs) alive.
    object: std::sync::Mutex<aya::Ebpf>,
    missing: Vec<&'static str>,
    births: Option<Births>,
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fence").field("tree", &self.tree).field("pins", &self.pins).finish_non_exhaustive()
    }
}

impl Fence {
    /// Enters the agent's own cgroup, loads the programs and attaches them, taking over what an earlier agent pinned.
    /// Call it before the process opens any socket. Labelled connections are refused until the first [`Fence::beat`].
    ///
    /// # Errors
    /// See [`FenceError`]; on an error nothing new stays attached.
    pub fn raise(settings: &config::Fence) -> Result<Self, FenceError> {
        Self::raise_with(settings, None)
    }

    /// The same for an agent that was an agent before it executed itself anew, by the lock it held: its fence goes on
    /// serving while it starts.
    ///
    /// # Errors
    /// As [`Fence::raise`].
    pub fn raise_with(settings: &config::Fence, lock: Option<OwnedFd>) -> Result<Self, FenceError> {
        let tree = Tree::open(&settings.attach)?;
        let missing = capability::missing();
        if !missing.is_empty() {
            return Err(FenceError::Privileges(format!("not held: {}", missing.join(", "))));
        }
        let mut layers = feature::layers_missing()?;
        let folder = bpffs::prepare(&settings.bpffs)?;
        let upgrade = lock.is_some();
        let lock = match lock {
            Some(lock) => lock,
            None => bpffs::lock(&folder)?,
        };
        let own = cgroup::Own::enter(&tree)?;
        let mut object = load::load(&folder)?;
        let pins = Pins::open(&folder)?;
        if !upgrade {
            pins.set_state(slot::HEARTBEAT, 0)?;
        }
        pins.set_state(slot::AGENT_CGROUP, own.id())?;
        for name in REFUSED_SOCKETS {
            pins.socket_names.insert(name, &1)?;
        }
        let attached = load::attach(&mut object, &folder, &tree)?;
        layers.extend(attached.iter().filter(|layer| !layers.contains(layer)).copied().collect::<Vec<_>>());
        let births =
            if layers.contains(&Feature::Birth.layer()) { None } else { Some(Births::open(&folder)?) };
        bpffs::remove_old_layouts(&settings.bpffs);
        Ok(Self { tree, own, pins, lock, object: object.into(), missing: layers, births })
    }

    /// Says that the agent lives.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn beat(&self) -> Result<(), FenceError> {
        self.pins.set_state(slot::HEARTBEAT, monotonic_ns())
    }

    /// Beats for ever. It runs on the runtime that serves the connections, so that a hung runtime counts as dead.
    pub async fn keep_alive(&self) {
        let mut period = tokio::time::interval(HEARTBEAT);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            period.tick().await;
            if let Err(fault) = self.beat() {
                tracing::error!(%fault, "the heartbeat cannot be written: labelled connections are refused");
            }
        }
    }

    /// Says that the agent is about to execute itself anew: the hooks take it for alive for [`GRACE`], while connections
    /// queue at its listeners. If it does not come back, the heartbeat goes stale and the fence is closed.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn bridge(&self) -> Result<(), FenceError> {
        self.pins.set_state(slot::HEARTBEAT, monotonic_ns().saturating_add(GRACE.as_nanos() as u64))
    }

    /// The lock on the pins, to be inherited by the next program of this process.
    ///
    /// # Errors
    /// No descriptor is to be had.
    pub fn lock(&self) -> std::io::Result<OwnedFd> {
        self.lock.try_clone()
    }

    /// Says that the agent leaves: labelled connections are refused at once, not after the heartbeat has gone stale.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn leave(&self) -> Result<(), FenceError> {
        self.pins.set_state(slot::HEARTBEAT, 0)
    }

    /// Turns the labelled connections of one network namespace to this listener.
    ///
    /// # Errors
    /// The map is full or cannot be written.
    pub fn serve(&self, netns: u64, listener: Listener) -> Result<(), FenceError> {
        self.pins.listeners.insert(&netns, &listener)
    }

    /// Who serves this network namespace.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn listener(&self, netns: u64) -> Result<Option<Listener>, FenceError> {
        self.pins.listeners.lookup(&netns)
    }

    /// Nobody serves this network namespace any more: its labelled connections are refused.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn unserve(&self, netns: u64) -> Result<(), FenceError> {
        self.pins.listeners.remove(&netns)
    }

    /// Forgets the listeners of an agent that is dead, but for those in these network namespaces.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn forget_listeners_but(&self, served: &[u64]) -> Result<(), FenceError> {
        for (netns, _) in self.pins.listeners.entries()? {
            if !served.contains(&netns) {
                self.unserve(netns)?;
            }
        }
        Ok(())
    }

    /// News of labelled processes in network namespaces without a listener. Call it within a tokio runtime, once.
    ///
    /// # Errors
    /// It was called before.
    pub fn strangers(&self) -> Result<Strangers, FenceError> {
        let mut object = self.object.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Strangers::of(&mut object)
    }

    /// Labels the connections of a cgroup and its children.
    ///
    /// # Errors
    /// The map is full or cannot be written.
    pub fn label(&self, cgroup: u64, label: u64) -> Result<(), FenceError> {
        self.pins.labels.insert(&cgroup, &label)
    }

    /// Replaces the labels whose workloads may not be called.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn uncalled(&self, labels: &[u64]) -> Result<(), FenceError> {
        labels.iter().try_for_each(|label| self.pins.uncalled.insert(label, &1))?;
        for (label, _) in self.pins.uncalled.entries()? {
            if !labels.contains(&label) {
                self.pins.uncalled.remove(&label)?;
            }
        }
        Ok(())
    }

    /// Takes a label away. The sockets that were born with it keep it.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn unlabel(&self, cgroup: u64) -> Result<(), FenceError> {
        self.pins.labels.remove(&cgroup)
    }

    /// Labels in force: cgroup id → label. Their cgroups can be seen, unless they are gone.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn labels(&self) -> Result<HashMap<u64, u64>, FenceError> {
        let labels = self.pins.labels.entries()?.into_iter().collect();
        self.tree.settle()?;
        Ok(labels)
    }

    /// Who sent the datagram of this tuple, and which DNS server it was for; `None` when the fence did not turn it.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn asker(&self, tuple: &Tuple) -> Result<Option<Origin>, FenceError> {
        self.pins.questions.lookup(tuple)
    }

    /// The dial of `origin` failed with `errno`: for [`FAILURE_KEPT`] the hook answers so itself.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn dial_failed(&self, origin: &crate::listen::Origin, errno: i32) -> Result<(), FenceError> {
        let dialled = Dialled {
            label: origin.label,
            netns: origin.netns,
            address: address_as_dialled(origin),
            port: u32::from(origin.destination.port()),
            reserved: 0,
        };
        let until = monotonic_ns().saturating_add(FAILURE_KEPT.as_nanos() as u64);
        let failure = Failure { until, errno: errno.unsigned_abs(), reserved: 0 };
        self.pins.failures.insert(&dialled, &failure)
    }

    /// Everything the programs counted since the fence was first raised.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, FenceError> {
        self.pins.counters()
    }

    /// How many handshakes of turned connections are under way.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn handshakes(&self) -> Result<u64, FenceError> {
        Ok(self.pins.handshakes.entries()?.len() as u64)
    }

    /// Connections that agents have taken since the fence was raised, and the same written down.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn accepted(&self) -> Result<u64, FenceError> {
        self.pins.state(slot::ACCEPTED)
    }

    /// # Errors
    /// The map cannot be written.
    pub fn set_accepted(&self, accepted: u64) -> Result<(), FenceError> {
        self.pins.set_state(slot::ACCEPTED, accepted)
    }

    /// The record on an accepted socket; `None` when there is none.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn origin(&self, socket: &impl std::os::fd::AsRawFd) -> Result<Option<Origin>, FenceError> {
        self.pins.origins.lookup(&socket.as_raw_fd())
    }

    /// The cgroup tree below the attach point.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Id of the agent's own cgroup.
    #[must_use]
    pub fn own_cgroup(&self) -> u64 {
        self.own.id()
    }

    /// Layers that this kernel could not have, by name, for `weir check` and `weir status`.
    #[must_use]
    pub fn missing_layers(&self) -> &[&'static str] {
        &self.missing
    }

    /// What the kernel knows of cgroups to come; `None` where it cannot label them.
    #[must_use]
    pub fn births(&self) -> Option<&Births> {
        self.births.as_ref()
    }

    /// Passes the programs' log records to this process's log; ends at once unless `weir::kernel` logs at debug level.
    ///
    /// # Errors
    /// It was called before, or the runtime has no I/O driver.
    pub async fn forward_logs(&self) -> Result<(), FenceError> {
        logs::forward(&self.object).await
    }

    /// Lifts the fence: removes every pin, so that the programs leave the kernel. Audit it first.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn lift(&self) -> Result<(), FenceError> {
        lift(self.pins.folder())
    }
}

/// Whether pins of a fence are there, with or without an agent behind them.
#[must_use]
pub fn is_up(settings: &config::Fence) -> bool {
    bpffs::folder(&settings.bpffs).is_dir()
}

/// Removes the pins of a fence without its agent. Returns false when none was up.
///
/// # Errors
/// A pin cannot be removed; [`FenceError::Held`] when the agent of these pins still runs, which must lift it itself.
pub fn detach(settings: &config::Fence) -> Result<bool, FenceError> {
    let folder = bpffs::folder(&settings.bpffs);
    if !folder.is_dir() {
        return Ok(false);
    }
    let _lock = bpffs::lock(&folder)?;
    lift(&folder)?;
    Ok(true)
}

fn lift(folder: &Path) -> Result<(), FenceError> {
    bpffs::remove(folder).map_err(|source| FenceError::NoBpffs { path: folder.into(), source })
}

/// `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// The one form of an address in the maps.
#[must_use]
pub fn address(ip: IpAddr) -> weir_ebpf::Address {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address_as_dialled(origin: &crate::listen::Origin) -> weir_ebpf::Address {
    address(SocketAddr::ip(&origin.destination))
}
