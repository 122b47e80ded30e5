//! Connections of labelled workloads that did not pass the fence: older than the label, or connected by somebody else and
//! passed in. The kernel's list of sockets is looked through again and again, and they are ended.
//! It refuses to end what came from outside: a connection to a port on which the workload listens.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::audit::{Decision, Kind, Record};

use crate::app::Agent;
use crate::clock;
use crate::kernel::diag::{self, Found};
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
}

/// Looks for ever. The share of one processor that it takes is bounded, however many sockets there are.
pub(crate) async fn keep(agent: &Arc<Agent>) {
    loop {
        let began = Instant::now();
        let looking = Arc::clone(agent);
        if let Err(fault) = tokio::task::spawn_blocking(move || once(&looking)).await {
            tracing::error!(%fault, "The look for strays failed.");
        }
        tokio::time::sleep(PERIOD.max(began.elapsed() * RESTS)).await;
    }
}

/// Ends every stray there is now.
pub(crate) fn once(agent: &Agent) {
    let ours = Ours::of(agent);
    if ours.cgroups.is_empty() {
        return;
    }
    let end = |port: Option<u16>| -> io::Result<Vec<Stray>> {
        let sockets = diag::tcp_sockets()?;
        let mut ended = Vec::new();
        for (found, stray) in strays(&sockets, &ours, port) {
            if diag::destroy(found)? {
                ended.push(stray);
            }
        }
        Ok(ended)
    };
    for (cookie, file) in agent.namespaces.all() {
        let port = agent.fence.listener(cookie).ok().flatten().map(|listener| listener.port4);
        let done = match file {
            Some(file) => netns::inside(&file, || end(port)),
            None => end(port),
        };
        match done {
            Ok(ended) => ended.iter().for_each(|stray| record(agent, stray)),
            Err(fault) => {
                tracing::warn!(%fault, "Strays cannot be ended: connections older than a label go on.")
            }
        }
    }
}

/// The strays of one network namespace, whose listener has this port.
fn strays<'a>(sockets: &'a [Found], ours: &Ours, port: Option<u16>) -> Vec<(&'a Found, Stray)> {
    let listening: HashSet<u16> =
        sockets.iter().filter(|found| found.is_listening).map(|found| found.local.port()).collect();
    let connected = sockets.iter().filter(|found| !found.is_listening);
    connected
        .filter(|found| {
            let turned = found.remote.ip().is_loopback() && Some(found.remote.port()) == port;
            !turned && !listening.contains(&found.local.port())
        })
        .filter_map(|found| {
            let (workload, pid) = match ours.held.get(&found.inode) {
                Some((workload, pid)) => (workload.clone(), *pid),
                None => (ours.cgroups.get(&found.cgroup)?.clone(), 0),
            };
            Some((found, Stray { workload, pid, remote: found.remote }))
        })
        .collect()
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
        let inodes = sockets_of(Path::new("/proc/self/fd"));
        let sockets = diag::tcp_sockets().unwrap();
        let held = inodes.iter().map(|inode| (*inode, ("app".to_owned(), 7))).collect();
        let ours = Ours { held, ..Ours::default() };
        let remotes = |port| -> Vec<(SocketAddr, SocketAddr)> {
            strays(&sockets, &ours, port).iter().map(|(found, stray)| (found.local, stray.remote)).collect()
        };
        let outward = (client.local_addr().unwrap(), address);
        assert!(remotes(None).contains(&outward), "it did not pass the fence");
        assert!(!remotes(Some(address.port())).contains(&outward), "it was turned");
        let inward = (accepted.local_addr().unwrap(), accepted.peer_addr().unwrap());
        assert!(!remotes(None).contains(&inward), "it came from outside");
        assert!(strays(&sockets, &Ours::default(), None).is_empty(), "nobody is labelled");
    }
}
