//! Connections of labelled workloads that did not pass the fence: older than the label, or connected by somebody else and
//! passed in. The kernel's list of sockets is looked through again and again, and they are ended.
//! It refuses to end what came from outside: a connection to a port on which the workload listens.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::audit::{Decision, Kind, Record};
use weir_ebpf::{DNS_NET, DNS_NET_MASK, Listener};

use crate::app::Agent;
use crate::clock;
use crate::kernel::diag::{self, Found, Protocol};
use crate::netns;

/// Sockets of labelled workloads, by either sign: the cgroup they were born in, or a process that holds them.
#[derive(Debug, Default)]
struct Ours {
    /// Cgroup id → workload.
    cgroups: HashMap<u64, String>,
    /// Inode of a held socket → workload and process.
    held: HashMap<u64, (String, u32)>,
}

/// A connection that was ended.
#[derive(Debug, PartialEq, Eq)]
struct Stray {
    workload: String,
    /// 0 when no process holds it any more.
    pid: u32,
    remote: SocketAddr,
    /// It asked an agent's DNS sockets that are gone: dead, and nobody's fault.
    asked_us: bool,
}

/// Connections that came from outside, by the kernel's cookie: they stay such when their listener is closed.
pub(crate) type Inward = HashSet<u64>;

/// Looks for ever. The share of one processor that it takes is bounded, however many sockets there are.
pub(crate) async fn keep(agent: &Arc<Agent>) {
    let mut inward = Inward::new();
    loop {
        let began = Instant::now();
        let (looking, before) = (Arc::clone(agent), std::mem::take(&mut inward));
        match tokio::task::spawn_blocking(move || once(&looking, &before)).await {
            Ok(now) => inward = now,
            Err(fault) => tracing::error!(%fault, "The look for strays failed."),
        }
        tokio::time::sleep(PERIOD.max(began.elapsed() * RESTS)).await;
    }
}

/// Ends every stray there is now. Returns what came from outside; `before` did so at the last look.
pub(crate) fn once(agent: &Agent, before: &Inward) -> Inward {
    let (ours, mut inward) = (Ours::of(agent), Inward::new());
    if ours.cgroups.is_empty() {
        return inward;
    }
    let mut end = |listener: Option<Listener>| -> io::Result<Vec<Stray>> {
        let sockets = diag::sockets()?;
        let mut ended = Vec::new();
        for (found, stray) in strays(&sockets, &ours, listener, before, &mut inward) {
            if diag::destroy(found)? {
                ended.push(stray);
            }
        }
        Ok(ended)
    };
    for (cookie, file) in agent.namespaces.all() {
        let listener = agent.fence.listener(cookie).ok().flatten();
        let done = match file {
            Some(file) => netns::inside(&file, || end(listener)),
            None => end(listener),
        };
        match done {
            Ok(ended) => ended.iter().filter(|stray| !stray.asked_us).for_each(|stray| record(agent, stray)),
            Err(fault) => {
                tracing::warn!(%fault, "Strays cannot be ended: connections older than a label go on.")
            }
        }
    }
    inward
}

/// The strays of one network namespace, which this listener serves.
fn strays<'a>(
    sockets: &'a [Found],
    ours: &Ours,
    listener: Option<Listener>,
    before: &Inward,
    inward: &mut Inward,
) -> Vec<(&'a Found, Stray)> {
    let listening: HashSet<u16> =
        sockets.iter().filter(|found| found.is_listening).map(|found| found.local.port()).collect();
    let mut strays = Vec::new();
    for found in sockets.iter().filter(|found| !found.is_listening) {
        let owner = match ours.held.get(&found.inode) {
            Some((workload, pid)) => Some((workload, *pid)),
            None => ours.cgroups.get(&found.cgroup).map(|workload| (workload, 0)),
        };
        let Some((workload, pid)) = owner else { continue };
        if listener.is_some_and(|listener| is_turned(found, &listener)) {
            continue;
        }
        // A server of datagrams does not connect: it would hear one client only.
        let may_be_inward = found.protocol == Protocol::Tcp;
        if may_be_inward && (listening.contains(&found.local.port()) || before.contains(&found.cookie())) {
            inward.insert(found.cookie());
            continue;
        }
        let asked_us = found.protocol == Protocol::Udp && is_for_questions(found.remote.ip());
        strays.push((found, Stray { workload: workload.clone(), pid, remote: found.remote, asked_us }));
    }
    strays
}

/// Does it lead to the agent?
fn is_turned(found: &Found, listener: &Listener) -> bool {
    let port = found.remote.port();
    let is_ours = match found.protocol {
        Protocol::Tcp => [listener.port4, listener.port6].contains(&port),
        Protocol::Udp => port == listener.dns4 || listener.dns6.contains(&port),
    };
    is_ours && port != 0 && found.remote.ip().is_loopback()
}

/// Where the fence turns questions to.
fn is_for_questions(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => u32::from(v4) & DNS_NET_MASK == DNS_NET,
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

impl Ours {
    fn of(agent: &Agent) -> Self {
        let mut ours = Ours::default();
        agent.workloads.each_cgroup(&agent.fence, &mut |id, folder, workload| {
            ours.cgroups.insert(id, workload.to_owned());
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in text.lines().filter_map(|line| line.parse::<u32>().ok()) {
                for inode in sockets_of(Path::new(&format!("/proc/{pid}/fd"))) {
                    ours.held.entry(inode).or_insert_with(|| (workload.to_owned(), pid));
                }
            }
        });
        ours
    }
}

/// Inodes of the sockets among a process's descriptors. A process that has ended holds none.
fn sockets_of(folder: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |target: std::path::PathBuf| {
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    };
    targets.filter_map(inode).collect()
}

fn record(agent: &Agent, stray: &Stray) {
    tracing::warn!(workload = stray.workload, pid = stray.pid, remote = %stray.remote, "A connection that did not pass the fence was ended.");
    agent.append(&Record {
        ts: clock::wall_ns(),
        kind: Kind::Connection,
        decision: Decision::Denied,
        rule: "sweep".into(),
        reason: "it did not pass the fence: older than the label, or connected by another process".into(),
        workload: stray.workload.clone(),
        pid: stray.pid.into(),
        dst_ip: stray.remote.ip().to_string(),
        dst_port: stray.remote.port().into(),
        ..Record::default()
    });
}

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// A look is followed by a rest of at least so many times its own length.
const RESTS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outward_connections_of_ours_that_were_not_turned_are_strays() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = server.accept().unwrap();
        let named = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        named.connect("127.0.0.1:9").unwrap();
        let inodes = sockets_of(Path::new("/proc/self/fd"));
        let sockets = diag::sockets().unwrap();
        let held = inodes.iter().map(|inode| (*inode, ("app".to_owned(), 7))).collect();
        let ours = Ours { held, ..Ours::default() };
        let mut inward = Inward::new();
        let mut remotes = |listener| -> Vec<(SocketAddr, SocketAddr)> {
            let strays = strays(&sockets, &ours, listener, &Inward::new(), &mut inward);
            strays.iter().map(|(found, stray)| (found.local, stray.remote)).collect()
        };
        let outward = (client.local_addr().unwrap(), address);
        assert!(remotes(None).contains(&outward), "it did not pass the fence");
        let none = Listener { port4: 0, port6: 0, dns4: 0, dns6: [0; _], routes: 0 };
        let listener = Listener { port4: address.port(), dns4: 9, ..none };
        assert!(!remotes(Some(listener)).contains(&outward), "it was turned");
        let datagrams = (named.local_addr().unwrap(), named.peer_addr().unwrap());
        assert!(remotes(Some(Listener { dns4: 0, ..listener })).contains(&datagrams), "a peer of its own");
        assert!(!remotes(Some(listener)).contains(&datagrams), "it asks the agent");
        let came = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
        assert!(!remotes(None).contains(&came), "it came from outside");
        let nobody = strays(&sockets, &Ours::default(), None, &Inward::new(), &mut Inward::new());
        assert!(nobody.is_empty(), "nobody is labelled");

        // The listener is closed, as servers do that end with grace: what it took goes on.
        drop(server);
        let later = diag::sockets().unwrap();
        let strays = strays(&later, &ours, None, &inward, &mut Inward::new());
        assert!(!strays.iter().any(|(found, _)| (found.local, found.remote) == came), "it is remembered");
    }
}
