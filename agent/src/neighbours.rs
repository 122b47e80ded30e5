//! Watch over the hooks: a program of somebody else's that appears beside the fence's is told in the log, in the audit and
//! in `weir status`. It refuses to remove what is not ours.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weir_core::audit::Decision;

use crate::app::Agent;
use crate::kernel::neighbour::Neighbour;

/// Those that are there now.
#[derive(Debug, Default)]
pub struct Neighbours(Mutex<BTreeSet<Neighbour>>);

impl Neighbours {
    /// In words, for `weir status`.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.lock().iter().map(|one| format!("{}: program {}", one.hook, one.program)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Neighbour>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again.
pub(crate) async fn keep(agent: &Arc<Agent>) {
    loop {
        let looking = Arc::clone(agent);
        if let Ok(found) = tokio::task::spawn_blocking(move || look(&looking)).await {
            let before = std::mem::replace(&mut *agent.neighbours.lock(), found.clone());
            for one in found.difference(&before) {
                let words =
                    format!("program {} of somebody else's runs at {} for a workload", one.program, one.hook);
                tracing::error!(
                    hook = one.hook,
                    program = one.program,
                    "Somebody else's program runs beside the fence."
                );
                agent.record_as("neighbour", &words, Decision::Failed);
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Over all labelled cgroups. One that is gone meanwhile has none.
fn look(agent: &Agent) -> BTreeSet<Neighbour> {
    let mut found = BTreeSet::new();
    agent.workloads.each_cgroup(&agent.fence, &mut |_, folder, _| {
        found.extend(agent.fence.neighbours(folder).unwrap_or_default());
    });
    found
}

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(5);
