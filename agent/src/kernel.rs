//! The fence in the kernel: load, attach, pin, take over, steer, lift. Pinned links outlive the agent, so a dead agent
//! means refused connections and never open ones. It refuses to run half a fence: all programs attach, or none.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weir_ebpf::slot;

pub mod birth;
pub mod bpffs;
mod btf;
pub mod capability;
pub mod cgroup;
mod crowded;
pub mod datagram;
pub mod diag;
mod error;
pub mod feature;
mod hold;
pub mod inherit;
mod load;
mod logs;
pub mod neighbour;
pub mod resolv;
mod steer;
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
pub use table::{Pins, Plain, Table};

use crate::config;

/// The heartbeat's period; the hooks call an agent dead after five missed beats.
pub const HEARTBEAT: Duration = Duration::from_millis(300);
/// How long an agent may take to come back from an upgrade.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a failed dial is repeated by the hook itself.
pub const FAILURE_KEPT: Duration = Duration::from_millis(1500);
/// How long the record of a handshake is kept. The kernel sends a SYN for about two minutes (`tcp_syn_retries`).
pub const HANDSHAKE_KEPT: Duration = Duration::from_secs(300);

/// What the fence is made of, in the order in which a connection meets it: new cgroups are labelled in the kernel, sockets
/// made, connected, sent on; what has another error than EPERM; who runs before others; what is looked for and ended.
pub const LAYERS: [&str; 11] = [
    "birth",
    "create",
    "connect",
    "udp",
    "unix",
    "wall",
    "port guard",
    "netns",
    "errno",
    "preorder",
    "sweep",
];

/// Names of unix sockets, by their first bytes, that labelled tasks may not connect to: PostgreSQL's.
const REFUSED_SOCKETS: [&weir_ebpf::SocketName; 1] = [b".s.PGSQL"];

/// A fence that is up. Dropping it leaves it closed: the pins stay, the heartbeat ends.
pub struct Fence {
    tree: Tree,
    own: cgroup::Own,
    pins: Pins,
    crowded: crowded::Crowded,
    /// Held for as long as the agent lives, so that no second agent takes the same pins.
    lock: Mutex<OwnedFd>,
    /// The locks on pins of other layouts, which guard until this fence has its labels.
    older: Mutex<Vec<OwnedFd>>,
    held: hold::Held,
    /// Keeps the unpinned maps (logs) alive.
    object: Mutex<aya::Ebpf>,
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
    /// See [`FenceError`]; on an error the fence is as it was, or closed.
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
        require(&settings.require, &layers)?;
        let folder = bpffs::prepare(&settings.bpffs)?;
        let upgrade = lock.is_some();
        let (lock, others) = bpffs::lock_all(&settings.bpffs, &folder, lock)?;
        let own = cgroup::Own::enter(&tree)?;
        let mut object = load::load(&folder)?;
        let pins = Pins::open(&folder)?;
        let crowded = crowded::Crowded::open(&folder)?;
        if !upgrade {
            pins.set_state(slot::HEARTBEAT, 0)?;
        }
        pins.set_state(slot::AGENT_CGROUP, own.id())?;
        for name in REFUSED_SOCKETS {
            pins.socket_names.insert(name, &1)?;
        }
        let attached = load::attach(&mut object, &folder, &tree)?;
        layers.extend(attached.iter().filter(|layer| !layers.contains(layer)).copied().collect::<Vec<_>>());
        require(&settings.require, &layers)?;
        let births =
            if layers.contains(&Feature::Birth.layer()) { None } else { Some(Births::open(&folder)?) };
        let held = hold::Held::of(&folder).map_err(|source| FenceError::NoBpffs { path: folder, source })?;
        let (lock, object, older) = (lock.into(), object.into(), others.into());
        Ok(Self { tree, own, pins, crowded, lock, older, held, object, missing: layers, births })
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
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).try_clone()
    }

    /// Says that the agent leaves: labelled connections are refused at once, not after the heartbeat has gone stale.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn leave(&self) -> Result<(), FenceError> {
        self.pins.set_state(slot::HEARTBEAT, 0)
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
        self.held.lift(self.pins.folder())
    }

    /// The labels are in force: the pins of other versions go. Until then they guard, since a fence without labels is open.
    pub fn supersede(&self, settings: &config::Fence) {
        let mut older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        bpffs::remove_old_layouts(&settings.bpffs);
        older.clear();
    }
}

/// Refuses a kernel that lacks what the configuration demands.
fn require(wanted: &[String], missing: &[&str]) -> Result<(), FenceError> {
    for layer in wanted {
        if !LAYERS.contains(&layer.as_str()) {
            return Err(FenceError::UnknownLayer(layer.clone()));
        }
        if missing.contains(&layer.as_str()) {
            return Err(FenceError::Required(layer.clone()));
        }
    }
    Ok(())
}

/// Whether pins of a fence are there, with or without an agent behind them, of this version or another.
#[must_use]
pub fn is_up(settings: &config::Fence) -> bool {
    !bpffs::layouts(&settings.bpffs).is_empty()
}

/// Removes the pins of a fence without its agent. Returns false when none was up.
///
/// # Errors
/// A pin cannot be removed; [`FenceError::Held`] when the agent of these pins still runs, which must lift it itself.
pub fn detach(settings: &config::Fence) -> Result<bool, FenceError> {
    let layouts = bpffs::layouts(&settings.bpffs);
    let locks: Vec<OwnedFd> = layouts.iter().map(|folder| bpffs::lock(folder)).collect::<Result<_, _>>()?;
    layouts.iter().try_for_each(|folder| lift(folder))?;
    drop(locks);
    Ok(!layouts.is_empty())
}

/// Has the kernel verify the programs, and attaches nothing. Returns the layers that it could not have.
///
/// # Errors
/// It does not take one of them; which one, and why. It lacks what the configuration demands.
pub fn try_out(settings: &config::Fence) -> Result<Vec<&'static str>, FenceError> {
    let missing = feature::layers_missing()?;
    require(&settings.require, &missing)?;
    load::try_out()?;
    Ok(missing)
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
