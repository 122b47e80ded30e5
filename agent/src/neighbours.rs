//! Watch over the hooks: what somebody takes off them is put back, and a program of somebody else's that appears beside the
//! fence's is named; both are told in the log, in the audit and in `weir status`. It refuses to remove what is not ours.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_core::audit::Decision;

use crate::app::Agent;
use crate::kernel::neighbour::{self, Neighbour};

/// What the last looks found.
#[derive(Debug, Default)]
pub struct Neighbours(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    programs: BTreeSet<Neighbour>,
    /// Why the fence is not whole.
    fault: Option<String>,
}

impl Neighbours {
    /// Programs of others, in words.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.lock().programs.iter().map(|one| format!("{}: program {}", one.hook, one.program)).collect()
    }

    /// Why the fence is not whole, while that is so.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again: often for what the fence rests on, seldom for what stands beside it.
pub(crate) async fn keep(agent: &Arc<Agent>) {
    loop {
        for _ in 0..SELDOM {
            in_background(agent, hold).await;
            tokio::time::sleep(PERIOD).await;
        }
        in_background(agent, look).await;
    }
}

async fn in_background(agent: &Arc<Agent>, act: fn(&Agent)) {
    let agent = Arc::clone(agent);
    if let Err(fault) = tokio::task::spawn_blocking(move || act(&agent)).await {
        tracing::error!(%fault, "A look at the hooks failed.");
    }
}

/// Puts back what somebody has taken off.
fn hold(agent: &Agent) {
    let (words, fault) = match agent.fence.hold() {
        Ok(lost) if lost.is_empty() => (None, None),
        Ok(lost) => {
            let lost: Vec<String> = lost.into_iter().collect();
            (
                Some(format!("somebody took these from the fence, and they are back: {}", lost.join(", "))),
                None,
            )
        }
        Err(fault) => {
            let words = format!("somebody took from the fence what cannot be put back: {fault}");
            (Some(words.clone()), Some(words))
        }
    };
    let before = std::mem::replace(&mut agent.neighbours.lock().fault, fault.clone());
    if let Some(words) = words.filter(|_| fault.is_none() || fault != before) {
        tracing::error!("{words}");
        agent.record_as("fence", &words, Decision::Failed);
    }
}

/// Names what is new beside the fence, over all labelled cgroups. One that is gone meanwhile has none.
fn look(agent: &Agent) {
    let Ok(hooks) = agent.fence.turning_hooks() else { return };
    let mut found = BTreeSet::new();
    agent.workloads.each_cgroup(&agent.fence, &mut |_, folder, _| {
        found.extend(neighbour::neighbours(&hooks, folder).unwrap_or_default());
    });
    let before = std::mem::replace(&mut agent.neighbours.lock().programs, found.clone());
    for Neighbour { hook, program } in found.difference(&before) {
        tracing::error!(hook, program, "Somebody else's program runs beside the fence.");
        let words = format!("program {program} of somebody else's runs at {hook} for a workload");
        agent.record_as("neighbour", &words, Decision::Failed);
    }
}

/// Between two looks at what the fence rests on.
const PERIOD: Duration = Duration::from_secs(1);
/// So many of them for one at what stands beside it.
const SELDOM: u32 = 5;
