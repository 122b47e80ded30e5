//! Steering a fence that is up: whom it concerns, where it turns them, what it knows of those who came, what it counted.
//! It refuses to hold state of its own: everything lies in the pinned maps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use weir_ebpf::{Dialled, Failure, Listener, NO_ROUTE6, Origin, SOCKET_PATH_BYTES, SocketPath, Tuple, lacks};

use super::crowded::is_full;
use super::{
    FAILURE_KEPT, Feature, Fence, FenceError, HANDSHAKE_KEPT, Strangers, address, monotonic_ns, slot,
};

impl Fence {
    /// Turns the labelled connections of one network namespace to this listener.
    ///
    /// # Errors
    /// The map is full or cannot be written.
    pub fn serve(&self, netns: u64, listener: Listener) -> Result<(), FenceError> {
        self.pins.listeners.insert(&netns, &listener)?;
        // The host's own is the first.
        if self.pins.state(slot::SERVED)? == 0 { self.pins.set_state(slot::SERVED, netns) } else { Ok(()) }
    }

    /// Who serves this network namespace.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn listener(&self, netns: u64) -> Result<Option<Listener>, FenceError> {
        self.pins.listeners.lookup(&netns)
    }

    /// Whether global addresses of v6 can be reached from this network namespace; if not, they are refused at once.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn routes6(&self, netns: u64, has: bool) -> Result<(), FenceError> {
        let routes = if has { 0 } else { NO_ROUTE6 };
        match self.listener(netns)? {
            Some(listener) if listener.routes != routes => self.serve(netns, Listener { routes, ..listener }),
            Some(_) | None => Ok(()),
        }
    }

    /// Nobody serves this network namespace any more: its labelled connections are refused.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn unserve(&self, netns: u64) -> Result<(), FenceError> {
        if self.pins.state(slot::SERVED)? == netns {
            self.pins.set_state(slot::SERVED, 0)?;
        }
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

    /// Labels the connections of a cgroup and its children, or has them refused where there is no room for that.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn label(&self, cgroup: u64, label: u64) -> Result<(), FenceError> {
        let given = self.pins.labels.insert(&cgroup, &label);
        match self.crowded.settle(cgroup, lacks::LABEL, given) {
            Err(fault) if is_full(&fault) => self.crowded.spill(&self.tree, cgroup),
            done => done,
        }
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

    /// Replaces the unix sockets that some workloads are held to: label, name and paths of each.
    ///
    /// # Errors
    /// A path that fits no socket; a kernel without this hook, when there is anything to hold; a map that is full.
    pub fn boxed(&self, workloads: &[(u64, &str, &[PathBuf])]) -> Result<(), FenceError> {
        let mut keys = Vec::new();
        for (label, name, paths) in workloads {
            if self.missing_layers().contains(&Feature::Unix.layer()) {
                return Err(FenceError::NoUnix((*name).to_owned()));
            }
            for path in *paths {
                let fault = || FenceError::SocketPath { workload: (*name).to_owned(), path: path.clone() };
                keys.push(socket_path(*label, path).ok_or_else(fault)?);
            }
        }
        // What is allowed first: nobody is held to an empty list in between.
        keys.iter().try_for_each(|key| self.pins.socket_paths.insert(key, &1))?;
        workloads.iter().try_for_each(|(label, ..)| self.pins.boxed.insert(label, &1))?;
        for (label, _) in self.pins.boxed.entries()? {
            if !workloads.iter().any(|(boxed, ..)| *boxed == label) {
                self.pins.boxed.remove(&label)?;
            }
        }
        for (key, _) in self.pins.socket_paths.entries()? {
            if !keys.contains(&key) {
                self.pins.socket_paths.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Takes a label away. The sockets that were born with it keep it.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn unlabel(&self, cgroup: u64) -> Result<(), FenceError> {
        self.pins.labels.remove(&cgroup)?;
        self.crowded.settle(cgroup, lacks::LABEL, Ok(()))
    }

    /// Labels in force: cgroup id → label, [`weir_ebpf::CROWDED`] where there was no room for one. Their cgroups can be
    /// seen, unless they are gone.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn labels(&self) -> Result<HashMap<u64, u64>, FenceError> {
        let crowded = self.crowded.unlabelled()?.into_iter().map(|id| (id, weir_ebpf::CROWDED));
        let labels = crowded.chain(self.pins.labels.entries()?).collect();
        self.tree.settle()?;
        Ok(labels)
    }

    /// Folders of the cgroups that are labelled now, as far as they still are there.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn labelled(&self) -> Result<Vec<PathBuf>, FenceError> {
        let labels = self.pins.labels.entries()?;
        Ok(labels.into_iter().filter_map(|(id, _)| self.tree.folder_of(id)).collect())
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
        self.pins.failures.insert(&dialled, &failure)?;
        self.pins.set_state(slot::FAILING, until)
    }

    /// Everything the programs counted since the fence was first raised.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, FenceError> {
        self.pins.counters()
    }

    /// How many handshakes of turned connections are under way. What is older than any handshake can be is forgotten: an
    /// agent died between its half of it and the workload's.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn handshakes(&self) -> Result<u64, FenceError> {
        let oldest = monotonic_ns().saturating_sub(HANDSHAKE_KEPT.as_nanos() as u64);
        let entries = self.pins.handshakes.entries()?;
        let (old, under_way): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, origin)| origin.ktime < oldest);
        old.iter().try_for_each(|(tuple, _)| self.pins.handshakes.remove(tuple))?;
        Ok(under_way.len() as u64)
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
}

fn address_as_dialled(origin: &crate::listen::Origin) -> weir_ebpf::Address {
    address(SocketAddr::ip(&origin.destination))
}

/// As the kernel program writes it: the label, and the path with zeros after it.
fn socket_path(label: u64, path: &Path) -> Option<SocketPath> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > SOCKET_PATH_BYTES || bytes.contains(&0) {
        return None;
    }
    let mut key: SocketPath = [0; 15];
    let (first, words) = key.split_first_mut()?;
    *first = label;
    for (word, part) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..part.len()].copy_from_slice(part);
        *word = u64::from_ne_bytes(whole);
    }
    Some(key)
}
