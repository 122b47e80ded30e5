//! What the relaying process says, lane by lane. It refuses to go on with one that is not understood.

use std::sync::Arc;

use super::{Half, answer, lock};
use crate::app::Agent;
use crate::lane::Lane;
use crate::lane::message::{ToKeeper, ToRelay};

/// Hears one lane until it ends.
pub(super) async fn tend(agent: Arc<Agent>, half: Arc<Half>, lane: Lane) {
    let flushing = lane.clone();
    let heard = async {
        loop {
            match lane.receive::<ToKeeper>().await {
                Ok(Some((note, _))) => hear(&agent, &half, &lane, note).await,
                Ok(None) => return,
                Err(fault) => {
                    tracing::error!(%fault, "What the relaying process says is not understood: it is ended.");
                    lane.close();
                    half.main.close();
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = heard => {}
        _ = flushing.flush() => {}
    }
}

async fn hear(agent: &Arc<Agent>, half: &Arc<Half>, lane: &Lane, note: ToKeeper) {
    match note {
        ToKeeper::Ready(confined) => {
            let _ = half.confined.set(confined);
            half.ready.notify_one();
        }
        ToKeeper::InForce { commit, sha } => *lock(&half.in_force) = (commit, sha),
        ToKeeper::Ended { session } => drop(half.leave(session)),
        ToKeeper::Look => agent.ledger.look(),
        ToKeeper::Spare => match agent.ledger.intake(half.writer) {
            Ok(file) => half.tell(&half.main, &ToRelay::Intake, vec![file.into()]),
            Err(fault) => tracing::error!(%fault, "There is no further intake for the relaying process."),
        },
        ToKeeper::Withdraw { question } => agent.desk.withdraw(&question),
        ToKeeper::Call { id, call } => {
            let (agent, half, lane) = (Arc::clone(agent), Arc::clone(half), lane.clone());
            // It is never closed.
            let place = Arc::clone(&half.calls).acquire_owned().await;
            tokio::spawn(async move {
                let _place = place;
                let (reply, fds) = answer::answer(&agent, &half, call).await;
                half.tell(&lane, &ToRelay::Reply { id, reply }, fds);
            });
        }
    }
}
