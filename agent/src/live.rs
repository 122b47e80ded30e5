//! The connections being served, and on whose behalf: so that those of one workload, person or process tree can be ended
//! at once (`weir revoke`). It refuses nothing that comes later: that is the policy's business.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use weir_core::identity::Identity;

/// Whose connections are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    Workload(String),
    /// By the user's name, as `people` of the configuration has it.
    User(String),
    /// A process, and those that descend from it.
    Process(u32),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Connection>,
}

struct Connection {
    identity: Arc<Identity>,
    /// Gone once it was used.
    end: Option<End>,
}

/// One served connection's place in the list; it leaves with it.
#[derive(Debug)]
pub struct Seat {
    registry: Arc<Registry>,
    number: u64,
}

/// Tells a connection to end, and why; false when it ends by itself this moment.
pub type End = Box<dyn FnOnce(String) -> bool + Send>;

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Registry {
    /// Adds a connection.
    pub fn enter(self: &Arc<Self>, identity: &Arc<Identity>, end: End) -> Seat {
        let mut open = self.lock();
        open.next += 1;
        let number = open.next;
        let connection = Connection { identity: Arc::clone(identity), end: Some(end) };
        open.connections.insert(number, connection);
        Seat { registry: Arc::clone(self), number }
    }

    /// Tells the connections meant to end, with these words for the audit. Returns how many were told.
    pub fn revoke(&self, whose: &Whose, reason: &str) -> usize {
        let tree = match whose {
            Whose::Process(root) => tree(*root, &parents()),
            Whose::Workload(_) | Whose::User(_) => HashSet::new(),
        };
        let mut told = 0;
        for connection in self.lock().connections.values_mut() {
            let identity = &connection.identity;
            let meant = match whose {
                Whose::Workload(name) => identity.workload == *name,
                Whose::User(name) => identity.user == *name,
                Whose::Process(_) => tree.contains(&identity.process.pid),
            };
            if meant && let Some(end) = connection.end.take() {
                told += usize::from(end(reason.to_owned()));
            }
        }
        told
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.lock().connections.remove(&self.number);
    }
}

/// Process → its parent, for all there are (proc_pid_status(5)).
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        Some((pid, parent))
    })
    .collect()
}

/// `root` and all that descend from it.
fn tree(root: u32, parents: &[(u32, u32)]) -> HashSet<u32> {
    let mut found = HashSet::from([root]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| found.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::identity::Process;

    fn identity(workload: &str, user: &str, pid: u32) -> Arc<Identity> {
        let process = Process { pid, ..Process::default() };
        Arc::new(Identity {
            workload: workload.into(),
            owner: String::new(),
            user: user.into(),
            groups: Vec::new(),
            class: weir_core::identity::Class::Service,
            process,
        })
    }

    #[test]
    fn those_meant_are_told_once_and_the_others_are_not() {
        let live = Arc::new(Registry::default());
        let (tell, told) = std::sync::mpsc::channel();
        let end = |number: u32| -> End {
            let tell = tell.clone();
            Box::new(move |reason| tell.send((number, reason)).is_ok())
        };
        let _first = live.enter(&identity("app", "eva", 1), end(1));
        let _second = live.enter(&identity("app", "bob", 2), end(2));
        drop(live.enter(&identity("app", "bob", 3), end(3)));
        assert_eq!(live.revoke(&Whose::User("bob".into()), "left"), 1);
        assert_eq!(told.try_recv().unwrap(), (2, "left".to_owned()));
        assert!(told.try_recv().is_err());
        assert_eq!(live.revoke(&Whose::Workload("app".into()), "all"), 1, "the other was told before");
        assert_eq!(live.revoke(&Whose::Workload("else".into()), "none"), 0);
    }

    #[test]
    fn a_tree_is_a_process_and_its_descendants_in_any_order() {
        let parents = [(30, 20), (20, 10), (11, 1), (10, 1), (40, 30)];
        assert_eq!(tree(10, &parents), HashSet::from([10, 20, 30, 40]));
        assert_eq!(tree(11, &parents), HashSet::from([11]));
    }

    #[test]
    fn this_process_descends_from_its_parent() {
        let parent = std::os::unix::process::parent_id();
        assert!(tree(parent, &parents()).contains(&std::process::id()));
    }
}
